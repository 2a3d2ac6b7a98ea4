"""Encrypting what is stored in the clear, and wrapping keys with another key of the operator's (chapter 08 §8)."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from msgspec import structs

from waD.store.engine import EncryptAuth, RewrapAuth, Rewrapped
from waD.store.errors import KekUnavailable
from waD.store.model import SessionRow
from waD.store.sql import auth, message_secrets
from waD.store.sql.database import Database, document
from waD.store.sql.heads import Heads, as_stored
from waD.store.sql.keeping import Kept, as_kept
from waD.store.sql.seal_documents import Closed, as_closed, encode, purpose
from waD.store.sql.writing import fence
from waD.store.vault import Cipher, Vault

_DEK: Final = "SELECT dek_wrapped, dek_kek_id FROM wa_sessions WHERE id=?"
_PUT_DEK: Final = "UPDATE wa_sessions SET dek_wrapped=?, dek_kek_id=? WHERE id=?"
_CHANGE_DEK: Final = "UPDATE wa_sessions SET dek_wrapped=?, dek_kek_id=? WHERE id=? AND dek_wrapped=?"
_PAYLOADS: Final = "SELECT seq, message_id, payload FROM wa_outbox WHERE session_id=?"
_PLAINTEXTS: Final = "SELECT chat, message_id, plaintext FROM wa_retry_buffer WHERE session_id=?"
_PUT_PLAINTEXT: Final = (
    "UPDATE wa_retry_buffer SET plaintext=? WHERE session_id=? AND chat=? AND message_id=?"
)
_SEALS: Final = "SELECT epoch, version, document FROM wa_auth_sealed WHERE session_id=?"
_PUT_SEAL: Final = "UPDATE wa_auth_sealed SET document=? WHERE session_id=? AND epoch=? AND version=?"


class Encrypting:
    """Changes how the sessions of one database are encrypted; what they hold stays.

    Args:
        heads: of the connection that writes.
        vault: the operator's keys; None without.
    """

    def __init__(self, heads: Heads, vault: Vault | None) -> None:
        self._heads = heads
        self._vault = vault

    def encrypt(self, db: Database, row: SessionRow, job: EncryptAuth, now_ms: int) -> int:
        """Give a session in the clear a key of its own, and store everything anew under it; returns the version.

        Returns 0 when it is encrypted already.

        Raises:
            LeaseLost: the token is not the current one.
            KekUnavailable: there is no key to wrap its key with.
            StoreDamaged: its state does not match its checksum.
        """
        if row.kek_id is not None:
            return 0
        self._heads.flush(db, now_ms, row.id)
        own = auth.owner(db, row.id, self._vault)
        state = auth.read_snapshot(db, row.id, own) if own.has_snapshot else None
        at = fence(db, row.id, (job.token, row.auth_epoch), {}, self._vault, now_ms)
        cipher = None if self._vault is None else self._vault.new(row.id, row.auth_epoch)
        if cipher is None:
            raise KekUnavailable(
                "there is no key to encrypt with: name one as store.kek_file, or provide the systemd credential wad-kek"
            )
        db.execute(_PUT_DEK, (cipher.wrapped, cipher.kek_id, row.id))
        if state is not None:
            creds = (state.creds_version, state.creds)
            self._heads.rewrite(
                db, replace(at, cipher=cipher), creds, state.items, complete=bool(own.complete)
            )
        _close_messages(db, row.id, cipher)
        message_secrets.recode(db, row.id, None, cipher)
        _close_seals(db, row, cipher)
        return at.version

    def rewrap(self, db: Database, row: SessionRow, job: RewrapAuth) -> Rewrapped:
        """Wrap a session's key, and those of its seals, with another key of the operator's; the keys stay.

        Seals whose key is lost are counted and stay as they are: a found key still opens them.

        Raises:
            KekUnavailable: that key, or the session's own, is not here; nothing was changed.
        """
        if self._vault is None or job.kek_id not in self._vault.ids:
            raise KekUnavailable(f"the key {job.kek_id!r} is not here: put it beside store.kek_file")
        wrapped, kek_id = db.execute(_DEK, (row.id,)).fetchone()
        own = wrapped is not None and kek_id != job.kek_id
        if own:
            cipher = self._vault.rewrap(row.id, row.auth_epoch, bytes(wrapped), kek_id, job.kek_id)
            new = (cipher.wrapped, cipher.kek_id, row.id, bytes(wrapped))
            if not db.execute(_CHANGE_DEK, new).rowcount:
                raise ValueError(f"session {row.name} got another key just now; try again")
        done, left = self._rewrap_seals(db, row.id, job.kek_id)
        return Rewrapped(own, done, left)

    def _rewrap_seals(self, db: Database, session_id: str, kek_id: str) -> tuple[int, int]:
        """How many were wrapped anew, and how many could not be."""
        assert self._vault is not None
        done = left = 0
        for epoch, version, stored in db.execute(_SEALS, (session_id,)).fetchall():
            box = _box(stored)
            if box is None or box.kek == kek_id:
                continue
            try:
                cipher = self._vault.rewrap(box.session, box.epoch, box.dek, box.kek, kek_id)
            except KekUnavailable:
                left += 1
                continue
            box = structs.replace(box, dek=cipher.wrapped, kek=cipher.kek_id)
            db.execute(_PUT_SEAL, (document(encode(box)), session_id, epoch, version))
            done += 1
        return done, left


def _close_messages(db: Database, session_id: str, cipher: Cipher) -> None:
    """Waiting messages, and plaintexts kept for retries."""
    for seq, message_id, payload in db.execute(_PAYLOADS, (session_id,)).fetchall():
        closed = cipher.close("outbox", message_id, 0, as_stored(payload))
        db.execute("UPDATE wa_outbox SET payload=? WHERE seq=?", (document(closed), seq))
    for chat, message_id, kept in db.execute(_PLAINTEXTS, (session_id,)).fetchall():
        blob = cipher.close_blob(f"retry:{message_id}", bytes(kept))
        db.execute(_PUT_PLAINTEXT, (blob, session_id, chat, message_id))


def _close_seals(db: Database, row: SessionRow, cipher: Cipher) -> None:
    """Copies in the clear would give away what is encrypted beside them."""
    for epoch, version, stored in db.execute(_SEALS, (row.id,)).fetchall():
        if _box(stored) is not None:
            continue
        data = cipher.close_blob(purpose(epoch, version), as_stored(stored))
        closed = Closed(1, cipher.wrapped, cipher.kek_id, row.auth_epoch, row.id, data)
        db.execute(_PUT_SEAL, (document(encode(closed)), row.id, epoch, version))


def _box(stored: str | bytes) -> Closed | Kept | None:
    """The envelope of an encrypted seal; None for one in the clear."""
    data = stored.encode() if isinstance(stored, str) else bytes(stored)
    return as_closed(data) or as_kept(data)
