"""`wactl tail-events`: nothing lost, nothing twice, also across a restart of the daemon."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from tests.wactl.conftest import Run, Spawn, documents, error_of
from tests.wactl.fake import (
    MESSAGE,
    PATIENCE_S,
    Connection,
    FakeDaemon,
    event,
    hang_up,
    in_turn,
    refusal,
    status,
    subscription,
)
from wactl.base import App
from wactl.commands.tail_events import FIRST_DELAY_S, MAX_DELAY_S, Tail
from wactl.failure import Failure
from waD.control import types as t

NEW = event(
    5,
    "message:new",
    {
        "chat": "9@lid",
        "sender": "9@lid",
        "senderPn": "15550000002@s.whatsapp.net",
        "pushName": "Bob",
        "messageId": "M1",
        "fromMe": False,
        "kind": "text",
        "body": "on\nmy \x1b[2Jway",
    },
)
SENT = event(
    6, "message:status", {"chat": "15550000002@s.whatsapp.net", "messageId": MESSAGE, "status": "sent"}
)


def complete(cursor: int = 9) -> Callable[[Connection], None]:
    return lambda connection: connection.end("complete", cursor)


def test_json_lines_are_the_events(daemon: FakeDaemon, run: Run) -> None:
    daemon.script["events.subscribe"] = subscription(NEW, SENT, then=complete())
    result = run(
        "tail-events", "alerts", "--since", "4", "--no-follow", "--type", "a", "--type", "b", "--json"
    )
    assert (result.exit_code, result.stderr) == (0, "")
    assert documents(result.stdout) == [msgspec.to_builtins(NEW), msgspec.to_builtins(SENT)]
    assert daemon.params("events.subscribe") == {
        "since": 4,
        "types": ["a", "b"],
        "session": "alerts",
        "follow": False,
    }


def test_the_whole_log_without_since(daemon: FakeDaemon, run: Run) -> None:
    daemon.script["events.subscribe"] = subscription(then=complete())
    assert run("tail-events", "--no-follow").exit_code == 0
    assert daemon.params("events.subscribe") == {"since": 0, "types": [], "session": None, "follow": False}


@pytest.mark.parametrize(
    ("one", "line"),
    [
        (NEW, "message:new  +15550000002 'Bob' in 9@lid: on↵my [2Jway  M1"),
        (SENT, f"message:status  {MESSAGE} to +15550000002: sent"),
        (
            event(6, "message:status", {"messageId": "M", "chat": "1@lid", "status": "failed", "error": "x"}),
            "message:status  M to 1@lid: failed (x)",
        ),
        (
            event(
                6, "message:update", {"fromMe": True, "chat": "1@lid", "kind": "text", "reason": "revoked"}
            ),
            "message:update  me in 1@lid (revoked) [text]",
        ),
        (status(1, "open", ready=True), "connection:status  open ready=true"),
        (event(1, "connection:qr", {}), "connection:qr  a code is shown"),
        (
            event(1, "connection:qr", {"number": 2, "of": 6, "expiresAt": 1_767_225_660_000}),
            "connection:qr  code 2 of 6, good until 2026-01-01 00:01:00",
        ),
        (
            event(1, "connection:error", {"cause": "eof", "message": "it ended", "code": 428}),
            "connection:error  eof: it ended code=428",
        ),
        (
            event(1, "alert:raised", {"severity": "critical", "subject": "alerts", "message": "look"}),
            "alert:raised  critical: alerts: look",
        ),
        (event(1, "future:thing", {"a": [1], "b\x07": "c\x1bd"}), "future:thing  a=[1] b=cd"),
        (event(1, "message:new", {"chat": 7, "body": ["x"], "sender": None}), 'message:new  - in 7: ["x"]'),
        (event(1, "connection:qr", {"expiresAt": "soon"}), "connection:qr  code  of , good until -"),
    ],
)
def test_one_line_for_people(daemon: FakeDaemon, run: Run, one: t.EventView, line: str) -> None:
    daemon.script["events.subscribe"] = subscription(one, then=complete())
    assert run("tail-events", "--no-follow").stdout == f"2026-01-01 00:01:00  alerts  {line}\n"


def test_an_event_of_no_session(daemon: FakeDaemon, run: Run) -> None:
    daemon.script["events.subscribe"] = subscription(event(1, "x", {}, session=None), then=complete())
    assert run("tail-events", "--no-follow").stdout == "2026-01-01 00:01:00  -  x\n"


def test_a_long_text_is_cut(daemon: FakeDaemon, run: Run) -> None:
    long = event(1, "message:new", {"body": "x" * 5000, "chat": "1@lid", "sender": "1@lid"})
    daemon.script["events.subscribe"] = subscription(long, then=complete())
    assert len(run("tail-events", "--no-follow").stdout) < 400


@pytest.mark.parametrize(
    ("outcome", "exit_status"),
    [
        (refusal("no_such_session", "no"), 4),
        (refusal("not_permitted", "no"), 7),
        (refusal("cursor_expired", "the log begins at 100", oldest=100), 1),
        (refusal("shutting_down", "no"), 3),
        (hang_up, 3),
    ],
)
def test_what_fails_at_once_is_not_tried_again(
    daemon: FakeDaemon, run: Run, outcome: Any, exit_status: int
) -> None:
    daemon.script["events.subscribe"] = outcome
    assert run("tail-events").exit_code == exit_status
    assert daemon.methods() == ["events.subscribe"]


def test_a_subscription_that_fails_later(daemon: FakeDaemon, run: Run) -> None:
    lost = refusal("cursor_expired", "too slow", oldest=100)
    daemon.script["events.subscribe"] = subscription(NEW, then=lambda c: c.end("failed", 5, lost))
    result = run("tail-events", "--json")
    assert len(documents(result.stdout)) == 1
    assert error_of(result)["data"] == {"oldest": 100}


@pytest.mark.parametrize(
    "goodbye", [lambda c: c.end("stopped", 6), lambda c: c.hang_up()], ids=["stop", "cut"]
)
def test_without_reconnecting_the_end_of_the_daemon_is_3(
    daemon: FakeDaemon, run: Run, goodbye: Callable[[Connection], None]
) -> None:
    daemon.script["events.subscribe"] = subscription(NEW, SENT, then=goodbye)
    result = run("tail-events", "--no-reconnect")
    assert result.exit_code == 3
    assert len(result.stdout.splitlines()) == 2
    assert len(daemon.requests) == 1


@pytest.mark.parametrize(
    "goodbye", [lambda c: c.end("stopped", 8), lambda c: c.hang_up()], ids=["stop", "cut"]
)
def test_goes_on_behind_the_last_cursor(
    daemon: FakeDaemon, run: Run, goodbye: Callable[[Connection], None]
) -> None:
    more = [event(n, "x", {}) for n in (9, 10)]
    daemon.script["events.subscribe"] = in_turn(
        subscription(NEW, SENT, then=goodbye),
        refusal("storage_unavailable", "a moment"),
        hang_up,
        subscription(*more, then=complete(10)),
    )
    result = run("tail-events", "--json")
    assert result.exit_code == 0
    assert [one["cursor"] for one in documents(result.stdout)] == [5, 6, 9, 10]
    since = [one["params"]["since"] for one in daemon.requests]
    last = since[1]
    assert since == [None, last, last, last]
    assert last in (6, 8)  # 8: the daemon said that it had looked so far


def test_nothing_seen_yet_goes_on_where_it_began(daemon: FakeDaemon, run: Run) -> None:
    daemon.script["events.subscribe"] = in_turn(
        subscription(last=4720, then=lambda c: c.hang_up()), subscription(then=complete())
    )
    result = run("tail-events")
    assert (result.exit_code, daemon.params("events.subscribe")["since"]) == (0, 4720)
    assert "waiting for it to come back" in result.stderr


def test_follows_a_daemon_that_is_started_again(daemon: FakeDaemon, spawn: Spawn) -> None:
    daemon.script["events.subscribe"] = subscription(NEW)
    process = spawn("tail-events", "--json")
    daemon.await_request("events.subscribe")
    assert process.stdout is not None
    assert msgspec.json.decode(process.stdout.readline())["cursor"] == 5
    daemon.stop()
    daemon.script["events.subscribe"] = subscription(SENT)
    daemon.start()
    assert daemon.await_request("events.subscribe")["params"]["since"] == 5
    assert msgspec.json.decode(process.stdout.readline())["cursor"] == 6
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out, err) == (130, b"", b"")


def test_what_stays_refused_after_a_restart_is_told(daemon: FakeDaemon, run: Run) -> None:
    daemon.script["events.subscribe"] = in_turn(
        subscription(NEW, then=lambda c: c.hang_up()), refusal("cursor_expired", "gone", oldest=50)
    )
    assert run("tail-events").exit_code == 1


def test_the_delays_grow_to_a_limit_and_begin_again(daemon: FakeDaemon) -> None:
    goes = subscription(NEW, then=lambda c: c.hang_up())
    daemon.script["events.subscribe"] = in_turn(
        goes, *[hang_up] * 9, goes, refusal("no_such_session", "gone")
    )
    delays: list[float] = []
    app = App()
    app.socket = daemon.path
    app.out.as_json = True
    with pytest.raises(Failure) as failure:
        Tail(app, t.SubscribeParams(), reconnect=True, sleep=delays.append).run()
    assert failure.value.symbol == "no_such_session"
    assert delays[0] == delays[-1] == FIRST_DELAY_S
    assert max(delays) == delays[9] == MAX_DELAY_S
    assert delays[:10] == sorted(delays[:10])


@pytest.mark.parametrize("since", ["-1", "x", str(1 << 60)])
def test_a_cursor_that_cannot_be(run: Run, since: str) -> None:
    assert run("tail-events", "--since", since).exit_code == 2
