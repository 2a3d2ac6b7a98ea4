"""Making a backup of auth states from a store: written, read again and verified before it counts (chapter 08 §7.4).

Blocking: called in a worker thread.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

import msgspec
import pyrage

from waD.store.errors import StoreDamaged
from waD.store.model import EventRow, MessageRow, OutboxRow, SecretRow, SessionRow
from waD.transfer.archive import SessionContent, StoredItem
from waD.transfer.archive_reading import open_archive
from waD.transfer.archive_writing import About, write_archive
from waD.transfer.sealing import Identities, Key, Passphrase, Recipients
from waD.transfer.state import AuthState, Report
from waD.transfer.verify import read_credentials, verify

PAGE: Final = 500
PHASE_ROWS: Final = 10
SCHEMA_VERSION: Final = 3
CHUNK: Final = 1 << 20
OUTBOX_STATES: Final = ("queued", "held", "sending")
MAX_OUTBOX: Final = 1_000_000


class State(Protocol):
    """A whole auth state of a store, decrypted."""

    creds: bytes | None
    creds_version: int
    items: dict[tuple[str, str], tuple[int, bytes]]


class View(Protocol):
    """A store as it is at one moment."""

    def session(self, name_or_id: str) -> SessionRow | None:
        """One session."""
        ...

    def auth_state(self, session_id: str) -> State:
        """Its whole state, checked; raises StoreDamaged."""
        ...

    def phase_log(self, session_id: str, limit: int) -> list[dict[str, Any]]:
        """The newest phase changes."""
        ...

    def secrets(
        self, session_id: str, after: tuple[str, str, str], limit: int
    ) -> tuple[list[SecretRow], tuple[str, str, str] | None]:
        """Secrets of messages behind a key, in order, and the last key."""
        ...

    def outbox(self, session_id: str, states: Sequence[str], limit: int) -> list[OutboxRow]:
        """Rows in these states."""
        ...

    def history(self, session_id: str, after_seq: int, limit: int) -> list[MessageRow]:
        """Messages behind a position, oldest first."""
        ...

    def events(
        self, after: int, limit: int, session_id: str | None, types: Sequence[str] | None
    ) -> list[EventRow]:
        """Events behind a cursor, oldest first."""
        ...


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be backed up, and for whom.

    Attributes:
        sessions: names or ids.
        recipients: public keys as `age1…`; empty with a passphrase.
        passphrase: of a backup made by hand.
        outbox: whether messages on their way out are in.
        history: whether messages and events are in.
        compress: with gzip.
        final: made for a move, after the source was retired.
    """

    sessions: tuple[str, ...]
    recipients: tuple[str, ...] = ()
    passphrase: str | None = field(default=None, repr=False)
    outbox: bool = False
    history: bool = False
    compress: bool = False
    final: bool = False


@dataclass(frozen=True, slots=True)
class SessionMade:
    """One session of a finished archive, and what the verification of what was written says about it."""

    id: str
    name: str
    owner: str
    epoch: int
    version: int
    report: Report


@dataclass(frozen=True, slots=True)
class Made:
    """A finished archive: file, size in bytes, SHA-256 in hex, when it was made, what is in it."""

    path: Path
    size: int
    sha256: str
    created_ms: int
    sessions: list[SessionMade]

    @property
    def sound(self) -> bool:
        """Whether every session in it would work."""
        return all(one.report.ok for one in self.sessions)


class BackupRefused(Exception):  # noqa: N818 - what is the case
    """There is nothing that could be backed up; no file was made.

    Attributes:
        session: which.
        code: `no_such_session`, `not_paired` or `store_damaged`.
    """

    def __init__(self, session: str, code: str, detail: str) -> None:
        super().__init__(detail)
        self.session = session
        self.code = code


