"""One session across its connections, with scripted ones and a clock that jumps."""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Mapping
from itertools import pairwise

import pytest
import trio
import trio.lowlevel
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.session.fakes import (
    PAIRED,
    START_MS,
    STAYS,
    Bench,
    Step,
    ends,
    refused,
    rejected,
    session_row,
    settings,
)
from waD.config import Alerts
from waD.link.causes import Cause, Rank
from waD.link.credentials import Credentials, CredentialsError
from waD.link.errors import Disconnected
from waD.session.mishaps import FAULT
from waD.session.record import public_detail
from waD.session.states import TRANSITIONS
from waD.session.table import ROWS
from waD.session.turns import Turns
from waD.store.errors import LeaseLost, StorageUnavailable
from waD.store.model import DisconnectRecord
from waD.store.unit import Committed, ItemKey, Unit
from waD.wire.jid import JID
from waD.wire.node import Node

LONG = 80_000.0
"""Seconds in which whatever was going to happen has happened."""


# The way up.


async def test_a_paired_session_opens_and_becomes_stable(autojump_clock: MockClock) -> None:
    bench = Bench()
    async with bench.running():
        await bench.reaches("open")
        assert bench.memory.stored.last_connected_at == START_MS + 1000
        await bench.vitals.until(lambda: bench.vitals.ready)
        assert bench.vitals.healthy is True
        await trio.sleep(1)
    assert bench.memory.statuses == ["connecting", "open", "open", "stopped"]
    assert [data["status"] for data in bench.of_type("connection:status")] == [
        "connecting", "open", "open", "stopped",
    ]  # fmt: skip
    assert bench.dials == [0.0]


async def test_an_unpaired_session_pairs_and_opens(autojump_clock: MockClock) -> None:
    bench = Bench(Step(pairs=True), paired=False)
    async with bench.running():
        await bench.vitals.until(lambda: bench.vitals.qr is not None)
        assert bench.status == "pairing"
        qr = bench.vitals.qr
        assert qr is not None
        assert (qr.qr, qr.session, qr.expires_at) == ("code-1", "alerts", START_MS + 60_500)
        assert "wactl qr alerts" in bench.vitals.hint
        await bench.reaches("open")
        assert bench.vitals.qr is None
    assert bench.doors.registered == [False, True]
    assert bench.of_type("connection:qr") == [{"number": 1, "of": 6, "expiresAt": START_MS + 60_500}]
    assert bench.of_type("alert:raised") == []
    assert bench.of_type("connection:error") == []


async def test_codes_end_in_needs_pairing_until_somebody_asks(autojump_clock: MockClock) -> None:
    bench = Bench(paired=False)
    async with bench.running():
        await bench.reaches("needs_pairing")
        await trio.sleep(LONG)
        assert len(bench.doors.dials) == 1
        assert bench.vitals.qr is None
        assert "scan" in bench.vitals.hint
        bench.supervisor.connect()
        await bench.reaches("pairing")
        assert len(bench.doors.dials) == 2
    assert bench.record is not None
    assert (bench.record.cause, bench.record.code) == ("qr_exhausted", 408)


async def test_nobody_dials_without_a_lease(autojump_clock: MockClock) -> None:
    """Nothing could be sent, so that each attempt would end at once, and the next one begin."""
    bench = Bench()
    bench.memory.owned = False
    async with bench.running():
        await trio.sleep(30)
        assert bench.doors.dials == []
        bench.memory.owned = True
        await bench.reaches("open")
    assert len(bench.doors.dials) == 1


async def test_rounds_of_codes_as_set(autojump_clock: MockClock) -> None:
    bench = Bench(paired=False, rules=settings(pair_rounds=3))
    async with bench.running():
        await bench.reaches("needs_pairing")
    assert len(bench.doors.codes) == 3


async def test_a_damaged_signed_prekey_is_replaced_before_pairing(autojump_clock: MockClock) -> None:
    fresh = PAIRED.change(account=None, me_pn=None, me_lid=None)
    damaged = fresh.change(identity=Credentials.parse(Bench().memory.creds or b"").noise)
    bench = Bench(creds=damaged)
    async with bench.running():
        await bench.reaches("pairing")
    assert bench.memory.creds is not None
    now = Credentials.parse(bench.memory.creds)
    assert now.signed_prekey.signed_by(now.identity.public)


