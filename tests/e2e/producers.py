"""How each row of the disconnect table comes about for real: by the server, the network, the store, or an order.

What no server can do, such as a fault of this program, is done at the nearest seam there is.
"""

from __future__ import annotations

import os
import socket
import sqlite3
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal

from tests.e2e.town import ALICE, BOB, NAME, Town
from tests.link import kit
from tests.link.kit import ServerLink
from waD.e2ee import adv
from waD.link.causes import cause
from waD.proto import adv_pb2
from waD.sandbox.accounts import Account
from waD.sandbox.links import RawFrame
from waD.session.table import ROWS
from waD.store.engine import CommitUnit, Job
from waD.wire.node import Node
from waD.wire.transport import MAX_COUNTER

Stage = Literal["open", "login", "pairing", "unlinked", "start"]
"""When it is produced: on a stable connection; before a connection is made; while a new session, or one that was
unlinked, shows a code; or while the daemon is down."""
Act = Callable[[Town], Awaitable[object]]
ROW: Final = -1
"""The number is the row's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Producer:
    """One way in which a row comes about.

    Attributes:
        row: id of the row.
        label: tells ways of the same row apart.
        act: does it, at the next occasion once.
        stage: when to act.
        code: number that has to be recorded.
        reached: the Noise handshake is completed.
        opens: the connection becomes open before it ends.
        before: causes of the ends that have to come first.
        wait_s: what the server says how long to wait.
        handled_as: the row that says what is done, when a number makes it another one.
    """

    row: str
    act: Act
    stage: Stage
    label: str = ""
    code: int | None = ROW
    reached: bool = True
    opens: bool = False
    before: tuple[str, ...] = ()
    wait_s: int = 0
    handled_as: str = ""

    @property
    def number(self) -> int | None:
        """The number that has to be recorded."""
        return ROWS[self.row].code if self.code == ROW else self.code

    @property
    def was_open(self) -> bool:
        """Whether the connection that ends had been open."""
        return self.stage == "open" or self.opens

    def __str__(self) -> str:
        return f"{self.row}-{self.label}" if self.label else self.row


PRODUCERS: Final[defaultdict[str, list[Producer]]] = defaultdict(list)
"""All ways by row; the first one is the usual one."""
EXCEPTIONS: Final[list[Producer]] = []
"""Numbers that are handled as another row says."""


def produces(row: str, stage: Stage, **more: Any) -> Callable[[Act], Act]:
    """Register a way in which a row comes about."""

    def register(act: Act) -> Act:
        add(row, stage, act, **more)
        return act

    return register


def add(row: str, stage: Stage, act: Act, **more: Any) -> None:
    """Register a way; one with `handled_as` is an exception to its row."""
    producer = Producer(row=row, stage=stage, act=act, **more)
    (EXCEPTIONS if producer.handled_as else PRODUCERS[row]).append(producer)


def at_next(kind: str, **details: object) -> Act:
    """A fault that waits for the next connection."""

    async def act(town: Town) -> None:
        town.fault(kind, **details)

    return act


def at_once(kind: str, **details: object) -> Act:
    """A fault on the open connection."""

    async def act(town: Town) -> None:
        town.sandbox.fault(kind, town.device.key, **details)

    return act


# Before WhatsApp is reached.

_unreached = partial(produces, stage="login", reached=False)


@_unreached("dns")
async def _no_such_name(town: Town) -> None:
    town.dial_for_real("ws://does-not-exist.invalid/ws/chat")


def _bound(town: Town, *, listening: bool) -> str:
    """The URL of a port with somebody, or nobody, behind it who never answers."""
    one = socket.socket()
    town.closing.callback(one.close)
    one.bind(("127.0.0.1", 0))
    if listening:
        one.listen(16)
    return f"127.0.0.1:{one.getsockname()[1]}/ws/chat"


@_unreached("refused")
async def _nobody_listens(town: Town) -> None:
    town.dial_for_real(f"ws://{_bound(town, listening=False)}")


add("refused", "login", at_next("http", never=True), reached=False, label="cut")


@_unreached("dial_timeout")
async def _silent_listener(town: Town) -> None:
    town.dial_for_real(f"ws://{_bound(town, listening=True)}")


@_unreached("tls")
async def _unknown_authority(town: Town) -> None:
    town.dial_for_real((await town.tls_server()).url)


add("http", "login", at_next("http", code=403), reached=False, code=1403)
for _status in (408, 425, 429, 500, 503, 599):
    add("http", "login", at_next("http", code=_status), reached=False, label=str(_status), code=1000 + _status,
        handled_as="refused")  # fmt: skip
add("noise_timeout", "login", at_next("noise", mode="silent"), reached=False)
for _mode in ("garbage", "bad-certificate", "expired"):
    add("noise_fail", "login", at_next("noise", mode=_mode), reached=False, label=_mode)

# The connection itself.

add("eof", "open", at_once("close"))
add("eof", "open", at_once("close", frame=False), label="cut")


@produces("eof_fresh", "login", before=("eof", "eof"))
async def _closes_after_the_handshake(town: Town) -> None:
    async def script(link: ServerLink) -> None:
        await link.shake_hands()
        await link.close()

    town.play(script)


add("dead_socket", "open", at_once("stall", mode="both"))
add("dead_socket", "open", at_once("stall", mode="send"), label="deaf-and-dumb")


@produces("login_timeout", "login")
async def _answers_pings_only(town: Town) -> None:
    async def script(link: ServerLink) -> None:
        await link.shake_hands()
        while True:
            await link.send(kit.result_of(await link.expect("iq", xmlns="w:p")))

    town.play(script)


add("login_timeout", "login", at_next("iq", xmlns="passive", code=500), label="not-active")


@produces("deaf", "open")
async def _never_acks(town: Town) -> None:
    town.sandbox.fault("drop-ack", town.device.key)
    await town.machine.send(BOB, "is anybody there", NAME)


@produces("deaf", "open", label="requests")
async def _never_answers(town: Town) -> None:
    town.sandbox.fault("iq", town.device.key, xmlns="usync", count=0, never=True)
    for number in range(3):
        await town.machine.send(f"1555000090{number}", "is anybody there", NAME)


@produces("frame", "open")
async def _not_authentic(town: Town) -> None:
    town.link.send(RawFrame(os.urandom(60)))


@produces("counter", "open")
async def _used_up(town: Town) -> None:
    link: Any = town.machine.supervisor(NAME).link
    link._engine._transport._sent = MAX_COUNTER
    await town.machine.send(BOB, "one too many", NAME)


# The end of the stream.

add("stream_end", "open", at_once("stream-end"))
add("restart", "open", at_once("stream-error", code=515))
add("force_logout", "open", at_once("stream-error", code=516))
add("unlinked", "open", at_once("unlink"))
add("unlinked_other", "open", at_once("stream-error", conflict="other"), code=None)
add("unlinked_other", "open", at_once("stream-error", conflict="device_removed"), code=None, label="no-code")
add("unlinked_other", "open", at_once("stream-error", conflict="other", code=401), code=401, label="401",
    handled_as="unlinked")  # fmt: skip
add("replaced", "open", at_once("replaced"))
add("replaced", "open", at_once("stream-error", code=409), label="409")
add("stream_503", "open", at_once("stream-error", code=503))
add("stream_429", "open", at_once("stream-error", code=429))
add("stream_500", "open", at_once("stream-error", code=500))
for _code in (413, 414):
    add("stream_cat", "open", at_once("stream-error", code=_code), code=_code, label=str(_code))
_ACK: Final = {"class": "message", "id": "3EB0"}
add("stream_ack", "open", at_once("stream-error", child="ack", attrs=_ACK), code=None)
add("stream_xml", "open", at_once("stream-error", child="xml-not-well-formed"), code=None)
add("stream_other", "open", at_once("stream-error", code=599), code=599)
add("stream_other", "open", at_once("stream-error", child="surprise"), code=None, label="child")
for _code, _row in ((401, "unlinked"), (403, "f403"), (418, "stream_429"), (499, "stream_429")):
    add("stream_other", "open", at_once("stream-error", code=_code), code=_code, label=str(_code),
        handled_as=_row)  # fmt: skip


@produces("stream_500", "login", label="before-open")
async def _error_instead_of_success(town: Town) -> None:
    async def script(link: ServerLink) -> None:
        await link.shake_hands()
        await link.send(kit.stream_error(500), Node("xmlstreamend"))
        await link.close()

    town.play(script)


# Refused at login.

for _code in (400, 403, 405, 406, 409, 411, 413, 414, 415, 416, 418, 429, 500, 501, 503):
    add(f"f{_code}", "login", at_next("failure", code=_code))


@produces("f401", "login")
async def _unlinked_meanwhile(town: Town) -> None:
    town.sandbox.core.pairing.remove(town.device)


add("f402", "login", at_next("failure", code=402, attrs={"code": "101", "expire": "3600"}), wait_s=3600)
add("f402", "login", at_next("failure", code=402), wait_s=86_400, label="no-end")
add("f411", "open", at_once("ib", child="downgrade_webclient"), label="ib")
add("f5xx", "login", at_next("failure", code=504), code=504)
add("f5xx", "login", at_next("failure", code=599), code=599, label="599")
add("f_other", "login", at_next("failure", code=499), code=499)
add("f_other", "login", at_next("failure", code=500, attrs={"reason": "tea"}), code=None, label="unreadable")

# Pairing.


@produces("qr_exhausted", "pairing")
async def _nobody_scans(_: Town) -> None:
    """Time passes by itself."""


def _signing(town: Town, spoil: Callable[[bytes, bytes], bytes]) -> None:
    """The next proof of the phone is spoilt: (proof, secret of the code) to proof."""
    phones = town.sandbox.core.phones
    sign = phones.sign_companion

    def spoilt(account: Account, identity: bytes, key_index: int, secret: bytes) -> bytes:
        return spoil(sign(account, identity, key_index, secret), secret)

    town.patch.setattr(phones, "sign_companion", spoilt)


@produces("pair_hmac", "pairing")
async def _another_secret(town: Town) -> None:
    def spoil(proof: bytes, _: bytes) -> bytes:
        outer = adv_pb2.ADVSignedDeviceIdentityHMAC.FromString(proof)
        outer.hmac = adv.account_hmac(bytes(32), outer.details)
        return outer.SerializeToString()

    _signing(town, spoil)
    await town.scan()


@produces("pair_sig", "pairing")
async def _another_signature(town: Town) -> None:
    def spoil(proof: bytes, secret: bytes) -> bytes:
        outer = adv_pb2.ADVSignedDeviceIdentityHMAC.FromString(proof)
        signed = adv_pb2.ADVSignedDeviceIdentity.FromString(outer.details)
        signed.accountSignature = bytes(64)
        outer.details = signed.SerializeToString()
        outer.hmac = adv.account_hmac(secret, outer.details)
        return outer.SerializeToString()

    _signing(town, spoil)
    await town.scan()


@produces("pair_refused", "unlinked")
async def _another_account(town: Town) -> None:
    await town.bob.scan((await town.codes()).qr)


@produces("pair_socket_lost", "pairing")
async def _cut_while_pairing(town: Town) -> None:
    town.link.cut()


@produces("pair_socket_lost", "pairing", label="stream-end")
async def _ended_while_pairing(town: Town) -> None:
    town.link.send(Node("xmlstreamend"))
    town.link.close()


# Here.


@produces("stop", "open")
async def _ordered_down(town: Town) -> None:
    await town.machine.manager.disconnect(NAME)


@produces("logout", "open")
async def _ordered_out(town: Town) -> None:
    done = await town.machine.manager.logout(NAME)
    assert done.unlinked
    assert not town.alice.phone.account.companions


@produces("lease_lost", "open")
async def _taken_over(town: Town) -> None:
    await town.machine.store.attach((await town.row()).id, "another process")
    await town.bob.send(ALICE, "for the other one")


@produces("auth_corrupt", "start", reached=False)
async def _damaged(town: Town) -> None:
    """The daemon is down."""
    with sqlite3.connect(town.directory / "waD.db") as database:
        database.execute("UPDATE wa_auth_snapshots SET snapshot = substr(snapshot, 1, 200)")
    database.close()


def receives(job: Job) -> bool:
    """Whether a job is the commit of a message that came in."""
    return isinstance(job, CommitUnit) and any(kind == "session" for kind, _ in job.unit.items)


@produces("auth_write", "open")
async def _disk_full(town: Town) -> None:
    town.machine.engine.refuses = receives
    await town.bob.send(ALICE, "while the disk is full")


@produces("crash", "login", opens=True)
async def _bug(town: Town) -> None:
    messaging = town.machine.supervisor(NAME).messaging
    tidy = messaging.tidy

    async def stumble() -> None:
        town.patch.setattr(messaging, "tidy", tidy)
        raise RuntimeError("a bug")

    town.patch.setattr(messaging, "tidy", stumble)


@produces("unknown", "open")
async def _unheard_of(town: Town) -> None:
    link = town.machine.supervisor(NAME).link
    assert link is not None
    link.fail(cause("unknown", "something that no other row names"))
