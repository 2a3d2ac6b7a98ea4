"""The app state over a real connection, from the sandbox's server and the phone that writes it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import trio

from tests.messaging.test_inbound_live import Live, living
from waD.e2ee.syncd.patches import COLLECTIONS, CollectionState
from waD.messaging import kinds
from waD.messaging.appstate import syncing
from waD.messaging.appstate.stored import START, Head
from waD.sandbox.environment import Settings
from waD.transfer.collections import sums_up, value_macs

PATIENCE_S = 20.0
POLL_S = 0.02


class World:
    """Alice's companion and her phone's app state."""

    def __init__(self, live: Live) -> None:
        self.live = live
        self.phone = live.alice

    async def items(self) -> dict[tuple[str, str], bytes]:
        state = self.live.ctx.state
        whole = await self.live.store.read(state._engine.auth_state, state.session_id)
        return {item: document for item, (_, document) in whole.items.items()}

    async def head(self, name: str) -> Head:
        document = await self.live.ctx.state.item(kinds.APP_STATE_VERSION, name)
        return START if document is None else Head.parse(document)

    async def agrees(self, *names: str) -> bool:
        """Whether the companion has exactly what the phone has of these collections, or of all."""
        items = await self.items()
        for name in names or COLLECTIONS:
            document, replica = (
                items.get((kinds.APP_STATE_VERSION, name)),
                self.phone.phone.app_state._replicas[name],
            )
            head = START if document is None else Head.parse(document)
            if CollectionState(head.version, head.hash) != replica.state:
                return False
            assert sums_up(items, name, head)
            assert len(value_macs(items, name, head)) == len(replica.entries)
        return True

    async def until_agreed(self, *names: str) -> None:
        with trio.fail_after(PATIENCE_S):
            while not await self.agrees(*names):  # noqa: ASYNC110 - the store has no event for it
                await trio.sleep(POLL_S)

    async def until(self, condition: Callable[[Head], bool], name: str) -> Head:
        with trio.fail_after(PATIENCE_S):
            while not condition(head := await self.head(name)):  # noqa: ASYNC110
                await trio.sleep(POLL_S)
        return head

    def fault(self, kind: str, **details: object) -> None:
        self.live.sandbox.fault(kind, target=self.phone.number, **details)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with living(tmp_path, settings=Settings(app_state_page=2)) as live:
        yield World(live)


async def test_all_of_it_comes_after_pairing_and_news_as_they_happen(world: World) -> None:
    others = [world.live.sandbox.phone(f"1555123000{number}") for number in range(7)]
    for number, other in enumerate(others):  # several pages
        await world.phone.set_contact(other.number, f"Contact {number}")

    async def online() -> None:
        await world.until_agreed()
        assert world.live.ctx.account.creds.push_name == "alice"
        await world.phone.set_push_name("Alice Cooper")
        await world.phone.remove_contact(others[3].number)
        await world.phone.mute(others[0].number)
        await world.until_agreed()
        assert world.live.ctx.account.creds.push_name == "Alice Cooper"
        assert world.live.ctx.account.creds.app_state_key_id is not None

    await world.live.online(online)
    await world.phone.pin(world.live.bob.number)  # while away

    async def again() -> None:
        await world.until_agreed()

    await world.live.online(again)


async def test_a_key_that_is_withheld_is_asked_for_and_comes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(syncing, "FIRST_KEYS_S", 0.2)
    world.fault("withhold-key")

    async def online() -> None:
        await world.until_agreed()
        assert await world.live.ctx.state.all_items(kinds.APP_STATE_REQUEST) == {}

    await world.live.online(online)


async def test_a_key_that_nobody_has_ends_the_syncing_until_it_comes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(syncing, "FIRST_KEYS_S", 0.2)
    world.fault("withhold-key", count=2)

    async def online() -> None:
        head = await world.until(lambda head: head.disabled != "", "regular_low")
        assert head.disabled == "missing-key"
        with pytest.raises(syncing.ResyncFailed, match="missing-key"):
            await world.live.login.resync(["regular_low"])
        await world.phone.share_keys()
        await world.until_agreed()
        assert await world.live.login.resync(["regular_low"]) == 3

    await world.live.online(online)


@pytest.mark.parametrize("mode", ["patch-mac", "value-mac", "index-mac", "version"])
async def test_a_patch_that_is_spoilt_on_its_way(world: World, mode: str) -> None:
    async def online() -> None:
        await world.until_agreed()
        world.fault("bad-patch", mode=mode, collection="regular_low")
        await world.phone.pin(world.live.bob.number)
        head = await world.until(lambda head: bool(head.resyncs), "regular_low")
        await world.until_agreed()
        head = await world.head("regular_low")
        assert (head.disabled, head.mismatch, len(head.resyncs)) == ("", False, 1)

    await world.live.online(online)


async def test_a_hash_that_others_do_not_have(world: World) -> None:
    async def online() -> None:
        await world.until_agreed()
        world.fault("bad-patch", mode="snapshot-mac", collection="regular_low")
        await world.phone.pin(world.live.bob.number)
        await world.until(lambda head: bool(head.resyncs), "regular_low")
        await world.until_agreed()
        head = await world.head("regular_low")
        assert (head.mismatch, head.retried, head.leftover) == (False, False, False)

    await world.live.online(online)


async def test_an_error_of_the_server_for_one_collection(world: World) -> None:
    world.fault("sync-error", code=500, collection="critical_block")

    async def online() -> None:
        await world.until_agreed()
        assert (await world.head("critical_block")).resyncs == []

    await world.live.online(online)


async def test_a_snapshot_comes_by_way_of_the_media_host(tmp_path: Path) -> None:
    settings = Settings(app_state_snapshots=True)
    async with living(tmp_path, tls=True, settings=settings) as live:
        world = World(live)
        for number in range(3):
            other = live.sandbox.phone(f"1555123000{number}")
            await world.phone.set_contact(other.number, f"Contact {number}")
        await world.phone.set_push_name("Alice Cooper")

        async def online() -> None:
            await world.until_agreed()
            assert live.ctx.account.creds.push_name == "Alice Cooper"
            assert (await world.head("critical_unblock_low")).resyncs == []
            live.sandbox.fault("media-download", code=404, count=1)
            with pytest.raises(syncing.ResyncFailed, match="gone"):
                await live.login.resync(["critical_unblock_low"])
            await world.until_agreed()
            assert await live.login.resync(["critical_unblock_low"]) == 3

        await live.online(online)
        assert live.sandbox.core.media.records()
