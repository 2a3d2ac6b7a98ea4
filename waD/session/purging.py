"""The one door through which history is deleted: by an operator's order, in bounded steps, each told in the log."""

from __future__ import annotations

import logging
from typing import Final

from waD.control.api import bad_param
from waD.control.caller import caller
from waD.control.types import PurgeParams, PurgeResult
from waD.session.messages import SessionMessages, parse_chat
from waD.store.engine import Purge, Purged
from waD.store.model import SessionRow
from waD.store.store import Store

ROWS: Final = 10_000
"""Messages that one transaction deletes; others of the store wait meanwhile."""

_log = logging.getLogger(__name__)


async def purge(store: Store, row: SessionRow, messages: SessionMessages, order: PurgeParams) -> PurgeResult:
    """Delete messages, the oldest first; or count them.

    What a step has deleted is gone, and its event says how much, also when the daemon ends before the next one.

    Raises:
        ControlError: `bad_params`.
        StoreError: the store cannot be written.
    """
    if order.chat is None and order.before is None:
        raise bad_param("before", "say which messages: a time, a chat, or both")
    chats = None if order.chat is None else await messages.spellings(parse_chat(order.chat))
    found = await store.read(store.engine.message_count, row.id, chats, order.before)
    deleted, actor = 0, await caller()
    while not order.dry_run and deleted < found:
        job = Purge(row.id, chats, order.before, min(ROWS, found - deleted), actor)
        done: Purged = await store.write(job)
        deleted += done.count
        if not done.count:
            break
    if deleted:
        _log.warning(
            "session %s: %d messages of its history were deleted by order of %s", row.name, deleted, actor
        )
    return PurgeResult(session=row.name, found=found, deleted=deleted)
