"""Every row of the disconnect table, produced for real and held against the table (chapter 02 §8, §9).

The daemon's inside runs on a simulated clock; `producers` holds how each row comes about. What is looked at is what an
operator can see: events, the session's row, the sealed credentials, and when the next connection is begun.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Final

import pytest
import trio
import trio.testing

from tests.e2e.producers import EXCEPTIONS, PRODUCERS, Producer, receives
from tests.e2e.town import ALICE, LONG_S, NAME, OLD, Snapshot, Town, town
from tests.link import kit
from tests.link.kit import IDENTITY
from tests.soak.inside import START_S, is_ready
from waD.config.sections import Reconnect
from waD.control.api import ControlError
from waD.control.types import EventView
from waD.link.credentials import Credentials
from waD.session.network import NetworkDoors
from waD.session.policy import STATE_AFTER
from waD.session.states import TRANSITIONS
from waD.session.table import ROWS, Action, Row
from waD.store.engine import Job

SETTINGS: Final = Reconnect()
SLACK_S: Final = 1.0
"""How late a dial may be begun on the simulated clock."""
QUIET_S: Final = 4 * 3600.0
"""After which nothing will happen any more."""
COUNTED: Final = ("backoff", "slow")
RECONNECTS: Final = ("restart", "backoff", "slow", "wait")
SPECIAL: Final = ("lease_lost",)
"""Nothing of it can be recorded: the store belongs to somebody else by then."""
USUAL: Final = [one for row in ROWS for one in PRODUCERS[row] if row not in SPECIAL]
LATER: Final = [one for one in USUAL if ROWS[one.row].limit or any(n > 1 for n, _ in ROWS[one.row].alerts)]


OpenTown = Callable[[trio.testing.MockClock], AbstractAsyncContextManager[Town]]


@pytest.fixture
def open_town(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OpenTown:
    """Opened inside the test, because some of them stop the daemon and start it again."""
    # The scripted server of `tests.link.kit` and the sandbox are the same server to the daemon.
    monkeypatch.setattr("waD.sandbox.sandbox.new_identity", lambda *_: IDENTITY)
    assert kit.NOW_S == START_S
    return partial(town, tmp_path)


def test_every_row_has_a_producer() -> None:
    without = [row for row in ROWS if not PRODUCERS[row]]
    assert without == [], f"rows that nothing produces: {', '.join(without)}"


def test_every_number_that_is_handled_otherwise_has_a_producer() -> None:
    for row in ROWS.values():
        for codes in row.codes:
            made = {one.code for one in EXCEPTIONS if one.row == row.id and one.handled_as == codes.row}
            assert made & set(range(codes.low, codes.high + 1)), (row.id, codes)


# What the table promises.


def rule_of(one: Producer) -> Row:
    return ROWS[one.handled_as or one.row]


def action_of(one: Producer, n: int = 1) -> Action:
    """What is done the n-th time in a row, when no newer client version is known."""
    row = rule_of(one)
    if row.limit is not None and n > row.limit.times:
        return row.limit.then
    return "hold" if row.needs_newer_version else row.action


def severity_of(one: Producer, n: int = 1) -> str | None:
    """The alert of the n-th time."""
    action = action_of(one, n)
    found = [severity for nth, severity in rule_of(one).alerts if nth == n + len(one.before)]
    found += ["critical"] if action in ("hold", "repair") else ["warning"] if action == "wait" else []
    return max(found, key=("info", "warning", "critical").index, default=None)


def hint_of(row: Row, action: Action) -> str | None:
    what = row.hint.replace("{name}", NAME)
    if action == "hold":
        what = what or row.meaning
        return what if "wactl" in what else f"{what}; then wactl connect {NAME}"
    if action in ("backoff", "slow", "wait"):
        return f"{what}; it tries again by itself" if what else "it tries again by itself"
    return what or None


def delay_of(one: Producer, n: int = 1) -> tuple[float, float] | None:
    """Bounds of the delay in seconds when all before were counted too; None when nothing is to follow."""
    row, action, done = rule_of(one), action_of(one, n), n - 1 + len(one.before)
    if action in ("restart", "repair"):
        return 0, 0
    if action == "wait":
        return one.wait_s, one.wait_s
    if action not in COUNTED:
        return None
    if row.fixed_s is not None:
        return row.fixed_s, row.fixed_s + SETTINGS.jitter_s
    if row.quick_after_stable and one.was_open and n == 1:
        return 0, SETTINGS.jitter_s
    first = SETTINGS.base_s if action == "backoff" else row.base_s or SETTINGS.slow_base_s
    longest = SETTINGS.max_s if action == "backoff" else SETTINGS.slow_max_s
    least = min(first * SETTINGS.multiplier**done, longest)
    return least, min(least + SETTINGS.jitter_s, longest)


# Making it happen.


async def prepare(place: Town, one: Producer) -> None:
    """Bring the session to where the row begins."""
    if one.stage == "pairing":
        await place.machine.manager.connect(NAME)
        await place.codes()
        return
    await place.pair()
    if one.stage == "login":
        await place.machine.manager.disconnect(NAME)
    elif one.stage == "unlinked":
        place.sandbox.fault("unlink", place.device.key)
        await place.codes()


async def produce(place: Town, one: Producer) -> None:
    if one.stage == "start":
        await place.stop()
        await one.act(place)
        await place.start()
        return
    await one.act(place)
    if one.stage == "login":
        await place.machine.manager.connect(NAME)


# Looking at it.


def distinct(texts: Iterable[str]) -> list[str]:
    """Without what only repeats the one before."""
    found = list(texts)
    return found[:1] + [b for a, b in pairwise(found) if a != b]


async def check_path(place: Town, one: Producer, before: Snapshot, event: EventView) -> None:
    """The states it went through are those, and all steps are in the table."""
    begin = {"login": ["connecting"], "start": ["stopped"]}.get(one.stage, [])
    again = ["backoff", "connecting"] * len(one.before)
    expected = begin + again + (["open"] if one.opens else []) + [STATE_AFTER[action_of(one)]]
    status = before.row.current_status
    told = [
        found.data["status"]
        for found in await place.machine.statuses(NAME, before.cursor)
        if found.cursor <= event.cursor
    ]
    path = distinct([status, *told])[1:]
    assert path == distinct([status, *expected])[1:]
    assert all(step in TRANSITIONS for step in pairwise(distinct([status, *expected])))


async def check_record(place: Town, one: Producer, event: EventView) -> None:
    row, action = rule_of(one), action_of(one)
    hint = hint_of(row, action)
    assert event.data["status"] == STATE_AFTER[action]
    assert (event.data.get("code"), event.data.get("hint")) == (one.number, hint)
    record = (await place.row()).last_disconnect
    if one.row == "stop":
        assert record is None  # an order does not hide why it was down before
        return
    assert record is not None
    assert (record.cause, record.code) == (one.row, one.number)
    detail = record.detail
    assert (detail["wasOpen"], detail["reached"], detail["action"]) == (one.was_open, one.reached, action)
    assert detail.get("hint", "") == (hint or "")
    assert detail["message"]
    assert detail["ageS"] >= 0
    if ROWS[one.row].section in ("stream", "failure"):
        assert detail["stanza"]["tag"] in ("stream:error", "failure", "xmlstreamend", "ib")


async def check_errors(place: Town, one: Producer, before: Snapshot, event: EventView) -> None:
    """Durable before the action, and told once: not what is asked for or ordered."""
    errors = await place.machine.events("connection:error", since=before.cursor)
    errors = [error for error in errors if error.data["cause"] == one.row]
    if one.row in ("restart", "stop"):
        assert errors == []
        return
    assert [error.data.get("code") for error in errors] == [one.number]
    resets = await place.machine.events("auth:reset", since=before.cursor)
    assert all(errors[0].cursor < reset.cursor for reset in resets)
    assert errors[0].cursor < event.cursor


async def check_alerts(place: Town, one: Producer, before: Snapshot) -> None:
    alerts = await place.machine.events("alert:raised", since=before.cursor)
    severity = severity_of(one)
    assert [alert.data["severity"] for alert in alerts] == ([] if severity is None else [severity])
    for alert in alerts:
        assert (alert.data["cause"], alert.data["subject"]) == (one.row, NAME)
        assert alert.data.get("hint") == hint_of(rule_of(one), action_of(one))


async def check_delay(place: Town, one: Producer, before: Snapshot, event: EventView) -> None:
    """What is announced is within the bounds, and is what happens."""
    bounds = delay_of(one)
    planned = event.data.get("nextAttemptAt")
    record = (await place.row()).last_disconnect
    attempts = (await place.row()).reconnect_attempt
    assert attempts == before.row.reconnect_attempt + len(one.before) + (action_of(one) in COUNTED)
    if bounds is None:
        assert planned is None
        assert record is None or "nextAttemptAt" not in record.detail
        return
    assert record is not None
    told = record.detail["nextAttemptAt"]
    delay = (told - event.time) / 1000
    assert bounds[0] - 0.01 <= delay <= bounds[1] + 0.01
    assert planned == (told if delay > 0.01 else None)
    at = await place.dialed(before.dials + len(one.before) + (one.stage == "login"))
    assert 0 <= (at + START_S) - told / 1000 + 0.01 <= SLACK_S + 0.01


async def check_auth(place: Town, one: Producer, before: Snapshot) -> None:
    """The credentials are as they were, or sealed as they were and others in their place."""
    now = await place.snapshot()
    resets = await place.machine.events("auth:reset", since=before.cursor)
    if not (action_of(one) == "repair" or ROWS[one.row].clears_auth):
        assert resets == []
        assert len(now.seals) == len(before.seals)
        if one.stage != "start":  # a login changes what the server told, never the keys
            assert keys_of(now) == keys_of(before) or one.row in ("pair_hmac", "pair_sig", "pair_refused")
        return
    assert [event.data["reason"] for event in resets] == [one.row]
    assert len(now.seals) == len(before.seals) + 1
    sealed = await place.machine.store.sealed(now.row.id, now.seals[0])
    assert sealed.creds is not None
    assert before.creds is not None
    assert Credentials.parse(sealed.creds).noise == Credentials.parse(before.creds).noise
    assert now.creds is not None
    fresh = Credentials.parse(now.creds)
    assert not fresh.registered
    assert fresh.identity != Credentials.parse(before.creds).identity


def keys_of(snapshot: Snapshot) -> tuple[object, ...]:
    assert snapshot.creds is not None
    creds = Credentials.parse(snapshot.creds)
    return creds.noise, creds.identity, creds.registration_id, creds.account, creds.me_pn


async def check_history(place: Town) -> None:
    if (await place.row()).last_message_at is not None:
        history = await place.machine.manager.messages(NAME, chat=None, before=None, limit=50)
        assert history.messages[-1].body == OLD
        assert await place.machine.bodies() != []


# What comes afterwards.


async def comes_back(place: Town, before: Snapshot) -> None:
    """By itself; and what went wrong is forgotten once it is stable."""
    view = await place.machine.until(is_ready, NAME, LONG_S)
    assert view.last_disconnect is not None
    await place.stable()
    row = await place.row()
    assert (row.last_disconnect, row.reconnect_attempt, row.current_status) == (None, 0, "open")
    assert keys_of(await place.snapshot()) == keys_of(before)


async def rests_until_told(place: Town, state: str) -> None:
    """Nothing happens any more before the operator acts."""
    dials = len(place.machine.dials.begun)
    await trio.sleep(QUIET_S)
    assert len(place.machine.dials.begun) == dials
    assert (await place.machine.status(NAME)).state == state
    await place.machine.manager.connect(NAME)
    await place.dialed(dials)


async def is_paired_again(place: Town) -> None:
    await place.scan()
    await place.machine.until(is_ready, NAME, LONG_S)
    await check_history(place)


async def check_afterwards(place: Town, one: Producer, before: Snapshot) -> None:
    action = action_of(one)
    place.heal()
    if action in RECONNECTS and one.stage == "pairing":
        await is_paired_again(place)
    elif action in RECONNECTS:
        await comes_back(place, before)
    elif action == "repair":
        await place.codes()
        await place.ended("qr_exhausted", before.cursor)
        await rests_until_told(place, "needs_pairing")
        await is_paired_again(place)
    elif action == "close":
        await rests_until_told(place, "needs_pairing")
        await is_paired_again(place)
    elif one.row == "auth_corrupt":
        await follows_the_hint(place)
    else:
        await rests_until_told(place, STATE_AFTER[action])
        if one.row == "logout":
            await place.scan()
        await place.machine.until(is_ready, NAME, LONG_S)


async def follows_the_hint(place: Town) -> None:
    """Credentials that cannot be read stay until they are given up."""
    dials = len(place.machine.dials.begun)
    await trio.sleep(QUIET_S)
    await place.machine.manager.connect(NAME)
    await place.machine.until(lambda view: view.state == "failed", NAME)
    assert len(place.machine.dials.begun) == dials
    await place.machine.manager.logout(NAME)
    await place.machine.manager.connect(NAME)
    await is_paired_again(place)


# The tests.


@pytest.mark.parametrize("one", USUAL, ids=str)
async def test_row(open_town: OpenTown, mock_clock: trio.testing.MockClock, one: Producer) -> None:
    async with open_town(mock_clock) as place:
        await check(place, one)


@pytest.mark.parametrize("one", EXCEPTIONS, ids=str)
async def test_number_that_is_handled_otherwise(
    open_town: OpenTown, mock_clock: trio.testing.MockClock, one: Producer
) -> None:
    async with open_town(mock_clock) as place:
        await check(place, one)


async def check(place: Town, one: Producer) -> None:
    await prepare(place, one)
    before = await place.snapshot()
    await produce(place, one)
    event = await place.ended(one.row, before.cursor)
    await check_path(place, one, before, event)
    await check_record(place, one, event)
    await check_errors(place, one, before, event)
    await check_alerts(place, one, before)
    await check_auth(place, one, before)
    await check_history(place)
    await check_delay(place, one, before, event)
    await check_afterwards(place, one, before)
    await place.machine.check_transitions()
    assert place.machine.dials.most == 1


@pytest.mark.parametrize(
    "row",
    [row for row in ROWS.values() if row.id in {one.row for one in LATER} and row.id != "eof_fresh"],
    ids=lambda row: row.id,
)
async def test_row_again_and_again(open_town: OpenTown, mock_clock: trio.testing.MockClock, row: Row) -> None:
    """Until its limit is reached, and its last alert was raised."""
    async with open_town(mock_clock) as place:
        # With `open` between, an internal error would never be the session's fault.
        before_open = [one for one in PRODUCERS[row.id] if one.stage != "open"]
        one = (before_open or PRODUCERS[row.id])[0]
        times = max([n for n, _ in row.alerts] + ([] if row.limit is None else [row.limit.times + 1]))
        if row.needs_newer_version:
            place.patch.setattr(NetworkDoors, "newer_version", _yes)
        await prepare(place, one)
        before = await place.snapshot()
        if one.stage == "login":  # all at once: the next connection may be made at once
            for _ in range(times):
                await one.act(place)
            await place.machine.manager.connect(NAME)
        wanted: list[str | None] = []
        for n in range(1, times + 1):
            if one.stage == "open":
                await place.machine.until(is_ready, NAME, LONG_S)
            elif one.stage == "pairing":
                await place.codes()
            if one.stage != "login":
                await one.act(place)
            event = await place.ended(one.row, before.cursor, n)
            last = row.limit is not None and n > row.limit.times
            action = row.limit.then if last and row.limit is not None else row.action
            assert event.data["status"] == STATE_AFTER[action], n
            wanted.append(
                severity_of(one, n) if not row.needs_newer_version else "critical" if last else None
            )
        assert await alerts_since(place, before.cursor) == [one for one in wanted if one is not None]
        # Whatever was done in the end is what `test_row` looks at; here it counts that there are no more connections.
        if row.limit is not None and row.limit.then == "hold":
            await rests_until_told(place, "failed")
        await place.machine.check_transitions()


async def alerts_since(place: Town, cursor: int) -> list[str]:
    """Severities of the alerts so far; that about many reconnects left out."""
    alerts = [event.data for event in await place.machine.events("alert:raised", since=cursor)]
    return [data["severity"] for data in alerts if "reconnects within" not in data["message"]]


async def _yes(_: NetworkDoors) -> bool:
    return True


async def test_a_session_that_is_run_elsewhere_now(
    open_town: OpenTown, mock_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The row `lease_lost`: nothing of the session is written and nothing leaves any more; the operator is alerted."""
    async with open_town(mock_clock) as place:
        (one,) = PRODUCERS["lease_lost"]
        await prepare(place, one)
        before = await place.snapshot()
        heard: list[str] = []
        place.patch.setattr(
            place.sandbox.core.world,
            "note_traffic",
            lambda direction, _, node: heard.append(node.tag) if direction == "in" else None,
        )
        with caplog.at_level(logging.INFO):
            await produce(place, one)
            view = await place.machine.until(lambda view: view.state == "stopped", NAME)
        row = ROWS["lease_lost"]
        assert view.hint == row.hint
        await trio.sleep(QUIET_S)
        (alert,) = [found for found in caplog.records if found.levelno == logging.CRITICAL]
        assert row.meaning in alert.message
        assert heard == []
        assert await alerts_since(place, before.cursor) == ["critical"]
        after = await place.snapshot()
        assert (after.creds, after.cursor, after.dials) == (before.creds, before.cursor + 1, before.dials)
        assert after.row.lease_holder == "another process"
        assert after.row.current_status == before.row.current_status
        with pytest.raises(ControlError) as refused:
            await place.machine.manager.connect(NAME)
        assert refused.value.symbol == "lease_held"
        assert len(place.device.queue) == 1


