"""Finding out about a newer client version."""

from __future__ import annotations

import time

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from waD.link.payload import DEFAULT_VERSION
from waD.session import version
from waD.session.version import NOT_AGAIN_FOR_S, TIMEOUT_S, VersionSource, find_revision

NEWER = DEFAULT_VERSION[2] + 7


class Server:
    def __init__(self, *answers: bytes | Exception) -> None:
        self.answers = list(answers)
        self.proxies: list[str | None] = []

    def __call__(self, proxy: str | None) -> bytes:
        self.proxies.append(proxy)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.mark.parametrize(
    ("script", "revision"),
    [
        (b'{"client_revision":1045649999,"x":1}', 1045649999),
        (b'self.x="{\\"client_revision\\":1045649999}"', 1045649999),
        (b"client_revision: 123456789;", 123456789),
        (b'"client_revision":12345678', None),
        (b'"client_revision":123456789012', None),
        (b'"client_revision":"soon"', None),
        (b"", None),
    ],
)
def test_the_revision_in_a_script(script: bytes, revision: int | None) -> None:
    assert find_revision(script) == revision


@given(st.binary())
def test_any_bytes_are_read(script: bytes) -> None:
    assert find_revision(script) is None or find_revision(script)


async def test_a_newer_version_is_used_from_now_on() -> None:
    server = Server(f'"client_revision":{NEWER}'.encode())
    source = VersionSource(server)
    assert source.version == DEFAULT_VERSION
    assert await source.refresh(DEFAULT_VERSION, "http://proxy:3128")
    assert source.version == (2, 3000, NEWER)
    assert server.proxies == ["http://proxy:3128"]
    # Another session that was refused with the old one need not ask again.
    assert await source.refresh(DEFAULT_VERSION)
    assert not await source.refresh(source.version)
    assert len(server.proxies) == 1


@pytest.mark.parametrize(
    "answer",
    [OSError("no network"), ValueError("bad proxy"), b"nothing", b'"client_revision":100000000'],
    ids=["offline", "nonsense", "empty", "older"],
)
async def test_without_a_newer_one_nothing_changes(answer: bytes | Exception) -> None:
    source = VersionSource(Server(answer))
    assert not await source.refresh(DEFAULT_VERSION)
    assert source.version == DEFAULT_VERSION


async def test_it_asks_once_a_day(mock_clock: trio.testing.MockClock) -> None:
    server = Server(b"", f'"client_revision":{NEWER}'.encode())
    source = VersionSource(server)
    assert not await source.refresh(DEFAULT_VERSION)
    mock_clock.jump(NOT_AGAIN_FOR_S - 1)
    assert not await source.refresh(DEFAULT_VERSION)
    mock_clock.jump(2)
    assert await source.refresh(DEFAULT_VERSION)


async def test_a_server_that_does_not_answer_delays_for_a_bounded_time(
    mock_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(version, "TIMEOUT_S", 0.01)
    mock_clock.rate = 1.0
    assert TIMEOUT_S > 0.01
    source = VersionSource(lambda _: time.sleep(0.2) or b"")  # type: ignore[func-returns-value]
    assert not await source.refresh(DEFAULT_VERSION)
