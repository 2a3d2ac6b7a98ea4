"""A session of another program on its way into the daemon, or into its store while no daemon runs.

A process of its own reads the source; what it found comes as a line of JSON, and behind it the state as an archive, in
the clear, through a pipe and a Unix socket.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

import msgspec

from wactl import archives, child
from wactl.base import App
from wactl.client import COMMAND_S, Client
from wactl.failure import Failure
from wactl.offline import daemon_or_store
from wactl.text import clean
from waD.control import types as t

RESTORE_S: Final = 3600.0
MAX_SUMMARY: Final = 64 << 20
"""A source may have a complaint of each of its items, but they are told by code."""
TAKEN: Final = "name_taken"
_CHANGED: Final = frozenset({"move_interrupted"})
"""Refusals after which not all is as it was."""
LEGACY: Final = "legacy_only"
WARNING: Final = (
    "the old program must never connect with this session again: two programs with one link destroy each other's "
    "conversations"
)

Document = dict[str, Any]


class Where(NamedTuple):
    """Which daemon, or which store without one."""

    socket: Path | None
    config: Path | None
    offline: bool

    def open(self, *, create: bool = False) -> Client:
        """Connect; raises Failure."""
        return daemon_or_store(self.socket, self.config, offline=self.offline, create=create)


def run(app: App, where: Where, source: str, name: str, words: Sequence[str], *, dry_run: bool) -> int:
    """Import a session; returns the exit status. Raises Failure."""
    line = ["-m", "waD.transfer", "read-source", "--archive", *words, "--", source, name]
    with child.reading(*line) as (pipe, done):
        document = first_line(pipe) | {"done": False, "destination": None}
        client = _client(where, dry_run=dry_run) if document.get("ok") else None
        if client is None:
            pipe.read()
            status = checked(document, done())
        else:
            with client:
                refuse_taken(client, name)
                file_id = archives.upload(client, pipe)
                status = checked(document, done())
                document |= _restore(client, file_id, name, dry_run=dry_run)
    show(app, document, name, dry_run=dry_run)
    return status


def _client(where: Where, *, dry_run: bool) -> Client | None:
    """The destination; a dry run needs none."""
    try:
        return where.open(create=not dry_run)
    except Failure:
        if dry_run and not where.offline and where.config is None and where.socket is None:
            return None
        raise


def refuse_taken(client: Client, name: str) -> None:
    """Nothing is imported over a session that is linked already; raises Failure."""
    listed = client.ask("session.list", t.SessionList, timeout=COMMAND_S)
    for session in listed.sessions:
        if session.name == name and session.paired:
            raise Failure(
                "refused",
                f"there is a paired session {clean(name)!r}: choose another name, or wactl logout it first; nothing "
                "was changed",
                t.EXIT_REFUSED,
                data={"code": TAKEN, "session": name},
            )


def _restore(client: Client, file_id: str | None, name: str, *, dry_run: bool) -> Document:
    """Put an upload in place, or see whether that would be done; what the document says about it."""
    if file_id is None:
        raise Failure("refused", "the source was read, and nothing came of it", t.EXIT_REFUSED)
    try:
        order = t.RestoreParams(id=file_id, name=name, dry_run=True)
        planned = client.ask("auth.restore", t.RestoreResult, order, timeout=RESTORE_S)
        if not planned.exact:
            raise Failure(
                "refused", "the destination would not go on exactly; nothing was changed", t.EXIT_REFUSED
            )
        if dry_run:
            _forget(client, file_id)
            return {}
        order = t.RestoreParams(id=file_id, name=name)
        restored = client.ask("auth.restore", t.RestoreResult, order, timeout=RESTORE_S)
    except Failure:
        _forget(client, file_id)
        raise
    phase = _settle(client, name)
    where = {"name": restored.name, "connectionId": restored.connection_id, "phase": phase}
    return {"done": True, "destination": where}


def _forget(client: Client, file_id: str) -> None:
    """The upload would go by itself after a while."""
    try:
        client.ask("auth.discard", t.Done, t.DiscardParams(id=file_id), timeout=COMMAND_S)
    except Failure:
        return


def _settle(client: Client, name: str) -> str:
    """Where key-value rows are kept the state begins with those alone, and goes through the phases; the phase."""
    asked = t.SessionParams(name=name)
    found = client.ask("storage.status", t.StorageStatus, asked, timeout=COMMAND_S)
    if found.phase != "snapshot_primary":
        return found.phase
    back = t.RollbackParams(name=name, to=LEGACY)
    return client.ask("storage.rollback", t.StorageResult, back, timeout=COMMAND_S).phase


# ------------------------------------------------------------------------------------- what the other process says


def first_line(pipe: IO[bytes]) -> Document:
    """The document that a process begins with; empty if it says nothing."""
    line = pipe.readline(MAX_SUMMARY)
    try:
        return msgspec.json.decode(line, type=Document) if line else {}
    except msgspec.DecodeError:
        raise Failure(
            "protocol", "the process that reads the source does not answer properly", t.EXIT_REFUSED
        ) from None


def checked(document: Document, done: child.Done) -> int:
    """The exit status of a process that has told its document.

    Raises:
        Failure: it has refused, or broken down.
    """
    if refused := document.get("refused"):
        choices = [str(one) for one in refused.get("choices", ())]
        there = f"; there are: {', '.join(choices)}" if choices else ""
        changed = "" if refused["code"] in _CHANGED else "; nothing was changed"
        raise Failure(
            "usage" if done.status == t.EXIT_USAGE else "refused",
            clean(f"{refused['code']}: {refused['detail']}{there}{changed}"),
            done.status,
            data={"code": refused["code"], **({"choices": choices} if choices else {})},
        )
    if (
        not document
        or done.status not in (t.EXIT_OK, t.EXIT_REFUSED, t.EXIT_DAMAGED)
        or (done.status != t.EXIT_OK and document.get("ok"))
    ):
        why = clean(done.errors[-1]) if done.errors else f"exit status {done.status}"
        status = t.EXIT_USAGE if done.status == t.EXIT_USAGE else t.EXIT_REFUSED
        raise Failure("refused", f"the source was not read: {why}; nothing was changed", status)
    return done.status


# ------------------------------------------------------------------------------------------------------- for people


def show(app: App, document: Document, name: str, *, dry_run: bool) -> None:
    """Tell what was found, and what was done."""
    if app.as_json:
        return app.out.document(document)
    for line in findings(document):
        app.out.note(line)
    if not document["ok"]:
        app.out.line(f"{clean(name)}  not imported; nothing was changed")
        return None
    for line in inventory(document):
        app.out.line(line)
    if document["done"]:
        app.out.line(f"{clean(name)}  imported")
        app.out.note(f"warning: {WARNING}")
        if (destination := document["destination"]) and destination.get("phase") == LEGACY:
            app.out.note(
                f"it is kept in key-value rows for now: wactl storage dual-write {clean(name)} is the next step"
            )
        app.out.note(f"next: wactl connect {clean(name)}")
    elif dry_run:
        app.out.line(f"{clean(name)}  would be imported")
        app.out.note(f"warning: {WARNING}")
    return None


def findings(document: Document) -> Iterator[str]:
    """Errors and warnings, one line for each code."""
    found = document.get("from", {}).get("found")
    if found:
        yield clean(f"found: {found}, {document['from']['scheme']}:")
    for severity in ("error", "warning"):
        for note in document.get(f"{severity}s", ()):
            items = ", ".join(note["items"]) + (", ..." if note["count"] > len(note["items"]) > 0 else "")
            count = f" ({note['count']} times)" if note["count"] > 1 else ""
            about = f" {items}" if items else ""
            yield clean(f"{severity}: {note['code']}{count}{about}: {note['detail']}")


def inventory(document: Document) -> Iterator[str]:
    """Whose session it is, and how much there is of it."""
    account = document.get("account") or {}
    yield clean(
        f"account: {account.get('pn') or '-'}" + (f", {account['lid']}" if account.get("lid") else "")
    )
    for kind, count in document["counts"].items():
        yield clean(f"{kind}: {count}")
