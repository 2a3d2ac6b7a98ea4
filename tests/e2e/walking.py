"""A random walk: sessions that talk while everything goes wrong, and the books that are kept of it."""

from __future__ import annotations

import os
import random
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

import trio

from tests.e2e.in_process import Machine
from tests.soak.inside import START_S, is_ready
from waD.control.types import EventView
from waD.link.endpoint import Endpoint
from waD.sandbox import SandboxError
from waD.sandbox.handles import PhoneHandle
from waD.sandbox.links import RawFrame
from waD.session.states import LIVE, STATES
from waD.session.vitals import Vitals
from waD.store.model import OutboxRow

FIRST_NUMBER: Final = 15550002000
FIRST_FRIEND: Final = 15550003000
FRIENDS: Final = 4
PACE_S: Final = 2.0
"""Simulated seconds between two steps, on average."""
AT_REST: Final = ("failed", "needs_pairing", "stopped")
SETTLE_S: Final = 4000.0

LIVE_FAULTS: Final[tuple[tuple[int, str, dict[str, Any]], ...]] = (
    (6, "close", {}),
    (6, "close", {"frame": False}),
    (4, "stream-end", {}),
    (3, "stream-error", {"code": 503}),
    (3, "stream-error", {"code": 515}),
    (2, "stream-error", {"code": 500}),
    (1, "stream-error", {"code": 429}),
    (1, "stream-error", {"code": 599}),
    (1, "stream-error", {"code": 413}),
    (1, "stream-error", {"code": 516}),
    (1, "stream-error", {"conflict": "other"}),
    (2, "stream-error", {"child": "ack", "attrs": {"class": "message", "id": "1"}}),
    (1, "stream-error", {"child": "xml-not-well-formed"}),
    (2, "replaced", {}),
    (1, "unlink", {}),
    (1, "ib", {"child": "downgrade_webclient"}),
    (2, "stall", {"mode": "read"}),
    (2, "stall", {"mode": "send"}),
    (2, "stall", {"mode": "both"}),
    (2, "stall", {"mode": "queue"}),
    (2, "ping", {}),
    (2, "ib", {}),
    (4, "duplicate", {}),
    (3, "reorder", {}),
    (3, "corrupt-enc", {}),
    (2, "drop-ack", {}),
    (2, "delay-ack", {"delayMs": 5000}),
    (1, "exhaust-prekeys", {}),
    (2, "iq", {"xmlns": "w:p", "never": True}),
    (1, "iq", {"xmlns": "passive", "code": 500}),
    (1, "iq", {"xmlns": "abt", "never": True}),
)
"""Weight, kind and details of what can happen to an open connection."""
LOGIN_FAULTS: Final[tuple[tuple[int, str, dict[str, Any]], ...]] = (
    *(
        (1, "failure", {"code": code})
        for code in (400, 403, 405, 406, 409, 413, 415, 418, 429, 501, 503, 504)
    ),
    (2, "failure", {"code": 500}),
    (1, "failure", {"code": 402, "attrs": {"expire": "120"}}),
    (1, "failure", {"code": 500, "attrs": {"reason": "tea"}}),
    (1, "iq", {"xmlns": "passive", "never": True}),
    (2, "http", {"code": 503}),
    (1, "http", {"code": 403}),
    (1, "http", {"never": True}),
    (1, "noise", {"mode": "garbage"}),
    (1, "noise", {"mode": "silent"}),
    (1, "noise", {"mode": "expired"}),
)
"""The same for what meets the next login."""
DIAL_ERRORS: Final[tuple[Callable[[], Exception], ...]] = (
    lambda: ConnectionRefusedError(111, "Connection refused"),
    lambda: OSError(113, "No route to host"),
    lambda: TimeoutError("timed out"),
)


@dataclass
class Books:
    """What was done, to be compared with what came of it.

    Attributes:
        faults: how many of each kind.
        sent_to: messages of phones, id and text, by session.
        void: ids of those that went to a device that is no more.
        sent_by: texts of a session to one phone, in order.
        orders: the log's newest cursor at each order to connect, by session.
    """

    faults: Counter[str] = field(default_factory=Counter)
    sent_to: defaultdict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    void: set[str] = field(default_factory=set)
    sent_by: defaultdict[tuple[str, str], list[str]] = field(default_factory=lambda: defaultdict(list))
    orders: defaultdict[str, list[tuple[int, float]]] = field(default_factory=lambda: defaultdict(list))


