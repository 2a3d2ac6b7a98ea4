"""Backups of a daemon under traffic, restores after which the account works, and what is refused."""

from __future__ import annotations

import base64
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
import trio

from tests.e2e.daemon import ALICE, BOB, CAROL, WAIT_S, Daemon, Refused, running
from tests.e2e.wactl import Keys, Wactl
from waD.sandbox import Sandbox, run_sandbox
from waD.transfer.archive_reading import open_archive
from waD.transfer.keyfiles import read_identities
from waD.transfer.state import Report

PEERS: Final = (BOB, CAROL)
KILLED: Final = -signal.SIGKILL
NO_KEY: Final = "[store]\nencrypt = 'off'\n"


async def talk(daemon: Daemon, sandbox: Sandbox, count: int, tag: str, name: str = "alerts") -> None:
    """So many messages each way with every peer; all of them arrive, once."""
    since = (await daemon.call("daemon.info"))["lastCursor"]
    sent = []
    for number in range(count):
        for peer in PEERS:
            await sandbox.phone(peer).send(ALICE, f"{tag} {number} from {peer}")
            sent.append(await daemon.send(peer, f"{tag} {number} to {peer}", name))
    for message_id in sent:
        assert await daemon.wait(message_id, "delivered", name) in ("delivered", "read")
    wanted = {f"{tag} {number} from {peer}" for number in range(count) for peer in PEERS}
    with trio.fail_after(WAIT_S + count):
        while not wanted <= set(await heard(daemon, since)):  # noqa: ASYNC110 - read anew each time
            await trio.sleep(0.05)
    for peer in PEERS:
        texts = [message.text for message in sandbox.phone(peer).messages()]
        assert [texts.count(f"{tag} {number} to {peer}") for number in range(count)] == [1] * count


async def heard(daemon: Daemon, since: int = 0) -> list[str]:
    """The texts of what came in."""
    found = await daemon.events("message:new", "message:update", since=since)
    return [event["data"].get("body", "") for event in found]


def only_file(directory: Path) -> Path:
    (path,) = directory.iterdir()
    return path


class Bed:
    """A sandbox, a paired daemon in it, keys, and a directory for backups."""

    def __init__(self, tmp_path: Path, sandbox: Sandbox, daemon: Daemon) -> None:
        self.path = tmp_path
        self.sandbox = sandbox
        self.daemon = daemon
        self.wactl = Wactl(daemon.environment)
        self.keys = Keys(tmp_path)
        self.vault = tmp_path / "vault"
        self.vault.mkdir()

    async def backup(self, *more: str, status: int = 0) -> Path:
        """Make one; the newest file there is."""
        before = {*self.vault.iterdir()}
        to = ("--recipient", self.keys.recipient, "-o", str(self.vault))
        await self.wactl("backup-auth", "alerts", *to, *more, status=status)
        (path,) = {*self.vault.iterdir()} - before
        return path

    def restore(self, path: Path, *more: str) -> tuple[str, ...]:
        """The words of a restore."""
        return ("restore-auth", str(path), "--identity-file", str(self.keys.file), *more)

    def elsewhere(self, **more: Any) -> Any:
        """A daemon with a state directory of its own."""
        return running(self.path / "there", self.sandbox, **more)

    @property
    def reused(self) -> list[Any]:
        """Keys that the sandbox saw twice."""
        found: list[Any] = self.sandbox.core.world.keys.report()["reused"]
        return found


@asynccontextmanager
async def paired(tmp_path: Path, **more: Any) -> AsyncIterator[Bed]:
    async with run_sandbox() as sandbox, running(tmp_path / "here", sandbox, **more) as daemon:
        await daemon.pair(sandbox)
        yield Bed(tmp_path, sandbox, daemon)


async def up(daemon: Daemon, name: str = "alerts") -> None:
    await daemon.call("session.connect", name=name)
    await daemon.until("open", name, ready=True)


# ------------------------------------------------------------------------------------------------ after a disaster


