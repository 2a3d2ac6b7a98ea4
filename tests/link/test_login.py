"""From success to open, and logging out (chapter 02 §5.1–§5.3, §7.2)."""

from __future__ import annotations

import os
from typing import Any

import pytest
import trio
import trio.testing

from tests.link.kit import (
    GONE,
    ME,
    MY_LID,
    NOW_S,
    PAIRED,
    FakeServer,
    ServerLink,
    error_of,
    now_ms,
    result_of,
    stream_error,
    success,
)
from tests.link.memory_store import MemoryStore
from waD.link.credentials import new_credentials
from waD.link.errors import Disconnected
from waD.link.login import LoginResult, login, logout, parse_success, set_passive
from waD.link.prekeys import HIGH_WATERMARK, PreKeys
from waD.proto.adv_pb2 import ADVSignedDeviceIdentity
from waD.wire.jid import JID
from waD.wire.node import Node

ACCOUNT = ADVSignedDeviceIdentity(details=b"x").SerializeToString()
STOCKED = PAIRED.change(account=ACCOUNT, server_has_prekeys=True, login_counter=3)
FRESH = new_credentials(os.urandom).change(account=ACCOUNT, me_pn=ME, me_lid=MY_LID)


# The stanza.


def test_all_of_success() -> None:
    found = parse_success(
        success(
            display_name="Alice",
            companion_enc_static="c2Fs",
            group_abprops="7",
            location="lla",
            creation="1",
            props="27",
        )
    )
    assert (found.time_ms, found.lid, found.display_name) == (NOW_S * 1000, MY_LID, "Alice")
    assert (found.companion_enc_static, found.abprops, found.group_abprops) == ("c2Fs", "10", "7")
    assert found.location == "lla"
    assert "Alice" not in repr(found)
    assert MY_LID.user not in repr(found)


@pytest.mark.parametrize("attrs", [{}, {"t": "soon", "lid": "x", "abprops": "9" * 2000}, {"lid": ME}])
def test_a_success_with_nothing_in_it(attrs: dict[str, Any]) -> None:
    found = parse_success(Node("success", attrs))
    assert (found.time_ms, found.lid, found.abprops) == (None, None, "")


def test_what_is_stored() -> None:
    before = FRESH.change(login_counter=4, companion_enc_static="old", props_abprops="9")
    after = parse_success(success(companion_enc_static="new")).apply(before)
    assert (after.login_counter, after.companion_enc_static, after.me_lid) == (5, "new", MY_LID)
    assert after.props_abprops == "9"
    again = parse_success(Node("success")).apply(after)
    assert (again.login_counter, again.companion_enc_static, again.me_lid) == (6, "new", MY_LID)


def test_no_salt_was_ever_told() -> None:
    assert parse_success(Node("success")).apply(FRESH).companion_enc_static == "NULL"


# The order.


class Scene:
    """A login in the background, and what the server was asked, in order."""

    def __init__(self, store: MemoryStore, link: ServerLink) -> None:
        self.store = store
        self.link = link
        self.result: LoginResult | None = None
        self.error: BaseException | None = None
        self.done = trio.Event()
        self.asked: list[str] = []

    async def answer(self, **answers: Any) -> None:
        """Answer every request until the client is gone; a value None means silence."""
        try:
            while True:
                node = await self.link.receive()
                kind = "ping" if node.attrs.get("xmlns") == "w:p" else _kind(node)
                if kind != "ping":
                    self.asked.append(kind)
                answer = answers.get(kind, result_of)
                if answer is not None:
                    await self.link.send(answer(node))
        except GONE:
            return


def _kind(node: Node) -> str:
    children = node.children()
    return children[0].tag if children else node.tag


async def start(server: FakeServer, nursery: trio.Nursery, store: MemoryStore, **options: Any) -> Scene:
    scene: Scene | None = None

    async def client() -> None:
        try:
            async with server.connect(store.now) as connection, trio.open_nursery() as tasks:
                tasks.start_soon(read, connection)
                result = await login(connection, store, random=os.urandom, now_ms=now_ms, **options)
                assert scene is not None
                scene.result = result
                scene.done.set()
                await trio.sleep_forever()
        except* Disconnected as group:
            assert scene is not None
            (scene.error,) = group.exceptions
            scene.done.set()

    async def read(connection: Any) -> None:
        async for _ in connection.stanzas:
            pass

    nursery.start_soon(client)
    scene = Scene(store, await server.links.receive())
    return scene


