"""The trio shell: connecting, requests, back-pressure, cancellation, and a server that fails in each phase."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from tests.link.kit import (
    ENDPOINT,
    IDENTITY,
    ME,
    NOW_S,
    PAIRED,
    UNPAIRED,
    FakeServer,
    ServerLink,
    error_of,
    iq,
    result_of,
    stream_error,
    success,
)
from waD.link.causes import cause
from waD.link.connection import LinkSettings, connect
from waD.link.errors import Disconnected, RequestError, RequestTimeout
from waD.link.stanzas import iq as ask
from waD.sandbox.identity import bad_chain
from waD.wire.errors import WireError
from waD.wire.frames import frame
from waD.wire.jid import SERVER
from waD.wire.node import Node

MESSAGE = Node("message", {"id": "3EB0", "to": ME, "type": "text"})


@asynccontextmanager
async def disconnects(cause_id: str) -> AsyncIterator[list[Any]]:
    """The block ends with that cause, and with nothing else."""
    found: list[Any] = []
    with pytest.raises(Disconnected) as caught:
        yield found
    assert caught.value.cause.id == cause_id, caught.value
    found.append(caught.value.cause)


# The good way.


async def test_connect_and_what_the_server_sees(server: FakeServer) -> None:
    credentials = PAIRED.change(routing_info=b"\x08\x02")
    async with server.linked(credentials, payload=b"who I am") as (connection, link):
        assert link.payload == b"who I am"
        assert link.client_static == credentials.noise.public
        assert link.intro.routing_info == b"\x08\x02"
        assert link.target == "/ws/chat?ED=CAI="
        assert link.headers["origin"] == "https://web.whatsapp.com"
        assert connection.healthy
        assert connection.cause is None
        assert connection.age_s >= 0.0


async def test_without_routing_for_the_second_try(server: FakeServer) -> None:
    async with server.linked(PAIRED.change(routing_info=b"\x08\x02"), use_routing=False) as (_, link):
        assert link.intro.routing_info is None
        assert link.target == "/ws/chat"


async def test_success(server: FakeServer) -> None:
    async with server.linked() as (connection, link):
        await link.send(success(location="lla"))
        assert (await connection.success()).attrs["location"] == "lla"
        assert (await connection.success()).attrs["location"] == "lla"


async def test_leaving_the_block_says_goodbye(server: FakeServer) -> None:
    async with server.linked() as (connection, link):
        await connection.send(MESSAGE)
    assert (await link.receive()).attrs["id"] == "3EB0"
    await link.wait_closed()
    assert link.websocket.closed.code == 1000
    assert connection.cause is not None
    assert connection.cause.id == "stop"


async def test_stanzas_arrive_in_order(server: FakeServer) -> None:
    async with server.linked() as (connection, link):
        await link.send(*(Node("notification", {"id": str(n), "from": SERVER}) for n in range(100)))
        got = [(await connection.stanzas.receive()).attrs["id"] for _ in range(100)]
        assert got == [str(n) for n in range(100)]


async def test_ids_are_fresh(server: FakeServer) -> None:
    async with server.linked() as (connection, _link):
        first, second = connection.next_id(), connection.next_id()
        assert first != second
        assert first.split("-")[0] == second.split("-")[0]


# Requests.


async def test_request_and_result(server: FakeServer, nursery: trio.Nursery) -> None:
    async with server.linked() as (connection, link):

        async def answer() -> None:
            await link.send(result_of(await link.receive(), Node("props")))

        nursery.start_soon(answer)
        reply = await connection.request(ask("get", "abt"))
        assert reply.child("props") is not None


async def test_refused_request(server: FakeServer, nursery: trio.Nursery) -> None:
    async with server.linked() as (connection, link):

        async def answer() -> None:
            await link.send(error_of(await link.receive(), 429, "rate-overlimit", backoff="7"))

        nursery.start_soon(answer)
        with pytest.raises(RequestError) as caught:
            await connection.request(ask("get", "abt"))
        assert (caught.value.code, caught.value.text, caught.value.backoff) == (429, "rate-overlimit", 7)
        assert connection.cause is None


async def test_unanswered_request(server: FakeServer, autojump_clock: trio.testing.MockClock) -> None:
    async with server.linked() as (connection, _link):
        began = trio.current_time()
        with pytest.raises(RequestTimeout) as caught:
            await connection.request(ask("get", "abt"), timeout=3.0)
        assert trio.current_time() - began == pytest.approx(3.0)
        assert caught.value.seconds == pytest.approx(3.0)
        assert connection.cause is None


async def test_five_requests_at_a_time(server: FakeServer, nursery: trio.Nursery) -> None:
    async with server.linked() as (connection, link):
        for _ in range(8):
            nursery.start_soon(connection.request, ask("get", "abt"))
        await trio.testing.wait_all_tasks_blocked()
        first = [await link.receive() for _ in range(5)]
        with trio.move_on_after(0.01) as scope:
            await link.receive()
        assert scope.cancelled_caught
        await link.send(*(result_of(node) for node in reversed(first)))
        rest = [await link.receive() for _ in range(3)]
        await link.send(*(result_of(node) for node in rest))
        assert len({node.text("id") for node in first + rest}) == 8


async def test_one_directory_query_at_a_time(server: FakeServer, nursery: trio.Nursery) -> None:
    async with server.linked() as (connection, link):
        for _ in range(3):
            nursery.start_soon(connection.request, ask("get", "usync"))
        nursery.start_soon(connection.request, ask("get", "abt"))
        asked = [await link.receive(), await link.receive()]
        assert sorted(str(node.attrs["xmlns"]) for node in asked) == ["abt", "usync"]
        await link.send(*(result_of(node) for node in asked))
        for _ in range(2):
            await link.send(result_of(await link.receive()))


async def test_a_cancelled_request_leaves_nothing_behind(server: FakeServer, nursery: trio.Nursery) -> None:
    async with server.linked() as (connection, link):
        for _ in range(10):
            with trio.move_on_after(0.001):
                await connection.request(ask("get", "abt"))
        late = [await link.receive() for _ in range(10)]
        await link.send(*(result_of(node) for node in late))

        async def answer() -> None:
            await link.send(result_of(await link.receive(), Node("fresh")))

        nursery.start_soon(answer)
        assert (await connection.request(ask("get", "abt"))).child("fresh") is not None


async def test_a_node_that_cannot_be_written_harms_nobody(server: FakeServer) -> None:
    async with server.linked() as (connection, link):
        with pytest.raises(WireError):
            await connection.send(Node("message", {"id": "1"}, b"x" * (1 << 24)))
        await connection.send(MESSAGE)
        assert (await link.receive()).attrs["id"] == "3EB0"


async def test_many_sends_arrive_once_and_in_order(server: FakeServer, nursery: trio.Nursery) -> None:
    async with server.linked() as (connection, link):

        async def send_some(start: int) -> None:
            for number in range(start, start + 50):
                await connection.send(Node("receipt", {"id": f"{start}-{number}", "to": ME}))

        for start in (0, 100, 200):
            nursery.start_soon(send_some, start)
        got = [str((await link.receive()).attrs["id"]) for _ in range(150)]
        for start in (0, 100, 200):
            mine = [one for one in got if one.startswith(f"{start}-")]
            assert mine == [f"{start}-{number}" for number in range(start, start + 50)]


# Back-pressure.


async def test_a_full_buffer_stops_reading_but_loses_nothing(server: FakeServer) -> None:
    async with server.linked(settings=LinkSettings(stanza_buffer=2)) as (connection, link):
        await link.send(*(Node("notification", {"id": str(n), "from": SERVER}) for n in range(20)))
        await trio.testing.wait_all_tasks_blocked()
        assert connection.stanzas.statistics().current_buffer_used == 2
        assert [(await connection.stanzas.receive()).attrs["id"] for _ in range(20)] == [
            str(n) for n in range(20)
        ]


async def test_nobody_reads_for_a_minute(server: FakeServer, autojump_clock: trio.testing.MockClock) -> None:
    async with disconnects("deaf"), server.linked(settings=LinkSettings(stanza_buffer=1)) as (_, link):
        await link.send(success())
        await link.send(*(Node("notification", {"id": str(n), "from": SERVER}) for n in range(5)))
        await trio.sleep_forever()


async def test_reading_late_is_no_reason_to_end(
    server: FakeServer, autojump_clock: trio.testing.MockClock
) -> None:
    async with server.linked(settings=LinkSettings(stanza_buffer=1)) as (connection, link):
        await link.send(success())
        await link.send(*(Node("notification", {"id": str(n), "from": SERVER}) for n in range(5)))

        async def read_late() -> None:
            await trio.sleep(50.0)
            for _ in range(5):
                await connection.stanzas.receive()
            await trio.sleep(200.0)

        await _answer_pings_until(link, read_late)
        assert connection.cause is None


async def test_stanzas_nobody_wants_any_more_are_dropped(server: FakeServer, nursery: trio.Nursery) -> None:
    async with server.linked() as (connection, link):
        connection.stanzas.close()
        await link.send(Node("notification", {"id": "1", "from": SERVER}))

        async def answer() -> None:
            await link.send(result_of(await link.receive()))

        nursery.start_soon(answer)
        await connection.request(ask("get", "abt"))


# Failing servers, phase by phase.


async def test_dialing_fails(server: FakeServer) -> None:
    async def dial(_: object) -> trio.abc.Stream:
        raise ConnectionRefusedError(111, "Connection refused")

    async with disconnects("refused") as found, connect(ENDPOINT, PAIRED, b"", random=os.urandom, dial=dial):
        raise AssertionError("never here")
    assert (found[0].code, found[0].reached) == (408, False)


async def test_dialing_takes_for_ever(autojump_clock: trio.testing.MockClock) -> None:
    async def dial(_: object) -> trio.abc.Stream:
        await trio.sleep_forever()
        raise AssertionError

    async with (
        disconnects("dial_timeout") as found,
        connect(ENDPOINT, PAIRED, b"", random=os.urandom, dial=dial),
    ):
        raise AssertionError("never here")
    assert (found[0].age_s, found[0].reached) == (pytest.approx(20.0), False)


async def test_the_upgrade_is_never_answered(autojump_clock: trio.testing.MockClock) -> None:
    streams = []

    async def dial(_: object) -> trio.abc.Stream:
        ours, theirs = trio.testing.memory_stream_pair()
        streams.append(ours)
        return theirs

    async with disconnects("dial_timeout"), connect(ENDPOINT, PAIRED, b"", random=os.urandom, dial=dial):
        raise AssertionError("never here")
    assert streams


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200 OK\r\n", b"SSH-2.0\r\n\r\n", b"\0" * 70_000, b"HTTP/1.1 x\r\n\r\n"]
)
async def test_the_upgrade_is_answered_with_nonsense(answer: bytes) -> None:
    async def dial(_: object) -> trio.abc.Stream:
        ours, theirs = trio.testing.memory_stream_pair()
        await ours.send_all(answer)
        await ours.aclose()
        return theirs

    with pytest.raises(Disconnected) as caught:
        async with connect(ENDPOINT, PAIRED, b"", random=os.urandom, dial=dial):
            raise AssertionError("never here")
    assert caught.value.cause.id == "refused"
    assert not caught.value.cause.reached


@pytest.mark.parametrize(
    ("status", "retry"), [(401, None), (403, None), (429, 30.0), (500, None), (503, 5.0)]
)
async def test_the_upgrade_is_refused(server: FakeServer, status: int, retry: float | None) -> None:
    server.refuse = status
    if retry is not None:
        server.refuse_headers = [(b"Retry-After", str(int(retry)).encode())]
    async with disconnects("http") as found, server.linked():
        raise AssertionError("never here")
    assert (found[0].code, found[0].retry_after_s, found[0].reached) == (1000 + status, retry, False)


async def test_no_server_hello(server: FakeServer, autojump_clock: trio.testing.MockClock) -> None:
    server.script = ServerLink.wait_closed
    async with disconnects("noise_timeout"), server.linked():
        raise AssertionError("never here")


@pytest.mark.parametrize("data", [b"\x00\x00\x07garbage", b"\xff\xff\xff", frame(os.urandom(120))])
async def test_a_garbage_hello(server: FakeServer, data: bytes) -> None:
    async def script(link: ServerLink) -> None:
        await link.websocket.get_message()
        await link.send_raw(data)
        await link.wait_closed()

    server.script = script
    async with disconnects("noise_fail") as found, server.linked():
        raise AssertionError("never here")
    assert found[0].code == 496


@pytest.mark.parametrize("mode", ["expired", "bad-certificate"])
async def test_a_server_that_is_not_whatsapp(server: FakeServer, mode: str) -> None:
    server.chain = bad_chain(IDENTITY, os.urandom, NOW_S, mode)
    async with disconnects("noise_fail"), server.linked():
        raise AssertionError("never here")


@pytest.mark.parametrize("how", ["close", "cut"])
async def test_closed_inside_the_handshake(server: FakeServer, how: str) -> None:
    async def script(link: ServerLink) -> None:
        await link.websocket.get_message()
        await getattr(link, how)()

    server.script = script
    async with disconnects("eof") as found, server.linked():
        raise AssertionError("never here")
    assert not found[0].reached


@pytest.mark.parametrize("how", ["close", "cut"])
async def test_closed_before_success(server: FakeServer, how: str) -> None:
    async with disconnects("eof") as found, server.linked() as (connection, link):
        await getattr(link, how)()
        await connection.success()
    assert (found[0].reached, found[0].was_open) == (True, False)


@pytest.mark.parametrize("how", ["close", "cut"])
async def test_closed_while_pairing(server: FakeServer, how: str) -> None:
    async with disconnects("pair_socket_lost"), server.linked(UNPAIRED) as (_, link):
        await getattr(link, how)()
        await trio.sleep_forever()


async def test_closed_while_open(server: FakeServer) -> None:
    async with disconnects("eof") as found, server.linked() as (connection, link):
        await link.send(success())
        await connection.success()
        connection.mark_open()
        await link.cut()
        await trio.sleep_forever()
    assert (found[0].reached, found[0].was_open, found[0].code) == (True, True, 428)


async def test_login_refused(server: FakeServer) -> None:
    async with disconnects("f401") as found, server.linked() as (connection, link):
        await link.send(Node("failure", {"reason": "401", "location": "lla"}))
        await connection.success()
    assert (found[0].code, found[0].reached) == (401, True)
    assert found[0].stanza.attrs["location"] == "lla"


async def test_no_success(server: FakeServer, autojump_clock: trio.testing.MockClock) -> None:
    async with disconnects("login_timeout") as found, server.linked() as (connection, link):
        await _answer_pings_until(link, connection.success)
    assert found[0].age_s == pytest.approx(60.0)


async def _answer_pings_until(link: ServerLink, work: Any) -> None:
    async with trio.open_nursery() as nursery:

        async def answer() -> None:
            while True:
                await link.send(result_of(await link.expect("iq", xmlns="w:p")))

        nursery.start_soon(answer)
        await work()
        nursery.cancel_scope.cancel()


async def test_a_silent_server_is_a_dead_socket(
    server: FakeServer, autojump_clock: trio.testing.MockClock
) -> None:
    health: list[bool] = []
    async with disconnects("dead_socket") as found, server.linked() as (connection, link):
        connection.on_health = health.append
        await link.send(success())
        await trio.sleep_forever()
    assert health == [False]
    assert 39.9 <= found[0].age_s <= 50.1


async def test_a_healthy_server_is_kept(server: FakeServer, autojump_clock: trio.testing.MockClock) -> None:
    async with server.linked() as (connection, link):
        await link.send(success())

        async def an_hour() -> None:
            await trio.sleep(3600.0)

        await _answer_pings_until(link, an_hour)
        assert connection.healthy
        assert connection.latency_s is not None
        assert connection.cause is None


async def test_requests_without_answers_make_it_deaf(
    server: FakeServer, autojump_clock: trio.testing.MockClock
) -> None:
    outcomes: list[str] = []

    async def try_it(connection: Any) -> None:
        try:
            await connection.request(ask("get", "abt"))
        except (RequestTimeout, Disconnected) as error:
            outcomes.append(type(error).__name__)

    async with disconnects("deaf"), server.linked() as (connection, link):
        await link.send(success())

        async def all_of_them() -> None:
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(try_it, connection)
            await trio.sleep_forever()

        await _answer_pings_until(link, all_of_them)
    assert len(outcomes) == 3


async def test_garbage_after_the_handshake(server: FakeServer) -> None:
    async with disconnects("frame"), server.linked() as (_, link):
        await link.send_raw(frame(os.urandom(64)))
        await trio.sleep_forever()


async def test_some_undecodable_nodes_are_survived(server: FakeServer) -> None:
    async with server.linked() as (connection, link):
        await link.send_plain(*[b"\x00\xf8"] * 10)
        await link.send(success())
        await connection.success()


async def test_text_messages_mean_nothing(server: FakeServer) -> None:
    async with server.linked() as (connection, link):
        await link.websocket.send_message("hello")
        await link.send(success())
        await connection.success()


async def test_everybody_who_waits_is_told(server: FakeServer) -> None:
    told: list[str] = []

    async def wait(work: Any, *args: Any) -> None:
        try:
            await work(*args)
        except Disconnected as end:
            told.append(end.cause.id)

    async with trio.open_nursery() as others, disconnects("replaced"), server.linked() as (connection, link):
        for _ in range(3):
            others.start_soon(wait, connection.request, ask("get", "abt"))
        others.start_soon(wait, connection.success)
        await trio.testing.wait_all_tasks_blocked()
        await link.send(stream_error(None, Node("conflict", {"type": "replaced"})))
        await link.close()
        await trio.sleep_forever()
    assert told == ["replaced"] * 4
    with pytest.raises(Disconnected):
        await connection.send(MESSAGE)
    assert (await connection.wait_ended()).id == "replaced"


async def test_what_came_before_the_reason_can_still_be_read(server: FakeServer) -> None:
    got: list[Node] = []
    async with disconnects("stream_503") as found, server.linked() as (connection, link):
        await link.send(
            Node("notification", {"id": "1", "from": SERVER}),
            Node("notification", {"id": "2", "from": SERVER}),
            stream_error(503),
            Node("notification", {"id": "3", "from": SERVER}),
        )
        got += [node async for node in connection.stanzas]
        await link.close()
        await trio.sleep_forever()
    assert [node.attrs["id"] for node in got] == ["1", "2"]
    assert found[0].reached


async def test_a_server_that_says_why_but_does_not_close(
    server: FakeServer, autojump_clock: trio.testing.MockClock
) -> None:
    async with disconnects("stream_503") as found, server.linked() as (_, link):
        await link.send(stream_error(503))
        await trio.sleep_forever()
    assert found[0].age_s == pytest.approx(5.0)


async def test_a_cause_that_came_while_leaving_counts_in_full(server: FakeServer) -> None:
    """Whoever leaves the block because of Disconnected gets the same cause, complete."""
    async with disconnects("unlinked") as found, server.linked() as (connection, link):
        await link.send(success())
        await connection.success()
        connection.mark_open()
        await link.send(stream_error(401, Node("conflict", {"type": "device_removed"})))
        with pytest.raises(trio.EndOfChannel):
            await connection.stanzas.receive()
        await connection.send(MESSAGE)
    assert (found[0].was_open, found[0].reached) == (True, True)


async def test_restart_after_the_pairing_reply(server: FakeServer) -> None:
    async with disconnects("restart") as found, server.linked(UNPAIRED) as (connection, link):
        connection.expect_restart()
        await link.cut()
        await trio.sleep_forever()
    assert found[0].code == 515


async def test_fail_for_a_reason_of_our_own(server: FakeServer) -> None:
    async with disconnects("auth_write"), server.linked() as (connection, link):
        connection.fail(cause("auth_write", "the disk is full"))
        await trio.sleep_forever()
    await link.wait_closed()


# Cancellation.


@pytest.mark.parametrize("when", ["dial", "upgrade", "hello", "open"])
async def test_cancelled_in_each_phase(server: FakeServer, nursery: trio.Nursery, when: str) -> None:
    reached = trio.Event()
    streams: list[Any] = []

    async def dial(endpoint: Any) -> trio.abc.Stream:
        if when == "dial":
            reached.set()
            await trio.sleep_forever()
        if when == "upgrade":
            ours, theirs = trio.testing.memory_stream_pair()
            streams.append(ours)
            reached.set()
            return theirs
        return await server.dial(endpoint)

    async def script(link: ServerLink) -> None:
        await link.websocket.get_message()
        reached.set()
        await link.wait_closed()

    if when == "hello":
        server.script = script

    async def client(scope: trio.CancelScope) -> None:
        with scope:
            async with connect(
                ENDPOINT, PAIRED, b"", random=os.urandom, unix_time=lambda: float(NOW_S), dial=dial
            ):
                reached.set()
                await trio.sleep_forever()

    scope = trio.CancelScope()
    with trio.fail_after(5.0):
        async with trio.open_nursery() as own:
            own.start_soon(client, scope)
            await reached.wait()
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    assert scope.cancelled_caught
    if when == "upgrade":
        while await streams[0].receive_some():
            pass


async def test_cancelled_while_requests_wait(server: FakeServer) -> None:
    with trio.fail_after(5.0), trio.CancelScope() as scope:
        async with server.linked() as (connection, link), trio.open_nursery() as nursery:
            for _ in range(7):
                nursery.start_soon(connection.request, ask("get", "abt"))
            await link.receive()
            scope.cancel()
    assert scope.cancelled_caught
    await link.wait_closed()


async def test_a_waiter_outside_the_block_is_told_when_it_is_left(server: FakeServer) -> None:
    told: list[str] = []

    async def wait(connection: Any) -> None:
        try:
            await connection.request(ask("get", "abt"))
        except Disconnected as end:
            told.append(end.cause.id)

    async with trio.open_nursery() as nursery, server.linked() as (connection, link):
        nursery.start_soon(wait, connection)
        await link.receive()
    assert told == ["stop"]


async def test_a_fault_in_the_block_comes_out_as_it_is(server: FakeServer) -> None:
    with pytest.raises(KeyError, match="mine"):
        async with server.linked():
            raise KeyError("mine")


async def test_somebody_elses_disconnection_is_not_ours(server: FakeServer) -> None:
    async with disconnects("dns"), server.linked() as (_connection, _):
        raise Disconnected(cause("dns", "of another connection"))


async def test_a_fault_of_a_user_task_ends_the_connection(server: FakeServer) -> None:
    async def broken() -> None:
        raise KeyError("task")

    links: list[ServerLink] = []

    async def use() -> None:
        async with server.linked() as (_, link), trio.open_nursery() as nursery:
            links.append(link)
            nursery.start_soon(broken)

    with pytest.raises(BaseExceptionGroup) as caught:
        await use()
    assert caught.group_contains(KeyError, match="task")
    await links[0].wait_closed()


async def test_the_same_credentials_connect_again_and_again(server: FakeServer) -> None:
    for _ in range(5):
        async with server.linked() as (connection, link):
            await link.send(success())
            await connection.success()
    assert server.dials == 5


# A peer that does not read.


class ChokedStream(trio.abc.Stream):
    """Sends nothing any more once `choked` is set: the peer's window is full."""

    def __init__(self, inner: trio.abc.Stream) -> None:
        self.inner = inner
        self.choked = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return bytes(await self.inner.receive_some(max_bytes))

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self.choked:
            await trio.sleep_forever()
        await self.inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        await self.inner.aclose()


