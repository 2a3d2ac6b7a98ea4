"""Keys of the app state: who is asked, how often, and when asking is hopeless."""

from __future__ import annotations

import pytest
from trio.testing import MockClock

from tests.messaging.appstate.cloud import DATA, KEY, OTHER, Client, Cloud
from tests.messaging.appstate.conftest import Running
from waD.messaging import kinds
from waD.messaging.appstate.keys import ASK_AGAIN_MS, AppStateKeys, key_request
from waD.messaging.context import Context
from waD.proto.e2e_pb2 import Message
from waD.wire.jid import JID

PHONE, TABLET = JID.parse("100000000000001@lid"), JID.parse("100000000000001:3@lid")
NAME = OTHER.hex()
T_MS = 1_700_000_000_000


@pytest.fixture
def keys(ctx: Context) -> AppStateKeys:
    return AppStateKeys(ctx.state, ctx.account)


async def asked(ctx: Context, keys: AppStateKeys, *devices: JID, at: int = T_MS) -> None:
    async with ctx.state.lock:
        unit = ctx.state.unit()
        for device in devices:
            await keys.note(unit, [NAME], device, at)
        await ctx.state.commit(unit)


def share(name: bytes, data: bytes) -> Message.AppStateSyncKeyShare:
    message = Message.AppStateSyncKeyShare()
    key = message.keys.add()
    key.keyId.keyId = name
    if data:
        key.keyData.keyData = data
    return message


async def told(ctx: Context, keys: AppStateKeys, sender: JID, name: bytes, data: bytes = b"") -> bool:
    async with ctx.state.lock:
        unit = ctx.state.unit()
        news = await keys.take(unit, share(name, data), sender)
        await ctx.state.commit(unit)
    return news


async def test_a_key_is_asked_for_once_a_day(ctx: Context, keys: AppStateKeys) -> None:
    assert await keys.due([NAME, NAME], T_MS) == [NAME]
    await asked(ctx, keys, PHONE, TABLET)
    assert await keys.due([NAME], T_MS + ASK_AGAIN_MS - 1) == []
    assert await keys.due([NAME], T_MS + ASK_AGAIN_MS) == [NAME]
    assert await keys.due([NAME], T_MS - 1) == [NAME]  # the clock was set back
    assert await told(ctx, keys, PHONE, OTHER, DATA[OTHER])
    assert await ctx.state.all_items(kinds.APP_STATE_REQUEST) == {}


async def test_it_is_hopeless_when_all_that_were_asked_do_not_have_it(
    ctx: Context, keys: AppStateKeys
) -> None:
    assert not await told(ctx, keys, PHONE, OTHER)  # nobody asked
    await asked(ctx, keys, PHONE, TABLET)
    assert await told(ctx, keys, PHONE, OTHER)
    assert not await told(ctx, keys, PHONE, OTHER)
    assert not await keys.hopeless([NAME, KEY.hex()])
    assert await told(ctx, keys, TABLET, OTHER)
    assert await keys.hopeless([KEY.hex(), NAME])
    # A day later they are asked again, and may have it now.
    await asked(ctx, keys, PHONE, TABLET, at=T_MS + ASK_AGAIN_MS)
    assert not await keys.hopeless([NAME])


@pytest.mark.parametrize(("name", "data"), [(b"short", bytes(32)), (b"sevenby", bytes(32)), (KEY, bytes(33))])
async def test_keys_of_impossible_forms(ctx: Context, keys: AppStateKeys, name: bytes, data: bytes) -> None:
    assert not await told(ctx, keys, PHONE, name, data)
    assert await keys.all() == {}


async def test_the_newest_key_is_the_one_in_use(ctx: Context, keys: AppStateKeys) -> None:
    assert await told(ctx, keys, PHONE, OTHER, DATA[OTHER])
    assert await told(ctx, keys, PHONE, KEY, DATA[KEY])
    assert ctx.account.creds.app_state_key_id == OTHER
    assert set(await keys.all()) == {KEY, OTHER}


def test_the_question_names_all_of_them() -> None:
    question = key_request([KEY.hex(), NAME]).protocolMessage
    assert question.type == Message.ProtocolMessage.APP_STATE_SYNC_KEY_REQUEST
    assert [one.keyId for one in question.appStateSyncKeyRequest.keyIds] == [KEY, OTHER]


async def test_a_damaged_key_is_missing(
    client: Client, cloud: Cloud, running: Running, clock: MockClock
) -> None:
    async with client.ctx.state.lock:
        unit = client.ctx.state.unit()
        unit.put(kinds.APP_STATE_KEY, KEY.hex(), b"[]")
        await client.ctx.state.commit(unit)
    cloud.pin("a@s.whatsapp.net")
    async with running():
        assert (await client.head("regular_low")).blocked == [KEY.hex()]
