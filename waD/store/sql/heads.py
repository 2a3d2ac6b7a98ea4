"""The auth state inside an open transaction: items, credentials, the head over them, legacy rows (chapter 08 §6.4).

A head is kept in memory between transactions: only the owner of the session's token writes it, so it changes under
nobody. It goes to the database once per transaction, however many units changed it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any, Final

from msgspec import Struct

from waD.store import checksum
from waD.store.canonical import canonicalise
from waD.store.codec import Codec, LegacyKey
from waD.store.errors import StoreDamaged
from waD.store.phases import COMPLETE, WRITES_LEGACY, WRITES_SNAPSHOT
from waD.store.sql.database import Database, Json, Ms, document
from waD.store.unit import ItemKey, ItemValue
from waD.store.vault import Cipher

FORMAT: Final = 1
NO_CREDS: Final = b"null"
NOBODY: Final = -1
"""The token of a head that is only still to be written."""
MAX_MARKS: Final = 500
"""Parameters of one query; more are asked for in several."""

_HEAD: Final = (
    "SELECT epoch, version, format, snapshot, creds_version, item_count, checksum, complete FROM wa_auth_snapshots "
    "WHERE session_id=?"
)
_PUT_HEAD: Final = (
    "INSERT INTO wa_auth_snapshots (session_id, epoch, version, format, snapshot, creds_version, item_count, "
    "checksum, complete, written_at) VALUES (?,?,?,?,?,?,?,?,?,?) ON CONFLICT (session_id) DO UPDATE SET "
    "epoch=excluded.epoch, version=excluded.version, format=excluded.format, snapshot=excluded.snapshot, "
    "creds_version=excluded.creds_version, item_count=excluded.item_count, checksum=excluded.checksum, "
    "complete=excluded.complete, written_at=excluded.written_at"
)
MOVE_HEAD: Final = (
    "UPDATE wa_auth_snapshots SET version=?, item_count=?, checksum=?, written_at=? WHERE session_id=?"
)
_STEP_HEAD: Final = "UPDATE wa_auth_snapshots SET version=? WHERE session_id=? AND epoch=? AND version=?"
_PUT_ITEM: Final = (
    "INSERT INTO wa_auth_items (session_id, type, id, version, value, checksum) VALUES (?,?,?,?,?,?) "
    "ON CONFLICT (session_id, type, id) DO UPDATE SET version=excluded.version, value=excluded.value, "
    "checksum=excluded.checksum"
)
_DELETE_ITEM: Final = "DELETE FROM wa_auth_items WHERE session_id=? AND type=? AND id=?"
_PUT_LEGACY: Final = (
    "INSERT INTO wa_auth_keys (session_id, type, id, value, updated_at) VALUES (?,?,?,?,?) "
    "ON CONFLICT (session_id, type, id) DO UPDATE SET value=excluded.value, updated_at=excluded.updated_at"
)
_DELETE_LEGACY: Final = "DELETE FROM wa_auth_keys WHERE session_id=? AND type=? AND id=?"


@dataclass(slots=True)
class Fenced:
    """What the fence of a commit found in the session's row."""

    session_id: str
    name: str
    token: int
    epoch: int
    version: int
    phase: str
    cipher: Cipher | None


class Head(Struct):
    """The head of one session's snapshot as it will be."""

    token: int
    epoch: int
    version: int
    creds: bytes
    creds_version: int
    creds_checksum: bytes
    count: int
    checksum: bytes
    complete: bool
    stored: bool
    creds_changed: bool = False

    def __repr__(self) -> str:
        return f"Head({self.epoch}.{self.version}, {self.count} items)"


