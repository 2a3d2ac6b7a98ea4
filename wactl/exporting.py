"""A session of the daemon on its way into a directory of Baileys.

The daemon's archive is encrypted to a key that the process that writes the directory has made for it.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Final

from wactl import archives
from wactl.base import App
from wactl.child import Done, command_line
from wactl.client import COMMAND_S, Client
from wactl.failure import Failure
from wactl.importing import Document, Where, checked, findings, first_line, inventory
from wactl.text import clean
from waD.control import types as t

BACKUP_S: Final = 3600.0
AT_REST: Final = frozenset({"new", "stopped", "needs_pairing", "failed"})
WARNING: Final = (
    "only one of the two may connect from now on, the directory or the session here: together they destroy each "
    "other's conversations"
)


class Writer:
    """The process that writes the directory."""

    def __init__(self, process: subprocess.Popen[bytes], errors: IO[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._errors = errors
        self.into: IO[bytes] = process.stdin
        self.out: IO[bytes] = process.stdout

    def done(self) -> Done:
        """How it ended."""
        status = self._process.wait()
        self._errors.seek(0)
        return Done(status, "", self._errors.read().decode("utf-8", "replace").splitlines())


@contextmanager
def _writing(*words: str) -> Iterator[Writer]:
    line = command_line("-m", "waD.transfer", "write-directory", *words)
    with tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(  # noqa: S603 - this interpreter and words of our own
                line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
            )
        except OSError as error:
            raise Failure("refused", f"cannot run {line[0]}: {error.strerror}", t.EXIT_REFUSED) from None
        try:
            yield Writer(process, errors)
        finally:
            if process.poll() is None:
                process.kill()
            for stream in (process.stdin, process.stdout):
                if stream is not None and not stream.closed:
                    try:
                        stream.close()
                    except BrokenPipeError:
                        continue
            process.wait()


def run(app: App, where: Where, name: str, directory: str, *, dry_run: bool) -> int:
    """Write a session into a directory; returns the exit status. Raises Failure."""
    with where.open() as client:
        refuse_running(client, name)
        document, status = _export(client, name, directory, dry_run=dry_run)
    show(app, document, name, directory, dry_run=dry_run)
    return status


def refuse_running(client: Client, name: str) -> None:
    """What is written must be the last state; raises Failure."""
    view = client.ask("session.status", t.SessionView, t.SessionParams(name=name), timeout=COMMAND_S)
    if view.desired == "up" or view.state not in AT_REST:
        raise Failure(
            "refused",
            f"the session {clean(name)!r} is up: wactl disconnect {clean(name)} first; nothing was done",
            t.EXIT_REFUSED,
            data={"code": "session_up", "session": name, "state": view.state},
        )


def _export(client: Client, name: str, directory: str, *, dry_run: bool) -> tuple[Document, int]:
    words = ["--dry-run"] if dry_run else []
    with _writing(*words, "--", directory) as writer:
        key = first_line(writer.out)
        if "recipient" not in key:
            checked(key, writer.done())
            raise Failure("protocol", "the process that writes the directory says no key", t.EXIT_REFUSED)
        asked = t.BackupParams(name=name, recipients=[key["recipient"]])
        made = client.ask("auth.backup", t.BackupResult, asked, timeout=BACKUP_S)
        try:
            archives.fetch(client, made, writer.into)
            writer.into.close()
        finally:
            client.ask("auth.discard", t.Done, t.DiscardParams(id=made.id), timeout=COMMAND_S)
        document = first_line(writer.out)
        return document, checked(document, writer.done())


def show(app: App, document: Document, name: str, directory: str, *, dry_run: bool) -> None:
    """Tell what was written, and what was lost."""
    if app.as_json:
        return app.out.document(document)
    for line in findings(document):
        app.out.note(line)
    if not document["ok"]:
        app.out.line(f"{clean(name)}  not exported; nothing was done")
        return None
    for line in inventory(document):
        app.out.line(line)
    app.out.line(f"{clean(name)}  {'would be ' if dry_run else ''}exported to {clean(directory)}")
    app.out.note(f"warning: {WARNING}")
    return None
