"""The real doors: what the settings become, and whole sessions against the sandbox on loopback."""

from __future__ import annotations

import os
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.session.fakes import settings as session_settings
from waD.config import Health, Messages, Network, Outbox, Settings, load
from waD.control.types import SendRequest, SessionView
from waD.events.log import EventLog
from waD.link.credentials import new_credentials
from waD.link.endpoint import Endpoint
from waD.link.errors import Disconnected
from waD.link.payload import DEFAULT_VERSION
from waD.sandbox import Sandbox, run_sandbox
from waD.sandbox.handles import PhoneHandle
from waD.session.manager import Manager
from waD.session.network import (
    NetworkDoors,
    client_profile,
    endpoint,
    link_settings,
    messaging_settings,
)
from waD.session.version import VersionSource
from waD.session.vitals import Clock
from waD.store.store import StoreSettings, open_store
from waD.wire.certs import ROOT_KEY

# What the settings become.


def with_sections(**sections: object) -> object:
    import dataclasses

    return dataclasses.replace(session_settings(), **sections)  # type: ignore[arg-type]


def test_the_endpoint() -> None:
    assert endpoint(session_settings()).url == "wss://web.whatsapp.com/ws/chat"
    assert endpoint(session_settings()).root_key == ROOT_KEY
    network = Network(url="ws://127.0.0.1:1/x", root_key=bytes(32), proxy="http://p:1", ca_file=Path("/ca"))
    found = endpoint(with_sections(network=network))  # type: ignore[arg-type]
    assert (found.url, found.root_key, found.proxy, found.ca_file) == (
        "ws://127.0.0.1:1/x", bytes(32), "http://p:1", Path("/ca"),
    )  # fmt: skip


def test_the_profile() -> None:
    network = Network(os_name="Linux", device="Firefox", country="DE", full_history=True, push_name="x")
    profile = client_profile(with_sections(network=network), (2, 3000, 1))  # type: ignore[arg-type]
    assert profile.version == (2, 3000, 1)
    assert profile.browser[:2] == ("Linux", "Firefox")
    assert (profile.country, profile.sync_full_history, profile.push_name) == ("DE", True, "x")
    fixed = with_sections(network=Network(version=(2, 3000, 9)))
    assert client_profile(fixed, (2, 3000, 1)).version == (2, 3000, 9)  # type: ignore[arg-type]


def test_the_times() -> None:
    network = Network(dial_timeout_s=1, hello_timeout_s=2, connect_timeout_s=3, query_timeout_s=4, ack_timeout_s=5,
                      keepalive_s=6, keepalive_jitter_s=1)  # fmt: skip
    health = Health(ping_interval_s=60, quiet_s=7, pong_late_s=8, dead_after_s=9)
    link = link_settings(with_sections(network=network, health=health))  # type: ignore[arg-type]
    engine, keepalive = link.engine, link.engine.keepalive
    assert (link.dial_timeout_s, engine.hello_timeout_s, engine.login_timeout_s) == (1, 2, 3)
    assert (engine.query_timeout_s, engine.ack_timeout_s) == (4, 5)
    assert (keepalive.interval_s, keepalive.jitter_s, keepalive.longest_s) == (6, 1, 60)
    assert (keepalive.quiet_s, keepalive.late_s, keepalive.dead_s) == (7, 8, 9)


def test_how_messages_are_handled() -> None:
    found = messaging_settings(
        with_sections(  # type: ignore[arg-type]
            outbox=Outbox(rate=1, new_conversation_interval_s=2, text_limit=3),
            messages=Messages(retries=4, retry_delay_s=0.5, read_receipts=False),
            network=Network(online_on_connect=False),
        )
    )
    assert (found.rate_per_s, found.new_chat_interval_s, found.max_text) == (1, 2, 3)
    assert (found.retries, found.retry_delay_ms) == (4, 500)
    assert (found.send_read_receipts, found.available) == (False, False)


