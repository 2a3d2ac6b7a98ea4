"""`wactl connect` and `wactl qr`: states, codes, and how it ends."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Any

import msgspec
import pytest
import segno

from tests.wactl.codes import SAMPLE, blocks, expected, from_png, from_terminal
from tests.wactl.conftest import Run, documents, error_of
from tests.wactl.fake import (
    FakeDaemon,
    Handler,
    event,
    hang_up,
    in_turn,
    refusal,
    status,
    subscription,
    view,
)
from wactl import following
from wactl.qrcode import FILE_SCALE, draw, write_private
from waD.control import types as t

INFO = t.DaemonInfo(pid=1, version="9", protocol=1, started_at=1, last_cursor=41)
OPEN = view("open", paired=True, me="1@lid", me_pn="15550000001:2@s.whatsapp.net")
EXPIRES = 1_767_225_660_000


def code(number: int, text: str = SAMPLE) -> t.QrView:
    return t.QrView(
        session="alerts", qr=f"{text}{number}", number=number, of=6, expires_at=EXPIRES + number * 20_000
    )


def shown(number: int) -> t.EventView:
    return event(
        50 + number, "connection:qr", {"number": number, "of": 6, "expiresAt": code(number).expires_at}
    )


def result(one: t.QrView | None, state: t.State = "pairing", **more: Any) -> t.QrResult:
    return t.QrResult(session=view(state, **more), code=one)


def going_up(daemon: FakeDaemon, *events: t.EventView, final: Any = OPEN, codes: Any = None) -> None:
    daemon.script |= {
        "daemon.info": INFO,
        "session.connect": view("connecting", desired="up"),
        "session.status": final,
        "session.qr": codes if codes is not None else result(code(1)),
        "events.subscribe": subscription(*events),
    }


PAIRING = [
    status(42, "connecting"),
    status(43, "pairing"),
    shown(1),
    shown(2),
    status(60, "connecting"),
    status(61, "open"),
]


def rotating() -> Handler:
    return in_turn(result(None), result(code(1)), result(code(1)), result(code(2)))


def test_connect_shows_states_and_each_code_once(daemon: FakeDaemon, run: Run) -> None:
    going_up(daemon, *PAIRING, codes=rotating())
    done = run("connect", "alerts")
    assert done.exit_code == 0
    states = [line for line in done.stdout.splitlines() if re.fullmatch("[a-z_]+", line)]
    assert states == ["connecting", "pairing", "connecting", "open"]
    first, second = blocks(done.stdout)
    assert from_terminal(first, colour=False) == expected(code(1).qr)
    assert from_terminal(second, colour=False) == expected(code(2).qr)
    assert "code 2 of 6, good until 2026-01-01 00:01:40" in done.stdout
    assert "+15550000001" in done.stderr
    assert daemon.params("events.subscribe") == {
        "since": 41,
        "types": ["connection:status", "connection:qr"],
        "session": "alerts",
        "follow": True,
    }


def test_connect_asks_for_the_position_before_and_subscribes_after(daemon: FakeDaemon, run: Run) -> None:
    """A session that does not exist yet cannot be subscribed to, and nothing in between may be missed."""
    going_up(daemon, status(42, "open"))
    assert run("connect", "alerts").exit_code == 0
    assert daemon.methods() == ["daemon.info", "session.connect", "events.subscribe", "session.status"]


def test_connect_as_json(daemon: FakeDaemon, run: Run) -> None:
    going_up(daemon, *PAIRING, codes=rotating())
    done = run("connect", "alerts", "--json")
    assert documents(done.stdout) == [
        {"event": "state", "state": "connecting"},
        {"event": "state", "state": "pairing"},
        {"event": "qr", **msgspec.to_builtins(code(1))},
        {"event": "qr", **msgspec.to_builtins(code(2))},
        {"event": "state", "state": "connecting"},
        {"event": "state", "state": "open"},
        {"event": "open", "session": msgspec.to_builtins(OPEN)},
    ]
    assert done.stderr == ""


def test_connect_without_codes(daemon: FakeDaemon, run: Run) -> None:
    going_up(daemon, *PAIRING, codes=refusal("not_permitted", "no"))
    done = run("connect", "alerts", "--no-qr")
    assert (done.exit_code, blocks(done.stdout)) == (0, [])
    assert "session.qr" not in daemon.methods()


def test_connect_of_an_open_session_is_done_at_once(daemon: FakeDaemon, run: Run) -> None:
    going_up(daemon)
    daemon.script["session.connect"] = OPEN
    done = run("connect", "alerts")
    assert (done.exit_code, done.stdout) == (0, "open\n")


def test_connect_to_a_session_that_is_pairing_already(daemon: FakeDaemon, run: Run) -> None:
    going_up(daemon, status(60, "open"))
    daemon.script["session.connect"] = view("pairing")
    assert len(blocks(run("connect", "alerts").stdout)) == 1


def test_an_old_state_does_not_end_it(daemon: FakeDaemon, run: Run) -> None:
    """The daemon answers `session.connect` with the state from before the order."""
    going_up(daemon, status(42, "connecting"), status(43, "open"))
    daemon.script["session.connect"] = view("failed", paired=True)
    assert run("connect", "alerts").stdout.splitlines() == ["failed", "connecting", "open"]


def test_an_end_that_is_past_does_not_end_it(daemon: FakeDaemon, run: Run) -> None:
    going_up(daemon, status(42, "failed"), status(43, "connecting"), status(44, "open"))
    daemon.script["session.status"] = in_turn(view("connecting"), OPEN)
    assert run("connect", "alerts").exit_code == 0


def test_flags_that_change_are_no_new_state(daemon: FakeDaemon, run: Run) -> None:
    going_up(daemon, status(42, "connecting"), status(43, "connecting", healthy=True), status(44, "open"))
    assert run("connect", "alerts").stdout == "connecting\nopen\n"


@pytest.mark.parametrize(
    ("state", "cause", "exit_status", "symbol"),
    [
        ("failed", "tls", 1, "refused"),
        ("failed", None, 1, "refused"),
        ("needs_pairing", "qr_exhausted", 4, "wrong_state"),
        ("needs_pairing", None, 4, "wrong_state"),
        ("needs_pairing", "pair_sig", 1, "refused"),
        ("stopped", "operator", 4, "wrong_state"),
    ],
)
def test_ends_that_are_not_open(
    daemon: FakeDaemon, run: Run, state: t.State, cause: str | None, exit_status: int, symbol: str
) -> None:
    reason = t.DisconnectView(cause=cause, at=EXPIRES, code=7, message="so it is") if cause else None
    final = view(state, last_disconnect=reason)
    going_up(daemon, status(42, state), final=final)
    done = run("connect", "alerts", "--json")
    error = error_of(done)
    assert (done.exit_code, error["symbol"], error["data"]["state"]) == (exit_status, symbol, state)
    assert error["data"]["session"] == msgspec.to_builtins(final)
    text = run("connect", "alerts").stderr
    assert f"alerts is {state}" in text
    assert "wactl connect alerts" in text
    if cause:
        assert f"{cause} 7: so it is" in text


@pytest.mark.parametrize(
    ("answer", "exit_status"),
    [
        (refusal("wrong_state", "session 'alerts' is held; wactl release alerts first", held=True), 4),
        (refusal("lease_held", "run elsewhere", holder="db2"), 4),
        (refusal("not_permitted", "operators only", needs="operator"), 7),
        (refusal("bad_params", "name: letters, please", param="name"), 2),
        (hang_up, 3),
    ],
)
def test_connect_refused(daemon: FakeDaemon, run: Run, answer: Any, exit_status: int) -> None:
    going_up(daemon)
    daemon.script["session.connect"] = answer
    assert run("connect", "alerts").exit_code == exit_status


def test_connect_gives_up_waiting_but_not_the_session(daemon: FakeDaemon, run: Run) -> None:
    going_up(daemon, status(42, "backoff"), final=view("backoff"))
    done = run("connect", "alerts", "--timeout", "0.2", "--json")
    error = error_of(done)
    assert (done.exit_code, error["symbol"]) == (5, "timeout")
    assert "goes on trying" in error["message"]
    assert error["data"]["session"]["state"] == "backoff"


@pytest.mark.parametrize("goodbye", [lambda c: c.hang_up(), lambda c: c.end("stopped", 42)])
def test_the_daemon_goes_while_connecting(daemon: FakeDaemon, run: Run, goodbye: Any) -> None:
    going_up(daemon)
    daemon.script["events.subscribe"] = subscription(status(42, "connecting"), then=goodbye)
    assert run("connect", "alerts").exit_code == 3


def test_no_wait_says_what_comes_next(daemon: FakeDaemon, run: Run) -> None:
    daemon.script["session.connect"] = view("pairing")
    done = run("connect", "alerts", "--no-wait")
    assert (done.exit_code, done.stdout) == (0, "alerts  pairing\n")
    assert "wactl qr alerts" in done.stderr
    assert daemon.methods() == ["session.connect"]


def test_a_code_that_lags_behind_its_event_is_asked_for_again(daemon: FakeDaemon, run: Run) -> None:
    old = [result(None), result(code(1)), result(code(1)), result(code(1)), result(code(1)), result(code(2))]
    going_up(daemon, *PAIRING, codes=in_turn(*old))
    documents_ = documents(run("connect", "alerts", "--json").stdout)
    assert [one["number"] for one in documents_ if one["event"] == "qr"] == [1, 2]


def test_a_code_that_never_comes_is_passed_over(
    daemon: FakeDaemon, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "CODE_S", 0.05)
    going_up(daemon, *PAIRING, codes=result(None))
    assert run("connect", "alerts").exit_code == 0


# ------------------------------------------------------------------------------------------------------ wactl qr


def showing(daemon: FakeDaemon, *events: t.EventView, codes: Any = None, final: Any = OPEN) -> None:
    daemon.script |= {
        "daemon.info": INFO,
        "session.qr": codes if codes is not None else result(code(1)),
        "session.status": final,
        "events.subscribe": subscription(*events),
    }


def test_qr_follows_the_codes_until_paired(daemon: FakeDaemon, run: Run) -> None:
    showing(
        daemon,
        shown(2),
        status(60, "connecting"),
        status(61, "open"),
        codes=in_turn(*[result(code(1))] * 2, result(code(2))),
    )
    done = run("qr", "alerts")
    assert done.exit_code == 0
    assert [from_terminal(one, colour=False) for one in blocks(done.stdout)] == [
        expected(code(1).qr),
        expected(code(2).qr),
    ]
    assert "alerts is paired" in done.stderr


def test_qr_raw_once_is_the_text_alone(daemon: FakeDaemon, run: Run) -> None:
    showing(daemon)
    done = run("qr", "alerts", "--raw", "--once")
    assert (done.exit_code, done.stdout, done.stderr) == (0, f"{code(1).qr}\n", "")


def test_qr_waits_for_a_code_that_is_not_there_yet(daemon: FakeDaemon, run: Run) -> None:
    starting = result(None, "connecting")
    showing(daemon, status(43, "pairing"), shown(1), codes=in_turn(starting, result(None), result(code(1))))
    assert run("qr", "alerts", "--raw", "--once").stdout == f"{code(1).qr}\n"


def test_qr_as_json(daemon: FakeDaemon, run: Run) -> None:
    showing(daemon, shown(2), status(61, "open"), codes=in_turn(*[result(code(1))] * 2, result(code(2))))
    done = run("qr", "alerts", "--json")
    assert documents(done.stdout) == [msgspec.to_builtins(code(1)), msgspec.to_builtins(code(2))]


def test_qr_ends_when_the_codes_have(daemon: FakeDaemon, run: Run) -> None:
    reason = t.DisconnectView(cause="qr_exhausted", at=EXPIRES, code=408, message="nobody scanned")
    showing(daemon, status(70, "needs_pairing"), final=view("needs_pairing", last_disconnect=reason))
    done = run("qr", "alerts")
    assert done.exit_code == 4
    assert "nobody scanned" in done.stderr
    assert "wactl connect alerts" in done.stderr


@pytest.mark.parametrize(
    ("answer", "exit_status", "complaint"),
    [
        (result(None, "open", paired=True), 4, "no code to scan"),
        (result(None, "connecting", paired=True), 4, "no code to scan"),
        (result(None, "stopped"), 4, "wactl connect alerts"),
        (result(None, "new"), 4, "wactl connect alerts"),
        (result(None, "needs_pairing"), 4, "wactl connect alerts"),
        (result(None, "failed", paired=True), 1, "wactl connect alerts"),
        (refusal("no_such_session", "no session 'alerts'"), 4, "no session"),
        (refusal("not_permitted", "operators only"), 7, "operators"),
    ],
)
def test_qr_when_there_is_nothing_to_scan(
    daemon: FakeDaemon, run: Run, answer: Any, exit_status: int, complaint: str
) -> None:
    showing(daemon, codes=answer)
    done = run("qr", "alerts", "--once")
    assert (done.exit_code, done.stdout) == (exit_status, "")
    assert complaint in done.stderr


def test_qr_gives_up_in_time(daemon: FakeDaemon, run: Run) -> None:
    showing(daemon, final=view("pairing"))
    assert run("qr", "alerts", "--timeout", "0.2").exit_code == 5


def test_qr_files(daemon: FakeDaemon, run: Run, tmp_path: Path) -> None:
    showing(daemon, shown(2), status(61, "open"), codes=in_turn(*[result(code(1))] * 2, result(code(2))))
    png, svg = tmp_path / "a.png", tmp_path / "a.svg"
    png.write_bytes(b"older")
    png.chmod(0o644)
    previous = os.umask(0)
    try:
        done = run("qr", "alerts", "--png", str(png), "--svg", str(svg))
    finally:
        os.umask(previous)
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr.count("wrote code") == 4
    assert from_png(png.read_bytes(), FILE_SCALE) == expected(code(2).qr)
    assert b"<svg" in svg.read_bytes()
    assert {stat.S_IMODE(path.stat().st_mode) for path in (png, svg)} == {0o600}
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".sock") == ["a.png", "a.svg"]


def test_an_svg_says_the_same_as_the_code(daemon: FakeDaemon, run: Run, tmp_path: Path) -> None:
    showing(daemon)
    assert run("qr", "alerts", "--once", "--svg", str(tmp_path / "a.svg")).exit_code == 0
    (path,) = re.findall(r'd="(M[^"]+)"', (tmp_path / "a.svg").read_text())[-1:]
    dark = expected(code(1).qr)
    runs = sum(1 for row in dark for left, here in zip([0, *row], row, strict=False) if here and not left)
    assert len(re.findall(r"h(\d+)", path)) == runs
    assert sum(int(length) for length in re.findall(r"h(\d+)", path)) == sum(map(sum, dark))


def test_a_file_that_cannot_be_written(daemon: FakeDaemon, run: Run, tmp_path: Path) -> None:
    showing(daemon)
    done = run("qr", "alerts", "--once", "--json", "--png", str(tmp_path / "no" / "a.png"))
    error = error_of(done)
    assert (done.exit_code, error["symbol"]) == (1, "output")
    assert "No such file" in error["message"]


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "x"
    target.write_bytes(b"before")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(Exception, match="No space left"):
        write_private(target, b"after")
    assert target.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [target]


def test_raw_and_files_do_not_go_together(daemon: FakeDaemon, run: Run, tmp_path: Path) -> None:
    assert run("qr", "alerts", "--raw", "--png", str(tmp_path / "a")).exit_code == 2
    assert daemon.requests == []


@pytest.mark.parametrize("text", [SAMPLE, "a", "x" * 700, "ünïcode"])
def test_drawn_codes_are_the_code(text: str) -> None:
    assert from_terminal(draw(text, colour=True), colour=True) == expected(text)
    assert from_terminal(draw(text, colour=False), colour=False) == expected(text)
    assert from_terminal(draw(text, colour=False, invert=True), colour=False, inverted=True) == expected(text)
    assert draw(text, colour=True, invert=True) == draw(text, colour=True)


def test_a_code_fits_a_terminal_of_80_columns() -> None:
    assert len(draw(SAMPLE, colour=False)[0]) <= 80
    assert segno.make_qr(SAMPLE, error="l", boost_error=False).version <= 11


def test_invert_reaches_the_drawing(daemon: FakeDaemon, run: Run) -> None:
    showing(daemon)
    (drawn,) = blocks(run("qr", "alerts", "--once", "--invert").stdout)
    assert from_terminal(drawn, colour=False, inverted=True) == expected(code(1).qr)
