"""`wactl migrate-auth`: a session moves from Baileys 7.0.0-rc14 into a running waD and back, in mid-conversation.

Alice moves; Bob is another Baileys, and Carol a phone. Nobody they talk to takes part in the move (chapter 08 §2.9).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.daemon import ALICE, running
from tests.interop.conftest import Baileys, pair
from tests.interop.test_baileys_auth import (
    NAME,
    both_linked,
    continue_in_waD,
    in_flight,
    left,
    talk,
    while_away,
)
from tests.interop.test_waD import healthy
from tests.wactl.test_with_daemon import Wactl


@pytest.mark.parametrize("addressing", ["lid", "pn"])
async def test_a_session_is_imported_continues_and_is_exported(
    baileys: Baileys, tmp_path: Path, addressing: str
) -> None:
    source, back = f"baileys-dir:{tmp_path / 'alice'}", tmp_path / "back"
    async with both_linked(baileys, tmp_path, addressing) as (sandbox, bob):
        async with baileys(sandbox, tmp_path / "alice", pushName="Alice") as alice:
            await pair(alice, sandbox, ALICE)
            await sandbox.phone(ALICE).configure(online=False)
            await talk(alice, sandbox, bob, "baileys")
            await alice.command("close")
            await left(sandbox)
        await while_away(sandbox, bob, "first")
        before = {path.name: path.read_bytes() for path in (tmp_path / "alice").iterdir()}
        async with running(tmp_path / "waD", sandbox) as daemon:
            wactl = Wactl(daemon, sandbox)
            await wactl(
                "migrate-auth", "--from", source, NAME, exit_status=1
            )  # nobody said that it is stopped
            planned = await wactl.document(
                "migrate-auth", "--from", source, "--i-stopped-it", "--dry-run", NAME
            )
            assert (planned["ok"], planned["done"], planned["errors"]) == (True, False, [])
            assert (await daemon.call("session.list"))["sessions"] == []
            done = await wactl.document("migrate-auth", "--from", source, "--i-stopped-it", NAME)
            assert (done["done"], done["counts"]) == (True, planned["counts"])
            assert done["destination"]["connectionId"] == (await daemon.status(NAME))["connectionId"]
            view = await daemon.status(NAME)
            assert (view["state"], view["desired"], view["paired"]) == ("stopped", "down", True)
            await wactl("migrate-auth", "--from", source, "--i-stopped-it", NAME, exit_status=1)
            await wactl("migrate-auth", "--from", source, "--i-stopped-it", "second", exit_status=1)
            await continue_in_waD(daemon, sandbox, bob)
            await wactl("migrate-auth", "--to", f"baileys-dir:{back}", NAME, exit_status=1)  # it is up
            assert not back.exists()
            await wactl("disconnect", NAME)
            await left(sandbox)
            await while_away(sandbox, bob, "second")
            exported = await wactl.document("migrate-auth", "--to", f"baileys-dir:{back}", NAME)
            assert (exported["ok"], exported["done"]) == (True, True)
            await healthy(sandbox, daemon)
        assert {path.name: path.read_bytes() for path in (tmp_path / "alice").iterdir()} == before
        async with baileys(sandbox, back, pushName="Alice") as alice:
            await alice.wait_for("offline")
            for text in in_flight("second"):
                await alice.text(text)
            await talk(alice, sandbox, bob, "back")
            assert alice.crashes == []
        assert sandbox.core.world.keys.report()["reused"] == []
