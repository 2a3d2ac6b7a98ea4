"""wactl doctor: each check alone, and the walk through all."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from click.testing import Result

from tests.e2e.daemon import running
from tests.wactl.conftest import Run, documents
from tests.wactl.fake import FakeDaemon, hang_up, refusal
from tests.wactl.test_with_daemon import Wactl
from wactl import child, diagnosis, endpoint
from wactl.database import hosts, look_at_database
from wactl.endpoint import Endpoint, look
from waD.control import types as t
from waD.sandbox import run_sandbox

FINE = t.Finding(check="store", level="ok", subject="/x/waD.db", message="the database answers")
LATE = t.Finding(
    check="session", level="warning", subject="jobs", message="it is backoff", hint="wait: it reconnects"
)
LOST = t.Finding(
    check="session",
    level="critical",
    subject="alerts",
    message="it is needs_pairing",
    hint="wactl connect alerts",
)
DAMAGED = t.Finding(
    check="store",
    level="critical",
    subject="/x/waD.db",
    message="the database is damaged: row 3",
    hint="restore a backup",
    data={"complaints": ["row 3"], "damaged": True},
)
STUCK = t.Finding(
    check="store",
    level="critical",
    subject="/x/waD.db",
    message="a transaction has been running for 40 s",
    hint="check the disk under it",
    data={"stuckSeconds": 40},
)


@pytest.fixture(autouse=True)
def _this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What the machine of the test run happens to be like is not judged."""
    monkeypatch.setattr(diagnosis, "_synchronised", lambda: None)
    monkeypatch.setenv("CONFIGURATION_DIRECTORY", str(tmp_path / "etc"))
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))