def cause_of(scene: Scene) -> Any:
    assert isinstance(scene.error, Disconnected)
    return scene.error.cause


def counted(number: int) -> Any:
    return lambda node: result_of(node, Node("count", {"value": str(number)}))


async def test_first_login_uploads_without_asking(server: FakeServer, nursery: trio.Nursery) -> None:
    store = MemoryStore(FRESH)
    scene = await start(server, nursery, store)
    nursery.start_soon(scene.answer)
    await scene.link.send(success())
    await scene.done.wait()
    assert scene.asked == ["registration", "active"]
    assert store.writes[0] == "credentials"
    assert store.writes[-2:] == ["prekeys", "uploaded"]
    assert len(store.keys) == HIGH_WATERMARK
    assert {key.state for key in store.keys.values()} == {"uploaded"}
    assert (store.now.login_counter, store.now.server_has_prekeys) == (1, True)
    assert scene.result is not None
    assert (scene.result.first, scene.result.props_due, scene.result.abprops) == (True, True, "10")
    await scene.link.cut()


@pytest.mark.parametrize(("count", "asked"), [(5, ["count", "active"]), (812, ["count", "active"])])
async def test_enough_prekeys(
    server: FakeServer, nursery: trio.Nursery, count: int, asked: list[str]
) -> None:
    store = MemoryStore(STOCKED)
    scene = await start(server, nursery, store)
    nursery.start_soon(lambda: scene.answer(count=counted(count)))
    await scene.link.send(success())
    await scene.done.wait()
    assert scene.asked == asked
    assert scene.result is not None
    assert not scene.result.first
    await scene.link.cut()


async def test_few_prekeys(server: FakeServer, nursery: trio.Nursery) -> None:
    store = MemoryStore(STOCKED)
    scene = await start(server, nursery, store)
    nursery.start_soon(lambda: scene.answer(count=counted(4)))
    await scene.link.send(success())
    await scene.done.wait()
    assert (scene.asked[0], scene.asked[-2:]) == ("count", ["registration", "active"])
    assert len(store.keys) == HIGH_WATERMARK - 4
    await scene.link.cut()


async def test_facts_are_stored_before_anything_is_asked(server: FakeServer, nursery: trio.Nursery) -> None:
    store = MemoryStore(STOCKED)
    scene = await start(server, nursery, store)
    await scene.link.send(success(companion_enc_static="c2Fs"))
    await scene.link.receive()
    assert (store.now.login_counter, store.now.companion_enc_static) == (4, "c2Fs")
    await scene.link.cut()
    await scene.done.wait()
    assert cause_of(scene).id == "eof"


async def test_a_store_that_fails_stops_the_login(server: FakeServer) -> None:
    store = MemoryStore(STOCKED)
    store.failure = OSError("disk full")
    links: list[ServerLink] = []

    async def use() -> None:
        async with server.linked(STOCKED) as (connection, link):
            links.append(link)
            await link.send(success())
            await login(connection, store, random=os.urandom, now_ms=now_ms)

    with pytest.raises(OSError, match="disk full"):
        await use()
    with pytest.raises(GONE):
        await links[0].receive()


@pytest.mark.parametrize("refusal", [lambda node: error_of(node, 500), lambda node: error_of(node, 406)])
async def test_a_refused_upload_does_not_stop_the_login(
    server: FakeServer, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture, refusal: Any
) -> None:
    store = MemoryStore(FRESH)
    scene = await start(server, nursery, store)
    nursery.start_soon(lambda: scene.answer(registration=refusal))
    await scene.link.send(success())
    await scene.done.wait()
    assert scene.result is not None
    assert scene.asked == ["registration", "active"]
    assert not store.now.server_has_prekeys
    assert {key.state for key in store.keys.values()} == {"new"}
    assert "prekeys at login" in caplog.text
    await scene.link.cut()


