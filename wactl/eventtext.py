"""One line for people about each event."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from wactl.text import address, clean, moment
from waD.control import types as t

MAX_TEXT: Final = 200
Data = dict[str, Any]


def event_line(event: t.EventView) -> str:
    """Say what happened: time, session, type, and what the data holds."""
    told = _TOLD.get(event.type, _anything)(event.data)
    return f"{moment(event.time)}  {clean(event.session or '-')}  {clean(event.type)}  {told}".rstrip()


def _message(data: Data) -> str:
    who = "me" if data.get("fromMe") else address(_word(data, "senderPn") or _word(data, "sender"))
    name = _word(data, "pushName")
    chat = address(_word(data, "chat"))
    body = _word(data, "body")
    content = f": {shortened(body)}" if body else f" [{_word(data, 'kind')}]"
    reason = f" ({_word(data, 'reason')})" if "reason" in data else ""
    return f"{who}{f' {name!r}' if name else ''} in {chat}{reason}{content}  {_word(data, 'messageId')}"


def _status(data: Data) -> str:
    error = _word(data, "error")
    return (
        f"{_word(data, 'messageId')} to {address(_word(data, 'chat'))}: {_word(data, 'status')}"
        f"{f' ({error})' if error else ''}"
    )


def _connection(data: Data) -> str:
    return _with_rest(_word(data, "status"), data, "status")


def _code(data: Data) -> str:
    if not data:
        return "a code is shown"
    return f"code {_word(data, 'number')} of {_word(data, 'of')}, good until {moment(_number(data, 'expiresAt'))}"


def _error(data: Data) -> str:
    return _with_rest(f"{_word(data, 'cause')}: {_word(data, 'message')}", data, "cause", "message")


def _alert(data: Data) -> str:
    head = f"{_word(data, 'severity')}: {_word(data, 'subject')}: {_word(data, 'message')}"
    return _with_rest(head, data, "severity", "subject", "message")


def _anything(data: Data) -> str:
    return _with_rest("", data)


def _with_rest(head: str, data: Data, *said: str) -> str:
    rest = " ".join(f"{clean(name)}={_value(value)}" for name, value in data.items() if name not in said)
    return f"{head} {rest}".strip()


def _value(value: Any) -> str:
    return clean(value if isinstance(value, str) else msgspec.json.encode(value).decode())


def _word(data: Data, name: str) -> str:
    value = data.get(name)
    return "" if value is None else _value(value)


def _number(data: Data, name: str) -> int | None:
    value = data.get(name)
    return value if isinstance(value, int) else None


def shortened(text: str, limit: int = MAX_TEXT) -> str:
    """Text on one line, cut at a limit."""
    text = clean(text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


_TOLD: Final[dict[str, Callable[[Data], str]]] = {
    "message:new": _message,
    "message:update": _message,
    "message:status": _status,
    "connection:status": _connection,
    "connection:qr": _code,
    "connection:error": _error,
    "alert:raised": _alert,
}