@pytest.mark.parametrize("mode", ["drop", "receive-only"])
async def test_a_backup_of_a_busy_session_works_elsewhere(tmp_path: Path, mode: str) -> None:
    async with paired(tmp_path) as bed:
        here = bed.daemon
        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk, here, bed.sandbox, 8, "before")
            await here.event("message:new")
            path = await bed.backup("--quiet")
        assert path.stat().st_mode & 0o777 == 0o600
        (event,) = await here.events("auth:backup")
        assert event["data"]["recipients"] == [bed.keys.recipient]
        assert (await here.status())["lastBackupAt"] == event["time"]
        await talk(here, bed.sandbox, 3, "after")
        report = await bed.wactl.document("verify-auth", str(path), "--identity-file", str(bed.keys.file))
        assert (report["ok"], report["errors"], report["warnings"]) == (True, [], [])
        await here.kill()
        async with bed.elsewhere() as there:
            wactl = Wactl(there.environment)
            words = bed.restore(path, "--sessions", mode)
            plan = await wactl.document(*words, "--dry-run")
            assert (plan["done"], plan["exact"], plan["peers"]) == (False, False, 2)
            assert (await there.call("session.list"))["sessions"] == []
            assert (await wactl(*words, "--yes")).stdout == b"alerts  restored\n"
            view = await there.status()
            assert (view["state"], view["desired"], view["paired"]) == ("stopped", "down", True)
            await up(there)
            await talk(there, bed.sandbox, 5, "elsewhere")
            assert bed.reused == []
            found = await there.call("auth.verify", name="alerts", level=4)
            assert found["verdict"]["errors"] == []


def secrets_in(path: Path, keys: Keys) -> dict[tuple[str, str], bytes]:
    """Secrets of messages in an archive, by author and id."""
    identities = read_identities(keys.file)
    with path.open("rb") as file, open_archive(file, path.parent, identities, Report()) as archive:
        (listed,) = archive.manifest.sessions
        return {(row.sender, row.message_id): row.secret for row in archive.secrets(listed.id)}


async def test_secrets_of_messages_are_there_after_a_restore(tmp_path: Path) -> None:
    async with paired(tmp_path) as bed:
        await talk(bed.daemon, bed.sandbox, 2, "before")
        path = await bed.backup()
        saved = secrets_in(path, bed.keys)
        ids = {event["data"]["messageId"] for event in await bed.daemon.events("message:new")}
        assert ids <= {message_id for _, message_id in saved}
        assert len(saved) == 2 * 2 * len(PEERS)  # of both directions
        assert len(set(saved.values())) == len(saved)
        report = await bed.wactl.document("verify-auth", str(path), "--identity-file", str(bed.keys.file))
        assert report["counts"]["message-secret"] == len(saved)
        shown = msgspec.json.encode(await bed.daemon.events()) + bed.daemon.log.read_bytes()
        assert not [secret for secret in saved.values() if base64.b64encode(secret) in shown]
        await bed.daemon.kill()
        async with bed.elsewhere() as there:
            wactl = Wactl(there.environment)
            await wactl(*bed.restore(path, "--yes"))
            await up(there)
            await talk(there, bed.sandbox, 1, "elsewhere")
            to = ("--recipient", bed.keys.recipient, "-o", str(bed.path / "again"))
            (bed.path / "again").mkdir()
            await wactl("backup-auth", "alerts", *to)
            after = secrets_in(only_file(bed.path / "again"), bed.keys)
            assert saved.items() <= after.items()
            assert len(after) == len(saved) + 2 * len(PEERS)


@pytest.mark.parametrize("count", [30, pytest.param(500, marks=pytest.mark.soak)])
async def test_a_stale_state_uses_no_key_twice(tmp_path: Path, count: int) -> None:
    """Back up, talk on, put the old state back over the newer one, talk on with everybody."""
    async with paired(tmp_path) as bed:
        await talk(bed.daemon, bed.sandbox, 2, "before")
        path = await bed.backup()
        await talk(bed.daemon, bed.sandbox, count, "meanwhile")
        said = await bed.wactl.refusal(*bed.restore(path, "--yes"), status=1)
        assert "--rollback-anyway" in said
        assert (await bed.daemon.status())["state"] == "open"
        compared = await bed.wactl.document(
            "verify-auth", str(path), "--against", "alerts", "--identity-file", str(bed.keys.file)
        )
        assert (compared["sameIdentity"], compared["equal"], compared["exact"]) == (True, False, False)
        assert compared["kinds"]["session"]["older"] > 0
        await bed.wactl(*bed.restore(path, "--rollback-anyway", "--yes"))
        (event,) = await bed.daemon.events("auth:restored")
        assert event["data"]["peers"] == len(PEERS)
        await up(bed.daemon)
        await talk(bed.daemon, bed.sandbox, count, "afterwards")
        assert bed.reused == []
        assert (await bed.daemon.status())["paired"]


