"""Asking the author's device for a message that could not be read (chapter 04 §7.1, chapter 03 §7.4).

Counters are durable: they are part of the unit whose commit lets the receipt go.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Struct, structs

from waD.e2ee.curve import KEY_TYPE
from waD.link import acks
from waD.link.credentials import Credentials
from waD.link.prekeys import OneTimePreKey, key_node, skey_node
from waD.link.stanzas import big_endian
from waD.messaging import kinds
from waD.messaging.context import Context
from waD.messaging.peer import MAX_AGE_MS, resend_request
from waD.messaging.reaction import AskPhone, Paced, Reaction
from waD.messaging.recording import Place
from waD.messaging.stanza import Incoming
from waD.store.unit import Unit
from waD.wire.node import Node, Value

KEYS_FROM_COUNT: Final = 2
"""From this request on the receipt brings keys for a new session."""
PHONE_DELAY_S: Final = 5.0
"""How long a normal retry may take before the phone is asked."""
MAX_PHONE_REQUESTS: Final = 2
"""The phone is asked after the first failure, and once more when the author's device gave nothing."""
PREFIX: Final = "asked|"

_MAX_U32: Final = 0xFFFFFFFF


class Asked(Struct, frozen=True):
    """What was done about a message that could not be read.

    Attributes:
        count: number of the last retry receipt.
        at: when, Unix milliseconds.
        phone: how often the phone was asked.
    """

    count: int = 0
    at: int = 0
    phone: int = 0


_encode: Final = msgspec.json.Encoder(order="sorted").encode
_decode: Final = msgspec.json.Decoder(Asked).decode


def keys_node(creds: Credentials, prekey: OneTimePreKey) -> Node:
    """What the author's device needs for a new session with this one."""
    content = [
        Node("type", {}, bytes((KEY_TYPE,))),
        Node("identity", {}, creds.identity.public),
        key_node(prekey.id, prekey.key.public),
        skey_node(creds.signed_prekey),
    ]
    if creds.account is not None:
        content.append(Node("device-identity", {}, creds.account))
    return Node("keys", {}, content)


def retry_receipt(
    incoming: Incoming, *, count: int, reason: int, registration_id: int, keys: Node | None = None
) -> Node:
    """Build the receipt; it goes where the message came from.

    Args:
        incoming: what could not be read.
        count: number of this request, from 1.
        reason: see chapter 03 §3.5; 0 is left out.
        registration_id: the own one.
        keys: from `keys_node`.
    """
    received = incoming.node.attrs
    attrs: dict[str, Value] = {"id": received["id"], "to": received["from"], "type": "retry"}
    if "participant" in received:
        attrs["participant"] = received["participant"]
    if incoming.recipient is not None:
        attrs["recipient"] = incoming.recipient
    if incoming.peer:
        attrs["category"] = "peer"
    asked: dict[str, Value] = {
        "count": str(count),
        "id": received["id"],
        "t": str(incoming.time_s),
        "v": "1",
    }
    if reason:
        asked["error"] = str(reason)
    registration = Node("registration", {}, big_endian(registration_id & _MAX_U32, 4))
    return Node("receipt", attrs, [Node("retry", asked), registration, *([keys] if keys is not None else [])])


class Asking:
    """Retry receipts of one session, and questions to its phone."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def again(self, unit: Unit, incoming: Incoming, place: Place, reason: int) -> Reaction:
        """Ask once more, as long as that is allowed, and answer the stanza.

        While online the answers are paced; those of the backlog leave at once (§7.1).
        """
        reaction = Reaction()
        before = await self._asked(unit, place)
        count = max(before.count, incoming.retry_count) + 1
        after = structs.replace(before, at=self._context.now_ms())
        ack = acks.ack(incoming.node, self._context.account.device_pn)
        if count <= self._context.settings.retries:
            after = structs.replace(after, count=count)
            _answer(incoming, reaction, await self._receipt(unit, incoming, count, reason), ack)
        else:
            reaction.add(ack)
        if self._phone_is_due(incoming, before, count):
            after = structs.replace(after, phone=before.phone + 1)
            delay = PHONE_DELAY_S if before.phone == 0 else 0.0
            reaction.work.append(self._question(incoming, place, delay))
        unit.put(kinds.RETRY, _key(place), _encode(after))
        return reaction

    async def phone_at_once(self, unit: Unit, incoming: Incoming, place: Place) -> Reaction:
        """Ask the phone for what it did not send to companions (§6.6), once."""
        reaction = Reaction()
        before = await self._asked(unit, place)
        if before.phone == 0 and self._young(incoming):
            reaction.work.append(self._question(incoming, place, 0.0))
            after = structs.replace(before, at=self._context.now_ms(), phone=1)
            unit.put(kinds.RETRY, _key(place), _encode(after))
        return reaction

    async def resolved(self, unit: Unit, place: Place) -> None:
        """The message came after all: nothing is outstanding any more."""
        if await self._context.state.item(kinds.RETRY, _key(place), unit) is not None:
            unit.delete(kinds.RETRY, _key(place))

    async def _asked(self, unit: Unit, place: Place) -> Asked:
        return _read(await self._context.state.item(kinds.RETRY, _key(place), unit))

    async def _receipt(self, unit: Unit, incoming: Incoming, count: int, reason: int) -> Node:
        creds = self._context.account.creds
        keys = None
        if count >= KEYS_FROM_COUNT or incoming.sender.is_hosted:
            keys = keys_node(creds, await self._context.account.direct_prekey(unit, self._context.random))
        return retry_receipt(
            incoming, count=count, reason=reason, registration_id=creds.registration_id, keys=keys
        )

    def _phone_is_due(self, incoming: Incoming, before: Asked, count: int) -> bool:
        """After the first failure, and again when the author's device was asked in vain."""
        if incoming.hide or incoming.peer or not self._young(incoming):
            return False
        exhausted = count > self._context.settings.retries
        return before.phone == 0 or (exhausted and before.phone < MAX_PHONE_REQUESTS)

    def _young(self, incoming: Incoming) -> bool:
        return incoming.time_ms > self._context.now_ms() - MAX_AGE_MS

    def _question(self, incoming: Incoming, place: Place, delay_s: float) -> AskPhone:
        participant = incoming.sender.account if incoming.shares_keys else None
        payload = resend_request(
            place.wire_chat, incoming.id, from_me=incoming.from_me, participant=participant
        )
        return AskPhone(payload, delay_s, str(place.chat), str(place.sender), incoming.id)


def _answer(incoming: Incoming, reaction: Reaction, receipt: Node, ack: Node | None) -> None:
    """The request first, then the ack: if only one gets out, it must be the request."""
    nodes = (receipt,) if ack is None else (receipt, ack)
    if incoming.offline:
        reaction.answers += nodes
    else:
        reaction.work.append(Paced(nodes))


def _key(place: Place) -> str:
    """The id comes last: it is the one part that a stranger chooses."""
    return f"{PREFIX}{place.chat}|{place.sender}|{place.message_id}"


def _read(value: bytes | None) -> Asked:
    if value is None:
        return Asked()
    try:
        return _decode(value)
    except msgspec.DecodeError:
        return Asked()