class Heads:
    """Heads of the sessions that one connection writes.

    Args:
        codec: of legacy rows; None where none are kept.
    """

    def __init__(self, codec: Codec | None) -> None:
        self._codec = codec
        self._heads: dict[str, Head] = {}
        self._dirty: set[str] = set()
        self._before: dict[str, tuple[Head | None, bool]] = {}

    def forget(self) -> None:
        """After a transaction that failed: nothing is known any more."""
        self._heads.clear()
        self._dirty.clear()
        self._before.clear()

    def drop(self, session_id: str) -> None:
        """Somebody else may have written this session's state: read its head anew, once ours is written."""
        self._note(session_id)
        if session_id in self._dirty:
            self._heads[session_id].token = NOBODY
        else:
            self._heads.pop(session_id, None)

    def mark(self) -> None:
        """A job begins."""
        self._before.clear()

    def revert(self) -> None:
        """The job was rolled back."""
        for session_id, (head, dirty) in self._before.items():
            (self._dirty.add if dirty else self._dirty.discard)(session_id)
            if head is None:
                self._heads.pop(session_id, None)
            else:
                self._heads[session_id] = head
        self._before.clear()

    def _note(self, session_id: str) -> None:
        if session_id not in self._before:
            head = self._heads.get(session_id)
            self._before[session_id] = (None if head is None else copy(head), session_id in self._dirty)

    def flush(self, db: Database, now_ms: int, session_id: str | None = None) -> None:
        """Write the heads that changed, or one of them."""
        moved: list[tuple[Any, ...]] = []
        for one in [session_id] if session_id is not None else [*self._dirty]:
            head = self._heads.get(one)
            if one in self._dirty and head is not None:
                self._note(one)  # the job that wants it written may be rolled back, and this with it
                if head.stored and not head.creds_changed:
                    moved.append((head.version, head.count, head.checksum, Ms(now_ms), one))
                else:
                    _put(db, one, head, now_ms)
                head.stored, head.creds_changed = True, False
            self._dirty.discard(one)
        if moved:
            db.executemany(MOVE_HEAD, moved)

    # What a unit changes.

    def write(
        self,
        db: Database,
        at: Fenced,
        items: Mapping[ItemKey, ItemValue | None],
        creds: bytes | None,
        now_ms: int,
        old: Mapping[ItemKey, bytes] | None = None,
    ) -> None:
        """Apply a unit's items and credentials, in whatever representations the phase has.

        `old` are the checksums that the items in the snapshot have; None: they are asked for.
        """
        documents = {
            key: value if value is None or isinstance(value, bytes) else value.serialize()
            for key, value in items.items()
        }
        if at.phase in WRITES_SNAPSHOT:
            self._write_snapshot(db, at, documents, creds, old)
        if at.phase in WRITES_LEGACY:
            self._write_legacy(db, at.session_id, documents, creds, now_ms)

    def _write_snapshot(
        self,
        db: Database,
        at: Fenced,
        documents: Mapping[ItemKey, bytes | None],
        creds: bytes | None,
        old: Mapping[ItemKey, bytes] | None,
    ) -> None:
        self._note(at.session_id)
        head = self._head(db, at)
        if head.stored and (head.epoch, head.version) != (at.epoch, at.version - 1):
            # One that was put back stays behind, to be found: moved on, it would look right, and use keys again.
            if documents or creds is not None:
                raise StoreDamaged(
                    f"the auth state of session {at.session_id} has version {head.epoch}.{head.version}, but its row "
                    f"says {at.epoch}.{at.version - 1}: restore a sealed copy or a backup"
                )
            return
        _write_items(db, at, head, documents, old)
        if creds is not None:
            set_creds(head, at, creds)
        head.version = at.version
        self._dirty.add(at.session_id)

    def adopt(self, session_id: str, head: Head) -> None:
        """Take a head that was made anew."""
        self._note(session_id)
        self._heads[session_id] = head
        self._dirty.add(session_id)

    def step(self, db: Database, at: Fenced) -> None:
        """A unit without keys: the head goes on to its version, and nothing else of it changes."""
        if at.phase not in WRITES_SNAPSHOT:
            return
        head = self._heads.get(at.session_id)
        # One that is not written yet is of this very transaction: nobody can have come between.
        ours = head is not None and (head.token == at.token or at.session_id in self._dirty)
        if head is not None and ours and head.epoch == at.epoch:
            self._note(at.session_id)
            head.token = at.token
            if not head.stored or (head.epoch, head.version) == (at.epoch, at.version - 1):
                head.version = at.version
                self._dirty.add(at.session_id)
            return
        db.execute(_STEP_HEAD, (at.version, at.session_id, at.epoch, at.version - 1))

    def write_copies(self, db: Database, at: Fenced, items: Mapping[ItemKey, bytes]) -> None:
        """Items that come from the legacy rows: they have version 0, and the state's version stays."""
        self._note(at.session_id)
        head = self._head(db, at)
        _write_items(db, replace(at, version=0), head, items)
        self._dirty.add(at.session_id)

    def rewrite(
        self,
        db: Database,
        at: Fenced,
        creds: tuple[int, bytes | None],
        items: Mapping[ItemKey, tuple[int, bytes]],
        *,
        complete: bool,
    ) -> None:
        """Store a whole snapshot anew, each document with the version it had, as it is encrypted from now on.

        Args:
            db: in a transaction.
            at: the fence; its version becomes the snapshot's.
            creds: version and document.
            items: versions and documents.
            complete: whether the snapshot has everything.
        """
        self.drop(at.session_id)
        db.execute("DELETE FROM wa_auth_items WHERE session_id=?", (at.session_id,))
        head = empty_head(at)
        set_creds(head, replace(at, version=creds[0]), NO_CREDS if creds[1] is None else creds[1])
        by_version: dict[int, dict[ItemKey, bytes | None]] = {}
        for key, (version, document_) in items.items():
            by_version.setdefault(version, {})[key] = document_
        for version, documents in by_version.items():
            _write_items(db, replace(at, version=version), head, documents)
        head.complete = complete
        self.adopt(at.session_id, head)

    def _head(self, db: Database, at: Fenced) -> Head:
        head = self._heads.get(at.session_id)
        if head is not None and at.session_id in self._dirty:
            head.token = at.token  # of this very transaction: nobody can have come between
        elif head is None or head.token != at.token or head.epoch != at.epoch:
            head = read_head(db, at) or empty_head(at)
            self._heads[at.session_id] = head
        return head

    def _write_legacy(
        self,
        db: Database,
        session_id: str,
        documents: Mapping[ItemKey, bytes | None],
        creds: bytes | None,
        now_ms: int,
    ) -> None:
        codec = self._codec
        if codec is None:
            # Rows that are left behind while their version goes on would one day be read as the present.
            raise ValueError("this store was opened without the means to write key-value rows")
        rows: dict[LegacyKey, bytes | None] = {}
        for (kind, key), value in documents.items():
            rows.update(codec.item_rows(kind, key, value))
        if creds is not None:
            rows.update(codec.creds_rows(creds))
        put_legacy(db, session_id, rows, now_ms)


