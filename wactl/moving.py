"""A session between stores, and into or out of a store that is named: by a process that opens them itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from wactl import child
from wactl.base import App
from wactl.client import Client, candidates
from wactl.exporting import show as show_export
from wactl.failure import Failure
from wactl.importing import Document, Where, checked, findings, first_line, inventory
from wactl.importing import show as show_import
from wactl.text import clean
from waD.control import types as t

DAEMON: Final = "waD"
DIRECTORY: Final = "baileys-dir:"
_MODULE: Final = "waD.migrate"


class Order(NamedTuple):
    """What is wanted.

    Attributes:
        source: the store that has the session.
        target: the one it goes to, or a directory.
        name: of the session.
        keys: options that name the keys of the two.
        abort: a move that has begun is to be given up.
        dry_run: nothing is to be changed.
    """

    source: str
    target: str
    name: str
    keys: tuple[str, ...]
    abort: bool
    dry_run: bool


def run(app: App, where: Where, order: Order, *, yes: bool) -> int:
    """Move a session to another store, give a move up, or write a session of a store that is named into a directory.

    Returns the exit status.

    Raises:
        Failure: nothing was changed, or what the text says.
    """
    if DAEMON in (order.source, order.target):
        refuse_daemon(where)
    more = [*order.keys, *([] if where.config is None else [f"--config={where.config}"])]
    dry = ["--dry-run"] if order.dry_run else []
    if order.target.startswith(DIRECTORY):
        directory = order.target.removeprefix(DIRECTORY)
        document, status = _ask("export", *dry, *more, "--", order.source, directory, order.name)
        show_export(app, document, order.name, directory, dry_run=order.dry_run)
        return status
    more += ["--abort"] if order.abort else []
    places = ("--", order.source, order.target, order.name)
    if not order.dry_run and not yes:
        _ask("move", "--dry-run", *more, *places)  # nobody is asked about what would be refused
        app.confirm(_question(order), yes=yes)
    document, status = _ask("move", *dry, *more, *places)
    if app.as_json:
        app.out.document(document)
    elif order.abort:
        _show_abort(app, document, order)
    else:
        _show(app, document, order)
    return status


def _question(order: Order) -> str:
    name, source, target = map(clean, (order.name, order.source, order.target))
    if order.abort:
        return f"Give up the move of {name}, clear what has come of it in {target}, and go on in {source}?"
    return f"Retire the session {name} in {source}, to go on in {target}?"


def run_import(app: App, source: str, target: str, name: str, words: Sequence[str], *, dry_run: bool) -> int:
    """Import a session into a store that is named; the exit status. Raises Failure."""
    more = ["--dry-run"] if dry_run else []
    document, status = _ask("import", *more, *words, "--", source, target, name)
    show_import(app, document, name, dry_run=dry_run)
    return status


def refuse_daemon(where: Where) -> None:
    """Two stores are moved between by one process that has both; raises Failure while a daemon has one."""
    if where.offline or where.config is not None:
        return
    try:
        client = Client.connect(candidates(where.socket))
    except Failure as failure:
        if failure.exit == t.EXIT_UNREACHABLE and where.socket is None:
            return
        raise
    client.close()
    raise Failure(
        "refused",
        f"a daemon runs at {client.path} and has the store: stop it for the move (wactl daemon stop); nothing was "
        "changed",
        t.EXIT_REFUSED,
        data={"code": "session_in_use"},
    )


def _ask(*words: str) -> tuple[Document, int]:
    with child.reading("-m", _MODULE, *words) as (pipe, done):
        document = first_line(pipe)
        pipe.read()
        return document, checked(document, done())


def _show(app: App, document: Document, order: Order) -> None:
    for line in findings(document):
        app.out.note(line)
    if document["account"] is not None:
        for line in inventory(document):
            app.out.line(line)
    for table, count in document["rows"].items():
        app.out.line(f"rows of {clean(table)}: {count}")
    name, target = clean(order.name), clean(order.target)
    if order.dry_run:
        return app.out.line(f"{name}  would be moved to {target}")
    how = "moved" if not document["resumed"] else "the move that was interrupted has ended: moved"
    app.out.line(f"{name}  {how} to {target}")
    app.out.note(f"the session is down; next, with the daemon of that store: wactl connect {name}")
    return None


def _show_abort(app: App, document: Document, order: Order) -> None:
    for line in findings(document):
        app.out.note(line)
    name, source = clean(order.name), clean(order.source)
    would = "would be given up" if order.dry_run else "the move is given up"
    what = "gets its session back" if document["restored"] else "was never stopped"
    app.out.line(f"{name}  {would}: {source} {what}")
    if document["freed"] and not order.dry_run:
        app.out.note(f"{clean(order.target)} has nothing of its state any more, and its name is free")
