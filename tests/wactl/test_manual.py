"""The manual pages of section 1: current, sound for groff, and complete."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import click
import pytest

from tests.wactl.conftest import ROOT
from tests.wactl.test_surface import ALL
from wactl import manual
from wactl.cli import COMMANDS
from waD.control import types as t

MAN = ROOT / "man"
PAGES = manual.pages()
SECTIONS = [
    "NAME",
    "SYNOPSIS",
    "DESCRIPTION",
    "OPTIONS",
    "EXIT STATUS",
    "EXAMPLES",
    "ENVIRONMENT",
    "SEE ALSO",
]
REQUESTS = {'\\"', "TH", "SH", "SS", "B", "BR", "br", "PP", "TP", "RS", "RE", "EX", "EE"}


def plain(page: str) -> str:
    """A page as people read it, as far as the macros go."""
    for escape, text in (
        (r"\-", "-"),
        (r"\ ", " "),
        (r"\(aq", "'"),
        (r"\(dq", '"'),
        (r"\(ti", "~"),
        (r"\(ha", "^"),
    ):
        page = page.replace(escape, text)
    return re.sub(r"\\f[BIRP]", "", page).replace(r"\(rs", "\\").replace(r"\(ga", "`").replace(r"\&", "")


def test_the_committed_pages_are_current() -> None:
    committed = {path.name: path.read_text() for path in MAN.glob("wactl*.1")}
    assert committed.keys() == PAGES.keys(), "make them anew: python -m wactl.manual man"
    for name, text in PAGES.items():
        assert committed[name] == text, f"man/{name}: make it anew: python -m wactl.manual man"


def test_every_command_has_a_page() -> None:
    assert PAGES.keys() == {"wactl.1", *(f"wactl-{name}.1" for name in COMMANDS)}
    for name in COMMANDS:
        assert f".BR wactl\\-{name.replace('-', chr(92) + '-')} (1)" in PAGES["wactl.1"]


@pytest.mark.parametrize("name", PAGES)
def test_the_sections(name: str) -> None:
    found = [line[4:].strip('"') for line in PAGES[name].splitlines() if line.startswith(".SH ")]
    assert [section for section in found if section != "COMMANDS"] == SECTIONS
    assert PAGES[name].isascii()


@pytest.mark.parametrize("name", PAGES)
def test_no_line_is_taken_for_an_unknown_request(name: str) -> None:
    for line in PAGES[name].splitlines():
        assert not line.startswith("'")
        assert line
        if line.startswith("."):
            assert line[1:].split(" ")[0] in REQUESTS, line


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_sound_for_groff(name: str) -> None:
    done = subprocess.run(
        ["groff", "-man", "-ww", "-Tutf8", "-z"],
        input=PAGES[name],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
def test_a_page_as_it_is_read() -> None:
    done = subprocess.run(
        ["groff", "-man", "-Tascii", "-P-cbou"],
        input=PAGES["wactl-ready.1"],
        capture_output=True,
        text=True,
        check=True,
    )
    shown = " ".join(done.stdout.replace("-\n", "-").split())
    assert "wactl-ready - tell or wait whether a session is open" in shown
    assert "wactl ready [--wait] [--timeout SECONDS] [NAME]" in shown
    assert "1 Rejecting: the daemon answers" in shown
    assert "wactl ready --wait --timeout 120 alerts" in shown
    assert "130" not in shown.partition("EXAMPLES")[0].partition("EXIT STATUS")[2]


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_a_page_has_everything_the_help_has(path: tuple[str, ...]) -> None:
    command = ALL[path]
    page = plain(PAGES[f"wactl-{path[0]}.1"])
    assert "wactl " + " ".join(path) in page
    for line in (command.help or "").splitlines():
        assert line.strip() in " ".join(page.split()) or not line.strip(), line
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert (parameter.help or "") in page
            for name in (*parameter.opts, *parameter.secondary_opts):
                assert name in page
    for line in command.example.splitlines():  # type: ignore[attr-defined]
        assert f"\n{line}\n" in page


@pytest.mark.parametrize("name", PAGES)
def test_pages_refer_to_pages_that_exist(name: str) -> None:
    page = plain(PAGES[name])
    for title, section in re.findall(r"\b(wa(?:ctl|D)[\w.-]*) ?\((\d)\)", page):
        assert (MAN / f"{title}.{section}").exists(), title


def test_the_exit_statuses_are_those_of_the_program() -> None:
    wanted = {getattr(t, name) for name in dir(t) if name.startswith("EXIT_")}
    assert set(manual.EXITS) == wanted
    assert {kind.exit for kind in t.ERRORS.values()} <= set(manual.EXITS)
    page = PAGES["wactl-send.1"].partition('.SH "EXIT STATUS"')[2]
    for status in manual.EXITS:
        assert f"\n.B {status}\n" in page


def test_options_of_most_subcommands_are_told_once() -> None:
    page = plain(PAGES["wactl-sandbox.1"])
    assert page.count("The sandbox; else WAD_SANDBOX_URL") == 1


def test_writing_replaces_and_clears_away(tmp_path: Path) -> None:
    (tmp_path / "wactl-gone.1").write_text(manual.MARK + "\n")
    (tmp_path / "wactl-own.1").write_text("by hand\n")
    (tmp_path / "wactl.1").write_text("old")
    manual.write(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*PAGES, "wactl-own.1"}
    assert (tmp_path / "wactl.1").read_text() == PAGES["wactl.1"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (".x", r"\&.x"),
        ("'x'", r"\(aqx\(aq"),
        ("a-b", r"a\-b"),
        ('"\\n"', r"\(dq\(rsn\(dq"),
        ("~^`", r"\(ti\(ha\(ga"),
    ],
)
def test_what_macros_would_read_is_escaped(text: str, line: str) -> None:
    assert manual._escape(text) == line
