"""Logging: one pipeline for structlog and for the standard library's loggers.

set_up(level="info", log_format="auto", environ=os.environ)
with session_context("alerts", connection_id):
logging.getLogger(__name__).warning("...")      # carries the session, in every room
session_logger("alerts", connection_id).info("connection ended", cause="eof", code=428)
"""

from waD.logs.render import LogFormat
from waD.logs.setup import (
    LEVELS,
    LogLevel,
    flush,
    session_context,
    session_logger,
    set_level,
    set_up,
    tear_down,
)

__all__ = [
    "LEVELS",
    "LogFormat",
    "LogLevel",
    "flush",
    "session_context",
    "session_logger",
    "set_level",
    "set_up",
    "tear_down",
]
