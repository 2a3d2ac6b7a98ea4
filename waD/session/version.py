"""The version of the web client to announce: the one built in, or a newer one of WhatsApp's (chapter 02 §2.3).

Asked for only when the server calls ours too old, at most once a day, and never for another server than WhatsApp.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Final, TypeAlias

import trio

from waD.link.payload import DEFAULT_VERSION

Version: TypeAlias = tuple[int, int, int]
Fetch: TypeAlias = Callable[[str | None], bytes]
"""Gets the script, through a proxy if one is given; blocking; raises OSError."""

SCRIPT_URL: Final = "https://web.whatsapp.com/sw.js"
HEADERS: Final = {
    "User-Agent": (
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36"
    ),
    "Sec-Fetch-Site": "none",
}
"""Without a browser's name and this field the answer is 400."""
TIMEOUT_S: Final = 20.0
MAX_BODY: Final = 1 << 20
NOT_AGAIN_FOR_S: Final = 24 * 3600.0

_REVISION: Final = re.compile(rb'client_revision\\*"?\s*:\s*([0-9]{9,11})(?![0-9])')

_log = logging.getLogger(__name__)


def find_revision(script: bytes) -> int | None:
    """The client revision that a script names; None when it names none."""
    found = _REVISION.search(script)
    return None if found is None else int(found[1])


def fetch_script(proxy: str | None) -> bytes:
    """Get the first MiB of the web client's service worker.

    Raises:
        OSError: it could not be had.
    """
    # Megabytes of modules that hardly any daemon ever needs: not at the start of all of them.
    import ssl
    import urllib.request

    handlers: list[urllib.request.BaseHandler] = [
        urllib.request.ProxyHandler({} if proxy is None else {"https": proxy}),
        urllib.request.HTTPSHandler(context=ssl.create_default_context()),
    ]
    request = urllib.request.Request(SCRIPT_URL, headers=HEADERS)
    with urllib.request.build_opener(*handlers).open(request, timeout=TIMEOUT_S) as answer:
        body: bytes = answer.read(MAX_BODY)
    return body


class VersionSource:
    """Knows the version to announce, for all sessions of a daemon.

    Args:
        fetch: gets the script.
    """

    def __init__(self, fetch: Fetch = fetch_script) -> None:
        self._fetch = fetch
        self._version: Version = DEFAULT_VERSION
        self._asked_at: float | None = None
        self._asking = trio.Lock()

    @property
    def version(self) -> Version:
        """The newest one known."""
        return self._version

    async def refresh(self, used: Version, proxy: str | None = None) -> bool:
        """Look for a newer version than the one that was refused, at most once a day.

        Args:
            used: what was announced.
            proxy: to go through.

        Returns:
            Whether a newer one is known now.
        """
        async with self._asking:
            now = trio.current_time()
            due = self._asked_at is None or now - self._asked_at >= NOT_AGAIN_FOR_S
            if self._version <= used and due:
                self._asked_at = now
                await self._ask(proxy)
        return self._version > used

    async def _ask(self, proxy: str | None) -> None:
        script = b""
        with trio.move_on_after(TIMEOUT_S) as deadline:
            try:
                script = await trio.to_thread.run_sync(self._fetch, proxy, abandon_on_cancel=True)
            except (OSError, ValueError) as error:
                _log.warning("no newer client version could be had: %s", error)
                return
        if deadline.cancelled_caught:
            _log.warning("no newer client version could be had: no answer within %g s", TIMEOUT_S)
            return
        revision = find_revision(script)
        found = (*self._version[:2], revision or 0)
        if found <= self._version:
            _log.warning("WhatsApp names no newer client version than %s", ".".join(map(str, self._version)))
            return
        self._version = found
        _log.info("the client version is %s from now on", ".".join(map(str, found)))
