"""The link against the sandbox on loopback: a phone scans, the device logs in, and everything that can go wrong."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from tests.link.memory_store import MemoryStore
from waD.link import startup
from waD.link.acks import ack
from waD.link.connection import Connection, LinkSettings, connect
from waD.link.credentials import new_credentials
from waD.link.endpoint import Endpoint
from waD.link.engine import EngineSettings
from waD.link.errors import Disconnected
from waD.link.infos import Dirty
from waD.link.login import LoginResult, login, logout
from waD.link.offline import OfflinePhase
from waD.link.pairing import QrCode, pair
from waD.link.payload import ClientProfile, payload
from waD.link.prekeys import HIGH_WATERMARK
from waD.sandbox import Sandbox, run_sandbox
from waD.sandbox.environment import Settings
from waD.wire.jid import SERVER
from waD.wire.node import Node

PROFILE = ClientProfile()
IMPATIENT = LinkSettings(EngineSettings(close_grace_s=0.2))


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Session:
    """One device of one account: its store, and what a session does with the link."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.store = MemoryStore(new_credentials(os.urandom, now_ms()))
        self.phase = OfflinePhase()
        self.received: list[Node] = []
        self.result: LoginResult | None = None
        self.drained = trio.Event()

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(self.sandbox.url, self.sandbox.root_key, self.sandbox.ca_file)

    def connect(self, settings: LinkSettings | None = None) -> Any:
        credentials = self.store.now
        return connect(self.endpoint, credentials, payload(credentials, PROFILE), settings, random=os.urandom)

    async def pair(self, scan: Any) -> Any:
        """Pair with whatever `scan` does with the first code; returns the cause of the end."""

        async def on_qr(code: QrCode) -> None:
            if code.number == 1:
                await scan(code.text)

        try:
            async with self.connect() as connection:
                await pair(connection, self.store, PROFILE, random=os.urandom, on_qr=on_qr, now_ms=now_ms)
        except Disconnected as end:
            return end.cause

    @asynccontextmanager
    async def open(self, settings: LinkSettings | None = None) -> AsyncIterator[Connection]:
        """Log in, with a task that takes and acknowledges stanzas; open for the life of the block."""
        self.phase, self.drained = OfflinePhase(), trio.Event()
        async with self.connect(settings) as connection, trio.open_nursery() as nursery:
            nursery.start_soon(self._take, connection)
            self.result = await login(connection, self.store, random=os.urandom, now_ms=now_ms)
            for node in self.phase.opened(trio.current_time()):
                await connection.send(node)
            yield connection
            nursery.cancel_scope.cancel()

    async def _take(self, connection: Connection) -> None:
        async for node in connection.stanzas:
            self.received.append(node)
            for request in self.phase.received(node, trio.current_time()):
                await connection.send(request)
            if "offline" in node.attrs or node.tag in ("message", "notification", "receipt"):
                answer = ack(node, self.store.now.me_pn)
                assert answer is not None
                await connection.send(answer)
            if self.phase.done:
                self.drained.set()


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with run_sandbox() as running:
        yield running


@pytest.fixture
async def paired(sandbox: Sandbox) -> Session:
    session = Session(sandbox)
    assert (await session.pair(sandbox.phone(name="Alice").scan)).id == "restart"
    return session


async def cause_of(session: Session, work: Any) -> Any:
    """How an open session ends that does this work and then waits."""
    try:
        async with session.open(IMPATIENT) as connection:
            await work(connection)
            await trio.sleep_forever()
    except Disconnected as end:
        return end.cause


# Pairing and login.


async def test_pair_restart_log_in_upload_active(sandbox: Sandbox) -> None:
    phone = sandbox.phone(name="Alice")
    session = Session(sandbox)
    before = session.store.now
    found = await session.pair(phone.scan)
    assert (found.id, found.code, found.reached, found.stanza.tag) == ("restart", 515, True, "stream:error")
    now = session.store.now
    assert now.registered
    assert (now.noise, now.identity) == (before.noise, before.identity)
    assert str(now.me_pn.bare) == phone.jid
    assert str(now.me_lid.bare) == phone.lid
    assert now.lid_migrated
    device = sandbox.device(phone.number)
    assert now.me_pn == device.pn
    assert now.account_key == phone.phone.account.phone.record.keys.identity

    async with session.open() as connection:
        with trio.fail_after(10.0):
            await session.drained.wait()
        assert session.result is not None
        assert (session.result.first, session.result.clock_is_off) == (True, False)
        assert session.store.now.server_has_prekeys
        assert len(session.store.keys) == HIGH_WATERMARK
        messages = [node for node in session.received if node.tag == "message"]
        assert len(messages) == session.phase.count == 4
        assert all(node.attrs["category"] == "peer" for node in messages)
        assert connection.healthy
        assert device.link is not None
        assert device.link.active
        digest = await connection.request(Node("iq", {"xmlns": "encrypt", "type": "get"}, [Node("digest")]))
        assert digest.child("digest") is not None