async def test_an_unanswered_count_costs_a_minute(
    server: FakeServer, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    scene = await start(server, nursery, MemoryStore(STOCKED))
    nursery.start_soon(lambda: scene.answer(count=None))
    await scene.link.send(success())
    began = trio.current_time()
    await scene.done.wait()
    assert scene.result is not None
    assert trio.current_time() - began == pytest.approx(60.0, abs=1.0)
    await scene.link.cut()


@pytest.mark.parametrize("answer", [None, lambda node: error_of(node, 503)])
async def test_without_active_the_connection_ends(
    server: FakeServer, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, answer: Any
) -> None:
    scene = await start(server, nursery, MemoryStore(STOCKED))
    nursery.start_soon(lambda: scene.answer(count=counted(100), active=answer))
    await scene.link.send(success())
    await scene.done.wait()
    found = cause_of(scene)
    assert (found.id, found.code, found.was_open, found.reached) == ("login_timeout", 408, False, True)


async def test_open_only_after_active(server: FakeServer, nursery: trio.Nursery) -> None:
    scene = await start(server, nursery, MemoryStore(STOCKED))
    nursery.start_soon(lambda: scene.answer(count=counted(100)))
    await scene.link.send(success())
    await scene.done.wait()
    await scene.link.send(stream_error(503))
    await scene.link.close()
    while scene.error is None:
        await trio.testing.wait_all_tasks_blocked()
    assert cause_of(scene).was_open


@pytest.mark.parametrize(
    ("last", "cause_id"),
    [
        (Node("failure", {"reason": "401"}), "f401"),
        (Node("failure", {"reason": "403"}), "f403"),
        (stream_error(503), "stream_503"),
        (stream_error(None, Node("conflict", {"type": "replaced"})), "replaced"),
    ],
)
@pytest.mark.parametrize("after_success", [False, True])
async def test_refused_at_any_step(
    server: FakeServer, nursery: trio.Nursery, last: Node, cause_id: str, after_success: bool
) -> None:
    scene = await start(server, nursery, MemoryStore(STOCKED))
    if after_success:
        await scene.link.send(success())
        await scene.link.receive()
    await scene.link.send(last)
    await scene.link.close()
    await scene.done.wait()
    found = cause_of(scene)
    assert (found.id, found.reached, found.was_open) == (cause_id, True, False)


async def test_stanzas_are_read_while_it_logs_in(server: FakeServer, nursery: trio.Nursery) -> None:
    """More stanzas than the buffer holds come before the answer."""
    scene = await start(server, nursery, MemoryStore(STOCKED))
    await scene.link.send(success())
    asked = await scene.link.receive()
    await scene.link.send(*(Node("ib", {}, [Node("news", {"n": str(n)})]) for n in range(600)))
    await scene.link.send(counted(100)(asked))
    await scene.link.send(result_of(await scene.link.receive()))
    await scene.done.wait()
    assert scene.result is not None
    await scene.link.cut()


# What it finds out.


async def logged_in(server: FakeServer, nursery: trio.Nursery, store: MemoryStore, node: Node) -> LoginResult:
    scene = await start(server, nursery, store)
    nursery.start_soon(lambda: scene.answer(count=counted(100)))
    await scene.link.send(node)
    await scene.done.wait()
    await scene.link.cut()
    assert scene.result is not None
    return scene.result


@pytest.mark.parametrize(
    ("attrs", "offset_ms", "off"),
    [
        ({"t": str(NOW_S)}, -250, False),
        ({"t": str(NOW_S + 3600)}, 3_599_750, True),
        ({"t": str(NOW_S - 3600)}, -3_600_250, True),
        ({"t": "soon"}, 0, False),
    ],
)
async def test_the_clock(
    server: FakeServer, nursery: trio.Nursery, attrs: dict[str, str], offset_ms: int, off: bool
) -> None:
    result = await logged_in(server, nursery, MemoryStore(STOCKED), success(**attrs))
    assert (result.clock_offset_ms, result.clock_is_off) == (offset_ms, off)


async def test_another_lid_is_taken_over_and_reported(server: FakeServer, nursery: trio.Nursery) -> None:
    store = MemoryStore(STOCKED)
    other = JID("100000000000002", "lid", 17)
    result = await logged_in(server, nursery, store, success(lid=other))
    assert (result.lid_changed, store.now.me_lid) == (True, other)


async def test_a_first_lid_is_no_change(server: FakeServer, nursery: trio.Nursery) -> None:
    store = MemoryStore(STOCKED.change(me_lid=None))
    result = await logged_in(server, nursery, store, success())
    assert (result.lid_changed, store.now.me_lid) == (False, MY_LID)


@pytest.mark.parametrize(
    ("stored", "told", "due"),
    [(("h", "10"), "10", False), (("h", "9"), "10", True), (("", "10"), "10", True)],
)
async def test_properties_are_due(
    server: FakeServer, nursery: trio.Nursery, stored: tuple[str, str], told: str, due: bool
) -> None:
    store = MemoryStore(STOCKED.change(props_hash=stored[0], props_abprops=stored[1]))
    result = await logged_in(server, nursery, store, success(abprops=told))
    assert (result.props_due, result.abprops) == (due, told)


async def test_a_supplier_of_ones_own(server: FakeServer, nursery: trio.Nursery) -> None:
    store = MemoryStore(STOCKED)
    async with server.linked(STOCKED) as (connection, link):
        scene = Scene(store, link)
        nursery.start_soon(lambda: scene.answer(count=counted(100)))
        await link.send(success())
        prekeys = PreKeys(connection, store, os.urandom)
        await login(connection, store, random=os.urandom, now_ms=now_ms, prekeys=prekeys)
    assert scene.asked == ["count", "active"]


# Passive and logout.


@pytest.mark.parametrize("passive", [True, False])
async def test_passive(server: FakeServer, nursery: trio.Nursery, passive: bool) -> None:
    async with server.linked() as (connection, link):
        scene = Scene(MemoryStore(PAIRED), link)
        nursery.start_soon(scene.answer)
        await set_passive(connection, passive=passive)
    assert scene.asked == ["passive" if passive else "active"]


async def test_logout(server: FakeServer, nursery: trio.Nursery) -> None:
    async with server.linked() as (connection, link):

        async def serve() -> None:
            asked = await link.receive()
            assert (asked.attrs["xmlns"], asked.attrs["type"]) == ("md", "set")
            assert asked.children()[0] == Node(
                "remove-companion-device", {"jid": ME, "reason": "user_initiated"}
            )
            await link.send(result_of(asked))

        nursery.start_soon(serve)
        assert await logout(connection, ME)


async def test_logout_answered_by_the_end_alone(server: FakeServer, nursery: trio.Nursery) -> None:
    confirmed: list[bool] = []

    async def unlink(connection: Any) -> None:
        confirmed.append(await logout(connection, ME))

    async def use() -> None:
        async with server.linked() as (connection, link):
            nursery.start_soon(unlink, connection)
            await link.receive()
            await link.send(stream_error(401, Node("conflict", {"type": "device_removed"})))
            await link.close()
            await trio.sleep_forever()

    with pytest.raises(Disconnected) as caught:
        await use()
    assert caught.value.cause.id == "unlinked"
    await trio.testing.wait_all_tasks_blocked()
    assert confirmed == [True]


async def test_logout_refused(server: FakeServer, nursery: trio.Nursery) -> None:
    async with server.linked() as (connection, link):

        async def serve() -> None:
            await link.send(error_of(await link.receive(), 403))

        nursery.start_soon(serve)
        assert not await logout(connection, ME)


async def test_logout_not_answered(
    server: FakeServer, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with server.linked() as (connection, _):
        began = trio.current_time()
        assert not await logout(connection, ME)
        assert trio.current_time() - began == pytest.approx(3.0)
    assert "may still list" in caplog.text
    assert ME.user not in caplog.text


async def test_logout_when_the_connection_breaks(server: FakeServer, nursery: trio.Nursery) -> None:
    confirmed: list[bool] = []

    async def unlink(connection: Any) -> None:
        confirmed.append(await logout(connection, ME))

    async def use() -> None:
        async with server.linked() as (connection, link):
            nursery.start_soon(unlink, connection)
            await link.receive()
            await link.cut()
            await trio.sleep_forever()

    with pytest.raises(Disconnected):
        await use()
    await trio.testing.wait_all_tasks_blocked()
    assert confirmed == [False]
