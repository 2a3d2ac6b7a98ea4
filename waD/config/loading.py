"""Reads the files, reports every fault in them at once, or makes settings of them."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from waD.config import checks
from waD.config.causes import FIXED_CAUSES
from waD.config.databases import has_password
from waD.config.errors import ConfigError, ConfigErrors, Place
from waD.config.kinds import Problem, shown
from waD.config.places import config_file, fragments
from waD.config.scan import Keys, Lines, key_lines
from waD.config.schema import (
    CAUSES,
    OPTIONS,
    SESSION_OPTIONS,
    SESSION_TABLES,
    SESSIONS,
    TABLES,
    nearest,
)
from waD.config.settings import Assigned, Settings, build, session_key

MAX_FILE: Final = 1 << 20
"""Bytes of one file."""
MAX_FRAGMENTS: Final = 1000

SESSION_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

_NO_REPAIR: Final = "must not be repair, which clears the credentials: this cause says nothing about them"
_TOML_PLACE: Final = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_TWICE: Final = ("Cannot overwrite", "Cannot declare", "Cannot redefine", "Cannot mutate", "Duplicate inline")


def load(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """Read the file and the `*.toml` of `conf.d` beside it; later files override key by key.

    Args:
        path: the file, which must exist; None takes the default place, where it may be missing.
        environ: the process environment, for default places.

    Raises:
        ConfigErrors: with every fault of every file.
    """
    euid = os.geteuid()
    reader = _Reader()
    main = path or config_file(environ, euid)
    reader.read(main, required=path is not None)
    for fragment in reader.fragments(fragments(main)):
        reader.read(fragment, required=True)
    defaults = {key: found.default(environ, euid) for key, found in OPTIONS.items()}
    reader.check(defaults)
    if reader.errors:
        raise ConfigErrors(sorted(reader.errors, key=lambda e: (reader.rank(e.place.file), e.place.line)))
    values = {**defaults, **{key: found.value for key, found in reader.assigned.items()}}
    return build(
        values, reader.assigned, reader.overrides, tuple(reader.files), tuple(reader.open_passwords())
    )


@dataclass(slots=True)
class _Source:
    """One file while it is read."""

    file: Path
    lines: Lines

    def place(self, keys: Keys) -> Place:
        return Place(self.file, self.lines.of(keys))


@dataclass(slots=True)
class _Reader:
    """Collects values and faults over all files."""

    assigned: dict[str, Assigned] = field(default_factory=dict)
    overrides: dict[str, dict[str, Assigned]] = field(default_factory=dict)
    errors: list[ConfigError] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    _faulty: set[str] = field(default_factory=set)
    _unread: bool = False

    def rank(self, file: Path) -> int:
        """The position of a file among those that were read."""
        return self.files.index(file) if file in self.files else -1

    def fragments(self, directory: Path) -> list[Path]:
        """The files to read after the main one, by name; hidden ones are left alone."""
        try:
            names = sorted(
                name for name in os.listdir(directory) if name.endswith(".toml") and not name.startswith(".")
            )
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            self._fault(Place(directory), "", f"cannot be read: {error.strerror}")
            return []
        if len(names) > MAX_FRAGMENTS:
            self._fault(Place(directory), "", f"holds {len(names)} files, more than {MAX_FRAGMENTS}")
        return [directory / name for name in names[:MAX_FRAGMENTS]]

    def read(self, file: Path, *, required: bool) -> None:
        """Read one file into values and faults."""
        text = self._text(file, required=required)
        if text is None:
            return
        self.files.append(file)
        document = self._document(file, text)
        if document is not None:
            self._table(_Source(file, key_lines(text)), document, (), None)

    def check(self, defaults: Mapping[str, Any]) -> None:
        """Apply the rules for several options, to the general values and to each session's."""
        if self._unread:
            return
        self._check({**defaults, **_values(self.assigned)}, self.assigned, None)
        for name, own in self.overrides.items():
            if own:
                values = {**defaults, **_values(self.assigned), **_values(own)}
                self._check(values, own, name)

    def open_passwords(self) -> list[ConfigError]:
        """A warning for each password in a file that everybody may read."""
        proxies = [("network.proxy", self.assigned.get("network.proxy"))]
        proxies += [
            (session_key(name, "network.proxy"), own.get("network.proxy"))
            for name, own in self.overrides.items()
        ]
        return [
            ConfigError(
                found.place, key, f"holds a password that every user can read: chmod o-r {found.place.file}"
            )
            for key, found in [("store.url", self.assigned.get("store.url")), *proxies]
            if found is not None and _holds_password(key, found.value) and _readable(found.place.file)
        ]

    def _check(self, values: Mapping[str, Any], where: Mapping[str, Assigned], name: str | None) -> None:
        skip = frozenset(key.removeprefix(session_key(name, "")) if name else key for key in self._faulty)
        for rule in checks.broken(values, skip | self._faulty):
            blamed = next((key for key in (rule.key, rule.other) if key in where), None)
            if blamed is not None:
                key = session_key(name, blamed) if name else blamed
                self._fault(where[blamed].place, key, rule.problem(values, blamed))

    def _text(self, file: Path, *, required: bool) -> str | None:
        try:
            with file.open("rb") as stream:
                data = stream.read(MAX_FILE + 1)
        except FileNotFoundError:
            if required:
                self._unusable(Place(file), "does not exist; name another file, or none to use the defaults")
            return None
        except OSError as error:
            self._unusable(Place(file), f"cannot be read: {error.strerror}")
            return None
        if len(data) > MAX_FILE:
            self._unusable(Place(file), f"is larger than {MAX_FILE} bytes")
            return None
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            self._unusable(Place(file, line), "is not UTF-8 text")
            return None

    def _document(self, file: Path, text: str) -> dict[str, Any] | None:
        try:
            return tomllib.loads(text)
        except RecursionError:
            self._unusable(Place(file), "broken TOML: nested too deeply")
        except ValueError as error:  # also integers with too many digits
            key, line, problem = _explain(str(error), text)
            self._unusable(Place(file, line), problem, key)
        return None

    def _unusable(self, place: Place, problem: str, key: str = "") -> None:
        """A file of which nothing is known: rules over several options would guess."""
        self._unread = True
        self._fault(place, key, problem)

    def _fault(self, place: Place, key: str, problem: str) -> None:
        self.errors.append(ConfigError(place, key, problem))

    def _table(self, source: _Source, table: dict[str, Any], keys: Keys, session: str | None) -> None:
        """Walk one table; `keys` is where it stands in the file."""
        options, tables = (SESSION_OPTIONS, SESSION_TABLES) if session else (OPTIONS, TABLES)
        inner = keys[2:] if session else keys
        for name, raw in table.items():
            key = ".".join((*inner, name))
            here = (*keys, name)
            if not keys and name == SESSIONS:
                self._sessions(source, raw)
            elif "." in name:
                self._unknown(source, here, session)
            elif key in options:
                self._option(source, here, key, raw, session)
            elif key not in tables:
                self._unknown(source, here, session)
            elif isinstance(raw, dict):
                self._table(source, raw, here, session)
            else:
                self._fault(
                    source.place(here), _text(here), f"is a section: write [{_text(here)}] and options below"
                )

    def _sessions(self, source: _Source, raw: object) -> None:
        if not isinstance(raw, dict):
            self._fault(source.place((SESSIONS,)), SESSIONS, "is a section: write [sessions.NAME.reconnect]")
            return
        for name, table in raw.items():
            here = (SESSIONS, name)
            if not SESSION_NAME.fullmatch(name):
                problem = "is not a session name: 1 to 64 letters, digits, . _ - with a letter or digit first"
                self._fault(source.place(here), _text(here), problem)
            elif not isinstance(table, dict):
                self._fault(source.place(here), _text(here), f"is a section: write [{_text(here)}.reconnect]")
            else:
                self.overrides.setdefault(name, {})
                self._table(source, table, here, name)

    def _option(self, source: _Source, here: Keys, key: str, raw: object, session: str | None) -> None:
        target = self.overrides[session] if session else self.assigned
        full = session_key(session, key) if session else key
        try:
            target[key] = Assigned(OPTIONS[key].kind.parse(raw), source.place(here))
        except Problem as problem:
            self._faulty.add(full)
            refused = raw == "repair" and OPTIONS[key].section == CAUSES
            self._fault(source.place(here), full, _NO_REPAIR if refused else str(problem))

    def _unknown(self, source: _Source, here: Keys, session: str | None) -> None:
        inner = here[2:] if session else here
        key, table = ".".join(inner), ".".join(inner[:-1])
        if table == CAUSES and inner[-1] in FIXED_CAUSES:
            problem = "cannot be changed: after this cause a session always stops"
        elif session and (key in OPTIONS or key in TABLES):
            problem = f"cannot be set per session; it belongs to the general section [{key.rpartition('.')[0] or key}]"
        else:
            near = nearest(inner[-1], table, session=session is not None)
            what = "cause" if table == CAUSES else "key" if table else "section"
            problem = f"unknown {what}" + (f"; did you mean {near}?" if near else "")
        self._fault(source.place(here), _text(here), problem)


