"""From ciphertexts to plaintexts, with everything that has to be committed beside them (chapter 04 §6.4, chapter 03).

The unit gets the advanced records, the proved identity, the deletion of a used prekey and the installed sender keys.
A ciphertext that cannot be read changes nothing.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Final, Literal

from google.protobuf.message import DecodeError
from msgspec import Struct

from waD.e2ee import adv
from waD.e2ee import session as signal
from waD.e2ee.address import (
    DOMAIN_HOSTED_LID,
    DOMAIN_HOSTED_PN,
    DOMAIN_LID,
    DOMAIN_PN,
    AddressError,
    SignalAddress,
)
from waD.e2ee.curve import KeyPair
from waD.e2ee.errors import SignalError
from waD.e2ee.messages import parse_prekey_message
from waD.e2ee.padding import PaddingError, unpad
from waD.e2ee.record import SessionRecord
from waD.e2ee.session import Decrypted
from waD.e2ee.x3dh import LocalIdentity
from waD.link import acks
from waD.link.credentials import Credentials
from waD.link.prekeys import PreKeyRecordError
from waD.messaging.context import Context
from waD.messaging.device_lists import DeviceLists
from waD.messaging.group_keys import GroupKeys
from waD.messaging.identities import Identities
from waD.messaging.message_keys import MAX_JID_TEXT
from waD.messaging.reaction import FetchDevices, Work
from waD.messaging.stanza import BOT_CIPHER, GROUP_CIPHER, PAIRWISE, Enc, Incoming
from waD.proto.e2e_pb2 import Message
from waD.store.unit import Unit
from waD.wire.errors import JIDError
from waD.wire.jid import JID, LID

PADDED: Final = "2"
"""The version of ciphertexts that is read here (chapter 03 §5.2)."""

RETRY_REASONS: Final = {
    "no_session": 1,
    "no_sender_key_state": 1,
    "invalid_prekey_id": 3,
    "invalid_signed_prekey_id": 3,
    "too_far": 4,
    "invalid_signature": 5,
    "bad_mac": 7,
}
"""Number in a retry receipt by code of the Signal layer (chapter 03 §3.5)."""
REASON_UNKNOWN_COMPANION: Final = 11
REASON_ADV: Final = 12

_TRY_BY_NUMBER: Final = frozenset({"no_session", "bad_mac", "invalid_prekey_id", "invalid_signed_prekey_id"})
"""Failures that a session left under the phone number can explain."""
_DISTRIBUTIONS: Final = ("senderKeyDistributionMessage", "fastRatchetKeySenderKeyDistributionMessage")

_log = logging.getLogger(__name__)


class Failure(Struct, frozen=True):
    """Why a stanza could not be read: ask for it again with `number` as the reason, or refuse it with that code."""

    action: Literal["retry", "nack"]
    number: int
    reason: str


class Part(Struct, frozen=True):
    """One readable ciphertext: the Message with keys that are none of the reader's business taken out.

    `raw` is its serialised form.
    """

    message: Message
    raw: bytes


@dataclass(slots=True)
class Outcome:
    """What became of a stanza's ciphertexts.

    Attributes:
        parts: what could be read and is not empty.
        read: ciphertexts that were decrypted, in any way.
        duplicates: ciphertexts that had been decrypted before.
        failure: the first one that counts.
        work: follow-up.
    """

    parts: list[Part] = field(default_factory=list)
    read: list[Enc] = field(default_factory=list)
    duplicates: int = 0
    failure: Failure | None = None
    work: list[Work] = field(default_factory=list)


class _AdvRefused(Exception):  # noqa: N818 - never leaves this module
    """A companion that its account did not sign."""


class Decrypting:
    """Reads the ciphertexts of one session's stanzas.

    Args:
        context: whose.
        devices: the device lists of the same session.
    """

    def __init__(self, context: Context, devices: DeviceLists) -> None:
        self._context = context
        self._records = context.records
        self._devices = devices
        self._identities = Identities(context, devices)
        self._group_keys = GroupKeys(context)
        self._creds: Credentials | None = None
        self._local: LocalIdentity | None = None

    async def decrypt(self, incoming: Incoming, unit: Unit) -> Outcome:
        """Read all ciphertexts: pairwise ones first, because they bring the keys for those of the group."""
        outcome = Outcome()
        pairwise = [enc for enc in incoming.encs if enc.type in PAIRWISE and enc.version == PADDED]
        grouped = [enc for enc in incoming.encs if enc.type == GROUP_CIPHER and enc.version == PADDED]
        if not pairwise and not grouped:
            outcome.failure = _unreadable(incoming)
            return outcome
        try:
            address = await self._context.addresses.signal_address(incoming.sender, unit)
        except (JIDError, AddressError):
            outcome.failure = Failure("nack", acks.NACK_PARSE_ERROR, "an author without Signal address")
            return outcome
        for enc in pairwise:
            await self._read_pairwise(incoming, unit, address, enc, outcome)
        if grouped and outcome.failure is None:
            await self._read_grouped(incoming, unit, address, grouped, outcome)
        return outcome

    async def _read_pairwise(
        self, incoming: Incoming, unit: Unit, address: SignalAddress, enc: Enc, outcome: Outcome
    ) -> None:
        try:
            padded = await self._open(incoming, unit, address, enc, outcome)
        except SignalError as error:
            _count(outcome, error)
            return
        except _AdvRefused as refusal:
            outcome.failure = outcome.failure or Failure("retry", REASON_ADV, str(refusal))
            return
        await self._take(incoming, unit, address, enc, padded, outcome)

    async def _read_grouped(
        self, incoming: Incoming, unit: Unit, address: SignalAddress, encs: list[Enc], outcome: Outcome
    ) -> None:
        if not incoming.shares_keys:
            outcome.failure = Failure(
                "nack", acks.NACK_UNRECOGNISED_TYPE, "a group ciphertext outside a group"
            )
            return
        if address.hosted:
            outcome.failure = Failure("nack", acks.NACK_HOSTED_COMPANION, "a hosted device in a group")
            return
        for enc in encs:
            try:
                padded = await self._group_keys.decrypt(unit, incoming.source, address, enc.data)
            except SignalError as error:
                _count(outcome, error)
                if error.code == "no_sender_key_state" and await self._is_unlisted(incoming, unit, outcome):
                    outcome.failure = Failure("retry", REASON_UNKNOWN_COMPANION, error.code)
                continue
            await self._take(incoming, unit, address, enc, padded, outcome)

    async def _take(
        self,
        incoming: Incoming,
        unit: Unit,
        address: SignalAddress,
        enc: Enc,
        padded: bytes,
        outcome: Outcome,
    ) -> None:
        """Install sender keys and keep the rest; keys never reach the history."""
        parsed = _parse(padded, outcome)
        if parsed is None:
            return
        message, raw = parsed
        outcome.read.append(enc)
        for name in _DISTRIBUTIONS:
            if message.HasField(name):
                if enc.type in PAIRWISE and incoming.shares_keys:
                    await self._distribution(incoming, unit, address, getattr(message, name))
                message.ClearField(name)
                raw = message.SerializeToString()
        if raw:
            outcome.parts.append(Part(message, raw))

    async def _distribution(
        self,
        incoming: Incoming,
        unit: Unit,
        address: SignalAddress,
        shared: Message.SenderKeyDistributionMessage,
    ) -> None:
        """A key counts only for the chat it came in (chapter 04 §6.5)."""
        named = shared.groupId
        if len(named) > MAX_JID_TEXT or named != str(incoming.source):
            _log.warning("a sender key for another chat than its own was left out")
            return
        await self._group_keys.learn(
            unit, incoming.source, address, shared.axolotlSenderKeyDistributionMessage
        )

    async def _open(
        self, incoming: Incoming, unit: Unit, address: SignalAddress, enc: Enc, outcome: Outcome
    ) -> bytes:
        """Decrypt one pairwise ciphertext, and put what it changed into the unit.

        Raises:
            SignalError: nothing has changed.
            _AdvRefused: nothing has changed.
        """
        record = await self._record(unit, address)
        try:
            decrypted = await self._attempt(incoming, unit, record, enc)
        except SignalError as error:
            if error.code not in _TRY_BY_NUMBER:
                raise
            leftover = await self._leftover(unit, address)
            if leftover is None:
                raise
            decrypted = await self._attempt(incoming, unit, signal.merge(record, leftover[1]), enc)
            self._records.delete_session(unit, leftover[0])
        if decrypted.established:
            await self._check_companion(incoming, unit, decrypted, outcome)
        self._records.put_session(unit, address, decrypted.record)
        if decrypted.consumed_prekey is not None:
            self._records.delete_prekey(unit, decrypted.consumed_prekey)
        outcome.work += await self._identities.proved(unit, incoming.sender, address, decrypted)
        return decrypted.plaintext

    async def _attempt(
        self, incoming: Incoming, unit: Unit, record: SessionRecord | None, enc: Enc
    ) -> Decrypted:
        prekey = await self._offered_prekey(incoming, unit, enc) if enc.type == "pkmsg" else None
        creds, local = self._self()

        def signed(key_id: int) -> KeyPair | None:
            found = creds.find_signed_prekey(key_id)
            return None if found is None else found.key

        return signal.decrypt(
            record,
            local,
            enc.type,
            enc.data,
            lambda _: prekey,
            signed,
            lambda: KeyPair.generate(self._context.random),
            self._context.now_ms(),
        )

    async def _offered_prekey(self, incoming: Incoming, unit: Unit, enc: Enc) -> KeyPair | None:
        key_id = parse_prekey_message(enc.data).prekey_id
        if key_id is None:
            return None
        try:
            found = await self._records.prekey(key_id, unit)
        except PreKeyRecordError:
            _log.error("a stored one-time prekey is damaged and is treated as used")
            return None
        if found is None or found.state != "stale":
            return None if found is None else found.key
        # What was sent before the restored state was saved may have used it up already (chapter 08 §7.5).
        return found.key if incoming.time_s * 1000 >= await self._records.saved_ms(unit) else None

    async def _record(self, unit: Unit, address: SignalAddress) -> SessionRecord | None:
        try:
            return await self._records.session(address, unit)
        except SignalError:
            _log.error("a stored session record is damaged and is treated as missing")
            return None

    async def _leftover(
        self, unit: Unit, address: SignalAddress
    ) -> tuple[SignalAddress, SessionRecord] | None:
        """A session that was left under the phone number of a LID (chapter 03 §4.1)."""
        number = await self._context.addresses.pn_of(JID(address.user, LID), unit)
        domain = _NUMBER_DOMAIN.get(address.domain)
        if number is None or domain is None:
            return None
        old = SignalAddress(number.user, domain, address.device)
        record = await self._record(unit, old)
        return None if record is None else (old, record)

    async def _check_companion(
        self, incoming: Incoming, unit: Unit, decrypted: Decrypted, outcome: Outcome
    ) -> None:
        """A companion that opens a session has to be signed by its account (chapter 03 §7.2)."""
        sender = incoming.sender
        if sender.device == adv.PRIMARY_DEVICE or sender.is_bot:
            return
        await self._is_unlisted(incoming, unit, outcome)
        if not incoming.device_identity:
            _log.info("a companion opened a session without showing that it belongs to its account")
            return
        stored = await self._account_key(unit, sender)
        try:
            result = adv.verify_companion(decrypted.identity, incoming.device_identity, stored)
        except adv.AdvError as refusal:
            if refusal.code == "no_account_key":
                return
            raise _AdvRefused(f"the device is not one of its account's: {refusal.code}") from None
        if result.account_changed:
            if self._context.account.is_own(sender):
                raise _AdvRefused("a device of another account key claims to be an own one")
            outcome.work += await self._identities.account_changed(unit, sender)

    async def _is_unlisted(self, incoming: Incoming, unit: Unit, outcome: Outcome) -> bool:
        """Whether the device is missing in a list we have; then the list is asked for."""
        if await self._devices.knows(incoming.sender, unit) is not False:
            return False
        outcome.work.append(FetchDevices((incoming.sender.account,)))
        return True

    async def _account_key(self, unit: Unit, sender: JID) -> bytes | None:
        """The identity of the phone that the device belongs to."""
        account = self._context.account
        if account.is_own(sender):
            return account.creds.account_key
        phone = await self._context.addresses.signal_address(sender.account, unit)
        return await self._records.identity(phone, unit)

    def _self(self) -> tuple[Credentials, LocalIdentity]:
        creds = self._context.account.creds
        if creds is not self._creds or self._local is None:
            self._creds, self._local = creds, creds.local_identity()
        return creds, self._local


_NUMBER_DOMAIN: Final = {DOMAIN_LID: DOMAIN_PN, DOMAIN_HOSTED_LID: DOMAIN_HOSTED_PN}


def _unreadable(incoming: Incoming) -> Failure:
    """No ciphertext of a type that is read here."""
    if any(enc.type == BOT_CIPHER for enc in incoming.encs):
        return Failure("nack", acks.NACK_MISSING_SECRET, "a bot's reply to a prompt that is not known")
    if incoming.encs:
        return Failure("nack", acks.NACK_UNRECOGNISED_TYPE, "no ciphertext of a known type and version")
    return Failure("nack", acks.NACK_UNRECOGNISED_STANZA, "nothing is enclosed")


def _count(outcome: Outcome, error: SignalError) -> None:
    """Note what a ciphertext could not do; the first failure stands for the stanza."""
    if error.code == "duplicate":
        outcome.duplicates += 1
    elif outcome.failure is None:
        if error.code == "malformed":
            outcome.failure = Failure("nack", acks.NACK_PARSE_ERROR, "a malformed ciphertext")
        else:
            outcome.failure = Failure("retry", RETRY_REASONS.get(error.code, 0), error.code)


def _parse(padded: bytes, outcome: Outcome) -> tuple[Message, bytes] | None:
    """The Message inside the padding; without one there is nothing to ask for again (chapter 03 §5.1)."""
    try:
        raw = unpad(padded)
        return Message.FromString(raw), raw
    except PaddingError:
        reason = "the padding is inconsistent"
    except DecodeError:
        reason = "the plaintext is no Message"
    outcome.failure = outcome.failure or Failure("nack", acks.NACK_INVALID_PROTOBUF, reason)
    return None
