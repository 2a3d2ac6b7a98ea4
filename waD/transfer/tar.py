"""Reading a tar as strictly as an archive of secrets deserves: ustar, regular files, plain names, limits.

Only the 512 bytes of a header are given to the library; extension headers, which may have any size, are refused like
links and devices.
"""

from __future__ import annotations

import hashlib
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

from waD.transfer import archive
from waD.transfer.archive import ArchiveError

BLOCK: Final = 512
GZIP_MAGIC: Final = b"\x1f\x8b"
_CHUNK: Final = 64 * 1024
_GZIP: Final = 31
_REGULAR: Final = frozenset({tarfile.REGTYPE, tarfile.AREGTYPE})
_TYPES: Final = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.DIRTYPE: "a directory",
    tarfile.FIFOTYPE: "a FIFO",
}


@dataclass(frozen=True, slots=True)
class Member:
    """A regular file in the archive: where its content is, and the SHA-256 of it in hex."""

    name: str
    start: int
    size: int
    digest: str


def members(file: BinaryIO) -> Iterator[Member]:
    """Every member in order, read to its end; the file's position is the iterator's while it runs.

    Raises:
        ArchiveError: not a tar, cut short, damaged, or outside of the limits.
    """
    position, total, seen = 0, 0, set[str]()
    while True:
        file.seek(position)
        header = file.read(BLOCK)
        if header == bytes(BLOCK):
            return _expect_end(file, position)
        info = _header(header, position)
        total += info.size
        _check(info, total, seen)
        seen.add(info.name)
        start = position + BLOCK
        yield Member(info.name, start, info.size, _digest(file, start, info.size, info.name))
        position = start + info.size + -info.size % BLOCK


def _header(header: bytes, position: int) -> tarfile.TarInfo:
    if len(header) < BLOCK:
        if position == 0:
            raise ArchiveError("not_an_archive", "too short for a tar")
        raise ArchiveError(
            "archive_truncated", f"it ends after {position + len(header)} bytes, without its end mark"
        )
    try:
        return tarfile.TarInfo.frombuf(header, "ascii", "strict")
    except (tarfile.HeaderError, ValueError, OverflowError):
        if position == 0:
            raise ArchiveError("not_an_archive", "it is not a tar") from None
        raise ArchiveError("archive_damaged", f"no tar header at byte {position}") from None


def _check(info: tarfile.TarInfo, total: int, seen: set[str]) -> None:
    shown = info.name[:200].encode("ascii", "backslashreplace").decode()
    if info.type not in _REGULAR:
        what = _TYPES.get(info.type, "an extension of tar")
        raise ArchiveError("member_type_invalid", f"{what}: a backup has regular files only", shown)
    if not archive.is_member_name(info.name):
        raise ArchiveError("member_name_invalid", "a backup has no member of such a name", shown)
    if info.name in seen:
        raise ArchiveError("member_duplicate", "two members have this name", shown)
    if len(seen) >= archive.MAX_MEMBERS:
        raise ArchiveError("archive_too_large", f"more than {archive.MAX_MEMBERS} members")
    if not 0 <= info.size <= archive.MAX_MEMBER or total > archive.MAX_TOTAL:
        raise ArchiveError("archive_too_large", f"a member of {info.size} bytes, {total} bytes in all", shown)


def _digest(file: BinaryIO, start: int, size: int, name: str) -> str:
    digest, left = hashlib.sha256(), size
    file.seek(start)
    while left:
        chunk = file.read(min(left, _CHUNK))
        if not chunk:
            raise ArchiveError("archive_truncated", f"the last {left} bytes of this member are missing", name)
        digest.update(chunk)
        left -= len(chunk)
    return digest.hexdigest()


def _expect_end(file: BinaryIO, position: int) -> None:
    """Only zeros may follow the end mark, and not many."""
    file.seek(position)
    rest = file.read(_CHUNK)
    if rest.strip(b"\0") or len(rest) == _CHUNK:
        raise ArchiveError("archive_damaged", f"something follows the end mark at byte {position}")


def unzip(source: BinaryIO, out: BinaryIO) -> None:
    """Decompress one gzip stream.

    Raises:
        ArchiveError: damaged, cut short, followed by something, or it grows too much.
    """
    unpacker = zlib.decompressobj(wbits=_GZIP)
    taken = given = 0
    while not unpacker.eof:
        chunk = unpacker.unconsumed_tail or source.read(_CHUNK)
        if not chunk:
            raise ArchiveError("archive_truncated", "the compressed data ends early")
        try:
            plain = unpacker.decompress(chunk, _CHUNK)
        except zlib.error:
            raise ArchiveError("archive_damaged", "the compressed data is damaged") from None
        taken += len(chunk) - len(unpacker.unconsumed_tail)
        given += len(plain)
        if given > archive.MAX_TOTAL or given > archive.RATIO_FREE + archive.MAX_RATIO * taken:
            raise ArchiveError(
                "archive_too_large", f"{taken} compressed bytes have become {given}: this is no backup"
            )
        out.write(plain)
    if unpacker.unused_data or source.read(1):
        raise ArchiveError("archive_damaged", "something follows the compressed data")
