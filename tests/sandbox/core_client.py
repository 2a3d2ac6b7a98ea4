"""A companion wired straight to the core: no sockets, no tasks, time moves when the test says so."""

from __future__ import annotations

from tests.sandbox.companion import Companion, ack_for, receipt_for
from waD.sandbox.core import Core
from waD.sandbox.environment import Environment, Settings, seeded
from waD.sandbox.links import Close, Link
from waD.sandbox.phone import Phone
from waD.wire.codec import decode, encode
from waD.wire.jid import JID
from waD.wire.node import Node

START_MS = 1_800_000_000_000


class Time:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now_ms = START_MS

    def __call__(self) -> int:
        return self.now_ms

    def advance(self, seconds: float) -> None:
        self.now_ms += int(seconds * 1000)


def new_core(settings: Settings | None = None, seed: int = 1) -> tuple[Core, Time]:
    time = Time()
    return Core(Environment(time, seeded(seed)), settings), time


class CoreClient(Companion):
    """Sends stanzas through the codec both ways, so that nothing is tested that could not be on a wire."""

    def __init__(self, core: Core, name: str | None = None, seed: int = 2) -> None:
        super().__init__(name, seeded(seed))
        self.core = core
        self.link: Link | None = None
        self.inbox: list[Node] = []
        self.closed: Close | None = None

    def connect(self, payload: bytes) -> None:
        self.closed = None
        self.link = self.core.open_link(self.noise.public, payload)

    def disconnect(self) -> None:
        assert self.link is not None
        self.core.link_closed(self.link)
        self.link = None

    def send(self, node: Node) -> None:
        assert self.link is not None
        self.core.receive(self.link, decode(encode(node)))

    def pump(self) -> list[Node]:
        """Take everything the core wants to write; returns what is new."""
        assert self.link is not None
        new: list[Node] = []
        while (output := self.core.next_output(self.link)) is not None:
            if isinstance(output, Close):
                self.closed = output
                break
            assert isinstance(output, Node)
            new.append(decode(encode(output)))
        self.inbox += new
        return new

    def request(self, iq: Node) -> Node:
        """Send an iq; returns its answer."""
        self.send(iq)
        return next(node for node in self.pump() if node.tag == "iq" and node.attrs["id"] == iq.attrs["id"])

    def pair(self, phone: Phone) -> None:
        """Pair with a phone and hang up."""
        self.connect(self.registration())
        pair_device = self.pump()[0].child("pair-device")
        assert pair_device is not None
        ref = pair_device.children("ref")[0].data.decode()
        self.core.pairing.scan(self.qr(ref), phone.account)
        self.send(self.accept_pairing(self.pump()[0]))
        assert self.pump()[0].attrs == {"code": "515"}
        self.disconnect()

    def log_in(self, *, upload: bool = False, drain: bool = True) -> list[Node]:
        """Log in and go active; returns what came up to the end of the backlog."""
        self.connect(self.login())
        if upload:
            assert self.request(self.upload()).attrs["type"] == "result"
        self.send(self.iq("passive", "set", [Node("active")]))
        new = self.pump()
        if drain:
            self.answer(new)
        return new

    def answer(self, nodes: list[Node]) -> None:
        """Decrypt nothing, but acknowledge everything as a good client does."""
        for node in nodes:
            if node.tag == "message":
                self.send(receipt_for(node))
            elif node.tag in ("notification", "receipt", "call"):
                self.send(ack_for(node))

    def start(self, phone: Phone) -> None:
        """Pair, log in, publish keys and take the phone's first messages."""
        self.pair(phone)
        for node in self.log_in(upload=True):
            if node.tag == "message":
                self.decrypt(node)
        self.pump()

    def fetch(self, *jids: JID) -> None:
        """Build sessions from bundles."""
        users = [Node("user", {"jid": jid}) for jid in jids]
        answer = self.request(self.iq("encrypt", "get", [Node("key", content=users)]))
        listed = answer.child("list")
        assert listed is not None
        for user in listed.children("user"):
            jid = user.jid("jid")
            assert jid is not None
            self.start_session(jid, user)
