"""URLs, and paths that would lead elsewhere (chapter 05 §1.4)."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.messaging.media.hosts_kit import PATH
from waD.e2ee.media import file_token
from waD.messaging.media import places
from waD.messaging.media.errors import MediaError

HASH = bytes(range(32))


def test_what_is_appended() -> None:
    url = urlsplit(places.download_url("h.test:8443", PATH, "md-app-state", HASH))
    assert (url.scheme, url.netloc, url.path) == ("https", "h.test:8443", "/v/t62.7118-24/1_n.enc")
    query = parse_qs(url.query, keep_blank_values=True)
    assert query["hash"] == [file_token(HASH)]
    assert query["mms-type"] == ["md-app-state"]
    assert query["__wa-mms"] == [""]
    assert query["ccb"] == ["11-4"]
    assert "auth" not in query
    bare = places.download_url("h.test", "/v/x", "ptv", HASH)
    assert bare.startswith("https://h.test/v/x?hash=")
    assert "mms-type=video" in bare


@pytest.mark.parametrize(
    "path",
    [
        "",
        "v/x",
        "//evil.test/x",
        "/\\evil.test/x",
        "\\evil.test",
        "@evil.test/x",
        ":80/x",
        ".evil.test/x",
        "/x\\y",
        "/x#y",
        "/x y",
        "/x\ty",
        "/x\r\nHost: evil",
        "/ä",
        "/x\x00",
        "/" + "x" * 5000,
        "https://evil.test/x",
    ],
)
def test_paths_that_lead_elsewhere(path: str) -> None:
    with pytest.raises(MediaError) as caught:
        places.download_url("h.test", path, "image", HASH)
    assert (caught.value.code, caught.value.permanent) == ("malicious_path", True)


@given(st.text(max_size=30))
def test_the_host_is_always_the_one_that_was_meant(path: str) -> None:
    try:
        url = places.download_url("h.test", path, "image", HASH)
    except MediaError:
        return
    assert urlsplit(url).netloc == "h.test"
    assert url.startswith("https://h.test/")


@pytest.mark.parametrize(
    ("path", "late"),
    [
        ("/x?oe=66000000", True),
        ("/x?a=1&oe=6600ABcd&b=2", True),
        ("/x?oe=ffffffff", False),
        ("/x?oe=", False),
        ("/x?oe=zz", False),
        ("/x?noe=1", False),
        ("/oe=1", False),
        ("/x?oe=1x", False),
    ],
)
def test_expiry(path: str, late: bool) -> None:
    assert places.expired(path, 0x70000000) is late
