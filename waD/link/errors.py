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


class PairingRefused(LinkError):  # noqa: N818 - what we did, not a fault of ours
    """We refuse an offer or a proof of the server while pairing (chapter 02 §3.4).

    Attributes:
        code, text: what the server is told.
        cause_id: row of the disconnect table: `pair_hmac`, `pair_sig` or `pair_refused`.
    """

    def __init__(self, code: int, text: str, cause_id: str, detail: str) -> None:
        super().__init__(f"pairing refused ({text}): {detail}")
        self.code = code
        self.text = text
        self.cause_id = cause_id
        self.detail = detail