class Walk:
    """Twenty sessions on a random walk; `run` it once."""

    def __init__(self, machine: Machine, sessions: int, seed: int) -> None:
        self.machine = machine
        self.sandbox = machine.sandbox
        self.books = Books()
        self.names = [f"s{n:02}" for n in range(sessions)]
        self.numbers = {name: str(FIRST_NUMBER + n) for n, name in enumerate(self.names)}
        self.phones = {name: self.sandbox.phone(number) for name, number in self.numbers.items()}
        self.friends: list[PhoneHandle] = [self.sandbox.phone(str(FIRST_FRIEND + n)) for n in range(FRIENDS)]
        self._random = random.Random(seed)
        self._texts = 0

    async def pair_all(self) -> None:
        for name in self.names:
            self._order(name)
            await self.machine.pair(self.phones[name], name)

    async def run(self, faults: int) -> None:
        while self.books.faults.total() < faults:
            await trio.sleep(self._random.expovariate(1 / PACE_S))
            name = self._random.choice(self.names)
            await self._step(name)
            self._let_go()
            self._observe()

    async def settle(self) -> None:
        """Everything is well again, and everything has arrived."""
        self.sandbox.core.world.faults.clear()
        self.machine.routes.clear()
        for name in self.names:
            await self._bring_up(name)
        for name in self.names:
            if (device := self._device(name)).link is not None:
                self.sandbox.fault("resume", device.key)
        self._let_go()
        for name in self.names:
            await self._sent(name)
            device = self._device(name)
            await self.sandbox.wait(lambda device=device: not device.queue, SETTLE_S)
        await trio.sleep(200)

    async def _sent(self, name: str) -> None:
        """Nothing is on its way out; what a change of the credentials caught there is held for the operator."""
        with trio.move_on_after(SETTLE_S):
            while waiting := await self._outbox(name, "queued", "sending"):  # noqa: ASYNC110 - on a clock that jumps
                await trio.sleep(10)
            return
        raise AssertionError(f"{name} does not send {waiting}; it is {await self.machine.status(name)}")

    async def _outbox(self, name: str, *states: str) -> list[OutboxRow]:
        return await self.machine.supervisor(name).state.outbox(states)

    async def held(self, name: str) -> set[str]:
        """Texts of messages of which nobody knows whether they had left."""
        return {str(row.payload["text"]) for row in await self._outbox(name, "held")}

    # One step.

    async def _step(self, name: str) -> None:
        draw = self._random.random()
        if draw < 0.25:
            await self._talk(name)
        elif draw < 0.30:
            await self._act_as_operator(name)
        else:
            await self._break(name)
        resting = [one for one in self.names if self._vitals(one).status in AT_REST]
        if resting and self._random.random() < 0.3:
            await self._connect(self._random.choice(resting))
        if len(self.sandbox.core.world.faults.report()) > 100:
            self.sandbox.core.world.faults.clear()

    async def _talk(self, name: str) -> None:
        friend = self._random.choice(self.friends)
        self._texts += 1
        text = f"{name} {self._texts}"
        if self._random.random() < 0.5:
            alone = self._device(name) is None
            sent = await friend.send(self.numbers[name], text)
            self.books.sent_to[name][sent.id] = text
            if alone:
                self.books.void.add(sent.id)
        elif self.machine.supervisor(name).paired:
            await self.machine.send(friend.number, text, name)
            self.books.sent_by[name, friend.number].append(text)

    async def _break(self, name: str) -> None:
        device = self._device(name)
        if device is None or not self.machine.supervisor(name).paired:
            await self._while_unpaired(name)
        elif device.link is not None and not device.link.closed:
            self._break_live(device)
        elif self._random.random() < 0.3:
            self._break_dial(name)
        else:
            self._arm(LOGIN_FAULTS, device.key)

    def _break_live(self, device: Any) -> None:
        if self._random.random() < 0.05:
            device.link.send(RawFrame(os.urandom(40)))
            self.books.faults["garbage"] += 1
            return
        self._arm(LIVE_FAULTS, device.key)

    def _arm(self, faults: tuple[tuple[int, str, dict[str, Any]], ...], key: str) -> None:
        weights = [weight for weight, _, _ in faults]
        _, kind, details = self._random.choices(faults, weights)[0]
        target = None if kind in ("http", "noise") else key
        self.sandbox.fault(kind, target, **details)
        self.books.faults[kind] += 1

    def _break_dial(self, name: str) -> None:
        """The next dial fails, or reaches somebody who says nothing."""
        error = self._random.choice([*DIAL_ERRORS, None])

        async def once(who: str, endpoint: Endpoint) -> trio.abc.Stream:
            self.machine.routes.pop(who, None)
            if error is None:
                return await self.machine.to_nobody(who, endpoint)
            await trio.lowlevel.checkpoint()
            raise error()

        self.machine.routes[name] = once
        self.books.faults["dial"] += 1

    async def _while_unpaired(self, name: str) -> None:
        """Sooner or later somebody scans; or the connection is lost, or the codes run out."""
        if self._random.random() < 0.5:
            await self._scan(name)
            return
        offered = [link for link in self.sandbox.core.world.links.values() if link.device is None]
        if offered:
            self._random.choice(offered).cut()
            self.books.faults["cut"] += 1

    async def _scan(self, name: str) -> None:
        code = self._vitals(name).qr
        if code is None:
            return
        await self._forget_old_device(name)
        with suppress(SandboxError):  # the code, or its connection, is over by now
            await self.phones[name].scan(code.qr)

    async def _forget_old_device(self, name: str) -> None:
        """What waits for it will never be read."""
        device = self._device(name)
        if device is not None:
            self.sandbox.core.pairing.remove(device)
        _, bodies = await self.told(name)
        self.books.void.update(self.books.sent_to[name].keys() - bodies.keys())

    async def told(self, name: str) -> tuple[Counter[str], dict[str, str]]:
        """How often each message was told of, by id, and the texts of those that could be read, at once or later."""
        news = await self.machine.events("message:new", "message:update")
        own = [event for event in news if event.session == name and not event.data["fromMe"]]
        counted = Counter(event.data["messageId"] for event in own if event.type == "message:new")
        return counted, {event.data["messageId"]: event.data["body"] for event in own if "body" in event.data}

    def _let_go(self) -> None:
        """A server that fell silent notices at last that its client is gone."""
        gone = {number for name, number in self.numbers.items() if not self.machine.dials.live[name]}
        for link in self.sandbox.core.world.links.values():
            device = link.device
            if device is None or device.link is not link or device.account.number in gone:
                link.stalled_reading = link.stalled_sending = link.stalled_queue = False
                link.wake()

    # The operator.

    async def _act_as_operator(self, name: str) -> None:
        manager = self.machine.manager
        kind = self._random.choice(("connect", "connect", "disconnect", "hold"))
        if kind == "connect":
            await self._connect(name)
        elif kind == "disconnect":
            await manager.disconnect(name)
        else:
            await manager.hold(name)
            await trio.sleep(self._random.random() * 5)
            self._order(name)
            await manager.release(name)

    async def _connect(self, name: str) -> None:
        self._order(name)
        await self.machine.manager.connect(name)

    def _order(self, name: str) -> None:
        self.books.orders[name].append((self.machine.newest(), trio.current_time()))

    async def _bring_up(self, name: str) -> None:
        """Connected and paired, whatever it takes."""
        with trio.fail_after(SETTLE_S):
            while not is_ready(await self.machine.status(name)):
                status = self._vitals(name).status
                if status in AT_REST:
                    await self._connect(name)
                elif status == "pairing":
                    await self._scan(name)
                await trio.sleep(5)

    # Looking.

    def _vitals(self, name: str) -> Vitals:
        return self.machine.supervisor(name).vitals

    def _device(self, name: str) -> Any:
        companions = self.phones[name].phone.account.companions
        return companions[-1] if companions else None

    def _observe(self) -> None:
        """What must be true at any time."""
        assert self.machine.dials.most <= 1, "two connections of one session"
        for name in self.names:
            supervisor = self.machine.supervisor(name)
            status = supervisor.vitals.status
            assert status in STATES
            assert not self.machine.dials.live[name] or status in LIVE, (name, status)
            if supervisor.vitals.next_attempt_ms is not None:
                assert status in ("backoff", "failed"), (name, status)


