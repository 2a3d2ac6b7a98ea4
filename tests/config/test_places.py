"""Default places of a service, of root and of a user."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from waD.config import places
from waD.config.places import config_file, fragments, socket_file, store_file
from waD.control.paths import SYSTEM_SOCKET, default_socket

USER = 1000


@pytest.fixture
def system_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "etc" / "waD.toml"
    monkeypatch.setattr(places, "SYSTEM_FILE", path)
    return path


def _make(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_a_service_reads_the_directory_from_systemd(system_file: Path) -> None:
    environ = {"CONFIGURATION_DIRECTORY": "/etc/waD:/etc/more", "XDG_CONFIG_HOME": "/x"}
    assert config_file(environ, USER) == config_file(environ, 0) == Path("/etc/waD/waD.toml")


def test_root_reads_the_file_of_the_system(system_file: Path) -> None:
    assert config_file({"XDG_CONFIG_HOME": "/x"}, 0) == system_file


def test_a_user_without_any_file_has_a_place_for_one(system_file: Path) -> None:
    assert config_file({"XDG_CONFIG_HOME": "/x"}, USER) == Path("/x/waD/waD.toml")
    assert config_file({"HOME": "/h"}, USER) == Path("/h/.config/waD/waD.toml")
    assert config_file({"HOME": "/h", "XDG_CONFIG_HOME": "relative"}, USER) == Path("/h/.config/waD/waD.toml")


def test_a_user_reads_the_own_file_else_that_of_the_system(system_file: Path, tmp_path: Path) -> None:
    environ = {"XDG_CONFIG_HOME": str(tmp_path / "own")}
    own = tmp_path / "own" / "waD" / "waD.toml"
    _make(system_file)
    assert config_file(environ, USER) == system_file
    fragments(own).mkdir(parents=True)
    assert config_file(environ, USER) == own
    fragments(own).rmdir()
    assert config_file(environ, USER) == system_file
    _make(own)
    assert config_file(environ, USER) == own


def test_the_database() -> None:
    assert store_file({"STATE_DIRECTORY": "/var/lib/waD"}, USER) == Path("/var/lib/waD/waD.db")
    assert store_file({"XDG_STATE_HOME": "/s", "HOME": "/h"}, USER) == Path("/s/waD/waD.db")
    assert store_file({"HOME": "/h"}, USER) == Path("/h/.local/state/waD/waD.db")


def test_the_socket() -> None:
    assert socket_file({"RUNTIME_DIRECTORY": "/run/waD"}, USER) == Path("/run/waD/control.sock")
    assert socket_file({"XDG_RUNTIME_DIR": "/run/user/1000"}, USER) == Path("/run/user/1000/waD/control.sock")
    assert socket_file({"XDG_RUNTIME_DIR": "relative"}, USER) == Path("/run/waD/control.sock")
    assert socket_file({}, USER) == Path("/run/waD/control.sock")


@pytest.mark.parametrize(
    "environ",
    [
        {"RUNTIME_DIRECTORY": "/run/a:/run/b", "XDG_RUNTIME_DIR": "/run/user/1"},
        {"XDG_RUNTIME_DIR": "/run/user/1"},
        {"RUNTIME_DIRECTORY": "relative", "XDG_RUNTIME_DIR": "/run/user/1"},
    ],
)
def test_the_socket_is_where_clients_look_for_it(environ: dict[str, str]) -> None:
    assert socket_file(environ, USER) == default_socket(environ).path


def test_without_any_directory_it_is_where_clients_look_last() -> None:
    assert socket_file({}, USER) == SYSTEM_SOCKET


def test_a_directory_that_may_not_be_entered_counts_as_empty(system_file: Path, tmp_path: Path) -> None:
    _make(system_file)
    tmp_path.chmod(0o755)
    system_file.parent.chmod(0)
    nobody = os.geteuid() == 0
    if nobody:
        os.seteuid(65534)
    try:
        assert config_file({"XDG_CONFIG_HOME": "/x"}, USER) == Path("/x/waD/waD.toml")
    finally:
        if nobody:
            os.seteuid(0)
        system_file.parent.chmod(0o755)
