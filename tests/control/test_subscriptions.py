"""Events reach a subscriber in order and whole, at the subscriber's own pace."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.control.client import Client, Refused, Running, serving


async def cursors(client: Client, count: int) -> list[int]:
    return [(await client.notice())["params"]["event"]["cursor"] for _ in range(count)]


async def end(client: Client) -> dict[str, Any]:
    notice = await client.notice()
    assert notice["method"] == "events.end"
    params: dict[str, Any] = notice["params"]
    return params


async def test_what_is_stored_comes_first_then_what_happens(running: Running, client: Client) -> None:
    running.sessions.log.append(body="one")
    running.sessions.log.append(body="two")
    opened = await client.call("events.subscribe", since=1)
    assert opened == {"subscription": 1, "oldest": 1, "last": 2}
    assert await client.notice() == {
        "jsonrpc": "2.0",
        "method": "event",
        "params": {
            "subscription": 1,
            "event": {
                "cursor": 2,
                "time": 2,
                "type": "message:new",
                "connectionId": None,
                "session": "alerts",
                "data": {"body": "two"},
            },
        },
    }
    for _ in range(3):
        running.sessions.log.append()
    assert await cursors(client, 3) == [3, 4, 5]


async def test_without_a_cursor_only_what_happens_from_now_on(running: Running, client: Client) -> None:
    running.sessions.log.append()
    assert (await client.call("events.subscribe"))["last"] == 1
    running.sessions.log.append()
    assert await cursors(client, 1) == [2]


async def test_the_answer_comes_before_the_first_event(running: Running, client: Client) -> None:
    running.sessions.log.append()
    for _ in range(20):
        request_id = await client.post("events.subscribe", since=0)
        document = await client.read()
        assert document is not None
        assert document.get("id") == request_id
        await client.notice()
        await client.call("events.unsubscribe", subscription=document["result"]["subscription"])


async def test_types_and_session_select(running: Running, client: Client) -> None:
    log = running.sessions.log
    log.append("message:new", "alerts")
    log.append("connection:status", "alerts")
    log.append("message:new", "other")
    await client.call("events.subscribe", since=0, types=["message:new"], session="alerts", follow=False)
    assert await cursors(client, 1) == [1]
    assert (await end(client))["reason"] == "complete"


async def test_without_follow_it_ends_when_the_log_is_read(running: Running, client: Client) -> None:
    for _ in range(3):
        running.sessions.log.append()
    await client.call("events.subscribe", since=0, follow=False)
    assert await cursors(client, 3) == [1, 2, 3]
    assert await end(client) == {"subscription": 1, "reason": "complete", "cursor": 3, "error": None}
    assert running.sessions.log.open == 0


async def test_nothing_comes_after_unsubscribing(running: Running, client: Client) -> None:
    for _ in range(100):
        running.sessions.log.append()
    await client.call("events.subscribe", since=0)
    await client.call("events.unsubscribe", subscription=1)
    running.sessions.log.append()
    await client.call("daemon.ping")
    before = len(client.notices)
    await client.call("daemon.ping")
    assert len(client.notices) == before
    assert {notice["method"] for notice in client.notices} <= {"event"}
    assert running.sessions.log.open == 0
    with pytest.raises(Refused):
        await client.call("events.unsubscribe", subscription=1)


async def test_two_subscriptions_do_not_mix(running: Running, client: Client) -> None:
    await client.call("events.subscribe", types=["message:new"])
    await client.call("events.subscribe", types=["connection:status"])
    running.sessions.log.append("connection:status")
    running.sessions.log.append("message:new")
    seen = {
        ((p := (await client.notice())["params"])["subscription"], p["event"]["cursor"]) for _ in range(2)
    }
    assert seen == {(1, 2), (2, 1)}


async def test_a_cursor_that_is_gone_is_refused_with_the_oldest(running: Running, client: Client) -> None:
    for _ in range(5):
        running.sessions.log.append()
    running.sessions.log.oldest = 4
    with pytest.raises(Refused) as refused:
        await client.call("events.subscribe", since=1)
    assert (refused.value.symbol, refused.value.data["oldest"]) == ("cursor_expired", 4)
    with pytest.raises(Refused) as refused:
        await client.call("events.subscribe", session="nobody")
    assert refused.value.symbol == "no_such_session"
    assert (await client.call("events.subscribe", since=3))["subscription"] == 3


async def test_a_subscription_that_falls_behind_the_log_ends_and_says_where(
    running: Running, client: Client
) -> None:
    running.sessions.log.append()
    await client.call("events.subscribe", since=0)
    assert await cursors(client, 1) == [1]
    running.sessions.log.oldest = 9
    running.sessions.log.append()
    ended = await end(client)
    assert (ended["reason"], ended["cursor"]) == ("failed", 1)
    assert ended["error"]["data"] == {"symbol": "cursor_expired", "oldest": 9}
    await client.call("daemon.ping")


async def test_a_fault_in_the_log_ends_the_subscription_with_a_reference(
    running: Running, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    running.sessions.log.append()
    running.sessions.log.fault_at = 2
    await client.call("events.subscribe", since=0)
    running.sessions.log.append()
    assert await cursors(client, 1) == [1]
    ended = await end(client)
    assert ended["error"]["data"]["symbol"] == "internal_error"
    assert ended["error"]["data"]["reference"] in caplog.text
    assert "secret" not in caplog.text
    assert "secret" not in str(ended)


async def test_an_event_that_cannot_be_written_down_ends_the_subscription(
    running: Running, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    await client.call("events.subscribe")
    running.sessions.log.append(body=object())
    assert (await end(client))["reason"] == "failed"
    await client.call("daemon.ping")


async def test_a_slow_subscriber_holds_up_nobody_and_misses_nothing(running: Running, client: Client) -> None:
    total = 3_000
    async with running.client() as slow:
        await slow.call("events.subscribe", since=0)
        await client.call("events.subscribe", since=0)
        for number in range(total):
            running.sessions.log.append(number=number, text="x" * 1_000)  # never waits for a subscriber
        with trio.fail_after(30):
            assert await cursors(client, total) == list(range(1, total + 1))
        await trio.testing.wait_all_tasks_blocked()
        # The log is read for the slow one no further than its socket and the outbox hold.
        assert running.sessions.log.read < total + 1_000
        assert (await client.call("session.status", name="alerts"))["state"] == "open"
        assert await cursors(slow, total) == list(range(1, total + 1))
    assert running.sessions.log.read == 2 * total


async def test_a_subscriber_that_has_said_its_last_word_still_gets_events(
    running: Running, client: Client
) -> None:
    await client.call("events.subscribe")
    await client.stream.send_eof()
    await trio.testing.wait_all_tasks_blocked()
    running.sessions.log.append()
    assert await cursors(client, 1) == [1]


async def test_a_subscriber_that_hangs_up_leaves_nothing_behind(tmp_path: Path) -> None:
    async with serving(tmp_path) as running:
        for backlog in (0, 2_000):
            for _ in range(backlog):
                running.sessions.log.append(text="x" * 1_000)
            async with running.client() as client:
                await client.call("events.subscribe", since=0)
                assert running.sessions.log.open == 1
            await running.emptied()
            assert running.sessions.log.open == 0
