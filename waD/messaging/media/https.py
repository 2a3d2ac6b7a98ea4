"""HTTPS for media files: certificates always verified, no redirects, nothing kept between files.

The library is loaded with the first file: a daemon that never fetches one does without its megabytes.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, Protocol

import trio

from waD.link.endpoint import ORIGIN, Endpoint, EndpointError
from waD.messaging.media.errors import MediaError

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    import httpx

CONNECT_S: Final = 20.0
IDLE_S: Final = 30.0
"""Longest silence of a host."""
MAX_RETRY_AFTER_S: Final = 86_400
MAX_DETAIL: Final = 200


class Answer(Protocol):
    """A host's answer while its body is read."""

    @property
    def status(self) -> int:
        """HTTP status."""
        ...

    @property
    def length(self) -> int | None:
        """Announced bytes of the body, when they were."""
        ...

    @property
    def retry_after_s(self) -> float | None:
        """Seconds to wait before asking again, when the host said so."""
        ...

    def pieces(self) -> AsyncGenerator[bytes, None]:
        """The body as it comes; raises MediaError (`network`)."""
        ...


class Client(Protocol):
    """Asks hosts."""

    def get(self, url: str) -> AbstractAsyncContextManager[Answer]:
        """Ask for a URL; raises MediaError (`network`, `tls`)."""
        ...


class OpenClient(Protocol):
    """Makes a client for the time of one file."""

    def __call__(self) -> AbstractAsyncContextManager[Client]:
        """A client; raises MediaError (`tls`) when the settings cannot be used."""
        ...


class Https:
    """Implements `OpenClient` with what an endpoint says about trust and proxy.

    Args:
        endpoint: of the session's chat server.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[Client]:
        """Open a client; raises MediaError (`tls`) when the authorities cannot be read."""
        # Loading the library and the system's certificates takes too long for the loop.
        library, context = await trio.to_thread.run_sync(self._prepare)
        client = library.AsyncClient(
            verify=context,
            proxy=self._endpoint.proxy,
            trust_env=False,
            follow_redirects=False,
            timeout=library.Timeout(IDLE_S, connect=CONNECT_S),
            headers={"Origin": ORIGIN, "Accept-Encoding": "identity"},
        )
        del client.headers["User-Agent"]  # the library's own name would be no other client's
        async with client:
            yield _Client(library, client)

    def _prepare(self) -> tuple[ModuleType, ssl.SSLContext]:
        try:
            context = self._endpoint.ssl_context("media")
        except EndpointError as error:
            raise MediaError("tls", str(error)) from None
        return _load(), context


class _Client:
    """The library behind the two methods that are used of it."""

    def __init__(self, library: Any, client: httpx.AsyncClient) -> None:
        self._library = library
        self._client = client

    @asynccontextmanager
    async def get(self, url: str) -> AsyncIterator[Answer]:
        try:
            async with self._client.stream("GET", url) as response:
                yield _Answer(self._library, response)
        except self._library.InvalidURL as error:
            raise MediaError("malicious_path", "the direct path makes no URL", permanent=True) from error
        except self._library.RequestError as error:
            raise _translate(error) from error


class _Answer:
    def __init__(self, library: Any, response: httpx.Response) -> None:
        self._library = library
        self._response = response

    @property
    def status(self) -> int:
        return self._response.status_code

    @property
    def length(self) -> int | None:
        text = self._response.headers.get("content-length", "")
        return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else None

    @property
    def retry_after_s(self) -> float | None:
        text = self._response.headers.get("retry-after", "").strip()
        known = text.isascii() and text.isdecimal() and len(text) < 8
        return float(min(int(text), MAX_RETRY_AFTER_S)) if known else None

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        try:
            async for piece in self._response.aiter_raw():
                yield piece
        except self._library.RequestError as error:
            raise _translate(error) from error


def _load() -> ModuleType:
    import httpx

    # It would write the URL of every file to the log.
    for name in ("httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return httpx


def _translate(error: Exception) -> MediaError:
    """The library wraps what happened below it: a certificate that does not fit is none of the network's faults."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return MediaError("tls", f"the host's certificate is not trusted: {cause.verify_message}")
        cause = cause.__cause__ or cause.__context__
    return MediaError("network", f"{type(error).__name__}: {error}"[:MAX_DETAIL])
