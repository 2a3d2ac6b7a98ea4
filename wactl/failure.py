"""What went wrong, as `wactl` tells it: a stable symbol, a sentence, and the exit status."""

from __future__ import annotations

from typing import Any

from waD.control import types as t


class Failure(Exception):  # noqa: N818 - an answer to the caller, not a fault of the program
    """The command ends with a message and an exit status.

    Attributes:
        symbol: of the error table, or `usage`, `unreachable`, `declined`, `output`.
        message: one sentence for people.
        exit: the exit status.
        code: number on the wire, None if the daemon did not say it.
        data: what else helps.
    """

    def __init__(
        self,
        symbol: str,
        message: str,
        exit_status: int,
        *,
        code: int | None = None,
        data: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.symbol = symbol
        self.message = message
        self.exit = exit_status
        self.code = code
        self.data = data or {}

    def document(self) -> dict[str, Any]:
        """The failure for `--json`."""
        return {
            "symbol": self.symbol,
            "code": self.code,
            "message": self.message,
            "exit": self.exit,
            "data": self.data,
        }


def from_daemon(error: t.ErrorBody) -> Failure:
    """Turn the error of an answer into a failure; what this client does not know ends with 1."""
    data = dict(error.data)
    symbol = data.pop("symbol", None) or t.SYMBOL_OF_CODE.get(error.code, "refused")
    kind = t.ERRORS.get(symbol)
    exit_status = kind.exit if kind is not None else t.EXIT_REFUSED
    return Failure(str(symbol), error.message, exit_status, code=error.code, data=data)


def usage(message: str, **data: Any) -> Failure:
    """The command line is wrong; nothing was done."""
    return Failure("usage", message, t.EXIT_USAGE, data=data)


def unreachable(message: str, **data: Any) -> Failure:
    """Nobody answers."""
    return Failure("unreachable", message, t.EXIT_UNREACHABLE, data=data)


def timed_out(message: str, **data: Any) -> Failure:
    """What was waited for did not happen in time."""
    return Failure("timeout", message, t.EXIT_TIMEOUT, data=data)
