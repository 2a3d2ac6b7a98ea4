"""Phone numbers, LIDs, and what moves when a mapping is learned."""

from __future__ import annotations

import msgspec
import pytest

from tests.e2ee.parties import acquainted
from waD.e2ee.address import SignalAddress
from waD.messaging import kinds
from waD.messaging.context import Context
from waD.store.model import MessageRow, OutboxRow
from waD.store.store import Store
from waD.store.unit import Unit
from waD.wire.errors import JIDError
from waD.wire.jid import JID

PN = JID.parse("15550000002@s.whatsapp.net")
LID = JID.parse("200000000000002@lid")
OTHER_LID = JID.parse("200000000000003@lid")
OTHER_PN = JID.parse("15550000003@s.whatsapp.net")
GROUP = JID.parse("120363000000000001@g.us")


async def learned(ctx: Context, source: str = "live") -> Unit:
    unit = ctx.state.unit()
    assert await ctx.addresses.learn(unit, PN, LID, source)  # type: ignore[arg-type]
    return unit


async def test_without_a_mapping_everybody_is_who_they_say(ctx: Context) -> None:
    assert await ctx.addresses.canonical(PN.with_device(5)) == PN
    assert await ctx.addresses.canonical(LID.with_device(5)) == LID
    assert await ctx.addresses.canonical(GROUP) == GROUP
    assert await ctx.addresses.spellings(PN) == (PN,)
    assert await ctx.addresses.lid_of(GROUP) is None
    assert await ctx.addresses.pn_of(GROUP) is None
    assert (await ctx.addresses.signal_address(PN.with_device(5))).text == "15550000002.5"


async def test_a_mapping_makes_the_lid_canonical(ctx: Context) -> None:
    await ctx.state.commit(await learned(ctx))
    assert await ctx.addresses.canonical(PN.with_device(5)) == LID
    assert await ctx.addresses.spellings(PN) == await ctx.addresses.spellings(LID) == (LID, PN)
    assert (await ctx.addresses.signal_address(PN.with_device(5))).text == "200000000000002_1.5"
    hosted = JID.parse("15550000002:99@hosted")
    assert (await ctx.addresses.signal_address(hosted)).text == "200000000000002_129.99"


async def test_a_mapping_is_visible_in_its_own_unit_first(ctx: Context) -> None:
    unit = await learned(ctx)
    assert await ctx.addresses.canonical(PN, unit) == LID
    assert await ctx.addresses.canonical(PN) == PN


async def test_addresses_without_sessions_are_refused(ctx: Context) -> None:
    with pytest.raises(JIDError):
        await ctx.addresses.signal_address(GROUP)


async def test_records_merge_under_the_lid(ctx: Context) -> None:
    alice, _ = acquainted(1)
    carol, _ = acquainted(7)
    old, new = SignalAddress("15550000002", 0, 5), SignalAddress("200000000000002", 1, 5)
    phone = SignalAddress("15550000002", 0, 0)
    unit = ctx.state.unit()
    ctx.records.put_session(unit, old, alice.existing("bob"))
    ctx.records.put_session(unit, new, carol.existing("bob"))
    ctx.records.put_session(unit, phone, alice.existing("bob"))
    ctx.records.put_identity(unit, old, b"p" * 32)
    ctx.records.put_identity(unit, new, b"l" * 32)
    ctx.records.put_identity(unit, phone, b"q" * 32)
    await ctx.state.commit(unit)
    await ctx.state.commit(await learned(ctx))
    merged = await ctx.records.session(new)
    assert merged is not None
    assert merged.current == carol.existing("bob").current
    assert len(merged.archived) == 1
    assert await ctx.records.session(old) is None
    assert await ctx.records.identity(old) is None
    assert await ctx.records.identity(new) == b"l" * 32
    assert await ctx.records.identity(SignalAddress("200000000000002", 1, 0)) == b"q" * 32
    assert await ctx.records.session(SignalAddress("200000000000002", 1, 0)) is not None


