"""Small builders and readers shared by the request modules (chapter 01 §7.3)."""

from __future__ import annotations

from typing import Final, Protocol

from waD.link.errors import MalformedReply, RequestError
from waD.wire.jid import JID, SERVER
from waD.wire.node import Content, Node, Value

UNREADABLE_ERROR: Final = 500
MAX_BACKOFF_S: Final = 86_400
"""Longest wait a server may order with one answer."""
MAX_TEXT: Final = 4096
"""Longest text of a server error that is kept."""


class Requester(Protocol):
    """What asks the server: the connection, or a fake in tests."""

    async def request(self, node: Node, timeout: float | None = None) -> Node:  # noqa: ASYNC109 - the iq's own
        """Send an iq and return the result; raises RequestError, RequestTimeout or Disconnected."""
        ...

    async def send(self, node: Node) -> None:
        """Send a stanza and return when it is written; raises Disconnected."""
        ...

    def next_id(self) -> str:
        """A fresh id of this connection."""
        ...


def iq(kind: str, xmlns: str, *children: Node, to: JID = SERVER) -> Node:
    """Build a request without id; `kind` is `get` or `set`."""
    return Node("iq", {"to": to, "type": kind, "xmlns": xmlns}, list(children))


def result(request: Node, *children: Node) -> Node:
    """Answer a server's iq; the id is echoed when there was one."""
    attrs: dict[str, Value] = {"to": request.attrs.get("from", SERVER), "type": "result"}
    if "id" in request.attrs:
        attrs["id"] = request.attrs["id"]
    return Node("iq", attrs, list(children))


def error(request: Node, code: int, text: str) -> Node:
    """Refuse a server's iq."""
    answer = result(request, Node("error", {"code": str(code), "text": text}))
    answer.attrs["type"] = "error"
    return answer


def raise_for_error(reply: Node, subject: str) -> Node:
    """Return a reply that is a result.

    A reply is an error when its first child is `error` or its type is not `result` (chapter 01 §7.3).

    Raises:
        RequestError: with the server's code, text and backoff.
    """
    failure = reply.child("error")
    if failure is None and reply.attrs.get("type") == "result":
        return reply
    raise error_of(failure if failure is not None else Node("error"), subject)


def error_of(node: Node, subject: str) -> RequestError:
    """Read an `<error code text backoff/>` element."""
    code = node.int("code")
    backoff = node.int("backoff")
    return RequestError(
        UNREADABLE_ERROR if code is None else code,
        (node.text("text", "") or "")[:MAX_TEXT],
        None if backoff is None else min(backoff, MAX_BACKOFF_S),
        subject=subject,
    )


def need_child(node: Node, tag: str, subject: str) -> Node:
    """The child of that tag; raises MalformedReply."""
    child = node.child(tag)
    if child is None:
        raise MalformedReply(f"the answer to {subject} has no <{tag}>")
    return child


def big_endian(number: int, size: int) -> bytes:
    """An id as the protocol writes it inside stanzas; OverflowError when it does not fit."""
    return number.to_bytes(size, "big")


def content_of(node: Node | None) -> Content:
    """The content of an optional node."""
    return None if node is None else node.content
