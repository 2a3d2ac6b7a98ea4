"""Which of the operator's keys are needed by whom, and another key for retired sessions too."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tests.session.test_lost_key import running, settings  # noqa: F401 - a fixture
from tests.session.test_manager import Bed, refuses
from waD.config import Settings
from waD.control.types import Finding, KeyView, RewrapParams
from waD.session.keyring import key_findings
from waD.session.manager import Manager
from waD.store.store import StoreSettings


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """Two keys of the operator's, `main` and `next`."""
    file = tmp_path / "keys" / "kek"
    file.parent.mkdir()
    for path, byte in ((file, b"1"), (file.with_name("kek.next"), b"2")):
        path.write_bytes(byte * 32)
        path.chmod(0o400)
    return file


@pytest.fixture
def place(tmp_path: Path, key: Path) -> StoreSettings:
    return StoreSettings(path=tmp_path / "state" / "waD.db", kek_file=key)


def lose(key: Path) -> None:
    key.unlink()


async def three(bed: Bed, manager: Manager) -> None:
    """One that runs, one that was removed, one that was moved."""
    await bed.paired("alerts", "removed", "moved", desired="down")
    await bed.store.seal((await bed.store.require_session("alerts")).id, "manual")
    await manager.remove("removed")
    row, entry = await manager.roster.find("moved")
    await entry.supervisor.state.reset_auth(b'{"fresh":true}')
    await manager.auth._backups.retire(row)


def by_id(keys: list[KeyView]) -> dict[str, tuple[list[str], list[str], int]]:
    return {key.id: (key.sessions, key.retired, key.seals) for key in keys}


def told(findings: list[Finding]) -> dict[str, tuple[str, str]]:
    return {one.subject: (one.level, one.message) for one in findings if one.check == "kek"}


async def test_retired_sessions_get_the_new_key_too(
    place: StoreSettings,
    settings: Settings,  # noqa: F811
    key: Path,
) -> None:
    async with running(place, settings) as (bed, manager):
        await three(bed, manager)
        found = await manager.storage.keys()
        assert by_id(found.keys) == {
            "main": (["alerts"], ["moved", "removed"], 3),
            "next": ([], [], 0),
        }
        assert [(view.here, view.wraps_new) for view in found.keys] == [(True, True), (True, False)]
        status = await manager.storage.status("alerts")
        assert (status.kek_here, status.seal_keks) == (True, {"main": 1})
    after = msgspec.structs.replace(place, kek="next")
    async with running(after, settings) as (bed, manager):
        level, text = told(await key_findings(bed.store))["key main"]
        assert level == "ok"
        for words in (
            "alerts",
            "moved (retired)",
            "removed (retired)",
            "3 sealed copies",
            "wactl storage rewrap",
        ):
            assert words in text
        for name, seals in (("alerts", 1), ("removed", 1), ("moved", 1)):
            done = await manager.storage.rewrap(RewrapParams(name=name))
            assert (done.outcome, done.retired) == ("done", name != "alerts")
            assert done.rewrapped is not None
            assert (done.rewrapped.sessions, done.rewrapped.seals, done.rewrapped.left) == (1, seals, 0)
            assert (await manager.storage.rewrap(RewrapParams(name=name))).outcome == "nothing"
        assert by_id((await manager.storage.keys()).keys)["main"] == ([], [], 0)
        found_ = told(await key_findings(bed.store))
        assert found_["key main"] == ("ok", "nothing needs it any more: it may be deleted")
        assert found_["key next"][1].startswith("it wraps new keys; it is needed by alerts, moved (retired)")
        await refuses("no_such_session", manager.storage.rewrap(RewrapParams(name="nobody")))
    lose(key)
    async with running(after, settings) as (bed, manager):
        await manager.unretire("moved")
        await manager.connect("removed")
        await manager.disconnect("removed")
        assert sorted(view.name for view in await manager.list() if view.paired) == [
            "alerts",
            "moved",
            "removed",
        ]
        assert (await manager.storage.keys()).lost == ""


async def test_a_key_that_is_gone_is_told_with_who_needs_it(
    place: StoreSettings,
    settings: Settings,  # noqa: F811
    key: Path,
) -> None:
    async with running(place, settings) as (bed, manager):
        await three(bed, manager)
    lose(key)
    after = msgspec.structs.replace(place, kek="next")
    async with running(after, settings) as (bed, manager):
        (finding,) = [one for one in await key_findings(bed.store) if one.level != "ok"]
        assert (finding.level, finding.subject) == ("critical", "key main")
        assert finding.message.startswith("it is not here, and it is needed by alerts, moved (retired)")
        assert "backup" in finding.hint
        found = await manager.storage.keys()
        assert [user.name for user in found.users if user.locked] == ["alerts", "moved", "removed"]
        assert not (await manager.storage.status("alerts")).kek_here
