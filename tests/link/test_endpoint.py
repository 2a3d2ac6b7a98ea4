from __future__ import annotations

import base64
import os
import ssl
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waD.link.endpoint import DEFAULT_URL, Endpoint, EndpointError
from waD.sandbox.identity import make_tls_files
from waD.wire.certs import ROOT_KEY


def test_the_default_is_whatsapp() -> None:
    endpoint = Endpoint()
    assert (endpoint.url, endpoint.root_key) == (DEFAULT_URL, ROOT_KEY)
    assert (endpoint.host, endpoint.port, endpoint.tls) == ("web.whatsapp.com", 443, True)
    assert (endpoint.host_header, endpoint.target()) == ("web.whatsapp.com", "/ws/chat")


@pytest.mark.parametrize(
    ("url", "host", "port", "tls", "header", "target"),
    [
        ("ws://127.0.0.1:8080/ws/chat", "127.0.0.1", 8080, False, "127.0.0.1:8080", "/ws/chat"),
        ("ws://localhost", "localhost", 80, False, "localhost", "/"),
        ("wss://localhost:443/x", "localhost", 443, True, "localhost", "/x"),
        ("wss://localhost:80/x", "localhost", 80, True, "localhost:80", "/x"),
        ("ws://[::1]:9/a", "::1", 9, False, "[::1]:9", "/a"),
        ("wss://[::1]/a?b=c", "::1", 443, True, "[::1]", "/a?b=c"),
        ("WSS://Web.WhatsApp.com/ws", "web.whatsapp.com", 443, True, "web.whatsapp.com", "/ws"),
    ],
)
def test_parts_of_a_url(url: str, host: str, port: int, tls: bool, header: str, target: str) -> None:
    endpoint = Endpoint(url)
    assert (endpoint.host, endpoint.port, endpoint.tls) == (host, port, tls)
    assert (endpoint.host_header, endpoint.target()) == (header, target)


@given(st.binary(min_size=1, max_size=64))
def test_routing_information_goes_along(info: bytes) -> None:
    """URL-safe alphabet, padding kept (chapter 01 §1.1)."""
    target = Endpoint().target(info)
    path, _, query = target.partition("?ED=")
    assert path == "/ws/chat"
    assert base64.urlsafe_b64decode(query) == info
    assert len(query) % 4 == 0
    assert Endpoint("ws://a/b?c=d").target(info) == f"/b?c=d&ED={query}"


@pytest.mark.parametrize("info", [None, b""])
def test_without_routing_information_nothing_is_added(info: bytes | None) -> None:
    assert Endpoint().target(info) == "/ws/chat"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "web.whatsapp.com",
        "https://web.whatsapp.com/ws",
        "wss://",
        "wss:///ws",
        "wss://:443/ws",
        "wss://host:0/ws",
        "wss://host:x/ws",
        "wss://host:99999/ws",
        "wss://[::1/ws",
        "wss://host/ws#part",
        "wss://host/a b",
        "wss://host/a\r\nX-Injected: 1",
        "wss://host/\x00",
        "wss://host/\x7f",
        " wss://host/ws",
        "wss://hóst/ws",
        "wss://user:secret@host/ws",
        "wss://user@host/ws",
    ],
)
def test_a_url_that_makes_no_sense(url: str) -> None:
    with pytest.raises(EndpointError, match="endpoint URL") as caught:
        Endpoint(url)
    assert "secret" not in str(caught.value)


@given(st.text(max_size=30) | st.text(max_size=20).map("wss://".__add__))
def test_any_text_is_an_endpoint_or_refused(url: str) -> None:
    try:
        endpoint = Endpoint(url)
    except EndpointError:
        return
    assert endpoint.host
    assert 0 < endpoint.port < 65_536
    for text in (endpoint.target(b"x"), endpoint.host_header):
        assert text.isascii()
        assert text.isprintable()
        assert " " not in text


@pytest.mark.parametrize("key", [b"", bytes(31), bytes(33)])
def test_a_root_key_has_32_bytes(key: bytes) -> None:
    with pytest.raises(EndpointError, match=f"root key has {len(key)} bytes"):
        Endpoint(root_key=key)


@pytest.mark.parametrize("proxy", ["http://proxy:3128", "http://user:secret@proxy:3128", "http://[::1]:1"])
def test_a_proxy(proxy: str) -> None:
    endpoint = Endpoint(proxy=proxy)
    assert endpoint.proxy == proxy
    assert "secret" not in repr(endpoint)
    assert "proxy=" in repr(endpoint)


@pytest.mark.parametrize(
    "proxy",
    ["", "proxy:3128", "socks5://user:secret@proxy", "https://user:secret@proxy", "http://user:secret@",
     "http://user:secret@proxy:x", "http://user:secret@proxy:0", "http://user:se cret@proxy", "http://[user:secret@x"],
)  # fmt: skip
def test_a_proxy_that_makes_no_sense_shows_no_password(proxy: str) -> None:
    with pytest.raises(EndpointError, match="proxy") as caught:
        Endpoint(proxy=proxy)
    assert "cret" not in str(caught.value)


# TLS.


def test_the_system_roots_are_used_and_nothing_is_switched_off() -> None:
    context = Endpoint().ssl_context()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert Endpoint("wss://elsewhere/ws").ssl_context() is context


def test_an_authority_of_our_own_is_added(tmp_path: Path) -> None:
    ca, _, _ = make_tls_files(tmp_path)
    context = Endpoint(ca_file=ca).ssl_context()
    assert context is not Endpoint().ssl_context()
    assert context is Endpoint(ca_file=ca).ssl_context()
    assert context.verify_mode is ssl.CERT_REQUIRED
    names = [str(found["subject"]) for found in context.get_ca_certs()]
    assert any("waD sandbox authority" in name for name in names)


def test_a_changed_authority_is_read_again(tmp_path: Path) -> None:
    ca, _, _ = make_tls_files(tmp_path / "one")
    other, _, _ = make_tls_files(tmp_path / "two")
    before = Endpoint(ca_file=ca).ssl_context()
    ca.write_bytes(other.read_bytes())
    os.utime(ca, ns=(1, 1))
    assert Endpoint(ca_file=ca).ssl_context() is not before


def test_an_authority_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "missing.pem"
    with pytest.raises(EndpointError, match=r"missing\.pem cannot be read"):
        Endpoint(ca_file=missing).ssl_context()
    for number, text in enumerate(
        ["", "no certificate", "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----"]
    ):
        bad = tmp_path / f"bad{number}.pem"
        bad.write_text(text)
        with pytest.raises(EndpointError, match="does not hold PEM certificates"):
            Endpoint(ca_file=bad).ssl_context()
    with pytest.raises(EndpointError, match="PEM"):
        Endpoint(ca_file=tmp_path).ssl_context()