@pytest.mark.parametrize(
    ("network", "asked"),
    [
        (Network(), 1),
        (Network(version=(2, 3000, 9)), 0),
        (Network(url="ws://127.0.0.1:1/ws/chat", root_key=bytes(32)), 0),
    ],
    ids=["WhatsApp", "fixed version", "another server"],
)
async def test_only_whatsapp_itself_is_asked_for_a_newer_version(network: Network, asked: int) -> None:
    proxies: list[str | None] = []

    def fetch(proxy: str | None) -> bytes:
        proxies.append(proxy)
        return f'"client_revision":{DEFAULT_VERSION[2] + 1}'.encode()

    async def dial(_endpoint: Endpoint) -> trio.abc.Stream:
        raise OSError("no network")

    clock = Clock(unix_ms=lambda: 0, jitter=random.random, random=os.urandom)
    settings = with_sections(network=network)
    doors = NetworkDoors(lambda: settings, clock, versions=VersionSource(fetch), dial=dial)
    assert not await doors.newer_version()
    with pytest.raises(Disconnected):
        async with doors.connect(new_credentials(os.urandom), use_routing=True):
            pass
    assert await doors.newer_version() is bool(asked)
    assert len(proxies) == asked


# Whole sessions.


class Town:
    """A daemon's inside: store, log, manager, connected to a sandbox."""

    def __init__(self, sandbox: Sandbox, manager: Manager, log: EventLog) -> None:
        self.sandbox = sandbox
        self.manager = manager
        self.log = log

    async def until(self, name: str, condition: Callable[[SessionView], bool]) -> SessionView:
        with trio.move_on_after(20):
            while True:
                view = await self.manager.status(name)
                if condition(view):
                    return view
                with trio.move_on_after(0.02):
                    await self.log.news.wait()
        page = await self.manager.events(since=0, types=(), session=name, limit=500)
        told = [(event.type, event.data) for event in page.events]
        raise AssertionError(f"not in time: {await self.manager.status(name)}, {told}")

    async def link(self, name: str, phone: PhoneHandle) -> SessionView:
        """Connect a session and scan its code."""
        await self.manager.connect(name)
        with trio.fail_after(20):
            async with self.manager.subscribe(
                since=0, types=("connection:qr",), session=name, follow=True
            ) as codes:
                async for _ in codes:
                    if (code := await self.manager.qr(name)) is not None:
                        break
        assert code is not None
        await phone.scan(code.qr)
        return await self.until(name, is_ready)

    def device(self, phone: PhoneHandle) -> str:
        return f"{phone.number}:{self.sandbox.device(phone.number).id}"


def is_ready(view: SessionView) -> bool:
    return view.state == "open" and view.ready


def config(sandbox: Sandbox, directory: Path) -> Settings:
    path = directory / "waD.toml"
    path.write_text(
        f'[network]\nurl = "{sandbox.url}"\nroot_key = "{sandbox.root_key.hex()}"\n'
        "[reconnect]\nbase = 10\njitter = 10\nslow_base = 1\n[outbox]\nnew_conversation_interval = 0\n"
        "[daemon]\nrestore_spread = 0\n[alerts]\nreconnects = 100\n"
    )
    return load(path, {"HOME": str(directory)})