async def test_the_second_login_is_shorter(paired: Session) -> None:
    for number in (1, 2, 3):
        async with paired.open():
            await paired.drained.wait()
        assert paired.result is not None
        assert paired.result.first is (number == 1)
        assert paired.store.now.login_counter == number
    assert len(paired.store.keys) == HIGH_WATERMARK
    assert len([node for node in paired.received if node.tag == "message"]) == 4


async def test_over_tls(tmp_path: Path) -> None:
    async with run_sandbox(tls=True, state=tmp_path) as sandbox:
        session = Session(sandbox)
        assert session.endpoint.tls
        assert (await session.pair(sandbox.phone(name="Alice").scan)).id == "restart"
        async with session.open():
            await session.drained.wait()


async def test_tls_without_the_authority_is_refused(tmp_path: Path) -> None:
    async with run_sandbox(tls=True, state=tmp_path) as sandbox:
        session = Session(sandbox)
        sandbox.ca_file, known = None, sandbox.ca_file
        assert known is not None
        endpoint = Endpoint(f"wss://{sandbox.host}:{sandbox.port}/ws/chat", sandbox.root_key)
        with pytest.raises(Disconnected) as caught:
            async with connect(endpoint, session.store.now, b"", random=os.urandom):
                raise AssertionError
        assert (caught.value.cause.id, caught.value.cause.code) == ("tls", 495)


async def test_another_root_key_is_refused(sandbox: Sandbox) -> None:
    session = Session(sandbox)
    endpoint = Endpoint(sandbox.url)
    with pytest.raises(Disconnected) as caught:
        async with connect(endpoint, session.store.now, b"", random=os.urandom):
            raise AssertionError
    assert caught.value.cause.id == "noise_fail"


async def test_a_code_is_scanned_once(sandbox: Sandbox) -> None:
    phone, other = sandbox.phone(name="Alice"), sandbox.phone(name="Bob")
    session = Session(sandbox)
    errors: list[str] = []

    async def scan(text: str) -> None:
        await phone.scan(text)
        try:
            await other.scan(text)
        except Exception as error:
            errors.append(str(error))

    assert (await session.pair(scan)).id == "restart"
    assert len(errors) == 1
    assert session.store.now.me_pn is not None
    assert str(session.store.now.me_pn.bare) == phone.jid


async def test_four_companions(sandbox: Sandbox) -> None:
    phone = sandbox.phone(name="Alice")
    devices = set()
    for _ in range(4):
        session = Session(sandbox)
        assert (await session.pair(phone.scan)).id == "restart"
        assert session.store.now.me_pn is not None
        devices.add(session.store.now.me_pn.device)
    assert len(devices) == 4


# Everything after login.


async def test_start_up_work(paired: Session) -> None:
    async with paired.open() as connection:
        await paired.drained.wait()
        props = await startup.fetch_props(connection)
        assert props.values
        assert (await startup.fetch_blocklist(connection)).jids == ()
        assert (await startup.fetch_privacy(connection))["last"] == "all"
        await startup.clean_dirty(connection, Dirty("groups", None))
        await startup.announce_session(connection, now_ms())
        assert await startup.announce_presence(connection, "Alice", available=True)
        await connection.request(Node("iq", {"xmlns": "w:p", "type": "get"}))
    assert paired.sandbox.core.world.complaints() == []


async def test_backlog_in_batches(sandbox: Sandbox) -> None:
    """A server in strict credit mode, and more than two batches."""
    async with run_sandbox(settings=Settings(batch=True)) as strict:
        alice, bob = strict.phone(name="Alice"), strict.phone(name="Bob")
        session = Session(strict)
        await session.pair(alice.scan)
        async with session.open():
            # The phone's first messages make the queue that a preview did not announce.
            await trio.testing.wait_all_tasks_blocked()
        ids = await bob.send_many(alice.number, 450)
        session.received.clear()
        async with session.open():
            with trio.fail_after(30.0):
                await session.drained.wait()
        got = [str(node.attrs["id"]) for node in session.received if node.tag == "message"]
        assert got[-450:] == ids
        assert session.phase.announced == session.phase.count == len(got)
        assert not session.phase.timed_out


# Ends.


