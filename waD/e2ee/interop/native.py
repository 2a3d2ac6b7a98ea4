"""waD's own records read leniently, for backups and for people (chapter 08 §1.4).

The form is that of `waD.e2ee.documents`, which stores use too. Here a state that does not follow it is left out and
told of, where a store refuses the record.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec
from msgspec.structs import replace

from waD.e2ee import curve, groups, record
from waD.e2ee.documents import (
    FORMAT_VERSION,
    ReceiverChainDocument,
    SenderKeyStateDocument,
    StateDocument,
)
from waD.e2ee.errors import SignalError
from waD.e2ee.groups import SenderKeyRecord, SenderKeyState
from waD.e2ee.interop.common import (
    ConversionError,
    Imported,
    JsonObject,
    ValueRefusedError,
    check_state,
    limited_state,
    load_json,
    sender_chain,
    sender_key_record,
    session_record,
    signing_key,
)
from waD.e2ee.record import SessionRecord, SessionState

_T = TypeVar("_T")
_REFUSALS = (msgspec.ValidationError, SignalError, ValueRefusedError, curve.CurveError)
_MAX_REASON = 200


def import_session(value: object, now_ms: int = 0, *, prune: bool = True) -> Imported[SessionRecord]:
    """Read a session record; `now_ms` is the time of skipped keys of unknown age. Raises ConversionError."""
    fields = _versioned(value, "session record")
    warnings: list[str] = []
    documents: list[StateDocument] = []

    def convert(entry: object) -> SessionState | None:
        try:
            document = _dated_state(_fitting(entry, StateDocument), now_ms)
            state = limited_state(_checked(record.state_of(document)), warnings, prune=prune)
        except _REFUSALS as error:
            warnings.append(f"session_invalid: {_reason(error)}")
            return None
        documents.append(document)
        return state

    current = None if fields.get("cur") is None else convert(fields["cur"])
    previous = fields.get("prev")
    archived = [convert(entry) for entry in (previous if isinstance(previous, list) else [])]
    kept = [state for state in archived if state is not None]
    return session_record(current, kept, warnings, record.oldest_time(documents))


def export_session(session: SessionRecord) -> str:
    """Return the canonical JSON text."""
    return session.serialize().decode()


def import_sender_key(value: object, now_ms: int = 0, *, prune: bool = True) -> Imported[SenderKeyRecord]:
    """Read a sender-key record; `prune` drops the skipped keys of our own states. Raises ConversionError."""
    fields = _versioned(value, "sender-key record")
    warnings: list[str] = []
    states = []
    entries = fields.get("states")
    for entry in entries if isinstance(entries, list) else []:
        try:
            document = _dated(_fitting(entry, SenderKeyStateDocument), now_ms)
            states.append(_checked_sender_key(groups.state_of(document)))
        except _REFUSALS as error:
            warnings.append(f"sender_key_invalid: {_reason(error)}")
    return sender_key_record(states, warnings, prune=prune)


def export_sender_key(sender_key: SenderKeyRecord) -> str:
    """Return the canonical JSON text."""
    return sender_key.serialize().decode()


def _versioned(value: object, what: str) -> JsonObject:
    fields = load_json(value)
    if not isinstance(fields, dict) or fields.get("v") != FORMAT_VERSION:
        raise ConversionError("item_unreadable", f"not a {what} of version {FORMAT_VERSION}")
    return fields


def _fitting(entry: object, kind: type[_T]) -> _T:
    return msgspec.convert(entry, kind)


def _reason(error: Exception) -> str:
    """What is wrong; a hostile record may choose how long a text that is."""
    return str(error)[:_MAX_REASON]


_Dated = TypeVar("_Dated", ReceiverChainDocument, SenderKeyStateDocument)


def _dated(document: _Dated, now_ms: int) -> _Dated:
    """Skipped keys of unknown age count from now on."""
    if not now_ms or not document.mk or document.mt is not None:
        return document
    return replace(document, mt=[(now_ms, len(document.mk))])


def _dated_state(document: StateDocument, now_ms: int) -> StateDocument:
    return replace(document, rc=[_dated(chain, now_ms) for chain in document.rc])


def _checked(state: SessionState) -> SessionState:
    sender = state.sender
    check_state(state)
    return replace(state, sender=sender_chain(sender.public, sender.private, sender.next, sender.key))


def _checked_sender_key(state: SenderKeyState) -> SenderKeyState:
    return replace(state, private=signing_key(state.public, state.private))
