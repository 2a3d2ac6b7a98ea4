"""Signs that an auth state needs a repair, as far as they are cheap to see: for `wactl doctor`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import msgspec

from waD.control.types import Finding, Level
from waD.link.credentials import Credentials, CredentialsError
from waD.messaging import kinds
from waD.messaging.appstate.stored import Damaged, Head
from waD.messaging.asking import PREFIX
from waD.session.supervisor import Supervisor
from waD.session.verifying import LEAST_PREKEYS, SIGNED_PREKEY_DAYS
from waD.store.errors import StoreError
from waD.store.seals import DAY_MS
from waD.store.store import Store

MANY_UNREAD: Final = 5
"""Messages of one person in a day that are still unreadable after being asked for again."""
MAX_NAMED: Final = 3
"""Persons that are named of one session."""


class _Asked(msgspec.Struct):
    """When a message was asked for last, Unix milliseconds."""

    at: int = 0


_decode: Final = msgspec.json.Decoder(_Asked).decode


async def symptoms(store: Store, supervisors: Iterable[Supervisor], now_ms: int) -> list[Finding]:
    """Look at the keys of every paired session, and for people whose messages cannot be read again and again.

    Raises:
        StoreError: the store cannot be read.
    """
    found: list[Finding] = []
    for supervisor in supervisors:
        creds = _credentials(supervisor)
        if creds is None:  # whose session says so by its state
            continue
        session_id, name = supervisor.state.session_id, supervisor.vitals.name
        prekeys = len(await store.read(store.engine.item_keys, session_id, kinds.PREKEY, ""))
        found.append(_keys(name, creds, prekeys, now_ms))
        heads = await store.read(store.engine.items, session_id, kinds.APP_STATE_VERSION, None)
        found += _broken(name, heads)
        asked = await store.read(store.engine.items, session_id, kinds.RETRY, None)
        found += [_unread(name, person, count) for person, count in unread(asked, now_ms)]
    return found


def _credentials(supervisor: Supervisor) -> Credentials | None:
    try:
        creds = supervisor.messaging.context.account.creds
    except (CredentialsError, StoreError):
        return None
    return creds if creds.registered else None


def _keys(name: str, creds: Credentials, prekeys: int, now_ms: int) -> Finding:
    signed_ms = max(creds.signed_prekey.created_ms, creds.last_rotation_ms)
    days = (now_ms - signed_ms) // DAY_MS if signed_ms else None
    level: Level = "ok"
    text, hint = f"{prekeys} one-time prekeys are stored", ""
    if prekeys < LEAST_PREKEYS:
        level, hint = "warning", f"wactl repair {name} upload-prekeys"
    elif days is not None and days > SIGNED_PREKEY_DAYS:
        level, hint = "warning", f"wactl repair {name} rotate-signed-prekey"
        text = f"its signed prekey is {days} days old"
    data = {"prekeys": prekeys, "signedPrekeyDays": days}
    return Finding(check="keys", level=level, subject=name, message=text, hint=hint, data=data)


def _broken(name: str, heads: Mapping[str, bytes]) -> Iterator[Finding]:
    """Collections of the app state that do not go on, or not as others have them."""
    for collection, document in sorted(heads.items()):
        try:
            head = Head.parse(document)
        except Damaged:
            text = "what is stored of it is damaged"
        else:
            text = f"its syncing ended: {head.disabled}" if head.disabled else ""
            if head.mismatch and not text:
                text = "its hash is not the one that other devices have"
        if text:
            yield Finding(
                check="app_state",
                level="warning",
                subject=name,
                message=f"the app state {collection}: {text}",
                hint=f"wactl repair {name} resync {collection}",
                data={"collection": collection},
            )


def unread(asked: Mapping[str, bytes], now_ms: int) -> list[tuple[str, int]]:
    """Persons of whom many messages of the last day are still unreadable, and how many; the worst first.

    Args:
        asked: the stored notes about messages that were asked for again, by key.
        now_ms: Unix milliseconds.
    """
    counts: Counter[str] = Counter()
    for key, note in asked.items():
        parts = key.split("|", 3)
        if key.startswith(PREFIX) and len(parts) == 4 and now_ms - _at(note) < DAY_MS:
            counts[parts[2]] += 1
    return [(person, count) for person, count in counts.most_common(MAX_NAMED) if count >= MANY_UNREAD]


def _at(note: bytes) -> int:
    try:
        return _decode(note).at
    except msgspec.DecodeError:
        return 0


def _unread(name: str, person: str, count: int) -> Finding:
    return Finding(
        check="decryption",
        level="warning",
        subject=name,
        message=f"{count} messages of {person} within a day cannot be read",
        hint=f"wactl repair {name} drop-session {person}",
        data={"peer": person, "unread": count},
    )
