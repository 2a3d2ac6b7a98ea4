"""Auth states as a multi-file directory of Baileys 7 (chapter 08 §2.1, §5.3, §6.5).

What Baileys has no place for is told and left out: a session that went there and back is poorer by that.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from waD.e2ee import skipped
from waD.e2ee.errors import SignalError
from waD.e2ee.record import SessionRecord
from waD.link.credentials import Credentials
from waD.link.prekeys import OneTimePreKey, PreKeyRecordError
from waD.messaging import kinds
from waD.transfer.baileys.names import CREDS, TYPES, file_name
from waD.transfer.collections import plain
from waD.transfer.legacy import LegacyCodec
from waD.transfer.sources.errors import SourceRefused
from waD.transfer.state import AuthState, Report

FILE_MODE: Final = 0o600
DIRECTORY_MODE: Final = 0o700
CREDS_FILE: Final = f"{CREDS}.json"
MAX_FILE_NAME: Final = 255
_CREDS_FIELDS: Final = (
    "nct_salt",
    "props_refresh_id",
    "props_abprops",
    "companion_enc_static",
    "rotation_candidate",
)


FOUND_AGAIN: Final = frozenset({kinds.BARE_LIDS})
"""What an import makes anew of the other files."""


def baileys_files(state: AuthState) -> tuple[dict[str, bytes], Report]:
    """The files of a state, by name; pure.

    Returns:
        File names and contents, `creds.json` last, and what could not be represented.
    """
    report = Report()
    codec = LegacyCodec()
    files: dict[str, bytes] = {}
    left: dict[str, int] = {}
    for (kind, key), document in sorted(plain(state.items).items()):
        rows = {
            name: value for name, value in codec.item_rows(kind, key, document).items() if name[0] in TYPES
        }
        for (row_type, text), value in rows.items():
            name = file_name(row_type, text)
            if value is None or len(name.encode()) > MAX_FILE_NAME or name in files:
                report.warn(
                    "not_exported", f"{kind}/{key}", "it has no form, or no name of its own, in Baileys"
                )
            else:
                files[name] = value
        if not rows and kind not in FOUND_AGAIN:
            left[kind] = left.get(kind, 0) + 1
    for kind, count in left.items():
        report.warn("not_exported", kind, f"{count} items: Baileys has no place for them")
    _tell_losses(state, report)
    creds = next(
        value for name, value in codec.creds_rows(state.creds.serialize()).items() if name[0] == CREDS
    )
    assert creds is not None
    files[CREDS_FILE] = creds
    return files, report


def write_directory(state: AuthState, path: Path) -> Report:
    """Write a directory that Baileys 7 can use.

    Every file is durable before the next one is begun, and the credentials come last, so that a directory that was
    not finished is never taken for a session.

    Args:
        state: what to write.
        path: a directory that is empty or does not exist; its parent exists.

    Returns:
        What could not be represented.

    Raises:
        SourceRefused: `target_not_empty` or `target_unwritable`; nothing is left behind.
    """
    files, report = baileys_files(state)
    made = _prepare(path)
    written: list[Path] = []
    try:
        for name, content in files.items():
            written.append(path / name)
            _write(path / name, content)
        _sync(path)
    except OSError as error:
        _remove(written, path if made else None)
        raise SourceRefused("target_unwritable", f"cannot write to {path}: {error.strerror}") from None
    except BaseException:
        _remove(written, path if made else None)
        raise
    return report


def _prepare(path: Path) -> bool:
    """Make the directory, or find it empty; returns whether it was made."""
    try:
        if not path.is_dir():
            path.mkdir(mode=DIRECTORY_MODE)
            return True
        if any(path.iterdir()):
            raise SourceRefused(
                "target_not_empty", f"{path} is not empty: name a directory that does not exist"
            )
        path.chmod(DIRECTORY_MODE)
    except FileExistsError:
        raise SourceRefused(
            "target_not_empty", f"{path} is a file: name a directory that does not exist"
        ) from None
    except OSError as error:
        raise SourceRefused("target_unwritable", f"cannot make {path}: {error.strerror}") from None
    return False


def _write(path: Path, content: bytes) -> None:
    """Under another name, made durable, then renamed: no reader sees half of it."""
    partial = _partial(path)
    descriptor = os.open(
        partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE
    )
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, FILE_MODE)
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    partial.rename(path)


def _partial(path: Path) -> Path:
    return path.parent / ".partial.tmp"


def _sync(path: Path) -> None:
    for directory in (path, path.parent):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _remove(written: list[Path], directory: Path | None) -> None:
    for path in written:
        for name in (path, _partial(path)):
            with suppress(OSError):
                name.unlink()
    if directory is not None:
        with suppress(OSError):
            directory.rmdir()


def _tell_losses(state: AuthState, report: Report) -> None:
    _tell_creds(state.creds, report)
    for key, document in state.of(kinds.SESSION).items():
        _tell_session(f"{kinds.SESSION}/{key}", document, report)
    marked = [*_marked_prekeys(state.of(kinds.PREKEY))]
    if marked:
        report.warn(
            "prekey_states_lost", kinds.PREKEY, f"{len(marked)} that were not uploaded count as if they were"
        )


def _tell_creds(creds: Credentials, report: Report) -> None:
    if len(creds.signed_prekeys) > 1:
        report.warn(
            "signed_prekeys_lost",
            CREDS,
            "Baileys keeps the current one alone: late first messages to one before it cannot be read",
        )
    lost = [name for name in _CREDS_FIELDS if getattr(creds, name)]
    if lost:
        report.warn("creds_field_dropped", f"{CREDS}/{','.join(lost)}", "Baileys has no place for it")


def _tell_session(item: str, document: bytes, report: Report) -> None:
    try:
        record = SessionRecord.parse(document)
    except SignalError:
        return  # has no form, which is told already
    keys = sum(
        len(chain.triples) // skipped.TRIPLE_ENTRY for one in record.states() for chain in one.receivers
    )
    if keys:
        report.warn(
            "skipped_keys_lost", item, f"{keys} keys of messages that are late: their seeds are not known"
        )
    if record.current is not None and record.current.stale:
        report.warn("session_closed", item, "it must not send; the next message makes a new one")


def _marked_prekeys(prekeys: Mapping[str, bytes]) -> Iterator[str]:
    for key, document in prekeys.items():
        with suppress(PreKeyRecordError, ValueError):
            if OneTimePreKey.parse(int(key), document).state != "uploaded":
                yield key
