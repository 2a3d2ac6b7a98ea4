"""Prekeys, identities, sessions and sender keys as Baileys 7 keeps them (chapter 08 §2.4-2.7, §5.1, §5.2)."""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from waD.e2ee import curve
from waD.e2ee.address import SignalAddress
from waD.e2ee.curve import KeyPair
from waD.e2ee.errors import SignalError
from waD.e2ee.groups import SenderKeyRecord
from waD.e2ee.interop import node
from waD.e2ee.interop.common import ValueRefusedError, read_bytes, read_int, read_object, read_public
from waD.e2ee.limits import MAX_PREKEY_ID
from waD.e2ee.record import SessionRecord, SessionState
from waD.e2ee.x3dh import LocalIdentity
from waD.link.prekeys import OneTimePreKey
from waD.messaging import kinds
from waD.messaging.records import sender_key_name
from waD.messaging.values import decode_identity, encode_identity
from waD.store.canonical import canonical, canonicalise
from waD.transfer.baileys import names
from waD.transfer.legacy.form import Form, Other, buffer, parsed
from waD.wire.jid import JID

_ANY_ID: Final = 1
"""Stands for the id of a prekey, which is not part of its document."""
_AGES: Final = b'"mt":'


def _same_number(text: str) -> str:
    if not text.isdecimal() or text != str(int(text)) or not 1 <= int(text) <= MAX_PREKEY_ID:
        raise ValueRefusedError("not the id of a prekey")
    return text


def _write_prekey(document: bytes) -> bytes:
    key = OneTimePreKey.parse(_ANY_ID, document).key
    return canonical({"private": buffer(key.private), "public": buffer(key.public)})


def _read_prekey(value: bytes, _: Other) -> bytes:
    """Baileys uploads keys as it makes them; one that it did not is missing at the server, which harms nobody."""
    halves = read_object(parsed(value), "the prekey")
    private = read_bytes(halves.get("private"), curve.KEY_LENGTH, "the private key")
    return OneTimePreKey(
        _ANY_ID, KeyPair(private, read_public(halves.get("public"), "the public key")), "uploaded"
    ).serialize()


def _same_address(text: str) -> str:
    if SignalAddress.parse(text).text != text:
        raise ValueRefusedError("not the address of a device")
    return text


def _write_identity(document: bytes) -> bytes:
    return canonical(buffer(curve.serialize_key(decode_identity(document))))


def _read_identity(value: bytes, _: Other) -> bytes:
    return encode_identity(read_public(parsed(value), "the identity key"))


def _write_session(document: bytes) -> bytes:
    return canonical(node.export_session(SessionRecord.parse(document)).value)


def _read_session(value: bytes, other: Other) -> bytes:
    before = _kept_session(other)
    record = node.import_session(parsed(value), _local(other, before)).record
    return _still_stale(record, before).serialize()


def _kept_session(other: Other) -> SessionRecord | None:
    """What was known before Baileys changed the row."""
    try:
        return None if other.kept is None else SessionRecord.parse(other.kept)
    except SignalError:
        return None


def _local(other: Other, before: SessionRecord | None) -> LocalIdentity:
    """The own identity, which Baileys keeps in the credentials only."""
    if other.creds is not None:
        creds = read_object(parsed(other.creds), "the credentials")
        pair = read_object(creds.get("signedIdentityKey"), "the identity")
        identity = KeyPair(
            read_bytes(pair.get("private"), curve.KEY_LENGTH, "the private identity key"),
            read_public(pair.get("public"), "the identity key"),
        )
        return LocalIdentity(identity, read_int(creds.get("registrationId"), "the registration id"))
    for state in () if before is None else before.states():
        return LocalIdentity(KeyPair(b"", state.local_identity), state.local_registration_id)
    raise ValueRefusedError("a session without credentials")


def _still_stale(record: SessionRecord, before: SessionRecord | None) -> SessionRecord:
    """A sending chain that must not be used stays so, whatever Baileys did to the rest (chapter 08 §7.5)."""
    stale = {
        (state.base_key, state.sender.public)
        for state in (() if before is None else before.states())
        if state.stale
    }
    if not stale:
        return record

    def marked(state: SessionState) -> SessionState:
        return replace(state, stale=True) if (state.base_key, state.sender.public) in stale else state

    current = None if record.current is None else marked(record.current)
    return SessionRecord(current, tuple(map(marked, record.archived)), record.oldest_skipped_ms)


def _write_sender_key(document: bytes) -> bytes:
    return canonicalise(node.export_sender_key(SenderKeyRecord.parse(document)))


def _read_sender_key(value: bytes, _: Other) -> bytes:
    return node.import_sender_key(parsed(value)).record.serialize()


def _sender_key_id(key: str) -> str:
    """`group::user[_domain]::device` for `group|user[_domain].device`."""
    group, _, author = key.rpartition("|")
    user, _, device = _same_address(author).rpartition(".")
    if not group or str(JID.parse(group)) != group:
        raise ValueRefusedError("not the group of a sender key")
    return f"{group}::{user}::{device}"


def _sender_key_key(text: str) -> str:
    if text.count("::") != 2:
        raise ValueRefusedError("not the id of a sender key")
    group, author = names.sender_key_parts(text)
    return sender_key_name(group, author)


SIGNAL_FORMS: Final = (
    Form(kinds.PREKEY, names.PRE_KEY, _same_number, _same_number, _write_prekey, _read_prekey),
    Form(kinds.IDENTITY, names.IDENTITY, _same_address, _same_address, _write_identity, _read_identity),
    # Rows lose the order of chains, ages, the own identity: next to no record survives without its document.
    Form(
        kinds.SESSION,
        names.SESSION,
        _same_address,
        _same_address,
        _write_session,
        _read_session,
        loses=lambda _: True,
        needs_creds=True,
    ),
    Form(
        kinds.SENDER_KEY,
        names.SENDER_KEY,
        _sender_key_id,
        _sender_key_key,
        _write_sender_key,
        _read_sender_key,
        loses=lambda document: _AGES in document,
    ),
)
