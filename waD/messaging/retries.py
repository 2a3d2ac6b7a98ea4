"""Devices that could not read a message of ours: who may have it again, and sending it (chapter 04 §7.3, §7.4)."""

from __future__ import annotations

import logging
from typing import Final

import msgspec

from waD.crashpoints import crashpoint
from waD.e2ee.adv import PRIMARY_DEVICE
from waD.e2ee.errors import SignalError
from waD.e2ee.x3dh import PreKeyBundle
from waD.link import acks
from waD.link.bundles import DeviceBundle, check_all, parse_retry_keys
from waD.link.stanzas import Requester
from waD.messaging import kinds
from waD.messaging.classify import classify
from waD.messaging.content import device_sent, parse
from waD.messaging.context import Context
from waD.messaging.device_lists import is_device
from waD.messaging.devices import Devices
from waD.messaging.encrypting import enc_node
from waD.messaging.outbound import Outbound
from waD.messaging.outcome import own_message
from waD.messaging.peer_out import PEER_CHAT, peer_node
from waD.messaging.reaction import AnswerRetry, FetchDevices, Reaction
from waD.messaging.stanza import is_usable_id
from waD.proto.e2e_pb2 import Message
from waD.store.unit import Unit
from waD.wire.jid import JID
from waD.wire.node import Node, Value

MAX_COUNT: Final = 5
"""Requests from this number on are ignored."""
MAX_ANSWERS: Final = 5
"""Answers to one device about one message."""
RECREATE_MS: Final = 3_600_000
"""Least time between two sessions made anew for one device because it keeps asking."""

_log = logging.getLogger(__name__)


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """What was done for one device about one message.

    Attributes:
        answers: how often the message was repeated.
        base_key: of the session current at the second request, to see whether it was rebuilt.
        at: Unix milliseconds of the last change.
    """

    answers: int = 0
    base_key: bytes | None = None
    at: int = 0

    def serialize(self) -> bytes:
        """The stored form."""
        return msgspec.json.encode(self, order="sorted")

    @classmethod
    def parse(cls, data: bytes) -> Answered:
        """Read the stored form; raises msgspec.DecodeError."""
        return msgspec.json.decode(data, type=cls)


class Recreated(msgspec.Struct, frozen=True):
    """When a session was last made anew for a device: Unix milliseconds."""

    at: int

    def serialize(self) -> bytes:
        """The stored form."""
        return msgspec.json.encode(self, order="sorted")

    @classmethod
    def parse(cls, data: bytes) -> Recreated:
        """Read the stored form; raises msgspec.DecodeError."""
        return msgspec.json.decode(data, type=cls)