def _values(assigned: Mapping[str, Assigned]) -> dict[str, Any]:
    return {key: found.value for key, found in assigned.items()}


def _text(keys: Keys) -> str:
    """A key as an error shows it."""
    if len(keys) > 2 and keys[0] == SESSIONS:
        return session_key(keys[1], _text(keys[2:]))
    return ".".join(key if re.fullmatch(r"[\w-]{1,60}", key) else shown(key) for key in keys)


def _holds_password(key: str, url: str) -> bool:
    return has_password(url) if key == "store.url" else urlsplit(url).password is not None


def _readable(file: Path) -> bool:
    try:
        return bool(file.stat().st_mode & 0o004)
    except OSError:
        return False


def _explain(message: str, text: str) -> tuple[str, int, str]:
    """Key, line and sentence for an error of the TOML parser."""
    place = _TOML_PLACE.search(message)
    end = text.count("\n") + (not text.endswith("\n"))
    line = int(place[1]) if place and place[1] else end
    what = _TOML_PLACE.sub("", message)
    if message.startswith(_TWICE):
        again = {keys: at for keys, at in key_lines(text).again.items() if at <= line}
        if again:
            keys = max(again, key=lambda found: again[found])
            return (
                _text(keys),
                again[keys],
                f"appears twice; the first time in line {key_lines(text).first[keys]}",
            )
    where = f", column {place[2]}" if place and place[2] else ""
    return "", line, f"broken TOML: {what[:1].lower()}{what[1:]}{where}"
