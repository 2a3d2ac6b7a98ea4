"""What is in force: sessions, origins, listing, reload."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.config.conftest import Load
from waD.config import (
    ACTIONS,
    CAUSE_IDS,
    FIXED_CAUSES,
    NEVER_REPAIR,
    OVERRIDABLE_CAUSES,
    Network,
    Reconnect,
    SessionSettings,
    diff,
    in_force,
)
from waD.config.causes import allowed
from waD.config.schema import OPTIONS, SESSION_TABLES
from waD.session.table import ROWS

OVERRIDES = """
[network]
proxy = "http://u:p@general:1"
[reconnect]
attempts = 5
on.eof = "slow"
on.dns = "hold"
[sessions.alerts]
network.proxy = "http://own:2"
[sessions.alerts.reconnect]
base = 250
on.dns = "backoff"
[sessions."my.bot".health]
dead_after = "1min"
"""


def test_a_session_has_the_general_settings_with_its_own_on_top(loaded: Load) -> None:
    found = loaded(OVERRIDES)
    alerts = found.session("alerts")
    assert alerts.name == "alerts"
    assert alerts.network.proxy == "http://own:2"
    assert (alerts.reconnect.base_s, alerts.reconnect.attempts) == (0.25, 5)
    assert alerts.reconnect.on == {"eof": "slow", "dns": "backoff"}
    assert alerts.health == found.health
    assert found.session("my.bot").health.dead_after_s == 60
    assert found.session_names == ("alerts", "my.bot")


def test_a_session_that_no_file_mentions_has_the_general_settings(loaded: Load) -> None:
    found = loaded(OVERRIDES)
    other = found.session("other")
    assert other.network.proxy == "http://u:p@general:1"
    assert other.reconnect == found.reconnect
    assert (other.health, other.alerts, other.outbox, other.messages) == (
        found.health,
        found.alerts,
        found.outbox,
        found.messages,
    )


def test_every_table_that_sessions_may_have_is_in_their_view() -> None:
    fields = {declared.name for declared in dataclasses.fields(SessionSettings)} - {"name"}
    assert {table.partition(".")[0] for table in SESSION_TABLES} == fields


def test_origins(loaded: Load, main_file: Path) -> None:
    found = loaded(OVERRIDES)
    assert found.origin("reconnect.attempts") == f"{main_file}:5"
    assert found.origin("reconnect.base") == "default"
    assert found.origin("reconnect.base", "alerts") == f"{main_file}:11"
    assert found.origin("reconnect.attempts", "alerts") == f"{main_file}:5"
    assert found.origin("reconnect.on.dns", "alerts") == f"{main_file}:12"
    with pytest.raises(KeyError):
        found.origin("reconnect.bass")


def test_the_listing_has_every_option_and_no_password(loaded: Load, main_file: Path) -> None:
    shown = list(loaded(OVERRIDES).show())
    lines = {line.key: (line.value, line.origin) for line in shown}
    assert lines["network.proxy"] == ('"http://***@general:1"', f"{main_file}:3")
    assert lines["sessions.alerts.network.proxy"] == ('"http://own:2"', f"{main_file}:9")
    assert lines['sessions."my.bot".health.dead_after'] == ('"60s"', f"{main_file}:14")
    assert lines["daemon.stop_timeout"] == ('"20s"', "default")
    assert lines["network.url"] == ("none", "default")
    assert lines["reconnect.on.dns"] == ('"hold"', f"{main_file}:7")
    assert "reconnect.on.tls" not in lines
    assert {key for key in OPTIONS if not key.startswith("reconnect.on.")} <= set(lines)
    assert len(lines) == len(shown)


def test_what_is_listed_can_be_loaded_again(loaded: Load) -> None:
    first = loaded(OVERRIDES.replace("u:p@", ""))
    text = "\n".join(f"{line.key} = {line.value}" for line in first.show() if line.value != "none")
    second = loaded(text)
    assert diff(first, second) == ([], [])
    assert second.session("alerts") == first.session("alerts")


def test_a_reload_tells_what_it_applies_and_what_needs_a_restart(loaded: Load) -> None:
    old = loaded(
        '[daemon]\nlog_level = "debug"\n[store]\npath = "/a"\n[sessions.x.reconnect]\nattempts = 3\n'
    )
    new = loaded(
        '[store]\npath = "/b"\n[control]\nmode = "0600"\nroles.observer = ["eve"]\n[reconnect]\nbase = "1s"\n'
        '[sessions.x.health]\ndead_after = 30\n[sessions."y.z".reconnect.on]\ndns = "hold"\n'
    )
    assert diff(old, new) == (
        [
            "daemon.log_level",
            "control.roles.observer",
            "sessions.x.health.dead_after",
            'sessions."y.z".reconnect.on.dns',
            "sessions.x.reconnect.attempts",
        ],
        ["store.path", "control.mode"],
    )
    assert diff(new, new) == ([], [])


def test_what_needs_a_restart_stays_in_force_until_then(loaded: Load) -> None:
    running = loaded('[store]\npath = "/a"\n[reconnect]\nbase = "2s"\n[sessions.x.reconnect]\nattempts = 3\n')
    read = loaded(
        '[store]\npath = "/b"\n[control]\nmode = "0600"\n[reconnect]\nbase = "5s"\n'
        "[sessions.y.reconnect]\nattempts = 4\n"
    )
    now = in_force(running, read)
    assert now.store == running.store
    assert now.control == running.control
    assert (now.origin("store.path"), now.origin("control.mode")) == (running.origin("store.path"), "default")
    assert now.reconnect.base_s == 5
    assert now.origin("reconnect.base") == read.origin("reconnect.base")
    assert now.session("x").reconnect == now.reconnect
    assert now.session("y").reconnect.attempts == 4
    assert (now.files, now.warnings) == (read.files, read.warnings)
    # Each further reload tells of the restart again, until the file says what is in force.
    assert diff(now, read) == ([], ["store.path", "control.mode"])
    assert diff(in_force(now, running), running) == ([], [])


def test_where_to_connect_counts_from_the_next_connection_on(loaded: Load) -> None:
    old, key = loaded(""), "ab" * 32
    new = loaded(f'[network]\nurl = "ws://127.0.0.1:1/ws"\nroot_key = "{key}"\nca_file = "/etc/ca.pem"\n')
    assert diff(old, new) == (["network.url", "network.root_key", "network.ca_file"], [])
    assert in_force(old, new).session("x").network == new.network


def test_an_override_of_a_session_never_needs_a_restart() -> None:
    assert [
        key for key, option in OPTIONS.items() if option.spec.per_session and not option.spec.reload
    ] == []


def test_settings_are_frozen(loaded: Load) -> None:
    found = loaded(OVERRIDES)
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.reconnect.attempts = 3  # type: ignore[misc]
    with pytest.raises(TypeError):
        found.reconnect.on["dns"] = "stop"  # type: ignore[index]


def test_sections_can_be_made_without_files() -> None:
    assert Reconnect(base_s=0.5).attempts == 10
    assert "hunter2" not in repr(Network(proxy="http://u:hunter2@h"))


def test_every_option_says_what_it_is() -> None:
    for key, option in OPTIONS.items():
        assert option.spec.doc.endswith("."), key
        assert option.spec.doc[0].isupper(), key
        assert option.spec.default is not None or option.spec.example or option.section == "reconnect.on", key


def test_the_causes_are_the_rows_of_the_disconnect_table() -> None:
    assert sorted(CAUSE_IDS) == sorted(ROWS)


def test_the_causes_are_each_named_once() -> None:
    assert len(set(CAUSE_IDS)) == len(CAUSE_IDS)
    assert set(OVERRIDABLE_CAUSES) | set(FIXED_CAUSES) == set(CAUSE_IDS)
    assert set(OVERRIDABLE_CAUSES) >= NEVER_REPAIR
    assert {f"reconnect.on.{cause}" for cause in OVERRIDABLE_CAUSES} <= set(OPTIONS)


@pytest.mark.parametrize("cause", ["dns", "tls", "http", "unknown", "crash", "stream_ack", "stream_503"])
def test_causes_that_say_nothing_about_the_credentials_never_clear_them(cause: str) -> None:
    assert set(allowed(cause)) == {*ACTIONS, "default"} - {"repair"}


def test_the_words_for_other_causes() -> None:
    assert set(allowed("f401")) == {*ACTIONS, "default"}
    assert set(allowed("replaced")) == {*ACTIONS, "default", "recover-once"}