# Each action.


async def test_backoff_follows_the_formula_and_resets_when_stable(autojump_clock: MockClock) -> None:
    bench = Bench(*[refused("dns", dial_s=0)] * 3, ends("eof", 31), refused("dns", dial_s=0))
    async with bench.running():
        await bench.reaches("backoff")
        assert bench.vitals.next_attempt_ms == START_MS + 1010
        assert bench.record is not None
        assert bench.record.detail["nextAttemptAt"] == START_MS + 1010
        await bench.reaches("open")
        assert bench.memory.stored.reconnect_attempt == 3
        await bench.vitals.until(lambda: bench.vitals.record is None)
        assert bench.memory.stored.last_disconnect is None
        assert bench.memory.stored.reconnect_attempt == 0
        await bench.reaches("backoff")
        await bench.reaches("connecting")
        await bench.reaches("backoff")
        await bench.reaches("open")
    assert [round(at, 2) for at in bench.dials] == [0, 1.01, 3.02, 7.03, 40.04, 42.05]
    assert bench.memory.stored.reconnect_count == 5


async def test_an_open_that_is_not_stable_keeps_the_counters(autojump_clock: MockClock) -> None:
    bench = Bench(*[ends("eof", 29)] * 3)
    async with bench.running():
        await trio.sleep(120)
        gaps = [b - a - 30.01 for a, b in zip(bench.doors.dials, bench.doors.dials[1:], strict=False)]
        assert [round(gap) for gap in gaps] == [1, 2, 4]


async def test_the_attempts_end_in_failed_and_probes_go_on(autojump_clock: MockClock) -> None:
    bench = Bench(*[refused("dns", dial_s=0)] * 13)
    async with bench.running():
        await bench.reaches("failed")
        assert len(bench.doors.dials) == 11
        assert "wactl connect alerts" in bench.vitals.hint
        assert "15 min" in bench.vitals.hint
        at = trio.current_time()
        await bench.reaches("connecting")
        assert round(trio.current_time() - at) == 900
        await bench.reaches("failed")
        await bench.reaches("open")
    severities = [data["severity"] for data in bench.of_type("alert:raised")]
    assert severities.count("critical") == 1


async def test_without_probes_failed_waits_for_the_operator(autojump_clock: MockClock) -> None:
    bench = Bench(*[refused("dns", dial_s=0)] * 11, rules=settings(after_max="fail"))
    async with bench.running():
        await bench.reaches("failed")
        await trio.sleep(LONG)
        assert len(bench.doors.dials) == 11
        bench.supervisor.connect()
        await bench.reaches("open")


async def test_restart_is_at_once_and_no_more_than_three_a_minute(autojump_clock: MockClock) -> None:
    bench = Bench(*[ends("restart", 1)] * 5)
    async with bench.running():
        await trio.sleep(15)
    gaps = [b - a for a, b in zip(bench.doors.dials, bench.doors.dials[1:], strict=False)]
    assert [round(gap, 1) for gap in gaps] == [2.0, 2.0, 2.0, 3.0, 4.0]
    assert "backoff" in bench.memory.statuses


async def test_a_ban_is_waited_out(autojump_clock: MockClock) -> None:
    stanza = Node("failure", {"reason": "402", "expire": "7200", "appeal_token": "secret"})
    ban = Cause("f402", 402, "banned", stanza=stanza, rank=Rank.STANZA)
    bench = Bench(Step(ban, login_s=None))
    async with bench.running():
        await bench.reaches("backoff")
        assert bench.vitals.next_attempt_ms == START_MS + 7_200_710
        await bench.reaches("open")
    assert bench.dials[1] >= 7200
    assert bench.of_type("alert:raised")[0]["severity"] == "warning"


