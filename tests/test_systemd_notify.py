"""What the service manager hears."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from waD.systemd import Notifier


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(str(tmp_path / "notify"))
        made.settimeout(5)
        yield made


def heard(manager: socket.socket) -> list[str]:
    return manager.recv(4096).decode().split("\n")


def test_the_states_of_a_service(manager: socket.socket) -> None:
    notifier = Notifier(manager.getsockname())
    notifier.ready("2 sessions open")
    assert heard(manager) == ["READY=1", "STATUS=2 sessions open"]
    notifier.reloading()
    first, second = heard(manager)
    assert first == "RELOADING=1"
    assert second.startswith("MONOTONIC_USEC=")
    assert int(second.partition("=")[2]) > 0
    notifier.alive()
    assert heard(manager) == ["WATCHDOG=1"]
    notifier.extend(1.5)
    assert heard(manager) == ["EXTEND_TIMEOUT_USEC=1500000"]
    notifier.stopping("two\nlines")
    assert heard(manager) == ["STOPPING=1", "STATUS=two lines"]
    notifier.close()
    notifier.alive()


def test_an_abstract_socket() -> None:
    name = f"waD-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind("\0" + name)
        made.settimeout(5)
        notifier = Notifier("@" + name)
        notifier.status("hello")
        assert heard(made) == ["STATUS=hello"]
        notifier.close()


def test_without_a_manager_nothing_happens(caplog: pytest.LogCaptureFixture) -> None:
    Notifier.from_environment({}).ready()
    Notifier("/nonexistent/notify").ready()
    assert "cannot be used" in caplog.text


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "77"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "78"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_whose_watchdog_it_is(environ: dict[str, str], seconds: float | None) -> None:
    assert Notifier.from_environment(environ, pid=77).watchdog_s == seconds


def test_a_manager_that_does_not_read_holds_nobody_up(manager: socket.socket) -> None:
    notifier = Notifier(manager.getsockname())
    for _ in range(10_000):
        notifier.alive()
    notifier.close()
