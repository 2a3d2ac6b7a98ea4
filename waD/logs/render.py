"""Four ways to write a line: for people, as JSON, to the journal, and with syslog prefixes for whoever reads those."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal, Protocol, TextIO, TypeAlias

from structlog.dev import ConsoleRenderer, plain_traceback

from waD.logs.journal import IDENTIFIER, PRIORITIES, JournalSocket, connected, field_name
from waD.logs.redact import Plain

LogFormat: TypeAlias = Literal["auto", "human", "json", "journal"]
Fields: TypeAlias = dict[str, Plain]

MAX_LINE: Final = 8192
"""Characters of the values of one line, the traceback not counted; fields beyond are left out."""

_HEAD: Final = ("level", "logger", "session", "connection_id", "event")
_NOT_REPEATED: Final = frozenset({"level", "logger", "event", "exception"})


@dataclass(frozen=True, slots=True)
class Line:
    """A line to write.

    Attributes:
        fields: redacted; `level`, `logger` and `event` always, `exception` with a traceback.
        wording: the text before arguments were put in: equal for lines that say the same of different things.
        time: Unix seconds.
    """

    fields: Fields
    wording: str
    time: float


class Writer(Protocol):
    """Puts lines somewhere."""

    def write(self, line: Line) -> None:
        """Write one line."""

    def close(self) -> None:
        """Let go of what the writer itself has opened."""


def writer(log_format: LogFormat, stream: TextIO, environ: Mapping[str, str]) -> Writer:
    """Choose how lines are written to a stream, or to the journal when it is the journal that reads the stream."""
    native = _read_by_journal(stream, environ)
    if log_format == "json":
        return StreamWriter(stream, as_json)
    if log_format == "human" or (log_format == "auto" and not native):
        return StreamWriter(stream, Human(colours=stream.isatty() and not environ.get("NO_COLOR")))
    prefixed = StreamWriter(stream, Prefixed())
    return JournalWriter(JournalSocket(), prefixed) if native else prefixed


def _read_by_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return connected(environ, status.st_dev, status.st_ino)


def bounded(fields: Fields) -> Fields:
    """Fields in reading order, without those for which a line has no room."""
    room = MAX_LINE
    kept: Fields = {}
    for name in (*_HEAD, *(name for name in fields if name not in _HEAD)):
        if name not in fields:
            continue
        room -= 0 if name == "exception" else len(name) + len(str(fields[name]))
        if room >= 0:
            kept[name] = fields[name]
    return kept


def _stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class StreamWriter:
    """Writes lines to a text stream; a reader that has gone away is no reason to stop."""

    def __init__(self, stream: TextIO, render: Callable[[Line], str]) -> None:
        self._stream = stream
        self._render = render

    def write(self, line: Line) -> None:
        """Write one line."""
        text = self._render(line) + "\n"
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):  # closed
            return

    def close(self) -> None:
        """Leave the stream to its owner."""


def as_json(line: Line) -> str:
    """One JSON object: `time` in RFC 3339, then the fields."""
    return json.dumps({"time": _stamp(line.time), **line.fields}, ensure_ascii=False)


class Human:
    """Renders for a terminal, with colours if it has any."""

    def __init__(self, *, colours: bool, time: bool = True) -> None:
        self._time = time
        self._render = ConsoleRenderer(
            colors=colours, sort_keys=False, pad_event_to=0, exception_formatter=plain_traceback
        )

    def __call__(self, line: Line) -> str:
        """Render one line, its traceback below it."""
        fields = {name: value for name, value in line.fields.items() if name != "connection_id"}
        if self._time:
            fields["timestamp"] = datetime.fromtimestamp(line.time, UTC).astimezone().strftime("%H:%M:%S")
        return self._render(None, "", fields)


class Prefixed:
    """Renders with `<N>` before each line, N being the syslog severity (sd-daemon(3))."""

    def __call__(self, line: Line) -> str:
        """Render one line; a traceback gets the prefix in each of its lines."""
        prefix = f"<{PRIORITIES[str(line.fields['level'])]}>"
        text = message(line, labels=True)
        return "\n".join(prefix + part for part in text.splitlines())


def message(line: Line, *, labels: bool) -> str:
    """The text of a line: what happened, `name=value`, the traceback below; with `labels` the session, too."""
    skip = _NOT_REPEATED if labels else _NOT_REPEATED | {"session", "connection_id"}
    parts = [str(line.fields["event"])]
    parts += [f"{name}={_word(value)}" for name, value in line.fields.items() if name not in skip]
    text = " ".join(parts)
    return f"{text}\n{line.fields['exception']}" if "exception" in line.fields else text


def _word(value: Plain) -> str:
    if isinstance(value, str) and value and " " not in value and "=" not in value and '"' not in value:
        return value
    return json.dumps(value, ensure_ascii=False)


class JournalWriter:
    """Writes to the journal with fields; while it cannot be reached, to the stream that it reads otherwise."""

    def __init__(self, journal: JournalSocket, otherwise: Writer) -> None:
        self._journal = journal
        self._otherwise = otherwise
        self._lost = 0

    def write(self, line: Line) -> None:
        """Write one line; lines that a busy journal does not take are counted and reported later."""
        outcome = self._journal.send(journal_fields(line, self._lost))
        if outcome == "busy":
            self._lost += 1
            return
        self._lost = 0
        if outcome == "absent":
            self._otherwise.write(line)

    def close(self) -> None:
        """Close the socket."""
        self._journal.close()


def journal_fields(line: Line, lost: int = 0) -> dict[str, str]:
    """The fields of a line as the journal stores them."""
    fields = {
        "MESSAGE": message(line, labels=False),
        "PRIORITY": str(PRIORITIES[str(line.fields["level"])]),
        "SYSLOG_IDENTIFIER": IDENTIFIER,
        "EVENT": line.wording,
    }
    if lost:
        fields["WAD_LOST_BEFORE"] = str(lost)
    for name, value in line.fields.items():
        if name not in ("level", "event"):
            fields[field_name(name)] = (
                value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            )
    return fields
