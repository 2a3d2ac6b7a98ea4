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

from waD.config import ConfigErrors, load
from waD.session.retention import store_settings
from waD.store.engine import Engine
from waD.store.errors import SessionLeased, StoreError, StoreLocked, StoreTooNew
from waD.store.opening import open_engine
from waD.store.postgres.settings import PostgresSettings
from waD.store.sql import message_secrets
from waD.store.store import Parts, StoreSettings
from waD.transfer.legacy import LegacyCodec
from waD.transfer.migrating.export_command import check_target, export
from waD.transfer.migrating.moving import Move, Moved, count_rows, plan_source
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
from waD.transfer.upgrade import upgrade_item

PARTS: Final = Parts(codec=LegacyCodec(), upgrade=upgrade_item)


class StoreRefused(Exception):  # noqa: N818 - what is the case
    """A store cannot be opened; nothing was changed.

    The codes: `source_missing`, `session_in_use`, `store_too_new`, `store_unusable`, `config_invalid`.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


_REFUSED: Final = (*REFUSALS, StoreRefused, MoveRefused)


def settings_of(place: Place, config: Path | None, *, careful: bool) -> StoreSettings:
    """How a store is opened.

    Args:
        place: of a store of waD.
        config: of the daemon whose store is meant by `waD`.
        careful: change nothing about how it is encrypted.

    Raises:
        StoreRefused: the configuration cannot be used.
    """
    if place.scheme == "sqlite":
        return StoreSettings(path=Path(place.location), encrypt=False if careful else None)
    if place.scheme == "postgresql":
        url = PostgresSettings(url=place.location)
        return StoreSettings(path=Path("unused"), postgres=url, legacy=True)
    try:
        return store_settings(load(config, os.environ), os.environ.get("CREDENTIALS_DIRECTORY"))
    except ConfigErrors as errors:
        raise StoreRefused("config_invalid", str(errors).replace("\n", "; ")) from None


@contextmanager
def opened(place: Place, config: Path | None, *, create: bool, careful: bool = False) -> Iterator[Engine]:
    """A store, for the life of the block.

    Raises:
        StoreRefused: it cannot be opened.
    """
    settings = settings_of(place, config, careful=careful)
    if settings.postgres is None and not create and not settings.path.exists():
        raise StoreRefused("source_missing", f"there is no database at {settings.path}")
    try:
        engine = open_engine(settings, PARTS)
    except (StoreLocked, SessionLeased) as error:
        raise StoreRefused("session_in_use", f"{error}") from None
    except StoreTooNew as error:
        raise StoreRefused("store_too_new", str(error)) from None
    except (StoreError, OSError) as error:
        raise StoreRefused("store_unusable", str(error)) from None
    try:
        yield engine
    finally:
        engine.close()


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except _REFUSED as error:
        refuse(error)
    except StoreError as error:
        refuse(StoreRefused("store_unusable", str(error)))


@click.group()
def main() -> None:
    """Sessions between stores; answers with a line of JSON."""
    os.umask(0o077)


_CONFIG: Final = click.option("--config", type=click.Path(dir_okay=False, path_type=Path))
_DRY_RUN: Final = click.option("--dry-run", is_flag=True)


@main.command("move")
@click.argument("source")
@click.argument("target")
@click.argument("name")
@_CONFIG
@_DRY_RUN
def move(source: str, target: str, name: str, *, config: Path | None, dry_run: bool) -> None:
    """Move a session from one store to another, or end a move that was interrupted."""
    with _refusing(), ExitStack() as stack:
        first, second = parse_source(source), parse_target(target)
        giving = stack.enter_context(opened(first, config, create=False, careful=True))
        taking = _destination(stack, second, config, dry_run=dry_run, same=_same(first, second))
        if taking is None:
            row = giving.session(name)
            if row is None or row.desired_state == "retired":
                raise MoveRefused("no_such_session", f"there is no session {name!r} in {giving.name}")
            moved = plan_source(giving, row, unix_ms())
        else:
            work = Move(giving, taking, name, unix_ms)
            moved = work.plan() if dry_run else work.run()
        say(_document(moved))


def _same(first: Place, second: Place) -> bool:
    if first.scheme == second.scheme == "sqlite":
        return Path(first.location).resolve() == Path(second.location).resolve()
    return first == second


def _destination(
    stack: ExitStack, place: Place, config: Path | None, *, dry_run: bool, same: bool
) -> Engine | None:
    """The store that a session goes to; None where a dry run would have to make it."""
    if same:
        raise MoveRefused("same_store", "both are the same store")
    settings = settings_of(place, config, careful=dry_run)
    if dry_run and settings.postgres is None and not settings.path.exists():
        return None
    return stack.enter_context(opened(place, config, create=not dry_run, careful=dry_run))


def _document(moved: Moved) -> dict[str, Any]:
    return {
        "ok": True,
        "done": moved.done,
        "resumed": moved.resumed,
        "account": account(moved.state),
        "counts": moved.state.counts(),
        "rows": moved.rows,
        "destination": None if not moved.done else {"connectionId": moved.session_id, "phase": moved.phase},
        **notes(moved.report),
    }


@main.command("import")
@click.argument("source")
@click.argument("target")
@click.argument("name")
@_CONFIG
@_DRY_RUN
@choice_options
def import_session(
    source: str, target: str, name: str, *, config: Path | None, dry_run: bool, **options: Any
) -> None:
    """Put a session of another program into a store."""
    with _refusing(), ExitStack() as stack:
        place = parse_source(source)
        if not place.foreign:
            raise PlaceRefused(
                "scheme_unknown", f"{place} is a store of waD: write {place.scheme}:{place.location}"
            )
        destination = parse_target(target)
        reading = read(place, choice(**options), unix_ms())
        document = summary(reading) | {"done": False, "destination": None}
        if reading.state is not None:
            engine = _destination(stack, destination, config, dry_run=dry_run, same=False)
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
@_DRY_RUN
def export_session(source: str, directory: Path, name: str, *, config: Path | None, dry_run: bool) -> None:
    """Write a session of a store into a directory of Baileys."""
    with _refusing(), ExitStack() as stack:
        check_target(directory)
        engine = stack.enter_context(opened(parse_source(source), config, create=False, careful=True))
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
