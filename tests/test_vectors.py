"""Every case of every covered vector file, and the runner itself."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.vector_runner import core

VECTORS = Path(__file__).parent / "vectors"


def covered_cases() -> list[Any]:
    return [
        pytest.param(case, id=f"{path.stem}-{case.kind or 'case'}-{case.name}")
        for path in core.vector_files(VECTORS)
        if path.stem in core.FORMATS
        for case in core.read_cases(path, core.FORMATS[path.stem])
        if case.check is not None
    ]


@pytest.mark.parametrize("case", covered_cases())
def test_vector(case: core.Case) -> None:
    assert case.check is not None
    with suppress(core.NotCovered):  # what comes before it was checked
        case.check(case.values)


def test_every_vector_file_here_is_covered() -> None:
    assert {path.stem for path in core.vector_files(VECTORS)} <= core.FORMATS.keys()
    assert len(covered_cases()) > 900


# The runner on made-up files.


def agree(case: dict[str, Any]) -> None:
    if case["answer"] != 42:
        raise AssertionError(f"answered {case['answer']}")


def crash(case: dict[str, Any]) -> None:
    raise KeyError(case["name"])


FORMATS: dict[str, core.Format] = {"known": {"ask": agree, "crash": crash}, "plain": {None: agree}}


def check_half(case: dict[str, Any]) -> None:
    agree(case)
    raise core.NotCovered("the other half")


def write(directory: Path, stem: str, **document: Any) -> None:
    (directory / f"{stem}.json").write_text(json.dumps(document))


def run(directory: Path) -> tuple[int, list[str], str]:
    out, err = io.StringIO(), io.StringIO()
    code = core.run_directory(directory, out, err, FORMATS)
    return code, out.getvalue().splitlines(), err.getvalue()


def test_all_pass(tmp_path: Path) -> None:
    write(tmp_path, "known", cases=[{"kind": "ask", "name": "a", "answer": 42}, {"op": "ask", "answer": 42}])
    write(tmp_path, "plain", cases=[{"kind": "whatever", "answer": 42}, {"answer": 42}])
    code, lines, err = run(tmp_path)
    assert (code, err) == (0, "")
    assert lines == ["known: 2 passed, 0 failed", "plain: 2 passed, 0 failed", "4 passed, 0 failed"]


def test_a_failure_is_named_with_its_reason(tmp_path: Path) -> None:
    cases = [{"kind": "ask", "name": "good", "answer": 42}, {"kind": "ask", "name": "bad", "answer": 41}]
    write(tmp_path, "known", cases=[*cases, {"kind": "crash", "name": "boom"}])
    code, lines, _ = run(tmp_path)
    assert code == 1
    assert lines[0] == "known: 1 passed, 2 failed"
    assert lines[1].startswith("  known ask bad: AssertionError at test_vectors.py:")
    assert lines[1].endswith("answered 41")
    assert lines[2].startswith("  known crash boom: KeyError at test_vectors.py:")
    assert lines[-1] == "1 passed, 2 failed"


def test_unknown_formats_and_kinds_are_told_and_do_not_fail(tmp_path: Path) -> None:
    write(tmp_path, "other", cases=[{"answer": 1}])
    write(tmp_path, "known", cases=[{"kind": "ask", "answer": 42}, {"kind": "new"}, {"kind": "new"}, {}])
    code, lines, _ = run(tmp_path)
    assert code == 0
    assert lines == [
        "known: 1 passed, 0 failed",
        "known kind new: not covered yet (2 cases)",
        "known kind None: not covered yet (1 cases)",
        "other: not covered yet",
        "1 passed, 0 failed",
    ]


def test_a_case_that_is_covered_in_part_has_not_passed_and_may_fail(tmp_path: Path) -> None:
    cases = [{"answer": 42}, {"answer": 42, "kind": "ask"}, {"name": "bad", "answer": 41}]
    write(tmp_path, "halves", cases=cases)
    out = io.StringIO()
    assert core.run_file(tmp_path / "halves.json", {None: check_half}, out) == (0, 1)
    assert out.getvalue().splitlines()[2:] == [
        "halves the other half: not covered yet (1 cases)",
        "halves kind ask, the other half: not covered yet (1 cases)",
    ]


def test_nothing_checked_is_not_success(tmp_path: Path) -> None:
    write(tmp_path, "other", cases=[{"answer": 42}])
    code, lines, _ = run(tmp_path)
    assert code == 1
    assert lines == ["other: not covered yet", "0 passed, 0 failed"]


def test_negative_cases_have_a_check_of_their_own(tmp_path: Path) -> None:
    write(tmp_path, "plain", cases=[{"answer": 42}], negative=[{"name": "no", "answer": 42}])
    code, lines, _ = run(tmp_path)
    assert (code, lines[1]) == (0, "plain kind negative: not covered yet (1 cases)")
    checks: core.Format = {None: agree, "negative": crash}
    out = io.StringIO()
    assert core.run_file(tmp_path / "plain.json", checks, out) == (1, 1)
    assert "  plain negative no: KeyError" in out.getvalue()


@pytest.mark.parametrize("stem", ["known", "other"])
@pytest.mark.parametrize("text", ["{not json", "", "\xff"])
def test_bad_json_counts_as_failed(tmp_path: Path, stem: str, text: str) -> None:
    (tmp_path / f"{stem}.json").write_bytes(text.encode("latin-1"))
    write(tmp_path, "plain", cases=[{"answer": 42}])
    code, lines, _ = run(tmp_path)
    assert code == 1
    assert f"{stem}: 0 passed, 1 failed" in lines
    assert lines[-1] == "1 passed, 1 failed"


@pytest.mark.parametrize("document", [[], {}, {"cases": {}}, {"cases": [1]}])
def test_a_file_without_cases_counts_as_failed(tmp_path: Path, document: Any) -> None:
    (tmp_path / "known.json").write_text(json.dumps(document))
    code, lines, _ = run(tmp_path)
    assert (code, lines[-1]) == (1, "0 passed, 1 failed")


def test_an_empty_or_missing_directory_is_a_usage_error(tmp_path: Path) -> None:
    for directory in (tmp_path, tmp_path / "missing"):
        code, lines, err = run(directory)
        assert (code, lines) == (2, [])
        assert str(directory) in err


def test_two_modules_may_share_a_file_but_not_a_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = ModuleType("made_up")
    package.__path__ = [str(tmp_path)]
    monkeypatch.setitem(sys.modules, "made_up", package)
    (tmp_path / "a_formats.py").write_text("FORMATS = {'x': {'one': print}}")
    (tmp_path / "b_formats.py").write_text("FORMATS = {'x': {'two': print}}")
    (tmp_path / "helper.py").write_text("raise RuntimeError")
    assert core.discover(package) == {"x": {"one": print, "two": print}}
    (tmp_path / "c_formats.py").write_text("FORMATS = {'x': {'two': print}}")
    with pytest.raises(ValueError, match="c_formats checks x"):
        core.discover(package)


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).parent.parent
    line = [sys.executable, "-m", "tests.vector_runner", *arguments]
    return subprocess.run(line, cwd=root, capture_output=True, text=True, check=False)


def test_the_command_line(tmp_path: Path) -> None:
    assert command().returncode == 2
    assert "usage" in command("--help").stderr
    missing = command(str(tmp_path / "missing"))
    assert (missing.returncode, missing.stdout) == (2, "")
    (tmp_path / "noise.json").write_bytes((VECTORS / "noise.json").read_bytes())
    ran = command(str(tmp_path))
    assert ran.returncode == 0
    assert ran.stdout.splitlines()[-1].endswith(" passed, 0 failed")
