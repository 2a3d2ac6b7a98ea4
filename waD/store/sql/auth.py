"""Reading an auth state from whatever representation its phase says, whole or in parts (chapter 08 §6.5, §6.6)."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from waD.store import checksum
from waD.store.canonical import canonicalise
from waD.store.codec import Codec, LegacyKey
from waD.store.errors import SessionUnknown, StoreDamaged
from waD.store.phases import FALLS_BACK, WRITES_SNAPSHOT
from waD.store.sql.database import Database
from waD.store.sql.heads import NO_CREDS, as_stored, check_format, chunks, mac_key, marks
from waD.store.sql.writing import open_cipher
from waD.store.unit import ItemKey
from waD.store.vault import Cipher, Vault

_OWNER: Final = (
    "SELECT s.auth_phase, s.auth_epoch, s.auth_version, s.dek_wrapped, s.dek_kek_id, h.format, h.snapshot, "
    "h.creds_version, h.epoch, h.version, h.item_count, h.checksum, h.complete FROM wa_sessions s "
    "LEFT JOIN wa_auth_snapshots h ON h.session_id=s.id WHERE s.id=?"
)
_ALL: Final = "SELECT type, id, version, value, checksum FROM wa_auth_items WHERE session_id=?"
_DEK_COLUMNS: Final = (
    "(SELECT dek_wrapped FROM wa_sessions WHERE id=?), (SELECT dek_kek_id FROM wa_sessions WHERE id=?), "
    "(SELECT auth_epoch FROM wa_sessions WHERE id=?)"
)

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class State:
    """A whole auth state, decrypted: documents with the version that changed them last."""

    creds: bytes | None
    creds_version: int
    items: dict[ItemKey, tuple[int, bytes]]

    def __repr__(self) -> str:
        return f"State({len(self.items)} items)"


@dataclass(slots=True, repr=False)
class Owner:
    """The session's row and the head of its snapshot, if there is one."""

    phase: str
    epoch: int
    version: int
    cipher: Cipher | None
    format: int | None
    snapshot: str | bytes | None
    creds_version: int | None
    head_epoch: int | None
    head_version: int | None
    count: int | None
    checksum: bytes | None
    complete: bool

    @property
    def has_snapshot(self) -> bool:
        """Whether there is one that counts."""
        return self.snapshot is not None and self.phase in WRITES_SNAPSHOT


def owner(db: Database, session_id: str, vault: Vault | None) -> Owner:
    """The session's row.

    Raises:
        SessionUnknown: there is none.
        KekUnavailable: its state is encrypted with a key that is not here.
    """
    found = db.execute(_OWNER, (session_id,)).fetchone()
    if found is None:
        raise SessionUnknown(f"no session {session_id!r}")
    phase, epoch, version, wrapped, kek_id, *head = found
    cipher = open_cipher(vault, session_id, epoch, wrapped, kek_id)
    return Owner(phase, epoch, version, cipher, *head)


def read_state(
    db: Database, session_id: str, codec: Codec | None, vault: Vault | None, *, salvage: bool = False
) -> State:
    """A session's whole state, checked, in a transaction that sees one version of it.

    With `salvage` a damaged state gives what can be read of it: even that is sealed before it is replaced.

    Raises:
        StoreDamaged: a checksum does not hold, or the format is unknown.
        KekUnavailable: it is encrypted with a key that is not here.
    """
    own = owner(db, session_id, vault)
    state = State(None, own.version, {})
    if own.has_snapshot:
        state = _salvaged(db, session_id, own) if salvage else read_snapshot(db, session_id, own)
    elif own.phase in WRITES_SNAPSHOT:
        _without_head(db, session_id, own, state, salvage)
    if own.phase in FALLS_BACK and codec is not None:
        add_legacy(db, session_id, codec, state)
    return state


def _without_head(db: Database, session_id: str, own: Owner, state: State, salvage: bool) -> None:
    """A session that nothing was written for has no head; one whose head is gone must not look like it."""
    if salvage:
        _salvage_items(db, session_id, own, state.items)
    elif db.execute("SELECT 1 FROM wa_auth_items WHERE session_id=? LIMIT 1", (session_id,)).fetchone():
        raise StoreDamaged(
            f"the auth state of session {session_id} has items, but its head is gone: restore a sealed copy or a backup"
        )