class Judge:
    """Compares the books with what came of it."""

    def __init__(self, walk: Walk) -> None:
        self.walk = walk
        self.machine = walk.machine

    async def judge(self) -> None:
        await self.machine.check_transitions()
        await self.check_received()
        await self.check_sent()
        await self.check_dials()

    async def check_received(self) -> None:
        """Exactly once; never, or once, for what went to a device that is gone."""
        for name in self.walk.names:
            counted, bodies = await self.walk.told(name)
            sent, void = self.walk.books.sent_to[name], self.walk.books.void
            assert [key for key, count in counted.items() if count > 1] == [], f"{name} told of them twice"
            assert counted.keys() - sent.keys() == set(), f"nobody sent these to {name}"
            lost = {key: text for key, text in sent.items() if key not in void and bodies.get(key) != text}
            assert lost == {}, f"{name} did not read them"
            assert all(sent[key] == body for key, body in bodies.items())

    async def check_sent(self) -> None:
        """Once, and in the order in which they were sent; held ones once or never."""
        for name in self.walk.names:
            held = await self.walk.held(name)
            for friend in self.walk.friends:
                own = [one.text or "" for one in friend.messages() if not one.from_me]
                got = [text for text in own if text.startswith(f"{name} ")]
                sent = self.walk.books.sent_by[name, friend.number]
                assert got == [text for text in sent if text in got or text not in held], (
                    name,
                    friend.number,
                )

    async def check_dials(self) -> None:
        """Each connection was due by the policy or ordered, and there were never many in a short time."""
        statuses: defaultdict[str, list[EventView]] = defaultdict(list)
        for event in await self.machine.events("connection:status"):
            # A dial is announced by `connecting` alone; what allows it is the state before.
            if event.session is not None and (event.data["status"] != "connecting" or "cause" in event.data):
                statuses[event.session].append(event)
        dials = self.machine.dials
        for name in self.walk.names:
            own = [
                (at, mark) for (who, at), mark in zip(dials.begun, dials.marks, strict=True) if who == name
            ]
            self._check_permits(name, own, statuses[name])
            self._check_rate([at for at, _ in own], [at for _, at in self.walk.books.orders[name]])

    def _check_permits(self, name: str, dials: list[tuple[float, int]], statuses: list[EventView]) -> None:
        used: EventView | None = None
        orders = list(self.walk.books.orders[name])
        for at, mark in dials:
            before = [event for event in statuses if event.cursor <= mark]
            permit = before[-1] if before else None
            if permit is not None and permit is not used and _permits(permit, at):
                used = permit
                orders = [order for order in orders if order[1] > at]
                continue
            ordered = [order for order in orders if order[1] <= at]
            assert ordered, f"{name} dialed at {at} although nothing asked for it; last it was told {permit}"
            orders = [order for order in orders if order[1] > at]
            used = permit

    def _check_rate(self, dials: list[float], orders: list[float]) -> None:
        """Three at once and the growing delays before, and once more after a stable time between."""
        for window_s, most in ((1.0, 4), (60.0, 14)):
            for at in dials:
                many = sum(1 for other in dials if at <= other < at + window_s)
                asked = sum(1 for other in orders if at - window_s <= other < at + window_s)
                assert many <= most + asked, (at, many, window_s)
        assert all(a <= b for a, b in pairwise(dials))


def _permits(event: EventView, at: float) -> bool:
    """Whether a state, as it was entered, lets a connection begin at that time."""
    due = event.data.get("nextAttemptAt")
    if event.data["status"] in ("backoff", "failed"):
        # A quick retry may draw no delay at all, and then there is no time to tell.
        at_once = due is None and event.data["status"] == "backoff"
        return at_once or (due is not None and START_S + at >= due / 1000 - 0.01)
    return event.data["status"] in ("connecting", "pairing") and "cause" in event.data