# -------------------------------------------------------------------------------------------------- a planned move


async def test_a_move_goes_on_exactly_and_once(tmp_path: Path) -> None:
    async with paired(tmp_path) as bed:
        await talk(bed.daemon, bed.sandbox, 3, "before")
        path = await bed.backup("--final", "--yes")
        to = ("--recipient", bed.keys.recipient, "-o", str(bed.vault))
        await bed.wactl("backup-auth", "alerts", *to, "--final", "--yes", status=4)
        assert (await bed.daemon.call("session.list"))["sessions"] == []
        async with bed.elsewhere() as there:
            wactl = Wactl(there.environment)
            done = await wactl.document(*bed.restore(path, "--yes"))
            assert (done["done"], done["exact"], done["peers"]) == (True, True, 0)
            await up(there)
            prekeys = bed.sandbox.core.world.keys.report()
            await talk(there, bed.sandbox, 3, "there")
            assert bed.reused == []
            assert prekeys["reused"] == []
            # A second time it is an old state like any other, and here it is too old.
            assert "--rollback-anyway" in await wactl.refusal(*bed.restore(path, "--yes"), status=1)
            again = await wactl.document(*bed.restore(path, "--rollback-anyway", "--dry-run"))
            assert not again["exact"]
        # Where it came from it is an old one, too.
        source = await bed.wactl.document(*bed.restore(path, "--dry-run"))
        assert not source["exact"]
        await bed.daemon.call("session.connect", name="alerts")
        view = await bed.daemon.until("pairing")
        assert not view["paired"]


async def test_a_move_that_is_called_off(tmp_path: Path) -> None:
    """The last state comes back where it was, as an old one."""
    async with paired(tmp_path) as bed:
        await talk(bed.daemon, bed.sandbox, 3, "before")
        await bed.wactl("restore-auth", "--unretire", "alerts", "--yes", status=4)
        await bed.backup("--final", "--yes")
        await bed.wactl("restore-auth", "--unretire", "alerts", "--yes")
        view = await bed.daemon.status()
        assert (view["paired"], view["desired"]) == (True, "down")
        await up(bed.daemon)
        await talk(bed.daemon, bed.sandbox, 3, "again")
        assert bed.reused == []


@pytest.mark.parametrize("step", ["move.before_reset", "move.after_reset"])
async def test_killed_in_the_middle_of_a_move(tmp_path: Path, step: str) -> None:
    async with paired(tmp_path) as bed:
        daemon = bed.daemon
        await talk(daemon, bed.sandbox, 2, "before")
        await daemon.stop()
        await daemon.start(crash_at=step)
        await daemon.until("open", ready=True)
        to = ("--recipient", bed.keys.recipient, "-o", str(bed.vault))
        await bed.wactl("backup-auth", "alerts", *to, "--final", "--yes", status=3)
        assert await daemon.ended() == KILLED
        assert [*bed.vault.iterdir()] == []
        await daemon.start()
        if step == "move.after_reset":
            assert not (await daemon.status())["paired"]
            await bed.wactl("undo", "alerts", "--yes")
        await up(daemon)
        await talk(daemon, bed.sandbox, 2, "after")
        assert bed.reused == []


# -------------------------------------------------------------------------------------------------- kills


async def test_killed_while_a_backup_is_fetched(tmp_path: Path) -> None:
    async with paired(tmp_path) as bed:
        daemon = bed.daemon
        made = await daemon.call("auth.backup", name="alerts", recipients=[bed.keys.recipient])
        part = await daemon.call("auth.fetch", id=made["id"])
        assert 0 < len(base64.b64decode(part["data"])) <= made["size"]
        await daemon.kill()
        assert [*(tmp_path / "here").rglob("backup-*")] == []
        await daemon.start()
        with pytest.raises(Refused, match="no such file"):
            await daemon.call("auth.fetch", id=made["id"], offset=0)
        assert await daemon.events("auth:backup") == []
        await daemon.until("open", ready=True)
        await talk(daemon, bed.sandbox, 2, "after")


