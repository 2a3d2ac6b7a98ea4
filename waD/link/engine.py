"""One connection without input and output: bytes and times in, events, bytes and deadlines out.

The engine puts frames together, runs the Noise handshake, opens and reads frames, matches answers to requests, answers
the server's pings, keeps the connection alive and says why it ended. It never reads a clock: `now` is a monotonic time
in seconds everywhere. Whoever drives it calls `receive`, then `next_event` until None, `tick` at `next_deadline`, and
writes what `data_to_send` returns, in that order and as one websocket message.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from waD.link import causes, stanzas
from waD.link.causes import Cause, Rank, cause
from waD.link.errors import Disconnected
from waD.link.events import Closing, Ended, Established, Event, Health, LoggedIn, Reply, Stanza, TimedOut
from waD.link.keepalive import Keepalive, KeepaliveSettings
from waD.link.pending import MAX_ID, PendingRequests
from waD.wire import codec, frames
from waD.wire.errors import CertificateError, CodecError, FrameError, NoiseError, WireError
from waD.wire.jid import SERVER
from waD.wire.node import Node
from waD.wire.noise import ClientHandshake
from waD.wire.transport import Transport

MAX_UNDECODABLE: Final = 10
"""Undecodable nodes of one connection that are dropped; the next one closes it (chapter 01 §5.9)."""
MAX_UNACKED: Final = 4096
"""Sent messages whose server ack is watched at a time."""
DEAF_AFTER: Final = 3
"""Requests in a row without answer, while pings are answered, that make a connection deaf."""
MAX_PAUSE_S: Final = 60.0
"""Longest time that nobody takes a received stanza."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """Seconds of chapter 02 §5.2 and §7.1.

    Attributes:
        hello_timeout_s: for the server's hello.
        login_timeout_s: from the start of the dial to `success`, `failure` or `pair-device`.
        query_timeout_s: for the answer to a request.
        ack_timeout_s: for the server's ack of a message.
        close_grace_s: how long the server may take to close after it said why.
        keepalive: the ping clockwork.
    """

    hello_timeout_s: float = 20.0
    login_timeout_s: float = 60.0
    query_timeout_s: float = 60.0
    ack_timeout_s: float = 60.0
    close_grace_s: float = 5.0
    keepalive: KeepaliveSettings = field(default_factory=KeepaliveSettings)


class Engine:
    """The state of one connection, from the open websocket to its end.

    Args:
        handshake: the client's side of Noise, not used yet.
        prefix: what request ids begin with.
        draw: returns a random number from 0 to below 1.
        now: monotonic seconds.
        registered: whether this is a login; a connection for pairing gets no `<success>`.
        dialed_at: when the dial began; defaults to `now`.
        routing_info: sent before the handshake when there is some.
        settings: times.
    """

    def __init__(
        self,
        handshake: ClientHandshake,
        *,
        prefix: str,
        draw: Callable[[], float],
        now: float,
        registered: bool,
        dialed_at: float | None = None,
        routing_info: bytes | None = None,
        settings: EngineSettings | None = None,
    ) -> None:
        self._settings = settings or EngineSettings()
        self._handshake = handshake
        self._draw = draw
        self._registered = registered
        self._dialed_at = now if dialed_at is None else dialed_at
        self._hello_deadline: float | None = now + self._settings.hello_timeout_s
        self._login_deadline: float | None = self._dialed_at + self._settings.login_timeout_s
        self._transport: Transport | None = None
        self._keepalive: Keepalive | None = None
        self._reader = frames.FrameReader(frames.MAX_HANDSHAKE_FRAME)
        self._bodies: deque[bytes] = deque()
        self._pending = PendingRequests(prefix)
        self._pings: dict[str, float] = {}
        self._unacked: dict[str, float] = {}
        self._unanswered = 0
        self._paused_at: float | None = None
        self._logged_in = False
        self._open = False
        self._restart_expected = False
        self._cause: Cause | None = None
        self._close_deadline: float | None = None
        self._ended = False
        self._was_healthy = True
        self.undecodable = 0
        self.latency_s: float | None = None
        preamble = frames.edge_preamble(routing_info) if routing_info else b""
        self._out = [preamble + frames.INTRO + frames.frame(handshake.hello())]

    # What the driver asks.

    @property
    def established(self) -> bool:
        """Whether the handshake is complete."""
        return self._transport is not None

    @property
    def healthy(self) -> bool:
        """Whether frames arrive when they should."""
        return self._was_healthy

    @property
    def cause(self) -> Cause | None:
        """Why the connection ends or ended, as far as it is known."""
        return self._cause

    @property
    def ended(self) -> bool:
        """Whether the last event was given."""
        return self._ended

    def next_deadline(self) -> float | None:
        """When to call `tick` at the latest; None when there is nothing to wait for."""
        if self._ended:
            return None
        if self._fatal:
            return float("-inf")
        if self._close_deadline is not None:
            return self._close_deadline
        times = [self._hello_deadline, self._login_deadline]
        if self._paused_at is not None:
            times.append(self._paused_at + MAX_PAUSE_S)
        else:
            times.append(self._pending.deadline)
            times.append(min(self._unacked.values(), default=None))
            times.append(None if self._keepalive is None else self._keepalive.deadline)
        return min((time for time in times if time is not None), default=None)

    def data_to_send(self) -> bytes:
        """Whole frames to be written as one websocket message; empty when there is nothing."""
        out, self._out = self._out, []
        return b"".join(out)

    @property
    def unsent(self) -> int:
        """Frames that wait to be written."""
        return len(self._out)

    @property
    def unacked(self) -> int:
        """Sent messages without the server's ack."""
        return len(self._unacked)

    def next_id(self) -> str:
        """A fresh id."""
        return self._pending.next_id()

    # What the driver tells.

    def receive(self, data: bytes, now: float) -> None:
        """Take a chunk of bytes; then call `next_event`."""
        if self._ended:
            return
        try:
            self._bodies.extend(self._reader.feed(data))
        except FrameError as error:
            self._note(cause("frame" if self.established else "noise_fail", str(error)))
            return
        if self._keepalive is not None and data:
            self._keepalive.received(now)

    def next_event(self, now: float) -> Event | None:
        """Handle received frames until one of them is an event; None when all are handled."""
        if self._ended:
            return None
        if self._health_changed():
            return Health(self._was_healthy)
        while self._bodies and not self._fatal:
            event = self._handle_frame(self._bodies.popleft(), now)
            if event is not None:
                return event
        return self._end_now(now) if self._fatal else None

    def tick(self, now: float) -> list[Event]:
        """Do what is due."""
        if self._ended:
            return []
        events: list[Event] = []
        self._check_deadlines(now, events)
        if self._health_changed():
            events.append(Health(self._was_healthy))
        if self._fatal or (self._close_deadline is not None and now >= self._close_deadline):
            events.append(self._end_now(now))
        return events

    def end_of_stream(self, now: float, reason: Cause | None = None) -> list[Event]:
        """The websocket is closed or failed; gives the last event, unless frames are still to be handled."""
        if self._ended:
            return []
        self._note(reason or self._eof_cause())
        return [self._end_now(now)]

    def fail(self, reason: Cause, now: float) -> list[Event]:
        """End the connection for a reason of our own, such as `stop` or `auth_write`; gives the last event."""
        if self._ended:
            return []
        self._note(reason)
        return [self._end_now(now)]

    def pause(self, now: float) -> None:
        """We stop reading: until `resume`, silence is our own doing."""
        if self._paused_at is None:
            self._paused_at = now

    def resume(self, now: float) -> None:
        """We read again."""
        if self._paused_at is None:
            return
        seconds, self._paused_at = max(0.0, now - self._paused_at), None
        self._pending.shift(seconds)
        self._unacked = {key: deadline + seconds for key, deadline in self._unacked.items()}
        if self._keepalive is not None:
            self._keepalive.shift(seconds)

    def mark_open(self) -> None:
        """The login is complete (`active` was answered)."""
        self._open = True

    def expect_restart(self) -> None:
        """The pairing reply was written: whatever ends this connection now counts as code 515 (chapter 02 §3.5)."""
        self._restart_expected = True

    def send(self, node: Node, now: float) -> None:
        """Encrypt a stanza into the output.

        Raises:
            Disconnected: the connection ends; nothing new is sent.
            WireError: the node has no binary form or is too large; the connection is not harmed.
        """
        if self._transport is None or self._ended or self._cause is not None:
            raise Disconnected(self._known_cause(now))
        plaintext = codec.encode(node)
        try:
            body = self._transport.encrypt(plaintext)
        except NoiseError as error:
            if error.code != "counter":
                raise
            self._note(cause("counter", str(error)))
            raise Disconnected(self._known_cause(now)) from None
        self._out.append(frames.frame(body))
        if node.tag == "message" and len(self._unacked) < MAX_UNACKED and (key := node.text("id")):
            self._unacked.setdefault(key, now + self._settings.ack_timeout_s)

    def request(self, node: Node, now: float, timeout_s: float | None = None) -> str:
        """Send an iq under a fresh id, which is returned; `Reply` or `TimedOut` follows.

        Raises:
            Disconnected, WireError: as `send`.
            TooManyRequests: a thousand are open.
        """
        request_id = self.next_id()
        node.attrs["id"] = request_id
        node.attrs.setdefault("to", SERVER)
        subject = f"{node.text('type', '')} {node.text('xmlns', 'iq')}".strip()
        seconds = self._settings.query_timeout_s if timeout_s is None else timeout_s
        self._pending.add(request_id, subject, now, seconds)
        try:
            self.send(node, now)
        except BaseException:
            self._pending.take(request_id)
            raise
        return request_id

    def forget(self, request_id: str) -> None:
        """Nobody waits for this answer any more."""
        self._pending.take(request_id)

    # Frames.

    def _handle_frame(self, body: bytes, now: float) -> Event | None:
        if self._transport is None:
            return self._finish_handshake(body, now)
        try:
            plaintext = self._transport.decrypt(body)
        except NoiseError as error:
            self._note(cause("counter" if error.code == "counter" else "frame", str(error)))
            return None
        try:
            node = codec.decode(plaintext)
        except CodecError as error:
            self._count_undecodable(error)
            return None
        return self._handle_node(node, now)

    def _finish_handshake(self, body: bytes, now: float) -> Event | None:
        try:
            finish = self._handshake.finish(body)
        except CertificateError as error:
            self._note(cause("noise_fail", f"server authentication failed: {error}"))
            return None
        except WireError as error:
            self._note(cause("noise_fail", f"handshake failed: {error}"))
            return None
        self._out.append(frames.frame(finish))
        self._transport = self._handshake.transport
        self._reader.maximum = frames.MAX_FRAME
        self._hello_deadline = None
        self._keepalive = Keepalive(self._settings.keepalive, self._draw, now)
        return Established()

    def _count_undecodable(self, error: CodecError) -> None:
        self.undecodable += 1
        _log.warning("undecodable node %d dropped (%s)", self.undecodable, error.code)
        if self.undecodable > MAX_UNDECODABLE:
            self._note(cause("frame", f"{self.undecodable} undecodable nodes, the last one: {error}"))

    # Nodes.

    def _handle_node(self, node: Node, now: float) -> Event | None:
        ending = causes.from_stanza(node)
        if ending is not None:
            return self._stream_ends(ending, now)
        if self._close_deadline is not None:
            return None
        if node.tag == "iq":
            return self._handle_iq(node, now)
        if node.tag == "success":
            return self._handle_success(node)
        if node.tag == "ack" and node.attrs.get("class") == "message":
            self._unacked.pop(node.text("id") or "", None)
        return Stanza(node)

    def _stream_ends(self, reason: Cause, now: float) -> Event | None:
        first = self._close_deadline is None
        self._note(reason)
        if not first:
            return None
        self._close_deadline = now + self._settings.close_grace_s
        return Closing(self._final_cause(now))

    def _handle_success(self, node: Node) -> Event | None:
        if self._logged_in or not self._registered:
            return None
        self._logged_in = True
        self._login_deadline = None
        return LoggedIn(node)

    def _handle_iq(self, node: Node, now: float) -> Event | None:
        kind = node.attrs.get("type")
        if kind in ("result", "error"):
            return self._handle_reply(node, now)
        if kind == "get":
            self._answer_get(node, now)
            return None
        if kind == "set" and node.attrs.get("xmlns") == "md":
            if node.jid("from") != SERVER:
                return None
            if node.child("pair-device") is not None:
                self._login_deadline = None
        return Stanza(node)

    def _handle_reply(self, node: Node, now: float) -> Event | None:
        request_id = node.text("id") or ""
        if len(request_id) > MAX_ID:
            return None
        sent = self._pings.pop(request_id, None)
        if sent is not None:
            self.latency_s = now - sent
            self._pings.clear()
            return None
        if self._pending.take(request_id) is None:
            return None
        self._unanswered = 0
        return Reply(request_id, node)

    def _answer_get(self, node: Node, now: float) -> None:
        is_ping = node.attrs.get("xmlns") == "urn:xmpp:ping" or node.child("ping") is not None
        answer = stanzas.result(node) if is_ping else stanzas.error(node, 501, "feature-not-implemented")
        try:
            self.send(answer, now)
        except WireError:
            _log.warning("a request of the server cannot be answered: its addresses cannot be written")
        except Disconnected:
            return

    # Time.

    def _check_deadlines(self, now: float, events: list[Event]) -> None:
        if self._close_deadline is not None:
            return
        if self._hello_deadline is not None and now >= self._hello_deadline:
            self._note(cause("noise_timeout", f"no server hello within {self._settings.hello_timeout_s:g} s"))
        elif self._login_deadline is not None and now >= self._login_deadline:
            text = (
                f"neither success nor failure nor a pairing code within {self._settings.login_timeout_s:g} s"
            )
            self._note(cause("login_timeout", text))
        if self._paused_at is not None:
            if now >= self._paused_at + MAX_PAUSE_S:
                self._note(cause("deaf", f"no received stanza was taken for {MAX_PAUSE_S:g} s"))
            return
        self._expire_requests(now, events)
        self._expire_acks(now)
        self._keep_alive(now)

    def _expire_requests(self, now: float, events: list[Event]) -> None:
        for request_id, item in self._pending.expired(now):
            waited = now - item.sent
            events.append(TimedOut(request_id, item.subject, round(waited, 3)))
            if waited >= self._settings.query_timeout_s:
                self._unanswered += 1
        if self._unanswered >= DEAF_AFTER and self.healthy:
            self._note(cause("deaf", f"{self._unanswered} requests in a row without an answer"))

    def _expire_acks(self, now: float) -> None:
        late = [key for key, deadline in self._unacked.items() if deadline <= now]
        if late:
            seconds = self._settings.ack_timeout_s
            self._note(cause("deaf", f"{len(late)} sent messages without an ack for {seconds:g} s"))

    def _keep_alive(self, now: float) -> None:
        if self._keepalive is None or self._fatal:
            return
        decision = self._keepalive.poll(now)
        if decision == "dead":
            seconds = self._settings.keepalive.dead_s
            self._note(cause("dead_socket", f"no frame for {seconds:g} s after an unanswered ping"))
        elif decision == "ping":
            ping = stanzas.iq("get", "w:p")
            ping.attrs["id"] = ping_id = self.next_id()
            try:
                self.send(ping, now)
            except Disconnected:
                return
            self._pings[ping_id] = now

    def _health_changed(self) -> bool:
        healthy = self._keepalive is None or self._keepalive.healthy
        changed = healthy != self._was_healthy
        self._was_healthy = healthy
        return changed

    # The end.

    @property
    def _fatal(self) -> bool:
        """Whether a cause is known that does not wait for the server to close."""
        return self._cause is not None and self._close_deadline is None

    def _note(self, reason: Cause) -> None:
        """Keep the cause of highest precedence; the first among equals."""
        if self._cause is None or reason.rank < self._cause.rank:
            self._cause = reason

    def _eof_cause(self) -> Cause:
        if not self.established:
            return cause("eof", "the websocket closed before the handshake was complete")
        if not self._registered:
            return cause("pair_socket_lost", "the websocket closed while pairing")
        return cause("eof", "the websocket closed")

    def _end_now(self, now: float) -> Ended:
        self._ended = True
        self._bodies.clear()
        self._out.clear()
        self._cause = self._final_cause(now)
        return Ended(self._cause)

    def _known_cause(self, now: float) -> Cause:
        """Why nothing can be sent at this moment."""
        if self._cause is None:
            return cause("eof", "the connection is not established")
        return self._cause if self._ended else self._final_cause(now)

    def _final_cause(self, now: float) -> Cause:
        """What this end counts as, with what the connection knows about itself."""
        assert self._cause is not None
        reason = self._cause
        if self._restart_expected and reason.rank >= Rank.STANZA and reason.id != "restart":
            reason = Cause(
                "restart", 515, f"paired; the connection ended with {reason.id}", reason.stanza, Rank.STANZA
            )
        elif reason.id == "stream_end" and not self._registered:
            reason = cause("pair_socket_lost", reason.message, stanza=reason.stanza)
        return reason.at(age_s=now - self._dialed_at, was_open=self._open, reached=self.established)
