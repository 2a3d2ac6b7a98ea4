"""The committed file and page are what the generators print, and say what the loader does."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.config.conftest import Load
from waD.config import CAUSE_IDS, diff
from waD.config.__main__ import main
from waD.config.manual import manual
from waD.config.option import Derived
from waD.config.schema import OPTIONS, SECTIONS
from waD.config.template import template
from waD.session.manual import settings_page
from waD.session.table import ROWS

ROOT = Path(__file__).resolve().parents[2]
OPTION_LINE = re.compile(r"#[a-z_]+ = ")


def _run(*arguments: str, code: int = 0) -> tuple[str, str]:
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == code, done.output
    return done.stdout, done.stderr


def test_the_committed_file_is_current() -> None:
    assert (ROOT / "etc" / "waD.toml").read_text() == template() == _run("init")[0]


def test_the_committed_manual_page_is_current() -> None:
    assert (ROOT / "man" / "waD.toml.5").read_text() == settings_page(), "python -m waD.session.manual"


def test_without_the_disconnect_table_the_page_is_the_same_otherwise() -> None:
    table = settings_page().splitlines()
    plain = _run("man")[0].splitlines()
    assert plain == manual().splitlines()
    assert [line for line in table if line in set(plain)] != table
    rest = iter(table)
    assert all(line in rest for line in plain)


def test_the_page_says_what_happens_on_each_cause() -> None:
    page = settings_page().replace("\\-", "-")
    for row in ROWS.values():
        assert f'.BR {row.id} " ({row.action}' in page, row.id
        assert row.meaning in page.replace("\\(dq", '"'), row.id


def test_the_file_as_it_is_changes_nothing(loaded: Load) -> None:
    assert diff(loaded(""), loaded(template())) == ([], [])


def test_taking_the_marks_away_sets_every_option_to_its_default(loaded: Load) -> None:
    lines = template().partition("# Single sessions")[0].splitlines()
    text = "\n".join(line.removeprefix("#") if OPTION_LINE.match(line) else line for line in lines)
    found = loaded(text)
    for key, option in OPTIONS.items():
        if option.section == "reconnect.on":
            continue
        assert found.origin(key) != "default", key
        if option.spec.default is not None and not isinstance(option.spec.default, Derived):
            assert found.flat()[key][1] == option.spec.default, key


def test_the_examples_for_sessions_load(loaded: Load) -> None:
    examples = template().partition("# Single sessions")[2].splitlines()
    found = loaded(
        "\n".join(
            line.removeprefix("#") for line in examples if not line.startswith("# ") and line[:1] == "#"
        )
    )
    assert found.session("alerts").reconnect.attempts == 20
    assert found.session("alerts").reconnect.on == {"replaced": "hold"}


def test_the_page_names_every_section_option_and_cause() -> None:
    page = manual()
    for section in SECTIONS:
        assert f'.SH "[{section.name}]"' in page
    for option in OPTIONS.values():
        if option.section != "reconnect.on":
            assert f".BR {option.name}" in page, option.key
    for cause in CAUSE_IDS:
        assert f"\\fB{cause}\\fP" in page, cause


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
def test_the_page_is_sound_for_groff() -> None:
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-z", ROOT / "man" / "waD.toml.5"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
def test_the_disconnect_table_fits_into_the_page() -> None:
    page = settings_page()
    done = subprocess.run(
        ["groff", "-man", "-Tascii", "-ww", "-P-cbou"], input=page, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    words = " ".join(done.stdout.split())  # lines are filled with blanks, wherever groff likes
    for row in ROWS.values():
        assert f"{row.id} ({row.action}" in words


def test_no_line_of_the_page_is_taken_for_an_unknown_request() -> None:
    known = {'\\"', "TH", "SH", "I", "IR", "RI", "B", "BR", "br", "PP", "TP", "RS", "RE", "nf", "fi"}
    for line in settings_page().splitlines():
        assert not line.startswith("'")
        if line.startswith("."):
            assert line[1:].split(" ")[0] in known, line


def test_check_reports_faults_on_standard_error(main_file: Path) -> None:
    main_file.write_text("[nothing]\n[store]\npath = 1\n")
    out, err = _run("check", "--config", str(main_file), code=1)
    assert out == ""
    assert [line.split(": ")[1] for line in err.splitlines()] == ["nothing", "store.path"]


def test_check_names_the_files_and_warns(main_file: Path) -> None:
    main_file.write_text('network.proxy = "http://u:p@h"\n')
    main_file.chmod(0o644)
    out, err = _run("check", "--config", str(main_file))
    assert out == f"read {main_file}\n"
    assert err.startswith(f"warning: {main_file}:1: network.proxy: holds a password")


def test_check_without_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONFIGURATION_DIRECTORY", str(tmp_path))
    assert _run("check")[0] == "no file; defaults are in force\n"


def test_show_with_and_without_origins(main_file: Path) -> None:
    main_file.write_text("daemon.stop_timeout = 7\n")
    plain, _ = _run("show", "--config", str(main_file))
    assert plain.startswith('daemon.stop_timeout = "7s"\n')
    with_origin, _ = _run("show", "--origin", "--config", str(main_file))
    assert with_origin.startswith(f'daemon.stop_timeout = "7s"  # {main_file}:1\n')
    assert "daemon.restore_concurrency = 10  # default\n" in with_origin
