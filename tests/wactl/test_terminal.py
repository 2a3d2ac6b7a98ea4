"""What a terminal makes of it: colours, codes in place, questions; and processes that end early."""

from __future__ import annotations

import codecs
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.wactl.codes import blocks, expected, from_terminal
from tests.wactl.conftest import Spawn, documents
from tests.wactl.fake import (
    ID,
    PATIENCE_S,
    FakeDaemon,
    event,
    in_turn,
    refusal,
    say_nothing,
    status,
    subscription,
    view,
)
from tests.wactl.test_pairing import code, result, rotating, shown
from waD.control import types as t


class Terminal:
    """A pseudo terminal with a process on its other side."""

    def __init__(self, rows: int = 50, columns: int = 100) -> None:
        self.ours, self.theirs = pty.openpty()
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.text = ""

    def read_until(self, needle: str) -> str:
        end = time.monotonic() + PATIENCE_S
        while needle not in self.text:
            assert select.select([self.ours], [], [], max(0, end - time.monotonic()))[0], self.text
            self.text += os.read(self.ours, 65_536).decode(errors="replace")
        return self.text

    def rest(self, process: subprocess.Popen[bytes]) -> str:
        end = time.monotonic() + PATIENCE_S
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        while True:
            ended = process.poll() is not None
            while select.select([self.ours], [], [], 0.01)[0]:
                self.text += decoder.decode(os.read(self.ours, 65_536))
            if ended:
                break
            assert time.monotonic() < end, self.text
        return self.text.replace("\r\n", "\n")

    def type(self, text: str) -> None:
        os.write(self.ours, text.encode())

    def close(self) -> None:
        os.close(self.ours)
        os.close(self.theirs)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    made = Terminal()
    yield made
    made.close()


def on(terminal: Terminal, **environment: str) -> dict[str, Any]:
    return {
        "stdin": terminal.theirs,
        "stdout": terminal.theirs,
        "stderr": terminal.theirs,
        "env": dict(os.environ) | environment,
    }


@pytest.mark.parametrize(
    ("environment", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False), ({"NO_COLOR": ""}, True)],
)
def test_colours_are_for_terminals_that_want_them(
    daemon: FakeDaemon, spawn: Spawn, terminal: Terminal, environment: dict[str, str], coloured: bool
) -> None:
    daemon.script["session.status"] = view("failed", paired=True)
    text = terminal.rest(spawn("status", "alerts", **on(terminal, **environment)))
    assert ("\x1b[" in text) is coloured
    assert "failed" in text


def test_json_on_a_terminal_is_only_json(daemon: FakeDaemon, spawn: Spawn, terminal: Terminal) -> None:
    daemon.script["session.status"] = view("failed", paired=True)
    text = terminal.rest(spawn("status", "alerts", "--json", **on(terminal)))
    assert len(documents(text)) == 1


def pairing(daemon: FakeDaemon) -> None:
    daemon.script |= {
        "daemon.info": t.DaemonInfo(pid=1, version="9", protocol=1, started_at=1, last_cursor=41),
        "session.connect": view("pairing", desired="up"),
        "session.status": view("open", paired=True, me_pn="15550000001@s.whatsapp.net"),
        "session.qr": in_turn(*[result(code(1))] * 2, result(code(2))),
        "events.subscribe": subscription(shown(2), status(60, "connecting"), status(61, "open")),
    }


def test_codes_replace_one_another_and_scan_on_any_background(
    daemon: FakeDaemon, spawn: Spawn, terminal: Terminal
) -> None:
    pairing(daemon)
    process = spawn("qr", "alerts", **on(terminal))
    text = terminal.rest(process)
    assert process.returncode == 0
    first, second = blocks(text)
    assert from_terminal(first, colour=True) == expected(code(1).qr)
    assert from_terminal(second, colour=True) == expected(code(2).qr)
    (up,) = re.findall(r"\x1b\[(\d+)A\x1b\[J", text)
    assert int(up) == len(first) + 1


def test_codes_without_colour_stay_readable(daemon: FakeDaemon, spawn: Spawn, terminal: Terminal) -> None:
    pairing(daemon)
    text = terminal.rest(spawn("qr", "alerts", **on(terminal, NO_COLOR="1")))
    assert [from_terminal(one, colour=False) for one in blocks(text)] == [
        expected(code(1).qr),
        expected(code(2).qr),
    ]


def test_connect_on_a_terminal(daemon: FakeDaemon, spawn: Spawn, terminal: Terminal) -> None:
    pairing(daemon)
    process = spawn("connect", "alerts", **on(terminal))
    text = terminal.rest(process)
    assert process.returncode == 0
    assert len(blocks(text)) == 2
    assert text.index("pairing") < text.index("connecting") < text.index("open\x1b[0m")
    assert "+15550000001" in text


def test_a_terminal_too_small_is_told(daemon: FakeDaemon, spawn: Spawn) -> None:
    pairing(daemon)
    small = Terminal(rows=24, columns=40)
    try:
        text = small.rest(spawn("qr", "alerts", "--once", **on(small)))
    finally:
        small.close()
    assert "too small" in text
    assert "--png" in text


