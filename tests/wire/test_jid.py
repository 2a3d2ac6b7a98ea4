"""Addresses (chapter 01 §6)."""

from __future__ import annotations

import dataclasses
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from waD.wire import jid as jids
from waD.wire.errors import JIDError
from waD.wire.jid import GROUP_SERVER, JID, SERVER, STATUS

FORMS = {
    "15550001111@s.whatsapp.net": JID("15550001111", "s.whatsapp.net"),
    "15550001111:7@s.whatsapp.net": JID("15550001111", "s.whatsapp.net", 7),
    "100000000000001:65535@lid": JID("100000000000001", "lid", 65535),
    "a.b@lid": JID("a.b", "lid"),
    "1.2@lid": JID("1.2", "lid"),
    "15550001111:99@hosted": JID("15550001111", "hosted", 99),
    "15550001111:99@hosted.lid": JID("15550001111", "hosted.lid", 99),
    "15550001111-1500000000@g.us": JID("15550001111-1500000000", "g.us"),
    "status@broadcast": STATUS,
    "120363000000000001@newsletter": JID("120363000000000001", "newsletter"),
    "9EDA524FBAC16DCC@call": JID("9EDA524FBAC16DCC", "call"),
    "867051314767696@bot": JID("867051314767696", "bot"),
    "277411233954092:258@msgr": JID("277411233954092", "msgr", 258),
    "300-3896121888:7@interop": JID("3896121888", "interop", 7, 300),
    "3896121888@interop": JID("3896121888", "interop"),
    "server@c.us": JID("server", "c.us"),
    "s.whatsapp.net": SERVER,
    "g.us": GROUP_SERVER,
    "some.name@s.whatsapp.net": JID("some.name", "s.whatsapp.net"),
    "x" * 64 + "@lid": JID("x" * 64, "lid"),
}


@pytest.mark.parametrize(("text", "address"), FORMS.items())
def test_text_form_both_ways(text: str, address: JID) -> None:
    assert JID.parse(text) == address
    assert str(address) == text


def test_device_zero_is_no_device_and_never_printed() -> None:
    assert JID.parse("15550001111:0@lid") == JID("15550001111", "lid")
    assert str(JID("15550001111", "lid", 0)) == "15550001111@lid"


@pytest.mark.parametrize("server", sorted(jids.KNOWN_SERVERS))
def test_a_server_is_read_with_and_without_at(server: str) -> None:
    assert JID.parse(server) == JID.parse(f"@{server}") == JID("", server)
    assert str(JID("", server)) == server
    assert JID("", server).is_server
    assert not JID("1", server).is_server


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "no_server"),
        ("15550001111", "no_server"),
        ("example.org", "no_server"),
        ("15550001111@", "bad_server"),
        ("15550001111@example.org", "unknown_server"),
        ("15550001111@S.whatsapp.net", "unknown_server"),
        ("15550001111@s.whatsapp.net ", "bad_server"),
        ("a@b@s.whatsapp.net", "bad_server"),
        ("1:2:3@lid", "bad_device"),
        ("1:@lid", "bad_device"),
        ("1:-1@lid", "bad_device"),
        ("1:+1@lid", "bad_device"),
        ("1:1.0@lid", "bad_device"),
        ("1:x@lid", "bad_device"),
        ("1:65536@lid", "bad_device"),
        ("1:000001@lid", "bad_device"),
        ("1:٣@lid", "bad_device"),
        (":5@lid", "bad_user"),
        ("a b@lid", "bad_user"),
        ("a\t@lid", "bad_user"),
        ("a\x00@lid", "bad_user"),
        ("a\x7f@lid", "bad_user"),
        ("a\u2028@lid", "bad_user"),
        ("a/b@lid", "bad_user"),
        ("x" * 65 + "@lid", "bad_user"),
        ("15550001111.0:5@s.whatsapp.net", "agent_form"),
        ("15550001111.1@s.whatsapp.net", "agent_form"),
        ("15550001111_1@s.whatsapp.net", "agent_form"),
        ("15550001111_1:5@lid", "agent_form"),
        ("15550001111_1@hosted", "agent_form"),
        ("70000-1@interop", "bad_device"),
        ("x-1@interop", "bad_device"),
    ],
)
def test_what_parse_refuses(text: str, code: str) -> None:
    with pytest.raises(JIDError) as caught:
        JID.parse(text)
    assert caught.value.code == code


def test_errors_show_only_the_beginning_of_a_long_text() -> None:
    with pytest.raises(JIDError) as caught:
        JID.parse("y" * 100_000 + "@lid")
    assert len(str(caught.value)) < 200