@pytest.fixture
def listening() -> Iterator[int]:
    """A TCP port on loopback that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def well(daemon: FakeDaemon, listening: int) -> FakeDaemon:
    daemon.path.chmod(0o660)
    daemon.script["daemon.ping"] = t.Pong(pid=714, version="0.1.0", protocol=1, role="admin")
    option = t.OptionView(key="network.url", value=f'"ws://127.0.0.1:{listening}/ws/chat"', origin="/x:3")
    daemon.script["config.show"] = t.ConfigList(options=[option])
    daemon.script["daemon.check"] = t.CheckReport(level="ok", findings=[FINE])
    return daemon


def findings(result: Result) -> dict[str, dict[str, Any]]:
    """The last finding of each check."""
    (document,) = documents(result.stdout)
    assert document["exit"] == result.exit_code
    return {one["check"]: one for one in document["findings"]}


# --------------------------------------------------------------------------------------------------------- the walk


def test_nothing_is_wrong(well: FakeDaemon, run: Run) -> None:
    result = run("doctor")
    assert result.exit_code == 0
    assert result.stderr.endswith("things looked at: nothing is wrong\n")
    assert "->" not in result.stdout
    assert [line.split()[:2] for line in result.stdout.splitlines()] == [
        ["ok", name] for name in ("socket", "daemon", "store", "config", "clock", "dns", "tcp")
    ]
    assert well.methods() == ["daemon.ping", "config.show", "daemon.check"]


def test_as_json(well: FakeDaemon, run: Run) -> None:
    found = findings(run("doctor", "--json"))
    assert {one["level"] for one in found.values()} == {"ok"}
    assert found["socket"]["data"] == {"mode": "0660", "pid": os.getpid(), "uid": os.getuid()}
    assert found["daemon"]["data"]["role"] == "admin"


@pytest.mark.parametrize(
    ("found", "status", "level"),
    [
        ([LATE], 1, "warning"),
        ([FINE, LOST], 1, "critical"),
        ([FINE, STUCK], 1, "critical"),
        ([LOST, DAMAGED], 6, "critical"),
        ([STUCK, DAMAGED], 6, "critical"),
    ],
)
def test_the_exit_status(
    well: FakeDaemon, run: Run, found: list[t.Finding], status: int, level: t.Level
) -> None:
    well.script["daemon.check"] = t.CheckReport(level=level, findings=found)
    result = run("doctor", "--offline")
    assert result.exit_code == status
    assert ("is damaged" in result.stderr) == (status == 6)
    lines = result.stdout.splitlines()
    for one in found:
        place = next(index for index, line in enumerate(lines) if one.message in line)
        assert lines[place].split()[:2] == [one.level, one.check]
        if one.hint:
            assert lines[place + 1].strip() == f"-> {one.hint}"
    (document,) = documents(run("doctor", "--offline", "--json").stdout)
    assert document["level"] == level


def test_without_a_daemon_everything_else_is_looked_at(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listening: int
) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "waD.toml").write_text(
        f'[network]\nurl = "ws://127.0.0.1:{listening}/ws"\nroot_key = "{"ab" * 32}"\n'
    )
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "waD.db").touch(0o644)
    (tmp_path / "state" / "waD.db").chmod(0o644)
    result = run("doctor", "--socket", str(tmp_path / "none"), "--json")
    assert result.exit_code == 3
    found = findings(result)
    assert found["socket"]["level"] == "critical"
    assert "systemctl start waD" in found["socket"]["hint"]
    assert found["config"]["level"] == "ok"
    assert found["permissions"]["level"] == "critical"
    assert found["permissions"]["hint"] == f"chmod 600 {tmp_path / 'state' / 'waD.db'}"
    assert found["tcp"]["subject"] == f"127.0.0.1:{listening}"
    assert found["tcp"]["level"] == "ok"


def test_faults_of_the_settings_are_findings(run: Run, tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    file = tmp_path / "etc" / "waD.toml"
    file.write_text("[nothing]\n[store]\npath = 1\n")
    (document,) = documents(run("doctor", "--offline", "--json", "--socket", str(tmp_path / "none")).stdout)
    faults = [one for one in document["findings"] if one["check"] == "config"]
    assert [(one["level"], one["subject"]) for one in faults] == [
        ("critical", f"{file}:1"),
        ("critical", f"{file}:3"),
    ]
    assert all("wactl config check" in one["hint"] for one in faults)


def test_the_file_of_the_running_daemon_is_checked(well: FakeDaemon, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text("[nothing]\n")
    well.script["config.show"] = t.ConfigList(options=[], files=[str(file)])
    result = run("doctor", "--offline", "--json")
    assert result.exit_code == 1
    found = findings(result)["config"]
    assert found["subject"] == f"{file}:1"
    assert f"wactl config check --config={file}" in found["hint"]


@pytest.mark.parametrize(
    ("method", "outcome", "check", "level", "word"),
    [
        (
            "daemon.check",
            refusal("not_permitted", "no", needs="operator"),
            "daemon",
            "warning",
            "role operator",
        ),
        ("daemon.check", refusal("storage_unavailable", "disk is full"), "daemon", "critical", "journalctl"),
        ("daemon.check", hang_up, "daemon", "critical", "journalctl"),
        ("daemon.check", {"level": 3}, "daemon", "critical", "journalctl"),
        ("config.show", refusal("not_permitted", "no", needs="admin"), "daemon", "ok", ""),
        ("daemon.ping", t.Pong(pid=1, version="9", protocol=2, role="admin"), "daemon", "warning", "upgrade"),
    ],
)
def test_what_the_daemon_refuses(
    well: FakeDaemon, run: Run, method: str, outcome: Any, check: str, level: str, word: str
) -> None:
    well.script[method] = outcome
    result = run("doctor", "--offline", "--json")
    assert result.exit_code == (0 if level == "ok" else 1)
    found = findings(result)[check]
    assert found["level"] == level
    assert word in found["hint"]


def test_a_daemon_that_answers_nothing_is_not_reached(well: FakeDaemon, run: Run) -> None:
    well.script["daemon.ping"] = hang_up
    result = run("doctor", "--offline", "--json")
    assert result.exit_code == 3
    assert findings(result)["daemon"]["level"] == "critical"


def test_damage_that_the_daemon_raises(well: FakeDaemon, run: Run) -> None:
    well.script["daemon.check"] = refusal("damaged", "the database is damaged")
    assert run("doctor", "--offline").exit_code == 6
    store = findings(run("doctor", "--offline", "--json"))["store"]
    assert store["data"] == {"damaged": True}


def test_a_store_that_does_not_work_now_is_no_damage(well: FakeDaemon, run: Run) -> None:
    well.script["daemon.check"] = refusal("storage_unavailable", "the disk is full")
    result = run("doctor", "--offline", "--json")
    assert result.exit_code == 1
    assert findings(result)["daemon"]["message"] == "the disk is full"


def test_remote_text_is_harmless(well: FakeDaemon, run: Run) -> None:
    evil = "\x1b]0;x\x07\nok  store"
    one = t.Finding(check=evil, level="warning", subject=evil, message=evil, hint=evil)
    well.script["daemon.check"] = t.CheckReport(level="warning", findings=[one])
    result = run("doctor", "--offline")
    assert "\x1b" not in result.stdout
    assert not any(line.startswith("ok  store") for line in result.stdout.splitlines())


# -------------------------------------------------------------------------------------------------------- the socket


def test_a_socket_nobody_listens_at(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    found, (one,) = diagnosis.look_at_socket([tmp_path / "none", path])
    assert found is None
    assert (one.level, one.subject) == ("critical", str(path))
    assert "nobody listens" in one.message


def test_a_file_in_the_socket_s_place(tmp_path: Path) -> None:
    (tmp_path / "s").touch()
    found, (one,) = diagnosis.look_at_socket([tmp_path / "s"])
    assert found is None
    assert "not a socket" in one.message


def test_a_socket_open_to_all(daemon: FakeDaemon) -> None:
    daemon.path.chmod(0o666)
    found, (one,) = diagnosis.look_at_socket([daemon.path])
    assert found == daemon.path
    assert one.level == "warning"
    assert "0666" in one.message


def test_a_socket_one_may_not_use(daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(diagnosis, "_listener", refuse)
    found, (one,) = diagnosis.look_at_socket([daemon.path])
    assert found is None
    assert "group" in one.hint


def test_somebody_else_listens(daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "_listener", lambda _: (1, 54_321))
    found, (one,) = diagnosis.look_at_socket([daemon.path])
    assert found == daemon.path
    assert one.level == "warning"
    assert "54321" in one.message


# ---------------------------------------------------------------------------------------- settings, store and clock


@pytest.mark.parametrize(
    ("files", "main"),
    [
        ([], None),
        (["/etc/waD/waD.toml", "/etc/waD/conf.d/a.toml"], "/etc/waD/waD.toml"),
        (["/etc/waD/conf.d/a.toml"], None),
    ],
)
def test_the_main_file(files: list[str], main: str | None) -> None:
    assert diagnosis.main_file(files) == (None if main is None else Path(main))


def test_a_broken_installation_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/nonexistent/python")
    (one,) = diagnosis.look_at_config(None)
    assert diagnosis.read_options() == {}
    assert (one.level, one.check) == ("warning", "config")


def test_a_file_one_may_not_read_is_no_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    (one,) = diagnosis.look_at_config(tmp_path / "waD.toml")
    assert (one.level, one.message) == ("ok", "not looked at: you may not read it")


def test_endpoints_are_the_ways_sessions_take() -> None:
    assert diagnosis.endpoints({}) == [Endpoint()]
    options = {
        "network.url": "none",
        "network.proxy": "none",
        "network.ca_file": '"/ca.pem"',
        "sessions.alerts.network.proxy": '"http://p:3128"',
        "sessions.jobs.network.proxy": '"http://p:3128"',
        "sessions.jobs.reconnect.attempts": "3",
    }
    plain = Endpoint(ca_file="/ca.pem")
    assert diagnosis.endpoints(options) == [plain, plain._replace(proxy="http://p:3128")]


def test_a_store_without_a_file_is_made_by_the_daemon(tmp_path: Path) -> None:
    options = {"store.path": f'"{tmp_path}/waD.db"'}
    (one,) = diagnosis.look_at_store(options, offline=True)
    assert one.level == "ok"
    assert list(diagnosis.look_at_store({}, offline=True)) == []
    (tmp_path / "waD.db").touch(0o600)
    (one,) = diagnosis.look_at_store(options, offline=True)
    assert (one.level, one.data) == ("ok", {"mode": "0600"})


def test_of_a_database_on_a_server_the_way_to_it(listening: int, tmp_path: Path) -> None:
    url = f"postgresql://wad:***@127.0.0.1:{listening}/wad?sslmode=verify-full"
    options = {"store.path": f'"{tmp_path}/waD.db"', "store.url": f'"{url}"'}
    (one,) = diagnosis.look_at_store(options, offline=False)
    assert (one.check, one.level, one.subject) == ("store", "ok", f"127.0.0.1:{listening}")
    assert list(diagnosis.look_at_store(options, offline=True)) == []


def test_one_of_several_servers_is_enough(listening: int, tmp_path: Path) -> None:
    good, bad = f"127.0.0.1:{listening}", "127.0.0.1:1"
    found = {one.subject: one.level for one in look_at_database(f"postgresql://{bad},{good}/wad", 2)}
    assert found == {bad: "warning", good: "ok"}
    (alone,) = look_at_database(f"postgresql://{bad}/wad", 2)
    assert (alone.level, alone.hint[:3]) == ("critical", "see")
    (missing,) = look_at_database(f"postgresql:///wad?host={tmp_path}", 2)
    assert (missing.level, missing.subject) == ("critical", f"{tmp_path}/.s.PGSQL.5432")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://u:p@h/d", ["h:5432"]),
        ("postgresql:///d", ["/var/run/postgresql/.s.PGSQL.5432"]),
        ("postgresql://%2Frun%2Fpg:5433/d", ["/run/pg/.s.PGSQL.5433"]),
        ("postgresql://[::1]:7,h2/d", ["::1:7", "h2:5432"]),
        ("postgresql://h/d?host=a,b&port=1,2", ["a:1", "b:2"]),
    ],
)
def test_the_servers_of_a_url(url: str, expected: list[str]) -> None:
    assert [str(one) for one in hosts(url)] == expected


def test_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    assert diagnosis.look_at_clock().level == "ok"
    past = diagnosis.look_at_clock(now=0)
    assert past.level == "critical"
    assert "1970-01-01" in past.message
    for answer, level in ((False, "warning"), (True, "ok")):
        monkeypatch.setattr(diagnosis, "_synchronised", lambda answer=answer: answer)
        assert diagnosis.look_at_clock().level == level


# ---------------------------------------------------------------------------------------------------- the end point


def checks(end: Endpoint) -> dict[str, t.Finding]:
    return {one.check: one for one in look(end, patience=5)}


def test_tcp_and_no_more_for_a_sandbox(listening: int) -> None:
    found = checks(Endpoint(f"ws://127.0.0.1:{listening}/ws/chat"))
    assert [(name, one.level) for name, one in found.items()] == [("dns", "ok"), ("tcp", "ok")]


def test_the_way_to_a_proxy(listening: int) -> None:
    found = checks(Endpoint(proxy=f"http://user:secret@127.0.0.1:{listening}"))
    assert "proxy" in found["tcp"].message
    assert "secret" not in str(found)
    assert "tls" not in found


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    found = checks(Endpoint(f"wss://127.0.0.1:{port}/"))
    assert found["tcp"].level == "warning"
    assert "refused" in found["tcp"].message
    assert found["tcp"].hint


@pytest.mark.parametrize("url", ["wss://[::1", "wss:///ws", "wss://h:x/", "no url", "wss://h:99999/"])
def test_an_odd_url(url: str) -> None:
    (one,) = look(Endpoint(url))
    assert (one.check, one.level) == ("dns", "warning")


def test_a_name_that_does_not_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    (one,) = look(Endpoint())
    assert "Name or service not known" in one.message
    assert "web.whatsapp.com" in one.hint


@pytest.mark.parametrize("host", ["a" * 70 + ".invalid", "..", "x\x00y"])
def test_a_name_that_cannot_be(host: str) -> None:
    with pytest.raises(OSError):
        endpoint.resolve(host, 443, 5)


def test_a_resolver_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    from threading import Event

    end = Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: end.wait() and [])
    with pytest.raises(OSError, match=r"no answer within 0\.05 s"):
        endpoint.resolve("h", 443, 0.05)
    end.set()


def test_tls_that_is_none(listening: int) -> None:
    # A listener that never answers the handshake.
    found = {one.check: one for one in look(Endpoint(f"wss://127.0.0.1:{listening}/"), patience=0.1)}
    assert found["tls"].level == "warning"


def test_an_authority_s_file_that_is_missing(listening: int, tmp_path: Path) -> None:
    found = checks(Endpoint(f"wss://127.0.0.1:{listening}/", ca_file=str(tmp_path / "none.pem")))
    assert found["tls"].level == "warning"
    assert "ca_file" in found["tls"].hint


async def test_a_certificate_is_verified() -> None:
    async with run_sandbox(tls=True) as sandbox:
        trusted = Endpoint(sandbox.url, ca_file=str(sandbox.ca_file))
        found = await trio.to_thread.run_sync(checks, trusted)
        assert found["tls"].level == "ok", found
        assert found["tls"].message.startswith("TLSv1.")
        found = await trio.to_thread.run_sync(checks, Endpoint(sandbox.url))
        assert found["tls"].level == "warning"
        assert "certificate" in found["tls"].message
        assert "clock" in found["tls"].hint


async def test_a_real_daemon_and_what_monitors_say(tmp_path: Path) -> None:
    more = '[reconnect.on]\nhttp = "hold"\n'
    async with run_sandbox() as sandbox, running(tmp_path, sandbox, more=more) as daemon:
        wactl = Wactl(daemon, sandbox)
        assert (await wactl("ready", "alerts", exit_status=1)).stdout.startswith(b"alerts - rejecting: ")
        assert (await wactl("check", "alerts", exit_status=2)).stdout.startswith(b"WAD CRITICAL - ")
        await daemon.pair(sandbox)
        found = (await wactl.document("doctor"))["findings"]
        assert {one["level"] for one in found} == {"ok"}, found
        assert {"socket", "daemon", "config", "store", "permissions", "session", "clock", "tcp"} <= {
            one["check"] for one in found
        }
        assert str(daemon.config) in next(one["message"] for one in found if one["check"] == "config")
        assert (await wactl.document("check", "alerts"))["performance"]["open"] == 1
        assert (await wactl("check")).stdout.startswith(b"WAD OK - 1 of 1 sessions open|")
        rows = {row["cause"]: row for row in (await wactl.document("policy", "show"))["rows"]}
        assert rows["http"]["action"] == "hold"
        assert rows["http"]["origin"].startswith(f"{daemon.config}:")
        shown = (await wactl("config", "show", "--origin")).stdout.decode()
        assert f'network.url = "{sandbox.url}"  # {daemon.config}:' in shown

        daemon.config.chmod(0o666)
        found = (await wactl.document("doctor", exit_status=1))["findings"]
        (wrong,) = [one for one in found if one["level"] != "ok"]
        assert wrong["hint"] == f"chmod go-w {daemon.config}"
        await daemon.stop()
        assert (await wactl.document("doctor", exit_status=3))["level"] == "critical"
        assert (await wactl.document("check", exit_status=3))["level"] == "UNKNOWN"
        await wactl("ready", exit_status=2)


def test_children_use_this_interpreter() -> None:
    assert child.run("-c", "import sys; print(sys.executable)").out.strip() == child.command_line()[0]
