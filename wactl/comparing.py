"""A backup beside what is in place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from wactl.base import App
from wactl.client import COMMAND_S, Client
from wactl.text import clean
from wactl.unsealing import hand_over
from waD.control import types as t

_HEADS = ("KIND", "ONLY IN BACKUP", "ONLY HERE", "OLDER", "NEWER", "DIFFERENT", "EQUAL")


def compare(app: App, client: Client, file: Path, name: str, secrets: Sequence[str], *, quiet: bool) -> int:
    """Compare a backup file with a session and show it; returns the exit status. Raises Failure."""
    order = t.CompareParams(id=hand_over(client, file, secrets), name=name)
    answer = client.call("auth.compare", order, timeout=COMMAND_S)
    client.ask("auth.discard", t.Done, t.DiscardParams(id=order.id), timeout=COMMAND_S)
    found = client.decode(answer, t.CompareResult)
    sound = found.verdict.ok and found.same_identity
    if not (quiet and sound):
        if app.as_json:
            app.out.document(answer)
        else:
            _show(app, found)
    if not found.verdict.ok:
        return t.EXIT_DAMAGED
    return t.EXIT_OK if found.same_identity else t.EXIT_REFUSED


def _show(app: App, found: t.CompareResult) -> None:
    for note in found.verdict.errors:
        app.out.note(clean(f"error: {note.code} {note.item}: {note.detail}"))
    for line in _sentences(found):
        app.out.line(line)
    rows = [(kind, *_numbers(one)) for kind, one in sorted(found.kinds.items())]
    if rows:
        app.out.table(_HEADS, rows)
    for line in found.plan:
        app.out.line(clean(line))


def _sentences(found: t.CompareResult) -> Iterator[str]:
    name, backup, here = clean(found.name), found.archive, found.store
    if not found.same_identity:
        yield f"{name}: the backup is of another linked device"
    yield f"backup: epoch {backup['epoch']}, version {backup['version']}"
    yield f"{name}: epoch {here['epoch']}, version {here['version']}"
    if found.equal:
        yield "both hold the same"
    elif not found.same_epoch:
        yield "older and newer cannot be told apart: a restore or a repair lies between the two"


def _numbers(one: t.DifferenceView) -> tuple[str, ...]:
    counts = (one.only_archive, one.only_store, one.older, one.newer, one.different, one.equal)
    return tuple(str(count) if count else "-" for count in counts)
