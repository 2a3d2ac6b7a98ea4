"""Multi-file directories as `useMultiFileAuthState` writes them (chapter 08 §2.1, §2.9).

WAHA's NOWEB engine, Evolution API (without its credentials) and Mudslide keep the same. Nothing is followed out of the
directory and nothing in it is changed.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from waD.e2ee.interop.common import ConversionError
from waD.transfer.baileys.message_store import MAX_STORE, read_store
from waD.transfer.baileys.names import CREDS, NameRefused, read_name, shown
from waD.transfer.baileys.source import MAX_ITEMS, MAX_VALUE, QUIET_MS, BaileysItems, Collector, decode_text
from waD.transfer.sources.errors import SourceRefused

SUFFIX: Final = ".json"
_IGNORED: Final = re.compile(r".*\.tmp|\.waha\.session\..*|.*\.sqlite3.*", re.DOTALL)
_MESSAGES: Final = re.compile(r"store\.json|baileys_store.*\.json", re.DOTALL)
"""Files of messages, in which only their secrets are of interest."""
_NS_PER_MS: Final = 1_000_000
_GONE: Final = (errno.ENOENT, errno.ENOTDIR)


@dataclass(frozen=True, slots=True)
class _File:
    """What tells whether a file changed; `link` says that the name is a symbolic link."""

    inode: int
    size: int
    mtime_ns: int
    regular: bool
    link: bool


def read_directory(path: Path, *, now_ms: int, stopped: bool = False) -> BaileysItems:
    """Read a directory.

    Args:
        path: the directory itself, or a link to it.
        now_ms: current Unix time in ms.
        stopped: somebody says that the old program does not run; otherwise nothing may have changed for 60 s.

    Returns:
        What is in it. Missing or unreadable credentials are an error in its notes, other unreadable files a warning.

    Raises:
        SourceRefused: it was not read, or changed meanwhile.
    """
    before = _scan(path)
    if not stopped:
        _check_quiet(path, before, now_ms)
    collector = Collector()
    root = path.resolve()
    for name, found in sorted(before.items()):
        twice = name == CREDS and CREDS + SUFFIX in before
        if not name or not found.regular or twice or _IGNORED.fullmatch(name):
            continue
        if _MESSAGES.fullmatch(name):
            _read_messages(root, name, found, collector)
        else:
            _read_file(root, name, found, collector)
    if _scan(path) != before:
        raise SourceRefused(
            "source_changed", f"{path} changed while it was read: stop what uses it, try again"
        )
    items = collector.finish()
    if items.creds is None and not any(note.code == "creds_unreadable" for note in items.notes):
        if not collector.has_items:
            raise SourceRefused("not_baileys", f"{path} has no creds.json{_advice(path)}")
        collector.note("error", "creds_unreadable", CREDS, "there is no creds.json")
        items = collector.finish()
    return items


def _scan(path: Path) -> Mapping[str, _File]:
    """All entries by name, and the directory itself under the empty name."""
    try:
        found = {"": _file(path.stat(), link=False)}
        with os.scandir(path) as entries:
            for entry in entries:
                if len(found) > MAX_ITEMS:
                    raise SourceRefused("source_too_large", f"{path} has more than {MAX_ITEMS} files")
                found[entry.name] = _entry(entry)
    except NotADirectoryError:
        raise SourceRefused("not_baileys", f"{path} is not a directory") from None
    except FileNotFoundError:
        raise SourceRefused("source_missing", f"there is no directory {path}") from None
    except OSError as error:
        raise SourceRefused("source_unreachable", f"cannot read {path}: {error.strerror}") from None
    return found


def _entry(entry: os.DirEntry[str]) -> _File:
    try:
        return _file(entry.stat(), link=entry.is_symlink())
    except OSError as error:
        if error.errno not in (*_GONE, errno.ELOOP):
            raise
        return _File(0, 0, 0, regular=False, link=True)  # a link to nothing, or a file that has just gone


def _file(status: os.stat_result, *, link: bool) -> _File:
    regular = stat.S_ISREG(status.st_mode)
    return _File(status.st_ino, status.st_size, status.st_mtime_ns, regular, link)


def _check_quiet(path: Path, files: Mapping[str, _File], now_ms: int) -> None:
    newest = max(found.mtime_ns for found in files.values()) // _NS_PER_MS
    if now_ms - newest < QUIET_MS:
        raise SourceRefused(
            "source_running",
            f"{path} changed less than {QUIET_MS // 1000} s ago: stop the program that uses it, "
            "then wait a minute or say --i-stopped-it",
        )


def _read_file(root: Path, name: str, found: _File, collector: Collector) -> None:
    item = name.removesuffix(SUFFIX)
    if not _is_item(name):
        collector.note("warning", "unknown_item", shown(item), "not the name of an item that Baileys keeps")
        return
    try:
        data = _bytes_of(root, name, found)
        collector.spend(len(data))
        value = decode_text(data)
    except ConversionError as error:
        if item == CREDS:
            collector.note("error", "creds_unreadable", CREDS, error.detail)
        else:
            collector.note("warning", "item_unreadable", shown(item), error.detail)
        return
    if item == CREDS:
        collector.put_creds(value)
    else:
        collector.put_named(item, value, found.mtime_ns // _NS_PER_MS)


def _read_messages(root: Path, name: str, found: _File, collector: Collector) -> None:
    try:
        collector.put_secrets(read_store(_bytes_of(root, name, found, MAX_STORE)))
    except ConversionError as error:
        detail = f"secrets of messages: {error.detail}"
        collector.note("warning", "not_taken", shown(name), detail)


def _is_item(name: str) -> bool:
    """Whether a file is an item: what Evolution's file server keeps has no suffix."""
    if name.removesuffix(SUFFIX) == CREDS:
        return True
    try:
        read_name(name.removesuffix(SUFFIX))
    except NameRefused:
        return False
    return True


def _bytes_of(root: Path, name: str, found: _File, limit: int = MAX_VALUE) -> bytes:
    """The content of a regular file inside the directory; raises ConversionError for anything else."""
    place = root / name
    if found.link:
        place = place.resolve()
        if not place.is_relative_to(root):
            raise ConversionError("item_unreadable", "a link that leads out of the directory")
    if found.size > limit:
        raise ConversionError("item_unreadable", f"{found.size} bytes, more than the {limit} that are read")
    try:
        # A name may have become a link or a pipe since it was looked at.
        descriptor = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            return file.read(found.size + 1)
    except OSError as error:
        raise ConversionError("item_unreadable", f"cannot be read: {error.strerror}") from None


def _advice(path: Path) -> str:
    """Where the files may be instead."""
    below = [*_sessions_below(path)]
    if below:
        return f"; it holds directories that have one, name one of them: {', '.join(below[:5])}"
    return "; name the directory that holds it"


def _sessions_below(path: Path) -> Iterator[str]:
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False) and (Path(entry) / f"{CREDS}{SUFFIX}").exists():
                    yield shown(entry.name)
    except OSError:
        return