def put_legacy(db: Database, session_id: str, rows: Mapping[LegacyKey, bytes | None], now_ms: int) -> None:
    """Write and delete legacy rows."""
    puts = [
        (session_id, *name, document(value), Ms(now_ms)) for name, value in rows.items() if value is not None
    ]
    deletes = [(session_id, *name) for name, value in rows.items() if value is None]
    if puts:
        db.executemany(_PUT_LEGACY, puts)
    if deletes:
        db.executemany(_DELETE_LEGACY, deletes)


def empty_head(at: Fenced) -> Head:
    """The head of a state without anything."""
    head = Head(at.token, at.epoch, at.version, b"", at.version, b"", 0, bytes(32), False, False)
    head.complete = at.phase in COMPLETE
    set_creds(head, at, NO_CREDS)
    return head


def set_creds(head: Head, at: Fenced, creds: bytes) -> None:
    """Replace the credentials under the head."""
    old = head.creds_checksum or None
    stored = creds
    if at.cipher is not None and creds != NO_CREDS:
        stored = at.cipher.close("creds", "", at.version, creds)
    head.creds, head.creds_version, head.creds_changed = stored, at.version, True
    head.creds_checksum = checksum.creds_checksum(at.version, stored, mac_key(at.cipher))
    head.checksum = checksum.changed(head.checksum, old, head.creds_checksum)


