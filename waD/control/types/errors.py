"""The error table of the control protocol, and the exit codes of the command line."""

from __future__ import annotations

from typing import Any, Final, Literal, TypeAlias

import msgspec

from waD.control.types.base import Answer

Symbol: TypeAlias = Literal[
    "parse_error",
    "invalid_request",
    "unknown_method",
    "bad_params",
    "internal_error",
    "not_permitted",
    "no_such_session",
    "wrong_state",
    "timeout",
    "refused",
    "damaged",
    "not_on_whatsapp",
    "cursor_expired",
    "storage_unavailable",
    "lease_held",
    "invalid_text",
    "shutting_down",
]


class ErrorKind(msgspec.Struct, frozen=True):
    """One row of the error table: the number on the wire, its exit code in `wactl`, and what it means."""

    code: int
    exit: int
    meaning: str


ERRORS: Final[dict[Symbol, ErrorKind]] = {
    "parse_error": ErrorKind(-32700, 1, "the line is not JSON"),
    "invalid_request": ErrorKind(-32600, 1, "the JSON is not a request, is a batch, or the line is too long"),
    "unknown_method": ErrorKind(-32601, 1, "this daemon has no such method"),
    "bad_params": ErrorKind(-32602, 2, "a parameter is missing, unknown or malformed; data.param names it"),
    "internal_error": ErrorKind(-32603, 1, "a fault of the daemon; data.reference is in its log"),
    "not_permitted": ErrorKind(-32001, 7, "the role of the caller is too low; data.needs names the role"),
    "no_such_session": ErrorKind(-32002, 4, "no session, or no message in it, by that name"),
    "wrong_state": ErrorKind(-32003, 4, "the session is not in a state for this; data.state names it"),
    "timeout": ErrorKind(-32004, 5, "the state was not reached in time; nothing is undone"),
    "refused": ErrorKind(-32005, 1, "WhatsApp or the daemon refused; data.code is WhatsApp's number"),
    "damaged": ErrorKind(-32006, 6, "verification found damage"),
    "not_on_whatsapp": ErrorKind(-32007, 1, "the number has no WhatsApp account"),
    "cursor_expired": ErrorKind(-32008, 1, "the log no longer reaches back so far; data.oldest is its start"),
    "storage_unavailable": ErrorKind(-32009, 1, "the store cannot be written or read now"),
    "lease_held": ErrorKind(-32010, 4, "another process runs this session; data.holder names it"),
    "invalid_text": ErrorKind(-32011, 2, "the text is empty, too long or not text"),
    "shutting_down": ErrorKind(-32012, 3, "the daemon is stopping"),
}
SYMBOL_OF_CODE: Final[dict[int, Symbol]] = {kind.code: symbol for symbol, kind in ERRORS.items()}

EXIT_OK: Final = 0
EXIT_REFUSED: Final = 1
EXIT_USAGE: Final = 2
EXIT_UNREACHABLE: Final = 3
EXIT_STATE: Final = 4
EXIT_TIMEOUT: Final = 5
EXIT_DAMAGED: Final = 6
EXIT_NOT_PERMITTED: Final = 7
EXIT_INTERRUPTED: Final = 130


class ErrorBody(Answer, frozen=True, kw_only=True):
    """The `error` of an answer. `data.symbol` is stable, `message` is for people and may change."""

    code: int
    message: str
    data: dict[str, Any] = {}
