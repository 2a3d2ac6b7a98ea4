"""Which repair a finding of a verification asks for, and which stored items are damaged: pure (chapter 08 §7.6)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from waD.control.types import RepairAction
from waD.e2ee.address import DOMAIN_HOSTED_LID, DOMAIN_LID, AddressError, SignalAddress
from waD.e2ee.limits import MAX_PREKEY_ID
from waD.link.credentials import Credentials
from waD.link.prekeys import next_id
from waD.messaging import kinds
from waD.store.unit import ItemKey
from waD.transfer.state import AuthState, Note
from waD.transfer.verify import ITEM_FAULTS, verify
from waD.wire.jid import LID, PN

COUNTER_BEHIND: Final = "prekey_counter_behind"
MAX_DIGITS: Final = 8
"""Of a prekey id."""

ADVISED: Final[dict[str, RepairAction]] = {
    **dict.fromkeys((*sorted(ITEM_FAULTS), COUNTER_BEHIND), "drop-damaged"),
    "identity_mismatch": "drop-session",
    "session_exhausted": "drop-session",
    "prekey_flags_mixed": "upload-prekeys",
    "prekeys_low": "upload-prekeys",
    "live_no_bundle": "upload-prekeys",
    "live_prekeys_low": "upload-prekeys",
    "live_prekeys_missing": "upload-prekeys",
    "live_hash_mismatch": "upload-prekeys",
    "signed_prekey_old": "rotate-signed-prekey",
    "live_signed_prekey_mismatch": "rotate-signed-prekey",
    "lid_map_conflict": "refresh-devices",
    **dict.fromkeys(("app_state_hash_mismatch", "app_state_mac_mismatch", "app_state_disabled"), "resync"),
}
"""Repairs by the code of a finding."""

_LID_DOMAINS: Final = frozenset({DOMAIN_LID, DOMAIN_HOSTED_LID})


@dataclass(slots=True)
class Advice:
    """A repair, and all findings that ask for it."""

    action: RepairAction
    target: str | None
    notes: list[Note] = field(default_factory=list)


def advise(notes: Iterable[Note]) -> tuple[list[Advice], list[Note]]:
    """Sort findings into repairs, in the order of the first finding of each, and errors beyond repair."""
    found: dict[tuple[RepairAction, str | None], Advice] = {}
    beyond: list[Note] = []
    for note in notes:
        action = ADVISED.get(note.code)
        if action is not None:
            target = _target(action, note)
            found.setdefault((action, target), Advice(action, target)).notes.append(note)
        elif note.severity == "error":
            beyond.append(note)
    return [*found.values()], beyond


def _target(action: RepairAction, note: Note) -> str | None:
    kind, _, key = note.item.partition("/")
    if action == "drop-session":
        return person_of(key)
    if action == "refresh-devices":
        return f"{key}@{LID if kind == kinds.PN_OF_LID else PN}"
    return key if action == "resync" else None


def person_of(address: str) -> str | None:
    """Whose a Signal address is, as a bare address; None when it is none."""
    try:
        parsed = SignalAddress.parse(address)
    except AddressError:
        return None
    return f"{parsed.user}@{LID if parsed.domain in _LID_DOMAINS else PN}"


def damaged(state: AuthState, now_ms: int) -> list[ItemKey]:
    """Items that do not work, each judged alone; slow for a large state.

    Args:
        state: whole.
        now_ms: Unix milliseconds.
    """
    named = {note.item for note in verify(state, now_ms).errors if note.code in ITEM_FAULTS}
    if not named:
        return []
    return [
        item
        for item, document in state.items.items()
        if _may_be(item, named) and _is_faulty(state.creds, item, document, now_ms)
    ]


def _may_be(item: ItemKey, named: set[str]) -> bool:
    """Whether a report names an item; long keys are cut off in it."""
    name = "/".join(item)
    return name in named or any(name.startswith(short) for short in named if len(short) < len(name))


def _is_faulty(creds: Credentials, item: ItemKey, document: bytes, now_ms: int) -> bool:
    alone = verify(AuthState(creds, {item: document}), now_ms)
    return any(note.code in ITEM_FAULTS for note in alone.errors)


def counter_ahead(creds: Credentials, prekeys: Iterable[str]) -> int | None:
    """The id that has to come next when prekeys have ids that would be given out again; None when none has.

    Args:
        creds: with the counter as it is.
        prekeys: keys of the prekey items.
    """
    ids = [int(key) for key in prekeys if key.isascii() and key.isdigit() and len(key) <= MAX_DIGITS]
    begin = creds.next_prekey_id
    # Ids go round, so the nearer half of the circle lies ahead.
    ahead = [number for number in ids if (number - begin) % MAX_PREKEY_ID < MAX_PREKEY_ID // 2]
    if not ahead:
        return None
    return next_id(max(ahead, key=lambda number: (number - begin) % MAX_PREKEY_ID))


def group_of_own(creds: Credentials, item: ItemKey) -> str | None:
    """The group of a sender key that is this device's own; None for any other item."""
    kind, key = item
    if kind != kinds.SENDER_KEY:
        return None
    group, _, author = key.rpartition("|")
    return group if author in own_addresses(creds) else None


def own_addresses(creds: Credentials) -> frozenset[str]:
    """This device's Signal addresses by number and by LID, as text."""
    own = (jid for jid in (creds.me_pn, creds.me_lid) if jid is not None)
    return frozenset(SignalAddress(jid.user, jid.signal_domain, jid.device).text for jid in own)


def unchanged(judged: Mapping[ItemKey, bytes], now: Mapping[ItemKey, bytes]) -> list[ItemKey]:
    """Those items that are still what was judged."""
    return [item for item, document in judged.items() if now.get(item) == document]