class Retries:
    """Answers retry receipts for one session.

    Args:
        context: whose.
        devices: device lists.
        outbound: sessions and encryption, and the turn on the wire.
    """

    def __init__(self, context: Context, devices: Devices, outbound: Outbound) -> None:
        self._context = context
        self._devices = devices
        self._outbound = outbound
        self._running: set[tuple[str, str, JID]] = set()

    async def asked(self, stanza: Node, unit: Unit) -> Reaction:
        """Handle a retry receipt as part of a unit: always acked, and answered only when every check allows it."""
        reaction = Reaction()
        reaction.add(acks.ack(stanza, self._context.account.device_pn))
        request = await self._request(stanza, unit)
        if request is None:
            return reaction
        if await self._known_device(request, unit, reaction) and await self._within_limits(request, unit):
            reaction.work.append(request)
        return reaction

    async def _request(self, stanza: Node, unit: Unit) -> AnswerRetry | None:
        """Checks 1 to 4: form, requester, message, authorisation."""
        asked = stanza.children("retry")
        name, requester = stanza.text("id"), stanza.jid("participant") or stanza.jid("from")
        if len(asked) != 1 or not is_usable_id(name) or requester is None or not is_device(requester):
            return None
        count = asked[0].int("count") if "count" in asked[0].attrs else 1
        if count is None or not 1 <= count < MAX_COUNT or self._context.account.is_this_device(requester):
            return None
        unit.tally("retry_requests")
        chat = self._chat(stanza, requester)
        if chat is None:
            return None
        spellings = await self._spellings(chat, unit)
        if await self._context.state.plaintext(spellings, name) is None:
            return None
        if not await self._may_have_it(stanza, requester, chat, unit):
            _log.warning("a device of somebody else asks for a message; it does not get it")
            return None
        return AnswerRetry(spellings[0], name, requester, count, stanza)

    def _chat(self, stanza: Node, requester: JID) -> JID | str | None:
        """The chat of the message that is asked for; `PEER_CHAT` for a message to the own phone."""
        origin = stanza.jid("from")
        if origin is None or not origin.is_user:
            # Groups and the status list are not written to by this program yet, so nothing of theirs is kept.
            return None
        if not self._context.account.is_own(requester):
            return origin.account
        if stanza.attrs.get("category") == "peer":
            return PEER_CHAT
        recipient = stanza.jid("recipient")
        return None if recipient is None else recipient.bare

    async def _spellings(self, chat: JID | str, unit: Unit | None = None) -> list[str]:
        if isinstance(chat, str):
            return [chat]
        return [str(form) for form in await self._context.addresses.spellings(chat, unit)]

    async def _may_have_it(self, stanza: Node, requester: JID, chat: JID | str, unit: Unit) -> bool:
        """Whether the requester belongs to the conversation (check 4)."""
        if self._context.account.is_own(requester):
            origin = stanza.jid("from")
            return origin is not None and self._context.account.is_own(origin)
        return isinstance(chat, JID) and requester.account in await self._context.addresses.spellings(
            chat, unit
        )

    async def _known_device(self, request: AnswerRetry, unit: Unit, reaction: Reaction) -> bool:
        """Check 5: a device that its list does not name is asked about; without keys of its own it gets nothing.

        Where no list is stored the answer begins with asking for it.
        """
        if await self._devices.knows(request.requester, unit) is not False:
            return True
        reaction.work.append(FetchDevices((request.requester.account,)))
        return request.receipt.child("keys") is not None

    async def _within_limits(self, request: AnswerRetry, unit: Unit) -> bool:
        """Check 6."""
        if self._guard(request) in self._running:
            return False
        done = await self._answered(request, unit)
        return done is None or done.answers < MAX_ANSWERS

    def _guard(self, request: AnswerRetry) -> tuple[str, str, JID]:
        return request.chat, request.message_id, request.requester

    async def _key(self, request: AnswerRetry, unit: Unit | None = None) -> str:
        address = await self._context.addresses.signal_address(request.requester, unit)
        return f"answered|{address.text}|{request.message_id}"

    async def _answered(self, request: AnswerRetry, unit: Unit | None = None) -> Answered | None:
        key = await self._key(request, unit)
        return await self._context.state.record(kinds.RETRY, key, Answered.parse, unit)

    async def answer(self, request: AnswerRetry, connection: Requester) -> None:
        """Repair the session with a device that asked, and send it the message again; nobody else gets it.

        Raises:
            RequestError, RequestTimeout, MalformedReply, Disconnected: the device will ask again.
            StoreError: nothing was sent.
        """
        guard = self._guard(request)
        if guard in self._running:
            return
        self._running.add(guard)
        try:
            await self._answer(request, connection)
        finally:
            self._running.discard(guard)

    async def _answer(self, request: AnswerRetry, connection: Requester) -> None:
        if not await self._devices.knows(request.requester):
            await self._devices.refresh([request.requester], connection)
            if not await self._devices.knows(request.requester):
                _log.warning("a device that its account does not list asks for a message; it does not get it")
                return
        if not await self._repair(request):
            return
        await self._outbound.sessions.ensure([request.requester], connection, reason="retry")
        async with self._outbound.turn:
            async with self._context.state.lock:
                unit = self._context.state.unit()
                node = await self._repeated(request, unit)
                if node is None:
                    return
                crashpoint("retry.before_commit")
                await self._context.state.commit(unit)
            crashpoint("retry.after_commit")
            await connection.send(node)

    async def _repair(self, request: AnswerRetry) -> bool:
        """Steps 1 to 4 of chapter 04 §7.4, as one unit; False when the request must not be answered."""
        async with self._context.state.lock:
            unit = self._context.state.unit()
            bundle = await self._keys(request, unit)
            if request.receipt.child("keys") is None:
                await self._judge_session(request, unit)
            elif bundle is None:
                return False
            else:
                try:
                    await self._outbound.sessions.process(unit, request.requester, bundle)
                except SignalError as refusal:
                    _log.warning("the keys of a retry receipt are unusable: %s", refusal.code)
                    return False
            await self._context.state.commit(unit)
        return True

    async def _keys(self, request: AnswerRetry, unit: Unit) -> PreKeyBundle | None:
        """The verified bundle of the receipt; None when there is none that may be used."""
        bundle, device = parse_retry_keys(request.receipt), request.requester
        if bundle is None or bundle.prekey is None:
            return None
        keys = request.receipt.child("keys")
        blob = None if keys is None else keys.child("device-identity")
        phone = await self._devices.identity_of_phone(device, unit)
        offered = DeviceBundle(device, bundle, device_identity=b"" if blob is None else blob.data)
        (checked,) = check_all([offered], {} if phone is None else {device.account: phone})
        address = await self._context.addresses.signal_address(device, unit)
        same = await self._context.records.identity(address, unit) == bundle.identity
        if checked.error == "adv_missing" and same:
            # A known identity vouches for itself; the blob is only logged when it is missing (chapter 03 §7.2).
            _log.info("a companion sent its keys without its device identity")
        elif checked.bundle is None or not (self._proves(checked) or same):
            _log.warning("the keys of a retry receipt do not prove whose device it is: %s", checked.error)
            return None
        return bundle if await self._same_installation(device, bundle, unit) else None

    def _proves(self, checked: DeviceBundle) -> bool:
        """Whether keys are those of the account's device: a phone may be new, a companion answers to its phone."""
        if checked.jid.device == PRIMARY_DEVICE:
            return not (checked.account_changed and self._context.account.is_own(checked.jid))
        return checked.verified and not checked.account_changed

    async def _same_installation(self, device: JID, bundle: PreKeyBundle, unit: Unit) -> bool:
        """An own device that changed its registration is linked anew, which the server tells otherwise."""
        if not self._context.account.is_own(device):
            return True
        address = await self._context.addresses.signal_address(device, unit)
        record = await self._context.records.session(address, unit)
        current = None if record is None else record.current
        known = 0 if current is None else current.remote_registration_id
        return not known or known == bundle.registration_id

    async def _judge_session(self, request: AnswerRetry, unit: Unit) -> None:
        """Without keys: archive a session that belongs to an older installation or that nobody rebuilt."""
        context, device = self._context, request.requester
        address = await context.addresses.signal_address(device, unit)
        record = await context.records.session(address, unit)
        if record is None or record.current is None:
            return
        current, done = record.current, await self._answered(request, unit) or Answered()
        told = _registration(request.receipt)
        stale = 0 not in (told, current.remote_registration_id) and told != current.remote_registration_id
        if request.count == 2:
            noted = current.base_key
        else:
            stale = stale or (request.count > 2 and done.base_key == current.base_key)
            noted = None
        recreate = request.count >= 2 and await self._recreation_is_due(address.text, unit)
        if noted != done.base_key:
            await self._note(request, unit, msgspec.structs.replace(done, base_key=noted))
        if stale or recreate:
            unit.put(kinds.RETRY, f"recreated|{address.text}", Recreated(context.now_ms()))
            await self._outbound.sessions.archive(unit, device)

    async def _recreation_is_due(self, address: str, unit: Unit) -> bool:
        last = await self._context.state.record(kinds.RETRY, f"recreated|{address}", Recreated.parse, unit)
        return last is None or self._context.now_ms() - last.at > RECREATE_MS

    async def _note(self, request: AnswerRetry, unit: Unit, done: Answered) -> None:
        stamped = msgspec.structs.replace(done, at=self._context.now_ms())
        unit.put(kinds.RETRY, await self._key(request, unit), stamped)

    async def _repeated(self, request: AnswerRetry, unit: Unit) -> Node | None:
        """The message once more, for the one device that asked (steps 7 to 9)."""
        done = await self._answered(request, unit) or Answered()
        chats = await self._spellings(
            PEER_CHAT if request.chat == PEER_CHAT else JID.parse(request.chat), unit
        )
        stored = await self._context.state.plaintext(chats, request.message_id)
        message = None if stored is None else parse(stored)
        history = await own_message(self._context, request.message_id)
        revoked = history is not None and history.revoked_at is not None
        usable = await self._outbound.sessions.usable(request.requester, unit)
        if message is None or revoked or not usable or done.answers >= MAX_ANSWERS:
            return None
        node = await self._stanza(request, unit, message)
        if history is not None:
            node.attrs["t"] = str(history.ts // 1000)
        await self._note(request, unit, msgspec.structs.replace(done, answers=done.answers + 1))
        return node

    async def _stanza(self, request: AnswerRetry, unit: Unit, message: Message) -> Node:
        encryptor, device, said = self._outbound.encryptor, request.requester, classify(message)
        attrs: dict[str, Value] = {"id": request.message_id, "to": device, "type": said.type}
        recipient = request.receipt.jid("recipient")
        plaintext = message
        if request.chat != PEER_CHAT and self._context.account.is_own(device) and recipient is not None:
            attrs["recipient"] = recipient
            plaintext = device_sent(message, recipient.bare)
        done = await encryptor.encrypt(unit, device, encryptor.padded(plaintext))
        enc = enc_node(done, said, request.count)
        identity = encryptor.device_identity([enc])
        if request.chat == PEER_CHAT:
            return peer_node(request.message_id, device, message, enc, identity)
        if said.edit is not None:
            attrs["edit"] = said.edit
        attrs["device_fanout"] = "false"
        return Node("message", attrs, [enc, *identity])


def _registration(receipt: Node) -> int:
    node = receipt.child("registration")
    return int.from_bytes(node.data, "big") if node is not None and len(node.data) == 4 else 0