async def test_repair_seals_clears_and_shows_one_round_of_codes(autojump_clock: MockClock) -> None:
    bench = Bench(ends("eof", 1), rejected("f401", 401))
    async with bench.running():
        await bench.reaches("pairing")
        assert bench.memory.seals == [PAIRED.serialize()]
        assert not bench.supervisor.paired
        assert bench.doors.messagings == 2
        await bench.reaches("needs_pairing")
        await trio.sleep(LONG)
    assert bench.of_type("auth:reset") == [{"reason": "f401", "sealedVersion": 1}]
    assert bench.doors.registered == [True, True, False]
    order = [event.type for event in bench.memory.events]
    assert order.index("connection:error") < order.index("auth:reset")
    assert bench.record is not None
    assert bench.record.cause == "qr_exhausted"


async def test_the_record_is_durable_before_the_credentials_are_cleared(autojump_clock: MockClock) -> None:
    bench = Bench(rejected("f401", 401))
    seen: list[DisconnectRecord | None] = []
    reset = bench.memory.reset_auth

    async def watched(creds: bytes, items: Mapping[ItemKey, bytes] | None = None) -> int:
        seen.append(bench.record)
        return await reset(creds, items)

    bench.memory.reset_auth = watched  # type: ignore[method-assign]
    async with bench.running():
        await bench.reaches("needs_pairing")
    assert seen[0] is not None
    assert (seen[0].cause, seen[0].code) == ("f401", 401)


async def test_hold_keeps_the_credentials_and_waits(autojump_clock: MockClock) -> None:
    bench = Bench(rejected("f406", 406))
    async with bench.running():
        await bench.reaches("failed")
        await trio.sleep(LONG)
        assert len(bench.doors.dials) == 1
        assert bench.memory.creds == PAIRED.serialize()
        assert "wactl connect alerts" in bench.vitals.hint
        bench.supervisor.connect()
        await bench.reaches("open")
    assert bench.memory.seals == []


async def test_a_newer_version_is_tried_once(autojump_clock: MockClock) -> None:
    bench = Bench(rejected("f405", 405), rejected("f405", 405))
    bench.doors.newer = [True, True]
    async with bench.running():
        await bench.reaches("failed")
    assert len(bench.doors.dials) == 2
    assert bench.doors.newer == [True]


async def test_replaced_twice_is_left_to_the_operator(autojump_clock: MockClock) -> None:
    bench = Bench(ends("eof", 5), Step(Cause("replaced", 440, "taken over"), open_s=60), Step(
        Cause("replaced", 440, "taken over"), open_s=60))  # fmt: skip
    async with bench.running():
        await bench.reaches("failed")
        assert "other client" in bench.vitals.hint
    assert bench.memory.seals == []


@pytest.mark.parametrize("cause_id", sorted(set(ROWS) - {"stop", "logout"}))
async def test_every_cause_ends_in_the_state_of_its_row(autojump_clock: MockClock, cause_id: str) -> None:
    row = ROWS[cause_id]
    pairing = row.section == "pairing"
    step = Step(Cause(cause_id, row.code, "as scripted"), login_s=None)
    bench = Bench(step, paired=not pairing)
    async with bench.running():
        await bench.reaches("connecting")
        await bench.reaches("backoff", "pairing", "needs_pairing", "failed", "stopped", "open")
        await bench.reaches("backoff", "needs_pairing", "failed", "stopped", "open")
        assert bench.doors.live == (bench.status == "open")
    if cause_id not in ("lease_lost", "counter", "restart"):
        assert bench.of_type("connection:error")[0]["cause"] == cause_id


SOMEBODY_ELSE = PAIRED.change(me_pn=JID.parse("15550000009:3@s.whatsapp.net"))


async def test_after_an_unlinking_only_the_same_account_may_pair_again(autojump_clock: MockClock) -> None:
    bench = Bench(rejected("f401", 401), Step(pairs=True, scanned_by=SOMEBODY_ELSE), Step(pairs=True))
    async with bench.running():
        await bench.reaches("needs_pairing")
        assert not bench.supervisor.paired
        assert "same account" in bench.vitals.hint
        assert bench.record is not None
        assert "15550000001" not in str(public_detail(bench.record))
    again = await restarted(bench, Step(pairs=True, scanned_by=SOMEBODY_ELSE), Step(pairs=True), paired=False)
    async with again.running():
        again.supervisor.connect()
        await again.reaches("pairing")
        await again.reaches("needs_pairing")
        again.supervisor.connect()
        await again.reaches("open")


