"""The life cycle of `media_conn` on one connection (chapter 05 §1.1)."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from tests.link.requester import Answer, FakeRequester, refusal
from tests.messaging.media.hosts_kit import conn_node
from waD.link.causes import cause
from waD.link.errors import Disconnected, RequestTimeout
from waD.messaging.media.errors import MediaError
from waD.messaging.media.hosts import MediaHosts
from waD.wire.node import Node

Clock = trio.testing.MockClock


async def test_asked_once_and_kept(autojump_clock: Clock) -> None:
    link = FakeRequester([conn_node()])
    hosts = MediaHosts(link)
    first = await hosts.current()
    assert await hosts.current() is first
    assert not hosts.due
    assert len(link.sent) == 1


async def test_many_who_need_it_wait_for_one_question(autojump_clock: Clock) -> None:
    link = FakeRequester([conn_node()])
    hosts = MediaHosts(link)
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(hosts.current)
    assert len(link.sent) == 1


@pytest.mark.parametrize(("ttl", "auth_ttl", "due_at"), [("300", "21600", 300), ("21600", "1000", 800)])
async def test_due_before_it_runs_out(ttl: str, auth_ttl: str, due_at: float, autojump_clock: Clock) -> None:
    link = FakeRequester([conn_node(ttl=ttl, auth_ttl=auth_ttl), conn_node("two.test")])
    hosts = MediaHosts(link)
    first = await hosts.current()
    await trio.sleep(due_at - 1)
    assert not hosts.due
    await trio.sleep(1)
    assert hosts.due
    assert await hosts.current() is first, "still good"
    await hosts.renew()
    assert (await hosts.current()).hosts[0].name == "two.test"
    assert not hosts.due


async def test_a_credential_that_ran_out_is_not_used(autojump_clock: Clock) -> None:
    link = FakeRequester([conn_node(auth_ttl="60"), conn_node("two.test"), refusal(500)])
    hosts = MediaHosts(link)
    await hosts.current()
    await trio.sleep(61)
    assert (await hosts.current()).hosts[0].name == "two.test"


async def test_refused_counts_for_the_answer_that_was_used(autojump_clock: Clock) -> None:
    link = FakeRequester([conn_node(), conn_node("two.test"), conn_node("three.test")])
    hosts = MediaHosts(link)
    first = await hosts.current()
    hosts.refused(first)
    second = await hosts.current()
    hosts.refused(first)
    assert await hosts.current() is second
    assert len(link.sent) == 2


@pytest.mark.parametrize(
    ("answer", "code", "pause_s"),
    [
        (refusal(507, "resource-limit", backoff="120"), "throttled", 120),
        (refusal(507), "throttled", 60),
        (refusal(500), "media_conn", 10),
        (refusal(429, backoff="33"), "media_conn", 33),
        (RequestTimeout("media_conn", 60), "media_conn", 10),
        (conn_node("not a host"), "media_conn", 10),
    ],
)
async def test_a_failure_is_followed_by_a_pause(
    answer: Answer, code: str, pause_s: float, autojump_clock: Clock
) -> None:
    link = FakeRequester([answer, conn_node()])
    hosts = MediaHosts(link)
    for wait_s in (0, pause_s - 1):
        await trio.sleep(wait_s)
        with pytest.raises(MediaError) as caught:
            await hosts.current()
        assert (caught.value.code, caught.value.permanent) == (code, False)
        assert caught.value.retry_after_s == pause_s - wait_s
    assert len(link.sent) == 1
    await trio.sleep(1)
    await hosts.current()


async def test_throttled_keeps_what_is_there(autojump_clock: Clock) -> None:
    link = FakeRequester([conn_node(), refusal(507, backoff="1000"), conn_node("two.test")])
    hosts = MediaHosts(link)
    first = await hosts.current()
    await trio.sleep(300)
    await hosts.renew()
    assert await hosts.current() is first
    assert not hosts.due, "the server said when"
    await trio.sleep(1000)
    assert hosts.due


async def test_the_end_of_the_connection_is_told(autojump_clock: Clock) -> None:
    link = FakeRequester(lambda _: Disconnected(cause("eof", "gone")))
    hosts = MediaHosts(link)
    with pytest.raises(Disconnected):
        await hosts.current()


async def test_who_is_cancelled_while_asking_leaves_the_door_open(autojump_clock: Clock) -> None:
    class Slow(FakeRequester):
        async def request(self, node: Node, timeout: float | None = None) -> Node:  # noqa: ASYNC109
            await trio.sleep(5)
            return await super().request(node, timeout)

    hosts = MediaHosts(Slow([conn_node()]))
    with trio.move_on_after(1):
        await hosts.current()
    await hosts.current()
