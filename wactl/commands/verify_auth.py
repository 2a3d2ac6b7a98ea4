"""`wactl verify-auth`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from wactl import child
from wactl.base import App, command, complete_name
from wactl.client import COMMAND_S
from wactl.comparing import compare
from wactl.failure import Failure, usage
from wactl.offline import daemon_or_store
from wactl.stored import offline_options, paired_names, worst
from wactl.text import clean
from wactl.unsealing import secret_words
from waD.control import types as t

FILE_LEVELS: Final = (0, 2)
STORE_LEVELS: Final = (1, 4)
FILE_LEVEL: Final = 2
STORE_LEVEL: Final = 3
PATIENCE_S: Final = 6 * 3600.0
"""For one file: an archive with a history may have gigabytes."""
_SUFFIXES: Final = (".age", ".wadbackup")
_REPORTED: Final = (t.EXIT_OK, t.EXIT_REFUSED, t.EXIT_DAMAGED)

Document = dict[str, Any]

_PATH: Final = click.Path(path_type=Path)


@command(
    "verify-auth",
    example="wactl verify-auth --identity-file backup.key alerts-20260101T030000Z-v41.wadbackup.age\n"
    "wactl verify-auth alerts --level 4\n"
    "wactl verify-auth --against alerts --identity-file backup.key alerts-20260101T030000Z-v41.wadbackup.age\n"
    "wactl verify-auth --all --quiet || echo 'look at the auth states'",
)
@click.argument("targets", metavar="[FILE|NAME]...", nargs=-1, shell_complete=complete_name)
@click.option("--all", "every", is_flag=True, help="Check every session of the daemon that is paired.")
@click.option(
    "--level",
    type=click.IntRange(FILE_LEVELS[0], STORE_LEVELS[1]),
    metavar="N",
    help="How deep: 0 to 2 for a file, else 2; 1 to 4 for a session, else 3.",
)
@click.option(
    "--against",
    metavar="NAME",
    shell_complete=complete_name,
    help="Compare a FILE with the session NAME, and tell what a restore would do.",
)
@click.option("--identity-file", type=_PATH, metavar="FILE", help="Secret keys as age-keygen writes them.")
@click.option(
    "--passphrase-file", type=_PATH, metavar="FILE", help="The passphrase, as the one line of FILE."
)
@click.option("--spool-dir", type=_PATH, metavar="DIR", help="Unpack in DIR, else in TMPDIR.")
@offline_options
@click.option("--quiet", is_flag=True, help="Print nothing unless something is wrong.")
def verify_auth(
    app: App,
    targets: tuple[str, ...],
    *,
    every: bool,
    level: int | None,
    against: str | None,
    identity_file: Path | None,
    passphrase_file: Path | None,
    spool_dir: Path | None,
    offline: bool,
    config: Path | None,
    quiet: bool,
) -> int:
    """Check whether a backup, or the auth state of a session, would work.

    What has a slash in it, ends in .age or .wadbackup, or is a file here, is a FILE; anything else is a session's
    NAME. A FILE is checked without daemon, network or database, for instance on the host that keeps the backups.
    Levels: 0 the envelope, 1 what is in it, 2 every key and signature, 3 the store as well, 4 what WhatsApp has of it
    as well. Sessions are checked through the daemon; without one, in the store itself.

    A secret is taken from a file of mode 0400 or 0600, or a passphrase is asked for on the terminal. The exit status is
    0 if all is sound, warnings included, 1 if something could not be checked, 6 if something is damaged.
    """
    if bool(targets) == every:
        raise usage("name files or sessions, or say --all for every session")
    words = secret_words(identity_file, passphrase_file, spool_dir)
    files = [target for target in targets if _is_file(target)]
    names = [target for target in targets if target not in files]
    _check_level(level, files=bool(files), sessions=bool(names) or every)
    if against is not None:
        return _compare(app, targets, against, words, config, offline=offline, quiet=quiet)
    statuses = [t.EXIT_OK]
    session_level = STORE_LEVEL if level is None else level
    for outcome in chain(
        _of_files(files, FILE_LEVEL if level is None else level, words),
        _of_sessions(app, names, session_level, config, every=every, offline=offline),
    ):
        if isinstance(outcome, Failure):
            app.out.failure(outcome)
            statuses.append(outcome.exit)
            continue
        document, status = outcome
        statuses.append(status)
        if not (quiet and document["ok"]):
            _show(app, document, status)
    return worst(statuses)


def _compare(
    app: App,
    targets: Sequence[str],
    against: str,
    words: Sequence[str],
    config: Path | None,
    *,
    offline: bool,
    quiet: bool,
) -> int:
    if len(targets) != 1 or not _is_file(targets[0]):
        raise usage("--against compares one FILE with a session")
    with daemon_or_store(app.socket, config, offline=offline) as client:
        return compare(app, client, Path(targets[0]), against, words, quiet=quiet)


def _is_file(target: str) -> bool:
    return os.sep in target or target.endswith(_SUFFIXES) or Path(target).is_file()


def _check_level(level: int | None, *, files: bool, sessions: bool) -> None:
    if level is None:
        return
    for asked, (low, high), what in (
        (files, FILE_LEVELS, "a file"),
        (sessions, STORE_LEVELS, "a session"),
    ):
        if asked and not low <= level <= high:
            raise usage(f"{what} can be checked at level {low} to {high}, not {level}")


def _of_files(files: Sequence[str], level: int, words: Sequence[str]) -> Iterator[tuple[Document, int]]:
    """Check each file in a process of its own: what reads archives is no part of this program."""
    for file in files:
        line = ("-m", "waD.transfer", "verify-auth", "--json", f"--level={level}", *words, "--", file)
        done = child.run(*line, timeout=PATIENCE_S)
        if done.status not in _REPORTED:
            why = "; ".join(done.errors) or f"exit status {done.status}"
            raise Failure("refused", f"cannot check {file}: {why}", t.EXIT_REFUSED)
        try:
            document = msgspec.json.decode(done.out, type=Document)
        except msgspec.DecodeError:
            raise Failure("refused", f"cannot check {file}: no report", t.EXIT_REFUSED) from None
        yield {"file": file, **document}, done.status


def _of_sessions(
    app: App, names: Sequence[str], level: int, config: Path | None, *, every: bool, offline: bool
) -> Iterator[tuple[Document, int] | Failure]:
    """Check each session; one that cannot be checked does not keep the others from it."""
    if not names and not every:
        return
    with daemon_or_store(app.socket, config, offline=offline) as client:
        for name in paired_names(client) if every else names:
            params = t.VerifyParams(name=name, level=level)
            try:
                found = client.ask("auth.verify", t.VerifyResult, params, timeout=COMMAND_S)
            except Failure as failure:
                if (
                    failure.symbol == "wrong_state"
                ):  # WhatsApp cannot be asked: nothing is wrong with the state
                    failure.exit = t.EXIT_REFUSED
                yield failure
                continue
            verdict: Document = msgspec.to_builtins(found.verdict)
            document = {"name": found.name, "connectionId": found.connection_id, **verdict}
            yield document, t.EXIT_OK if found.verdict.ok else t.EXIT_DAMAGED


def _show(app: App, document: Document, status: int) -> None:
    if app.as_json:
        return app.out.document(document)
    what = clean(str(document.get("file") or document.get("name")))
    for severity in ("error", "warning"):
        for note in document[f"{severity}s"]:
            app.out.note(f"{what}: {severity}: {_sentence(note)}")
    app.out.line(f"{what}: {_judgement(document, status)}")
    return None


def _sentence(note: Document) -> str:
    about = f" {note['item']}" if note["item"] else ""
    return clean(f"{note['code']}{about}" + (f": {note['detail']}" if note["detail"] else ""))


def _judgement(document: Document, status: int) -> str:
    if document["ok"]:
        count = sum(document["counts"].values())
        inside = f", {count} items" if document["counts"] else ""
        return f"sound at level {document['level']}{inside}"
    return "damaged" if status == t.EXIT_DAMAGED else "could not be checked"
