"""wactl config show, check and init; the last two run without a daemon."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tests.wactl.conftest import Run, documents, error_of
from tests.wactl.fake import FakeDaemon, refusal
from wactl import child
from wactl.commands.config import write_new
from wactl.failure import Failure
from waD.config.template import template
from waD.control import types as t

OPTIONS = t.ConfigList(
    options=[
        t.OptionView(key="reconnect.base", value='"1s"', origin="default"),
        t.OptionView(key="network.proxy", value='"http://u:***@p:1"', origin="/etc/waD/conf.d/p.toml:2"),
    ],
    files=["/etc/waD/waD.toml"],
    warnings=["/etc/waD/waD.toml:3: old word"],
)


# ------------------------------------------------------------------------------------------------------------ show


def test_show(daemon: FakeDaemon, run: Run) -> None:
    daemon.script["config.show"] = OPTIONS
    result = run("config", "show")
    assert result.stdout == 'reconnect.base = "1s"\nnetwork.proxy = "http://u:***@p:1"\n'
    assert result.stderr == "warning: /etc/waD/waD.toml:3: old word\n"
    assert daemon.params("config.show") == {}


def test_show_with_origins(daemon: FakeDaemon, run: Run) -> None:
    daemon.script["config.show"] = OPTIONS
    lines = run("config", "show", "--origin").stdout.splitlines()
    assert lines[0].endswith('"1s"  # default')
    assert lines[1].endswith("  # /etc/waD/conf.d/p.toml:2")


def test_show_as_json(daemon: FakeDaemon, run: Run) -> None:
    daemon.script["config.show"] = OPTIONS
    result = run("config", "show", "--json")
    (document,) = documents(result.stdout)
    assert document["options"][1]["origin"] == "/etc/waD/conf.d/p.toml:2"
    assert result.stderr == ""
    daemon.script["config.show"] = refusal("not_permitted", "no", needs="admin")
    assert run("config", "show").exit_code == 7


# ----------------------------------------------------------------------------------------------------------- check


def test_check_of_a_good_file(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "waD.toml"
    file.write_text("[daemon]\nstop_timeout = 7\n")
    result = run("config", "check", "--config", str(file))
    assert result.exit_code == 0
    assert str(file) in result.stdout
    assert result.stderr == ""
    (document,) = documents(run("config", "check", "--config", str(file), "--json").stdout)
    assert (document["valid"], document["faults"], document["warnings"]) == (True, [], [])


def test_check_tells_every_fault(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "waD.toml"
    file.write_text("[nothing]\n[store]\npath = 1\n")
    result = run("config", "check", "--config", str(file))
    assert (result.exit_code, result.stdout) == (1, "")
    assert [line.split(": ")[:2] for line in result.stderr.splitlines()] == [
        [f"{file}:1", "nothing"],
        [f"{file}:3", "store.path"],
    ]
    result = run("config", "check", "--config", str(file), "--json")
    (document,) = documents(result.stdout)
    assert result.exit_code == 1
    assert document["valid"] is False
    assert len(document["faults"]) == 2


def test_check_warns(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "waD.toml"
    file.write_text('network.proxy = "http://u:p@h"\n')
    file.chmod(0o644)
    result = run("config", "check", "--config", str(file))
    assert result.exit_code == 0
    assert result.stderr.startswith(f"warning: {file}:1: network.proxy: holds a password")
    (document,) = documents(run("config", "check", "--config", str(file), "--json").stdout)
    assert len(document["warnings"]) == 1


def test_check_knows_what_only_this_machine_can_tell(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "waD.toml"
    file.write_text('[control.roles]\nadmin = ["nobody-by-this-name"]\n')
    result = run("config", "check", "--config", str(file))
    assert result.exit_code == 1
    assert "nobody-by-this-name" in result.stderr


def test_check_of_a_file_that_is_not_there(run: Run, tmp_path: Path) -> None:
    result = run("config", "check", "--config", str(tmp_path / "none.toml"))
    assert result.exit_code == 1
    assert "none.toml" in result.stderr
    assert run("config", "check", "--config", str(tmp_path)).exit_code == 2


# ------------------------------------------------------------------------------------------------------------ init


def test_init_writes_what_the_daemon_reads(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "made" / "waD.toml"
    mask = os.umask(0o077)
    try:
        result = run("config", "init", "--output", str(file))
    finally:
        os.umask(mask)
    assert (result.exit_code, result.stdout) == (0, f"{file}\n")
    assert file.read_text() == template()
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert run("config", "check", "--config", str(file)).exit_code == 0


def test_init_never_overwrites(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "waD.toml"
    file.write_text("mine")
    result = run("config", "init", "--output", str(file))
    assert (result.exit_code, result.stdout) == (1, "")
    assert "exists; nothing was written" in result.stderr
    assert file.read_text() == "mine"
    error = error_of(run("config", "init", "--output", str(file), "--json"))
    assert error["data"] == {"file": str(file)}
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere")
    assert run("config", "init", "--output", str(link)).exit_code == 1
    assert not (tmp_path / "elsewhere").exists()


def test_init_goes_where_the_daemon_looks(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONFIGURATION_DIRECTORY", str(tmp_path / "etc"))
    (document,) = documents(run("config", "init", "--json").stdout)
    assert document == {"file": str(tmp_path / "etc" / "waD.toml")}
    assert (tmp_path / "etc" / "waD.toml").read_text() == template()


def test_init_to_standard_output(run: Run) -> None:
    assert run("config", "init", "--output", "-").stdout == template()
    (document,) = documents(run("config", "init", "--output", "-", "--json").stdout)
    assert document == {"text": template()}


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Failure, match="cannot write") as caught:
        write_new(tmp_path / "file" / "waD.toml", b"x")
    assert caught.value.exit == 1
    with pytest.raises(TypeError):
        write_new(tmp_path / "half", "text")  # type: ignore[arg-type]
    assert not (tmp_path / "half").exists()


# --------------------------------------------------------------------------------------------------------- children


def test_a_child_that_breaks_down_is_no_verdict() -> None:
    with pytest.raises(Failure, match="has broken down: ZeroDivisionError") as caught:
        child.run("-c", "1 / 0")
    assert caught.value.exit == 1
    with pytest.raises(Failure, match="broken down: signal 9"):
        child.run("-c", "import os; os.kill(os.getpid(), 9)")


def test_a_child_has_its_time() -> None:
    with pytest.raises(Failure, match=r"not ended within 0\.2 s") as caught:
        child.run("-c", "import signal; signal.pause()", timeout=0.2)
    assert caught.value.exit == 5


def test_an_interpreter_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/nonexistent/python")
    with pytest.raises(Failure, match="cannot run /nonexistent/python"):
        child.run("-c", "")


def test_modules_of_the_working_directory_stay_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "waD.py").write_text("raise SystemExit('a stranger')")
    monkeypatch.chdir(tmp_path)
    assert child.run("-m", "waD.config", "init").out == template()