def mac_key(cipher: Cipher | None) -> bytes | None:
    """What checksums of an encrypted state are made with."""
    return None if cipher is None else cipher.mac_key


def read_head(db: Database, at: Fenced) -> Head | None:
    """The stored head; None when there is none.

    Raises:
        StoreDamaged: it is of an unknown format.
    """
    found = db.execute(_HEAD, (at.session_id,)).fetchone()
    if found is None:
        return None
    epoch, version, form, snapshot, creds_version, count, total, complete = found
    check_format(form, at.session_id)
    creds = as_stored(snapshot)
    own = checksum.creds_checksum(creds_version, creds, mac_key(at.cipher))
    return Head(
        token=at.token, epoch=epoch, version=version, creds=creds, creds_version=creds_version, creds_checksum=own,
        count=count, checksum=bytes(total), complete=bool(complete), stored=True,
    )  # fmt: skip


def check_format(form: int, session_id: str) -> None:
    """Raises StoreDamaged for the head of a newer program."""
    if form != FORMAT:
        raise StoreDamaged(
            f"the auth state of session {session_id} has format {form}, and this program knows {FORMAT}: "
            "install the program that wrote it"
        )


def as_stored(value: str | bytes) -> bytes:
    """A document as its checksum was made over it: text as it is; what a database has taken apart, put in order."""
    return encoded(value) if isinstance(value, str) else canonicalise(value)


def encoded(text: str) -> bytes:
    """The bytes of a text as a database gave it: damaged ones may be no UTF-8."""
    return text.encode("utf-8", "surrogateescape")


def _put(db: Database, session_id: str, head: Head, now_ms: int) -> None:
    db.execute(
        _PUT_HEAD,
        (session_id, head.epoch, head.version, FORMAT, document(head.creds), head.creds_version, head.count,
         head.checksum, head.complete, Ms(now_ms)),
    )  # fmt: skip


def _write_items(
    db: Database,
    at: Fenced,
    head: Head,
    documents: Mapping[ItemKey, bytes | None],
    old: Mapping[ItemKey, bytes] | None = None,
) -> None:
    if not documents:
        return
    if old is None:
        old = _old_checksums(db, at.session_id, documents)
    key_of_mac = mac_key(at.cipher)
    puts: list[tuple[str, str, str, int, Json, bytes]] = []
    deletes: list[tuple[str, str, str]] = []
    total = head.checksum
    for (kind, key), value in documents.items():
        before = old.get((kind, key))
        if value is None:
            if before is not None:
                deletes.append((at.session_id, kind, key))
                total = checksum.changed(total, before, None)
                head.count -= 1
            continue
        stored = value if at.cipher is None else at.cipher.close(kind, key, at.version, value)
        after = checksum.item_checksum(kind, key, at.version, stored, key_of_mac)
        puts.append((at.session_id, kind, key, at.version, document(stored), after))
        total = checksum.changed(total, before, after)
        head.count += before is None
    head.checksum = total
    if puts:
        db.executemany(_PUT_ITEM, puts)
    if deletes:
        db.executemany(_DELETE_ITEM, deletes)


def _old_checksums(db: Database, session_id: str, items: Iterable[ItemKey]) -> dict[ItemKey, bytes]:
    by_kind: dict[str, list[str]] = {}
    for kind, key in items:
        by_kind.setdefault(kind, []).append(key)
    found: dict[ItemKey, bytes] = {}
    for kind, keys in by_kind.items():
        for part in chunks(keys):
            query = (
                "SELECT id, checksum FROM wa_auth_items WHERE session_id=? AND type=? "
                f"AND id IN ({marks(part)})"
            )
            rows = db.execute(query, (session_id, kind, *part)).fetchall()
            found.update({(kind, key): bytes(value) for key, value in rows})
    return found


def chunks(keys: Sequence[str]) -> Iterable[Sequence[str]]:
    """Parts of a size that one query takes."""
    return (keys[start : start + MAX_MARKS] for start in range(0, len(keys), MAX_MARKS))


def marks(values: Sequence[Any]) -> str:
    """Placeholders."""
    return ",".join("?" * len(values))
