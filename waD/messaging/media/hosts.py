"""The life of a connection's `media_conn`: asked for when needed, kept, renewed in time (chapter 05 §1.1)."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final

import trio

from waD.link.errors import LinkError, MalformedReply, RequestError, RequestTimeout
from waD.link.stanzas import Requester
from waD.messaging.media import conn
from waD.messaging.media.conn import MediaConn
from waD.messaging.media.errors import MediaError

THROTTLED: Final = 507
EARLY: Final = 0.8
"""Part of the credential's life after which a new one is fetched."""
THROTTLED_PAUSE_S: Final = 60.0
FAILED_PAUSE_S: Final = 10.0
"""No new question for so long after one that failed, unless the server said how long."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Held:
    """An answer and when it was asked for, monotonic seconds."""

    conn: MediaConn
    asked: float

    def usable(self, now: float) -> bool:
        return now < self.asked + self.conn.auth_ttl_s

    def due(self, now: float) -> bool:
        return now >= self.asked + min(self.conn.ttl_s, EARLY * self.conn.auth_ttl_s)


@dataclass(frozen=True, slots=True)
class _Pause:
    """Until when the server is not asked, and what whoever needs an answer is told."""

    until: float
    reason: MediaError


class MediaHosts:
    """The media hosts of one connection; one question is on its way at a time.

    Args:
        link: the connection.
    """

    def __init__(self, link: Requester) -> None:
        self._link = link
        self._held: _Held | None = None
        self._pause: _Pause | None = None
        self._asking = trio.Lock()

    async def current(self) -> MediaConn:
        """The hosts, asked for when none are known or the credential has run out.

        Raises:
            MediaError: `throttled` or `media_conn`.
            Disconnected: the connection is over.
        """
        held = self._usable()
        if held is None:
            held = await self._ask()
        return held.conn

    @property
    def due(self) -> bool:
        """Whether it is time for `renew`."""
        now = trio.current_time()
        waits = self._pause is not None and now < self._pause.until
        return self._held is not None and self._held.due(now) and not waits

    async def renew(self) -> None:
        """Ask again although there is a usable answer; when that fails, the old one is kept."""
        try:
            await self._ask()
        except (MediaError, LinkError) as error:
            _log.debug("the media hosts were not renewed: %s", error)

    def refused(self, refused: MediaConn) -> None:
        """A host did not like the credential: the next one asks anew."""
        if self._held is not None and self._held.conn is refused:
            self._held = None

    def _usable(self) -> _Held | None:
        held = self._held
        return held if held is not None and held.usable(trio.current_time()) else None

    async def _ask(self) -> _Held:
        before = self._held
        async with self._asking:
            held = self._usable()
            if held is not None and held is not before:
                return held
            now = trio.current_time()
            if self._pause is not None and now < self._pause.until:
                reason = self._pause.reason
                raise MediaError(reason.code, reason.detail, retry_after_s=self._pause.until - now)
            try:
                answer = conn.parse(await self._link.request(conn.request()))
            except (RequestError, RequestTimeout, MalformedReply) as error:
                self._pause = pause = _pause(error, trio.current_time())
                raise pause.reason from error
            self._pause = None
            self._held = held = _Held(answer, now)
            return held


def _pause(error: RequestError | RequestTimeout | MalformedReply, now: float) -> _Pause:
    throttled = isinstance(error, RequestError) and error.code == THROTTLED
    seconds = THROTTLED_PAUSE_S if throttled else FAILED_PAUSE_S
    if isinstance(error, RequestError) and error.backoff is not None:
        seconds = float(error.backoff)
    reason = MediaError(
        "throttled" if throttled else "media_conn", f"no media host is known: {error}", retry_after_s=seconds
    )
    return _Pause(now + seconds, reason)