def make_backup(
    view: Callable[[], AbstractContextManager[View]], order: Order, directory: Path, program: str, now_ms: int
) -> Made:
    """Write an archive into a directory, read it again, and verify every session in it.

    The file has a name of its own until the caller moves it where it belongs; on any exception it is gone.

    Args:
        view: opens the store as it is at one moment.
        order: what, and for whom.
        directory: for the file and for temporary ones; it must be closed to others.
        program: name and version for the manifest.
        now_ms: Unix milliseconds.

    Raises:
        BackupRefused: a session is not there, not paired, or its stored state is damaged.
        ArchiveError: a recipient is none, or what was written is not what was meant.
        StoreError, OSError: from the store, or a file.
    """
    seal, key = _keys(order)
    fd, name = tempfile.mkstemp(prefix="backup-", suffix=".part", dir=directory)
    path = Path(name)
    try:
        with os.fdopen(fd, "w+b") as file:
            with view() as moment:
                contents = (_content(moment, one, order) for one in order.sessions)
                about = About(now_ms, program, SCHEMA_VERSION, final=order.final)
                write_archive(file, contents, about, directory, seal=seal.encrypt, compress=order.compress)
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
            return Made(path, size, _hash(file), now_ms, _verify(file, directory, key, now_ms))
    except BaseException:
        with suppress(OSError):
            path.unlink()
        raise


def _keys(order: Order) -> tuple[Recipients | Passphrase, Key]:
    """What encrypts, and what reads it again: for recipients a key of this moment, which nobody keeps."""
    if order.passphrase is not None:
        passphrase = Passphrase(order.passphrase)
        return passphrase, passphrase
    own = pyrage.x25519.Identity.generate()
    return Recipients([*order.recipients, str(own.to_public())]), Identities([str(own)])


def _content(view: View, name: str, order: Order) -> SessionContent:
    row = view.session(name)
    if row is None:
        raise BackupRefused(name, "no_such_session", f"there is no session {name!r}")
    try:
        state = view.auth_state(row.id)
    except StoreDamaged as damage:
        raise BackupRefused(row.name, "store_damaged", str(damage)) from damage
    if state.creds is None or row.me_pn is None:
        raise BackupRefused(
            row.name, "not_paired", f"session {row.name} is not paired: there is nothing to back up"
        )
    return SessionContent(
        row=row,
        creds=state.creds,
        creds_version=state.creds_version,
        items=[
            StoredItem(kind, key, version, document)
            for (kind, key), (version, document) in sorted(state.items.items())
        ],
        phase_log=view.phase_log(row.id, PHASE_ROWS),
        secrets=_secrets(view, row.id),
        outbox=_outbox(view, row.id) if order.outbox else None,
        history={"messages": _messages(view, row.id), "events": _events(view, row.id)}
        if order.history
        else {},
    )


def _secrets(view: View, session_id: str) -> Iterator[Any]:
    after: tuple[str, str, str] | None = ("", "", "")
    while after is not None:
        page, after = view.secrets(session_id, after, PAGE)
        yield from map(msgspec.to_builtins, page)


def _outbox(view: View, session_id: str) -> Iterator[Any]:
    return (msgspec.to_builtins(row) for row in view.outbox(session_id, OUTBOX_STATES, MAX_OUTBOX))


def _messages(view: View, session_id: str) -> Iterator[Any]:
    after = 0
    while page := view.history(session_id, after, PAGE):
        yield from map(msgspec.to_builtins, page)
        after = page[-1].seq


def _events(view: View, session_id: str) -> Iterator[Any]:
    after = 0
    while page := view.events(after, PAGE, session_id, None):
        yield from map(msgspec.to_builtins, page)
        after = page[-1].cursor


def _hash(file: BinaryIO) -> str:
    file.seek(0)
    digest = hashlib.sha256()
    while chunk := file.read(CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def _verify(file: BinaryIO, directory: Path, key: Key, now_ms: int) -> list[SessionMade]:
    """Read what was written as a restore would."""
    file.seek(0)
    made = []
    with open_archive(file, directory, key, Report()) as archive:
        for listed in archive.manifest.sessions:
            session = archive.session(listed.id)
            archive.check_rows(listed.id)
            report = Report()
            creds = read_credentials(session.creds, report)
            if creds is not None:
                items = {name: item.document for name, item in session.items.items()}
                report.notes += verify(AuthState(creds, items), now_ms).notes
            made.append(
                SessionMade(listed.id, listed.name, listed.owner, listed.epoch, listed.version, report)
            )
    return made


def place(made: Path, target: Path) -> None:
    """Give a finished archive its name, durably; a file that is there is never replaced.

    Raises:
        OSError: it stays where it is.
    """
    os.link(made, target)
    made.unlink()
    directory = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def spool_id() -> str:
    """A name that nobody can guess."""
    return secrets.token_hex(16)
