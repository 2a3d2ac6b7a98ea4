"""Secrets of messages: kept with the message, encrypted where the session is, gone when they are old (chapter 08 §6.2).

They belong to the history, not to an epoch of the auth state: a reset or a restore leaves them, under the new key.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from waD.store.errors import StoreDamaged
from waD.store.model import SecretRow
from waD.store.sql.database import Database, Ms, ms
from waD.store.sql.heads import marks
from waD.store.vault import Cipher

TABLE: Final = "wa_message_secrets"
NEWER_WINS: Final = (
    " ON CONFLICT (session_id, chat, sender, message_id) DO UPDATE SET wire_sender=excluded.wire_sender, "
    "secret=excluded.secret, message_ts=excluded.message_ts, expires_at=excluded.expires_at "
    f"WHERE {TABLE}.message_ts<excluded.message_ts"
)
RECODED: Final = 1000
"""Rows that are in memory at a time while all of a session's are encrypted anew."""

_COLUMNS: Final = "chat, sender, message_id, wire_sender, secret, message_ts, expires_at"
_PUT: Final = f"INSERT INTO {TABLE} (session_id, {_COLUMNS}) VALUES (?,?,?,?,?,?,?,?)" + NEWER_WINS
_PAGE: Final = (
    f"SELECT {_COLUMNS} FROM {TABLE} WHERE session_id=? AND (chat, sender, message_id) > (?,?,?) "
    "ORDER BY chat, sender, message_id LIMIT ?"
)
_KEY: Final = "session_id=? AND chat=? AND sender=? AND message_id=?"
_PUT_AGAIN: Final = f"UPDATE {TABLE} SET secret=? WHERE {_KEY}"
_DROP: Final = f"DELETE FROM {TABLE} WHERE {_KEY}"
_FORGET: Final = f"DELETE FROM {TABLE} WHERE session_id=?"
_PRUNE: Final = (
    f"DELETE FROM {TABLE} WHERE (session_id, chat, sender, message_id) IN (SELECT session_id, chat, sender, "
    f"message_id FROM {TABLE} WHERE expires_at<? ORDER BY expires_at LIMIT ?)"
)
_SENDERS: Final = f"SELECT DISTINCT sender FROM {TABLE} WHERE session_id=? AND chat=?"
_MOVE: Final = (
    f"UPDATE {TABLE} SET chat=?, sender=? WHERE session_id=? AND chat=? AND sender=? AND message_id IN "
    f"(SELECT m.message_id FROM {TABLE} m WHERE m.session_id=? AND m.chat=? AND m.sender=? AND NOT EXISTS "
    f"(SELECT 1 FROM {TABLE} o WHERE o.session_id=m.session_id AND o.chat=? AND o.sender=? "
    "AND o.message_id=m.message_id) ORDER BY m.message_ts DESC LIMIT ?)"
)

_log = logging.getLogger(__name__)


def purpose(message_id: str, wire_sender: str) -> str:
    """What binds an encrypted secret to its message; not the address it is filed under, which may change."""
    return f"secret:{message_id}:{wire_sender}"


def put(db: Database, session_id: str, row: SecretRow, cipher: Cipher | None) -> None:
    """Keep one, or replace an older one of the same message."""
    kept = row.secret
    if cipher is not None:
        kept = cipher.close_blob(purpose(row.message_id, row.wire_sender), kept)
    db.execute(
        _PUT,
        (session_id, row.chat, row.sender, row.message_id, row.wire_sender, kept, Ms(row.message_ts),
         ms(row.expires_at)),
    )  # fmt: skip


def find(
    db: Database,
    session_id: str,
    place: tuple[Sequence[str], Sequence[str]],
    message_id: str,
    cipher: Cipher | None,
) -> list[SecretRow]:
    """Those of a message id, in chats and by senders of one of these spellings each."""
    chats, senders = place
    if not chats or not senders:
        return []
    query = (
        f"SELECT {_COLUMNS} FROM {TABLE} WHERE session_id=? AND chat IN ({marks(chats)}) "
        f"AND sender IN ({marks(senders)}) AND message_id=?"
    )
    found = db.execute(query, (session_id, *chats, *senders, message_id)).fetchall()
    return [*opened(session_id, found, cipher)]


