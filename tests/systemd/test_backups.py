"""The units for backups and checks with the real wactl, with a daemon and without, inside all their confinement."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyrage
import trio

from tests.systemd.machine import Machine
from tests.transfer.samples import a_sample
from waD.store.store import StoreSettings, open_store
from waD.transfer.levels import verify_file
from waD.transfer.sealing import Identities

BACKUP = "waD-backup@all.service"
VERIFY = "waD-verify@all.service"
VAULT = "/var/backups/waD"
STATE = "/var/lib/waD"


async def store_with(path: Path) -> None:
    """A database with one paired session that is down, encrypted with the key beside it."""
    sample = a_sample()
    async with open_store(StoreSettings(path=path)) as store:
        row = await store.create_session("alerts")
        state = await store.attach(row.id, "test")
        unit = state.unit()
        unit.set_creds(sample.state.creds.serialize())
        for (kind, key), value in sample.state.items.items():
            unit.put(kind, key, value)
        creds = sample.state.creds
        unit.set_session(me_pn=str(creds.me_pn), me_lid=str(creds.me_lid), current_status="stopped")
        await state.commit(unit)


def install_store(machine: Machine, directory: Path) -> pyrage.x25519.Identity:
    """Put a store in its place, and name a recipient; returns who can read the backups."""
    trio.run(store_with, directory / "waD.db")
    machine.path(STATE).mkdir(mode=0o700, exist_ok=True)
    for file in directory.iterdir():
        shutil.copy(file, machine.path(f"{STATE}/{file.name}"))
    machine.run("chown", "-R", "waD:waD", STATE)
    identity = pyrage.x25519.Identity.generate()
    machine.write("/etc/waD/backup.conf", f'RECIPIENT="{identity.to_public()}"\n')
    return identity


def archives(machine: Machine) -> list[Path]:
    return sorted(machine.path(VAULT).iterdir())


def is_sound(path: Path, identity: pyrage.x25519.Identity, spool: Path) -> bool:
    verdict = verify_file(path, 2, Identities([str(identity)]), spool, 1_700_000_000_000)
    assert [one.name for one in verdict.sessions] == ["alerts"]
    return verdict.report.ok


def test_with_and_without_a_daemon(machine: Machine, tmp_path: Path) -> None:
    directory = tmp_path / "store"
    directory.mkdir(mode=0o700)
    identity = install_store(machine, directory)
    machine.run("systemctl", "start", BACKUP)
    (offline,) = archives(machine)
    assert machine.run("stat", "--format=%U %a", f"{VAULT}/{offline.name}") == "waD 600\n"
    assert is_sound(offline, identity, tmp_path)
    machine.run("systemctl", "start", VERIFY)
    machine.run("systemctl", "start", "waD.socket")
    machine.run("systemctl", "start", BACKUP)
    assert machine.properties("waD.service", "ActiveState") == {"ActiveState": "active"}
    (online,) = archives(machine)  # of one day the newest is kept
    assert online.name != offline.name
    assert is_sound(online, identity, tmp_path)
    machine.run("systemctl", "start", VERIFY)
    for unit in (BACKUP, VERIFY):
        assert machine.journal("--unit", unit) == ""


def test_damage_is_a_failure_that_is_told(machine: Machine, tmp_path: Path) -> None:
    directory = tmp_path / "store"
    directory.mkdir(mode=0o700)
    install_store(machine, directory)
    machine.path(f"{STATE}/waD.db.kek").unlink()
    for unit, task in ((BACKUP, "backup"), (VERIFY, "verify")):
        assert machine.status("systemctl", "start", unit)[0] != 0
        found = machine.properties(unit, "ExecMainStatus", "Result")
        assert found["Result"] == "exit-code", task
        assert "alerts" in machine.journal("--unit", unit, "--priority", "warning")
    assert archives(machine) == []


CREDENTIAL = "/etc/credstore/wad-kek"


def hide_key(machine: Machine, to: str) -> None:
    """Move the key of the store to where only root reads it."""
    place = machine.path(to)
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(machine.path(f"{STATE}/waD.db.kek"), place)
    machine.run("chown", "root:root", to)
    place.chmod(0o400)


def test_the_units_share_the_key_of_the_credential_store(machine: Machine, tmp_path: Path) -> None:
    directory = tmp_path / "store"
    directory.mkdir(mode=0o700)
    identity = install_store(machine, directory)
    hide_key(machine, CREDENTIAL)
    for unit in (BACKUP, VERIFY):
        machine.run("systemctl", "start", unit)
    (offline,) = archives(machine)
    assert is_sound(offline, identity, tmp_path)
    machine.run("systemctl", "start", "waD.socket")
    for unit in (BACKUP, VERIFY):
        machine.run("systemctl", "start", unit)
    assert machine.properties("waD.service", "ActiveState") == {"ActiveState": "active"}
    assert "wraps new keys" in machine.run("wactl", "storage", "status")
    assert not machine.path(f"{STATE}/waD.db.kek").exists()
    for unit in (BACKUP, VERIFY):
        assert machine.journal("--unit", unit) == ""


def test_a_daemon_that_runs_needs_no_key_in_the_units(machine: Machine, tmp_path: Path) -> None:
    """Its own it has from elsewhere; without it the units need the same, and say so."""
    directory = tmp_path / "store"
    directory.mkdir(mode=0o700)
    identity = install_store(machine, directory)
    hide_key(machine, "/etc/waD/kek")
    drop_in = "[Service]\nLoadCredential=wad-kek:/etc/waD/kek\n"
    machine.write("/etc/systemd/system/waD.service.d/kek.conf", drop_in)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "waD.socket")
    for unit in (BACKUP, VERIFY):
        machine.run("systemctl", "start", unit)
    (online,) = archives(machine)
    assert is_sound(online, identity, tmp_path)
    machine.run("systemctl", "stop", "waD.socket", "waD.service")
    for unit in (BACKUP, VERIFY):
        assert machine.status("systemctl", "start", unit)[0] != 0
        assert "'main', which is not here" in machine.journal("--unit", unit, "--priority", "warning")
    for name in ("backup", "verify"):
        machine.write(f"/etc/systemd/system/waD-{name}@.service.d/kek.conf", drop_in)
    machine.run("systemctl", "daemon-reload")
    for unit in (BACKUP, VERIFY):
        machine.run("systemctl", "start", unit)
