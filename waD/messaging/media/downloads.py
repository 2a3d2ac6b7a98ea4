"""Fetching encrypted files into memory: hosts in turn, a few tries each, every check before anything is handed out.

Chapter 05 §1.4 says which failure is followed by what, §2.4 what is checked. What a reference promises is a limit too:
a host that sends more is cut off.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final, Protocol

import trio

from waD.e2ee.media import HASH_LENGTH, Decryptor, MediaFileError, MediaKind, encrypted_length
from waD.link.stanzas import Requester
from waD.messaging.media import places
from waD.messaging.media.conn import MediaConn
from waD.messaging.media.errors import MediaCode, MediaError
from waD.messaging.media.hosts import MediaHosts
from waD.messaging.media.https import Answer, Client, OpenClient

OK: Final = 200
AT_ONCE: Final = 2
"""Files of one connection that are fetched at a time."""
TRIES: Final = 3
"""At each host, when it cannot be reached or has troubles of its own."""
MAX_WAIT_S: Final = 60.0
"""Longest wait between two tries, whatever the host asks for."""
ATTEMPT_S: Final = 300.0
OVERALL_S: Final = 600.0
MAX_REFUSAL: Final = 4096
"""Bytes of the text of a refusal that are looked at."""

_TRANSIENT: Final[frozenset[MediaCode]] = frozenset({"network", "timeout", "server"})
"""Worth another try at the same host."""
_CREDENTIAL: Final[frozenset[MediaCode]] = frozenset({"credential", "forbidden"})
"""May come from an old `media_conn`."""
_DAMAGED: Final[frozenset[MediaCode]] = frozenset({"too_large", "length", "enc_hash", "mac"})
"""May come from the way; another host may have a sound copy."""
_ELSEWHERE: Final[frozenset[MediaCode]] = frozenset({*_TRANSIENT, "tls", "redirect", "status"})
"""A matter of that host alone."""
_EXPIRED: Final = b"URL signature expired"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BlobReference:
    """An encrypted file as messages name it.

    Attributes:
        direct_path: path and query on a media host.
        media_key: 32 bytes.
        file_sha256: hash of the plaintext, 32 bytes, when it is known.
        enc_sha256: hash of the file, 32 bytes.
        length: of the plaintext in bytes, when it is known.
    """

    direct_path: str = field(repr=False)
    media_key: bytes = field(repr=False)
    file_sha256: bytes | None = field(repr=False)
    enc_sha256: bytes = field(repr=False)
    length: int | None


class Fetching(Protocol):
    """What others need of `Downloads`."""

    async def fetch(self, reference: BlobReference, kind: MediaKind, limit: int) -> bytes:
        """See `Downloads.fetch`."""
        ...


@dataclass(frozen=True, slots=True)
class _Job:
    """One file to fetch.

    Attributes:
        limit: largest number of bytes of the plaintext.
        most: largest number of bytes that a host may send.
    """

    reference: BlobReference
    kind: MediaKind
    limit: int
    most: int


class Downloads:
    """Fetches files for one connection.

    Args:
        link: the connection, for `media_conn`.
        open_client: the way to the hosts.
        unix_s: the time, in seconds.
    """

    def __init__(self, link: Requester, open_client: OpenClient, *, unix_s: Callable[[], float]) -> None:
        self._hosts = MediaHosts(link)
        self._open_client = open_client
        self._unix_s = unix_s
        self._turns = trio.CapacityLimiter(AT_ONCE)

    async def fetch(self, reference: BlobReference, kind: MediaKind, limit: int) -> bytes:
        """Fetch, verify and decrypt a file.

        Args:
            reference: the file.
            kind: what it is, which decides its keys.
            limit: largest number of bytes of the plaintext.

        Raises:
            MediaError: it cannot be had.
            Disconnected: the connection ended before a media host was known.
        """
        job = _job(reference, kind, limit)
        async with self._turns:
            with trio.move_on_after(OVERALL_S):
                return await self._fetch(job)
        raise MediaError("timeout", f"the file was not complete within {OVERALL_S:g} s")

    async def _fetch(self, job: _Job) -> bytes:
        conn = await self._hosts.current()
        if not self._hosts.due:
            return await self._search(conn, job)
        outcome: bytes | Exception
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._hosts.renew)
            try:
                outcome = await self._search(conn, job)
            except Exception as error:  # raised below, where it is not part of a group
                outcome = error
            nursery.cancel_scope.cancel()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def _search(self, conn: MediaConn, job: _Job) -> bytes:
        async with self._open_client() as client:
            try:
                return await self._from_any(client, conn, job)
            except MediaError as error:
                if error.code not in _CREDENTIAL:
                    raise
            self._hosts.refused(conn)
            return await self._from_any(client, await self._hosts.current(), job)

    async def _from_any(self, client: Client, conn: MediaConn, job: _Job) -> bytes:
        """Ask the hosts in turn, until one has the file or says what no other one could mend."""
        waiting = deque(conn.serving(places.media_type(job.kind)))
        damaged = False
        while True:
            name = waiting.popleft()
            try:
                return await self._from_host(client, name, job)
            except MediaError as error:
                _log.debug("%s has no %s file for us: %s", name, job.kind, error)
                if error.code in _DAMAGED and not damaged:
                    damaged = True
                    if not waiting:
                        waiting.append(name)
                elif error.code not in _ELSEWHERE or not waiting:
                    raise

    async def _from_host(self, client: Client, name: str, job: _Job) -> bytes:
        url = places.download_url(name, job.reference.direct_path, job.kind, job.reference.enc_sha256)
        for number in range(1, TRIES + 1):
            try:
                return await self._attempt(client, url, job)
            except MediaError as error:
                if error.code not in _TRANSIENT or number == TRIES:
                    raise
                wait_s = number if error.retry_after_s is None else error.retry_after_s
            await trio.sleep(min(wait_s, MAX_WAIT_S))
        raise AssertionError("the last try raises")

    async def _attempt(self, client: Client, url: str, job: _Job) -> bytes:
        with trio.move_on_after(ATTEMPT_S):
            async with client.get(url) as answer:
                if answer.status != OK:
                    raise await self._refusal(answer, job)
                return await _read(answer, job)
        raise MediaError("timeout", f"the host did not send the file within {ATTEMPT_S:g} s")

    async def _refusal(self, answer: Answer, job: _Job) -> MediaError:
        code = _code_of(answer.status)
        if code == "forbidden" and (
            places.expired(job.reference.direct_path, self._unix_s()) or _EXPIRED in await _beginning(answer)
        ):
            code = "gone"
        return MediaError(
            code,
            f"the host answered {answer.status}",
            permanent=code == "gone",
            status=answer.status,
            retry_after_s=answer.retry_after_s,
        )


def _code_of(status: int) -> MediaCode:
    """What a status other than 200 means (chapter 05 §1.4)."""
    if 300 <= status < 400:
        return "redirect"
    if status == 408 or (status >= 500 and status != 507):
        return "server"
    known: dict[int, MediaCode] = {
        401: "credential",
        403: "forbidden",
        404: "gone",
        410: "gone",
        507: "throttled",
    }
    return known.get(status, "status")


def _job(reference: BlobReference, kind: MediaKind, limit: int) -> _Job:
    hashes = (reference.enc_sha256, *(() if reference.file_sha256 is None else (reference.file_sha256,)))
    length = reference.length
    if any(len(one) != HASH_LENGTH for one in hashes) or (length is not None and length < 0):
        raise MediaError("reference", "a hash or the length of the file cannot be right", permanent=True)
    if length is not None and length > limit:
        raise MediaError("too_large", f"the file has {length} bytes; {limit} are allowed", permanent=True)
    _decryptor(reference, kind)
    places.check_path(reference.direct_path)
    return _Job(reference, kind, limit, encrypted_length(limit if length is None else length))


def _decryptor(reference: BlobReference, kind: MediaKind) -> Decryptor:
    try:
        return Decryptor(
            reference.media_key,
            kind,
            enc_sha256=reference.enc_sha256,
            file_sha256=reference.file_sha256,
            length=reference.length,
        )
    except MediaFileError as error:
        raise MediaError("reference", error.detail, permanent=True) from None


async def _read(answer: Answer, job: _Job) -> bytes:
    """Decrypt the body as it comes; it is handed out after the last check."""
    if answer.length is not None and answer.length > job.most:
        raise _too_large(job)
    decryptor = _decryptor(job.reference, job.kind)
    received, plaintext = 0, bytearray()
    async with aclosing(answer.pieces()) as pieces:
        async for piece in pieces:
            received += len(piece)
            if received > job.most:
                raise _too_large(job)
            plaintext += decryptor.update(piece)
    try:
        plaintext += decryptor.finish()
    except MediaFileError as error:
        raise MediaError(error.code, error.detail, permanent=True) from None
    if len(plaintext) > job.limit:
        raise _too_large(job)
    return bytes(plaintext)


def _too_large(job: _Job) -> MediaError:
    return MediaError("too_large", f"the host sends more than {job.most} bytes", permanent=True)


async def _beginning(answer: Answer) -> bytes:
    text = bytearray()
    async with aclosing(answer.pieces()) as pieces:
        async for piece in pieces:
            text += piece
            if len(text) >= MAX_REFUSAL:
                break
    return bytes(text)
