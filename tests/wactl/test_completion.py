"""The committed completion files: current, and bash completes with its one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.wactl.conftest import ROOT, Run
from tests.wactl.fake import PATIENCE_S, FakeDaemon, refusal, say_nothing, view
from wactl.completing import PATIENCE_S as COMPLETING_S
from wactl.completing import session_names
from waD.control import types as t

FILES = ROOT / "completion"
SHELLS = ["bash", "zsh", "fish"]
bash_only = pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")


@pytest.mark.parametrize("shell", SHELLS)
def test_the_committed_files_are_what_the_command_prints(run: Run, shell: str) -> None:
    made = run("completion", shell).stdout
    assert (FILES / f"wactl.{shell}").read_text() == made, (
        f"wactl completion {shell} >completion/wactl.{shell}"
    )


def test_zsh_finds_the_function_by_its_first_line() -> None:
    assert (FILES / "wactl.zsh").read_text().startswith("#compdef wactl\n")


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_that_is_there_takes_its_file(shell: str) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    done = subprocess.run(
        [program, "-n", FILES / f"wactl.{shell}"], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""


@pytest.fixture
def shell(tmp_path: Path) -> dict[str, str]:
    """An environment in which `wactl` is this one."""
    wactl = tmp_path / "bin" / "wactl"
    wactl.parent.mkdir()
    wactl.write_text(f'#!/bin/sh\nexec {sys.executable} -m wactl "$@"\n')
    wactl.chmod(0o755)
    return dict(os.environ) | {"PATH": f"{wactl.parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}


def complete(environment: dict[str, str], *words: str) -> list[str]:
    """What bash offers for the last word, by the function that it has registered for wactl."""
    script = (
        f"source '{FILES}/wactl.bash'\n"
        "registered=$(complete -p wactl); [[ $registered =~ -F\\ ([^ ]+) ]]\n"
        'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); "${BASH_REMATCH[1]}" wactl\n'
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", script, "bash", "wactl", *words],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        env=environment,
    )
    assert done.stderr == ""
    return done.stdout.split()


@bash_only
def test_bash_completes_commands_options_and_choices(shell: dict[str, str]) -> None:
    assert complete(shell, "re") == ["remove", "release", "reset", "read", "restore-auth", "repair", "ready"]
    assert complete(shell, "policy", "") == ["show"]
    assert complete(shell, "ready", "--w") == ["--wait"]
    assert complete(shell, "send", "--wait", "de") == ["delivered"]


@bash_only
def test_bash_completes_sessions(daemon: FakeDaemon, shell: dict[str, str]) -> None:
    daemon.script["session.list"] = t.SessionList(sessions=[view(name="alerts"), view(name="jobs")])
    assert complete(shell, "hold", "") == ["alerts", "jobs"]
    assert complete(shell, "policy", "show", "--session", "j") == ["jobs"]
    daemon.script["session.list"] = refusal("not_permitted")
    assert complete(shell, "hold", "") == []


@bash_only
def test_bash_is_silent_without_a_daemon(shell: dict[str, str], tmp_path: Path) -> None:
    assert complete(shell | {"WAD_SOCKET": str(tmp_path / "none")}, "hold", "") == []


def test_the_patience_counts_for_the_whole_question(daemon: FakeDaemon) -> None:
    daemon.script["session.list"] = say_nothing
    begin = time.monotonic()
    assert session_names(daemon.path, "") == []
    assert COMPLETING_S <= time.monotonic() - begin < COMPLETING_S + 1
    assert COMPLETING_S <= 0.2