async def test_logout(paired: Session) -> None:
    me = paired.store.now.me_pn
    assert me is not None
    confirmed: list[bool] = []

    async def leave(connection: Connection) -> None:
        confirmed.append(await logout(connection, me))

    found = await cause_of(paired, leave)
    assert (found.id, found.was_open, found.reached) == ("unlinked", True, True)
    assert confirmed == [True]
    assert (await cause_of(paired, leave)).id == "f401"


@pytest.mark.parametrize(
    ("fault", "cause_id"),
    [
        ({"kind": "close"}, "eof"),
        ({"kind": "close", "frame": False}, "eof"),
        ({"kind": "stream-error", "code": 503}, "stream_503"),
        ({"kind": "stream-error", "code": 515}, "restart"),
        ({"kind": "stream-error", "code": 516}, "force_logout"),
        ({"kind": "stream-error", "child": "xml-not-well-formed"}, "stream_xml"),
        ({"kind": "stream-error", "child": "ack", "attrs": {"class": "message", "id": "X"}}, "stream_ack"),
        ({"kind": "replaced"}, "replaced"),
        ({"kind": "unlink"}, "unlinked"),
        ({"kind": "stream-end"}, "stream_end"),
        ({"kind": "ib", "child": "downgrade_webclient"}, "f411"),
    ],
)
async def test_ends_of_an_open_session(paired: Session, fault: dict[str, Any], cause_id: str) -> None:
    me = paired.store.now.me_pn
    assert me is not None

    async def order(_: Connection) -> None:
        await paired.drained.wait()
        paired.sandbox.fault(target=me.user, **fault)

    with trio.fail_after(10.0):
        found = await cause_of(paired, order)
    assert (found.id, found.was_open, found.reached) == (cause_id, True, True)


@pytest.mark.parametrize("code", [400, 401, 402, 403, 405, 406, 409, 415, 429, 500, 503])
async def test_refused_logins(paired: Session, code: int) -> None:
    paired.sandbox.fault("failure", code=code, attrs={"expire": "60"})
    found = await cause_of(paired, None)
    assert (found.id, found.code, found.was_open, found.reached) == (f"f{code}", code, False, True)
    async with paired.open():
        await paired.drained.wait()


@pytest.mark.parametrize("code", [405, 503])
async def test_refused_pairings(sandbox: Sandbox, code: int) -> None:
    session = Session(sandbox)
    sandbox.fault("failure", code=code)
    found = await session.pair(None)
    assert (found.id, found.reached) == (f"f{code}", True)
    assert not session.store.now.registered


@pytest.mark.parametrize(
    ("fault", "cause_id"),
    [
        ({"kind": "http", "code": 503}, "http"),
        ({"kind": "http", "code": 403}, "http"),
        ({"kind": "http", "never": True}, "refused"),
        ({"kind": "noise", "mode": "garbage"}, "noise_fail"),
        ({"kind": "noise", "mode": "bad-certificate"}, "noise_fail"),
        ({"kind": "noise", "mode": "expired"}, "noise_fail"),
    ],
)
async def test_faults_before_the_handshake(paired: Session, fault: dict[str, Any], cause_id: str) -> None:
    paired.sandbox.fault(**fault)
    found = await cause_of(paired, None)
    assert (found.id, found.was_open, found.reached) == (cause_id, False, False)
    async with paired.open():
        await paired.drained.wait()


async def test_a_silent_handshake(paired: Session) -> None:
    paired.sandbox.fault("noise", mode="silent")
    settings = LinkSettings(EngineSettings(hello_timeout_s=0.2))
    with pytest.raises(Disconnected) as caught:
        async with paired.connect(settings):
            raise AssertionError
    assert caught.value.cause.id == "noise_timeout"


async def test_a_refused_upload_is_made_up_for_later(paired: Session) -> None:
    paired.sandbox.fault("iq", xmlns="encrypt", code=503)
    async with paired.open():
        assert not paired.store.now.server_has_prekeys
    keys = set(paired.store.keys)
    async with paired.open():
        assert paired.store.now.server_has_prekeys
        await paired.drained.wait()
    assert keys <= set(paired.store.keys)


async def test_two_connections_of_one_device(paired: Session) -> None:
    ends: list[str] = []
    first_open = trio.Event()

    async def first() -> None:
        async def wait(_: Connection) -> None:
            first_open.set()

        ends.append((await cause_of(paired, wait)).id)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(first)
        await first_open.wait()
        second = Session(paired.sandbox)
        second.store = paired.store
        async with second.open() as connection:
            await connection.request(Node("iq", {"xmlns": "w:p", "type": "get", "to": SERVER}))
    assert ends == ["replaced"]