async def test_a_server_that_never_reads_is_found_out(
    server: FakeServer, autojump_clock: trio.testing.MockClock
) -> None:
    """Sends wait and are not lost sight of; silence counts all the same."""
    streams: list[ChokedStream] = []
    told: list[str] = []

    async def dial(endpoint: Any) -> trio.abc.Stream:
        streams.append(ChokedStream(await server.dial(endpoint)))
        return streams[0]

    async def send(connection: Any) -> None:
        try:
            await connection.send(MESSAGE)
        except Disconnected as end:
            told.append(end.cause.id)

    async with (
        trio.open_nursery() as others,
        disconnects("dead_socket"),
        connect(
            ENDPOINT, PAIRED, b"", random=os.urandom, unix_time=lambda: float(NOW_S), dial=dial
        ) as connection,
    ):
        link = await server.links.receive()
        await link.send(success())
        await connection.success()
        streams[0].choked = True
        others.start_soon(send, connection)
        await trio.sleep_forever()
    assert told == ["dead_socket"]


async def test_a_peer_that_asks_more_than_it_reads_is_not_read(
    server: FakeServer, autojump_clock: trio.testing.MockClock
) -> None:
    """Answers to pings may not pile up without bound."""
    streams: list[ChokedStream] = []

    async def dial(endpoint: Any) -> trio.abc.Stream:
        streams.append(ChokedStream(await server.dial(endpoint)))
        return streams[0]

    async with (
        disconnects("dead_socket"),
        connect(
            ENDPOINT, PAIRED, b"", random=os.urandom, unix_time=lambda: float(NOW_S), dial=dial
        ) as connection,
    ):
        link = await server.links.receive()
        streams[0].choked = True
        for number in range(40):
            await link.send(*(iq("get", "urn:xmpp:ping", id=f"{number}-{n}") for n in range(100)))
        await trio.testing.wait_all_tasks_blocked()
        engine: Any = connection._engine
        assert engine.unsent < 300
        await trio.sleep_forever()


async def test_iq_with_strange_addresses_from_the_server_harms_nobody(server: FakeServer) -> None:
    async with server.linked() as (connection, link):
        await link.send(iq("get", "odd", id="1", to="not an address", odd="x"))
        assert (await link.receive()).attrs["type"] == "error"
        await link.send(success())
        await connection.success()
