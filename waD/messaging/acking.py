"""What the server says about a message of ours: taken, or refused with a number (chapter 04 §5)."""

from __future__ import annotations

import logging
from typing import Final

from waD.messaging.context import Context
from waD.messaging.devices import Devices
from waD.messaging.outcome import REFUSED, fail, sent, settled_in
from waD.messaging.phash import device_hash
from waD.messaging.reaction import FetchDevices, Reaction
from waD.messaging.submitting import BY_NUMBER
from waD.store.model import OutboxRow
from waD.store.unit import Unit
from waD.wire.codec import decode
from waD.wire.errors import WireError
from waD.wire.jid import JID
from waD.wire.node import Node

BAD_ADDRESSING: Final = 400
UNKNOWN_RECIPIENT: Final = 404
STALE_DEVICES: Final = frozenset({BAD_ADDRESSING, 406, 421})
"""Refusals of the addressing: the lists are asked for anew and the message is encrypted once more."""
MAX_ENCRYPTIONS: Final = 2
SERVER_ERRORS: Final = range(500, 600)
MAX_REPEATS: Final = 5
REPEAT_BASE_MS: Final = 2_000
REPEAT_LONGEST_MS: Final = 900_000

_log = logging.getLogger(__name__)


class Acks:
    """Applies the server's acks of messages to one session's outbox.

    Args:
        context: whose.
        devices: device lists, which a refusal may overturn.
    """

    def __init__(self, context: Context, devices: Devices) -> None:
        self._context = context
        self._devices = devices

    async def apply(self, stanza: Node, unit: Unit) -> tuple[Reaction, OutboxRow | None]:
        """Handle one ack as part of a unit.

        Returns:
            What follows, and the row it was about; None when it is about no message of the outbox that waits for it.
        """
        reaction = Reaction()
        row = await self._row(stanza, unit)
        if row is None:
            return reaction, None
        error = stanza.attrs.get("error")
        if error is not None:
            await self._refused(unit, row, stanza.int("error") or 0)
            return reaction, row
        seconds = stanza.int("t")
        now = self._context.now_ms()
        await sent(self._context, unit, row, seconds * 1000 if seconds else now)
        chat = JID.parse(row.chat)
        hint = stanza.text("phash")
        if hint is not None and not self._knew_them_all(row, hint):
            _log.info("the server knows other devices than this message was encrypted for")
            await self._devices.invalidate(unit, chat)
            await self._devices.invalidate(unit, self._context.account.own)
        if stanza.attrs.get("refresh_lid") == "true":
            # The number is what stays, so it is asked for its LID.
            reaction.work.append(FetchDevices((await self._context.addresses.pn_of(chat, unit) or chat,)))
        return reaction, row

    async def _row(self, stanza: Node, unit: Unit) -> OutboxRow | None:
        """The outbox row that an ack is about, matched by id and person (chapter 04 §5.1)."""
        name, chat = stanza.text("id"), stanza.jid("from")
        if name is None or chat is None or settled_in(unit, name):
            return None
        row = await self._context.state.outbox_by_message_id(name)
        if row is None or row.attempts == 0 or row.state not in ("sending", "queued", "held"):
            return None
        if chat.account not in await self._context.addresses.spellings(JID.parse(row.chat), unit):
            _log.warning("an ack names another chat than its message has; it is ignored")
            return None
        return row

    async def _refused(self, unit: Unit, row: OutboxRow, code: int) -> None:
        _log.warning("the server refused a message with %d", code)
        if code in STALE_DEVICES and row.attempts < MAX_ENCRYPTIONS:
            await self._forget_devices(unit, row)
            payload = {**row.payload, BY_NUMBER: True} if code == BAD_ADDRESSING else row.payload
            unit.update_outbox(
                row.message_id,
                state="queued",
                stanza=None,
                last_error=str(code),
                payload=payload,
                not_before=0,
            )
            return
        if code in SERVER_ERRORS and row.attempts < MAX_REPEATS:
            delay = min(REPEAT_BASE_MS << row.attempts, REPEAT_LONGEST_MS)
            # The same bytes go again: the stanza stays where it is.
            unit.update_outbox(
                row.message_id,
                state="queued",
                last_error=str(code),
                not_before=self._context.now_ms() + delay,
            )
            return
        if code == UNKNOWN_RECIPIENT:
            await self._devices.invalidate(unit, JID.parse(row.chat))
        await fail(self._context, unit, row, REFUSED, code)

    async def _forget_devices(self, unit: Unit, row: OutboxRow) -> None:
        await self._devices.invalidate(unit, JID.parse(row.chat))
        await self._devices.invalidate(unit, self._context.account.own)

    def _knew_them_all(self, row: OutboxRow, hint: str) -> bool:
        """Whether a hash is that of the devices a stanza was for, with or without the sending one."""
        addressed = _addressed(row)
        account = self._context.account
        this = account.device_lid if addressed and addressed[0].is_lid else account.device_pn
        with_this = addressed if this is None else [*addressed, this]
        return hint in (device_hash(addressed), device_hash(with_this))


def _addressed(row: OutboxRow) -> list[JID]:
    """The devices listed in a committed stanza."""
    if row.stanza is None:
        return []
    try:
        listed = decode(row.stanza).child("participants")
    except WireError:
        return []
    found = [] if listed is None else [node.jid("jid") for node in listed.children("to")]
    return [jid for jid in found if jid is not None]
