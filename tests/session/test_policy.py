"""The disconnect table and the decision: every row has its expectation here, and no sequence makes a tight loop."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waD.config import CAUSE_IDS, FIXED_CAUSES, NEVER_REPAIR, OVERRIDABLE_CAUSES, Alerts, Reconnect
from waD.link.causes import CODES, Cause, Rank, from_failure, from_stanza
from waD.session.counters import Counters
from waD.session.policy import (
    MAX_RESTARTS,
    RESTART_WINDOW_S,
    STATE_AFTER,
    Decision,
    Rules,
    decide,
    wants_newer_version,
)
from waD.session.table import ACTION_MEANINGS, ROWS, Action
from waD.wire.node import Node

# For each row: the actions of the same cause again and again, and the alerts that go with them. `b10` is ten times
# backoff; the letters: r restart, b backoff, s slow, w wait, R repair, h hold, x stop, c close. Alerts: i w c or -.
EXPECTED: dict[str, tuple[str, str]] = {
    "dns": ("b10 h2", "----------c-"),
    "refused": ("b10 h", "----------c"),
    "dial_timeout": ("b10 h", "----------c"),
    "tls": ("s10 h", "w---------c"),
    "http": ("s10 h", "w---------c"),
    "noise_timeout": ("b10 h", "----------c"),
    "noise_fail": ("s10 h", "w---------c"),
    "eof": ("b10 h", "----------c"),
    "eof_fresh": ("b10 h", "--w-------c"),
    "dead_socket": ("b10 h", "----------c"),
    "login_timeout": ("b10 h", "----------c"),
    "deaf": ("b10 h", "w---------c"),
    "frame": ("b10 h", "--w-------c"),
    "counter": ("r5", "-----"),
    "stream_end": ("b10 h", "----------c"),
    "restart": ("r5", "-----"),
    "force_logout": ("R", "c"),
    "unlinked": ("R", "c"),
    "unlinked_other": ("b10 h", "w---------c"),
    "replaced": ("s h", "wc"),
    "stream_503": ("s10 h", "iw--------c"),
    "stream_429": ("s10 h", "w---------c"),
    "stream_500": ("b3 R", "---c"),
    "stream_cat": ("h", "c"),
    "stream_ack": ("b10 h", "----------c"),
    "stream_xml": ("b10 h", "w---------c"),
    "stream_other": ("b10 h", "w---------c"),
    "f400": ("s3 h", "w--c"),
    "f401": ("R", "c"),
    "f402": ("w3", "www"),
    "f403": ("s2 h", "c-c"),
    "f405": ("h", "c"),
    "f406": ("h", "c"),
    "f409": ("h", "c"),
    "f411": ("R", "c"),
    "f413": ("h", "c"),
    "f414": ("h", "c"),
    "f415": ("h", "c"),
    "f416": ("h", "c"),
    "f418": ("h", "c"),
    "f429": ("s10 h", "w---------c"),
    "f500": ("b3 R", "---c"),
    "f501": ("s3 h", "w--c"),
    "f503": ("s10 h", "iw--------c"),
    "f5xx": ("s10 h", "w---------c"),
    "f_other": ("s3 h", "w--c"),
    "qr_exhausted": ("c", "-"),
    "pair_hmac": ("c", "-"),
    "pair_sig": ("c", "c"),
    "pair_refused": ("c", "-"),
    "pair_socket_lost": ("b5 c", "------"),
    "stop": ("x", "-"),
    "logout": ("x", "-"),
    "lease_lost": ("x", "c"),
    "auth_corrupt": ("h", "c"),
    "auth_write": ("h", "c"),
    "crash": ("b10 h", "w---------c"),
    "unknown": ("b10 h", "w---------c"),
}
LETTERS: dict[str, Action] = {
    "r": "restart", "b": "backoff", "s": "slow", "w": "wait", "R": "repair", "h": "hold", "x": "stop", "c": "close",
}  # fmt: skip
ALERTS = {"-": None, "i": "info", "w": "warning", "c": "critical"}
PAIRING_ONLY = {"qr_exhausted", "pair_hmac", "pair_sig", "pair_refused", "pair_socket_lost"}
SPACING = {"replaced": 100.0, "stream_500": 100.0, "f500": 100.0}
"""Seconds between two occurrences; elsewhere long enough that no window matters."""


def make(cause_id: str, code: int | None = None, **more: object) -> Cause:
    """A cause as a connection that was open for long would give it, or one that ended at once for `eof_fresh`."""
    fresh = cause_id == "eof_fresh"
    plain = Cause("eof" if fresh else cause_id, code if code is not None else CODES.get(cause_id), "it ended")
    known = plain.at(age_s=3.0 if fresh else 100.0, was_open=False, reached=fresh)
    return replace(known, **more)  # type: ignore[arg-type]


def run(
    causes: list[Cause], *, spacing: float = 1000.0, rules: Rules | None = None, **facts: bool
) -> list[Decision]:
    counters, found = Counters(), []
    for number, cause in enumerate(causes):
        decision = decide(cause, counters, rules or Rules(), number * spacing, jitter=0.5, **facts)
        counters = decision.counters
        found.append(decision)
    return found


def unroll(text: str) -> list[Action]:
    return [LETTERS[part[0]] for part in text.split() for _ in range(int(part[1:] or 1))]


def test_every_row_has_an_expectation() -> None:
    assert list(EXPECTED) == list(ROWS)


def test_the_rows_are_those_the_configuration_knows() -> None:
    assert set(ROWS) == set(CAUSE_IDS)
    local = {row.id for row in ROWS.values() if row.section == "local"}
    assert local - {"crash", "unknown"} == set(FIXED_CAUSES)


def test_the_numbers_are_those_the_connection_records() -> None:
    named = {row.id: row.code for row in ROWS.values() if row.id in CODES}
    assert named == {name: CODES[name] for name in named}
    assert set(CODES) <= set(ROWS)


def test_no_row_that_says_nothing_about_the_credentials_clears_them() -> None:
    for cause_id in NEVER_REPAIR:
        row = ROWS[cause_id]
        assert row.action != "repair"
        assert row.limit is None or row.limit.then != "repair"


@pytest.mark.parametrize("cause_id", EXPECTED)
def test_row(cause_id: str) -> None:
    actions, alerts = unroll(EXPECTED[cause_id][0]), EXPECTED[cause_id][1]
    decisions = run(
        [make(cause_id)] * len(actions),
        spacing=SPACING.get(cause_id, 1000.0),
        paired=cause_id not in PAIRING_ONLY,
    )
    assert [d.action for d in decisions] == actions
    assert [d.alert for d in decisions] == [ALERTS[letter] for letter in alerts]
    assert [d.state for d in decisions] == [STATE_AFTER[action] for action in actions]


@pytest.mark.parametrize("cause_id", ROWS)
def test_a_row_ends_in_something_an_operator_understands(cause_id: str) -> None:
    row = ROWS[cause_id]
    assert row.meaning
    assert not row.meaning.endswith(".")
    for decision in run([make(cause_id)] * 12, paired=cause_id not in PAIRING_ONLY):
        if decision.delay_ms is None and decision.action != "stop":
            assert "wactl" in decision.hint or "not supported" in decision.hint
        decision.hint.format(name="alerts")


@pytest.mark.parametrize("cause_id", ROWS)
def test_clearing_credentials_leads_to_a_code_or_was_ordered(cause_id: str) -> None:
    for decision in run([make(cause_id)] * 12, spacing=100, paired=cause_id not in PAIRING_ONLY):
        if decision.clears_auth:
            assert decision.state == "pairing" or cause_id == "logout"
        if decision.action == "hold":
            assert not decision.clears_auth


@pytest.mark.parametrize("action", ACTION_MEANINGS)
def test_every_action_has_a_state(action: Action) -> None:
    assert STATE_AFTER[action]


# Single rules.


def test_the_delays_of_the_formula() -> None:
    low = [d.delay_ms for d in run([make("eof", age_s=100.0)] * 10)]
    assert low == [1500, 2500, 4500, 8500, 16500, 30000, 30000, 30000, 30000, 30000]


@pytest.mark.parametrize(("jitter", "delay"), [(0.0, 1000), (0.999999, 2000)])
def test_jitter_is_inclusive(jitter: float, delay: int) -> None:
    decision = decide(make("dns"), Counters(), Rules(), 0, jitter=jitter)
    assert decision.delay_ms == delay


def test_slow_delays_have_their_own_base_and_counter() -> None:
    mixed = run([make("f429"), make("dns"), make("f429"), make("dns")])
    assert [d.delay_ms for d in mixed] == [30500, 1500, 60500, 2500]
    assert [d.delay_ms for d in run([make("f503")] * 9)][:3] == [5500, 10500, 20500]
    assert run([make("f429")] * 9)[-1].delay_ms == 900_000


def test_a_dead_socket_after_a_stable_connection_is_replaced_at_once() -> None:
    steady = Counters(attempts=5).stable()
    first = decide(make("dead_socket"), steady, Rules(), 0, jitter=0.25)
    second = decide(make("dead_socket"), first.counters, Rules(), 100, jitter=0.25)
    assert (first.delay_ms, second.delay_ms) == (250, 2250)


def test_more_than_three_restarts_in_a_minute_go_the_slow_way() -> None:
    decisions = run([make("restart")] * 5, spacing=10)
    assert [d.action for d in decisions] == ["restart"] * 3 + ["backoff"] * 2
    assert decisions[0].delay_ms == 0


def test_restarts_are_forgotten_after_a_minute_or_a_stable_connection_only() -> None:
    counters = Counters(restarts=(0.0, 1.0, 2.0))
    assert decide(make("restart"), counters.opened(), Rules(), 3, jitter=0).action == "backoff"
    assert decide(make("restart"), counters, Rules(), 62, jitter=0).action == "restart"
    assert decide(make("restart"), counters.stable(), Rules(), 3, jitter=0).action == "restart"


@pytest.mark.parametrize(
    ("spacing", "last"), [(100, "repair"), (199.9, "repair"), (201, "backoff")], ids=["quick", "edge", "slow"]
)
def test_the_fourth_500_counts_within_ten_minutes_only(spacing: float, last: str) -> None:
    causes = [make("f500"), make("stream_500"), make("f500"), make("stream_500")]
    assert [d.action for d in run(causes, spacing=spacing)] == ["backoff"] * 3 + [last]


def test_an_open_or_another_cause_between_keeps_a_500_from_clearing() -> None:
    counters = run([make("f500")] * 3, spacing=1)[-1].counters
    assert decide(make("f500"), counters.opened(), Rules(), 4, jitter=0).action == "backoff"
    between = decide(make("eof"), counters, Rules(), 4, jitter=0).counters
    assert decide(make("f500"), between, Rules(), 5, jitter=0).action == "backoff"
    assert decide(make("f500"), counters, Rules(), 4, jitter=0).action == "repair"


def test_replaced_is_recovered_once_even_across_a_stable_connection() -> None:
    first = decide(make("replaced"), Counters(), Rules(), 0, jitter=0)
    assert (first.action, first.delay_ms, first.clears_auth) == ("slow", 30_000, False)
    again = decide(make("replaced"), first.counters.stable(), Rules(), 299, jitter=0)
    assert (again.action, again.state) == ("hold", "failed")
    later = decide(make("replaced"), first.counters.stable(), Rules(), 301, jitter=0)
    assert later.action == "slow"


def test_403_counts_until_a_stable_connection() -> None:
    two = run([make("f403"), make("eof"), make("f403")])[-1].counters
    assert decide(make("f403"), two.opened(), Rules(), 9999, jitter=0).action == "hold"
    assert decide(make("f403"), two.stable(), Rules(), 9999, jitter=0).action == "slow"


@pytest.mark.parametrize("cause_id", ["f405", "f409"])
def test_an_old_version_is_retried_once_if_there_is_a_newer_one(cause_id: str) -> None:
    cause = make(cause_id)
    assert wants_newer_version(cause, Counters(), Rules(), 0)
    first = decide(cause, Counters(), Rules(), 0, jitter=0, newer_version=True)
    assert first.action == "restart"
    assert not wants_newer_version(make("f405"), first.counters, Rules(), 1)
    assert decide(cause, first.counters, Rules(), 1, jitter=0, newer_version=True).action == "hold"
    assert not wants_newer_version(make("eof"), Counters(), Rules(), 0)


@pytest.mark.parametrize(
    ("attrs", "seconds"),
    [
        ({"expire": "3600"}, 3600),
        ({}, 86_400),
        ({"expire": "0"}, 86_400),
        ({"expire": "-5"}, 86_400),
        ({"expire": "soon"}, 86_400),
        ({"expire": "1"}, 60),
        ({"expire": "9" * 15}, 366 * 86_400),
    ],
)
def test_a_ban_is_waited_for(attrs: dict[str, str], seconds: int) -> None:
    cause = from_failure(Node("failure", {"reason": "402", "code": "101", **attrs}))
    decision = decide(cause, Counters(), Rules(), 0, jitter=0)
    assert (decision.action, decision.delay_ms) == ("wait", seconds * 1000)
    assert decision.counters.attempts == 0


@pytest.mark.parametrize(
    ("status", "action"),
    [(403, "slow"), (404, "slow"), (407, "slow"), (302, "slow"), (408, "backoff"), (425, "backoff"),
     (429, "backoff"), (500, "backoff"), (503, "backoff"), (599, "backoff")],
)  # fmt: skip
def test_an_http_status_is_not_whatsapps_number(status: int, action: str) -> None:
    decision = decide(make("http", 1000 + status), Counters(), Rules(), 0, jitter=0)
    assert (decision.action, decision.clears_auth) == (action, False)


def test_retry_after_is_honoured_within_reason() -> None:
    asked = make("http", 1503, retry_after_s=120.0)
    assert decide(asked, Counters(), Rules(), 0, jitter=0).delay_ms == 120_000
    greedy = make("http", 1503, retry_after_s=1e9)
    assert decide(greedy, Counters(), Rules(), 0, jitter=0).delay_ms == 3_600_000


@pytest.mark.parametrize(
    ("stanza", "action"),
    [
        (Node("stream:error", {"code": "401"}, [Node("conflict", {"type": "device_removed"})]), "repair"),
        (Node("stream:error", {}, [Node("conflict", {"type": "device_removed"})]), "backoff"),
        (Node("stream:error", {"code": "401"}, [Node("conflict", {"type": "odd"})]), "repair"),
        (Node("stream:error", {}, [Node("conflict", {"type": "replaced"})]), "slow"),
        (Node("stream:error", {"code": "409"}), "slow"),
        (Node("stream:error", {"code": "401"}), "repair"),
        (Node("stream:error", {"code": "403"}), "slow"),
        (Node("stream:error", {"code": "407"}), "slow"),
        (Node("stream:error", {"code": "599"}), "backoff"),
        (Node("stream:error", {"code": "999999"}), "backoff"),
        (Node("stream:error", {}, [Node("ack", {"id": "1", "class": "message"})]), "backoff"),
        (Node("stream:error"), "backoff"),
        (Node("failure", {}), "slow"),
        (Node("failure", {"reason": "418"}), "hold"),
        (Node("failure", {"reason": "999"}), "slow"),
        (Node("ib", {}, [Node("downgrade_webclient")]), "repair"),
    ],
)
def test_what_the_server_says_leads_to(stanza: Node, action: str) -> None:
    cause = from_stanza(stanza)
    assert cause is not None
    assert decide(cause, Counters(), Rules(), 0, jitter=0).action == action


def test_a_stream_error_403_shares_the_limit_of_the_failure() -> None:
    stream = from_stanza(Node("stream:error", {"code": "403"}))
    assert stream is not None
    decisions = run([stream, make("f403"), stream])
    assert [d.action for d in decisions] == ["slow", "slow", "hold"]


def test_a_cause_nobody_knows_is_unknown_and_never_clears() -> None:
    decisions = run([make("from_the_future", 401)] * 12)
    assert {d.row.id for d in decisions} == {"unknown"}
    assert not any(d.clears_auth for d in decisions)


# Unpaired.


@pytest.mark.parametrize("cause_id", sorted(set(ROWS) - PAIRING_ONLY - set(FIXED_CAUSES)))
def test_an_unpaired_session_does_not_try_for_ever_and_clears_nothing(cause_id: str) -> None:
    decisions = run([make(cause_id)] * 8, paired=False)
    assert not any(d.clears_auth for d in decisions)
    assert ROWS[cause_id].action in ("restart", "wait") or decisions[-1].delay_ms is None


def test_losing_the_pairing_connection_in_different_ways_counts_together() -> None:
    causes = [make(name) for name in ("dns", "tls", "pair_socket_lost", "refused", "f503", "eof")]
    decisions = run(causes, paired=False)
    assert [d.action for d in decisions] == ["backoff", "slow", "backoff", "backoff", "slow", "close"]
    assert decisions[-1].state == "needs_pairing"


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_rounds_of_codes(rounds: int) -> None:
    rules = Rules(Reconnect(pair_rounds=rounds))
    decisions = run([make("qr_exhausted")] * rounds, rules=rules, spacing=160, paired=False)
    assert [d.action for d in decisions] == ["restart"] * (rounds - 1) + ["close"]


# Settings.


@pytest.mark.parametrize("cause_id", OVERRIDABLE_CAUSES)
def test_the_configuration_changes_a_row(cause_id: str) -> None:
    rules = Rules(Reconnect(on={cause_id: "hold"}))
    decision = run([make(cause_id)] * 3, rules=rules, paired=cause_id not in PAIRING_ONLY)[-1]
    assert (decision.action, decision.alert) == ("hold", "critical")


@pytest.mark.parametrize("cause_id", FIXED_CAUSES)
def test_it_cannot_change_orders_and_faults_of_the_store(cause_id: str) -> None:
    rules = Rules(Reconnect(on={cause_id: "restart"}))
    assert run([make(cause_id)], rules=rules)[0].action == ROWS[cause_id].action


def test_replaced_may_repair_if_the_operator_says_so() -> None:
    decision = run([make("replaced")], rules=Rules(Reconnect(on={"replaced": "repair"})))[0]
    assert (decision.action, decision.clears_auth) == ("repair", True)


def test_the_literal_reading_of_after_max() -> None:
    probe = run([make("dns")] * 11)[-1]
    fail = run([make("dns")] * 11, rules=Rules(Reconnect(after_max="fail")))[-1]
    reached = run([make("dns", reached=True)] * 11)[-1]
    assert (probe.delay_ms, fail.delay_ms, reached.delay_ms) == (900_000, None, None)
    assert probe.state == fail.state == "failed"


def test_the_settings_of_the_formula() -> None:
    rules = Rules(Reconnect(base_s=2, multiplier=3, max_s=50, jitter_s=0, attempts=4))
    assert [d.delay_ms for d in run([make("dns")] * 4, rules=rules)] == [2000, 6000, 18000, 50000]


# The alert about frequent reconnects.


def test_more_than_three_reconnects_in_five_minutes_raise_one_alert_per_window() -> None:
    decisions = run([make("eof")] * 10, spacing=60)
    assert [d.too_often for d in decisions] == [False] * 3 + [True] + [False] * 4 + [True, False]


def test_the_restart_after_pairing_is_no_reconnect() -> None:
    assert run([make("restart")], just_paired=True)[0].counters.reconnects == ()
    assert run([make("restart")])[0].counters.reconnects == (0.0,)


# Properties.

CAUSES = st.sampled_from([*sorted(ROWS), "surprise"])
STEPS = st.lists(
    st.tuples(CAUSES, st.sampled_from([None, 401, 403, 429, 500, 1403, 1503]), st.floats(0, 0.999), st.booleans()),
    max_size=80,
)  # fmt: skip


@given(STEPS)
def test_no_sequence_of_causes_makes_a_tight_loop(steps: list[tuple[str, int | None, float, bool]]) -> None:
    """Never stable: the counters grow, the delays stay in bounds, and a minute sees few connections."""
    counters, now, dials, rules = Counters(), 0.0, [], Rules()
    for cause_id, code, jitter, opened in steps:
        cause = Cause(cause_id, code, "it ended", rank=Rank.LOCAL).at(
            age_s=1.0, was_open=opened, reached=True
        )
        before = counters.opened() if opened else counters
        decision = decide(cause, before, rules, now, jitter=jitter)
        counters = decision.counters
        assert counters.attempts >= before.attempts
        assert counters.slow >= before.slow
        assert (decision.delay_ms is None) == (decision.state in ("failed", "needs_pairing", "stopped"))
        if decision.delay_ms is None or decision.action == "repair":
            break
        longest = {"restart": 0, "backoff": 30_000, "slow": 900_000, "wait": 366 * 86_400_000}
        assert 0 <= decision.delay_ms <= longest[decision.action]
        assert decision.action == "restart" or decision.delay_ms >= 1000
        now += decision.delay_ms / 1000
        dials.append(now)
    for start in dials:
        quick = sum(1 for at in dials if start <= at < start + RESTART_WINDOW_S)
        assert quick <= MAX_RESTARTS + 6 + 4  # restarts, backoffs of 1 to 32 s, slow ones of 5 to 40 s


@given(STEPS)
def test_counters_survive_the_process(steps: list[tuple[str, int | None, float, bool]]) -> None:
    counters = Counters()
    for cause_id, code, jitter, _ in steps:
        cause = Cause(cause_id, code, "it ended")
        counters = decide(cause, counters, Rules(), 0.0, jitter=jitter).counters
    again = Counters.restored(counters.durable(), 5.0)
    assert (again.attempts, again.slow, again.given_up) == (
        counters.attempts,
        counters.slow,
        counters.given_up,
    )
    assert again.count("f403", 5.0) == counters.count("f403", 5.0)
    assert again.count("500", 5.0) == 0  # old times mean nothing, so nothing is cleared because of them
    assert Counters.restored(again.durable(), 9.0).durable() == again.durable()


@pytest.mark.parametrize("stored", [None, 7, "x", {"attempts": "many"}, {"tallies": [1]}, {}])
def test_damaged_counters_count_as_none(stored: object) -> None:
    assert Counters.restored(stored, 0.0).attempts == 0


def test_an_operators_retry_begins_anew_but_remembers_who_fights() -> None:
    counters = run([make("replaced"), *[make("f403")] * 2, *[make("dns")] * 5], spacing=1)[-1].counters
    again = counters.retried()
    assert (again.attempts, again.slow, again.count("f403", 8)) == (0, 0, 0)
    assert again.count("replaced", 8) == 1
    assert again.reconnects == counters.reconnects


@given(st.integers(0, 1000), st.integers(0, 1000))
def test_delays_have_no_overflow(attempts: int, slow: int) -> None:
    rules = Rules(Reconnect(attempts=10_000, multiplier=10), Alerts())
    counters = Counters(attempts=attempts, slow=slow)
    for cause_id in ("dns", "f429"):
        delay = decide(make(cause_id), counters, rules, 0, jitter=0.5).delay_ms
        assert delay is not None
        assert 0 <= delay <= 900_000
