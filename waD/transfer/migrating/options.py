"""What all commands about sources have in common: their options, and what becomes of a refusal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, Final, NoReturn, TypeVar

import click
import msgspec

from waD.transfer.baileys.presets import PRESETS, Table
from waD.transfer.migrating.places import PlaceRefused, parse_source
from waD.transfer.migrating.reading import Choice
from waD.transfer.sources.errors import SourceRefused

_F = TypeVar("_F", bound=Callable[..., Any])

EXIT_OK: Final = 0
EXIT_REFUSED: Final = 1
EXIT_USAGE: Final = 2
EXIT_UNKNOWN: Final = 4
EXIT_DAMAGED: Final = 6
EXIT_FORBIDDEN: Final = 7
EXIT_OF_CODE: Final[dict[str, int]] = {
    "column_missing": EXIT_USAGE,
    "device_unknown": EXIT_UNKNOWN,
    "devices_several": EXIT_USAGE,
    "key_misplaced": EXIT_USAGE,
    "name_invalid": EXIT_USAGE,
    "no_move": EXIT_UNKNOWN,
    "no_such_session": EXIT_UNKNOWN,
    "password_in_url": EXIT_USAGE,
    "scheme_unknown": EXIT_USAGE,
    "session_several": EXIT_USAGE,
    "session_unknown": EXIT_UNKNOWN,
    "source_damaged": EXIT_DAMAGED,
    "state_damaged": EXIT_DAMAGED,
    "store_damaged": EXIT_DAMAGED,
    "store_forbidden": EXIT_FORBIDDEN,
    "table_missing": EXIT_USAGE,
    "url_invalid": EXIT_USAGE,
}
"""Exit statuses of refusals; every other code is 1. Errors about the content of a source are 6."""
NOT_DAMAGE: Final = frozenset({"keys_missing", "not_paired"})
"""Errors about what is not there."""

_OPTIONS: Final = (
    click.option("--i-stopped-it", "stopped", is_flag=True),
    click.option("--jid"),
    click.option("--session"),
    click.option("--preset", type=click.Choice(sorted(PRESETS))),
    click.option("--table"),
    click.option("--session-column"),
    click.option("--key-column"),
    click.option("--value-column"),
    click.option("--kind-column"),
    click.option("--keys"),
    click.option("--all-mappings", is_flag=True),
)


def choice_options(function: _F) -> _F:
    """Options that say which session of a source is meant."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def choice(
    *,
    stopped: bool,
    jid: str | None,
    session: str | None,
    preset: str | None,
    table: str | None,
    session_column: str | None,
    key_column: str | None,
    value_column: str | None,
    kind_column: str | None,
    keys: str | None,
    all_mappings: bool,
) -> Choice:
    """What the options say.

    Raises:
        PlaceRefused: they make no sense together, or name no place.
    """
    columns = (session_column, key_column, value_column, kind_column)
    if table is None and any(columns):
        raise PlaceRefused("column_missing", "--table is missing, or the columns are too many")
    if table is not None and value_column is None:
        raise PlaceRefused("column_missing", "of a table that you name, --value-column must be named as well")
    named = None
    if table is not None and value_column is not None:
        named = Table(table, value_column, key_column, session_column, kind_column)
    second = None if keys is None else parse_source(keys)
    return Choice(stopped, jid, session, preset, named, second, all_mappings)


def refuse(error: Exception) -> NoReturn:
    """End with a refusal as a document, and its exit status."""
    code, detail = str(getattr(error, "code", "refused")), str(getattr(error, "detail", error))
    document: dict[str, Any] = {"ok": False, "refused": {"code": code, "detail": detail}}
    choices = getattr(error, "choices", ())
    if choices:
        document["refused"]["choices"] = list(choices)
    say(document)
    sys.exit(EXIT_OF_CODE.get(code, EXIT_REFUSED))


def exit_of(document: dict[str, Any]) -> int:
    """The exit status for a summary."""
    codes = {note["code"] for note in document["errors"]}
    if not codes:
        return EXIT_OK
    return EXIT_REFUSED if codes <= NOT_DAMAGE else EXIT_DAMAGED


def say(document: dict[str, Any]) -> None:
    """Write a document as one line."""
    sys.stdout.buffer.write(msgspec.json.encode(document) + b"\n")
    sys.stdout.buffer.flush()


def unix_ms() -> int:
    """The time of day in Unix milliseconds."""
    return time.time_ns() // 1_000_000


REFUSALS: Final = (PlaceRefused, SourceRefused)
"""What means that nothing was taken."""
