"""Files that other programs exported: opened to read, seen at one moment, and nothing that is no plain file."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from waD.transfer.sources.errors import SourceCode, SourceRefused

MAX_DUMP: Final = 1 << 35
"""Bytes of a file that is read piece by piece."""
CHUNK: Final = 1 << 18

_PACKED: Final[dict[bytes, str]] = {
    b"\x1f\x8b": "it is compressed: unpack it first, gunzip -k FILE",
    b"\x28\xb5\x2f\xfd": "it is compressed: unpack it first, zstd -dk FILE",
    b"\xfd7zXZ\x00": "it is compressed: unpack it first, xz -dk FILE",
    b"BZh": "it is compressed: unpack it first, bunzip2 -k FILE",
    b"PK\x03\x04": "it is a zip archive: unpack it first",
    b"PGDMP": "it is an archive of pg_dump: make text of it first, pg_restore --no-owner --file=dump.sql FILE",
    b"\x6d\xe2\x99\x81": "it is an archive of mongodump: export the collection instead, mongoexport --out=auth.json",
    b"\xff\xfe": "its text is UTF-16, as a redirect of PowerShell makes it: write it in UTF-8",
    b"\xfe\xff": "its text is UTF-16: write it in UTF-8",
}
_BSON: Final = re.compile(rb"..[\x00-\x0f]\x00[\x01-\x13][^\x00]{1,60}\x00", re.DOTALL)
"""Length of a document below 16 MB, kind and name of its first field."""


@contextmanager
def open_file(path: Path, *, limit: int = MAX_DUMP, other: SourceCode = "not_a_file") -> Iterator[BinaryIO]:
    """Open a plain file to read, and find at the end that nobody changed it meanwhile.

    Args:
        path: the file, or a link to it.
        limit: bytes it may have.
        other: code for what is no plain file.

    Raises:
        SourceRefused: on entry, or on leaving with `source_changed`.
    """
    with ExitStack() as stack:
        descriptor = _opened(path)
        stack.callback(os.close, descriptor)
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode):
            raise SourceRefused(other, f"{path} is not a regular file")
        if before.st_size > limit:
            raise SourceRefused("source_too_large", f"{path} has more than {limit >> 20} MiB")
        file = stack.enter_context(os.fdopen(descriptor, "rb", closefd=False))
        try:
            yield file
        except OSError as error:
            raise SourceRefused("source_unreachable", f"cannot read {path}: {_reason(error)}") from None
        after = os.fstat(descriptor)
    if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise SourceRefused(
            "source_changed", f"{path} changed while it was read: stop what uses it, try again"
        )


def _opened(path: Path) -> int:
    try:
        # A pipe would be waited for without O_NONBLOCK.
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise SourceRefused("source_missing", f"there is no file {path}") from None
    except (OSError, ValueError) as error:
        raise SourceRefused("source_unreachable", f"cannot read {path}: {_reason(error)}") from None


def chunks(file: BinaryIO) -> Iterator[bytes]:
    """The content piece by piece."""
    while piece := file.read(CHUNK):
        yield piece


def beginning(path: Path, size: int, *, other: SourceCode = "not_a_file") -> bytes:
    """The first bytes of a plain file.

    Raises:
        SourceRefused: there is none, it is something else, or it is of a form that has to be unpacked first.
    """
    with open_file(path, other=other) as file:
        start = file.read(size)
    for magic, advice in _PACKED.items():
        if start.startswith(magic):
            raise SourceRefused("dump_unsupported", f"{path}: {advice}")
    if _BSON.match(start):
        raise SourceRefused(
            "dump_unsupported", f"{path}: it is BSON: make text of it first, bsondump FILE >auth.json"
        )
    return start


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
