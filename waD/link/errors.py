"""What can go wrong with a connection and a request."""

from __future__ import annotations

from waD.link.causes import Cause


class LinkError(Exception):
    """Base of everything this room raises at its users."""


class Disconnected(LinkError):  # noqa: N818 - a fact about the connection, not always an error
    """The connection is over; `cause` says why, as one row of the disconnect table (chapter 02 §8.2)."""

    def __init__(self, cause: Cause) -> None:
        super().__init__(f"disconnected ({cause.id}): {cause.message}")
        self.cause = cause


class RequestError(LinkError):
    """The server refused a request.

    Attributes:
        code: WhatsApp's number, such as 404; 500 when the answer had none.
        text: WhatsApp's text, such as `item-not-found`; may be empty.
        backoff: seconds to wait before asking again, when the server said so.
    """

    def __init__(self, code: int, text: str, backoff: int | None = None, *, subject: str = "request") -> None:
        super().__init__(f"{subject} refused: {code} {text}".rstrip())
        self.code = code
        self.text = text
        self.backoff = backoff


class RequestTimeout(LinkError):  # noqa: N818 - read as a noun beside RequestError
    """No answer to a request in time; whether the server acted on it is not known."""

    def __init__(self, subject: str, seconds: float) -> None:
        super().__init__(f"no answer to {subject} within {seconds:g} s")
        self.seconds = seconds


class MalformedReply(LinkError):  # noqa: N818 - names the thing
    """The server's answer lacks what the protocol promises."""
