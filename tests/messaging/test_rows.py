"""The history as a unit leaves it, compared with what the database says after the commit."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.messaging.accounts import START_MS
from tests.messaging.inbound_helpers import ANN_LID, ANN_PN, receiving
from waD.messaging.context import Context
from waD.messaging.rows import Rows
from waD.store.model import MessageRow
from waD.store.unit import Unit


def row(chat: str = "1@lid", sender: str = "1@lid", message_id: str = "A", **more: Any) -> MessageRow:
    fields = {"from_me": False, "ts": START_MS, "kind": "text", "body": "x"} | more
    return MessageRow(chat=chat, sender=sender, message_id=message_id, **fields)


def plain(found: list[MessageRow]) -> dict[tuple[str, str], tuple[object, ...]]:
    """What matters of rows, without the database's own columns."""
    return {(one.chat, one.sender): (one.kind, one.body, one.status, one.edited_at) for one in found}


async def test_added_in_the_unit(ctx: Context) -> None:
    rows, unit = Rows(ctx), Unit()
    assert await rows.find(unit, "A") == []
    unit.add_message(row())
    assert plain(await rows.find(unit, "A")) == plain([row()])
    assert await rows.find(unit, "B") == []
    assert await rows.find(Unit(), "A") == []


async def test_the_first_one_stays_unless_it_could_not_be_read(ctx: Context) -> None:
    rows, unit = Rows(ctx), Unit()
    unit.add_message(row(kind="undecryptable", body=None))
    unit.add_message(row(body="read"))
    unit.add_message(row(body="again"))
    (found,) = await rows.find(unit, "A")
    assert found.body == "read"


async def test_a_rolled_back_step_is_forgotten(ctx: Context) -> None:
    rows, unit = Rows(ctx), Unit()

    async def fail() -> None:
        with unit.step():
            unit.add_message(row())
            assert len(await rows.find(unit, "A")) == 1
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert await rows.find(unit, "A") == []


async def test_under_every_spelling(ctx: Context) -> None:
    rows = Rows(ctx)
    async with ctx.state.lock:
        unit = ctx.state.unit()
        unit.add_message(row(str(ANN_PN), str(ANN_PN)))
        await ctx.state.commit(unit)
        unit = ctx.state.unit()
        assert await rows.one(unit, ANN_LID, ANN_LID, "A") is None
        await ctx.addresses.learn(unit, ANN_PN, ANN_LID, "live")
        found = await rows.one(unit, ANN_LID, ANN_LID, "A")
        assert found is not None
        assert found.chat == str(ANN_LID)
        rows.change(unit, found, body="changed")
        await ctx.state.commit(unit)
    (stored,) = await ctx.state.find_message("A")
    assert (stored.chat, stored.body) == (str(ANN_LID), "changed")


_chats = st.sampled_from(["1@lid", "2@lid", "3@lid"])
_steps = st.one_of(
    st.tuples(st.just("add"), _chats, st.sampled_from(["text", "undecryptable"])),
    st.tuples(st.just("change"), _chats, st.sampled_from(["text", "image"])),
    st.tuples(st.just("raise"), _chats, st.integers(0, 5)),
    st.tuples(st.just("move"), _chats, st.just("")),
    st.tuples(st.just("commit"), _chats, st.just("")),
)


@settings(max_examples=60)
@given(st.lists(_steps, max_size=20))
def test_what_is_seen_is_what_is_stored(steps: list[tuple[str, str, Any]]) -> None:
    async def scenario() -> None:
        async with receiving() as receiver:
            state, rows = receiver.ctx.state, Rows(receiver.ctx)
            unit = state.unit()
            for number, (what, chat, value) in enumerate(steps):
                if what == "add":
                    unit.add_message(row(chat, "9@lid", kind=value, body=f"b{number}", from_me=True))
                elif what == "change":
                    unit.update_message(chat, "9@lid", "A", kind=value, edited_at=number)
                elif what == "raise":
                    unit.raise_status(chat, "A", value)
                elif what == "move":
                    unit.move_person(chat, "3@lid")
                seen = plain(await rows.find(unit, "A"))
                if what == "commit":
                    await state.commit(unit)
                    unit = state.unit()
                    assert plain(await state.find_message("A")) == seen
            await state.commit(unit)

    trio.run(scenario)