def read_creds(db: Database, session_id: str, codec: Codec | None, vault: Vault | None) -> bytes | None:
    """The credentials document, without a look at anything else."""
    own = owner(db, session_id, vault)
    if own.has_snapshot:
        return _open_creds(own)
    if own.phase in FALLS_BACK and codec is not None:
        return codec.creds(legacy_rows(db, session_id, codec.creds_names()))
    return None


def _open_creds(own: Owner) -> bytes | None:
    assert own.snapshot is not None
    assert own.creds_version is not None
    stored = as_stored(own.snapshot)
    if stored == NO_CREDS:
        return None
    return stored if own.cipher is None else own.cipher.open("creds", "", own.creds_version, stored)


def read_snapshot(db: Database, session_id: str, own: Owner) -> State:
    """All of a snapshot.

    Raises:
        StoreDamaged: it does not match its checksum, or its format is unknown.
    """
    which = f"the auth state of session {session_id}"
    assert own.format is not None
    assert own.snapshot is not None
    assert own.creds_version is not None
    check_format(own.format, session_id)
    if own.head_epoch != own.epoch or own.head_version != own.version:
        raise StoreDamaged(
            f"{which} has version {own.head_epoch}.{own.head_version}, but its row says {own.epoch}.{own.version}: "
            "see wactl verify-auth, and restore a sealed copy or a backup"
        )
    key = mac_key(own.cipher)
    parts = [checksum.creds_checksum(own.creds_version, as_stored(own.snapshot), key)]
    items: dict[ItemKey, tuple[int, bytes]] = {}
    for kind, name, version, value, stored_sum in db.execute(_ALL, (session_id,)).fetchall():
        stored = as_stored(value)
        found = checksum.item_checksum(kind, name, version, stored, key)
        if found != bytes(stored_sum):
            raise StoreDamaged(
                f"{which}: {kind} {_shown(kind, name)} does not match its checksum: see wactl verify-auth, and restore "
                "a sealed copy or a backup"
            )
        parts.append(found)
        items[kind, name] = (
            version,
            stored if own.cipher is None else own.cipher.open(kind, name, version, stored),
        )
    if own.checksum is None or len(items) != own.count or checksum.total(parts) != bytes(own.checksum):
        raise StoreDamaged(
            f"{which} does not match its checksum (an item is missing, or was put back): see wactl verify-auth, and "
            "restore a sealed copy or a backup"
        )
    return State(_open_creds(own), own.creds_version, items)


def _salvaged(db: Database, session_id: str, own: Owner) -> State:
    try:
        return read_snapshot(db, session_id, own)
    except StoreDamaged as damage:
        _log.error("%s; what can be read of it is sealed", damage)
    items: dict[ItemKey, tuple[int, bytes]] = {}
    _salvage_items(db, session_id, own, items)
    creds = None
    with suppress(StoreDamaged, ValueError):
        creds = _open_creds(own)
        creds = None if creds is None else canonicalise(creds)
    return State(creds, own.creds_version or own.version, items)


def _salvage_items(
    db: Database, session_id: str, own: Owner, items: dict[ItemKey, tuple[int, bytes]]
) -> None:
    for kind, name, version, value, _ in db.execute(_ALL, (session_id,)).fetchall():
        with suppress(StoreDamaged, ValueError):
            stored = canonicalise(value)
            opened = stored if own.cipher is None else own.cipher.open(kind, name, version, stored)
            items[kind, name] = (version, canonicalise(opened))


def _shown(kind: str, name: str) -> str:
    """Names hold phone numbers, which have no place in a log."""
    return name if kind == "prekey" else f"{name[:3]}…"


def add_legacy(db: Database, session_id: str, codec: Codec, state: State) -> None:
    """Add what is only in legacy rows; those have version 0 (chapter 08 §6.5)."""
    stored = dict(legacy_all(db, session_id))
    names = {name for name in map(codec.native, stored) if name is not None}
    for kind, key in sorted(names - state.items.keys()):
        rows = {name: stored[name] for name in codec.names(kind, key) if name in stored}
        document = codec.item(kind, key, rows)
        if document is not None:
            state.items[kind, key] = (0, document)
    if state.creds is None:
        state.creds = codec.creds({name: stored[name] for name in codec.creds_names() if name in stored})


