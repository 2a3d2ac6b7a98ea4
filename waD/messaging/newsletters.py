"""Messages of channels: readable by the server, so neither padded nor encrypted (chapter 04 §4.5)."""

from __future__ import annotations

from typing import Final

from waD.events import model as events
from waD.messaging.content import parse
from waD.messaging.context import Context
from waD.messaging.incoming_content import Description, describe
from waD.messaging.recording import Recorder
from waD.messaging.rows import Rows
from waD.messaging.stanza import Incoming
from waD.store.model import MessageRow
from waD.store.unit import Unit

EDITED: Final = "3"
REVOKED: Final = "8"


class Newsletters:
    """Takes the messages of channels; edits and revokes come under the id of what they change."""

    def __init__(self, context: Context, rows: Rows, recorder: Recorder) -> None:
        self._context = context
        self._rows = rows
        self._recorder = recorder

    async def take(self, unit: Unit, incoming: Incoming) -> None:
        """Record, edit or revoke; what has no content, such as a reaction, is only acknowledged."""
        place = await self._recorder.place(unit, incoming)
        known = await self._recorder.known(unit, place)
        if incoming.edit == REVOKED:
            if known is not None and known.revoked_at is None:
                self._revoke(unit, incoming, known)
            return
        message = parse(incoming.plaintext) if incoming.plaintext else None
        description = None if message is None else describe(message)
        if description is None:
            return
        server_id = incoming.node.int("server_id")
        if server_id is not None:
            description.content = description.content | {"serverId": server_id}
        if incoming.edit == EDITED and known is not None:
            self._edit(unit, incoming, known, description)
            return
        await self._recorder.record(unit, incoming, place, description, incoming.plaintext or b"", known)

    def _edit(self, unit: Unit, incoming: Incoming, known: MessageRow, description: Description) -> None:
        if known.revoked_at is not None:
            return
        if known.edited_at is not None and known.edited_at >= incoming.time_ms:
            return
        changed = self._rows.change(
            unit,
            known,
            kind=description.kind,
            body=description.body,
            content=(known.content or {}) | description.content | {"edited": True},
            raw=incoming.plaintext,
            edited_at=incoming.time_ms,
        )
        unit.event(*events.message_update(changed, "edited", editedAt=incoming.time_ms))

    def _revoke(self, unit: Unit, incoming: Incoming, known: MessageRow) -> None:
        changed = self._rows.change(
            unit, known, body=None, content=None, raw=None, revoked_at=incoming.time_ms
        )
        unit.event(*events.message_update(changed, "revoked"))
