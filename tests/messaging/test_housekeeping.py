"""Notes past their time go at the next login, and only they."""

from __future__ import annotations

import os

import pytest

from tests.messaging.accounts import START_MS
from tests.messaging.inbound_helpers import ANN_LID, Peer, Receiver, answer, spoiled
from waD.e2ee.curve import KeyPair
from waD.link.prekeys import OneTimePreKey
from waD.link.prekeys import State as PreKeyState
from waD.messaging import kinds
from waD.messaging.context import Context, make_context
from waD.messaging.facade import Messaging
from waD.messaging.housekeeping import KEPT_MS, RESTORE_POINT_KEY, forget_old
from waD.messaging.peer_out import PeerRequest, request_of
from waD.messaging.retries import Answered, Recreated
from waD.proto.e2e_pb2 import Message
from waD.store.unit import Record
from waD.transfer.reviving import revive
from waD.transfer.state import AuthState

DAY_MS = 86_400_000


def at(ctx: Context, now_ms: int) -> Context:
    return make_context(ctx.state, settings=ctx.settings, now_ms=lambda: now_ms, random=os.urandom)


def notes(made_ms: int) -> dict[tuple[str, str], Record]:
    """One of each sort."""
    question = PeerRequest(chat=str(ANN_LID), sender=str(ANN_LID), message_id="A", at=made_ms)
    return {
        (kinds.RETRY, f"answered|1.0|{made_ms}"): Answered(answers=1, at=made_ms),
        (kinds.RETRY, f"recreated|{made_ms}.0"): Recreated(made_ms),
        (kinds.PEER_REQUEST, f"Q{made_ms}"): question,
    }


async def left(ctx: Context) -> set[str]:
    return {*await ctx.state.all_items(kinds.RETRY), *await ctx.state.all_items(kinds.PEER_REQUEST)}


async def test_a_login_forgets_what_is_past_its_time(ctx: Context) -> None:
    old, young = notes(START_MS - KEPT_MS - 1), notes(START_MS - KEPT_MS + DAY_MS)
    unit = ctx.state.unit()
    for (kind, key), note in (old | young).items():
        unit.put(kind, key, note)
    unit.put(kinds.RETRY, "asked|nobody can read this", b'"{"')
    unit.put(kinds.SESSION, "1.0", b"0")
    await ctx.state.commit(unit)
    await Messaging(ctx).tidy()
    assert await left(ctx) == {key for _, key in young}
    assert await ctx.state.item(kinds.SESSION, "1.0") == b"0"


async def test_a_question_is_open_until_then(ctx: Context) -> None:
    unit = ctx.state.unit()
    for (kind, key), note in notes(START_MS).items():
        unit.put(kind, key, note)
    await ctx.state.commit(unit)
    await Messaging(at(ctx, START_MS + KEPT_MS)).tidy()
    assert await request_of(ctx, f"Q{START_MS}") is not None
    await Messaging(at(ctx, START_MS + KEPT_MS + 1)).tidy()
    assert await request_of(ctx, f"Q{START_MS}") is None


async def test_counters_of_retries_that_we_asked_for(ctx: Context, receiver: Receiver, ann: Peer) -> None:
    await receiver.take(ann.text("introduction"))
    await answer(ctx, ann)
    await receiver.take(ann.stanza(spoiled(ann.enc(Message(conversation="x")))))
    assert len(await ctx.state.all_items(kinds.RETRY)) == 1
    for now_ms, gone in ((START_MS, 0), (START_MS + 15 * DAY_MS, 1)):
        unit = ctx.state.unit()
        assert await forget_old(at(ctx, now_ms), unit) == gone


# Prekeys of before a restore.

STATES: tuple[PreKeyState, ...] = ("new", "uploaded", "direct", "stale")


async def restored(ctx: Context, note: bytes | None) -> None:
    """One prekey in each state, one that nobody can read, and the note of a restore."""
    unit = ctx.state.unit()
    for number, state in enumerate(STATES, start=1):
        unit.put(
            kinds.PREKEY, str(number), OneTimePreKey(number, KeyPair.generate(os.urandom), state).serialize()
        )
    unit.put(kinds.PREKEY, "9", b"{}")
    if note is not None:
        unit.put(kinds.RESTORE_POINT, RESTORE_POINT_KEY, note)
    await ctx.state.commit(unit)


async def prekeys_after(ctx: Context, now_ms: int) -> set[str]:
    await Messaging(at(ctx, now_ms)).tidy()
    return set(await ctx.state.all_items(kinds.PREKEY))


async def test_stale_prekeys_go_thirty_days_after_the_restore(ctx: Context) -> None:
    await restored(ctx, b'{"at":%d,"backup":%d}' % (START_MS, START_MS - 99 * DAY_MS))
    assert await prekeys_after(ctx, START_MS + 30 * DAY_MS - 1) == {"1", "2", "3", "4", "9"}
    assert await prekeys_after(ctx, START_MS + 30 * DAY_MS) == {"1", "2", "3", "9"}
    assert await ctx.state.all_items(kinds.RESTORE_POINT) == {}
    assert await prekeys_after(ctx, START_MS + 60 * DAY_MS) == {"1", "2", "3", "9"}


@pytest.mark.parametrize("note", [None, b"{}", b"[]", b'{"at":"soon"}', b"\xff"])
async def test_without_a_note_that_can_be_read_stale_prekeys_stay(ctx: Context, note: bytes | None) -> None:
    await restored(ctx, note)
    assert await prekeys_after(ctx, START_MS + 99 * DAY_MS) == {"1", "2", "3", "4", "9"}


async def test_the_note_is_the_one_that_a_restore_writes(ctx: Context) -> None:
    creds = ctx.account.creds
    old = AuthState(creds, {(kinds.PREKEY, "7"): OneTimePreKey(7, KeyPair.generate(os.urandom)).serialize()})
    revival = revive(old, START_MS, os.urandom, backup_ms=START_MS - DAY_MS)
    unit = ctx.state.unit()
    for (kind, key), value in revival.items.items():
        unit.put(kind, key, value)
    await ctx.state.commit(unit)
    assert "7" in await prekeys_after(ctx, START_MS + 29 * DAY_MS)
    assert "7" not in await prekeys_after(ctx, START_MS + 31 * DAY_MS)
