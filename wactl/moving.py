"""A session between stores, and into or out of a store that is named: by a process that opens them itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

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


def run(app: App, where: Where, source: str, target: str, name: str, *, dry_run: bool, yes: bool) -> int:
    """Move a session to another store, or write one of a store that is named into a directory; the exit status.

    Raises:
        Failure: nothing was changed, or what the text says.
    """
    if DAEMON in (source, target):
        refuse_daemon(where)
    more = [
        *(["--dry-run"] if dry_run else []),
        *([] if where.config is None else [f"--config={where.config}"]),
    ]
    if target.startswith(DIRECTORY):
        directory = target.removeprefix(DIRECTORY)
        document, status = _ask("export", *more, "--", source, directory, name)
        show_export(app, document, name, directory, dry_run=dry_run)
        return status
    if not dry_run and not yes:
        _ask(
            "move", "--dry-run", *more, "--", source, target, name
        )  # nobody is asked about what would be refused
        app.confirm(
            f"Retire the session {clean(name)} in {clean(source)}, to go on in {clean(target)}?", yes=yes
        )
    document, status = _ask("move", *more, "--", source, target, name)
    _show(app, document, name, target, dry_run=dry_run)
    return status


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


def _show(app: App, document: Document, name: str, target: str, *, dry_run: bool) -> None:
    if app.as_json:
        return app.out.document(document)
    for line in findings(document):
        app.out.note(line)
    for line in inventory(document):
        app.out.line(line)
    for table, count in document["rows"].items():
        app.out.line(f"rows of {clean(table)}: {count}")
    if dry_run:
        app.out.line(f"{clean(name)}  would be moved to {clean(target)}")
        return None
    how = "moved" if not document["resumed"] else "the move that was interrupted has ended: moved"
    app.out.line(f"{clean(name)}  {how} to {clean(target)}")
    app.out.note(f"the session is down; next, with the daemon of that store: wactl connect {clean(name)}")
    return None
