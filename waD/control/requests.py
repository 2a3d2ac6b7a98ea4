"""Lines to requests and answers to lines: JSON-RPC 2.0 as this daemon speaks it. Sans-IO.

Requests stand alone: batches and notifications from clients are refused, because an error in either would have
nobody to be told to.
"""

from __future__ import annotations

import re
from typing import Any, Final, TypeAlias, TypeVar

import msgspec

from waD.control.api import ControlError
from waD.control.types import ErrorBody

MAX_ID: Final = 128
"""Characters of a request's id."""
MAX_SHOWN: Final = 200
"""Characters of an error message that repeats something of the client's."""

_MEMBERS: Final = frozenset({"jsonrpc", "id", "method", "params"})
_SAFE_INTEGER: Final = (1 << 53) - 1

RequestId: TypeAlias = int | str | None
P = TypeVar("P", bound=msgspec.Struct)


class Request(msgspec.Struct, frozen=True):
    """A well-formed call. What the parameters are is still to be seen."""

    id: RequestId
    method: str
    params: dict[str, Any]

    def __repr__(self) -> str:
        return f"Request(id=..., method={self.method!r})"


class Malformed(Exception):  # noqa: N818 - names what the line is
    """The line is no request. `id` is the request's own as far as it could be made out."""

    def __init__(self, request_id: RequestId, error: ControlError) -> None:
        super().__init__(error.message)
        self.id = request_id
        self.error = error


class _Answer(msgspec.Struct, frozen=True):
    id: RequestId
    result: Any
    jsonrpc: str = "2.0"


class _Refusal(msgspec.Struct, frozen=True):
    id: RequestId
    error: ErrorBody
    jsonrpc: str = "2.0"


class _Notice(msgspec.Struct, frozen=True):
    method: str
    params: Any
    jsonrpc: str = "2.0"


_encode = msgspec.json.Encoder().encode


def answer_line(request_id: RequestId, result: msgspec.Struct) -> bytes:
    """Encode an answer."""
    return _encode(_Answer(request_id, result)) + b"\n"


def error_line(request_id: RequestId, error: ControlError) -> bytes:
    """Encode a refusal; without a known id it is null."""
    return _encode(_Refusal(request_id, error.body())) + b"\n"


def notice_line(method: str, params: msgspec.Struct) -> bytes:
    """Encode a notification to the client."""
    return _encode(_Notice(method, params)) + b"\n"


def too_long(limit: int) -> ControlError:
    """Build the error for a line beyond the limit."""
    return ControlError(
        "invalid_request", f"the line has more than {limit} bytes; it was dropped", {"limit": limit}
    )


def parse_request(line: bytes) -> Request:
    """Make a request of a line.

    Raises:
        Malformed: it is none. No other exception, whatever the bytes.
    """
    try:
        document = msgspec.json.decode(line)
    except (ValueError, RecursionError) as error:
        raise Malformed(None, ControlError("parse_error", f"not JSON: {_why(error)}")) from None
    if isinstance(document, list):
        raise _invalid(None, "batches are not supported; send one request per line")
    if not isinstance(document, dict):
        raise _invalid(None, "a request is a JSON object")
    return _request(document)


def convert_params(params: dict[str, Any], wanted: type[P]) -> P:
    """Give a method its parameters.

    Raises:
        ControlError: `bad_params`; `data.param` names the first that is wrong.
    """
    try:
        return msgspec.convert(params, wanted)
    except (msgspec.ValidationError, RecursionError) as error:
        text = _shorten(str(error))
        raise ControlError("bad_params", f"parameters: {text}", {"param": _param_in(text)}) from None


def _request(document: dict[str, Any]) -> Request:
    request_id = document.get("id")
    if not _is_id(request_id):
        request_id = None
    if document.get("jsonrpc") != "2.0":
        raise _invalid(request_id, 'a request has "jsonrpc": "2.0"')
    method = document.get("method")
    if not isinstance(method, str):
        raise _invalid(request_id, 'a request has a "method", a string')
    if request_id is None:
        raise _invalid(None, f'a request has an "id", an integer or a string of at most {MAX_ID} characters')
    if extra := sorted(document.keys() - _MEMBERS):
        raise _invalid(request_id, f"a request has no member {_shorten(extra[0])!r}")
    params = document.get("params", {})
    if not isinstance(params, dict):
        raise _invalid(request_id, '"params" is an object: parameters go by name')
    return Request(request_id, method, params)


def _is_id(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= MAX_ID
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _SAFE_INTEGER


def _invalid(request_id: RequestId, problem: str) -> Malformed:
    return Malformed(request_id, ControlError("invalid_request", problem))


def _why(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return _shorten(str(error))


def _shorten(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"


_PATH: Final = re.compile(r" - at `\$\.(\w+)")
_FIELD: Final = re.compile(r"field `([^`]+)`")


def _param_in(text: str) -> str | None:
    """The name of the parameter that a validation error complains about."""
    found = _PATH.search(text) or _FIELD.search(text)
    return found[1] if found else None