async def test_records_put_in_the_same_unit_move_too(ctx: Context) -> None:
    alice, _ = acquainted()
    unit = ctx.state.unit()
    ctx.records.put_session(unit, SignalAddress("15550000002", 0, 3), alice.existing("bob"))
    await ctx.addresses.learn(unit, PN, LID, "live")
    await ctx.state.commit(unit)
    assert await ctx.records.session(SignalAddress("200000000000002", 1, 3)) is not None
    assert not await ctx.state.item_keys(kinds.SESSION, "15550000002")


async def test_a_longer_number_with_the_same_beginning_stays(ctx: Context) -> None:
    alice, _ = acquainted()
    longer = SignalAddress("155500000021", 0, 0)
    unit = ctx.state.unit()
    ctx.records.put_session(unit, longer, alice.existing("bob"))
    await ctx.state.commit(unit)
    await ctx.state.commit(await learned(ctx))
    assert await ctx.records.session(longer) is not None


async def test_rows_move_and_none_is_lost(ctx: Context, store: Store) -> None:
    def message(chat: JID, message_id: str) -> MessageRow:
        return MessageRow(
            chat=str(chat), sender=str(chat), message_id=message_id, from_me=False, ts=1, kind="text"
        )

    unit = ctx.state.unit()
    unit.add_message(message(PN, "A"))
    unit.add_message(message(PN, "B"))
    unit.add_message(message(LID, "B"))
    unit.add_message(message(OTHER_PN, "C"))
    unit.enqueue(OutboxRow(client_ref="r", chat=str(PN), message_id="O", payload={"text": "hi"}))
    unit.keep_plaintext(str(PN), "O", b"plain")
    unit.journal(str(PN), str(PN), "A", bytes(32))
    await ctx.state.commit(unit)
    await ctx.state.commit(await learned(ctx))
    found = {(row.chat, row.sender, row.message_id) for row in await store.messages(ctx.state.session_id)}
    assert found == {
        (str(LID), str(LID), "A"), (str(LID), str(LID), "B"), (str(PN), str(PN), "B"),
        (str(OTHER_PN), str(OTHER_PN), "C"),
    }  # fmt: skip
    assert [row.chat for row in await ctx.state.outbox()] == [str(LID)]
    assert await ctx.state.plaintext([str(LID)], "O") == b"plain"
    assert await ctx.state.journal_seen(str(LID), str(LID), "A") == [bytes(32)]


@pytest.mark.parametrize(("source", "wins"), [("live", True), ("directed", True), ("observed", False)])
async def test_only_trusted_sources_change_a_mapping(ctx: Context, source: str, wins: bool) -> None:
    await ctx.state.commit(await learned(ctx))
    unit = ctx.state.unit()
    assert await ctx.addresses.learn(unit, PN, OTHER_LID, source) is wins  # type: ignore[arg-type]
    assert await ctx.addresses.lid_of(PN, unit) == (OTHER_LID if wins else LID)
    if wins:
        assert await ctx.addresses.pn_of(LID, unit) is None
        assert await ctx.addresses.pn_of(OTHER_LID, unit) == PN


async def test_an_observed_lid_of_somebody_else_is_left_alone(ctx: Context) -> None:
    await ctx.state.commit(await learned(ctx))
    unit = ctx.state.unit()
    assert not await ctx.addresses.learn(unit, OTHER_PN, LID, "observed")
    assert unit.empty


async def test_nonsense_is_no_mapping(ctx: Context) -> None:
    unit = ctx.state.unit()
    assert not await ctx.addresses.learn(unit, LID, PN, "live")
    assert not await ctx.addresses.learn(unit, PN, GROUP, "live")
    assert unit.empty


async def test_learning_it_again_changes_nothing(ctx: Context) -> None:
    await ctx.state.commit(await learned(ctx))
    unit = ctx.state.unit()
    assert await ctx.addresses.learn(unit, PN.with_device(3), LID.with_device(3), "observed")
    assert unit.empty
    assert msgspec.structs.asdict(ctx.settings)["retries"] == 5
