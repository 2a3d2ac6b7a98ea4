"""The history as a unit under construction leaves it.

The database knows committed rows only, but a backlog shares one unit: a message and its edit, a receipt and the next
one may be in the same. So what a unit has gathered so far is laid over what the database says.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from msgspec import structs

from waD.messaging.context import Context
from waD.store.model import UNDECRYPTABLE, MessageRow
from waD.store.unit import ChangeMessage, MovePerson, PutMessage, RaiseStatus, Unit
from waD.wire.jid import JID

_Place: TypeAlias = tuple[str, str]
"""Chat and sender of a row."""
_RowStep: TypeAlias = PutMessage | ChangeMessage | RaiseStatus


class Rows:
    """Rows of one session by message id."""

    def __init__(self, context: Context) -> None:
        self._state = context.state
        self._addresses = context.addresses
        self._gathered = _Gathered(Unit())

    async def find(self, unit: Unit, message_id: str) -> list[MessageRow]:
        """All messages of that id, as the unit leaves them so far."""
        gathered = self._of(unit)
        stored = await self._state.find_message(message_id, unit=unit)
        return gathered.over(message_id, stored)

    async def one(self, unit: Unit, chat: JID, sender: JID, message_id: str) -> MessageRow | None:
        """The message of that key, under whichever spelling of chat and sender it is filed."""
        found = await self.find(unit, message_id)
        if not found:
            return None
        chats, senders = await self.texts(unit, chat), await self.texts(unit, sender)
        return next((row for row in found if row.chat in chats and row.sender in senders), None)

    async def in_chat(self, unit: Unit, chat: JID, message_id: str) -> list[MessageRow]:
        """Messages of that id in a chat, by whichever author."""
        found = await self.find(unit, message_id)
        if not found:
            return []
        chats = await self.texts(unit, chat)
        return [row for row in found if row.chat in chats]

    async def texts(self, unit: Unit, jid: JID) -> frozenset[str]:
        """Every spelling of an address, as rows may hold it."""
        return frozenset(str(form) for form in await self._addresses.spellings(jid, unit))

    def change(self, unit: Unit, row: MessageRow, **changes: Any) -> MessageRow:
        """Change columns of a row; returns it as it is then."""
        unit.update_message(row.chat, row.sender, row.message_id, **changes)
        return structs.replace(row, **changes)

    def _of(self, unit: Unit) -> _Gathered:
        if self._gathered.unit is not unit:
            self._gathered = _Gathered(unit)
        self._gathered.follow()
        return self._gathered


class _Gathered:
    """What the steps of one unit say about rows; read on as the unit grows."""

    def __init__(self, unit: Unit) -> None:
        self.unit = unit
        self._clear()

    def _clear(self) -> None:
        self._steps: dict[str, list[tuple[int, _RowStep]]] = {}
        self._moves: dict[str, list[tuple[int, MovePerson]]] = {}
        self._read = 0

    def follow(self) -> None:
        """Take note of the steps that are new."""
        steps = self.unit.steps
        if len(steps) < self._read:
            self._clear()  # a savepoint was rolled back
        for position in range(self._read, len(steps)):
            step = steps[position]
            if isinstance(step, PutMessage):
                self._steps.setdefault(step.row.message_id, []).append((position, step))
            elif isinstance(step, ChangeMessage | RaiseStatus):
                self._steps.setdefault(step.message_id, []).append((position, step))
            elif isinstance(step, MovePerson):
                self._moves.setdefault(step.old, []).append((position, step))
        self._read = len(steps)

    def over(self, message_id: str, stored: list[MessageRow]) -> list[MessageRow]:
        """Stored rows with what the unit does to them, in its order."""
        found = {(row.chat, row.sender): row for row in stored}
        for _, step in sorted(self._about(message_id, stored), key=lambda item: item[0]):
            match step:
                case PutMessage(row):
                    place = (row.chat, row.sender)
                    found[place] = _put_over(found.get(place), row)
                case MovePerson(old, new):
                    found = _moved(found, old, new)
                case _:
                    found = {place: _changed(row, step) for place, row in found.items()}
        return list(found.values())

    def _about(self, message_id: str, stored: list[MessageRow]) -> list[tuple[int, _RowStep | MovePerson]]:
        own = self._steps.get(message_id, ())
        if not self._moves:
            return list(own)
        chats = {row.chat for row in stored} | {
            step.row.chat for _, step in own if isinstance(step, PutMessage)
        }
        return [*own, *(move for chat in chats for move in self._moves.get(chat, ()))]


def _put_over(known: MessageRow | None, row: MessageRow) -> MessageRow:
    """What the database makes of a row that is put where one is already."""
    if known is None:
        return row
    if known.kind != UNDECRYPTABLE:
        return known
    return structs.replace(known, kind=row.kind, body=row.body, content=row.content, raw=row.raw)


def _moved(found: dict[_Place, MessageRow], old: str, new: str) -> dict[_Place, MessageRow]:
    """Rows of a chat under its new address; where there is one already, the old one stays as it is."""
    after = {place: row for place, row in found.items() if row.chat != old}
    for place, row in found.items():
        if row.chat == old:
            moved = structs.replace(row, chat=new, sender=new if row.sender == old else row.sender)
            key = (moved.chat, moved.sender)
            after |= {place: row} if key in after else {key: moved}
    return after


def _changed(row: MessageRow, step: _RowStep) -> MessageRow:
    if isinstance(step, ChangeMessage):
        meant = (row.chat, row.sender) == (step.chat, step.sender)
        return structs.replace(row, **step.changes) if meant else row
    if isinstance(step, RaiseStatus):
        raised = row.from_me and row.chat == step.chat and row.status < step.status
        return structs.replace(row, status=step.status) if raised else row
    return row
