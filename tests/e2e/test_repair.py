"""Damage to the auth state of a daemon's session, and repairs after which messages flow again without a new pairing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.e2e.daemon import ALICE, BOB, CAROL, WAIT_S, Daemon, Refused, running
from tests.e2e.wactl import Wactl
from waD.daemon import STORE_PARTS
from waD.messaging import kinds
from waD.sandbox import Sandbox, run_sandbox
from waD.sandbox.prekeys import KeyStock
from waD.store.store import StoreSettings, open_store
from waD.store.unit import Unit

BROKEN = b'"broken"'


class Bed:
    """A sandbox, a paired daemon in it that has talked to Bob and Carol, and `wactl`."""

    def __init__(self, sandbox: Sandbox, daemon: Daemon) -> None:
        self.sandbox = sandbox
        self.daemon = daemon
        self.wactl = Wactl(daemon.environment)
        self.count = 0

    async def change(self, work: Callable[[Unit, dict[tuple[str, str], bytes]], None]) -> None:
        """Stop the daemon, change what is stored through the store, and start it again."""
        assert await self.daemon.stop() == 0
        path = self.daemon.directory / "state" / "waD" / "waD.db"
        async with open_store(StoreSettings(path=path), STORE_PARTS) as store:
            (row,) = await store.sessions()
            state = await store.attach(row.id, "test")
            whole = await store.read(store.engine.auth_state, row.id)
            unit = state.unit()
            work(unit, {item: document for item, (_, document) in whole.items.items()})
            assert unit.items
            await state.commit(unit)
        await self.daemon.start()

    async def ready(self) -> None:
        await self.daemon.until("open", ready=True)

    async def send(self, peer: str) -> str:
        """A message to somebody; raises Refused when it fails."""
        self.count += 1
        text = f"to {peer} {self.count}"
        await self.daemon.wait(await self.daemon.send(peer, text))
        return text

    async def talk(self, *peers: str) -> None:
        """A message each way with everybody; all arrive, once."""
        for peer in peers:
            text = await self.send(peer)
            phone = self.sandbox.phone(peer)
            await phone.send(ALICE, f"from {peer} {self.count}")
            await self.heard(f"from {peer} {self.count}")
            texts = [message.text for message in phone.messages() if not message.from_me]
            assert texts.count(text) == 1

    async def heard(self, text: str) -> None:
        """A message came in, at once or after it was asked for again."""
        with trio.fail_after(WAIT_S):
            while True:
                found = await self.daemon.events("message:new", "message:update")
                if [event["data"].get("body") for event in found].count(text) == 1:
                    return
                await trio.sleep(0.05)

    async def advice(self) -> list[tuple[str, str | None]]:
        """What is advised."""
        found = await self.daemon.call("repair.list", name="alerts")
        assert found["beyond"] == []
        return [(one["action"], one.get("target")) for one in found["advice"]]

    async def repair(self, *words: str) -> dict[str, Any]:
        """Repair by the command line; the state is sound afterwards, and what was done is told."""
        before = await self.daemon.events("auth:repaired")
        connected = (await self.daemon.status())["connectionId"]
        done: dict[str, Any] = await self.wactl.document("repair", "alerts", *words, "--yes")
        assert done["connectionId"] == connected
        (event,) = (await self.daemon.events("auth:repaired"))[len(before) :]
        assert event["data"]["action"] == done["action"] == words[0]
        assert event["data"]["count"] == done["count"] > 0
        assert event["data"].get("target") == done.get("target")
        assert done["backup"] == f"sealed in the store as version {event['data']['sealedVersion']}"
        await self.is_sound()
        return done

    async def is_sound(self) -> None:
        found = await self.daemon.call("auth.verify", name="alerts", level=2)
        assert found["verdict"]["errors"] == []

    @property
    def stock(self) -> KeyStock:
        """What the server has of our keys."""
        return self.sandbox.device(ALICE).record.keys

    @property
    def reused(self) -> list[Any]:
        """Keys that the sandbox saw twice."""
        found: list[Any] = self.sandbox.core.world.keys.report()["reused"]
        return found


@asynccontextmanager
async def talking(tmp_path: Path) -> AsyncIterator[Bed]:
    async with run_sandbox() as sandbox, running(tmp_path, sandbox) as daemon:
        for peer in (BOB, CAROL):
            sandbox.phone(peer)
        await daemon.pair(sandbox)
        bed = Bed(sandbox, daemon)
        await bed.talk(BOB, CAROL)
        yield bed
        assert bed.reused == []
        assert len(sandbox.device(ALICE).account.companions) == 1  # nobody paired anew
        log = daemon.log.read_text()
        assert "Traceback" not in log
        assert BOB not in log


def user_of(bed: Bed, peer: str) -> str:
    return bed.sandbox.phone(peer).lid.partition("@")[0]


def sessions_of(items: dict[tuple[str, str], bytes], user: str) -> list[str]:
    found = [key for kind, key in items if kind == kinds.SESSION and key.startswith(f"{user}_")]
    assert found
    return found


async def test_a_damaged_session_is_dropped_and_messages_flow_again(tmp_path: Path) -> None:
    async with talking(tmp_path) as bed:
        user = user_of(bed, BOB)

        def damage(unit: Unit, items: dict[tuple[str, str], bytes]) -> None:
            for key in sessions_of(items, user):
                unit.put(kinds.SESSION, key, BROKEN)

        await bed.change(damage)
        await bed.ready()
        await bed.talk(CAROL)
        with pytest.raises(Refused) as failed:
            await bed.send(BOB)
        assert failed.value.data["state"] == "failed"
        assert await bed.advice() == [("drop-damaged", None)]
        shown = (await bed.wactl("repair", "alerts")).stdout.decode()
        assert "  wactl repair alerts drop-damaged\n      item_unreadable session/" in shown
        done = await bed.repair("drop-damaged")
        assert done["items"] == [f"session/{user}_1.0"]
        assert await bed.advice() == []
        await bed.talk(BOB, CAROL)
        await bed.repair("drop-session", f"+{BOB}")
        await bed.talk(BOB, CAROL)
        same = await bed.wactl("repair", "alerts", "drop-damaged", "--yes")
        assert same.stdout == b"alerts  nothing to repair; nothing was changed\n"


async def test_a_session_that_is_gone_or_dropped_is_made_anew_by_either_side(tmp_path: Path) -> None:
    async with talking(tmp_path) as bed:
        user = user_of(bed, BOB)

        def forget(unit: Unit, items: dict[tuple[str, str], bytes]) -> None:
            for key in sessions_of(items, user):
                unit.delete(kinds.SESSION, key)

        await bed.change(forget)
        await bed.ready()
        await bed.sandbox.phone(BOB).send(ALICE, "on a session that is gone")
        await bed.heard("on a session that is gone")
        await bed.talk(BOB)
        done = await bed.repair("drop-session", BOB)
        assert (done["count"], done["target"]) == (1, f"{user}@lid")
        await bed.sandbox.phone(BOB).send(ALICE, "on a session that was dropped")
        await bed.heard("on a session that was dropped")
        await bed.talk(BOB, CAROL)


async def test_damaged_prekeys_and_repairs_without_a_connection(tmp_path: Path) -> None:
    """They keep no session from coming up."""
    async with talking(tmp_path) as bed:

        def damage(unit: Unit, items: dict[tuple[str, str], bytes]) -> None:
            prekeys = sorted(key for kind, key in items if kind == kinds.PREKEY)
            for key in prekeys[-3:]:
                unit.put(kinds.PREKEY, key, BROKEN)

        await bed.change(damage)
        await bed.ready()
        assert set(await bed.advice()) == {("drop-damaged", None), ("upload-prekeys", None)}
        await bed.talk(BOB, CAROL)
        await bed.daemon.call("session.disconnect", name="alerts")
        for words in (("upload-prekeys",), ("rotate-signed-prekey",), ("refresh-devices", BOB)):
            said = await bed.wactl.refusal("repair", "alerts", *words, status=4)
            assert "wactl connect alerts" in said
        done = await bed.repair("drop-damaged")
        assert done["count"] == 3
        await bed.daemon.call("session.connect", name="alerts")
        await bed.ready()
        # WhatsApp still hands these three out; whoever gets one is asked to write again.
        assert await bed.advice() == [("upload-prekeys", None)]
        await bed.repair("upload-prekeys")
        await bed.talk(BOB, CAROL)


async def test_keys_that_whatsapp_has_lost(tmp_path: Path) -> None:
    async with talking(tmp_path) as bed:
        logins = bed.sandbox.device(ALICE).record.logins
        before = bed.stock.published
        bed.stock.one_time.clear()
        assert await bed.advice() == [("upload-prekeys", None)]
        done = await bed.repair("upload-prekeys")
        assert (done["count"], len(bed.stock.one_time)) == (812, 812)
        assert bed.stock.published == before + 812
        assert await bed.advice() == []
        # No bundle at all: that is told, and mended the same way.
        bed.sandbox.fault("iq", ALICE, xmlns="encrypt", code=404)
        found = await bed.daemon.call("repair.list", name="alerts")
        assert [one["reasons"][0]["code"] for one in found["advice"]] == ["live_no_bundle"]
        await bed.repair("upload-prekeys")
        bed.sandbox.fault("iq", ALICE, xmlns="encrypt", code=406)
        said = await bed.wactl.refusal("repair", "alerts", "upload-prekeys", status=1)
        assert "406" in said
        await bed.is_sound()
        assert await bed.advice() in ([], [("upload-prekeys", None)])
        await bed.talk(BOB, CAROL)
        assert bed.sandbox.device(ALICE).record.logins == logins


async def test_another_signed_prekey(tmp_path: Path) -> None:
    async with talking(tmp_path) as bed:
        old = bed.stock.signed
        await bed.repair("rotate-signed-prekey")
        new = bed.stock.signed
        assert new.id != old.id
        found = await bed.daemon.call("auth.verify", name="alerts", level=4)
        codes = {note["code"] for note in found["verdict"]["warnings"]}
        assert not {code for code in codes if code.startswith("live_")}
        # What was taken of the old one before still opens.
        bed.stock.signed = old
        assert await bed.advice() == [("rotate-signed-prekey", None)]
        await bed.sandbox.phone(BOB).drop_sessions()
        await bed.sandbox.phone(BOB).send(ALICE, "with the old one")
        await bed.heard("with the old one")
        await bed.repair("rotate-signed-prekey")
        assert await bed.advice() == []
        await bed.talk(BOB, CAROL)


async def test_a_device_list_is_asked_for_anew(tmp_path: Path) -> None:
    async with talking(tmp_path) as bed:
        done = await bed.repair("refresh-devices", BOB)
        assert (done["count"], done["target"]) == (1, bed.sandbox.phone(BOB).lid)
        await bed.talk(BOB, CAROL)
        await bed.wactl.refusal("repair", "alerts", "resync", "irregular", status=2)
        await bed.wactl.refusal("repair", "alerts", "drop-session", "nobody", "--yes", status=2)
        await bed.wactl.refusal("repair", "nobody", status=4)


async def test_the_doctor_names_the_repair(tmp_path: Path) -> None:
    async with talking(tmp_path) as bed:
        report = await bed.daemon.call("daemon.check")
        (keys,) = [one for one in report["findings"] if one["check"] == "keys"]
        assert (keys["level"], keys["data"]["signedPrekeyDays"]) == ("ok", 0)

        def use_up(unit: Unit, items: dict[tuple[str, str], bytes]) -> None:
            for kind, key in items:
                if kind == kinds.PREKEY:
                    unit.delete(kind, key)

        await bed.change(use_up)
        await bed.ready()
        done = await bed.wactl.document("doctor", "--offline", status=1)
        hints = {one["hint"] for one in done["findings"] if one["level"] != "ok"}
        assert "wactl repair alerts upload-prekeys" in hints
        await bed.repair("upload-prekeys")
        done = await bed.wactl.document("doctor", "--offline")
        assert done["level"] == "ok"
        # Whoever gets one of the lost keys from the server is asked to write again.
        await bed.sandbox.phone(BOB).drop_sessions()
        await bed.talk(BOB)
