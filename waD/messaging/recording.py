"""What was received becomes rows of the history and events (chapter 04 §6.4, step 7)."""

from __future__ import annotations

from typing import Any

from msgspec import Struct, structs

from waD.events import model as events
from waD.messaging import message_secrets
from waD.messaging.context import Context
from waD.messaging.incoming_content import Description
from waD.messaging.message_keys import Key, author_of, parse_jid
from waD.messaging.rows import Rows
from waD.messaging.stanza import Incoming
from waD.messaging.statuses import DELIVERED, SENT
from waD.store.model import UNDECRYPTABLE, MessageRow
from waD.store.unit import Unit
from waD.wire.jid import JID


class Place(Struct, frozen=True):
    """Where a message is filed.

    Attributes:
        chat: canonical.
        sender: canonical address of the author's account.
        message_id: its id.
        wire_chat: the chat as the stanza spelt it, bare.
    """

    chat: JID
    sender: JID
    message_id: str
    wire_chat: JID


class Recorder:
    """Writes the history and the events of what one session receives."""

    def __init__(self, context: Context, rows: Rows) -> None:
        self._context = context
        self._rows = rows

    async def place(self, unit: Unit, incoming: Incoming) -> Place:
        """The key of a message's row."""
        addresses = self._context.addresses
        sender = await addresses.canonical(incoming.sender, unit)
        direct = incoming.chat == incoming.sender.account
        chat = sender if direct else await addresses.canonical(incoming.chat, unit)
        return Place(chat, sender, incoming.id, incoming.recipient or incoming.source)

    async def known(self, unit: Unit, place: Place) -> MessageRow | None:
        """The row that is there already."""
        return await self._rows.one(unit, place.chat, place.sender, place.message_id)

    async def record(
        self,
        unit: Unit,
        incoming: Incoming,
        place: Place,
        description: Description,
        raw: bytes,
        known: MessageRow | None,
        secret: bytes | None = None,
    ) -> None:
        """Add a message, or resolve the placeholder that stands for it; a message that is known stays as it is.

        `secret` is the message's, which is kept beside it; `raw` does not have it.
        """
        if known is not None and known.kind != UNDECRYPTABLE:
            return
        row = await self._row(unit, incoming, place, description, raw)
        if known is not None:
            # The placeholder may be filed under an older spelling.
            row = structs.replace(row, chat=known.chat, sender=known.sender, ts=known.ts)
        await self._put(unit, incoming, row, resolved=known is not None)
        if secret is not None and message_secrets.belongs(description):
            key, author = (row.chat, row.sender, row.message_id), incoming.sender.account
            now_ms = self._context.now_ms()
            message_secrets.keep(unit, key, secret, author=author, kind=row.kind, ts=row.ts, now_ms=now_ms)

    async def placeholder(self, unit: Unit, incoming: Incoming, place: Place, why: dict[str, Any]) -> None:
        """Show that there is a message that cannot be read, unless its author wants that hidden."""
        if incoming.hide or incoming.peer or await self.known(unit, place) is not None:
            return
        row = await self._row(unit, incoming, place, Description(UNDECRYPTABLE, None, why), None)
        await self._put(unit, incoming, row, resolved=False)

    async def _row(
        self, unit: Unit, incoming: Incoming, place: Place, description: Description, raw: bytes | None
    ) -> MessageRow:
        content = await self._canonical(unit, description.content)
        if description.target is not None:
            content = content | {"target": await self.target(unit, incoming, description.target)}
        return MessageRow(
            chat=str(place.chat),
            sender=str(place.sender),
            message_id=place.message_id,
            from_me=incoming.from_me,
            ts=incoming.time_ms,
            kind=description.kind,
            body=description.body,
            content=content or None,
            raw=raw,
            wire_chat=str(place.wire_chat),
            wire_sender=str(incoming.sender),
            status=SENT if incoming.from_me else DELIVERED,
            source="offline" if incoming.offline else "live",
        )

    async def _canonical(self, unit: Unit, content: dict[str, Any]) -> dict[str, Any]:
        """People who are quoted or mentioned, under the addresses that rows and events know them by."""
        quoted, mentions = content.get("quoted"), content.get("mentions")
        if quoted is not None:
            people = {
                name: await self._filed(unit, quoted[name]) for name in ("sender", "chat") if name in quoted
            }
            content = content | {"quoted": quoted | people}
        if mentions is not None:
            content = content | {"mentions": [await self._filed(unit, one) for one in mentions]}
        return content

    async def _filed(self, unit: Unit, address: str) -> str:
        jid = parse_jid(address)
        return address if jid is None else str(await self._context.addresses.canonical(jid, unit))

    async def target(self, unit: Unit, incoming: Incoming, key: Key) -> dict[str, Any]:
        """The message that a content is about, as rows and events name it."""
        author = author_of(key, incoming.sender, incoming.from_me, self._context.account.own)
        target: dict[str, Any] = {"messageId": key.id}
        if author is not None:
            target["sender"] = str(await self._context.addresses.canonical(author, unit))
            target["fromMe"] = self._context.account.is_own(author)
        return target

    async def _put(self, unit: Unit, incoming: Incoming, row: MessageRow, *, resolved: bool) -> None:
        unit.add_message(row)
        unit.set_session(last_message_at=self._context.now_ms())
        more = await self._names(unit, incoming)
        event = (
            events.message_update(row, "resolved", **more) if resolved else events.message_new(row, **more)
        )
        unit.event(*event)

    async def _names(self, unit: Unit, incoming: Incoming) -> dict[str, str | None]:
        """What the author is called: both addresses, as far as known, and the name of their choice."""
        sender = incoming.sender.account
        if not sender.is_user:
            return {"pushName": incoming.push_name or None}
        other = incoming.sender_alt
        if other is None:
            addresses = self._context.addresses
            other = await (addresses.pn_of(sender, unit) if sender.is_lid else addresses.lid_of(sender, unit))
        number, lid = (other, sender) if sender.is_lid else (sender, other)
        return {
            "pushName": incoming.push_name or None,
            "senderPn": None if number is None else str(number.account),
            "senderLid": None if lid is None else str(lid.account),
        }