@pytest.mark.parametrize("step", ["restore.before_commit", "restore.after_commit"])
async def test_killed_in_the_middle_of_a_restore(tmp_path: Path, step: str) -> None:
    """Either all of it has happened or nothing; the account works both ways."""
    async with paired(tmp_path) as bed:
        daemon = bed.daemon
        await talk(daemon, bed.sandbox, 2, "before")
        path = await bed.backup()
        await talk(daemon, bed.sandbox, 3, "meanwhile")
        await daemon.stop()
        await daemon.start(crash_at=step)
        await bed.wactl(*bed.restore(path, "--rollback-anyway", "--yes"), status=3)
        assert await daemon.ended() == KILLED
        await daemon.start()
        restored = await daemon.events("auth:restored")
        assert len(restored) == (step == "restore.after_commit")
        assert (await daemon.call("auth.verify", name="alerts"))["verdict"]["errors"] == []
        await up(daemon)
        await talk(daemon, bed.sandbox, 3, "after")
        assert bed.reused == []


# ------------------------------------------------------------------------------------------------- without a daemon


async def test_without_a_daemon(tmp_path: Path) -> None:
    """Back up, verify and restore from the store alone; a daemon is kept away from it, and it from a daemon's."""
    async with paired(tmp_path) as bed:
        daemon = bed.daemon
        await talk(daemon, bed.sandbox, 2, "before")
        config = ("--config", str(daemon.config))
        assert "stop that process" in await bed.wactl.refusal("verify-auth", "alerts", *config, status=3)
        await daemon.kill()
        path = await bed.backup(*config)
        report = await bed.wactl.document("verify-auth", "alerts", *config)
        assert (report["ok"], report["level"]) == (True, 3)
        assert "cannot be asked" in await bed.wactl.refusal(
            "verify-auth", "alerts", "--level", "4", *config, status=1
        )
        there = Daemon(tmp_path / "there", bed.sandbox)
        wactl, elsewhere = Wactl(there.environment), ("--config", str(there.config))
        to = ("--recipient", bed.keys.recipient, "-o", str(bed.vault))
        assert "no database" in await wactl.refusal("backup-auth", "alerts", *to, *elsewhere, status=1)
        await wactl(*bed.restore(path, "--yes", *elsewhere))
        await there.start()
        try:
            await up(there)
            await talk(there, bed.sandbox, 2, "elsewhere")
            assert bed.reused == []
        finally:
            await there.kill()


# -------------------------------------------------------------------------------------------------------- refusals


async def test_what_is_refused_changes_nothing(tmp_path: Path) -> None:
    async with paired(tmp_path) as bed:
        daemon = bed.daemon
        path = await bed.backup()
        before = await daemon.status()
        cursor = (await daemon.call("daemon.info"))["lastCursor"]
        cut, other = tmp_path / "cut.age", tmp_path / "other.age"
        cut.write_bytes(path.read_bytes()[:-100])
        assert (
            "damaged" in (said := await bed.wactl.refusal(*bed.restore(cut, "--yes"), status=6))
            or "cut" in said
        )
        stranger = Keys(tmp_path, "stranger.key")
        words = ("restore-auth", str(path), "--identity-file", str(stranger.file), "--yes")
        assert "wrong_key" in await bed.wactl.refusal(*words, status=1)
        other.write_bytes(b"neither an archive nor encrypted")
        await bed.wactl.refusal(*bed.restore(other, "--yes"), status=6)
        # A second linked device of the same account may not take the place of the first.
        await daemon.pair(bed.sandbox, name="second")
        await bed.wactl.refusal(*bed.restore(path, "--name", "second", "--yes"), status=1)
        await bed.wactl.refusal(*bed.restore(path, "--name", "third", "--yes"), status=1)
        await bed.wactl.refusal(*bed.restore(path, "--name", "../x", "--yes"), status=1)
        assert await daemon.events("auth:restored", since=cursor) == []
        names = [one["name"] for one in (await daemon.call("session.list"))["sessions"]]
        assert names == ["alerts", "second"]
        assert (await daemon.status())["lastConnectedAt"] == before["lastConnectedAt"]


