"""A step of `wactl storage` for one session or for all, its report, and what it means for the exit status."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import click
import msgspec

from wactl.base import App
from wactl.client import COMMAND_S, Client
from wactl.failure import Failure
from wactl.render import is_capable
from wactl.text import clean
from waD.control import types as t

_EXITS: Final[dict[t.StorageOutcome, int]] = {"refused": t.EXIT_REFUSED, "damaged": t.EXIT_DAMAGED}
_SKIPPED: Final = frozenset({"wrong_state"})
"""With --all: sessions that are in another phase are none of this command's."""

Work = Callable[[Client, str], t.StorageResult]
Names = Callable[[Client, "Each"], list[str]]
More = Callable[[Client, "list[t.StorageResult]"], dict[str, Any]]
"""What is told when all is done: fields of the document, or lines for people."""


@dataclass(frozen=True, slots=True)
class Each:
    """The sessions that are meant: one by name, or all."""

    name: str | None
    everything: bool


def chosen(client: Client, name: str | None, *, everything: bool) -> list[str]:
    """The names; raises Failure."""
    if not everything:
        assert name is not None
        return [name]
    listed = client.ask("session.list", t.SessionList).sessions
    return [view.name for view in listed if view.desired != "retired"]


def run_each(app: App, each: Each, method: str, params: Callable[[str], msgspec.Struct]) -> int:
    """Call a method for each session and tell what came of it; returns the exit status."""

    def work(client: Client, name: str) -> t.StorageResult:
        return client.ask(method, t.StorageResult, params(name), timeout=COMMAND_S)

    return run(app, each, work)


def run_backfill(app: App, each: Each, batch: int, *, dry_run: bool) -> int:
    """Fill snapshots batch by batch, with a bar on a terminal; returns the exit status."""

    def ask(client: Client, name: str, *, count: bool) -> t.StorageResult:
        params = t.BackfillParams(name=name, batch=batch, batches=1, dry_run=count)
        return client.ask("storage.backfill", t.StorageResult, params, timeout=COMMAND_S)

    def work(client: Client, name: str) -> t.StorageResult:
        result = ask(client, name, count=True)
        if dry_run or result.outcome != "possible":
            return result
        total = 0 if result.comparison is None else sum(result.comparison.missing.values())
        copied = 0
        with _bar(app, name, total) as advance:
            while True:
                result = ask(client, name, count=False)
                done = 0 if result.progress is None else result.progress.copied
                copied += done
                advance(done)
                if result.outcome != "unfinished":
                    break
        if result.progress is None:
            return result
        progress = msgspec.structs.replace(result.progress, copied=copied)
        return msgspec.structs.replace(result, progress=progress)

    return run(app, each, work)


@contextmanager
def _bar(app: App, name: str, total: int) -> Iterator[Callable[[int], None]]:
    if app.as_json or not total or not is_capable(sys.stderr):
        yield lambda _count: None
        return
    with click.progressbar(length=total, label=clean(name), file=sys.stderr) as bar:
        yield bar.update


def _meant(client: Client, each: Each) -> list[str]:
    return chosen(client, each.name, everything=each.everything)


def run(app: App, each: Each, work: Work, names: Names = _meant, more: More | None = None) -> int:
    """Work on one session after the other; returns the exit status.

    Args:
        app: where to tell it.
        each: the sessions that are meant.
        work: on one.
        names: finds them.
        more: tells the whole.
    """
    documents: list[Any] = []
    exits: list[int] = []
    with app.client() as client:
        for name in names(client, each):
            try:
                result = work(client, name)
            except Failure as failure:
                if not each.everything or failure.exit == t.EXIT_UNREACHABLE:
                    raise
                documents.append({"name": name, "error": failure.document()})
                exits.append(t.EXIT_OK if failure.symbol in _SKIPPED else failure.exit)
                app.out.note(f"{clean(name)}: {clean(failure.message)}")
                continue
            documents.append(result)
            exits.append(_EXITS.get(result.outcome, t.EXIT_OK))
            if not app.as_json:
                _show(app, result)
        results = [one for one in documents if isinstance(one, t.StorageResult)]
        fields = {} if more is None or not results else more(client, results)
    if app.as_json:
        app.out.document({"results": documents, **fields})
    elif not documents:
        app.out.note("no sessions")
    return t.EXIT_DAMAGED if t.EXIT_DAMAGED in exits else max(exits, default=t.EXIT_OK)


def _show(app: App, result: t.StorageResult) -> None:
    whose = f"{clean(result.name)}{' (retired)' if result.retired else ''}"
    app.out.line(f"{whose}  {_headline(result)}")
    app.out.fields(_lines(result))
    for note in result.notes:
        app.out.note(f"note: {clean(note)}")


def _headline(result: t.StorageResult) -> str:
    moved = result.was if result.was == result.phase else f"{result.was} → {result.phase}"
    words = {
        "done": "done",
        "unfinished": "not finished",
        "nothing": "nothing to do",
        "possible": "can be done",
        "refused": "refused, nothing was changed",
        "damaged": "damage or a difference was found",
    }
    return f"{moved}: {words[result.outcome]}"


def _lines(result: t.StorageResult) -> Iterator[tuple[str, str]]:
    for check in result.checks:
        yield check.check, f"{'ok  ' if check.ok else 'FAIL'}  {clean(check.detail)}"
    if result.progress is not None:
        yield "copied", f"{result.progress.copied}, left {result.progress.remaining}"
    compared = result.comparison
    if compared is not None:
        counts = (
            ("missing", compared.missing),
            ("different", compared.different),
            ("extra", compared.extra),
        )
        found = [f"{sum(kinds.values())} {word}" for word, kinds in counts if kinds]
        yield "compared", f"{compared.items} items, {', '.join(found) or 'all equal'}"
    if result.verdict is not None:
        for word, notes in (("error", result.verdict.errors), ("warning", result.verdict.warnings)):
            yield from ((word, _noted(note)) for note in notes)


def _noted(note: t.NoteView) -> str:
    return clean(" ".join(part for part in (note.code, note.item, note.detail) if part))
