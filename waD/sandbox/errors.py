"""Refusals of the sandbox."""

from __future__ import annotations


class IqError(Exception):
    """An iq is answered with an error (chapter 06 §12).

    Attributes:
        code: numeric error of the protocol.
        text: the protocol's name of it.
        backoff_s: seconds the client has to wait, if told.
    """

    def __init__(self, code: int, text: str, detail: str = "", backoff_s: int | None = None) -> None:
        super().__init__(detail or text)
        self.code = code
        self.text = text
        self.backoff_s = backoff_s


class SandboxError(Exception):
    """An order to the sandbox (admin call, phone action) cannot be done; the message says why.

    Attributes:
        status: HTTP status that fits.
    """

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status
