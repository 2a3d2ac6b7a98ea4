"""`python -m waD.migrate`: a session between stores that this process opens itself, as long as no daemon has it.

For `wactl migrate-auth`, which starts it. It answers with one line of JSON.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from waD.config import ConfigErrors, load
from waD.session.retention import store_settings
from waD.store.engine import Engine
from waD.store.errors import StoreError
from waD.store.model import SessionRow
from waD.store.moves import note_key
from waD.store.sql import message_secrets
from waD.store.store import StoreSettings
from waD.transfer.migrating.aborting import Abort, Aborted
from waD.transfer.migrating.export_command import check_target, export
from waD.transfer.migrating.moving import Move, Moved, count_rows, plan_source
from waD.transfer.migrating.opening import PARTS as PARTS
from waD.transfer.migrating.opening import (
    Key,
    StoreRefused,
    canonical,
    credentials_directory,
    named,
    opened,
    refusal,
    require_key,
    require_keys,
    server_name,
)
from waD.transfer.migrating.options import (
    REFUSALS,
    choice,
    choice_options,
    exit_of,
    refuse,
    say,
    unix_ms,
)
from waD.transfer.migrating.places import Place, PlaceRefused, parse_source, parse_target
from waD.transfer.migrating.reading import account, notes, read, summary
from waD.transfer.migrating.stores import MoveRefused, lease, put_imported, refuse_taken, stored_state
from waD.transfer.state import AuthState

FROM: Final = "--from-kek-file"
TO: Final = "--to-kek-file"
CONFIGURED: Final = "store.kek_file"
_NOT_THERE: Final = frozenset({"source_missing", "store_damaged", "store_forbidden", "store_unreachable"})
"""Why a destination may never be reached again; everything else can be mended first."""
_REFUSED: Final = (*REFUSALS, StoreRefused, MoveRefused)


class Side:
    """One of the two stores of a command.

    Args:
        place: where it is.
        config: of the daemon whose store is meant by `waD`.
        key: the option that names a file with the key of another store, and what it says.
        careful: change nothing about how it is encrypted.

    Raises:
        StoreRefused: the configuration, the URL or the key cannot be used.
    """

    def __init__(self, place: Place, config: Path | None, key: Key, *, careful: bool) -> None:
        self.settings = _settings(place, config, key, careful=careful)
        self.careful = careful or self.settings.encrypt is False
        self.key = Key(CONFIGURED, None) if place.scheme == "waD" else key

    @property
    def name(self) -> str:
        """As its engine calls it, open or not."""
        if self.settings.postgres is None:
            return f"sqlite:{self.settings.path}"
        return server_name(self.settings.postgres)

    @property
    def missing(self) -> bool:
        """Whether it is a file that would have to be made."""
        return self.settings.postgres is None and not self.settings.path.exists()


def _settings(place: Place, config: Path | None, key: Key, *, careful: bool) -> StoreSettings:
    if place.scheme != "waD":
        return named(place, key, careful=careful, credentials=credentials_directory())
    if key.file is not None:
        raise StoreRefused(
            "key_misplaced",
            f"{key.option} is for a store that is named by a path or a URL; that of waD is {CONFIGURED} in its "
            "configuration",
        )
    try:
        found = store_settings(load(config, os.environ), credentials_directory())
    except ConfigErrors as errors:
        raise StoreRefused("config_invalid", str(errors).replace("\n", "; ")) from None
    return msgspec.structs.replace(found, path=canonical(found.path))


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except _REFUSED as error:
        refuse(error)
    except (StoreError, ValueError) as error:
        refuse(refusal(error, f" (see also {FROM} and {TO})"))


@click.group()
def main() -> None:
    """Sessions between stores; answers with a line of JSON."""
    os.umask(0o077)


_CONFIG: Final = click.option("--config", type=click.Path(dir_okay=False, path_type=Path))
_DRY_RUN: Final = click.option("--dry-run", is_flag=True)
_FROM: Final = click.option(FROM, "from_kek", type=click.Path(path_type=Path))
_TO: Final = click.option(TO, "to_kek", type=click.Path(path_type=Path))


@main.command("move")
@click.argument("source")
@click.argument("target")
@click.argument("name")
@_CONFIG
@_FROM
@_TO
@_DRY_RUN
@click.option("--abort", is_flag=True)
def move(
    source: str,
    target: str,
    name: str,
    *,
    config: Path | None,
    from_kek: Path | None,
    to_kek: Path | None,
    dry_run: bool,
    abort: bool,
) -> None:
    """Move a session from one store to another, or end a move that was interrupted, or give one up."""
    with _refusing(), ExitStack() as stack:
        first, second = parse_source(source), parse_target(target)
        giving = Side(first, config, Key(FROM, from_kek), careful=True)
        taking = Side(second, config, Key(TO, to_kek), careful=dry_run)
        if giving.name == taking.name:
            raise MoveRefused("same_store", "both are the same store")
        work = _abort if abort else _move
        say(work(stack, giving, taking, name, dry_run=dry_run))


def _move(stack: ExitStack, giving: Side, taking: Side, name: str, *, dry_run: bool) -> dict[str, Any]:
    source = stack.enter_context(opened(giving.settings, create=False, credentials=credentials_directory()))
    require_key(source, name, giving.key)
    if taking.missing:  # nothing is made for what will be refused
        planned = plan_source(source, _movable(source, name), unix_ms())
        if dry_run:
            return _document(planned)
    target = _destination(stack, taking, create=True)
    work = Move(source, target, name, unix_ms)
    return _document(work.plan() if dry_run else work.run())


def _movable(source: Engine, name: str) -> SessionRow:
    """The session, for a move whose destination does not exist."""
    row = source.session(name)
    note = None if row is None else source.move_note(note_key("leaving", row.id))
    if note is not None and note["state"] is not None:
        raise MoveRefused(
            "move_incomplete",
            f"the session is on its way to {note['store']}: bring that database back. If it is lost for good, and the "
            f"session runs nowhere, wactl restore-auth --unretire {name} brings it back here as from an old backup",
        )
    if row is None or row.desired_state == "retired":
        raise MoveRefused("no_such_session", f"there is no session {name!r} in {source.name}")
    return row


def _destination(stack: ExitStack, taking: Side, *, create: bool) -> Engine:
    """The store that a session goes to, with the key that it needs."""
    where = opened(taking.settings, create=create, credentials=credentials_directory())
    engine = stack.enter_context(where)
    require_keys(engine, taking.key, careful=taking.careful)
    return engine


def _abort(stack: ExitStack, giving: Side, taking: Side, name: str, *, dry_run: bool) -> dict[str, Any]:
    source = stack.enter_context(opened(giving.settings, create=False, credentials=credentials_directory()))
    try:
        target = _destination(stack, taking, create=False)
    except StoreRefused as refused:
        if refused.code not in _NOT_THERE:
            raise
        # What was seen of the destination decides; the source alone is enough where it was never stopped.
        work = Abort(source, None, taking.name, name, unix_ms)
        try:
            return _given_up(work.plan() if dry_run else work.run(), refused)
        except MoveRefused as error:
            raise MoveRefused(error.code, f"{error.detail}; {refused.detail}") from None
    work = Abort(source, target, taking.name, name, unix_ms)
    return _given_up(work.plan() if dry_run else work.run())


def _given_up(done: Aborted, refused: StoreRefused | None = None) -> dict[str, Any]:
    left = (
        []
        if refused is None
        else [
            {
                "code": "destination_unreachable",
                "count": 1,
                "detail": f"it still keeps the name for this move: give the same command again when it is there; "
                f"{refused.code}: {refused.detail}",
                "items": [],
            }
        ]
    )
    return {
        "ok": True,
        "done": done.done,
        "aborted": True,
        "restored": done.restored,
        "freed": done.freed,
        "source": {"connectionId": done.session_id},
        "errors": [],
        "warnings": left,
    }


def _document(moved: Moved) -> dict[str, Any]:
    return {
        "ok": True,
        "done": moved.done,
        "resumed": moved.resumed,
        "account": None if moved.state is None else account(moved.state),
        "counts": {} if moved.state is None else moved.state.counts(),
        "rows": moved.rows,
        "destination": None if not moved.done else {"connectionId": moved.session_id, "phase": moved.phase},
        **notes(moved.report),
    }


@main.command("import")
@click.argument("source")
@click.argument("target")
@click.argument("name")
@_CONFIG
@_TO
@_DRY_RUN
@choice_options
def import_session(
    source: str,
    target: str,
    name: str,
    *,
    config: Path | None,
    to_kek: Path | None,
    dry_run: bool,
    **options: Any,
) -> None:
    """Put a session of another program into a store."""
    with _refusing(), ExitStack() as stack:
        place = parse_source(source)
        if not place.foreign:
            raise PlaceRefused(
                "scheme_unknown", f"{place} is a store of waD: write {place.scheme}:{place.location}"
            )
        taking = Side(parse_target(target), config, Key(TO, to_kek), careful=dry_run)
        reading = read(place, choice(**options), unix_ms())
        document = summary(reading) | {"done": False, "destination": None}
        if reading.state is not None:
            made = dry_run and taking.missing
            engine = None if made else _destination(stack, taking, create=not dry_run)
            document |= _put(engine, name, reading.state, place, dry_run=dry_run)
        say(document)
        sys.exit(exit_of(document))


def _put(
    engine: Engine | None, name: str, state: AuthState, place: Place, *, dry_run: bool
) -> dict[str, Any]:
    if engine is None:
        return {}
    if dry_run:
        refuse_taken(engine, name, state.creds)
        return {}
    data = {"reason": "imported", "from": place.scheme, "peers": 0}
    row = put_imported(engine, name, state, data, unix_ms(), f"wactl migrate-auth, process {os.getpid()}")
    return {"done": True, "destination": {"connectionId": row.id, "name": row.name, "phase": row.auth_phase}}


@main.command("export")
@click.argument("source")
@click.argument("directory", type=click.Path(path_type=Path))
@click.argument("name")
@_CONFIG
@_FROM
@_DRY_RUN
def export_session(
    source: str, directory: Path, name: str, *, config: Path | None, from_kek: Path | None, dry_run: bool
) -> None:
    """Write a session of a store into a directory of Baileys."""
    with _refusing(), ExitStack() as stack:
        check_target(directory)
        giving = Side(parse_source(source), config, Key(FROM, from_kek), careful=True)
        engine = stack.enter_context(
            opened(giving.settings, create=False, credentials=credentials_directory())
        )
        require_key(engine, name, giving.key)
        row = engine.session(name)
        if row is None or row.desired_state == "retired":
            raise MoveRefused("no_such_session", f"there is no session {name!r} in {engine.name}")
        if row.desired_state == "up":
            raise MoveRefused("session_up", f"session {name!r} is meant to be up: take it down first")
        with lease(engine, row, f"an export, process {os.getpid()}", 60_000 if engine.shared else None):
            secrets = count_rows(engine, row.id, message_secrets.TABLE)
            export(stored_state(engine, row), directory, dry_run=dry_run, secrets=secrets)


if __name__ == "__main__":
    main(prog_name="python -m waD.migrate")
