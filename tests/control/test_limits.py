"""One client's excess is its own trouble."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from tests.control.client import Client, Refused, Running, request, serving
from waD.control.peers import Peer
from waD.control.settings import ControlSettings, Limits, Roles

ROLES = Roles(operator=("4001", "4002"))


async def refused_at_the_door(client: Client) -> str:
    answer = await client.read()
    assert answer is not None
    assert (answer["id"], answer["error"]["data"]["symbol"]) == (None, "refused")
    assert await client.read() is None
    limit: str = answer["error"]["data"]["limit"]
    return limit


async def test_one_user_has_so_many_connections(tmp_path: Path) -> None:
    async with serving(tmp_path, ControlSettings(ROLES, Limits(connections_per_uid=2))) as running:
        running.peer = Peer(1, 4001, frozenset())
        async with running.client() as one, running.client() as two:
            await one.call("daemon.ping")
            await two.call("daemon.ping")
            async with running.client() as three:
                assert await refused_at_the_door(three) == "connections_per_uid"
            running.peer = Peer(1, 4002, frozenset())
            async with running.client() as other:
                await other.call("daemon.ping")
            running.peer = Peer(1, 4001, frozenset())
            await two.stream.aclose()
            await running.emptied(but=1)
            async with running.client() as four:
                await four.call("daemon.ping")


async def test_all_users_have_so_many_connections_and_administrators_get_in(tmp_path: Path) -> None:
    async with serving(tmp_path, ControlSettings(ROLES, Limits(connections=1))) as running:
        admin, running.peer = running.peer, Peer(1, 4001, frozenset())
        async with running.client() as one:
            await one.call("daemon.ping")
            running.peer = Peer(1, 4002, frozenset())
            async with running.client() as two:
                assert await refused_at_the_door(two) == "connections"
            running.peer = admin
            async with running.client() as three:
                await three.call("daemon.ping")


async def test_strangers_are_counted_too(tmp_path: Path) -> None:
    async with serving(tmp_path, connections_per_uid=1) as running:
        running.peer = Peer(1, 4009, frozenset())
        async with running.client() as one:
            await one.raw(b"{")  # no request yet
            async with running.client() as two:
                assert await refused_at_the_door(two) == "connections_per_uid"


async def test_requests_beyond_the_limit_wait_their_turn(tmp_path: Path) -> None:
    async with serving(tmp_path, requests=2) as running:
        async with running.client() as client, running.client() as other:
            with running.sessions.block("wait") as release:
                ids = [
                    await client.post("message.wait", session="alerts", messageId=f"A{number}")
                    for number in range(5)
                ]
                await running.sessions.entered("wait", 2)
                await other.call("daemon.ping")
                await trio.testing.wait_all_tasks_blocked()
                assert len(running.sessions.calls) == 2
                release.set()
                answers = [await client.read() for _ in ids]
        assert sorted(answer["id"] for answer in answers if answer) == ids


async def test_messages_of_one_connection_keep_their_order(running: Running, client: Client) -> None:
    texts = [f"message {number}" for number in range(50)]
    with running.sessions.block("send"):
        await client.raw(
            b"".join(
                request(number, "message.send", {"session": "alerts", "to": "15550000002", "text": text})
                for number, text in enumerate(texts)
            )
        )
        await running.sessions.entered("send")
        await trio.testing.wait_all_tasks_blocked()
        assert len(running.sessions.calls) == 1
    answers = [await client.read() for _ in texts]
    assert [answer["id"] for answer in answers if answer] == list(range(50))
    assert [call.text for name, call in running.sessions.calls if name == "send"] == texts


async def test_one_connection_has_so_many_subscriptions(tmp_path: Path) -> None:
    async with serving(tmp_path, subscriptions=2) as running, running.client() as client:
        first = await client.call("events.subscribe")
        await client.call("events.subscribe")
        with pytest.raises(Refused) as refused:
            await client.call("events.subscribe")
        assert (refused.value.symbol, refused.value.data["limit"]) == ("refused", "subscriptions")
        await client.call("events.unsubscribe", subscription=first["subscription"])
        assert (await client.call("events.subscribe"))["subscription"] == 3


async def test_a_client_that_reads_nothing_is_cut_off_in_time(tmp_path: Path, autojump_clock: Any) -> None:
    async with serving(tmp_path, write_timeout=20) as running, running.client() as client:
        for number in range(200):
            running.sessions.log.append(text="x" * 20_000, number=number)
        start = trio.current_time()
        await client.post("events.subscribe", since=0)
        await running.sessions.log.left.wait()
        assert 20 <= trio.current_time() - start <= 25
        assert running.sessions.log.read < 200