async def test_an_upload_that_is_no_archive_or_too_new(tmp_path: Path) -> None:
    """What comes over the socket is judged again."""
    async with paired(tmp_path) as bed:
        for data, symbol in ((b"rubbish", "damaged"), (bytes(1024), "damaged")):
            upload = await bed.daemon.call("auth.upload", data=base64.b64encode(data).decode())
            with pytest.raises(Refused) as caught:
                await bed.daemon.call("auth.restore", id=upload["id"])
            assert caught.value.symbol == symbol
        with pytest.raises(Refused, match="recipient"):
            await bed.daemon.call("auth.backup", name="alerts", recipients=["age1nonsense"])
        assert (await bed.daemon.status())["state"] == "open"


@pytest.mark.parametrize(("here", "there"), [("", NO_KEY), (NO_KEY, "")])
async def test_an_encrypted_store_and_one_in_the_clear(tmp_path: Path, here: str, there: str) -> None:
    async with paired(tmp_path, more=here) as bed:
        await talk(bed.daemon, bed.sandbox, 2, "before")
        path = await bed.backup()
        await bed.daemon.kill()
        async with bed.elsewhere(more=there) as other:
            await Wactl(other.environment)(*bed.restore(path, "--yes"))
            await up(other)
            await talk(other, bed.sandbox, 2, "there")
            assert bed.reused == []
            assert (await other.call("auth.verify", name="alerts"))["verdict"]["errors"] == []


async def test_all_sessions_and_what_is_kept_of_old_ones(tmp_path: Path) -> None:
    async with paired(tmp_path) as bed:
        await bed.daemon.pair(bed.sandbox, BOB, "shop")
        old = [f"alerts-202001{day:02}T000000Z-v1.wadbackup.age" for day in range(1, 5)]
        for name in (*old, "other-20200101T000000Z-v1.wadbackup.age", "notes.txt"):
            (bed.vault / name).write_bytes(b"x")
        to = ("--recipient", bed.keys.recipient, "-o", str(bed.vault), "--keep", "2d")
        done = await bed.wactl("backup-auth", "--all", *to)
        assert done.stderr == b""
        assert [line.split()[0] for line in done.stdout.decode().splitlines()] == ["alerts", "shop"]
        names = sorted(path.name for path in bed.vault.iterdir())
        assert old[-1] in names
        assert not {*old[:-1]} & {*names}
        assert {"notes.txt", "other-20200101T000000Z-v1.wadbackup.age"} < {*names}
        assert len(names) == 5
        with suppress(FileNotFoundError):
            assert [*(tmp_path / "here" / "state" / "waD" / "spool").iterdir()] == []


# ------------------------------------------------------------------------------------------------- against WhatsApp


async def live(daemon: Daemon) -> tuple[list[str], list[str]]:
    """Codes of the errors and warnings of level 4, without what level 3 says."""
    verdict = (await daemon.call("auth.verify", name="alerts", level=4))["verdict"]
    found = ([note["code"] for note in verdict[kind]] for kind in ("errors", "warnings"))
    errors, warnings = ([code for code in codes if code.startswith("live_")] for codes in found)
    return errors, warnings


async def test_what_whatsapp_knows(tmp_path: Path) -> None:
    async with paired(tmp_path) as bed:
        daemon, sandbox = bed.daemon, bed.sandbox
        assert await live(daemon) == ([], [])
        keys = sandbox.device(ALICE).record.keys
        own = dict(keys.one_time)
        keys.one_time[999] = bytes(32)
        assert await live(daemon) == ([], ["live_prekeys_missing"])
        keys.one_time = dict(list(own.items())[:3])
        assert await live(daemon) == ([], ["live_prekeys_low"])
        keys.one_time = own
        first = next(iter(own))
        keys.one_time = own | {first: bytes(32)}
        assert await live(daemon) == ([], ["live_hash_mismatch"])
        keys.one_time = own
        identity, keys.identity = keys.identity, bytes(32)
        assert (await live(daemon))[0] == ["live_identity_mismatch"]
        keys.identity = identity
        sandbox.fault("iq", xmlns="encrypt", code=503)
        assert await live(daemon) == ([], ["live_unknown"])
        sandbox.fault("iq", xmlns="encrypt", code=404)
        assert (await live(daemon))[0] == ["live_no_bundle"]
        assert await live(daemon) == ([], [])
        assert (await daemon.status())["lastVerifiedAt"] is not None
