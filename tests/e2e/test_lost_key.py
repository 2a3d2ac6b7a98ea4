"""The drills of docs/backup.md: the key file is lost, and a sealed copy is put back; the account goes on both times."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.e2e.daemon import BOB
from tests.e2e.test_backup import Bed, paired, talk, up

SECOND = '\n[store]\nkek = "second"\n'


def lose_key(bed: Bed) -> tuple[Path, bytes]:
    """The key of the store goes; where it was, and what it was."""
    (key,) = (bed.path / "here").rglob("*.kek")
    kept = key.read_bytes()
    key.unlink()
    return key, kept


def new_key(bed: Bed, key: Path) -> None:
    """As the daemon's own words say."""
    second = key.with_name(f"{key.name}.second")
    second.write_bytes(b"2" * 32)
    second.chmod(0o400)
    with bed.daemon.config.open("a") as config:
        config.write(SECOND)


def find_key(key: Path, kept: bytes) -> None:
    key.write_bytes(kept)
    key.chmod(0o400)


async def findings(bed: Bed, check: str) -> list[dict[str, Any]]:
    report = await bed.daemon.call("daemon.check")
    return [one for one in report["findings"] if one["check"] == check]


async def test_the_key_file_is_lost_and_there_is_a_backup(tmp_path: Path) -> None:
    async with paired(tmp_path) as bed:
        daemon = bed.daemon
        await talk(daemon, bed.sandbox, 2, "before")
        path = await bed.backup()
        await talk(daemon, bed.sandbox, 2, "meanwhile")
        was = await daemon.status()
        await daemon.stop()
        key, kept = lose_key(bed)
        await daemon.start()
        await daemon.until("failed")
        await bed.wactl("verify-auth", "alerts", "--level", "3", status=6)
        said = await bed.wactl.refusal("connect", "new", status=1)
        assert str(key) in said
        assert "store.kek" in said
        assert str(key) in await bed.wactl.refusal(*bed.restore(path, "--yes"), status=1)
        assert any(
            one["level"] == "critical" and str(key) in one["message"] for one in await findings(bed, "kek")
        )
        await daemon.stop()
        new_key(bed, key)
        await daemon.start()
        planned = await bed.wactl.document(*bed.restore(path, "--dry-run"))
        assert [note["code"] for note in planned["verdict"]["warnings"]] == ["state_locked"]
        done = await bed.wactl(*bed.restore(path, "--yes"))
        assert b"warning: state_locked: what is in place" in done.stderr
        assert b"under the key 'main', which is not here" in done.stderr
        view = await daemon.status()
        assert (view["name"], view["connectionId"]) == ("alerts", was["connectionId"])
        await up(daemon)
        await talk(daemon, bed.sandbox, 2, "after")
        assert bed.reused == []
        assert (await daemon.call("auth.verify", name="alerts", level=4))["verdict"]["errors"] == []
        texts = {
            message["body"] for message in (await daemon.call("message.list", session="alerts"))["messages"]
        }
        assert {f"meanwhile 1 from {BOB}", f"after 1 to {BOB}"} <= texts
        # The old state lies there, for the key only.
        (locked,) = [one for one in (await daemon.call("auth.seals", name="alerts"))["seals"]
                     if one["reason"] == "pre_restore"]  # fmt: skip
        seal = f"{locked['epoch']}.{locked['version']}"
        words = ("restore-auth", "alerts", "--seal", seal, "--rollback-anyway")
        assert "'main'" in await bed.wactl.refusal(*words, "--dry-run", status=1)
        await daemon.stop()
        find_key(key, kept)
        await daemon.start()
        assert (await bed.wactl.document(*words, "--dry-run"))["peers"] == 2
        await bed.wactl("storage", "rewrap", "--all")
        shown = {one["id"]: one for one in (await bed.wactl.document("storage", "status"))["keys"]}
        assert (shown["main"]["sessions"], shown["main"]["seals"]) == ([], 0)
        assert shown["second"]["sessions"] == ["alerts"]
        await daemon.stop()
        key.unlink()  # as it says, nothing needs it any more
        await daemon.start()
        assert (await bed.wactl.document(*words, "--dry-run"))["peers"] == 2
        await daemon.until("open", ready=True)


async def test_a_sealed_copy_is_put_back_by_the_daemon_and_by_the_store_alone(tmp_path: Path) -> None:
    async with paired(tmp_path) as bed:
        daemon = bed.daemon
        await talk(daemon, bed.sandbox, 2, "before")
        await daemon.stop()  # which seals
        await daemon.start()
        await daemon.until("open", ready=True)
        await talk(daemon, bed.sandbox, 3, "meanwhile")
        listed = await bed.wactl.document("restore-auth", "alerts", "--seals")
        (seal,) = listed["seals"]
        assert (seal["reason"], seal["current"]) == ("shutdown", False)
        words = ("restore-auth", "alerts", "--seal", f"{seal['epoch']}.{seal['version']}")
        assert "--rollback-anyway" in await bed.wactl.refusal(*words, "--yes", status=1)
        assert (await daemon.status())["state"] == "open"
        planned = await bed.wactl.document(*words, "--rollback-anyway", "--dry-run")
        done = await bed.wactl.document(*words, "--rollback-anyway", "--yes")
        assert (planned["plan"], planned["done"], done["done"], done["exact"]) == (
            done["plan"],
            False,
            True,
            False,
        )
        await up(daemon)
        await talk(daemon, bed.sandbox, 3, "after")
        assert bed.reused == []

        await daemon.stop()
        alone = ("--config", str(daemon.config))
        shown = (await bed.wactl("restore-auth", "alerts", "--seals", *alone)).stdout.decode().splitlines()
        assert [line.split()[1] for line in shown[1:]] == ["shutdown", "pre_restore", "shutdown"]
        assert shown[1].endswith("as it is now")
        newest = shown[1].split()[0]
        exact = await bed.wactl.document("restore-auth", "alerts", "--seal", newest, *alone, "--dry-run")
        assert exact["exact"]
        offline = await bed.wactl.document(*words, *alone, "--rollback-anyway", "--dry-run")
        assert (offline["plan"], offline["done"]) == (planned["plan"], False)
        await bed.wactl(*words, *alone, "--rollback-anyway", "--yes")
        await daemon.start()
        await up(daemon)
        await talk(daemon, bed.sandbox, 3, "again")
        assert bed.reused == []
        reasons = [event["data"]["reason"] for event in await daemon.events("auth:restored")]
        assert reasons == ["seal", "seal"]


async def test_the_last_sealed_copy_goes_on_exactly(tmp_path: Path) -> None:
    """Nothing was stored since: no conversation notices."""
    async with paired(tmp_path) as bed:
        daemon = bed.daemon
        await talk(daemon, bed.sandbox, 2, "before")
        await daemon.stop()
        alone = ("--config", str(daemon.config))
        newest = (await bed.wactl.document("restore-auth", "alerts", "--seals", *alone))["seals"][0]
        assert newest["current"]
        seal = f"{newest['epoch']}.{newest['version']}"
        done = await bed.wactl.document("restore-auth", "alerts", "--seal", seal, *alone, "--yes")
        assert (done["exact"], done["peers"]) == (True, 0)
        await daemon.start()
        await up(daemon)
        await talk(daemon, bed.sandbox, 2, "after")
        assert bed.reused == []