def test_a_relay_may_read_unknown_servers() -> None:
    assert JID.parse_any_server("1:2@example.org") == JID("1", "example.org", 2)
    with pytest.raises(JIDError):
        JID.parse_any_server("example.org")


@given(st.text(max_size=80))
@example("@")
@example(":@")
@example("1:1@interop")
@example("-@interop")
def test_any_text_parses_or_raises_only_its_error(text: str) -> None:
    try:
        address = JID.parse(text)
    except JIDError:
        return
    assert JID.parse(str(address)) == address


@given(
    st.from_regex(r"[A-Za-z0-9-]{1,64}", fullmatch=True),
    st.sampled_from(sorted(jids.KNOWN_SERVERS - {"interop"})),
    st.integers(0, 65535),
)
def test_parse_reads_what_str_writes(user: str, server: str, device: int) -> None:
    address = JID(user, server, device)
    assert JID.parse(str(address)) == address


def test_bare_account_and_with_device() -> None:
    device = JID("1", "s.whatsapp.net", 7)
    assert device.bare == JID("1", "s.whatsapp.net") == device.account
    assert device.bare.bare == device.bare
    assert device.with_device(9) == JID("1", "s.whatsapp.net", 9)
    assert device.with_device(0) == device.bare
    assert JID("1", "hosted", 99).bare == JID("1", "hosted")
    assert JID("1", "hosted", 99).account == JID("1", "s.whatsapp.net")
    assert JID("1", "hosted.lid", 99).account == JID("1", "lid")
    assert JID("1", "c.us").account == JID("1", "s.whatsapp.net")
    assert JID("1", "interop", 3, 300).bare == JID("1", "interop", 0, 300)
    assert JID("1", "g.us").account == JID("1", "g.us")
    assert SERVER.account == SERVER


def test_a_pn_and_a_lid_of_equal_digits_are_not_equal() -> None:
    assert JID("1", "s.whatsapp.net").account != JID("1", "lid").account


PEOPLE = ("is_pn", "is_lid", "is_user", "is_bot", "is_hosted")
KINDS = (*PEOPLE, "is_group", "is_broadcast", "is_status", "is_newsletter")


@pytest.mark.parametrize(
    ("address", "kinds"),
    [
        (JID("1", "s.whatsapp.net", 3), {"is_pn", "is_user"}),
        (JID("1", "c.us"), {"is_pn", "is_user"}),
        (JID("1", "hosted", 99), {"is_pn", "is_user", "is_hosted"}),
        (JID("1", "lid"), {"is_lid", "is_user"}),
        (JID("1", "hosted.lid", 99), {"is_lid", "is_user", "is_hosted"}),
        (JID("1", "g.us"), {"is_group"}),
        (STATUS, {"is_broadcast", "is_status"}),
        (JID("1", "broadcast"), {"is_broadcast"}),
        (JID("1", "newsletter"), {"is_newsletter"}),
        (JID("867051314767696", "bot"), {"is_bot"}),
        (JID("13135550002", "s.whatsapp.net"), {"is_pn", "is_user", "is_bot"}),
        (JID("13165550012", "c.us"), {"is_pn", "is_user", "is_bot"}),
        (JID("13165550112", "s.whatsapp.net"), {"is_pn", "is_user"}),
        (JID("131355500021", "s.whatsapp.net"), {"is_pn", "is_user"}),
        (JID("13135550002", "lid"), {"is_lid", "is_user"}),
        (JID("1", "call"), set()),
        (JID("1", "msgr"), set()),
        (SERVER, set()),
        (GROUP_SERVER, set()),
        (JID("", "lid"), set()),
        (JID("", "newsletter"), set()),
        (JID("", "broadcast"), set()),
        (JID("", "bot"), set()),
    ],
)
def test_kinds(address: JID, kinds: set[str]) -> None:
    assert {kind for kind in KINDS if getattr(address, kind)} == kinds


def test_signal_domain() -> None:
    domains = {"s.whatsapp.net": 0, "c.us": 0, "lid": 1, "hosted": 128, "hosted.lid": 129}
    assert {server: JID("1", server).signal_domain for server in domains} == domains
    with pytest.raises(JIDError, match="no Signal sessions"):
        _ = JID("1", "g.us").signal_domain


def test_is_frozen_small_and_hashable() -> None:
    address = JID("1", "lid", 2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        address.user = "2"  # type: ignore[misc]
    assert {address: 1}[JID("1", "lid", 2)] == 1
    assert sys.getsizeof(address) <= 72
    assert not hasattr(address, "__dict__")
