"""How an option is declared: a field of a section's dataclass, with everything that is known about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from os import environ as process_environ
from os import geteuid
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from waD.config.kinds import Duration, Kind

T = TypeVar("T")

SPEC: Final = "option"
"""Key of the declaration in a field's metadata."""


@dataclass(frozen=True, slots=True)
class Derived:
    """A default that depends on who runs the daemon.

    Attributes:
        find: from the environment and the effective user id.
        text: how the manual describes it.
        sample: what it is for a system service.
    """

    find: Callable[[Mapping[str, str], int], Any]
    text: str
    sample: str


@dataclass(frozen=True, slots=True)
class Spec:
    """What a declaration says, without its place.

    Attributes:
        kind: type, unit and range.
        default: the typed value, `Derived`, or None where leaving it out means something of its own.
        doc: one sentence or two.
        reload: whether a reload puts a change in force; otherwise it needs a restart.
        per_session: whether `[sessions.NAME]` may override it.
        example: TOML text to show where there is no default.
    """

    kind: Kind[Any]
    default: Any
    doc: str
    reload: bool
    per_session: bool
    example: str | None = None


@dataclass(frozen=True, slots=True)
class Option:
    """A declared option in its place.

    Attributes:
        key: full dotted name, such as `reconnect.base`.
        section: `reconnect`, `control.roles`.
        attribute: name of the field that holds it.
        spec: the declaration.
    """

    key: str
    section: str
    attribute: str
    spec: Spec

    @property
    def name(self) -> str:
        """The last part of the key."""
        return self.key.rpartition(".")[2]

    @property
    def kind(self) -> Kind[Any]:
        """Type, unit and range."""
        return self.spec.kind

    def default(self, environ: Mapping[str, str], euid: int) -> Any:
        """The value when no file sets the option."""
        default = self.spec.default
        return default.find(environ, euid) if isinstance(default, Derived) else default

    def default_text(self) -> str:
        """The default as the manual shows it: TOML text or a description."""
        default = self.spec.default
        if isinstance(default, Derived):
            return default.text
        return "none" if default is None else self.kind.toml(default)


def key_name(attribute: str, kind: Kind[Any]) -> str:
    """The name in files: attributes that hold seconds end in `_s`, keys do not."""
    return attribute.removesuffix("_s") if isinstance(kind, Duration) and not kind.bare else attribute


def option(kind: Kind[T], default: T, doc: str, *, reload: bool = True, per_session: bool = False) -> T:
    """Declare an option with a default (for dataclass fields)."""
    spec = Spec(kind, default, doc, reload, per_session)
    declared: T = field(default=default, metadata={SPEC: spec})
    return declared


def duration(
    kind: Duration, default: float, doc: str, *, reload: bool = True, per_session: bool = False
) -> float:
    """Declare a span of time; the default is in the unit of the kind, the typed value usually in seconds."""
    return option(kind, kind.parse(default), doc, reload=reload, per_session=per_session)


def optional(
    kind: Kind[T], doc: str, *, example: str, reload: bool = True, per_session: bool = False
) -> T | None:
    """Declare an option that may be absent."""
    spec = Spec(kind, None, doc, reload, per_session, example)
    return cast("T | None", field(default=None, metadata={SPEC: spec}))


def secret(
    kind: Kind[T], doc: str, *, example: str, reload: bool = True, per_session: bool = False
) -> T | None:
    """Declare an option that may be absent and may hold a password: it stays out of `repr`."""
    spec = Spec(kind, None, doc, reload, per_session, example)
    return cast("T | None", field(default=None, repr=False, metadata={SPEC: spec}))


def derived_path(kind: Kind[Path], default: Derived, doc: str) -> Path:
    """Declare a path whose default depends on the environment; a change needs a restart."""
    spec = Spec(kind, default, doc, reload=False, per_session=False)
    find = default.find
    return cast(Path, field(default_factory=lambda: find(process_environ, geteuid()), metadata={SPEC: spec}))