@asynccontextmanager
async def daemon(sandbox: Sandbox, directory: Path) -> AsyncIterator[Town]:
    settings = config(sandbox, directory)
    clock = Clock(unix_ms=lambda: time.time_ns() // 1_000_000, jitter=random.random, random=os.urandom)

    def doors(name: str) -> NetworkDoors:
        return NetworkDoors(lambda: settings.session(name), clock)

    async with open_store(StoreSettings(path=directory / "state" / "waD.db")) as store:
        log = EventLog(store)
        manager = Manager(store, log, lambda: settings, doors, clock, "test/1")
        async with trio.open_nursery() as nursery:
            await nursery.start(manager.run)
            yield Town(sandbox, manager, log)
            await manager.stop()


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with run_sandbox() as running:
        yield running


async def test_pair_send_receive_and_log_out(sandbox: Sandbox, tmp_path: Path) -> None:
    alice, bob = sandbox.phone(name="Alice"), sandbox.phone(name="Bob")
    async with daemon(sandbox, tmp_path) as town:
        manager = town.manager
        view = await town.link("alerts", alice)
        assert view.paired
        assert view.healthy
        assert view.me_pn is not None
        assert view.me_pn.startswith(alice.number)
        async with manager.subscribe(
            since=None, types=("message:new",), session="alerts", follow=True
        ) as news:
            sent = await manager.send(SendRequest(session="alerts", to=bob.number, text="the disk is full"))
            with trio.fail_after(20):
                done = await manager.wait("alerts", sent.message_id, "delivered")
            assert done.state in ("delivered", "read")
            got = await bob.wait_message(lambda message: message.text == "the disk is full")
            assert got.id == sent.message_id
            await bob.send(alice.number, "on my way")
            with trio.fail_after(20):
                event = await anext(aiter(news))
                while event.data.get("body") != "on my way":
                    event = await anext(aiter(news))
        page = await manager.messages("alerts", chat=bob.number, before=None, limit=10)
        assert {message.body for message in page.messages} == {"the disk is full", "on my way"}
        incoming = next(message for message in page.messages if not message.from_me)
        assert (await manager.mark_read("alerts", bob.number, [incoming.message_id])).marked == 1
        out = await manager.logout("alerts")
        assert out.unlinked
        assert out.session.state == "stopped"
        await sandbox.wait(lambda: not alice.phone.account.companions)


async def test_a_restart_of_the_daemon_needs_no_new_code(sandbox: Sandbox, tmp_path: Path) -> None:
    alice, bob = sandbox.phone(name="Alice"), sandbox.phone(name="Bob")
    async with daemon(sandbox, tmp_path) as town:
        first = await town.link("alerts", alice)
    await bob.send(alice.number, "while you were away")
    async with daemon(sandbox, tmp_path) as town:
        view = await town.until("alerts", is_ready)
        assert view.connection_id == first.connection_id

        with trio.fail_after(20):
            async with town.manager.subscribe(
                since=0, types=("message:new",), session="alerts", follow=True
            ) as news:
                async for event in news:
                    if event.data.get("body") == "while you were away":
                        break


@pytest.mark.parametrize(
    ("kind", "details", "cause"),
    [
        ("close", {}, "eof"),
        ("stream-end", {}, "stream_end"),
        ("stream-error", {"code": 515}, "restart"),
        ("stream-error", {"code": 503}, "stream_503"),
        ("stream-error", {"code": 500}, "stream_500"),
        ("stream-error", {"code": 429}, "stream_429"),
        ("stream-error", {"child": "xml-not-well-formed"}, "stream_xml"),
    ],
)
async def test_it_comes_back_after(
    sandbox: Sandbox, tmp_path: Path, kind: str, details: dict[str, object], cause: str
) -> None:
    alice = sandbox.phone(name="Alice")
    async with daemon(sandbox, tmp_path) as town:
        first = await town.link("alerts", alice)
        sandbox.fault(kind, town.device(alice), **details)
        view = await town.until(
            "alerts",
            lambda view: (
                is_ready(view) and view.last_disconnect is not None and view.last_disconnect.cause == cause
            ),
        )
        assert view.connection_id == first.connection_id
        assert view.me_pn == first.me_pn


@pytest.mark.parametrize("code", [403, 406, 418])
async def test_a_refusal_at_login_never_clears(sandbox: Sandbox, tmp_path: Path, code: int) -> None:
    alice = sandbox.phone(name="Alice")
    async with daemon(sandbox, tmp_path) as town:
        await town.link("alerts", alice)
        sandbox.fault("failure", town.device(alice), code=code, count=0)
        sandbox.fault("close", town.device(alice))
        view = await town.until(
            "alerts", lambda v: v.last_disconnect is not None and v.last_disconnect.code == code
        )
        assert view.paired
        assert view.state in ("backoff", "failed")
        assert view.hint


async def test_unlinked_by_the_phone_a_new_code_is_shown_and_the_history_stays(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    alice, bob = sandbox.phone(name="Alice"), sandbox.phone(name="Bob")
    async with daemon(sandbox, tmp_path) as town:
        manager = town.manager
        await town.link("alerts", alice)
        sent = await manager.send(SendRequest(session="alerts", to=bob.number, text="before"))
        await manager.wait("alerts", sent.message_id, "sent")
        await alice.unlink(sandbox.device(alice.number).id)
        view = await town.until("alerts", lambda view: view.state == "pairing")
        assert not view.paired
        assert view.last_disconnect is not None
        assert view.last_disconnect.code == 401
        await town.link("alerts", alice)
        page = await manager.messages("alerts", chat=None, before=None, limit=10)
        assert "before" in {message.body for message in page.messages}


async def test_ten_sessions_at_once(sandbox: Sandbox, tmp_path: Path) -> None:
    phones = [sandbox.phone(name=f"Person {n}") for n in range(10)]
    async with daemon(sandbox, tmp_path) as town, trio.open_nursery() as nursery:
        for number, phone in enumerate(phones):
            nursery.start_soon(town.link, f"s{number}", phone)
    async with daemon(sandbox, tmp_path) as town:
        began = trio.current_time()
        for number in range(10):
            await town.until(f"s{number}", is_ready)
        assert trio.current_time() - began < 20
