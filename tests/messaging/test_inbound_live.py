"""Receiving over a real connection from the sandbox's phones: backlog, retries, copies, changed identities."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from waD.link.connection import connect
from waD.link.credentials import new_credentials
from waD.link.endpoint import Endpoint
from waD.link.errors import Disconnected
from waD.link.pairing import QrCode, pair
from waD.link.payload import ClientProfile, payload
from waD.messaging.context import Context, MessagingSettings, make_context
from waD.messaging.facade import Messaging
from waD.messaging.media.downloads import Downloads
from waD.messaging.media.https import Https
from waD.sandbox import run_sandbox
from waD.sandbox.environment import Settings
from waD.sandbox.handles import PhoneHandle
from waD.sandbox.sandbox import Sandbox
from waD.session.online import Online, OnlineSettings
from waD.store.model import EventRow
from waD.store.store import Store, StoreSettings, open_store

PROFILE = ClientProfile(push_name="alice")
PATIENCE_S = 20.0


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Live:
    """A companion of Alice's, online, and Bob who writes to her.

    Attributes:
        messaging, login: of the last time that it was online.
    """

    messaging: Messaging
    login: Online

    def __init__(self, sandbox: Sandbox, store: Store, ctx: Context) -> None:
        self.sandbox = sandbox
        self.store = store
        self.ctx = ctx
        self.alice: PhoneHandle = sandbox.phone(name="alice")
        self.bob: PhoneHandle = sandbox.phone(name="bob")
        self.events: list[EventRow] = []
        self._news = trio.Event()
        store.on_commit = self._note

    def _note(self, events: list[EventRow]) -> None:
        self.events += events
        self._news.set()
        self._news = trio.Event()

    def endpoint(self) -> Endpoint:
        return Endpoint(self.sandbox.url, self.sandbox.root_key, self.sandbox.ca_file)

    async def pair(self) -> None:
        async def scan(code: QrCode) -> None:
            await self.alice.scan(code.text)

        creds = self.ctx.account.creds
        with pytest.raises(Disconnected):
            async with connect(self.endpoint(), creds, payload(creds, PROFILE), random=os.urandom) as link:
                await pair(link, self.ctx.account, PROFILE, random=os.urandom, on_qr=scan, now_ms=now_ms)

    async def online(self, body: Callable[[], Awaitable[None]]) -> None:
        """Log in, run the body when everything is ready, and leave."""
        creds, ready = self.ctx.account.creds, trio.Event()

        async def opened() -> None:
            pass

        async def is_ready() -> None:
            ready.set()

        with trio.fail_after(3 * PATIENCE_S):
            async with connect(self.endpoint(), creds, payload(creds, PROFILE), random=os.urandom) as link:
                self.messaging = Messaging(self.ctx)
                files = Downloads(link, Https(self.endpoint()), unix_s=time.time)
                online = self.login = Online(link, self.messaging, OnlineSettings(retry_delay_s=0.0), files)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(lambda: online.run(opened=opened, ready=is_ready))
                    await ready.wait()
                    await body()
                    nursery.cancel_scope.cancel()

    async def until(self, *wanted: tuple[str, str | None]) -> list[EventRow]:
        """Wait for events of these types and bodies, in this order, others left out."""
        with trio.fail_after(PATIENCE_S):
            while True:
                found = [one for one in self.events if (one.type, one.data.get("body")) in wanted]
                if [(one.type, one.data.get("body")) for one in found] == list(wanted):
                    return found
                await self._news.wait()


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[Live]:
    async with living(tmp_path) as world:
        yield world


@asynccontextmanager
async def living(
    directory: Path, *, tls: bool = False, settings: Settings | None = None
) -> AsyncIterator[Live]:
    """A paired companion that has not logged in yet."""
    async with (
        open_store(StoreSettings(path=directory / "state" / "waD.db")) as store,
        run_sandbox(tls=tls, settings=settings) as sandbox,
    ):
        row = await store.create_session("alerts")
        state = await store.attach(row.id, "test")
        unit = state.unit()
        unit.set_creds(new_credentials(os.urandom, now_ms()).serialize())
        await state.commit(unit)
        ctx = make_context(state, settings=MessagingSettings(), now_ms=now_ms, random=os.urandom)
        world = Live(sandbox, store, ctx)
        await world.pair()
        yield world


async def test_a_backlog_arrives_once_and_in_order(live: Live) -> None:
    ids = await live.bob.send_many(live.alice.jid, 120)

    async def body() -> None:
        wanted = [("message:new", f"message {n}") for n in range(1, 121)]
        found = await live.until(*wanted)
        assert [event.data["messageId"] for event in found] == ids
        await live.sandbox.wait(lambda: {one.status for one in live.bob.messages()} == {3})

    await live.online(body)
    before = len(live.events)

    async def again() -> None:
        await live.bob.send(live.alice.jid, "new")
        await live.until(("message:new", "new"))

    await live.online(again)
    assert [event.data["body"] for event in live.events[before:] if event.type == "message:new"] == ["new"]
    assert live.sandbox.core.world.complaints() == []


async def test_what_was_corrupted_comes_again(live: Live) -> None:
    async def body() -> None:
        await live.bob.send(live.alice.jid, "fine")
        await live.until(("message:new", "fine"))
        live.sandbox.fault("corrupt-enc", count=1)
        await live.bob.send(live.alice.jid, "damaged")
        new, update = await live.until(("message:new", None), ("message:update", "damaged"))
        assert new.data["kind"] == "undecryptable"
        assert update.data["reason"] == "resolved"
        assert new.data["messageId"] == update.data["messageId"]

    await live.online(body)
    rows = await live.store.messages(live.ctx.state.session_id)
    assert sorted(row.body or "" for row in rows) == ["damaged", "fine"]
    assert live.sandbox.core.world.complaints() == []


async def test_copies_receipts_and_new_identities(live: Live) -> None:
    async def body() -> None:
        await live.alice.send(live.bob.jid, "from the phone")
        (copy,) = await live.until(("message:new", "from the phone"))
        assert copy.data["fromMe"] is True
        await live.until(("message:new", "from the phone"), ("message:status", None))
        await live.bob.send(live.alice.jid, "old phone")
        await live.until(("message:new", "old phone"))
        await live.bob.change_identity()
        await live.until(("identity:changed", None))
        await live.bob.send(live.alice.jid, "new phone")
        await live.until(("message:new", "new phone"))
        assert [event.type for event in live.events].count("identity:changed") == 1

    await live.online(body)
    assert live.sandbox.core.world.complaints() == []