@pytest.mark.parametrize("command", ["logout", "remove"])
@pytest.mark.parametrize(
    ("answer", "exit_status", "asked"),
    [("y\n", 0, 1), ("n\n", 1, 0), ("\n", 1, 0), ("\x04", 1, 0), ("\x03", 130, 0)],
)
def test_what_destroys_asks_on_a_terminal(
    daemon: FakeDaemon,
    spawn: Spawn,
    terminal: Terminal,
    command: str,
    answer: str,
    exit_status: int,
    asked: int,
) -> None:
    daemon.script |= {
        "session.logout": t.LogoutResult(session=view("stopped"), unlinked=True),
        "session.remove": t.RemoveResult(name="alerts", connection_id=ID),
    }
    settings = on(terminal) | {"start_new_session": True, "preexec_fn": _take_terminal}
    process = spawn(command, "alerts", **settings)
    terminal.read_until("[y/N]")
    terminal.type(answer)
    if answer == "\x03":
        # A signal that comes between a program's last look and its read is noticed at the next one.
        with suppress(subprocess.TimeoutExpired):
            process.wait(1.0)
        if process.poll() is None:
            terminal.type(answer)
    text = terminal.rest(process)
    assert (process.returncode, len(daemon.requests)) == (exit_status, asked)
    assert "Traceback" not in text
    if exit_status == 1:
        assert "nothing was done" in text


def _take_terminal() -> None:
    """Make standard input the controlling terminal, so that Ctrl-C is a signal."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def test_a_question_is_no_data(daemon: FakeDaemon, spawn: Spawn, terminal: Terminal) -> None:
    daemon.script["session.remove"] = t.RemoveResult(name="alerts", connection_id=ID)
    process = spawn("remove", "alerts", "--json", **(on(terminal) | {"stdout": subprocess.PIPE}))
    terminal.read_until("[y/N]")
    terminal.type("y\n")
    out, _ = process.communicate(timeout=PATIENCE_S)
    assert len(documents(out)) == 1


def test_reading_a_text_from_a_terminal_says_so(daemon: FakeDaemon, spawn: Spawn, terminal: Terminal) -> None:
    daemon.script["message.send"] = refusal("refused", "enough")
    process = spawn("send", "alerts", "15550000002", **on(terminal))
    terminal.read_until("Ctrl-D")
    terminal.type("hello\n\x04")
    terminal.rest(process)
    assert daemon.params("message.send")["text"] == "hello"


# ------------------------------------------------------------------------------------------------ early ends


@pytest.mark.parametrize(
    ("words", "method"),
    [
        (["status", "alerts"], "session.status"),
        (["tail-events"], "events.subscribe"),
        (["connect", "alerts"], "session.connect"),
        (["logout", "alerts", "--yes"], "session.logout"),
    ],
)
def test_ctrl_c_is_130_and_quiet(daemon: FakeDaemon, spawn: Spawn, words: list[str], method: str) -> None:
    daemon.script[method] = say_nothing
    daemon.script["daemon.info"] = t.DaemonInfo(pid=1, version="9", protocol=1, started_at=1)
    process = spawn(*words)
    daemon.await_request(method)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out, err) == (130, b"", b"")


def test_a_reader_that_has_seen_enough(daemon: FakeDaemon, spawn: Spawn) -> None:
    many = [event(n, "x", {"text": "y" * 1000}) for n in range(1000)]
    daemon.script["events.subscribe"] = subscription(*many)
    process = spawn("tail-events")
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    process.stdout = None
    _, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, err) == (0, b"")


def test_an_output_that_is_full(daemon: FakeDaemon, spawn: Spawn) -> None:
    daemon.script["session.status"] = view("open")
    with Path("/dev/full").open("wb") as full:
        process = spawn("status", "alerts", "--json", stdout=full)
        _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    (error,) = documents(err)
    assert error["symbol"] == "output"
    assert "No space left" in error["message"]


def test_a_place_for_errors_that_is_gone(daemon: FakeDaemon, spawn: Spawn) -> None:
    daemon.script["session.status"] = refusal("no_such_session", "no")
    with Path("/dev/full").open("wb") as full:
        process = spawn("status", "alerts", stderr=full)
        process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 4


@pytest.mark.parametrize("locale", ["C", "POSIX", "C.UTF-8"])
@pytest.mark.parametrize("encoding", ["", "ascii", "latin-1"])
def test_any_locale_will_do(daemon: FakeDaemon, spawn: Spawn, locale: str, encoding: str) -> None:
    daemon.script["session.status"] = view("open", push_name="Zoë ☎ 漢")
    environment = dict(os.environ) | {"LC_ALL": locale, "PYTHONIOENCODING": encoding}
    out, err = spawn("status", "alerts", "--json", env=environment).communicate(timeout=PATIENCE_S)
    assert documents(out)[0]["pushName"] == "Zoë ☎ 漢"
    process = spawn("status", "alerts", env=environment)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, err) == (0, b"")
    assert b"alerts  open" in out


def test_closed_standard_streams(daemon: FakeDaemon, spawn: Spawn) -> None:
    daemon.script |= {"session.status": view("open"), "session.qr": rotating()}
    for descriptors in ("0<&-", "1>&-", "2>&-", "0<&- 2>&-"):
        shell = f'exec "$0" -m wactl status alerts {descriptors}'
        done = subprocess.run(
            ["/bin/sh", "-c", shell, sys.executable],
            capture_output=True,
            timeout=PATIENCE_S,
            env=dict(os.environ),
        )
        assert b"Traceback" not in done.stderr
        assert done.returncode == (1 if "1>" in descriptors else 0), (descriptors, done)
