"""A connection's request side for tests: answers come from a script or a function, what was asked is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import trio

from waD.link.stanzas import raise_for_error
from waD.wire.codec import decode, encode
from waD.wire.jid import SERVER
from waD.wire.node import Node

Answer = Node | Exception
Handler = Callable[[Node], Answer]


class FakeRequester:
    """Requests pass through the codec in both directions, so that nothing impossible is said or answered.

    Attributes:
        sent: requests in order, as the server reads them.
        times: when each was sent, in trio's seconds.
    """

    def __init__(self, answers: Iterable[Answer] | Handler) -> None:
        self._next: Handler
        if callable(answers):
            self._next = answers
        else:
            script = iter(answers)
            self._next = lambda _: next(script)
        self.sent: list[Node] = []
        self.times: list[float] = []
        self._ids = 0

    async def request(self, node: Node, timeout: float | None = None) -> Node:  # noqa: ASYNC109
        node.attrs["id"] = self.next_id()
        self.sent.append(decode(encode(node)))
        self.times.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        answer = self._next(self.sent[-1])
        if isinstance(answer, Exception):
            raise answer
        return raise_for_error(decode(encode(answer)), "request")

    async def send(self, node: Node) -> None:
        self.sent.append(decode(encode(node)))
        await trio.lowlevel.checkpoint()

    def next_id(self) -> str:
        self._ids += 1
        return f"1.2-{self._ids}"


def result(*children: Node) -> Node:
    """A successful answer."""
    return Node("iq", {"from": SERVER, "type": "result"}, list(children))


def refusal(code: int, text: str = "no", **attrs: str) -> Node:
    """An answer that refuses."""
    return Node(
        "iq", {"from": SERVER, "type": "error"}, [Node("error", {"code": str(code), "text": text, **attrs})]
    )
