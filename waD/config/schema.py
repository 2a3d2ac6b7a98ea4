"""All options by key, collected from the sections, and the nearest known name for an unknown one."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Final

from waD.config.causes import OVERRIDABLE_CAUSES, allowed
from waD.config.kinds import Choice
from waD.config.option import SPEC, Option, Spec, key_name
from waD.config.sections import (
    Alerts,
    Control,
    Daemon,
    Events,
    Health,
    Messages,
    Network,
    Outbox,
    Reconnect,
    Roles,
    Store,
)

SESSIONS: Final = "sessions"
CAUSES: Final = "reconnect.on"
SIMILAR: Final = 0.6
"""Least similarity of a suggestion, difflib's ratio."""


@dataclass(frozen=True, slots=True)
class Section:
    """A table of the file.

    Attributes:
        name: dotted.
        type: dataclass that declares its options; None for `reconnect.on`, whose options are the causes.
        doc: one line.
    """

    name: str
    type: type[Any] | None
    doc: str

    @property
    def options(self) -> list[Option]:
        """The options of this table, in the order of their declaration."""
        return [found for found in OPTIONS.values() if found.section == self.name]


def _section(name: str, declared: type[Any]) -> Section:
    return Section(name, declared, (declared.__doc__ or "").strip().partition("\n")[0])


SECTIONS: Final[tuple[Section, ...]] = (
    _section("daemon", Daemon),
    _section("store", Store),
    _section("network", Network),
    _section("reconnect", Reconnect),
    Section(CAUSES, None, "Another action for single causes of a disconnect; the table is in the manual."),
    _section("health", Health),
    _section("alerts", Alerts),
    _section("events", Events),
    _section("outbox", Outbox),
    _section("messages", Messages),
    _section("control", Control),
    _section("control.roles", Roles),
)


def _declared(section: Section) -> Iterator[Option]:
    if section.type is None:
        for cause in OVERRIDABLE_CAUSES:
            spec = Spec(Choice(allowed(cause)), None, "Action for this cause.", reload=True, per_session=True)
            yield Option(f"{section.name}.{cause}", section.name, cause, spec)
        return
    for declared in fields(section.type):
        if (spec_found := declared.metadata.get(SPEC)) is not None:
            key = f"{section.name}.{key_name(declared.name, spec_found.kind)}"
            yield Option(key, section.name, declared.name, spec_found)


OPTIONS: Final[dict[str, Option]] = {found.key: found for section in SECTIONS for found in _declared(section)}
"""Every option by its full key."""

TABLES: Final[frozenset[str]] = frozenset(section.name for section in SECTIONS)
SESSION_OPTIONS: Final[dict[str, Option]] = {
    key: found for key, found in OPTIONS.items() if found.spec.per_session
}
SESSION_TABLES: Final[frozenset[str]] = frozenset(found.section for found in SESSION_OPTIONS.values())


def nearest(name: str, table: str, *, session: bool) -> str | None:
    """What somebody may have meant.

    Args:
        name: the unknown last part.
        table: where it stood, dotted; empty at the top.
        session: whether that was within `[sessions.NAME]`.

    Returns:
        A name of the same table, else the full key of an option of that name elsewhere, else None.
    """
    options = SESSION_OPTIONS if session else OPTIONS
    tables = SESSION_TABLES if session else TABLES | {SESSIONS}
    siblings = _children(table, [*options, *tables])
    if close := difflib.get_close_matches(name, siblings, 1, SIMILAR):
        return close[0]
    elsewhere = [key for key in options if key.rpartition(".")[2] == name]
    return elsewhere[0] if elsewhere else None


def _children(table: str, keys: list[str]) -> list[str]:
    prefix = f"{table}." if table else ""
    return sorted({key[len(prefix) :].partition(".")[0] for key in keys if key.startswith(prefix)})
