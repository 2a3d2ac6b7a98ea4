"""One live connection as the core sees it: what waits to be sent, and how far its queue is drained."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

import msgspec

from waD.sandbox.accounts import Account, Device, DeviceRecord
from waD.sandbox.queues import Item
from waD.wire.jid import JID
from waD.wire.node import Node

NORMAL_CLOSURE: Final = 1000
PROTOCOL_ERROR: Final = 1002
MAX_OUT: Final = 5000
"""Answers waiting to be written; above that nothing more is read from the client."""


class Close:
    """The end of a link. `code` None: TCP is cut without a closing frame."""

    def __init__(self, code: int | None = NORMAL_CLOSURE) -> None:
        self.code = code


class RawFrame:
    """A frame body that goes out as it is, not encrypted: only faults send such."""

    def __init__(self, body: bytes) -> None:
        self.body = body


Output = Node | Close | RawFrame


class Pending(msgspec.Struct):
    """A scan that waits for the companion's signature. `signed` is the offered ADVSignedDeviceIdentity."""

    account: Account
    device_id: int
    key_index: int
    iq_id: str
    signed: bytes


class Registration:
    """A link of a client that is not paired yet.

    Attributes:
        push_name: selects the account, if the client gave one.
        refs: references of the QR codes on offer.
        started_ms: when the link began.
        pending: what a scan has begun and `pair-device-sign` has to finish.
    """

    def __init__(self, push_name: str | None, refs: list[str], started_ms: int) -> None:
        self.push_name = push_name
        self.refs = refs
        self.started_ms = started_ms
        self.pending: Pending | None = None


class Link:
    """A connection after its handshake.

    The core puts answers into it; the writer takes them out. `wake` is set by the writer and called when there
    is something to take.
    """

    def __init__(self, number: int, client_static: bytes) -> None:
        self.number = number
        self.client_static = client_static
        self.device: Device | None = None
        self.registration: Registration | None = None
        self.registration_keys: DeviceRecord | None = None
        self.wake: Callable[[], None] = _nothing
        self.closed = False
        self.active = False
        self.cursor = 0
        self.boundary = 0
        self.offline_sent = 0
        self.offline_done = True
        self.credit: int | None = None
        self.subjects: dict[str, JID] = {}
        self.presence: dict[str, Node] = {}
        self.stalled_sending = False
        self.stalled_reading = False
        self.stalled_queue = False
        self.held: Item | None = None
        self.expected_results: set[str] = set()
        self._out: deque[Output] = deque()
        self._delayed: list[tuple[int, Node]] = []

    def __repr__(self) -> str:
        return f"Link({self.number}, {self.device or 'unpaired'})"

    @property
    def waiting(self) -> int:
        """Answers not written yet."""
        return len(self._out)

    @property
    def due_ms(self) -> int | None:
        """When the next delayed answer may be written; a link that is stalled writes none."""
        if self.stalled_sending:
            return None
        return min((due for due, _ in self._delayed), default=None)

    def send(self, output: Output, due_ms: int | None = None) -> None:
        """Queue an answer, perhaps for later; after the end nothing is taken any more."""
        if self.closed:
            return
        if due_ms is not None and isinstance(output, Node):
            self._delayed.append((due_ms, output))
        else:
            self._out.append(output)
        if isinstance(output, Close):
            self.closed = True
        self.wake()

    def close(self, code: int | None = NORMAL_CLOSURE) -> None:
        """End the link after what is queued."""
        self.send(Close(code))

    def cut(self) -> None:
        """End the link at once, without a closing frame and without what is queued."""
        self._out.clear()
        self._delayed.clear()
        if self.closed:
            self.closed = False
        self.send(Close(None))

    def next_output(self, now_ms: int) -> Output | None:
        """Take one answer."""
        if self._delayed:
            for entry in [entry for entry in self._delayed if entry[0] <= now_ms]:
                self._delayed.remove(entry)
                self._out.append(entry[1])
        return self._out.popleft() if self._out else None


def _nothing() -> None:
    """Nobody is writing yet."""
