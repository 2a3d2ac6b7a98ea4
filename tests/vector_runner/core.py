"""The runner: registry of formats, reading of vector files, the report.

A vector file is a JSON object with a list `cases`, and sometimes a list `negative` of inputs that must be
refused. What a case is, its `kind` says; some files call it `op`.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, Final, TextIO

Check = Callable[[dict[str, Any]], None]
"""Checks one case: returns when our code agrees, raises AssertionError or anything else when it does not.

NotCovered says that nothing disagreed, but that a part of the case has no code yet.
"""
Format = dict[str | None, Check]
"""Checks of one file by kind; the check under None takes every kind that has none of its own."""

NEGATIVE: Final = "negative"
"""Kind of the cases in a file's list `negative`; the check under None does not take these."""
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
MAX_REASON: Final = 400


class VectorFileError(Exception):
    """A file is not a vector file; the message names it."""


class NotCovered(Exception):  # noqa: N818 - no error of anybody
    """A part of a case, named by the message, is not built yet; all before it agreed."""


@dataclass(frozen=True, slots=True)
class Case:
    """One case of a file: its kind, its name in the report, what was read, and its check if there is one."""

    kind: str | None
    name: str
    values: dict[str, Any]
    check: Check | None


def discover(package: ModuleType) -> dict[str, Format]:
    """Merge the FORMATS of all modules `*_formats` of a package; ValueError when two claim the same kind."""
    formats: dict[str, Format] = {}
    for module in pkgutil.iter_modules(package.__path__):
        if not module.name.endswith("_formats"):
            continue
        found: dict[str, Format] = importlib.import_module(f"{package.__name__}.{module.name}").FORMATS
        for stem, checks in found.items():
            known = formats.setdefault(stem, {})
            if twice := known.keys() & checks.keys():
                raise ValueError(f"{module.name} checks {stem} kinds {twice} that another module checks")
            known.update(checks)
    return formats


FORMATS: dict[str, Format]
"""All formats our code has checks for; assembled when first asked for, since the modules import this one."""


def __getattr__(name: str) -> dict[str, Format]:
    if name != "FORMATS":
        raise AttributeError(name)
    return _all_formats()


@lru_cache(maxsize=1)
def _all_formats() -> dict[str, Format]:
    return discover(importlib.import_module("tests.vector_runner"))


def read_cases(path: Path, checks: Format) -> list[Case]:
    """Read a file of a known format; VectorFileError when it has no cases to read."""
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise VectorFileError(f"{path.name}: not readable as JSON: {error}") from None
    if not isinstance(document, dict) or not isinstance(document.get("cases"), list):
        raise VectorFileError(f"{path.name}: no list of cases")
    cases = [_case(number, values, checks) for number, values in enumerate(document["cases"])]
    for number, values in enumerate(document.get(NEGATIVE, ())):
        case = _case(number, values, {})
        cases.append(Case(NEGATIVE, case.name, values, checks.get(NEGATIVE)))
    return cases


def _case(number: int, values: Any, checks: Format) -> Case:
    if not isinstance(values, dict):
        raise VectorFileError(f"case {number} is not an object")
    kind = values.get("kind", values.get("op"))
    kind = kind if isinstance(kind, str) else None
    name = str(values.get("name", number))
    return Case(kind, name, values, checks.get(kind) or checks.get(None))


def attempt(action: Callable[[], Any], *errors: type[Exception]) -> Any:
    """What an action returns, or the error it raises when it is one of those that a vector may want."""
    try:
        return action()
    except errors as error:
        return error


def failure(case: Case) -> str | None:
    """Run one case; the reason why it failed, or None.

    Raises:
        NotCovered: a part of the case could not be checked.
    """
    assert case.check is not None
    try:
        case.check(case.values)
    except NotCovered:
        raise
    except Exception as error:  # the border of the runner: whatever a check raises is its verdict
        frame = traceback.extract_tb(error.__traceback__)[-1]
        text = " ".join(str(error).split()) or frame.line or ""
        where = f"{Path(frame.filename).name}:{frame.lineno}"
        return f"{type(error).__name__} at {where}: {text[:MAX_REASON]}"
    return None


def run_file(path: Path, checks: Format, out: TextIO) -> tuple[int, int]:
    """Run one file and report it; returns how many cases passed and failed."""
    passed, uncovered, reasons = 0, Counter[str](), []
    for case in read_cases(path, checks):
        kind = f"kind {case.kind}"
        if case.check is None:
            uncovered[kind] += 1
            continue
        try:
            reason = failure(case)
        except NotCovered as part:
            uncovered[f"{kind}, {part}" if case.kind else str(part)] += 1
            continue
        if reason:
            reasons.append(f"  {path.stem} {case.kind or 'case'} {case.name}: {reason}")
        else:
            passed += 1
    print(f"{path.stem}: {passed} passed, {len(reasons)} failed", *reasons, sep="\n", file=out)
    for what, count in uncovered.items():
        print(f"{path.stem} {what}: not covered yet ({count} cases)", file=out)
    return passed, len(reasons)


def run_directory(directory: Path, out: TextIO, err: TextIO, formats: dict[str, Format] | None = None) -> int:
    """Run every `*.json` of a directory and report; returns the exit code.

    0 when something was checked and nothing failed, 1 when something failed or nothing was checked, 2 when
    the directory is not there or holds no vector files. An unreadable file counts as one failure.
    """
    formats = _all_formats() if formats is None else formats
    paths = list(vector_files(directory))
    if not paths:
        print(f"{directory}: not a directory with vector files (*.json)", file=err)
        return EXIT_USAGE
    passed = failed = 0
    for path in paths:
        try:
            if path.stem in formats:
                good, bad = run_file(path, formats[path.stem], out)
            else:
                json.loads(path.read_bytes())
                print(f"{path.stem}: not covered yet", file=out)
                good = bad = 0
        except (VectorFileError, OSError, ValueError) as error:
            print(f"{path.stem}: 0 passed, 1 failed\n  {error}", file=out)
            good, bad = 0, 1
        passed, failed = passed + good, failed + bad
    print(f"{passed} passed, {failed} failed", file=out)
    return 0 if passed and not failed else EXIT_FAILED


def vector_files(directory: Path) -> Iterator[Path]:
    """The vector files of a directory in the order of their names; nothing when it does not exist."""
    return iter(sorted(directory.glob("*.json")) if directory.is_dir() else [])
