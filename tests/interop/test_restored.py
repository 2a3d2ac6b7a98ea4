"""An old state of waD put back, and Baileys at the other end of its conversations."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.wactl import Keys, Wactl
from tests.interop.conftest import Baileys
from tests.interop.test_waD import heard, talking


@pytest.mark.parametrize("mode", ["drop", "receive-only"])
async def test_baileys_goes_on_with_a_restored_session(tmp_path: Path, baileys: Baileys, mode: str) -> None:
    """Messages each way before the backup, after it, and after the restore: all are read, and no key comes twice."""
    keys, vault = Keys(tmp_path), tmp_path / "vault"
    vault.mkdir()
    async with talking(baileys, tmp_path) as between:
        wactl = Wactl(between.alice.environment)
        await between.greet()
        await wactl("backup-auth", "alerts", "--recipient", keys.recipient, "-o", str(vault))
        (path,) = vault.iterdir()
        for number in range(5):
            await between.said_by_alice(f"meanwhile {number}")
            await between.said_by_bob(f"meanwhile {number} from bob")
        words = ("restore-auth", str(path), "--identity-file", str(keys.file), "--sessions", mode)
        await wactl(*words, "--rollback-anyway", "--yes")
        await between.alice.call("session.connect", name="alerts")
        await between.alice.until("open", ready=True)
        # With the old session gone the first one is asked for again.
        await between.bob.send(between.alice_lid, "do you still hear me?")
        await heard(between.alice, "do you still hear me?")
        for number in range(5):
            await between.said_by_alice(f"afterwards {number}")
            await between.said_by_bob(f"afterwards {number} from bob")
