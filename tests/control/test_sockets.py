"""The socket's place: made closed, taken over from the dead, never from the living."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.control.client import Client, serving
from tests.control.fakes import FakeDaemon, FakeSessions
from waD.control import sockets
from waD.control.paths import NoSocketPath, SocketPlace, default_socket
from waD.control.server import ControlServer
from waD.control.sockets import (
    SocketError,
    SocketInUse,
    activated_descriptors,
    adopt_socket,
    bind_socket,
)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "waD" / "control.sock"


def exists(path: Path) -> bool:
    return path.exists()


def group_of(path: Path) -> int:
    return path.stat().st_gid


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_directory_and_socket_are_closed_to_others_whatever_the_umask(place: Path) -> None:
    for mask in (0o000, 0o077):
        old = os.umask(mask)
        try:
            listener = bind_socket(place)
        finally:
            os.umask(old)
        assert (mode(place.parent), mode(place)) == (0o750, 0o660)
        await listener.aclose()
        place.with_name("control.sock.lock").unlink()
        place.parent.rmdir()


async def test_modes_and_group_are_as_asked(place: Path) -> None:
    group = os.getegid()
    listener = bind_socket(place, group=str(group), mode=0o600, directory_mode=0o700)
    assert (mode(place.parent), mode(place)) == (0o700, 0o600)
    assert (group_of(place.parent), group_of(place)) == (group, group)
    await listener.aclose()


async def test_a_directory_that_is_there_is_left_as_it_is(place: Path) -> None:
    place.parent.mkdir(0o711)
    listener = bind_socket(place)
    assert mode(place.parent) == 0o711
    await listener.aclose()


async def test_the_socket_is_closed_until_it_is_ready(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    monkeypatch.setattr(sockets, "_give", lambda path, gid: seen.append(mode(path)))
    listener = bind_socket(place)
    assert seen == [0o750, 0o600]
    await listener.aclose()


def stale(path: Path) -> None:
    """Leave a socket behind as a killed daemon does."""
    path.parent.mkdir(exist_ok=True)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()


async def test_a_dead_daemons_socket_is_replaced(place: Path) -> None:
    stale(place)
    listener = bind_socket(place)
    async with await trio.open_unix_socket(str(place)):
        pass
    await listener.aclose()
    assert not exists(place)


LISTEN = """
import socket, sys
listening = socket.socket(socket.AF_UNIX)
listening.bind(sys.argv[1])
listening.listen()
print(flush=True)
input()
"""


def test_a_live_daemon_is_named(place: Path) -> None:
    place.parent.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", LISTEN, str(place)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(SocketInUse, match=f"process {other.pid} already listens") as refused:
            bind_socket(place)
        assert refused.value.pid == other.pid
        assert place.exists()
        other.communicate(b"\n")


async def test_a_running_server_is_not_disturbed(tmp_path: Path) -> None:
    async with serving(tmp_path) as running:
        with pytest.raises(SocketInUse, match=f"process {os.getpid()} "):
            bind_socket(running.path)
        async with running.client() as client:
            await client.call("daemon.ping")


def test_a_daemon_with_a_full_queue_is_alive(place: Path) -> None:
    place.parent.mkdir()
    clients = []
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(str(place))
        busy.listen(0)
        code = 0
        while code == 0:
            clients.append(socket.socket(socket.AF_UNIX))
            clients[-1].setblocking(False)
            code = clients[-1].connect_ex(str(place))
        with pytest.raises(SocketInUse, match="another process"):
            bind_socket(place)
    for client in clients:
        client.close()


def test_two_that_start_at_once_do_not_take_each_others_socket(place: Path) -> None:
    stale(place)
    with sockets._only_starter(place), pytest.raises(SocketInUse, match="just starting"):
        bind_socket(place)
    assert place.exists()


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir, lambda path: path.symlink_to("/etc/passwd")])
def test_what_is_no_socket_is_left_alone(place: Path, make: Any) -> None:
    place.parent.mkdir()
    make(place)
    with pytest.raises(SocketError, match="is not a socket"):
        bind_socket(place)
    assert place.is_symlink() or place.exists()


def test_the_lock_file_is_not_followed(place: Path, tmp_path: Path) -> None:
    place.parent.mkdir()
    place.with_name("control.sock.lock").symlink_to(tmp_path / "victim")
    with pytest.raises(SocketError, match="cannot make the control socket"):
        bind_socket(place)
    assert not (tmp_path / "victim").exists()


@pytest.mark.parametrize(
    ("path", "group", "complaint"),
    [
        ("x" * 120, None, "more than 107 bytes"),
        ("no/such/control.sock", None, "does not exist"),
        ("waD/control.sock", "nosuchgroup-x", r"\[control\] group"),
    ],
)
def test_what_stands_in_the_way_is_named(
    tmp_path: Path, path: str, group: str | None, complaint: str
) -> None:
    with pytest.raises(SocketError, match=complaint):
        bind_socket(tmp_path / path, group=group)
    assert list(tmp_path.iterdir()) == []


def test_a_group_that_may_not_be_given_is_named(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(*_: Any, **__: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    place.parent.mkdir()
    monkeypatch.setattr(os, "chown", deny)
    with pytest.raises(SocketError, match="not a member"):
        bind_socket(place, group="12345")
    assert not place.exists()


async def test_closing_leaves_a_successors_socket(place: Path) -> None:
    first = bind_socket(place)
    os.unlink(place)
    second = bind_socket(place)
    await first.aclose()
    async with await trio.open_unix_socket(str(place)):
        pass
    await second.aclose()


# ------------------------------------------------------------------------------------------------- systemd


async def test_a_socket_of_systemds_is_adopted_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "activated.sock"
    passed = socket.socket(socket.AF_UNIX)
    passed.bind(str(path))
    passed.listen()
    server = ControlServer(FakeSessions(), FakeDaemon())
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve, [adopt_socket(passed.detach())])
        async with await trio.open_unix_socket(str(path)) as stream:
            assert (await Client(stream).call("daemon.ping"))["role"] == "admin"
        server.stop()
    assert path.exists()


def test_what_is_no_listening_socket_is_not_adopted() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, socket.socket(socket.AF_INET) as network, open(os.devnull) as file:
        network.bind(("127.0.0.1", 0))
        network.listen()
        for fd in (ours.fileno(), network.fileno(), file.fileno()):
            with pytest.raises(SocketError, match=f"descriptor {fd}"):
                adopt_socket(fd)
        assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_STREAM  # still open


@pytest.mark.parametrize(
    ("environ", "found"),
    [
        ({}, []),
        ({"LISTEN_PID": "7", "LISTEN_FDS": "2"}, [3, 4]),
        ({"LISTEN_PID": "8", "LISTEN_FDS": "2"}, []),
        ({"LISTEN_PID": "7", "LISTEN_FDS": "many"}, []),
        ({"LISTEN_PID": "7"}, []),
    ],
)
def test_descriptors_of_systemd_are_for_the_process_they_name(
    environ: dict[str, str], found: list[int]
) -> None:
    assert list(activated_descriptors(environ, pid=7)) == found


# ------------------------------------------------------------------------------------------- default place


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"RUNTIME_DIRECTORY": "/run/waD"}, SocketPlace(Path("/run/waD/control.sock"), 0o750)),
        ({"RUNTIME_DIRECTORY": "/run/waD:/run/b"}, SocketPlace(Path("/run/waD/control.sock"), 0o750)),
        ({"XDG_RUNTIME_DIR": "/run/user/7"}, SocketPlace(Path("/run/user/7/waD/control.sock"), 0o700)),
        (
            {"RUNTIME_DIRECTORY": "/run/waD", "XDG_RUNTIME_DIR": "/run/user/7"},
            SocketPlace(Path("/run/waD/control.sock"), 0o750),
        ),
        (
            {"RUNTIME_DIRECTORY": "", "XDG_RUNTIME_DIR": "/run/user/7"},
            SocketPlace(Path("/run/user/7/waD/control.sock"), 0o700),
        ),
    ],
)
def test_the_default_place(environ: dict[str, str], expected: SocketPlace) -> None:
    assert default_socket(environ) == expected


@pytest.mark.parametrize("environ", [{}, {"XDG_RUNTIME_DIR": "relative"}, {"RUNTIME_DIRECTORY": "waD"}])
def test_without_a_place_the_error_says_what_to_set(environ: dict[str, str]) -> None:
    with pytest.raises(NoSocketPath, match="--socket"):
        default_socket(environ)