def legacy_all(db: Database, session_id: str) -> Iterator[tuple[LegacyKey, bytes]]:
    """All legacy rows of a session."""
    found = db.execute("SELECT type, id, value FROM wa_auth_keys WHERE session_id=?", (session_id,))
    return (((kind, key), as_stored(value)) for kind, key, value in found.fetchall())


def legacy_rows(db: Database, session_id: str, names: Iterable[LegacyKey]) -> dict[LegacyKey, bytes]:
    """The named legacy rows that exist."""
    by_type: dict[str, list[str]] = {}
    for kind, key in names:
        by_type.setdefault(kind, []).append(key)
    found: dict[LegacyKey, bytes] = {}
    for kind, keys in by_type.items():
        for part in chunks(keys):
            query = (
                f"SELECT id, value FROM wa_auth_keys WHERE session_id=? AND type=? AND id IN ({marks(part)})"
            )
            rows = db.execute(query, (session_id, kind, *part)).fetchall()
            found.update({(kind, key): as_stored(value) for key, value in rows})
    return found


# Items one by one.


def snapshot_items(
    db: Database, session_id: str, kind: str, keys: Sequence[str] | None, vault: Vault | None
) -> dict[str, bytes]:
    """Items of a kind in the snapshot, decrypted; all for None."""
    found: dict[str, bytes] = {}
    for part in [None] if keys is None else chunks(keys):
        where = "" if part is None else f" AND id IN ({marks(part)})"
        query = f"SELECT id, version, value, {_DEK_COLUMNS} FROM wa_auth_items WHERE session_id=? AND type=?{where}"
        values: tuple[Any, ...] = (session_id, session_id, session_id, session_id, kind, *(part or ()))
        for name, version, value, wrapped, kek_id, epoch in db.execute(query, values).fetchall():
            stored = as_stored(value)
            cipher = open_cipher(vault, session_id, epoch, wrapped, kek_id)
            found[name] = stored if cipher is None else cipher.open(kind, name, version, stored)
    return found


def legacy_items(
    db: Database, session_id: str, kind: str, keys: Sequence[str] | None, codec: Codec
) -> dict[str, bytes]:
    """Items of a kind in the legacy rows; all for None."""
    wanted = keys if keys is not None else legacy_keys(db, session_id, kind, codec)
    rows = legacy_rows(db, session_id, (name for key in wanted for name in codec.names(kind, key)))
    found: dict[str, bytes] = {}
    for key in wanted:
        own = {name: rows[name] for name in codec.names(kind, key) if name in rows}
        document = codec.item(kind, key, own) if own else None
        if document is not None:
            found[key] = document
    return found


def legacy_keys(db: Database, session_id: str, kind: str, codec: Codec) -> list[str]:
    """Keys of the items of a kind that are in the legacy rows."""
    types = codec.types(kind)
    query = f"SELECT type, id FROM wa_auth_keys WHERE session_id=? AND type IN ({marks(types)})"
    names = (
        codec.native((found[0], found[1])) for found in db.execute(query, (session_id, *types)).fetchall()
    )
    return sorted({name[1] for name in names if name is not None and name[0] == kind})


def missing_in_snapshot(db: Database, session_id: str, codec: Codec, limit: int) -> dict[ItemKey, bytes]:
    """Items that only the legacy rows have, at most so many."""
    there = {
        (kind, key)
        for kind, key in db.execute(
            "SELECT type, id FROM wa_auth_items WHERE session_id=?", (session_id,)
        ).fetchall()
    }
    stored = dict(legacy_all(db, session_id))
    names = sorted({name for name in map(codec.native, stored) if name is not None} - there)
    found: dict[ItemKey, bytes] = {}
    for kind, key in names:
        rows = {name: stored[name] for name in codec.names(kind, key) if name in stored}
        document = codec.item(kind, key, rows)
        if document is not None:
            found[kind, key] = document
        if len(found) >= limit:
            break
    return found
