"""The media host over HTTP: uploads by hash, downloads by path, ranges, deletion, and faults (chapter 05 §1.3–1.5)."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any, Final
from urllib.parse import parse_qs, unquote

import h11
import msgspec
import trio

from waD.e2ee.media import parse_token
from waD.sandbox.exchange import Exchange
from waD.sandbox.faults import Fault, Faults
from waD.sandbox.media import MAX_READ, READ_HERE, Media, MediaRecord
from waD.sandbox.media_files import MediaFiles, TooLargeError, WrongHashError

EXPIRED: Final = "URL signature expired"
HUGE: Final = 1 << 40
SLOW_PIECE: Final = 1024
MAX_FIELDS: Final = 100
PREFIXES: Final = ("/mms/", "/v/", "/product/", "/pps/", "/newsletter/")

_OCTETS: Final = "application/octet-stream"
_RANGE: Final = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})", re.ASCII)
_QUERY: Final = re.compile(r"[?&]")
_MAX_KIND: Final = 64


class MediaHost:
    """Serves what `Media` knows.

    Args:
        media: the files.
        files: their bytes.
        faults: what goes wrong on order.
        base: scheme, host and port of URLs, when they are needed.
        limit: largest number of bytes of an upload, likewise.
        flush: makes durable what has happened.
    """

    def __init__(
        self,
        media: Media,
        files: MediaFiles,
        faults: Faults,
        *,
        base: Callable[[], str],
        limit: Callable[[], int],
        flush: Callable[[], Awaitable[None]],
    ) -> None:
        self._media = media
        self._files = files
        self._faults = faults
        self._base = base
        self._limit = limit
        self._flush = flush

    @staticmethod
    def owns(request: h11.Request) -> bool:
        """Whether a request is for this host."""
        return request.target.startswith(tuple(prefix.encode() for prefix in PREFIXES))

    async def serve(self, exchange: Exchange) -> None:
        """Answer a request."""
        path, *rest = _QUERY.split(exchange.target, maxsplit=1)
        path = unquote(path)
        if exchange.method != "POST" and not await exchange.drained():
            await _refuse(exchange, 413, "this request has no use for a body")
        elif exchange.method in ("GET", "HEAD"):
            await self._download(exchange, path)
        elif exchange.method == "POST" and not path.startswith("/v/"):
            await self._upload(exchange, path, _fields("".join(rest)))
        elif exchange.method == "DELETE":
            await self._delete(exchange, path)
        else:
            await _refuse(exchange, 405, "GET, HEAD, POST and DELETE are known here")

    async def _upload(self, exchange: Exchange, path: str, query: Mapping[str, str]) -> None:
        if await self._spoilt_upload(exchange):
            return
        kind, _, token = path.strip("/").rpartition("/")
        digest = parse_token(token)
        if not self._media.authorised(query.get("auth", "")):
            await _refuse(exchange, 401, "the credential is unknown or has run out")
        elif digest is None or parse_token(query.get("token", "")) != digest:
            await _refuse(exchange, 400, "the tokens of path and query are not one SHA-256")
        elif "resume" in query:
            await self._resume(exchange, digest)
        elif (exchange.length or 0) > self._limit():
            await _refuse(exchange, 413, "the file is too large")
        else:
            await self._store(exchange, digest, kind.rpartition("/")[2][:_MAX_KIND])

    async def _resume(self, exchange: Exchange, digest: bytes) -> None:
        record = self._media.by_digest(digest)
        if record is None or self._media.expired(record):
            await _refuse(exchange, 404, "nothing of it is here")
        else:
            await _answer(exchange, {"resume": "complete", **self._place(record)})

    async def _store(self, exchange: Exchange, digest: bytes, kind: str) -> None:
        try:
            async with aclosing(exchange.body()) as body:
                size = await self._files.write(body, digest, self._limit())
            read_here = kind == READ_HERE and size <= MAX_READ
            data = await self._files.whole(digest) if read_here else None
        except TooLargeError:
            await _refuse(exchange, 413, "the file is too large")
        except WrongHashError:
            await _refuse(exchange, 415, "the body is not what its token says")
        except OSError as error:
            await _refuse(exchange, 507, f"the file cannot be kept: {error.strerror}")
        else:
            record = self._media.add(digest, kind, size, data)
            await self._flush()
            await _answer(exchange, self._place(record))

    def _place(self, record: MediaRecord) -> dict[str, str]:
        path = record.direct_path
        return {
            "url": f"{self._base()}{path}&mms3=true",
            "direct_path": path,
            "handle": record.handle,
        }

    async def _delete(self, exchange: Exchange, path: str) -> None:
        digest = parse_token(path.rpartition("/")[2])
        if digest is not None:
            self._media.remove(digest)
            self._files.remove(digest)
            await self._flush()
        await _answer(exchange, {})

    async def _download(self, exchange: Exchange, path: str) -> None:
        fault = self._faults.take("media-download")
        if fault is not None and fault.mode is None:
            await _spoil(exchange, fault)
            return
        record = self._media.by_path(path)
        if record is None:
            await _refuse(exchange, 404, "there is no such file")
        elif self._media.expired(record) or (fault is not None and fault.mode == "expired"):
            await exchange.respond(403, {"content-type": "text/plain"}, EXPIRED.encode())
        elif fault is not None and fault.mode == "redirect":
            await exchange.respond(302, {"location": f"{self._base()}{record.direct_path}&redirected=1"})
        else:
            await self._send(exchange, record, fault)

    async def _send(self, exchange: Exchange, record: MediaRecord, fault: Fault | None) -> None:
        size = record.size
        start, end = byte_range(exchange.header("range"), size)
        if start >= end and size:
            await exchange.respond(416, {"content-range": f"bytes */{size}"})
            return
        headers = {"content-type": _OCTETS, "accept-ranges": "bytes", "content-length": str(end - start)}
        status = 200
        if (start, end) != (0, size):
            status, headers["content-range"] = 206, f"bytes {start}-{end - 1}/{size}"
        if fault is not None and fault.mode == "huge":
            headers["content-length"] = str(HUGE)
        async with aclosing(self._pieces(record, start, end)) as pieces:
            try:
                first = await anext(pieces, b"")
            except OSError:
                await _refuse(exchange, 404, "the file is gone")
                return
            await exchange.begin(status, headers)
            if exchange.method != "HEAD":
                await exchange.send(first if fault is None else await _spoilt(exchange, first, fault))
                async for piece in pieces:
                    await exchange.send(piece if fault is None else await _spoilt(exchange, piece, fault))
        if fault is not None and fault.mode == "huge":
            await exchange.cut()
        await exchange.end()

    async def _pieces(self, record: MediaRecord, start: int, end: int) -> AsyncGenerator[bytes, None]:
        if record.data is not None:
            yield record.data[start:end]
            return
        async with aclosing(self._files.read(record.digest, start, end)) as pieces:
            async for piece in pieces:
                yield piece

    async def _spoilt_upload(self, exchange: Exchange) -> bool:
        """Whether an upload was answered wrongly, as ordered."""
        fault = self._faults.take("media-upload")
        if fault is None:
            return False
        if fault.mode == "slow":
            await trio.sleep(fault.delay_ms / 1000)
            return False
        if fault.mode == "redirect":
            await exchange.respond(307, {"location": f"{self._base()}{exchange.target}&redirected=1"})
            return True
        await _spoil(exchange, fault)
        return True


def _fields(query: str) -> dict[str, str]:
    """The first value of each name; nothing when there are too many of them.

    Some clients append `&…` to a path without query, others a second `?`.
    """
    try:
        found = parse_qs(query.replace("?", "&"), max_num_fields=MAX_FIELDS)
    except ValueError:
        return {}
    return {name: values[0] for name, values in found.items()}


def byte_range(header: str | None, size: int) -> tuple[int, int]:
    """The bytes that are asked for, end exclusive; start is not below end when there are none of them.

    A header that is not understood asks for everything.
    """
    match = _RANGE.fullmatch(header.strip()) if header else None
    if match is None or not (match[1] or match[2]):
        return 0, size
    if not match[1]:
        wanted = int(match[2])
        return (max(0, size - wanted), size) if wanted else (size, size)
    start = int(match[1])
    end = min(int(match[2]) + 1, size) if match[2] else size
    if match[2] and int(match[2]) < start:
        return 0, size
    return start, end


async def _spoil(exchange: Exchange, fault: Fault) -> None:
    """Answer with a status instead, or not at all."""
    if fault.never or fault.code is None:
        await exchange.cut()
        return
    headers = {} if fault.backoff_s is None else {"retry-after": str(fault.backoff_s)}
    await _refuse(exchange, fault.code, "as ordered", headers)


async def _spoilt(exchange: Exchange, piece: bytes, fault: Fault) -> bytes:
    """A piece of a body, damaged, late or cut off."""
    if fault.mode == "damaged":
        middle = len(piece) // 2
        return piece[:middle] + bytes((piece[middle] ^ 1,)) + piece[middle + 1 :] if piece else piece
    if fault.mode == "truncated":
        await exchange.send(piece[: len(piece) // 2])
        await exchange.cut()
    if fault.mode == "slow":
        for at in range(0, len(piece), SLOW_PIECE):
            await trio.sleep(fault.delay_ms / 1000)
            await exchange.send(piece[at : at + SLOW_PIECE])
        return b""
    return piece


async def _answer(exchange: Exchange, payload: Any) -> None:
    await exchange.respond(200, {"content-type": "application/json"}, msgspec.json.encode(payload))


async def _refuse(
    exchange: Exchange, status: int, text: str, headers: Mapping[str, str] | None = None
) -> None:
    fields = {"content-type": "application/json", **(headers or {})}
    await exchange.respond(status, fields, msgspec.json.encode({"error": text}))
