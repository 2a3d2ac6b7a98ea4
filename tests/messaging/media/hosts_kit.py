"""Media hosts made of scripts, and answers to `media_conn`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from tests.link.requester import result
from waD.e2ee import media
from waD.messaging.media.downloads import BlobReference
from waD.messaging.media.errors import MediaError
from waD.messaging.media.https import Answer, Client
from waD.wire.node import Node

KEY = bytes(range(32))
PATH = "/v/t62.7118-24/1_n.enc?ccb=11-4&oh=01_AA&oe=7fffffff&_nc_sid=5e03e0"
PLAIN = b"the patches of a collection" * 100


def sealed(plain: bytes = PLAIN, path: str = PATH) -> tuple[bytes, BlobReference]:
    """A file and what names it."""
    data, facts = media.encrypt(KEY, "md-app-state", plain)
    return data, BlobReference(path, KEY, facts.file_sha256, facts.enc_sha256, facts.length)


def conn_node(*hosts: str, auth: str = "secret-auth", ttl: str = "300", auth_ttl: str = "21600") -> Node:
    """An answer to `media_conn`; a host written `name!` is a fallback."""
    nodes = [
        Node("host", {"hostname": name.rstrip("!"), "type": "fallback" if name.endswith("!") else "primary"})
        for name in hosts or ("one.test",)
    ]
    attrs = {"auth": auth, "ttl": ttl, "auth_ttl": auth_ttl, "max_buckets": "12"}
    return result(Node("media_conn", dict(attrs), nodes))


@dataclass
class Script:
    """How a host answers once.

    Attributes:
        status: HTTP status.
        body: what it sends, in pieces of `piece` bytes.
        length: announced, when not None.
        error: raised instead of an answer.
        breaks: raised after the body.
        pause_s: between two pieces.
    """

    status: int = 200
    body: bytes = b""
    length: int | None = None
    retry_after_s: float | None = None
    error: MediaError | None = None
    breaks: MediaError | None = None
    pause_s: float = 0.0
    piece: int = 1000

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        for at in range(0, len(self.body), self.piece):
            await trio.sleep(self.pause_s)
            yield self.body[at : at + self.piece]
        if self.breaks is not None:
            raise self.breaks


@dataclass
class Internet:
    """Hosts by name; each URL that is asked for is kept with the time.

    Attributes:
        answer: the script for a host name.
        asked: host names in order.
    """

    answer: Callable[[str], Script]
    asked: list[str] = field(default_factory=list)
    urls: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    opened: int = 0

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[Client]:
        self.opened += 1
        try:
            yield self
        finally:
            self.opened -= 1

    @asynccontextmanager
    async def get(self, url: str) -> AsyncIterator[Answer]:
        name = url.removeprefix("https://").partition("/")[0]
        self.asked.append(name)
        self.urls.append(url)
        self.times.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        script = self.answer(name)
        if script.error is not None:
            raise script.error
        yield script


def in_turn(*scripts: Script) -> Internet:
    """Answers in order, whoever is asked."""
    waiting = iter(scripts)
    return Internet(lambda _: next(waiting))
