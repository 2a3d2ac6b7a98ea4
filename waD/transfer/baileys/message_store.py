"""Secrets of messages in the file of a message store beside the keys (`baileys_store.json`).

The auth state of Baileys has none (chapter 08 §1.3). Programs that keep the messages of a session in its in-memory
store write them to a file, often into the directory of the keys, each with its secret.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from waD.e2ee.interop.common import ConversionError, ValueRefusedError, decode_bytes, unnest
from waD.link.credentials import Credentials
from waD.messaging.message_secrets import LIFE_MS, LONG_LIFE_MS
from waD.store.model import SECRET_LENGTH, SecretRow
from waD.transfer.sources.message_secrets import MAX_SECRETS, bare, is_message_id, under_lid
from waD.wire.jid import JID

MAX_STORE: Final = 32 << 20
"""Bytes of such a file; in memory it becomes some times as much."""
_MAX_TIME_S: Final = 2**40
_LONG_LIVED: Final = ("pollCreationMessage", "eventMessage")
"""What names of contents begin with on which votes and answers come."""


class StoredSecret(NamedTuple):
    """One message's, as the file spells it. `sender` is None for an own message; `ts` in Unix milliseconds."""

    chat: JID
    sender: JID | None
    message_id: str
    secret: bytes
    ts: int
    long_lived: bool

    def __repr__(self) -> str:
        return f"StoredSecret({self.message_id})"


def read_store(data: bytes) -> list[StoredSecret]:
    """Read a file; messages without a secret, or of another form, are left out.

    Raises:
        ConversionError: it is none.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise ConversionError("item_unreadable", "not JSON, or cut short") from None
    chats = document.get("messages") if isinstance(document, dict) else None
    if not isinstance(chats, dict):
        raise ConversionError("item_unreadable", "a file of messages without messages")
    found: list[StoredSecret] = []
    for messages in chats.values():
        for message in messages if isinstance(messages, list) else ():
            secret = _secret(message) if isinstance(message, dict) else None
            if secret is not None:
                found.append(secret)
    return sorted(found, key=lambda one: -one.ts)[:MAX_SECRETS]


def _secret(info: Mapping[str, Any]) -> StoredSecret | None:
    key, content = info.get("key"), info.get("message")
    if not isinstance(key, dict) or not isinstance(content, dict):
        return None
    context = content.get("messageContextInfo")
    secret = _bytes(context.get("messageSecret") if isinstance(context, dict) else None)
    secret = secret or _bytes(info.get("messageSecret"))
    chat, name, ts = bare(key.get("remoteJid")), key.get("id"), _time_ms(info.get("messageTimestamp"))
    if secret is None or chat is None or ts is None or not is_message_id(name) or _is_forwarded(content):
        return None
    sender = None
    if not key.get("fromMe"):
        sender = bare(key.get("participant") or info.get("participant")) or (chat if chat.is_user else None)
        if sender is None:
            return None
    return StoredSecret(chat, sender, name, secret, ts, any(_is_long_lived(kind) for kind in content))


def _bytes(value: object) -> bytes | None:
    try:
        data = decode_bytes(value, "a secret")
    except ValueRefusedError:
        return None
    return data if data is not None and len(data) == SECRET_LENGTH else None


def _time_ms(value: object) -> int | None:
    """Seconds as a number, as text, or as the halves of a Long."""
    value = unnest(value)
    if isinstance(value, dict):
        value = value.get("low")
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 16:
        value = int(value)
    return value * 1000 if isinstance(value, int) and 0 < value < _MAX_TIME_S else None


def _is_forwarded(content: Mapping[str, Any]) -> bool:
    """The secret of such a message is the original's (chapter 04 §10.3)."""
    contexts = (value.get("contextInfo") for value in content.values() if isinstance(value, dict))
    return any(isinstance(context, dict) and context.get("isForwarded") for context in contexts)


def _is_long_lived(kind: str) -> bool:
    return kind.startswith(_LONG_LIVED)


def import_secrets(
    stored: Iterable[StoredSecret], creds: Credentials, lid_of: Mapping[str, str], now_ms: int
) -> tuple[SecretRow, ...]:
    """File secrets under LIDs where they are known, as long as they are of use; of two the newer one."""
    rows: dict[tuple[str, str, str], SecretRow] = {}
    for row in _rows(stored, creds, lid_of, now_ms):
        known = rows.get((row.chat, row.sender, row.message_id))
        if known is None or known.message_ts < row.message_ts:
            rows[row.chat, row.sender, row.message_id] = row
    return tuple(rows.values())


def _rows(
    stored: Iterable[StoredSecret], creds: Credentials, lid_of: Mapping[str, str], now_ms: int
) -> Iterator[SecretRow]:
    pn, lid = creds.me_pn, creds.me_lid
    for one in stored:
        ts = min(one.ts, now_ms)
        expires = ts + (LONG_LIFE_MS if one.long_lived else LIFE_MS)
        own = lid if one.chat.is_lid and lid is not None else pn
        author = one.sender or (None if own is None else own.account)
        if author is None or expires <= now_ms:
            continue
        yield SecretRow(
            chat=under_lid(one.chat, lid_of),
            sender=under_lid(author, lid_of),
            message_id=one.message_id,
            wire_sender=str(author),
            secret=one.secret,
            message_ts=ts,
            expires_at=expires,
        )
