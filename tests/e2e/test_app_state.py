"""The app state of a daemon's session: its name, its entries, kills between the steps, and fetching it anew."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.e2e.daemon import ALICE, BOB, CAROL, WAIT_S, Daemon, running
from tests.e2e.wactl import Wactl
from waD.daemon import STORE_PARTS
from waD.e2ee.syncd.patches import COLLECTIONS, CollectionState
from waD.sandbox import Sandbox, run_sandbox
from waD.sandbox.environment import Settings
from waD.sandbox.handles import PhoneHandle
from waD.store.store import StoreSettings, open_store
from waD.transfer.collections import sound_heads, sums_up, value_macs

POLL_S = 0.05


async def stored(daemon: Daemon) -> dict[tuple[str, str], bytes]:
    """Items of the session of a daemon that does not run."""
    path = daemon.directory / "state" / "waD" / "waD.db"
    async with open_store(StoreSettings(path=path), STORE_PARTS) as store:
        (row,) = await store.sessions()
        whole = await store.read(store.engine.auth_state, row.id)
        return {item: document for item, (_, document) in whole.items.items()}


def agrees(items: dict[tuple[str, str], bytes], phone: PhoneHandle) -> bool:
    """Whether it is exactly what the phone has."""
    heads = sound_heads(items)
    for name in COLLECTIONS:
        replica = phone.phone.app_state._replicas[name]
        if name not in heads:
            assert replica.state.version == 0
            continue
        head = heads[name]
        assert sums_up(items, name, head)
        assert (head.disabled, head.mismatch, head.blocked) == ("", False, [])
        if CollectionState(head.version, head.hash) != replica.state:
            return False
        assert len(value_macs(items, name, head)) == len(replica.entries)
    return True


async def named(daemon: Daemon, name: str) -> None:
    with trio.fail_after(WAIT_S):
        while (await daemon.status()).get("pushName") != name:  # noqa: ASYNC110 - no event tells of it
            await trio.sleep(POLL_S)


async def until(condition: Callable[[], Any]) -> None:
    with trio.fail_after(WAIT_S):
        while not await condition():  # noqa: ASYNC110 - likewise
            await trio.sleep(POLL_S)


async def change(phone: PhoneHandle, name: str) -> None:
    """Something in several collections; the name comes last."""
    await phone.set_contact(BOB, f"Bob of {name}")
    await phone.mute(BOB)
    await phone.pin(CAROL)
    await phone.set_push_name(name)


def people(sandbox: Sandbox) -> PhoneHandle:
    for number in (BOB, CAROL):
        sandbox.phone(number)
    return sandbox.phone(ALICE)


async def test_the_name_becomes_known_and_everything_is_fetched_anew(tmp_path: Path) -> None:
    async with run_sandbox() as sandbox, running(tmp_path, sandbox) as daemon:
        alice = people(sandbox)
        await change(alice, "Alice one")
        await daemon.pair(sandbox)
        await named(daemon, "Alice one")
        device = sandbox.device(ALICE)
        await sandbox.wait(lambda: device.available)
        await change(alice, "Alice two")
        await named(daemon, "Alice two")

        wactl = Wactl(daemon.environment)
        done = await wactl.document("repair", "alerts", "resync")
        entries = sum(len(one.entries) for one in alice.phone.app_state._replicas.values())
        assert (done["action"], done.get("target"), done["count"]) == ("resync", None, entries)
        assert done["backup"].startswith("sealed in the store")
        shown = (await wactl("repair", "alerts", "resync", "regular_low")).stdout.decode()
        pins = len(alice.phone.app_state._replicas["regular_low"].entries)
        assert shown == f"alerts  app state fetched anew, {pins} entries\n"
        told = [event["data"] for event in await daemon.events("auth:repaired")]
        assert [(one["action"], one.get("target")) for one in told] == [
            ("resync", None), ("resync", "regular_low"),
        ]  # fmt: skip
        await wactl.refusal("repair", "alerts", "resync", "irregular", status=2)
        await daemon.call("session.disconnect", name="alerts")
        assert "wactl connect alerts" in await wactl.refusal("repair", "alerts", "resync", status=4)
        assert await daemon.stop() == 0
        assert agrees(await stored(daemon), alice)


async def test_what_is_broken_is_told_and_repaired(tmp_path: Path) -> None:
    async with run_sandbox() as sandbox, running(tmp_path, sandbox) as daemon:
        alice, wactl = people(sandbox), Wactl(daemon.environment)
        await daemon.pair(sandbox)
        await named(daemon, ALICE)
        fault = sandbox.fault("bad-patch", target=ALICE, mode="patch-mac", collection="regular_low", count=0)
        await alice.pin(BOB)

        async def advised() -> bool:
            found = await daemon.call("repair.list", name="alerts")
            return ("resync", "regular_low") in [
                (one["action"], one.get("target")) for one in found["advice"]
            ]

        await until(advised)
        report = await daemon.call("daemon.check")
        (finding,) = [one for one in report["findings"] if one["check"] == "app_state"]
        assert finding["hint"] == "wactl repair alerts resync regular_low"
        refused = await wactl.refusal("repair", "alerts", "resync", "regular_low", status=1)
        assert "patch-mac" in refused
        sandbox.core.world.faults.clear(fault.id)
        await wactl("repair", "alerts", "resync", "regular_low")
        assert not await advised()
        assert await daemon.stop() == 0
        assert agrees(await stored(daemon), alice)


@pytest.mark.parametrize("passage", [1, 4])
@pytest.mark.parametrize("step", ["appstate.before_commit", "appstate.after_commit"])
async def test_killed_between_two_steps(tmp_path: Path, step: str, passage: int) -> None:
    async with (
        run_sandbox(settings=Settings(app_state_page=1)) as sandbox,
        running(tmp_path, sandbox) as daemon,
    ):
        alice = people(sandbox)
        await daemon.pair(sandbox)
        await named(daemon, ALICE)
        assert await daemon.stop() == 0
        await change(alice, "Alice one")
        await change(alice, "Alice two")
        await daemon.start(crash_at=f"{step}:{passage}", wait=False)
        assert await daemon.ended() == -signal.SIGKILL
        left = await stored(daemon)
        assert all(sums_up(left, name, head) for name, head in sound_heads(left).items())
        await daemon.start()
        await named(daemon, "Alice two")
        await change(alice, "Alice three")
        await named(daemon, "Alice three")
        assert (await Wactl(daemon.environment).document("verify-auth", "alerts"))["errors"] == []
        # Whatever was not fetched yet is fetched by now: the answer is that of a whole state.
        await daemon.call("repair.run", name="alerts", action="resync")
        assert await daemon.stop() == 0
        assert agrees(await stored(daemon), alice)
