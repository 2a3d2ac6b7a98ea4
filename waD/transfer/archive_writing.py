"""Writing a `wad-backup/1` archive (chapter 08 §7.1, §7.2).

A member's size and hash stand before it or far behind, so members are collected in one nameless temporary file first.
No more than one line is in memory.
"""

from __future__ import annotations

import hashlib
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

import msgspec

from waD.link.credentials import Credentials, CredentialsError
from waD.store import checksum
from waD.store.canonical import canonical, canonicalise
from waD.transfer import archive
from waD.transfer.archive import ArchiveError, Manifest, ManifestSession, SessionContent, StoredItem
from waD.transfer.sealing import Readable, Writable

BLOCK: Final = 512
_CHUNK: Final = 64 * 1024
_GZIP: Final = 31
_LEVEL: Final = 6

Seal = Callable[[Readable, Writable], None]
"""Encrypts what the first file gives into the second."""


@dataclass(frozen=True, slots=True)
class About:
    """What the manifest says of the whole archive. `program` is name and version of the writer."""

    created_ms: int
    program: str
    schema_version: int
    final: bool = False


class _Member(NamedTuple):
    name: str
    start: int
    size: int
    digest: str


def write_archive(
    out: BinaryIO,
    sessions: Iterable[SessionContent],
    about: About,
    spool_dir: Path,
    *,
    seal: Seal | None = None,
    compress: bool = False,
) -> Manifest:
    """Write an archive of one or more sessions.

    Args:
        out: where to.
        sessions: taken one after the other, each read to its end before the next.
        about: for the manifest.
        spool_dir: where the nameless temporary file is; on a disk with room for everything.
        seal: encrypts the archive (`waD.transfer.sealing`), None writes it as it is.
        compress: with gzip, before it is encrypted.

    Raises:
        ArchiveError: the content does not fit the container, or not its checksum; what was written is worthless.
        OSError: from a file.
    """
    with tempfile.TemporaryFile(dir=spool_dir) as file:
        spool = _Spool(file)
        listed = [_collect(spool, content) for content in sessions]
        manifest = Manifest(
            format=archive.FORMAT,
            version=archive.FORMAT_VERSION,
            created_at=archive.moment_text(about.created_ms),
            program=about.program,
            schema_version=about.schema_version,
            final=about.final,
            sessions=listed,
        )
        chunks = _tar(spool, canonical(manifest), about.created_ms // 1000)
        reader = _ChunkReader(_gzipped(chunks) if compress else chunks)
        (seal or _copy)(reader, out)
        return manifest


class _Spool:
    """Members one behind the other in a file."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.members: list[_Member] = []
        self._total = 0

    def add(self, name: str, parts: Iterable[bytes]) -> int:
        """Append a member; returns its size. Raises ArchiveError when it is too large."""
        if not archive.is_member_name(name):
            raise ArchiveError("member_name_invalid", "nothing in an archive can be called so", name[:200])
        digest, size = hashlib.sha256(), 0
        for part in parts:
            size += len(part)
            if size > archive.MAX_MEMBER or self._total + size > archive.MAX_TOTAL:
                raise ArchiveError("archive_too_large", "leave the history out, or take fewer sessions", name)
            digest.update(part)
            self.file.write(part)
        if len(self.members) >= archive.MAX_MEMBERS:
            raise ArchiveError("archive_too_large", f"more than {archive.MAX_MEMBERS} members", name)
        self.members.append(_Member(name, self._total, size, digest.hexdigest()))
        self._total += size
        return size

    def content(self, member: _Member) -> Iterator[bytes]:
        self.file.seek(member.start)
        left = member.size
        while left:
            chunk = self.file.read(min(left, _CHUNK))
            if not chunk:
                raise OSError(f"the temporary file has lost {left} bytes")
            left -= len(chunk)
            yield chunk


def _collect(spool: _Spool, content: SessionContent) -> ManifestSession:
    """Take one session; the manifest's words about it."""
    place = f"sessions/{content.row.id}"
    if not archive.is_session_id(content.row.id):
        raise ArchiveError("session_invalid", "its id is not a UUID in lower case", content.row.id[:64])
    document = archive.SessionDocument(
        row=archive.row_columns(msgspec.to_builtins(content.row)),
        creds_version=content.creds_version,
        phase_log=[dict(row) for row in content.phase_log],
    )
    spool.add(f"{place}/{archive.SESSION}", [canonical(document)])
    spool.add(f"{place}/{archive.CREDS}", [content.creds])
    summed = _Sum(checksum.creds_checksum(content.creds_version, canonicalise(content.creds)))
    for kind, items in _by_kind(content.items):
        spool.add(f"{place}/items/{kind}.jsonl", _item_lines(kind, items, summed))
    if content.checksum is not None and summed.total != content.checksum:
        raise ArchiveError(
            "checksum_mismatch",
            "what the store gave is not what its head sums up: run wactl verify-auth",
            place,
        )
    spool.add(f"{place}/{archive.SECRETS}", _row_lines(content.secrets, archive.SECRETS))
    if content.outbox is not None:
        spool.add(f"{place}/{archive.OUTBOX}", _row_lines(content.outbox, archive.OUTBOX))
    for table, rows in content.history.items():
        _add_history(spool, f"{place}/history/{table}", rows)
    return _listed(content, summed)


class _Sum:
    """Counts and sums the items that pass."""

    def __init__(self, first: bytes) -> None:
        self.total = first
        self.counts: dict[str, int] = {}

    def add(self, item: StoredItem, document: bytes) -> None:
        part = checksum.item_checksum(item.kind, item.key, item.version, document)
        self.total = checksum.changed(self.total, None, part)
        self.counts[item.kind] = self.counts.get(item.kind, 0) + 1


def _listed(content: SessionContent, summed: _Sum) -> ManifestSession:
    row = content.row
    try:
        identity = Credentials.parse(content.creds).identity.public
    except CredentialsError as error:
        raise ArchiveError("creds_unreadable", str(error), f"sessions/{row.id}") from None
    return ManifestSession(
        id=row.id,
        name=row.name,
        owner=content.owner,
        epoch=row.auth_epoch,
        version=row.auth_version,
        phase=row.auth_phase,
        me_pn=row.me_pn,
        me_lid=row.me_lid,
        identity_fp=hashlib.sha256(identity).hexdigest()[:8],
        item_counts=dict(sorted(summed.counts.items())),
        checksum=summed.total.hex(),
    )


def _by_kind(items: Iterable[StoredItem]) -> Iterator[tuple[str, Iterator[StoredItem]]]:
    """The items of each kind; every inner iterator is to be used up before the next."""
    source = iter(items)
    pending = next(source, None)
    before = ""

    def of(kind: str) -> Iterator[StoredItem]:
        nonlocal pending
        key: str | None = None
        while pending is not None and pending.kind == kind:
            if key is not None and pending.key <= key:
                raise ArchiveError("items_unordered", "the store gave its items out of order, or twice", kind)
            key = pending.key
            yield pending
            pending = next(source, None)

    while pending is not None:
        kind = pending.kind
        if kind <= before or archive.STEM.fullmatch(kind) is None:
            raise ArchiveError(
                "items_unordered", "kinds of items out of order, or of no proper name", kind[:80]
            )
        before = kind
        yield kind, of(kind)


def _item_lines(kind: str, items: Iterable[StoredItem], summed: _Sum) -> Iterator[bytes]:
    for item in items:
        try:
            document = canonicalise(item.document)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise ArchiveError("item_unreadable", "the store gave something that is not JSON", kind) from None
        summed.add(item, document)
        head = canonical({"id": item.key})[:-1]
        yield _line(b'%b,"value":%b,"version":%d}' % (head, document, item.version), kind)


def _row_lines(rows: Iterable[Any], name: str) -> Iterator[bytes]:
    return (_line(canonical(row), name) for row in rows)


def _line(document: bytes, name: str) -> bytes:
    if len(document) > archive.MAX_LINE:
        raise ArchiveError("line_too_long", f"{len(document)} bytes in one line", name)
    return document + b"\n"


def _add_history(spool: _Spool, place: str, rows: Iterable[Any]) -> None:
    """Write a table in as many numbered members as it needs; one, if it is empty."""
    source = _row_lines(rows, place)
    ahead = next(source, None)

    def part() -> Iterator[bytes]:
        nonlocal ahead
        size = 0
        while ahead is not None and size < archive.PART_SIZE:
            size += len(ahead)
            yield ahead
            ahead = next(source, None)

    number = 0
    while ahead is not None or not number:
        number += 1
        spool.add(f"{place}-{number:04d}.jsonl", part())


def _tar(spool: _Spool, manifest: bytes, mtime: int) -> Iterator[bytes]:
    sums = [f"{hashlib.sha256(manifest).hexdigest()}  {archive.MANIFEST}\n"]
    sums += [f"{member.digest}  {member.name}\n" for member in spool.members]
    yield from _tar_member(archive.MANIFEST, len(manifest), [manifest], mtime)
    for member in spool.members:
        yield from _tar_member(member.name, member.size, spool.content(member), mtime)
    text = "".join(sums).encode()
    yield from _tar_member(archive.SUMS, len(text), [text], mtime)
    yield bytes(2 * BLOCK)


def _tar_member(name: str, size: int, content: Iterable[bytes], mtime: int) -> Iterator[bytes]:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, archive.FILE_MODE, mtime
    yield info.tobuf(tarfile.USTAR_FORMAT)
    yield from content
    yield bytes(-size % BLOCK)


def _gzipped(chunks: Iterable[bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(_LEVEL, wbits=_GZIP)
    for chunk in chunks:
        if packed := packer.compress(chunk):
            yield packed
    yield packer.flush()


def _copy(source: Readable, out: Writable) -> None:
    while chunk := source.read(_CHUNK):
        out.write(chunk)
    out.flush()


class _ChunkReader:
    """The reading side of a file over chunks."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def read(self, size: int, /) -> bytes:
        """Up to so many bytes; empty at the end."""
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self._rest = memoryview(chunk)
        taken, self._rest = self._rest[:size], self._rest[size:]
        return bytes(taken)
