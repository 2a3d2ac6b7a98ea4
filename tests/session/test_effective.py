"""The disconnect table as `policy.show` tells it."""

from __future__ import annotations

from pathlib import Path

import pytest

from waD.config import CAUSE_IDS, FIXED_CAUSES, Settings, load
from waD.control.types import PolicyRow
from waD.link.causes import Cause
from waD.session.counters import Counters
from waD.session.effective import policy_table
from waD.session.policy import Rules, decide
from waD.session.table import ROWS

TOML = """\
[reconnect.on]
f403 = "hold"

[sessions.alerts.reconnect.on]
stream_500 = "backoff"
f401 = "hold"
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    config = tmp_path / "waD.toml"
    config.write_text(TOML)
    return load(config, {"HOME": str(tmp_path)})


def rows(settings: Settings, session: str | None = None) -> dict[str, PolicyRow]:
    return {row.cause: row for row in policy_table(settings, session).rows}


def test_every_cause_has_a_row(settings: Settings) -> None:
    table = rows(settings)
    assert set(table) == set(CAUSE_IDS) == set(ROWS)
    assert {cause for cause, row in table.items() if row.fixed} == set(FIXED_CAUSES)
    assert all(row.meaning for row in table.values())
    assert not any("{" in row.hint for row in table.values())


def test_defaults_and_where_others_come_from(settings: Settings, tmp_path: Path) -> None:
    table = rows(settings)
    assert (table["f403"].action, table["f403"].default_action) == ("hold", "slow")
    assert table["f403"].origin == f"{tmp_path / 'waD.toml'}:2"
    assert table["f403"].limit is None
    assert not table["f403"].counts
    plain = table["stream_500"]
    assert (plain.action, plain.origin, plain.counts) == ("backoff", "default", True)
    assert plain.clears_auth
    assert plain.limit is not None
    assert (plain.limit.times, plain.limit.then, plain.limit.within) == (3, "repair", 600)


def test_a_sessions_own_rows(settings: Settings, tmp_path: Path) -> None:
    own = rows(settings, "alerts")
    assert (own["f401"].action, own["f401"].clears_auth) == ("hold", False)
    assert own["f401"].origin == f"{tmp_path / 'waD.toml'}:6"
    assert not own["stream_500"].clears_auth
    assert own["f403"].action == "hold"
    assert rows(settings, "other")["f401"].clears_auth
    assert "alerts" in own["unlinked"].hint


@pytest.mark.parametrize("cause_id", [c for c in CAUSE_IDS if c not in FIXED_CAUSES])
def test_it_says_what_the_policy_does(settings: Settings, cause_id: str) -> None:
    shown = rows(settings, "alerts")[cause_id]
    if shown.needs_newer_version or shown.exceptions:
        return
    rules = Rules(reconnect=settings.session("alerts").reconnect)
    ended = Cause(cause_id, shown.code, "x", age_s=100, was_open=True, reached=True)
    made = decide(ended, Counters(), rules, 0.0, jitter=0.0)
    # A row of pairing cannot end a paired session: `close` is `backoff` then.
    expected = "backoff" if shown.action == "close" else shown.action
    assert made.action == expected
    assert (made.action in ("backoff", "slow")) == (shown.counts or shown.action == "close")
