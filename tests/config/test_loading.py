"""Files to settings: precedence, and every fault with its place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.config.conftest import Faults, Load
from waD.config import ConfigErrors, load
from waD.config.loading import MAX_FILE


def test_an_empty_file_means_the_values_of_the_protocol(loaded: Load) -> None:
    found = loaded("")
    assert found.daemon.stop_timeout_s == 20
    assert found.daemon.restore_concurrency == 10
    assert (found.network.connect_timeout_s, found.network.dial_timeout_s, found.network.hello_timeout_s) == (
        60,
        20,
        20,
    )
    assert (found.network.query_timeout_s, found.network.ack_timeout_s) == (60, 60)
    assert (found.network.keepalive_s, found.network.keepalive_jitter_s) == (25, 5)
    assert (found.network.url, found.network.root_key, found.network.version) == (None, None, None)
    assert (found.network.os_name, found.network.device, found.network.full_history) == (
        "Mac OS",
        "Desktop",
        False,
    )
    assert found.network.online_on_connect is True
    reconnect = found.reconnect
    assert (reconnect.base_s, reconnect.multiplier, reconnect.max_s, reconnect.jitter_s) == (1, 2, 30, 1)
    assert (reconnect.attempts, reconnect.stable_after_s) == (10, 30)
    assert (reconnect.slow_base_s, reconnect.slow_max_s) == (30, 900)
    assert (reconnect.after_max, reconnect.probe_interval_s) == ("probe", 900)
    assert (reconnect.pair_rounds, reconnect.undo_days) == (1, 30)
    assert reconnect.on == {}
    health = found.health
    assert (health.ping_interval_s, health.quiet_s, health.pong_late_s, health.dead_after_s) == (
        60,
        15,
        5,
        20,
    )
    alerts = found.alerts
    assert (alerts.reconnects, alerts.reconnect_window_s, alerts.clock_skew_s, alerts.command) == (
        3,
        300,
        60,
        (),
    )
    assert (found.events.days, found.events.rows) == (30, 1_000_000)
    outbox = found.outbox
    assert (outbox.keep_days, outbox.rate, outbox.new_conversation_interval_s) == (30, 20, 10)
    assert (outbox.text_limit, outbox.expire_s) == (65_536, 0)
    assert (found.messages.retry_delay_s, found.messages.retries) == (0.25, 5)
    assert found.control.mode == 0o660
    assert (found.control.roles.admin, found.control.roles.operator, found.control.roles.observer) == (
        (),
        (),
        (),
    )
    assert found.store.path == Path("/home/u/.local/state/waD/waD.db")


def test_types_of_every_form(loaded: Load) -> None:
    found = loaded(
        """
        store.path = "/var/lib/x.db"
        network = { url = "ws://127.0.0.1:1/ws", root_key = "%s", version = "2.3000.5", proxy = "http://u:p@h:1" }
        [alerts]
        command = ["/bin/notify", "--loud"]
        [control]
        mode = "0600"
        roles.operator = ["ops", "@wheel", "1000", "@27"]
        """
        % ("ab" * 32)
    )
    assert found.store.path == Path("/var/lib/x.db")
    assert found.network.root_key == b"\xab" * 32
    assert found.network.version == (2, 3000, 5)
    assert found.alerts.command == ("/bin/notify", "--loud")
    assert found.control.mode == 0o600
    assert found.control.roles.operator == ("ops", "@wheel", "1000", "@27")


def test_fragments_override_key_by_key_in_the_order_of_their_names(main_file: Path) -> None:
    main_file.write_text(
        '[reconnect]\nattempts = 5\nmax = 40\non.dns = "hold"\n[control.roles]\nadmin = ["a"]\n'
    )
    fragments = main_file.parent / "conf.d"
    fragments.mkdir()
    (fragments / "20-b.toml").write_text(
        '[reconnect]\nattempts = 7\non.eof = "slow"\n[control.roles]\nadmin = ["b"]\n'
    )
    (fragments / "10-a.toml").write_text("[reconnect]\nattempts = 6\n")
    (fragments / "ignored.txt").write_text("not toml")
    (fragments / ".hidden.toml").write_text("not toml")
    found = load(main_file, {})
    assert (found.reconnect.attempts, found.reconnect.max_s) == (7, 40)
    assert found.reconnect.on == {"dns": "hold", "eof": "slow"}
    assert found.control.roles.admin == ("b",)
    assert found.files == (main_file, fragments / "10-a.toml", fragments / "20-b.toml")
    assert found.origin("reconnect.attempts") == f"{fragments / '20-b.toml'}:2"
    assert found.origin("reconnect.max") == f"{main_file}:3"


def test_default_takes_back_what_an_earlier_file_said(main_file: Path) -> None:
    main_file.write_text('[reconnect.on]\nreplaced = "hold"\ndns = "slow"\n')
    (main_file.parent / "conf.d").mkdir()
    (main_file.parent / "conf.d" / "a.toml").write_text(
        '[reconnect.on]\nreplaced = "recover-once"\n[sessions.x.reconnect.on]\ndns = "default"\n'
    )
    found = load(main_file, {})
    assert found.reconnect.on == {"dns": "slow"}
    assert found.session("x").reconnect.on == {}


def test_a_missing_default_file_means_defaults(tmp_path: Path) -> None:
    found = load(None, {"CONFIGURATION_DIRECTORY": str(tmp_path)})
    assert found.files == ()
    assert found.daemon.stop_timeout_s == 20


def test_the_default_file_is_found_through_the_environment(tmp_path: Path) -> None:
    (tmp_path / "waD.toml").write_text("daemon.stop_timeout = 7")
    assert load(None, {"CONFIGURATION_DIRECTORY": f"{tmp_path}:/else"}).daemon.stop_timeout_s == 7


def test_fragments_are_read_without_a_main_file(tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "a.toml").write_text("daemon.stop_timeout = 7")
    assert load(None, {"CONFIGURATION_DIRECTORY": str(tmp_path)}).daemon.stop_timeout_s == 7


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigErrors, match=r"no\.toml: does not exist"):
        load(tmp_path / "no.toml", {})


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigErrors, match="cannot be read: Is a directory"):
        load(tmp_path, {})


def test_a_file_that_may_not_be_read(main_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ConfigErrors, match="cannot be read: Permission denied"):
        load(None, {"CONFIGURATION_DIRECTORY": str(main_file.parent)})


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("[deamon]\nstop_timeout = 1", ["1: deamon: unknown section; did you mean daemon?"]),
        ("zebra = 1", ["1: zebra: unknown section"]),
        ("[daemon]\n\nstop_timout = 1", ["3: daemon.stop_timout: unknown key; did you mean stop_timeout?"]),
        ("[daemon]\nqqqqq = 1", ["2: daemon.qqqqq: unknown key"]),
        (
            "[network]\nping_interval = 1",
            ["2: network.ping_interval: unknown key; did you mean health.ping_interval?"],
        ),
        ("[daemon]\n'stop_timeout.x' = 1", ["2: daemon.'stop_timeout.x': unknown key; did you mean stop_timeout?"]),
        ("[reconnect.on]\nreplacd = 'hold'", ["2: reconnect.on.replacd: unknown cause; did you mean replaced?"]),
        (
            "[reconnect.on]\nauth_write = 'backoff'",
            ["2: reconnect.on.auth_write: cannot be changed: after this cause a session always stops"],
        ),
        (
            "reconnect.on.tls = 'repair'",
            [
                ("1: reconnect.on.tls: must not be repair, which clears the credentials: this cause says nothing "
                "about them")
            ],
        ),
        (
            "reconnect.on.f401 = 'recover-once'",
            [
                ('1: reconnect.on.f401: must be one of "restart", "backoff", "slow", "wait", "repair", "hold", "stop", '
                "\"default\", not 'recover-once'")
            ],
        ),
        ("daemon = 3", ["1: daemon: is a section: write [daemon] and options below"]),
        ("[[daemon]]\nstop_timeout = 1", ["1: daemon: is a section: write [daemon] and options below"]),
        ("sessions = 3", ["1: sessions: is a section: write [sessions.NAME.reconnect]"]),
        ("[sessions]\nx = 3", ["2: sessions.x: is a section: write [sessions.x.reconnect]"]),
        (
            "[sessions.'.x'.reconnect]\nattempts = 3",
            ["1: sessions.'.x': is not a session name: 1 to 64 letters, digits, . _ - with a letter or digit first"],
        ),
        (
            "[sessions.x.daemon]\nstop_timeout = 1",
            ["1: sessions.x.daemon: cannot be set per session; it belongs to the general section [daemon]"],
        ),
        (
            "[sessions.x.network]\nurl = 'ws://h'",
            ["2: sessions.x.network.url: cannot be set per session; it belongs to the general section [network]"],
        ),
        (
            '[sessions."a.b".reconnect]\natempts = 1',
            ['2: sessions."a.b".reconnect.atempts: unknown key; did you mean attempts?'],
        ),
        ("[daemon.stop_timeout]\nx = 1", [("1: daemon.stop_timeout: must be a number of seconds or a duration such as "
                                          "\"25s\", 0 to 10min, not {'x': 1}")]),
    ],
)  # fmt: skip
def test_each_fault_names_line_key_and_remedy(text: str, wanted: list[str], faults: Faults) -> None:
    assert faults(text) == wanted


def test_all_faults_of_all_files_are_reported_at_once_in_order(main_file: Path) -> None:
    main_file.write_text(
        "[daemon]\nlog_level = 'loud'\nrestore_concurrency = 0\n[nothing]\n[store]\npath = 'x'\n"
    )
    (main_file.parent / "conf.d").mkdir()
    broken = main_file.parent / "conf.d" / "a.toml"
    broken.write_text("[daemon]\nlog_level = \n")
    with pytest.raises(ConfigErrors) as caught:
        load(main_file, {})
    assert [(e.place.file, e.place.line, e.key) for e in caught.value.errors] == [
        (main_file, 2, "daemon.log_level"),
        (main_file, 3, "daemon.restore_concurrency"),
        (main_file, 4, "nothing"),
        (main_file, 6, "store.path"),
        (broken, 2, ""),
    ]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("[daemon]\nlog_level =\n", "2: broken TOML: invalid value, column 12"),
        ("a = 'x", "1: broken TOML: expected \"'\""),
        ("\n\n[daemon\n", "3: broken TOML: expected ']' at the end of a table declaration, column 8"),
        (
            "daemon.log_level='info'\n\ndaemon.log_level='info'\n",
            "3: daemon.log_level: appears twice; the first time in line 1",
        ),
        ("[daemon]\n[store]\n[daemon]\n", "3: daemon: appears twice; the first time in line 1"),
    ],
)  # fmt: skip
def test_broken_toml_is_reported_with_its_line(text: str, wanted: str, faults: Faults) -> None:
    (found,) = faults(text)
    assert found.startswith(wanted)


def test_not_utf8(main_file: Path) -> None:
    main_file.write_bytes(b"[daemon]\n# \xff\n")
    with pytest.raises(ConfigErrors, match=r"waD\.toml:2: is not UTF-8 text"):
        load(main_file, {})


def test_too_large(main_file: Path) -> None:
    main_file.write_bytes(b"#" * (MAX_FILE + 1))
    with pytest.raises(ConfigErrors, match="is larger than"):
        load(main_file, {})


@pytest.mark.parametrize("text", ["a = " + "[" * 50_000, "a = " + "9" * 5000, "a = 0x" + "f" * 20_000])
def test_absurd_toml_is_an_error_and_nothing_else(text: str, main_file: Path) -> None:
    main_file.write_text(text)
    with pytest.raises(ConfigErrors):
        load(main_file, {})


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("network.dial_timeout = 90", '1: network.dial_timeout: must not be more than network.connect_timeout ("60s")'),
        (
            "\nnetwork.connect_timeout = 10",
            ('2: network.connect_timeout: network.dial_timeout ("20s") must not be more than network.connect_timeout '
            '("10s")'),
        ),
        ("network.keepalive = 70", '1: network.keepalive: must not be more than health.ping_interval ("60s")'),
        ("network.keepalive = 5", ('1: network.keepalive: network.keepalive_jitter ("5s") must be less than '
                                  'network.keepalive ("5s")')),
        ("reconnect.base = '40s'", '1: reconnect.base: must not be more than reconnect.max ("30s")'),
        ("reconnect.slow_base = 1000", '1: reconnect.slow_base: must not be more than reconnect.slow_max ("900s")'),
        ("health.pong_late = 21", '1: health.pong_late: must not be more than health.dead_after ("20s")'),
        (
            f"network.root_key = '{'00' * 32}'",
            "1: network.root_key: is the key of another server than WhatsApp's: it needs network.url (not set)",
        ),
        ("network.push_name = 'x'", "1: network.push_name: is for test servers: it needs network.url (not set)"),
        (
            "reconnect.max = 5\n[sessions.x.reconnect]\nbase = '10s'",
            '3: sessions.x.reconnect.base: must not be more than reconnect.max ("5s")',
        ),
    ],
)  # fmt: skip
def test_options_that_do_not_fit_together(text: str, wanted: str, faults: Faults) -> None:
    assert faults(text)[0] == wanted


def test_literal_thresholds_of_five_seconds_are_allowed(loaded: Load) -> None:
    assert loaded("health.pong_late = 5\nhealth.dead_after = 5").health.dead_after_s == 5


def test_no_rule_is_applied_to_a_value_that_is_wrong_anyway(faults: Faults) -> None:
    assert len(faults("health.pong_late = 'soon'\nhealth.dead_after = 1")) == 1


def test_no_rule_is_applied_when_a_file_could_not_be_read_as_toml(main_file: Path) -> None:
    main_file.write_text("network.push_name = 'x'")
    (main_file.parent / "conf.d").mkdir()
    (main_file.parent / "conf.d" / "a.toml").write_text("network.url = ")
    with pytest.raises(ConfigErrors) as caught:
        load(main_file, {})
    assert len(caught.value.errors) == 1


@pytest.mark.parametrize(
    "value",
    [
        '"socks5://user:hunter2@h"',
        '"http://user:hunter2@h:999999"',
        '"http://user:hunter2@h/#x"',
        '["http://user:hunter2@h"]',
        '"http://user:hunter2@[h"',
    ],
)
def test_errors_never_show_a_password(value: str, faults: Faults) -> None:
    found = faults(f"network.proxy = {value}")
    assert len(found) == 1
    assert "hunter2" not in found[0]


def test_a_password_that_everybody_can_read_is_a_warning(main_file: Path) -> None:
    main_file.write_text(
        "[network]\nproxy = 'http://u:hunter2@h'\n[sessions.x.network]\nproxy = 'http://u:hunter2@h'\n"
        "[sessions.y.network]\nproxy = 'http://h'\n"
    )
    main_file.chmod(0o644)
    found = load(main_file, {})
    assert [(w.key, w.place.line) for w in found.warnings] == [
        ("network.proxy", 2),
        ("sessions.x.network.proxy", 4),
    ]
    assert "chmod o-r" in str(found.warnings[0])
    assert "hunter2" not in repr(found)
    main_file.chmod(0o640)
    assert load(main_file, {}).warnings == ()


_KEYS = st.sampled_from(
    ["daemon", "reconnect", "on", "dns", "sessions", "x", "base", "control", "roles", "network", "?"]
)
_VALUES = st.recursive(
    st.none().map(lambda _: "x") | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(_KEYS | st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_string(key)} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return _string(value) if isinstance(value, str) else repr(value)


def _string(text: str) -> str:
    return (
        '"' + "".join(f"\\U{ord(letter):08x}" for letter in text if not 0xD800 <= ord(letter) < 0xE000) + '"'
    )


def _settings_or_faults(file: Path) -> None:
    """Anything but settings or a list of faults, one a line, fails the test."""
    try:
        load(file, os.environ)
    except ConfigErrors as caught:
        errors = caught
    else:
        return
    assert len(str(errors).splitlines()) == len(errors.errors) > 0


ONE_DIRECTORY = [*settings().suppress_health_check, HealthCheck.function_scoped_fixture]
"""All examples share a directory: each writes the one file anew."""


@given(st.dictionaries(_KEYS, _VALUES, max_size=5))
@settings(max_examples=150, suppress_health_check=ONE_DIRECTORY)
def test_any_toml_gives_settings_or_config_errors(tmp_path: Path, document: dict[str, object]) -> None:
    file = tmp_path / "any.toml"
    file.write_text("".join(f"{_string(key)} = {_toml(value)}\n" for key, value in document.items()))
    _settings_or_faults(file)


@given(st.binary(max_size=200))
@settings(max_examples=150, suppress_health_check=ONE_DIRECTORY)
def test_any_bytes_give_settings_or_config_errors(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "any.toml"
    file.write_bytes(data)
    _settings_or_faults(file)
