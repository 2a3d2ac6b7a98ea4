"""The settings in force: typed sections, the view of one session, where each value came from, what a reload changes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeVar, cast

from waD.config.causes import ACTIONS, Action
from waD.config.errors import ConfigError, Place
from waD.config.kinds import quoted
from waD.config.option import Option
from waD.config.schema import CAUSES, OPTIONS, SESSIONS
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

D = TypeVar("D")

DEFAULT: Final = "default"
"""The origin of a value that no file sets."""

_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Assigned:
    """A typed value from a file."""

    value: Any
    place: Place


@dataclass(frozen=True, slots=True)
class Shown:
    """A line of `wactl config show`.

    Attributes:
        key: full key.
        value: TOML text with passwords masked, or `none`.
        origin: `FILE:LINE` or `default`.
    """

    key: str
    value: str
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSettings:
    """What one session goes by: the general sections with its own overrides applied."""

    name: str
    network: Network
    reconnect: Reconnect
    health: Health
    alerts: Alerts
    outbox: Outbox
    messages: Messages


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything the files say, with defaults for the rest.

    Attributes:
        files: those that were read, in the order in which later ones override earlier ones.
        warnings: things that work but should not stay so.
    """

    daemon: Daemon
    store: Store
    network: Network
    reconnect: Reconnect
    health: Health
    alerts: Alerts
    events: Events
    outbox: Outbox
    messages: Messages
    control: Control
    files: tuple[Path, ...] = ()
    warnings: tuple[ConfigError, ...] = ()
    _values: Mapping[str, Any] = field(default_factory=dict, repr=False)
    _assigned: Mapping[str, Assigned] = field(default_factory=dict, repr=False)
    _overrides: Mapping[str, Mapping[str, Assigned]] = field(default_factory=dict, repr=False)
    _views: Mapping[str, SessionSettings] = field(default_factory=dict, repr=False)

    @property
    def session_names(self) -> tuple[str, ...]:
        """The sessions that the files mention; others exist as well and follow the general settings."""
        return tuple(self._overrides)

    def session(self, name: str) -> SessionSettings:
        """The settings of one session, whether the files mention it or not."""
        return self._views.get(name) or _view(name, self._values)

    def origin(self, key: str, session: str | None = None) -> str:
        """Where the value of an option came from: `FILE:LINE`, or `default`.

        Args:
            key: full key, such as `reconnect.base`.
            session: ask for the value that this session uses.

        Raises:
            KeyError: there is no such option.
        """
        if key not in OPTIONS:
            raise KeyError(key)
        own = self._overrides.get(session, {}) if session is not None else {}
        found = own.get(key) or self._assigned.get(key)
        return str(found.place) if found else DEFAULT

    def show(self) -> Iterator[Shown]:
        """Every option in the order of declaration, then the overrides; causes only if some file names them."""
        for key, option in OPTIONS.items():
            if option.section != CAUSES or key in self._assigned:
                yield Shown(key, _masked(option, self._values[key]), self.origin(key))
        for name, overrides in self._overrides.items():
            for key, assigned in overrides.items():
                yield Shown(
                    session_key(name, key), _masked(OPTIONS[key], assigned.value), str(assigned.place)
                )

    def flat(self) -> dict[str, tuple[Option, Any]]:
        """Option and typed value by full key, the overrides of sessions included."""
        found = {key: (option, self._values[key]) for key, option in OPTIONS.items()}
        for name, overrides in self._overrides.items():
            for key, assigned in overrides.items():
                found[session_key(name, key)] = (OPTIONS[key], assigned.value)
        return found


def _masked(option: Option, value: Any) -> str:
    return "none" if value is None else option.kind.masked(value)


def session_key(name: str, key: str) -> str:
    """The full key of an override, `sessions.NAME.reconnect.base`; names with dots in quotes."""
    return f"{SESSIONS}.{name if _BARE.fullmatch(name) else quoted(name)}.{key}"


def build(
    values: Mapping[str, Any],
    assigned: Mapping[str, Assigned],
    overrides: Mapping[str, Mapping[str, Assigned]],
    files: tuple[Path, ...],
    warnings: tuple[ConfigError, ...],
) -> Settings:
    """Make the typed settings of checked values: one for every key of `OPTIONS`, by full key."""
    views = {
        name: _view(name, {**values, **{key: item.value for key, item in own.items()}})
        for name, own in overrides.items()
    }
    return Settings(
        daemon=_section(Daemon, "daemon", values),
        store=_section(Store, "store", values),
        network=_section(Network, "network", values),
        reconnect=_reconnect(values),
        health=_section(Health, "health", values),
        alerts=_section(Alerts, "alerts", values),
        events=_section(Events, "events", values),
        outbox=_section(Outbox, "outbox", values),
        messages=_section(Messages, "messages", values),
        control=_section(Control, "control", values, roles=_section(Roles, "control.roles", values)),
        files=files,
        warnings=warnings,
        _values=MappingProxyType(dict(values)),
        _assigned=MappingProxyType(dict(assigned)),
        _overrides=MappingProxyType(dict(overrides)),
        _views=MappingProxyType(views),
    )


def _view(name: str, values: Mapping[str, Any]) -> SessionSettings:
    return SessionSettings(
        name=name,
        network=_section(Network, "network", values),
        reconnect=_reconnect(values),
        health=_section(Health, "health", values),
        alerts=_section(Alerts, "alerts", values),
        outbox=_section(Outbox, "outbox", values),
        messages=_section(Messages, "messages", values),
    )


def _section(declared: type[D], name: str, values: Mapping[str, Any], **more: object) -> D:
    arguments = {found.attribute: values[key] for key, found in OPTIONS.items() if found.section == name}
    return declared(**arguments, **more)


def _reconnect(values: Mapping[str, Any]) -> Reconnect:
    """The section with its table of causes: only rows that differ from the policy's own."""
    rows = {found.name: values[key] for key, found in OPTIONS.items() if found.section == CAUSES}
    on = {cause: cast(Action, action) for cause, action in rows.items() if action in ACTIONS}
    return _section(Reconnect, "reconnect", values, on=MappingProxyType(on))


def diff(old: Settings, new: Settings) -> tuple[list[str], list[str]]:
    """What a reload from `old` to `new` changes.

    Returns:
        Full keys that a reload puts in force, and full keys that need a restart. A removed override is listed too.
    """
    before, after = old.flat(), new.flat()
    applied: list[str] = []
    restart: list[str] = []
    for key in [*after, *(key for key in before if key not in after)]:
        option, value = after.get(key) or before[key]
        if key in before and key in after and before[key][1] == value:
            continue
        (applied if option.spec.reload else restart).append(key)
    return applied, restart


def in_force(running: Settings, read: Settings) -> Settings:
    """What counts after a reload: what was read, but for options that need a restart; these stay as they are.

    So everything that is asked for later, and what is shown, is what the process really goes by, and each reload until
    the restart tells of it again.
    """
    kept = {key for key, option in OPTIONS.items() if not option.spec.reload}
    values = {key: (running if key in kept else read)._values[key] for key in OPTIONS}
    assigned = {key: found for key, found in read._assigned.items() if key not in kept}
    assigned |= {key: found for key, found in running._assigned.items() if key in kept}
    return build(values, assigned, read._overrides, read.files, read.warnings)
