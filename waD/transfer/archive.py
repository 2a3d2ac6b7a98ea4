"""The backup container `wad-backup/1`: its words, limits and errors (chapter 08 §7.2)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from msgspec import Struct

from waD.store.model import SessionRow

FORMAT: Final = "wad-backup"
FORMAT_VERSION: Final = 1
MIB: Final = 1 << 20
MAX_MEMBER: Final = 1 << 30
MAX_TOTAL: Final = 8 << 30
MAX_RATIO: Final = 200
"""Bytes that one byte of gzip may become: JSON full of keys does not shrink to a twentieth."""
RATIO_FREE: Final = MIB
"""So much may come of however little: an empty archive is mostly zeros."""
MAX_DEPTH: Final = 64
MAX_LINE: Final = 16 * MIB
MAX_MEMBERS: Final = 100_000
MAX_MANIFEST: Final = 16 * MIB
PART_SIZE: Final = 256 * MIB
"""A table of the history is cut into members of about this size."""
FILE_MODE: Final = 0o600

MANIFEST: Final = "manifest.json"
SUMS: Final = "SHA256SUMS"
SESSION: Final = "session.json"
CREDS: Final = "creds.json"
SECRETS: Final = "secrets.jsonl"
OUTBOX: Final = "outbox.jsonl"

MEMBER_NAME: Final = re.compile(r"[A-Za-z0-9._/-]{1,200}", re.ASCII)
STEM: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", re.ASCII)
"""Kinds of items and tables of the history, as parts of a member's name."""
_SESSION_ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_UNFIT: Final = re.compile(r"[^A-Za-z0-9._+@]+", re.ASCII)

CANNOT_CHECK: Final = frozenset(
    {
        "archive_too_new",
        "file_unreadable",
        "identity_unusable",
        "key_needed",
        "key_file_too_open",
        "passphrase_unusable",
        "work_factor_too_high",
        "wrong_key",
    }
)
"""Codes that say nothing about the archive but that it could not be looked into: exit status 1, not 6."""

_LEASE: Final = ("lease_token", "lease_holder", "lease_expires_at", "kek_id")


class ArchiveError(Exception):
    """An archive, or what is needed to open it, was refused; nothing was taken from it.

    Attributes:
        code: stable.
        detail: one sentence without secrets.
        item: member, line or file that it is about.
    """

    def __init__(self, code: str, detail: str, item: str = "") -> None:
        super().__init__(f"{code}{f' {item}' if item else ''}: {detail}")
        self.code = code
        self.detail = detail
        self.item = item

    @property
    def cannot_check(self) -> bool:
        """Whether the archive may be sound all the same."""
        return self.code in CANNOT_CHECK


class StoredItem(NamedTuple):
    """An item of an auth state with the version that changed it last; `document` is canonical JSON."""

    kind: str
    key: str
    version: int
    document: bytes

    def __repr__(self) -> str:
        return f"StoredItem({self.kind}, version={self.version}, {len(self.document)} bytes)"


class ManifestSession(Struct, frozen=True, kw_only=True):
    """What the manifest says of one session.

    `identity_fp`: first 8 hex digits of the SHA-256 of the identity key. `checksum`: of the head over the documents
    as archived, 64 hex digits (chapter 08 §6.4).
    """

    id: str
    name: str
    epoch: int
    version: int
    phase: str
    identity_fp: str
    item_counts: dict[str, int]
    checksum: str
    owner: str = ""
    me_pn: str | None = None
    me_lid: str | None = None


class Manifest(Struct, frozen=True, kw_only=True):
    """The first member. `final`: made for a move, after its source was retired (chapter 08 §7.4)."""

    format: str
    version: int
    created_at: str
    program: str
    schema_version: int
    final: bool
    sessions: list[ManifestSession]

    @property
    def created_ms(self) -> int:
        """When it was made, Unix milliseconds."""
        return int(datetime.fromisoformat(self.created_at).timestamp() * 1000)


@dataclass(slots=True)
class SessionContent:
    """One session to be archived; everything of one moment.

    Attributes:
        row: the session's row; its lease is left out.
        creds: credentials document, canonical JSON.
        creds_version: version that changed them last.
        items: in the order of (kind, key), each once.
        owner: who the session belongs to.
        checksum: 32 bytes that the documents must have together, None to take what they have.
        phase_log: newest rows of the phase log.
        secrets: of messages, each a `SecretRow`.
        outbox: rows of the outbox, None to leave it out.
        history: rows by table.
    """

    row: SessionRow
    creds: bytes
    creds_version: int
    items: Iterable[StoredItem]
    owner: str = ""
    checksum: bytes | None = None
    phase_log: Sequence[Mapping[str, Any]] = ()
    secrets: Iterable[Any] = ()
    outbox: Iterable[Any] | None = None
    history: Mapping[str, Iterable[Any]] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"SessionContent({self.row.id}, version={self.row.auth_version})"


class SessionDocument(Struct, frozen=True, kw_only=True):
    """The member `session.json`: columns of the row by name, without the lease."""

    row: dict[str, Any]
    creds_version: int
    phase_log: list[dict[str, Any]] = []


def row_columns(row: dict[str, Any]) -> dict[str, Any]:
    """The columns that are archived: a lease ends with its store, and so does a wrapped key."""
    return {name: value for name, value in row.items() if name not in _LEASE}


def is_session_id(text: str) -> bool:
    """Whether a text is a UUID in lower case, as the name of a session's directory must be."""
    return _SESSION_ID.fullmatch(text) is not None


def is_member_name(name: str) -> bool:
    """Whether a member may be called so: relative, plain, and going nowhere else."""
    if MEMBER_NAME.fullmatch(name) is None or name.startswith("/"):
        return False
    return all(part not in ("", ".", "..") for part in name.split("/"))


def file_name(owner: str, name: str, created_ms: int, version: int, *, sealed: bool = True) -> str:
    """The name of an archive's file: `<owner>-<name>-<UTC>-v<version>.wadbackup.age` (chapter 08 §7.2).

    Characters that do not belong into a file's name become an underscore; without an owner its part is left out.
    """
    when = datetime.fromtimestamp(created_ms / 1000, UTC).strftime("%Y%m%dT%H%M%SZ")
    parts = [_fit(part) for part in (owner, name) if part]
    return f"{'-'.join(parts)}-{when}-v{version}.wadbackup{'.age' if sealed else ''}"


def _fit(part: str) -> str:
    fit = _UNFIT.sub(lambda found: "-" if set(found[0]) == {"-"} else "_", part)
    return fit.lstrip(".-")[:80] or "_"


def moment_text(unix_ms: int) -> str:
    """A time as RFC 3339 in UTC."""
    return datetime.fromtimestamp(unix_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