async def test_a_message_is_not_acknowledged_before_it_is_durable(
    open_town: OpenTown, mock_clock: trio.testing.MockClock
) -> None:
    """The row `auth_write` once more: what could not be stored comes again, and only then is it answered."""
    async with open_town(mock_clock) as place:
        (one,) = PRODUCERS["auth_write"]
        await prepare(place, one)
        await produce(place, one)
        await place.ended("auth_write", 0)
        assert len(place.device.queue) == 1
        assert "while the disk is full" not in await place.machine.bodies()
        place.heal()
        await place.machine.manager.connect(NAME)
        await place.machine.until(is_ready, NAME)
        await place.sandbox.wait(lambda: not place.device.queue)
        assert (await place.machine.bodies()).count("while the disk is full") == 1


async def test_a_disk_that_takes_nothing_at_all(
    open_town: OpenTown, mock_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Not even the record of it: the session is held down all the same, and the log says so."""
    async with open_town(mock_clock) as place:
        await place.pair()

        def everything(_: Job) -> bool:
            return True

        place.machine.engine.refuses = everything
        await place.bob.send(ALICE, "while the disk is full")
        view = await place.machine.until(lambda view: view.state == "failed", NAME)
        assert view.hint == ROWS["auth_write"].hint.replace("{name}", NAME)
        assert "could not even be recorded" in caplog.text
        dials = len(place.machine.dials.begun)
        await trio.sleep(QUIET_S)
        assert len(place.machine.dials.begun) == dials
        place.heal()
        await place.machine.manager.connect(NAME)
        await place.machine.until(is_ready, NAME)
        await place.sandbox.wait(lambda: not place.device.queue)
        assert (await place.machine.bodies()).count("while the disk is full") == 1
        assert receives


async def test_attempts_that_never_reach_whatsapp_go_on_as_probes(
    open_town: OpenTown, mock_clock: trio.testing.MockClock
) -> None:
    """Ten attempts with growing delays, then one every quarter of an hour, and one critical alert for all of them."""
    async with open_town(mock_clock) as place:
        (one, *_) = PRODUCERS["refused"]
        await prepare(place, one)
        before = await place.snapshot()
        await produce(place, one)
        view = await place.machine.until(lambda view: view.state == "failed", NAME, LONG_S)
        assert view.next_attempt_at is not None
        assert "all attempts failed" in view.hint
        await trio.sleep(3 * SETTINGS.probe_interval_s + 10)
        dials = place.machine.dials.of(NAME)[before.dials :]
        gaps = [b - a for a, b in pairwise(dials)]
        bounds = [delay_of(one, n) for n in range(1, SETTINGS.attempts + 1)]
        assert len(gaps) == SETTINGS.attempts + 3
        for gap, bound in zip(gaps, bounds, strict=False):
            assert bound is not None
            assert bound[0] - 0.01 <= gap <= bound[1] + SLACK_S
        for gap in gaps[SETTINGS.attempts :]:
            assert abs(gap - SETTINGS.probe_interval_s) < SLACK_S
        alerts = await place.machine.events("alert:raised", since=before.cursor)
        assert [alert.data["severity"] for alert in alerts].count("critical") == 1
        place.heal()
        await place.machine.until(is_ready, NAME, LONG_S)
        await place.stable()
        assert (await place.row()).reconnect_attempt == 0
        await place.machine.check_transitions()


async def test_attempts_that_whatsapp_refuses_come_to_an_end(
    open_town: OpenTown, mock_clock: trio.testing.MockClock
) -> None:
    """Nothing more without the operator: whoever answered the login knows what it does."""
    async with open_town(mock_clock) as place:
        place.patch.setattr(NetworkDoors, "newer_version", _yes)
        await place.pair()
        await place.machine.manager.disconnect(NAME)
        before = await place.snapshot()
        place.fault("failure", code=503, count=0)
        await place.machine.manager.connect(NAME)
        await place.machine.until(lambda view: view.state == "failed", NAME, LONG_S)
        dials = place.machine.dials.of(NAME)[before.dials :]
        assert len(dials) == SETTINGS.attempts + 1
        assert keys_of(await place.snapshot()) == keys_of(before)
        place.heal()
        await rests_until_told(place, "failed")
        await place.machine.until(is_ready, NAME, LONG_S)
