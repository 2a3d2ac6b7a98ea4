"""A state that cannot be decrypted now, kept as it is stored, for whoever finds its key again (chapter 08 §6.8, §7.5).

It lies among the seals. Nothing in it is decrypted: it has the rows as they are, and the wrapped key that opens them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import msgspec

from waD.store.canonical import canonicalise
from waD.store.codec import Codec
from waD.store.errors import StoreDamaged
from waD.store.model import Sealed, SecretRow, SessionRow
from waD.store.phases import WRITES_LEGACY
from waD.store.sql import message_secrets
from waD.store.sql.auth import State, add_legacy
from waD.store.sql.database import Database, Ms, document
from waD.store.sql.heads import NO_CREDS, encoded
from waD.store.vault import CLEAR, Cipher

FORM: Final = 2
REASON: Final = "pre_restore"
LOST_TEXT: Final = "its content is encrypted with a key that is not here"

_DEK: Final = "SELECT dek_wrapped, dek_kek_id FROM wa_sessions WHERE id=?"
_HEAD: Final = "SELECT snapshot, creds_version FROM wa_auth_snapshots WHERE session_id=?"
_ITEMS: Final = "SELECT type, id, version, value FROM wa_auth_items WHERE session_id=? ORDER BY type, id"
_PAYLOADS: Final = "SELECT message_id, payload FROM wa_outbox WHERE session_id=? ORDER BY seq"
_PLAINTEXTS: Final = (
    "SELECT chat, message_id, plaintext FROM wa_retry_buffer WHERE session_id=? ORDER BY chat, message_id"
)
_TAKEN: Final = "SELECT max(version) FROM wa_auth_sealed WHERE session_id=? AND epoch=? AND version>=?"
_PUT: Final = (
    "INSERT INTO wa_auth_sealed (session_id, epoch, version, reason, document, item_count, checksum, sealed_at) "
    "VALUES (?,?,?,?,?,?,?,?)"
)
_FAIL: Final = (
    "UPDATE wa_outbox SET state='failed', stanza=NULL, last_error=? "
    "WHERE session_id=? AND state IN ('queued','held','sending')"
)
_GIVE_BACK: Final = (
    "UPDATE wa_outbox SET payload=?, state='held', last_error=NULL "
    "WHERE session_id=? AND message_id=? AND state='failed' AND last_error=?"
)
_FORGET: Final = "DELETE FROM wa_retry_buffer WHERE session_id=?"


class _Row(msgspec.Struct, array_like=True):
    """An item as it is stored."""

    kind: str
    key: str
    version: int
    value: bytes

    def __repr__(self) -> str:
        return f"_Row({self.kind}, version={self.version})"


class _Text(msgspec.Struct, array_like=True):
    """A message on its way out, or one that was sent, as it is stored; `chat` is empty for the former."""

    chat: str
    message_id: str
    value: bytes

    def __repr__(self) -> str:
        return f"_Text({self.message_id})"


class _Secret(msgspec.Struct, array_like=True):
    """The secret of a message as it is stored; else as `SecretRow`."""

    chat: str
    sender: str
    message_id: str
    wire_sender: str
    value: bytes
    message_ts: int
    expires_at: int | None

    def __repr__(self) -> str:
        return f"_Secret({self.message_id})"


class _Body(msgspec.Struct):
    """What is kept."""

    version: int
    creds: bytes | None
    creds_version: int
    items: list[_Row]
    legacy: list[_Row]
    outbox: list[_Text]
    plaintexts: list[_Text]
    secrets: list[_Secret]

    def __repr__(self) -> str:
        return f"_Body({self.version}, {len(self.items)} items)"


class Kept(msgspec.Struct, rename={"form": "$wad"}):
    """A state as it is stored, with its wrapped key, and which of the operator's it is wrapped with."""

    form: int
    dek: bytes
    kek: str
    epoch: int
    session: str
    kept: _Body

    def __repr__(self) -> str:
        return f"Kept({self.epoch}, kek={self.kek})"


_encode: Final = msgspec.json.Encoder(order="sorted").encode
_decode: Final = msgspec.json.Decoder(Kept).decode


def as_kept(data: bytes) -> Kept | None:
    """A state that was kept; None for any other seal."""
    if b'"$wad"' not in data[:1000]:
        return None
    try:
        return _decode(data)
    except ValueError:
        return None


