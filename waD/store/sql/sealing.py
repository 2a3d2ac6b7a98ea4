"""Sealed copies of an auth state: making, listing, reading, and beginning a new epoch (chapter 08 §6.7, §6.8)."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import msgspec

from waD.store.codec import Codec, Upgrade
from waD.store.engine import ResetAuth, RestoreAuth, Restored
from waD.store.errors import KekUnavailable, LeaseLost, StoreDamaged
from waD.store.model import Sealed, SealInfo, SessionRow
from waD.store.phases import COMPLETE, WRITES_LEGACY
from waD.store.seals import ROUTINE
from waD.store.sql import keeping, message_secrets, rows
from waD.store.sql.auth import State, read_state
from waD.store.sql.database import Database, Ms, document
from waD.store.sql.heads import NO_CREDS, Fenced, Heads, as_stored, encoded
from waD.store.sql.seal_documents import (
    Closed,
    as_closed,
    check_seal_format,
    checksum_of,
    decode,
    decode_earlier,
    encode,
    purpose,
    sealed_document,
)
from waD.store.sql.writing import open_cipher, put_event
from waD.store.vault import Cipher, Vault

CHANGED_AT: Final = (
    "SELECT coalesce((SELECT max(version) FROM wa_auth_items WHERE session_id=?), 0), "
    "coalesce((SELECT creds_version FROM wa_auth_snapshots WHERE session_id=?), 0)"
)
LAST_SEAL: Final = (
    "SELECT version FROM wa_auth_sealed WHERE session_id=? AND epoch=? ORDER BY version DESC LIMIT 1"
)
LIST: Final = (
    "SELECT epoch, version, reason, sealed_at, item_count FROM wa_auth_sealed WHERE session_id=? "
    "ORDER BY epoch DESC, version DESC"
)
READ: Final = "SELECT document, checksum FROM wa_auth_sealed WHERE session_id=? AND epoch=? AND version=?"
DROP: Final = "DELETE FROM wa_auth_sealed WHERE session_id=? AND epoch=? AND version=?"
_PUT: Final = (
    "INSERT INTO wa_auth_sealed (session_id, epoch, version, reason, document, item_count, checksum, sealed_at) "
    "VALUES (?,?,?,?,?,?,?,?) ON CONFLICT (session_id, epoch, version) DO UPDATE SET reason=excluded.reason, "
    "document=excluded.document, item_count=excluded.item_count, checksum=excluded.checksum, "
    "sealed_at=excluded.sealed_at"
)
_HOLD_OUTBOX: Final = (
    "UPDATE wa_outbox SET state='held', stanza=NULL WHERE session_id=? AND state IN ('queued','sending')"
)
_OUTBOX_ROWS: Final = "SELECT message_id, payload FROM wa_outbox WHERE session_id=?"
_PUT_ARCHIVE: Final = "INSERT INTO wa_restored_archives (sha256, session_id, at) VALUES (?,?,?)"
_LOST: Final = (
    "UPDATE wa_outbox SET state='failed', stanza=NULL, last_error='its content was damaged' "
    "WHERE session_id=? AND message_id=? AND state IN ('queued','held','sending')"
)
_RENAME: Final = (
    "UPDATE wa_auth_sealed SET reason=?, sealed_at=? WHERE session_id=? AND epoch=? AND version=?"
)
_PLAINTEXTS: Final = "SELECT chat, message_id, plaintext FROM wa_retry_buffer WHERE session_id=?"
_PUT_PLAINTEXT: Final = (
    "UPDATE wa_retry_buffer SET plaintext=? WHERE session_id=? AND chat=? AND message_id=?"
)
_EPOCH: Final = (
    "UPDATE wa_sessions SET auth_epoch=auth_epoch+?, auth_version=auth_version+1, legacy_version=CASE WHEN auth_phase "
    "IN ('cut_over','legacy_retired') THEN legacy_version ELSE auth_version+1 END, updated_at=?{more} "
    "WHERE id=? AND lease_token=? RETURNING auth_version, auth_epoch, name, auth_phase"
)
_DEK: Final = "SELECT dek_wrapped, dek_kek_id FROM wa_sessions WHERE id=?"


class _Held(msgspec.Struct, frozen=True):
    """What outlives the key it is encrypted with: the outbox, also what has ended, and sent plaintexts.

    `count` is how many of the messages are newly held, `cipher` what secrets of messages are still encrypted with.
    """

    cipher: Cipher | None
    count: int
    payloads: list[tuple[str, bytes]]
    plaintexts: list[tuple[str, str, bytes]]

    def __repr__(self) -> str:
        return f"_Held({self.count}, {len(self.payloads)} payloads, {len(self.plaintexts)} plaintexts)"


class Sealing:
    """Seals of one database.

    Args:
        heads: of the connection that writes.
        codec: of legacy rows.
        vault: the operator's keys.
        upgrade: for items of seals that an earlier version made.
    """

    def __init__(self, heads: Heads, codec: Codec | None, vault: Vault | None, upgrade: Upgrade) -> None:
        self._heads = heads
        self._codec = codec
        self._vault = vault
        self._upgrade = upgrade

    def unchanged(self, db: Database, row: SessionRow) -> bool:
        """Whether the newest seal of this epoch holds the same keys; commits that touch no key do not count."""
        last = db.execute(LAST_SEAL, (row.id, row.auth_epoch)).fetchone()
        if last is None or row.auth_phase not in COMPLETE:
            return last is not None and bool(last[0] == row.auth_version)
        newest: int = max(db.execute(CHANGED_AT, (row.id, row.id)).fetchone())
        return newest <= last[0] and not self._deleted_since(db, row, last[0])

    def _deleted_since(self, db: Database, row: SessionRow, version: int) -> bool:
        """An item that was deleted leaves no version behind, but its checksum is missing in the sum."""
        found = db.execute(
            "SELECT s.item_count, h.item_count FROM wa_auth_sealed s JOIN wa_auth_snapshots h "
            "ON h.session_id=s.session_id WHERE s.session_id=? AND s.epoch=? AND s.version=?",
            (row.id, row.auth_epoch, version),
        ).fetchone()
        return found is not None and bool(found[0] != found[1])

    def put(self, db: Database, row: SessionRow, reason: str, now_ms: int) -> int:
        """Seal the state as it is; returns its version."""
        self._heads.flush(db, now_ms, row.id)
        if self._kept(db, row, reason, now_ms):
            return row.auth_version
        state = read_state(db, row.id, self._codec, self._vault, salvage=True)
        sealed = sealed_document(row, state)
        db.execute(
            _PUT,
            (row.id, row.auth_epoch, row.auth_version, reason, document(self._close(db, row, sealed)),
             len(state.items), checksum_of(state), Ms(now_ms)),
        )  # fmt: skip
        return row.auth_version

    def _kept(self, db: Database, row: SessionRow, reason: str, now_ms: int) -> bool:
        """Whether this version was sealed before: a sound copy is not replaced by that of a state damaged since."""
        key = (row.auth_epoch, row.auth_version)
        found = db.execute(READ, (row.id, *key)).fetchone()
        if found is None:
            return False
        stored, expected = found
        try:
            self.open(stored, expected, key, "the seal")
        except (StoreDamaged, KekUnavailable):
            return False
        if reason not in ROUTINE:
            db.execute(_RENAME, (reason, Ms(now_ms), row.id, *key))
        return True

    def _close(self, db: Database, row: SessionRow, sealed: bytes) -> bytes:
        wrapped, kek_id = db.execute(_DEK, (row.id,)).fetchone()
        cipher = open_cipher(self._vault, row.id, row.auth_epoch, wrapped, kek_id)
        if cipher is None:
            return sealed
        closed = cipher.close_blob(purpose(row.auth_epoch, row.auth_version), sealed)
        return encode(Closed(1, cipher.wrapped, cipher.kek_id, row.auth_epoch, row.id, closed))

    def open(self, stored: str | bytes, expected: bytes, key: tuple[int, int], which: str) -> Sealed:
        """Read a seal.

        Args:
            stored: its document.
            expected: its checksum, as stored.
            key: its epoch and version.
            which: names it in the error.

        Raises:
            StoreDamaged: it is not what was sealed, or of an unknown format.
            KekUnavailable: it is encrypted with a key that is not here.
        """
        data = encoded(stored) if isinstance(stored, str) else bytes(stored)
        try:
            return self._open(data, bytes(expected), key, which)
        except (msgspec.DecodeError, binascii.Error, ValueError):
            raise StoreDamaged(f"{which} cannot be read: use an older one, or a backup") from None

    def _open(self, data: bytes, expected: bytes, key: tuple[int, int], which: str) -> Sealed:
        if (kept := keeping.as_kept(data)) is not None:
            return self._open_kept(kept, expected, which)
        if (box := as_closed(data)) is not None:
            cipher = open_cipher(self._vault, box.session, box.epoch, box.dek, box.kek)
            assert cipher is not None
            data = cipher.open_blob(purpose(*key), box.data)
        if hashlib.sha256(data).digest() == expected:
            return self._open_earlier(data, which)
        found = decode(as_stored(data) if data[:1] == b"{" else data)
        check_seal_format(found.format, which)
        creds = bytes(found.creds)
        items = {
            (kind, name): (item.version, bytes(item.value))
            for kind, named in found.items.items()
            for name, item in named.items()
        }
        if checksum_of(State(creds, found.creds_version, items)) != expected:
            raise StoreDamaged(f"{which} does not match its checksum: use an older one, or a backup")
        return Sealed(
            epoch=found.epoch,
            version=found.version,
            creds=None if creds == NO_CREDS else creds,
            items={name: value for name, (_, value) in items.items()},
        )

    def _open_kept(self, kept: keeping.Kept, expected: bytes, which: str) -> Sealed:
        try:
            cipher = open_cipher(self._vault, kept.session, kept.epoch, kept.dek, kept.kek)
        except KekUnavailable:
            if not keeping.has_clear(kept):
                raise
            cipher = None
        return keeping.opened(kept, expected, cipher, which)

    def _open_earlier(self, data: bytes, which: str) -> Sealed:
        found = decode_earlier(data)
        check_seal_format(found.format, which)
        items = {
            (kind, name): self._upgrade(kind, name, base64.b64decode(value, validate=True))
            for kind, name, value in found.items
        }
        creds = None if found.creds is None else base64.b64decode(found.creds, validate=True)
        return Sealed(epoch=found.epoch, version=found.version, creds=creds, items=items)

    # New epochs.

    def reset(self, db: Database, row: SessionRow, job: ResetAuth, now_ms: int) -> int:
        """Seal, then begin a new epoch with other credentials; returns the version that was sealed.

        Raises:
            LeaseLost: the token is not the current one.
        """
        sealed = self.put(db, row, "pre_reset", now_ms)
        self.clear(db, row, job, now_ms)
        return sealed

    def clear(self, db: Database, row: SessionRow, job: ResetAuth, now_ms: int) -> None:
        """Begin a new epoch with other credentials; the state is sealed already, or another store has it.

        Raises:
            LeaseLost: the token is not the current one.
        """
        held = self._hold(db, row)
        at = self._begin(db, row, job.token, {"me_pn": None, "me_lid": None}, now_ms)
        self._replace(db, at, job.items, job.creds, held, now_ms)
        for table in ("wa_retry_buffer", "wa_inbound_buffer"):
            db.execute(f"DELETE FROM {table} WHERE session_id=?", (job.session_id,))

    def restore(self, db: Database, row: SessionRow, job: RestoreAuth, now_ms: int) -> Restored:
        """Seal, then begin a new epoch with another auth state (chapter 08 §7.5).

        Raises:
            LeaseLost: the token is not the current one.
        """
        locked = self._locked(row, db) if job.locked else None
        sealed, held, lost = self._put_away(db, row, now_ms, locked=locked is not None)
        at = self._begin(db, row, job.token, job.changes, now_ms, job.least_epoch)
        self._replace(db, at, job.items, job.creds, held, now_ms)
        again = keeping.give_back(db, row.id, job.texts, at.cipher)
        if job.archive is not None:
            db.execute(_PUT_ARCHIVE, (job.archive, row.id, Ms(now_ms)))
        data = {**job.event_data, "sealedVersion": sealed}
        if locked is not None:
            data["sealedUnder"] = locked
        event = put_event(db, (row.id, row.name), job.event_type, data, now_ms)
        return Restored(at.version, [event], sealed, held.count + again, at.epoch, locked, lost)

    def _locked(self, row: SessionRow, db: Database) -> str | None:
        """The name of the key that a state is encrypted with, if that is not here."""
        wrapped, kek_id = db.execute(_DEK, (row.id,)).fetchone()
        try:
            open_cipher(self._vault, row.id, row.auth_epoch, wrapped, kek_id)
        except KekUnavailable:
            return str(kek_id)
        return None

    def _put_away(
        self, db: Database, row: SessionRow, now_ms: int, *, locked: bool
    ) -> tuple[int, _Held, int]:
        """Seal what is in place; gives the version of that, what outlives it, and how many messages are lost."""
        if not locked:
            sealed = self.put(db, row, "pre_restore", now_ms)
            return sealed, self._hold(db, row), 0
        self._heads.flush(db, now_ms, row.id)
        sealed = keeping.keep(db, row, self._codec, now_ms)
        lost, names = keeping.let_go(db, row.id)
        return sealed, _Held(None, 0, [(name, b"{}") for name in names], []), lost

    def _begin(
        self,
        db: Database,
        row: SessionRow,
        token: int,
        changes: Mapping[str, Any],
        now_ms: int,
        least_epoch: int = 0,
    ) -> Fenced:
        """The next epoch; where there is a vault, with a key of its own."""
        columns = rows.session_changes(changes)
        step = max(1, least_epoch - row.auth_epoch)
        cipher = None if self._vault is None else self._vault.next(row.id, row.auth_epoch + step, row.kek_id)
        columns["dek_wrapped"] = None if cipher is None else cipher.wrapped
        columns["dek_kek_id"] = None if cipher is None else cipher.kek_id
        more = "".join(f", {name}=?" for name in columns)
        found = db.execute(
            _EPOCH.format(more=more), (step, Ms(now_ms), *columns.values(), row.id, token)
        ).fetchone()
        if found is None:
            raise LeaseLost(f"session {row.id} has another owner now; its auth state was left as it is")
        version, epoch, name, phase = found
        return Fenced(row.id, name, token, epoch, version, phase, cipher)

    def _hold(self, db: Database, row: SessionRow) -> _Held:
        """Hold what waits, and decrypt the outbox: it outlives the key it is encrypted with."""
        wrapped, kek_id = db.execute(_DEK, (row.id,)).fetchone()
        cipher = open_cipher(self._vault, row.id, row.auth_epoch, wrapped, kek_id)
        payloads: list[tuple[str, bytes]] = []
        for name, payload in db.execute(_OUTBOX_ROWS, (row.id,)).fetchall():
            stored = as_stored(payload)
            try:
                payloads.append((name, stored if cipher is None else cipher.open("outbox", name, 0, stored)))
            except StoreDamaged:
                db.execute(_LOST, (row.id, name))
                payloads.append((name, b"{}"))
        count = db.execute(_HOLD_OUTBOX, (row.id,)).rowcount
        return _Held(cipher, count, payloads, self._plaintexts(db, row.id, cipher))

    def _plaintexts(
        self, db: Database, session_id: str, cipher: Cipher | None
    ) -> list[tuple[str, str, bytes]]:
        found: list[tuple[str, str, bytes]] = []
        for chat, name, kept in db.execute(_PLAINTEXTS, (session_id,)).fetchall():
            blob = bytes(kept)
            with suppress(StoreDamaged):  # a damaged one would answer no retry anyway
                opened = blob if cipher is None else cipher.open_blob(f"retry:{name}", blob)
                found.append((chat, name, opened))
        return found

    def _replace(
        self,
        db: Database,
        at: Fenced,
        items: Mapping[tuple[str, str], bytes],
        creds: bytes,
        held: _Held,
        now_ms: int,
    ) -> None:
        self._heads.drop(at.session_id)
        for table in ("wa_auth_items", "wa_auth_snapshots"):
            db.execute(f"DELETE FROM {table} WHERE session_id=?", (at.session_id,))
        if at.phase in WRITES_LEGACY:
            db.execute("DELETE FROM wa_auth_keys WHERE session_id=?", (at.session_id,))
        self._heads.write(db, at, items, creds, now_ms)
        for name, payload in held.payloads:
            closed = payload if at.cipher is None else at.cipher.close("outbox", name, 0, payload)
            db.execute(
                "UPDATE wa_outbox SET payload=? WHERE session_id=? AND message_id=?",
                (document(closed), at.session_id, name),
            )
        for chat, name, kept in held.plaintexts:
            blob = kept if at.cipher is None else at.cipher.close_blob(f"retry:{name}", kept)
            db.execute(_PUT_PLAINTEXT, (blob, at.session_id, chat, name))
        message_secrets.recode(db, at.session_id, held.cipher, at.cipher)


def info(row: tuple[Any, ...]) -> SealInfo:
    """From `LIST`."""
    epoch, version, reason, sealed_at, item_count = row
    return SealInfo(epoch=epoch, version=version, reason=reason, sealed_at=sealed_at, item_count=item_count)
