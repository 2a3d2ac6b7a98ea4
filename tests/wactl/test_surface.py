"""The command line as such: help, options, completion, what is imported, versions."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import click
import pytest
from click.shell_completion import BashComplete

from tests.wactl.conftest import ROOT, Run, error_of
from tests.wactl.fake import PATIENCE_S, FakeDaemon, refusal, say_nothing, view
from wactl.base import App, LazyGroup
from wactl.cli import COMMANDS, cli
from waD.control import types as t

WANTED = {
    "connect", "qr", "disconnect", "logout", "remove", "list", "status", "send", "messages", "outbox", "read",
    "tail-events", "ping", "info", "daemon", "sandbox", "completion", "hold", "release", "reset", "undo", "check",
    "ready", "doctor", "policy", "config", "verify-auth", "migrate-auth", "backup-auth", "restore-auth", "storage",
    "repair",
}  # fmt: skip
WANTED_SANDBOX = {
    "run", "info", "phones", "phone", "scan", "send", "read", "messages", "fault", "faults", "unlink",
    "drop-sessions",
}  # fmt: skip


def paths(group: click.Group, *before: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        assert found is not None
        yield (*before, name), found
        if isinstance(found, click.Group):
            yield from paths(found, *before, name)


ALL = dict(paths(cli))


def test_every_wanted_command_is_there() -> None:
    assert set(COMMANDS) == WANTED
    assert {path[1] for path in ALL if path[0] == "sandbox" and len(path) == 2} >= WANTED_SANDBOX
    assert {path[1] for path in ALL if path[0] == "daemon" and len(path) == 2} == {"reload", "stop"}
    assert {path[1] for path in ALL if path[0] == "config" and len(path) == 2} == {"show", "check", "init"}
    assert ("policy", "show") in ALL
    assert {path[1] for path in ALL if path[0] == "messages" and len(path) == 2} == {"show", "purge"}
    assert {path[1] for path in ALL if path[0] == "storage" and len(path) == 2} == {
        "status", "dual-write", "backfill", "verify", "promote", "cutover", "rollback", "retire-legacy", "encrypt",
        "rewrap",
    }  # fmt: skip
    assert {path[1] for path in ALL if path[0] == "outbox" and len(path) == 2} == {
        "list",
        "release",
        "cancel",
    }


@pytest.mark.parametrize("path", [(), *ALL], ids=" ".join)
def test_every_command_helps_with_an_example(run: Run, path: tuple[str, ...]) -> None:
    for option in ("--help", "-h"):
        result = run(*path, option)
        assert (result.exit_code, result.stderr) == (0, "")
        usage, _, rest = result.stdout.partition("\n\n")
        assert usage.startswith(" ".join(["Usage: wactl", *path]))
        _, _, example = rest.partition("\nExample:\n")
        assert f"wactl {' '.join(path)}".strip() in example
        assert "--json" in rest
        assert "--socket" in rest


@pytest.mark.parametrize(
    "path", [path for path in ALL if not isinstance(ALL[path], click.Group)], ids=" ".join
)
def test_every_option_and_command_is_explained(path: tuple[str, ...]) -> None:
    command = ALL[path]
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name
            assert len(parameter.help) < 120


@pytest.mark.parametrize(
    "path", [path for path in ALL if not isinstance(ALL[path], click.Group)], ids=" ".join
)
def test_examples_are_command_lines_that_parse(path: tuple[str, ...]) -> None:
    example: str = ALL[path].example  # type: ignore[attr-defined]
    own = 0
    for words in filter(lambda words: words[0] == "wactl", commands_in(example)):
        named = next(tuple(words[1:end]) for end in (3, 2) if tuple(words[1:end]) in ALL)
        ALL[named].make_context(named[-1], words[1 + len(named) :], obj=App()).close()
        own += named == path
    assert own


def commands_in(text: str) -> Iterator[list[str]]:
    """The commands of shell lines as words, without where their output goes."""
    for line in text.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&>")
        lexer.whitespace_split = True
        words: list[str] = []
        for token in lexer:
            if token in ("|", "&&", ">"):
                yield words
                words = []
            else:
                words.append(token)
        yield words


def test_without_a_command_there_is_help(run: Run) -> None:
    for words in ([], ["daemon"], ["sandbox"]):
        result = run(*words)
        assert result.exit_code == 2
        assert "Commands:" in result.stderr + result.stdout


@pytest.mark.parametrize(
    "words",
    [["no-such"], ["list", "--no-such"], ["status", "a", "b"], ["daemon", "no"], ["completion", "csh"]],
)
def test_a_wrong_command_line_is_2(daemon: FakeDaemon, run: Run, words: list[str]) -> None:
    result = run(*words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--help" in result.stderr
    assert error_of(run(*words, "--json"))["symbol"] == "usage"
    assert error_of(run("--json", *words))["code"] is None
    assert daemon.requests == []


def test_the_version(run: Run) -> None:
    assert run("--version").stdout == f"wactl {version('wactl')}\n"


# ----------------------------------------------------------------------------------------------------- completion


def complete(shell_words: list[str], incomplete: str) -> list[str]:
    completer = BashComplete(cli, {}, "wactl", "_WACTL_COMPLETE")
    return [item.value for item in completer.get_completions(shell_words, incomplete)]


def test_names_of_sessions_are_completed(daemon: FakeDaemon) -> None:
    daemon.script["session.list"] = t.SessionList(sessions=[view(name="alerts"), view(name="jobs")])
    assert complete(["status"], "") == ["alerts", "jobs"]
    assert complete(["send"], "j") == ["jobs"]
    assert complete(["tail-events", "--json"], "al") == ["alerts"]


def test_completion_asks_the_socket_that_is_named(
    daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon.script["session.list"] = t.SessionList(sessions=[view(name="alerts")])
    monkeypatch.setenv("WAD_SOCKET", "/nonexistent/socket")
    assert complete(["status"], "") == []
    assert complete(["--socket", str(daemon.path), "status"], "") == ["alerts"]
    assert complete(["status", "--socket", str(daemon.path)], "") == ["alerts"]


def test_completion_fails_in_silence_and_soon(daemon: FakeDaemon) -> None:
    for outcome in (refusal("not_permitted", "no"), say_nothing, {"sessions": 3}):
        daemon.script["session.list"] = outcome
        assert complete(["status"], "") == []


def test_commands_are_completed() -> None:
    assert complete([], "re") == ["remove", "release", "reset", "read", "restore-auth", "repair", "ready"]
    assert complete(["sandbox"], "fau") == ["fault", "faults"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_scripts_of_the_shells(run: Run, shell: str) -> None:
    result = run("completion", shell)
    assert result.exit_code == 0
    assert f"_WACTL_COMPLETE={shell}_complete" in result.stdout


def test_bash_takes_its_script_and_completes(daemon: FakeDaemon, tmp_path: Path, run: Run) -> None:
    daemon.script["session.list"] = t.SessionList(sessions=[view(name="alerts"), view(name="jobs")])
    (tmp_path / "completion.bash").write_text(run("completion", "bash").stdout)
    wactl = tmp_path / "wactl"
    wactl.write_text(f'#!/bin/sh\nexec {sys.executable} -m wactl "$@"\n')
    wactl.chmod(0o755)
    script = (
        "source completion.bash && COMP_WORDS=(wactl status al) COMP_CWORD=2 && "
        '_wactl_completion wactl && echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        cwd=tmp_path,
        env=dict(os.environ) | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)},
    )
    assert (done.stdout, done.stderr) == ("alerts\n", "")


# --------------------------------------------------------------------------------------------------------- weight

HEAVY = {"trio", "cryptography", "google.protobuf", "structlog", "asyncio", "ssl", "http.client", "segno"}


def loaded(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
        cwd=ROOT,
    )
    return set(done.stdout.split())


def test_a_command_imports_what_it_needs(daemon: FakeDaemon) -> None:
    daemon.script["session.status"] = view("open")
    code = (
        "from wactl.cli import cli\n"
        "try: cli.main(['status', 'alerts', '--json'])\n"
        "except SystemExit as end: assert not end.code"
    )
    modules = loaded(code)
    assert modules & HEAVY == set()
    ours = {name for name in modules if name.startswith(("wactl.commands.", "wactl.sandbox"))}
    assert ours == {"wactl.commands.status"}
    of_the_daemon = {name for name in modules if name.startswith("waD.")}
    assert {name for name in of_the_daemon if not name.startswith("waD.control.types.")} == {
        "waD.control",
        "waD.control.paths",
        "waD.control.types",
    }


def test_help_imports_no_command() -> None:
    modules = loaded("from wactl.cli import cli\ntry: cli.main(['--help'])\nexcept SystemExit: pass")
    assert not {name for name in modules if name.startswith(("wactl.commands.", "wactl.sandbox."))}


def test_every_command_stays_light() -> None:
    names = {row[0].partition(":")[0] for row in COMMANDS.values()}
    names |= {
        row[0].partition(":")[0]
        for group in ALL.values()
        if isinstance(group, LazyGroup)
        for row in group.table.values()
    }
    modules = loaded("\n".join(f"import {name}" for name in sorted(names)))
    assert modules & {"trio", "cryptography", "google.protobuf", "structlog"} == set()