def keep(db: Database, row: SessionRow, codec: Codec | None, now_ms: int) -> int:
    """Keep a state that cannot be decrypted, and what waits to be sent; returns the version it is kept under.

    No seal is replaced: one of the same version may be all that a found key opens.
    """
    wrapped, kek_id = db.execute(_DEK, (row.id,)).fetchone()
    head = db.execute(_HEAD, (row.id,)).fetchone()
    body = _Body(
        version=row.auth_version,
        creds=None if head is None else _as_it_is(head[0]),
        creds_version=0 if head is None else head[1],
        items=[
            _Row(kind, key, version, _as_it_is(value))
            for kind, key, version, value in db.execute(_ITEMS, (row.id,)).fetchall()
        ],
        legacy=_legacy(db, row, codec),
        outbox=[
            _Text("", name, _as_it_is(value)) for name, value in db.execute(_PAYLOADS, (row.id,)).fetchall()
        ],
        plaintexts=[
            _Text(chat, name, bytes(value))
            for chat, name, value in db.execute(_PLAINTEXTS, (row.id,)).fetchall()
        ],
        secrets=[_Secret(*found) for found in message_secrets.stored(db, row.id)],
    )
    kept = Kept(FORM, bytes(wrapped), kek_id, row.auth_epoch, row.id, body)
    taken = db.execute(_TAKEN, (row.id, row.auth_epoch, row.auth_version)).fetchone()[0]
    version: int = row.auth_version if taken is None else taken + 1
    db.execute(
        _PUT,
        (row.id, row.auth_epoch, version, REASON, document(_encode(kept)), len(body.items), _checksum(kept),
         Ms(now_ms)),
    )  # fmt: skip
    return version


def let_go(db: Database, session_id: str) -> tuple[int, list[str]]:
    """Give up what only the lost key opens, once it is kept.

    Returns how many messages had not been sent, and the ids of all whose content is to be emptied.
    """
    failed = db.execute(_FAIL, (LOST_TEXT, session_id)).rowcount
    db.execute(_FORGET, (session_id,))
    message_secrets.forget(db, session_id)
    return failed, [name for name, _ in db.execute(_PAYLOADS, (session_id,)).fetchall()]


def give_back(db: Database, session_id: str, texts: Mapping[str, bytes], cipher: Cipher | None) -> int:
    """Hold messages again that failed for want of their key, which was found; returns how many."""
    count = 0
    for name, payload in texts.items():
        closed = payload if cipher is None else cipher.close("outbox", name, 0, payload)
        count += db.execute(_GIVE_BACK, (document(closed), session_id, name, LOST_TEXT)).rowcount
    return count


def has_clear(kept: Kept) -> bool:
    """Whether the state can be had without its key, from rows of another service."""
    return any(row.kind == "creds" for row in kept.kept.legacy)


def opened(kept: Kept, expected: bytes, cipher: Cipher | None, which: str) -> Sealed:
    """What it holds, now that its key is here; items that cannot be opened are left out, as in any salvage.

    Args:
        kept: what was kept.
        expected: its checksum, as stored.
        cipher: of its key; None without it: what the other service's rows have, which are in the clear.
        which: names it in the error.

    Raises:
        StoreDamaged: it is not what was kept.
    """
    body = kept.kept
    if _checksum(kept) != expected:
        raise StoreDamaged(f"{which} does not match its checksum: use an older one, or a backup")
    creds = None
    items: dict[tuple[str, str], bytes] = {}
    texts: dict[str, bytes] = {}
    secrets: list[SecretRow] = []
    if cipher is not None:
        if body.creds is not None and body.creds != NO_CREDS:
            creds = canonicalise(cipher.open("creds", "", body.creds_version, body.creds))
        for row in body.items:
            with suppress(StoreDamaged, ValueError):
                items[row.kind, row.key] = _value(row, cipher)
        for text in body.outbox:
            with suppress(StoreDamaged, ValueError):
                texts[text.message_id] = canonicalise(cipher.open("outbox", text.message_id, 0, text.value))
        secrets += message_secrets.opened(kept.session, map(msgspec.structs.astuple, body.secrets), cipher)
    for row in body.legacy:
        if row.kind == "creds":
            creds = row.value if creds is None else creds
        else:
            items.setdefault((row.kind, row.key), row.value)
    return Sealed(
        epoch=kept.epoch, version=body.version, creds=creds, items=items, texts=texts, secrets=secrets
    )


def _value(row: _Row, cipher: Cipher) -> bytes:
    stored = row.value if row.kind in CLEAR else cipher.open(row.kind, row.key, row.version, row.value)
    return canonicalise(stored)


def _legacy(db: Database, row: SessionRow, codec: Codec | None) -> list[_Row]:
    """What the key-value rows of another service have, in a phase in which they are kept up; they are in the clear."""
    if row.auth_phase not in WRITES_LEGACY or codec is None:
        return []
    state = State(None, 0, {})
    add_legacy(db, row.id, codec, state)
    found = [_Row(kind, key, 0, value) for (kind, key), (_, value) in sorted(state.items.items())]
    return [*found, *([] if state.creds is None else [_Row("creds", "", 0, state.creds)])]


def _as_it_is(value: Any) -> bytes:
    return encoded(value) if isinstance(value, str) else bytes(value)


def _checksum(kept: Kept) -> bytes:
    """Over all but the wrapped key, which changes when it is wrapped anew."""
    return hashlib.sha256(_encode((kept.epoch, kept.session, kept.kept))).digest()
