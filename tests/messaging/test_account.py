"""The credentials and prekeys of a session."""

from __future__ import annotations

import os

import pytest

from tests.messaging.accounts import OWN_LID, OWN_PN
from waD.e2ee.limits import MAX_PREKEY_ID
from waD.link.prekeys import OneTimePreKey, draw_prekeys, next_id
from waD.messaging import kinds
from waD.messaging.account import Account
from waD.messaging.context import Context
from waD.store.errors import StorageUnavailable, StoreDamaged
from waD.store.state import SessionState
from waD.store.store import Store
from waD.wire.jid import JID


async def test_credentials_change_durably_and_the_row_follows(ctx: Context, store: Store) -> None:
    after = await ctx.account.change_credentials(lambda creds: creds.change(push_name="Night watch"))
    assert ctx.account.creds is after
    row = await store.require_session("alerts")
    assert row.push_name == "Night watch"
    again = await store.attach(row.id, "another")
    assert Account(again).creds == after


async def test_a_change_inside_a_unit_is_seen_there_and_nowhere_else(ctx: Context) -> None:
    unit = ctx.state.unit()
    before = ctx.account.creds
    ctx.account.change_in(unit, lambda creds: creds.change(login_counter=4))
    ctx.account.change_in(unit, lambda creds: creds.change(lid_migrated=True))
    inside = ctx.account.changed_in(unit)
    assert (inside.login_counter, inside.lid_migrated) == (4, True)
    assert ctx.account.creds is before
    await ctx.state.commit(unit)
    assert ctx.account.creds == inside


async def test_a_failed_commit_changes_nothing(ctx: Context, store: Store) -> None:
    before = ctx.account.creds
    await store.close()
    with pytest.raises(StorageUnavailable):
        await ctx.account.change_credentials(lambda creds: creds.change(login_counter=9))
    assert ctx.account.creds == before


async def test_a_session_without_credentials_says_so(store: Store) -> None:
    row = await store.create_session("fresh")
    with pytest.raises(StoreDamaged, match="fresh"):
        _ = Account(await store.attach(row.id, "test")).creds


async def test_prekeys_are_stored_with_the_counter_and_marked(ctx: Context) -> None:
    made = list(draw_prekeys(1, 5, (), os.urandom))
    await ctx.account.add_prekeys(made, 6)
    assert ctx.account.creds.next_prekey_id == 6
    await ctx.account.mark_uploaded([1, 2, 77])
    stored = {key.id: key.state for key in await ctx.account.prekeys()}
    assert stored == {1: "uploaded", 2: "uploaded", 3: "new", 4: "new", 5: "new"}
    assert ctx.account.creds.server_has_prekeys


async def test_a_direct_prekey_is_fresh_and_never_for_upload(ctx: Context) -> None:
    await ctx.account.add_prekeys(list(draw_prekeys(1, 2, (), os.urandom)), 1)
    unit = ctx.state.unit()
    first = await ctx.account.direct_prekey(unit, os.urandom)
    second = await ctx.account.direct_prekey(unit, os.urandom)
    assert (first.id, second.id) == (3, 4)
    await ctx.state.commit(unit)
    stored = {key.id: key.state for key in await ctx.account.prekeys()}
    assert stored[3] == stored[4] == "direct"
    assert ctx.account.creds.next_prekey_id == 5


async def test_direct_prekeys_wrap_around(ctx: Context) -> None:
    await ctx.account.change_credentials(lambda creds: creds.change(next_prekey_id=MAX_PREKEY_ID))
    unit = ctx.state.unit()
    assert (await ctx.account.direct_prekey(unit, os.urandom)).id == MAX_PREKEY_ID
    assert (await ctx.account.direct_prekey(unit, os.urandom)).id == next_id(MAX_PREKEY_ID) == 1


@pytest.mark.parametrize(
    ("text", "own", "this"),
    [
        ("15550000001@s.whatsapp.net", True, False),
        ("15550000001:7@s.whatsapp.net", True, True),
        ("15550000001:7@hosted", True, True),
        ("100000000000001:7@lid", True, True),
        ("100000000000001:8@lid", True, False),
        # The same digits in the other namespace are somebody else (chapter 04 §6.2).
        ("15550000001:7@lid", False, False),
        ("100000000000001:7@s.whatsapp.net", False, False),
        ("15550000001-1@g.us", False, False),
    ],
)
async def test_who_is_own(ctx: Context, text: str, own: bool, this: bool) -> None:
    jid = JID.parse(text)
    assert (ctx.account.is_own(jid), ctx.account.is_this_device(jid)) == (own, this)
    assert (ctx.account.own_pn, ctx.account.own_lid) == (OWN_PN.bare, OWN_LID.bare)
    assert ctx.account.own == OWN_LID.bare


async def test_a_damaged_prekey_names_itself(state: SessionState, ctx: Context) -> None:
    unit = state.unit()
    unit.put(kinds.PREKEY, "12", b"{}")
    await state.commit(unit)
    with pytest.raises(ValueError, match="12"):
        await ctx.records.prekey(12)
    assert isinstance(OneTimePreKey(1, ctx.account.creds.identity).serialize(), bytes)


async def test_damaged_prekeys_are_left_out(
    state: SessionState, ctx: Context, caplog: pytest.LogCaptureFixture
) -> None:
    """One must not keep the others from being compared and uploaded, nor the session from being open."""
    await ctx.account.add_prekeys(list(draw_prekeys(1, 3, (), os.urandom)), 4)
    assert caplog.records == []
    unit = state.unit()
    unit.put(kinds.PREKEY, "2", b'"broken"')
    unit.put(kinds.PREKEY, "x", b"{}")
    await state.commit(unit)
    assert [key.id for key in await ctx.account.prekeys()] == [1, 3]
    assert "2 stored one-time prekeys are damaged" in caplog.text