def page(
    db: Database,
    session_id: str,
    after: tuple[str, str, str],
    limit: int,
    cipher: Cipher | None,
) -> tuple[list[SecretRow], tuple[str, str, str] | None]:
    """Those behind a key, in order, and the key of the last one; None when there is nothing behind."""
    found = db.execute(_PAGE, (session_id, *after, limit)).fetchall()
    last = None if not found else (found[-1][0], found[-1][1], found[-1][2])
    return [*opened(session_id, found, cipher)], last


def opened(session_id: str, found: Iterable[Sequence[Any]], cipher: Cipher | None) -> Iterator[SecretRow]:
    """A damaged one is as good as none: it costs the add-ons of one message, and must not stop a backup."""
    for chat, sender, message_id, wire_sender, kept, message_ts, expires_at in found:
        secret = _open(session_id, message_id, wire_sender, bytes(kept), cipher)
        if secret is not None:
            yield SecretRow(
                chat=chat,
                sender=sender,
                message_id=message_id,
                wire_sender=wire_sender,
                secret=secret,
                message_ts=message_ts,
                expires_at=expires_at,
            )


def _open(
    session_id: str, message_id: str, wire_sender: str, kept: bytes, cipher: Cipher | None
) -> bytes | None:
    try:
        return kept if cipher is None else cipher.open_blob(purpose(message_id, wire_sender), kept)
    except StoreDamaged:
        _log.error("session %s: the stored secret of a message is damaged and is left out", session_id)
        return None


def stored(db: Database, session_id: str) -> Iterator[tuple[Any, ...]]:
    """All of a session's as they are stored, in the order of the fields of `SecretRow`."""
    after = ("", "", "")
    while found := db.execute(_PAGE, (session_id, *after, RECODED)).fetchall():
        after = tuple(found[-1][:3])
        for chat, sender, message_id, wire_sender, kept, *times in found:
            yield chat, sender, message_id, wire_sender, bytes(kept), *times


def forget(db: Database, session_id: str) -> None:
    """Remove all of a session's."""
    db.execute(_FORGET, (session_id,))


def recode(db: Database, session_id: str, old: Cipher | None, new: Cipher | None) -> None:
    """Store all of a session's under another key; damaged ones go."""
    if old is None and new is None:
        return
    after = ("", "", "")
    while found := db.execute(_PAGE, (session_id, *after, RECODED)).fetchall():
        after = tuple(found[-1][:3])
        again: list[tuple[Any, ...]] = []
        lost: list[tuple[Any, ...]] = []
        for chat, sender, message_id, wire_sender, kept, *_ in found:
            key = (session_id, chat, sender, message_id)
            secret = _open(session_id, message_id, wire_sender, bytes(kept), old)
            if secret is None:
                lost.append(key)
                continue
            if new is not None:
                secret = new.close_blob(purpose(message_id, wire_sender), secret)
            again.append((secret, *key))
        for statement, rows in ((_PUT_AGAIN, again), (_DROP, lost)):
            if rows:
                db.executemany(statement, rows)


def move_person(db: Database, session_id: str, old: str, new: str, limit: int) -> None:
    """File those of a chat with a person under another address; where one is there already the old one stays.

    Like messages they are moved up to a limit, the newest first, and those of groups are not: readers ask for both
    addresses.
    """
    senders = [row[0] for row in db.execute(_SENDERS, (session_id, old)).fetchall()]
    for sender in senders:
        target = (new, new if sender == old else sender)
        own = (session_id, old, sender)
        db.execute(_MOVE, (*target, *own, *own, *target, limit))


def prune(db: Database, now_ms: int, limit: int) -> int:
    """Remove what is past its time, at most so many; returns how many went."""
    return db.execute(_PRUNE, (Ms(now_ms), limit)).rowcount