@pytest.mark.parametrize("order", ["reset", "logout"])
async def test_the_operator_may_give_a_session_to_another_account(
    autojump_clock: MockClock, order: str
) -> None:
    script = [rejected("f401", 401), Step()] if order == "reset" else [Step()]
    bench = Bench(*script, Step(pairs=True, scanned_by=SOMEBODY_ELSE))
    async with bench.running():
        if order == "reset":
            await bench.reaches("needs_pairing")
            await bench.supervisor.reset()
        else:
            await bench.reaches("open")
            await bench.supervisor.logout()
        bench.supervisor.connect()
        await bench.reaches("pairing")
        await bench.reaches("open")


async def test_a_logout_that_was_accepted_is_done_before_the_end(autojump_clock: MockClock) -> None:
    bench = Bench(Step(goodbye_s=3))
    done: list[int] = []

    async def logout() -> None:
        done.append((await bench.supervisor.logout()).sealed)

    async with trio.open_nursery() as nursery, bench.running():
        await bench.reaches("open")
        bench.supervisor.halt()
        nursery.start_soon(logout)
        await trio.lowlevel.checkpoint()
    assert done == [1]


# Faults of ours.


async def test_a_crash_is_recorded_logged_and_survived(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(Step(error=lambda: ZeroDivisionError("a secret")), STAYS)
    async with bench.running():
        await bench.reaches("backoff")
        assert bench.record is not None
        assert bench.record.cause == "crash"
        assert "secret" not in str(bench.record.detail)
        await bench.reaches("open")
    assert "ZeroDivisionError" in caplog.text


async def test_a_commit_that_fails_inside_a_connection_holds_the_session(autojump_clock: MockClock) -> None:
    bench = Bench(Step(error=lambda: StorageUnavailable("disk full"), open_s=1))
    async with bench.running():
        await bench.reaches("failed")
        await trio.sleep(LONG)
        assert len(bench.doors.dials) == 1
    assert bench.record is not None
    assert bench.record.cause == "auth_write"
    assert bench.of_type("alert:raised")[-1]["cause"] == "auth_write"


async def test_a_store_that_takes_nothing_ends_in_failed_and_comes_back(
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = Bench()
    bench.memory.fail = StorageUnavailable("/var/lib/waD/waD.db: disk full")
    async with bench.running():
        await bench.reaches("failed")
        assert "free space" in bench.vitals.hint
        await trio.sleep(LONG)
        assert bench.doors.dials == []
        assert "disk full" in caplog.text
        bench.memory.fail = None
        bench.supervisor.connect()
        await bench.reaches("open")


async def test_a_lost_lease_stops_everything_here(autojump_clock: MockClock) -> None:
    bench = Bench(Step(error=lambda: LeaseLost("another owner"), open_s=1))
    async with bench.running():
        await bench.reaches("open")
        await bench.reaches("stopped")
        assert bench.supervisor.lost
        await wait_all_tasks_blocked()
        bench.memory.events.clear()
        bench.supervisor.connect()
        await trio.sleep(LONG)
        assert len(bench.doors.dials) == 1
        assert bench.memory.events == []


async def test_a_lost_lease_is_an_alert_like_every_other(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(Step(error=lambda: LeaseLost("another owner"), open_s=1))
    async with bench.running():
        await bench.reaches("open")
        bench.memory.fail = LeaseLost("another owner")
        await bench.reaches("stopped")
        await wait_all_tasks_blocked()
        (alert,) = bench.of_type("alert:raised")
    assert alert["severity"] == "critical"
    assert alert["subject"] == "alerts"
    assert alert["cause"] == "lease_lost"
    assert alert["hint"] == ROWS["lease_lost"].hint
    assert caplog.text.count("another process runs this session now") == 1


async def test_a_lost_lease_is_logged_also_when_the_event_cannot_be_written(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(Step(error=lambda: LeaseLost("another owner"), open_s=1))
    bench.memory.fail_to_append = StorageUnavailable("disk full")
    async with bench.running():
        await bench.reaches("open")
        await bench.reaches("stopped")
        await wait_all_tasks_blocked()
    assert bench.of_type("alert:raised") == []
    assert "another process runs this session now" in caplog.text
    assert "disk full" in caplog.text


async def test_credentials_that_cannot_be_read_are_kept_for_the_operator(autojump_clock: MockClock) -> None:
    bench = Bench()
    bench.memory.creds = b"{}"
    async with bench.running():
        await bench.reaches("failed")
        assert bench.doors.dials == []
    assert bench.memory.creds == b"{}"
    assert bench.record is not None
    assert bench.record.cause == "auth_corrupt"
    assert "verify-auth" in bench.vitals.hint


async def test_credentials_that_cannot_be_read_can_be_logged_out(autojump_clock: MockClock) -> None:
    bench = Bench()
    bench.memory.creds = b"{}"
    async with bench.running():
        await bench.reaches("failed")
        assert (await bench.supervisor.logout()).sealed == 1
        bench.supervisor.connect()
        await bench.reaches("pairing")
    assert bench.memory.seals == [b"{}"]


async def test_a_single_failed_write_is_recorded_with_the_state_it_led_to(autojump_clock: MockClock) -> None:
    bench = Bench(refused("dns"))
    async with bench.running():
        await bench.reaches("connecting")
        commit = bench.memory.commit

        async def once(unit: Unit) -> Committed:
            bench.memory.commit = commit  # type: ignore[method-assign]
            raise StorageUnavailable("disk full")

        bench.memory.commit = once  # type: ignore[method-assign]
        await bench.reaches("failed")
        await trio.sleep(1)
        assert bench.memory.stored.current_status == "failed"
        assert bench.of_type("storage:write_failed") == [{"error": "disk full"}]


async def test_a_fault_in_the_supervisor_itself_ends_in_failed(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(refused("dns"))

    def broken(*args: object, **more: object) -> None:
        raise KeyError("oops")

    monkeypatch.setattr("waD.session.aftermath.decide", broken)
    async with bench.running():
        await bench.reaches("failed")
        monkeypatch.undo()
        bench.supervisor.connect()
        await bench.reaches("open")
    assert "KeyError" in caplog.text


# Orders.


@pytest.mark.parametrize("at", ["connecting", "open", "backoff", "failed", "pairing", "needs_pairing"])
async def test_disconnect_from_any_state(autojump_clock: MockClock, at: str) -> None:
    scripts = {
        "connecting": (Step(dial_s=1e9),),
        "backoff": (rejected("f429", 429),),
        "failed": (rejected("f406", 406),),
    }
    bench = Bench(*scripts.get(at, ()), paired="pairing" not in at)
    async with bench.running():
        await bench.reaches(at)
        began = trio.current_time()
        await bench.supervisor.disconnect()
        assert bench.status == "stopped"
        assert bench.doors.live == 0
        assert trio.current_time() - began < 1
        await trio.sleep(LONG)
        assert len(bench.doors.dials) == 1
        bench.supervisor.connect()
        await bench.reaches("connecting")
        await bench.supervisor.disconnect()


async def test_the_reason_outlives_a_stop(autojump_clock: MockClock) -> None:
    bench = Bench(rejected("f429", 429))
    async with bench.running():
        await bench.reaches("backoff")
        await bench.supervisor.disconnect()
    assert bench.record is not None
    assert bench.record.cause == "f429"


async def test_connect_shortens_a_delay_and_is_nothing_when_open(autojump_clock: MockClock) -> None:
    bench = Bench(rejected("f429", 429))
    async with bench.running():
        await bench.reaches("backoff")
        at = trio.current_time()
        bench.supervisor.connect()
        await bench.reaches("open")
        assert trio.current_time() - at < 2
        bench.supervisor.connect()
        await trio.sleep(100)
    assert len(bench.doors.dials) == 2


async def test_connect_while_closing_opens_again(autojump_clock: MockClock) -> None:
    bench = Bench(Step(goodbye_s=5))
    async with bench.running(), trio.open_nursery() as nursery:
        await bench.reaches("open")
        nursery.start_soon(bench.supervisor.disconnect)
        await trio.sleep(1)
        bench.supervisor.connect()
        await trio.sleep(10)
        assert bench.status == "open"
    assert (len(bench.doors.dials), bench.doors.most_live) == (2, 1)


async def test_hold_wins_over_connect_until_release(autojump_clock: MockClock) -> None:
    bench = Bench()
    async with bench.running():
        await bench.reaches("open")
        await bench.supervisor.hold()
        assert bench.status == "stopped"
        assert "release" in bench.vitals.hint
        bench.supervisor.connect()
        await trio.sleep(LONG)
        assert len(bench.doors.dials) == 1
        bench.supervisor.release()
        await bench.reaches("open")


async def test_logout_tells_whatsapp_seals_and_clears(autojump_clock: MockClock) -> None:
    bench = Bench()
    async with bench.running():
        await bench.reaches("open")
        done = await bench.supervisor.logout()
        assert (done.unlinked, done.sealed) == (True, 1)
        assert bench.status == "stopped"
        await trio.sleep(LONG)
    assert bench.memory.seals == [PAIRED.serialize()]
    assert bench.doors.unlinks == [PAIRED.me_pn]
    assert not bench.supervisor.paired
    assert len(bench.doors.dials) == 1
    assert bench.record is not None
    assert bench.record.cause == "logout"


async def test_the_servers_goodbye_during_a_logout_is_no_repair(autojump_clock: MockClock) -> None:
    bench = Bench()

    async def unlink(link: object, me: object) -> bool:
        raise Disconnected(Cause("unlinked", 401, "unlinked", rank=Rank.STANZA))

    bench.doors.unlink = unlink  # type: ignore[method-assign,assignment]
    async with bench.running():
        await bench.reaches("open")
        done = await bench.supervisor.logout()
        assert done.unlinked
        assert bench.status == "stopped"
    assert len(bench.memory.seals) == 1


async def test_logout_of_a_session_that_is_down_says_that_the_phone_may_still_list_it(
    autojump_clock: MockClock,
) -> None:
    bench = Bench(row=session_row(desired_state="down"))
    async with bench.running():
        done = await bench.supervisor.logout()
        assert not done.unlinked
    assert bench.memory.seals == [PAIRED.serialize()]


async def test_a_logout_that_cannot_clear_says_so_and_keeps_the_credentials(
    autojump_clock: MockClock,
) -> None:
    bench = Bench()
    async with bench.running():
        await bench.reaches("open")
        bench.memory.fail = StorageUnavailable("disk full")
        with pytest.raises(StorageUnavailable):
            await bench.supervisor.logout()
        assert bench.status == "stopped"
        bench.memory.fail = None
        assert (await bench.supervisor.logout()).sealed == 1
    assert bench.memory.seals == [PAIRED.serialize()]


async def test_reset_forgets_counters_and_reason(autojump_clock: MockClock) -> None:
    bench = Bench(*[rejected("f403", 403)] * 3)
    async with bench.running():
        await bench.reaches("failed")
        await bench.supervisor.reset()
        assert bench.record is None
        assert bench.vitals.counters.slow == 0
        assert bench.status == "failed"


# Across processes.


async def test_the_end_of_the_process_keeps_what_is_wanted(autojump_clock: MockClock) -> None:
    bench = Bench()
    async with bench.running():
        await bench.reaches("open")
    assert bench.memory.stored.desired_state == "up"
    assert bench.memory.stored.current_status == "stopped"
    again = Bench(row=bench.memory.stored)
    async with again.running():
        await again.reaches("open")


async def test_an_unclean_end_is_told_first(autojump_clock: MockClock) -> None:
    bench = Bench(row=session_row(current_status="open"))
    async with bench.running():
        await bench.reaches("open")
    assert bench.memory.statuses[:2] == ["stopped", "connecting"]


async def restarted(bench: Bench, *script: Step, paired: bool = True) -> Bench:
    return Bench(*script, row=bench.memory.stored, paired=paired, origin=bench.origin)


async def test_hold_outlives_the_process(autojump_clock: MockClock) -> None:
    bench = Bench(rejected("f406", 406))
    async with bench.running():
        await bench.reaches("failed")
    again = await restarted(bench)
    async with again.running():
        await trio.sleep(LONG)
        assert again.status == "failed"
        assert again.doors.dials == []
        assert "wactl connect alerts" in again.vitals.hint


async def test_needs_pairing_outlives_the_process(autojump_clock: MockClock) -> None:
    bench = Bench(paired=False)
    async with bench.running():
        await bench.reaches("needs_pairing")
    again = await restarted(bench, paired=False)
    async with again.running():
        await trio.sleep(LONG)
        assert (again.status, again.doors.dials) == ("needs_pairing", [])


async def test_a_ban_and_the_counters_outlive_the_process(autojump_clock: MockClock) -> None:
    bench = Bench(refused("dns"), rejected("f403", 403), rejected("f403", 403))
    async with bench.running():
        await bench.vitals.until(lambda: bench.vitals.counters.count("f403", 0) == 2)
        await bench.reaches("backoff")
        planned = bench.vitals.next_attempt_ms
    assert planned is not None
    again = await restarted(bench, rejected("f403", 403))
    async with again.running():
        await again.reaches("connecting")
        assert START_MS + again.now * 1000 == pytest.approx(planned, abs=100)
        await again.reaches("failed")
    assert len(again.doors.dials) == 1


async def test_probes_outlive_the_process(autojump_clock: MockClock) -> None:
    bench = Bench(*[refused("dns")] * 11)
    async with bench.running():
        await bench.reaches("failed")
    again = await restarted(bench)
    async with again.running():
        await again.reaches("open")
        assert len(again.doors.dials) == 1


# Flags.


async def test_health_is_told_and_delays_stability(autojump_clock: MockClock) -> None:
    bench = Bench(Step(health=((5.0, False), (60.0, True))))
    async with bench.running():
        await bench.vitals.until(lambda: bench.vitals.healthy is False)
        assert bench.status == "open"
        assert bench.of_type("connection:status")[-1] == {"status": "open", "healthy": False}
        await trio.sleep(40)
        assert bench.vitals.counters.steady is False
        await bench.vitals.until(lambda: bench.vitals.healthy is True)
        await bench.vitals.until(lambda: bench.vitals.counters.steady)


async def test_three_silent_backlogs_in_a_row_are_deaf(autojump_clock: MockClock) -> None:
    silent = [ends("eof", 60, silent_backlog=True)] * 2
    bench = Bench(*silent, Step(silent_backlog=True), STAYS)
    async with bench.running():
        await bench.vitals.until(lambda: any(e["cause"] == "deaf" for e in bench.of_type("connection:error")))
        await bench.reaches("open")
        await trio.sleep(1e4)
    assert len(bench.doors.dials) == 4


async def test_a_clock_that_is_off_raises_an_alert(autojump_clock: MockClock) -> None:
    bench = Bench(Step(offset_ms=-90_000))
    async with bench.running():
        await bench.reaches("open")
    (alert,) = bench.of_type("alert:raised")
    assert "-90 s" in alert["message"]


async def test_frequent_reconnects_raise_one_alert(autojump_clock: MockClock) -> None:
    bench = Bench(*[ends("eof", 31)] * 6)
    async with bench.running():
        await trio.sleep(250)
    messages = [data["message"] for data in bench.of_type("alert:raised")]
    assert messages == ["more than 3 reconnects within 300 s"]
    assert bench.settings.alerts == Alerts()


async def test_routing_information_is_left_out_after_a_failed_handshake(autojump_clock: MockClock) -> None:
    creds = PAIRED.change(routing_info=b"edge")
    bench = Bench(refused("noise_timeout"), refused("dns"), STAYS, creds=creds)
    async with bench.running():
        await bench.reaches("open")
    assert bench.doors.routed == [True, False, True]


async def test_connecting_cannot_last_for_ever(autojump_clock: MockClock) -> None:
    bench = Bench(Step(dial_s=1e9), STAYS)
    async with bench.running():
        await bench.reaches("connecting")
        await bench.reaches("backoff")
        assert round(bench.now) == 240
        assert bench.record is not None
        assert bench.record.cause == "login_timeout"


async def test_sessions_take_turns_but_a_hanging_one_gives_way(autojump_clock: MockClock) -> None:
    turns = Turns(1)
    slow, quick = Bench(Step(dial_s=1e9), turns=turns), Bench(turns=turns)
    async with slow.running():
        await slow.reaches("connecting")
        async with quick.running():
            await quick.reaches("open")
            assert 20 <= quick.now < 23


# Cancellation, and chance.


async def test_cancelled_at_any_moment_nothing_is_left_connected(autojump_clock: MockClock) -> None:
    for tenth in range(60):
        bench = Bench(refused("dns", dial_s=0.3), rejected("f401", 401), Step(pairs=True))
        with trio.move_on_after(tenth / 10):
            await bench.supervisor.run()
        assert bench.doors.live == 0


SEED = int(os.environ.get("WAD_TEST_SEED") or random.SystemRandom().randrange(2**32))
CAUSES = [cause_id for cause_id in ROWS if cause_id not in ("stop", "logout", "lease_lost")]


def random_step(chance: random.Random) -> Step:
    cause_id = chance.choice(CAUSES)
    end = Cause(cause_id, ROWS[cause_id].code, "as scripted")
    return Step(
        end,
        dial_s=chance.choice([0, 0.1, 5]),
        login_s=chance.choice([None, 0.1, 20]),
        open_s=chance.choice([0, 1, 29, 31, 400]),
        error=chance.choice([None, None, None, lambda: ZeroDivisionError(), lambda: CredentialsError("x")]),
        refused=chance.random() < 0.3,
        pairs=chance.random() < 0.5,
        silent_backlog=chance.random() < 0.1,
    )


async def _order(bench: Bench, chance: random.Random) -> None:
    """What an operator and a full disk may do to a session."""
    supervisor = bench.supervisor
    for _ in range(25):
        await trio.sleep(chance.choice([0, 0.05, 0.5, 3, 40, 2000]))
        match chance.randrange(8):
            case 0:
                await supervisor.disconnect()
            case 1:
                await supervisor.hold()
                supervisor.release()
            case 2:
                await supervisor.reset()
            case 3:
                bench.memory.fail = StorageUnavailable("disk full")
                await trio.sleep(chance.choice([0.1, 5]))
                bench.memory.fail = None
            case _:
                supervisor.connect()
    supervisor.connect()


async def test_whatever_happens_twenty_sessions_keep_to_the_tables(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Faults and orders at random: never two connections of one session, no way that the table does not have."""
    caplog.set_level(logging.ERROR)
    print("seed", SEED)
    chances = [random.Random(f"{SEED} {n}") for n in range(20)]
    benches = [Bench(*[random_step(c) for _ in range(40)], paired=c.random() < 0.7) for c in chances]
    async with trio.open_nursery() as nursery:
        for bench in benches:
            nursery.start_soon(bench.supervisor.run)
        async with trio.open_nursery() as orders:
            for bench, chance in zip(benches, chances, strict=True):
                orders.start_soon(_order, bench, chance)
        for bench in benches:
            bench.supervisor.halt()
        nursery.cancel_scope.deadline = trio.current_time() + 60
    assert not nursery.cancel_scope.cancelled_caught
    for bench in benches:
        assert (bench.doors.live, bench.doors.most_live <= 1) == (0, True)
        for (source, _), (target, forced) in pairwise(bench.path):
            assert forced or source == target or (source, target) in TRANSITIONS
        assert FAULT.format(name="alerts") != bench.vitals.hint
    assert sum(len(bench.doors.dials) for bench in benches) > 200
