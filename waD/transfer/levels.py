"""Verifying a backup file: levels 0 to 2 of chapter 08 §7.6, without daemon, network or database."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

from waD.link.credentials import Credentials
from waD.transfer import age_header, sealing
from waD.transfer.archive import CANNOT_CHECK, SECRETS, ArchiveError, ManifestSession
from waD.transfer.archive_reading import Archive, ArchivedSession, open_archive
from waD.transfer.retention import parse_name
from waD.transfer.state import MESSAGE_SECRET, AuthState, Note, Report
from waD.transfer.verify import CRYPTOGRAPHY, STRUCTURE, read_credentials, verify

ENVELOPE: Final = 0
LEVELS: Final = (ENVELOPE, STRUCTURE, CRYPTOGRAPHY)
EXIT_OK: Final = 0
EXIT_REFUSED: Final = 1
EXIT_DAMAGED: Final = 6


@dataclass(slots=True)
class Verdict:
    """What was found about a backup.

    Attributes:
        level: that was asked for.
        report: errors and warnings.
        counts: items by kind, of all sessions; secrets of messages from level 1 on.
        versions: of the format, the schema, and the program that wrote it.
        sessions: what is in it, as in the manifest.
        sha256: of the file, in hex; None unless all of it was read.
        final: made for a planned move; None when unknown.
    """

    level: int
    report: Report = field(default_factory=Report)
    counts: dict[str, int] = field(default_factory=dict)
    versions: dict[str, Any] = field(default_factory=dict)
    sessions: list[ManifestSession] = field(default_factory=list)
    sha256: str | None = None
    final: bool | None = None

    @property
    def exit_status(self) -> int:
        """0 when it is sound, warnings included; 1 when it could not be checked, 6 when it is damaged."""
        if self.report.ok:
            return EXIT_OK
        codes = {note.code for note in self.report.errors}
        return EXIT_REFUSED if codes <= CANNOT_CHECK else EXIT_DAMAGED

    def document(self) -> dict[str, Any]:
        """The report as JSON has it (chapter 08 §7.6)."""
        return {
            "level": self.level,
            "ok": self.report.ok,
            "errors": [_plain(note) for note in self.report.errors],
            "warnings": [_plain(note) for note in self.report.warnings],
            "counts": self.counts,
            "versions": self.versions,
            "sha256": self.sha256,
            "final": self.final,
            "sessions": [_facts(listed) for listed in self.sessions],
        }


def _plain(note: Note) -> dict[str, str]:
    return {"code": note.code, "item": note.item, "detail": note.detail}


def _facts(listed: ManifestSession) -> dict[str, Any]:
    return {
        "id": listed.id,
        "name": listed.name,
        "owner": listed.owner,
        "epoch": listed.epoch,
        "version": listed.version,
        "identity": listed.identity_fp,
        "items": sum(listed.item_counts.values()),
    }


def verify_file(path: Path, level: int, key: sealing.Key | None, spool_dir: Path, now_ms: int) -> Verdict:
    """Check a backup file; whatever is wrong with it is in the report.

    Args:
        path: the file.
        level: 0 for the envelope, 1 for structure as well, 2 for keys and signatures as well.
        key: opens it; with none, an encrypted one can be judged by its envelope only.
        spool_dir: for nameless temporary files of the size of the unpacked archive.
        now_ms: Unix milliseconds.
    """
    verdict = Verdict(level)
    try:
        with open_file(path) as file:
            _verify(verdict, file, path.name, key, spool_dir, now_ms)
    except ArchiveError as error:
        verdict.report.error(error.code, error.item, error.detail)
    except OSError as error:
        verdict.report.error("file_unreadable", str(path), error.strerror or "it cannot be read")
    return verdict


def verify_open(archive: Archive, level: int, now_ms: int, verdict: Verdict) -> None:
    """Check what an opened archive holds, as far as the level goes.

    Raises:
        ArchiveError: it is not what its manifest promises.
    """
    manifest = archive.manifest
    verdict.sessions, verdict.sha256, verdict.final = manifest.sessions, archive.sha256, manifest.final
    verdict.versions = {
        "format": manifest.version,
        "schema": manifest.schema_version,
        "program": manifest.program,
        "created_at": manifest.created_at,
    }
    for listed in manifest.sessions:
        for kind, count in listed.item_counts.items():
            verdict.counts[kind] = verdict.counts.get(kind, 0) + count
        if level >= STRUCTURE:
            prefix = f"{listed.name}/" if len(manifest.sessions) > 1 else ""
            secrets = _verify_session(archive, listed.id, level, now_ms, verdict.report, prefix)
            if secrets:
                verdict.counts[MESSAGE_SECRET] = verdict.counts.get(MESSAGE_SECRET, 0) + secrets


def open_file(path: Path) -> BinaryIO:
    """Open a regular file for reading; raises OSError, or ArchiveError for anything else, such as a FIFO."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ArchiveError("file_unreadable", "it is not a regular file", str(path))
    return open(descriptor, "rb")


def read_header(file: BinaryIO) -> age_header.Header | None:
    """The age header of a file, None if it is not encrypted; leaves the file at its beginning.

    Raises:
        ArchiveError: the header is damaged, or of another version.
    """
    head = file.read(age_header.MAX_HEADER)
    file.seek(0)
    return age_header.parse(head) if sealing.is_sealed(head) else None


def auth_state(session: ArchivedSession, report: Report) -> AuthState | None:
    """A session's auth state; an error of the report says why there is none."""
    creds = read_credentials(session.creds, report)
    if creds is None:
        return None
    return AuthState(creds, {place: item.document for place, item in session.items.items()})


def _verify(
    verdict: Verdict, file: BinaryIO, name: str, key: sealing.Key | None, spool_dir: Path, now_ms: int
) -> None:
    report = verdict.report
    if parse_name(name) is None:
        report.warn("file_name_unusual", name[:200], "a backup ends in -<time>-v<version>.wadbackup.age")
    header = read_header(file)
    if header is not None:
        sealing.check_size(header, os.fstat(file.fileno()).st_size)
        if key is None and verdict.level == ENVELOPE:
            report.warn(
                "content_not_checked", detail="only the envelope was looked at: there is no key for more"
            )
            return
    with open_archive(file, spool_dir, key, report) as opened:
        verify_open(opened, verdict.level, now_ms, verdict)


def _verify_session(
    archive: Archive, session_id: str, level: int, now_ms: int, report: Report, prefix: str
) -> int:
    """Check one session; returns how many secrets of messages are with it."""
    found = archive.session(session_id)
    rows = archive.check_rows(session_id)
    own = Report()
    state = auth_state(found, own)
    if state is not None:
        _check_row(found, state.creds, own)
        own.notes += verify(state, now_ms, level).notes
    report.notes += [
        Note(note.severity, note.code, f"{prefix}{note.item}", note.detail) for note in own.notes
    ]
    return rows.get(SECRETS, 0)


def _check_row(found: ArchivedSession, creds: Credentials, report: Report) -> None:
    """The credentials are those of the session that is listed."""
    listed = found.listed
    if hashlib.sha256(creds.identity.public).hexdigest()[:8] != listed.identity_fp:
        report.error("identity_fp_mismatch", "creds", "another identity than the manifest says")
    addresses: Mapping[str, tuple[object, object]] = {
        "me_pn": (listed.me_pn, creds.me_pn),
        "me_lid": (listed.me_lid, creds.me_lid),
    }
    for name, (told, own) in addresses.items():
        if told != (None if own is None else str(own)):
            report.warn("row_mismatch", name, "the session's row says another address than the credentials")
