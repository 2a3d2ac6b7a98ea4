"""Sessions of Baileys 6, which left out the domain of LIDs: they are found when the LID is asked for or learned.

The directory is the vector that real Baileys 6.7.18 wrote, with its peer under a LID, or under a number whose LID is
learned after the import (chapter 08 §2.7).
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.messaging.accounts import START_MS
from tests.transfer.baileys import samples
from waD.e2ee import session as signal
from waD.e2ee.address import SignalAddress
from waD.e2ee.curve import KeyPair
from waD.messaging import kinds
from waD.messaging.context import Context, MessagingSettings, make_context
from waD.messaging.devices import Devices
from waD.messaging.group_keys import GroupKeys
from waD.messaging.records import BARE_LIDS_KEY
from waD.messaging.sessions import Sessions
from waD.messaging.values import encode_text
from waD.store.state import SessionState
from waD.store.store import Store
from waD.store.unit import Unit
from waD.wire.jid import JID

NUMBER, LID_USER = "5511900000062", "110000000000062"
PN = JID.parse(f"{NUMBER}@s.whatsapp.net")
LID = JID.parse(f"{LID_USER}@lid")
DEVICE = LID.with_device(4)
ADDRESS = SignalAddress.parse(f"{LID_USER}_1.4")
GROUP = JID.parse("120363000000000061@g.us")
STEPS = json.loads(samples.VECTORS.read_text())


def steps() -> list[dict[str, Any]]:
    (case,) = [case for case in STEPS["cases"] if case["name"] == samples.OLD]
    return [step for step in case["expect"]["steps"] if step["op"].startswith("decrypt")]


async def imported(store: Store, tmp_path: Path, user: str) -> SessionState:
    """The old directory, with the peer's files under that user."""
    directory = tmp_path / "auth"
    directory.mkdir()
    contents = {name.replace(NUMBER, user): text for name, text in samples.files(samples.OLD).items()}
    found, _ = samples.converted(samples.read(directory, contents))
    assert (kinds.SESSION, f"{user}.4") in found.items
    state = await store.attach((await store.create_session("old")).id, "test")
    unit = state.unit()
    unit.set_creds(found.creds.serialize())
    unit.items.update(found.items)
    await state.commit(unit)
    return state


def context_of(state: SessionState) -> Context:
    return make_context(state, settings=MessagingSettings(), now_ms=lambda: START_MS, random=os.urandom)


@pytest.fixture
async def bare(store: Store, tmp_path: Path) -> Context:
    """The peer was only known by LID."""
    return context_of(await imported(store, tmp_path, LID_USER))


async def keys(ctx: Context, kind: str, prefix: str = "") -> list[str]:
    return await ctx.state.item_keys(kind, prefix)


async def read(ctx: Context, unit: Unit) -> bytes:
    """What the peer had sent before the import."""
    step = steps()[0]
    record = await ctx.records.session(ADDRESS, unit)
    assert record is not None
    done = signal.decrypt(
        record,
        ctx.account.creds.local_identity(),
        step["type"],
        bytes.fromhex(step["ciphertext"]),
        lambda _: None,
        lambda _: None,
        lambda: KeyPair.generate(os.urandom),
        START_MS,
    )
    ctx.records.put_session(unit, ADDRESS, done.record)
    return done.plaintext


async def read_group(ctx: Context, unit: Unit) -> list[bytes]:
    return [
        await GroupKeys(ctx).decrypt(unit, GROUP, ADDRESS, bytes.fromhex(step["ciphertext"]))
        for step in steps()[1:]
    ]


PLAINTEXTS = [bytes.fromhex(step["plaintext"]) for step in steps()]


