"""Sets up the one pipeline: context, redaction, limit of repetitions, and a way to write.

record of any logger → plain fields → redact → count repetitions → human | JSON | journal | prefixed lines
"""

from __future__ import annotations

import json
import logging
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from typing import Any, Final, Literal, TextIO, TypeAlias, get_args

import structlog
from structlog.contextvars import bound_contextvars, get_contextvars, merge_contextvars
from structlog.typing import EventDict, Processor, WrappedLogger

from waD.logs.limit import Limiter, Summary
from waD.logs.redact import one_line, redact, shorten
from waD.logs.render import Line, LogFormat, Writer, bounded, writer

LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]

LEVELS: Final[tuple[LogLevel, ...]] = get_args(LogLevel)
LEVEL_VARIABLE: Final = "WAD_LOG_LEVEL"
OWN: Final = "waD"
"""Root of our loggers. At lower levels other libraries log contents: of them only warnings are heard."""

_STRUCTURED: Final = "wad_fields"
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {
    "message",
    "asctime",
    "taskName",
    _STRUCTURED,
}


def set_up(
    *,
    level: LogLevel,
    log_format: LogFormat,
    environ: Mapping[str, str],
    stream: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Send everything that is logged to standard error or the journal; replaces an earlier set-up.

    Args:
        level: least severity; `$WAD_LOG_LEVEL` overrides it.
        log_format: `auto` is `journal` when systemd reads the stream, else `human`.
        environ: the process environment.
        stream: other than standard error.
        clock: monotonic seconds, for the limit of repetitions.
    """
    stream = stream or sys.stderr
    tear_down()
    logging.getLogger().addHandler(_Sink(writer(log_format, stream, environ), clock))
    logging.captureWarnings(capture=True)
    structlog.configure(
        processors=_processors(),
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    set_level(level, environ)


def tear_down() -> None:
    """Write what is pending and take the pipeline away."""
    root = logging.getLogger()
    for sink in _sinks():
        root.removeHandler(sink)
        sink.close()
    logging.captureWarnings(capture=False)


def set_level(level: LogLevel, environ: Mapping[str, str]) -> None:
    """Change the least severity that is logged; `$WAD_LOG_LEVEL` overrides it."""
    named = environ.get(LEVEL_VARIABLE, "").lower()
    number = logging.getLevelNamesMapping()[(named if named in LEVELS else level).upper()]
    logging.getLogger(OWN).setLevel(number)
    logging.getLogger().setLevel(max(number, logging.WARNING))
    if named and named not in LEVELS:
        logging.getLogger(OWN).warning(
            "%s is %.20r, not one of %s: ignored", LEVEL_VARIABLE, named, ", ".join(LEVELS)
        )


def session_logger(name: str, connection_id: str) -> structlog.stdlib.BoundLogger:
    """A structured logger whose lines carry a session."""
    logger: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        logging.getLogger(f"{OWN}.session"),
        processors=_processors(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    return logger.bind(session=name, connection_id=connection_id)


def session_context(name: str, connection_id: str) -> AbstractContextManager[None]:
    """Inside it, and in tasks started inside it, the lines of every logger carry the session."""
    return bound_contextvars(session=name, connection_id=connection_id)


def flush() -> None:
    """Write the summaries of repetitions that are still being counted."""
    for sink in _sinks():
        sink.flush()


def _sinks() -> list[_Sink]:
    return [handler for handler in logging.getLogger().handlers if isinstance(handler, _Sink)]


def _processors() -> list[Processor]:
    """From a structured event to a record of the standard library."""
    return [
        structlog.stdlib.filter_by_level,
        merge_contextvars,
        structlog.stdlib.PositionalArgumentsFormatter(),
        _hand_over,
    ]


def _hand_over(_logger: WrappedLogger, _name: str, event: EventDict) -> tuple[tuple[str], dict[str, Any]]:
    """Give a structured event to the standard library: the wording as its message, all else beside it."""
    wording = str(event.pop("event", ""))
    exc_info = event.pop("exc_info", None)
    return (wording,), {"exc_info": exc_info, "extra": {_STRUCTURED: dict(event)}}


class _Sink(logging.Handler):
    """The one handler: makes plain fields of a record, limits repetitions, writes."""

    def __init__(self, out: Writer, clock: Callable[[], float]) -> None:
        super().__init__()
        self._out = out
        self._clock = clock
        self._limiter = Limiter()

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, or count it."""
        try:
            line = _line(record)
            same = json.dumps({**line.fields, "exception": ""}, sort_keys=True)
            similar = (record.name, record.levelno, line.wording, line.fields.get("session"))
            summaries, passed = self._limiter.admit(same, similar, str(line.fields["event"]), self._clock())
            self._summarise(summaries)
            if passed:
                self._out.write(line)
        except Exception:  # as all handlers do: a fault of the log is not a fault of whoever logs
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the library's name
        """Say that a line was lost, without its arguments, which the library would print."""
        error = sys.exc_info()[0]
        kind = error.__name__ if error else "an error"
        self._complain("error", f"a log line of {record.name}:{record.lineno} was lost: {kind}")

    def flush(self) -> None:
        """Write the summaries of repetitions that are still being counted."""
        self.acquire()
        try:
            self._summarise(self._limiter.flush())
        finally:
            self.release()

    def close(self) -> None:
        """Write what is pending and let go."""
        self.flush()
        self._out.close()
        super().close()

    def _summarise(self, summaries: list[Summary]) -> None:
        for summary in summaries:
            self._complain("warning", str(summary))

    def _complain(self, level: str, text: str) -> None:
        """Write a line about lines."""
        fields = redact({"level": level, "logger": f"{OWN}.logs", "event": text})
        with suppress(Exception):  # what cannot be written cannot be complained about either
            self._out.write(Line(fields, "lines were not logged", time.time()))


def _line(record: logging.LogRecord) -> Line:
    """Make the redacted line of a record of either library."""
    given = getattr(record, _STRUCTURED, None)
    own = {"level": _level(record.levelno), "logger": record.name, "event": record.getMessage()}
    extra = {name: value for name, value in vars(record).items() if name not in _STANDARD}
    event = {**own, **(get_contextvars() if given is None else given), **extra, **own}
    if record.exc_info and record.exc_info[1] is not None:
        event["exception"] = "".join(traceback.format_exception(record.exc_info[1])).rstrip("\n")
    wording = one_line(shorten(str(record.msg)))
    return Line(bounded(redact(event)), wording, record.created)


def _level(number: int) -> str:
    """The name of a level; numbers between two levels count as the lower one."""
    names = ((50, "critical"), (40, "error"), (30, "warning"), (20, "info"))
    return next((name for least, name in names if number >= least), "debug")