async def check_all(ctx: Context) -> None:
    """Everything is read, and is under the LID afterwards and nowhere else."""
    async with ctx.state.lock:
        unit = ctx.state.unit()
        assert [await read(ctx, unit), *await read_group(ctx, unit)] == PLAINTEXTS
        await ctx.state.commit(unit)
    assert await keys(ctx, kinds.SESSION) == [ADDRESS.text]
    assert [key for key in await keys(ctx, kinds.IDENTITY) if key.endswith(".4")] == [ADDRESS.text]
    peers = [key for key in await keys(ctx, kinds.SENDER_KEY) if key.endswith(".4")]
    assert peers == [f"{GROUP}|{ADDRESS.text}"]


async def test_of_a_lid_that_is_asked_for(bare: Context) -> None:
    await check_all(bare)


async def test_of_a_lid_whose_number_is_learned(bare: Context) -> None:
    async with bare.state.lock:
        unit = bare.state.unit()
        await bare.addresses.learn(unit, PN, LID, "live")
        await bare.state.commit(unit)
    assert await keys(bare, kinds.SESSION) == [ADDRESS.text]
    await check_all(bare)


async def test_of_a_number_whose_lid_is_learned(store: Store, tmp_path: Path) -> None:
    ctx = context_of(await imported(store, tmp_path, NUMBER))
    async with ctx.state.lock:
        unit = ctx.state.unit()
        await ctx.addresses.learn(unit, PN, LID, "observed")
        await ctx.state.commit(unit)
    await check_all(ctx)


async def test_a_send_uses_the_session(bare: Context) -> None:
    sessions = Sessions(bare, Devices(bare))
    assert await sessions.usable(DEVICE)
    assert await sessions.split([DEVICE]) == ([DEVICE], [])
    assert await keys(bare, kinds.SESSION) == [f"{LID_USER}.4"]  # a look moves nothing
    async with bare.state.lock:
        unit = bare.state.unit()
        assert await sessions.usable(DEVICE, unit)
        await bare.state.commit(unit)
    assert await keys(bare, kinds.SESSION) == [ADDRESS.text]


async def test_what_is_in_place_wins(bare: Context) -> None:
    async with bare.state.lock:
        unit = bare.state.unit()
        old = await bare.state.item(kinds.SESSION, f"{LID_USER}.4")
        assert old is not None
        unit.put(kinds.IDENTITY, ADDRESS.text, encode_text("newer"))
        await bare.records.adopt(LID_USER, unit)
        await bare.state.commit(unit)
    assert await bare.state.item(kinds.IDENTITY, ADDRESS.text) == encode_text("newer")
    assert await keys(bare, kinds.IDENTITY, f"{LID_USER}.") == []
    assert await bare.state.item(kinds.SESSION, ADDRESS.text) == old


async def test_a_rolled_back_step_leaves_them_where_they_are(bare: Context) -> None:
    async with bare.state.lock:
        unit = bare.state.unit()
        with suppress(KeyError), unit.step():
            assert await bare.records.session(ADDRESS, unit) is not None
            assert not unit.empty
            raise KeyError
        assert unit.empty
    assert await keys(bare, kinds.SESSION) == [f"{LID_USER}.4"]
    await check_all(bare)


async def test_a_damaged_one_is_left_alone(bare: Context, caplog: pytest.LogCaptureFixture) -> None:
    async with bare.state.lock:
        unit = bare.state.unit()
        unit.put(kinds.SESSION, f"{LID_USER}.4", b'{"no":"session"}')
        await bare.state.commit(unit)
        unit = bare.state.unit()
        assert await bare.records.session(ADDRESS, unit) is None
        await bare.state.commit(unit)
    assert await keys(bare, kinds.SESSION) == [f"{LID_USER}.4"]
    assert "is damaged" in caplog.text


async def test_without_the_mark_nobody_looks(bare: Context) -> None:
    async with bare.state.lock:
        unit = bare.state.unit()
        unit.delete(kinds.BARE_LIDS, BARE_LIDS_KEY)
        await bare.state.commit(unit)
        unit = bare.state.unit()
        assert await bare.records.session(ADDRESS, unit) is None
        assert await bare.records.identity(ADDRESS, unit) is None
        assert unit.empty
