"""Subscriptions: order, pages, slow readers, expiry, and many who commit at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.lowlevel
import trio.testing
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from waD.events.log import RECENT, EventLog
from waD.store.errors import CursorExpired, StorageUnavailable
from waD.store.model import EventRow
from waD.store.store import Store, StoreSettings, open_store

DAY_MS = 86_400_000


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    settings = StoreSettings(path=tmp_path / "state" / "waD.db", events_per_session=10)
    async with open_store(settings) as opened:
        yield opened


@pytest.fixture
async def session_id(store: Store) -> str:
    return (await store.create_session("alerts")).id


async def append(store: Store, session_id: str | None, first: int, last: int, kind: str = "a:b") -> None:
    for number in range(first, last + 1):
        await store.append_event(session_id, kind, {"n": number})


async def take(subscription: Any, count: int) -> list[int]:
    with trio.fail_after(20):
        return [(await anext(subscription)).data["n"] for _ in range(count)]


def numbers(rows: list[EventRow]) -> list[int]:
    return [row.data["n"] for row in rows]


async def test_what_was_there_comes_first_then_what_is_committed(store: Store, session_id: str) -> None:
    log = EventLog(store, page_size=3)
    await append(store, session_id, 1, 8)
    async with log.subscribe(since=0) as events, trio.open_nursery() as nursery:
        nursery.start_soon(append, store, session_id, 9, 12)
        assert await take(events, 12) == list(range(1, 13))


async def test_without_a_cursor_it_begins_now(store: Store, session_id: str) -> None:
    log = EventLog(store)
    await append(store, session_id, 1, 3)
    async with log.subscribe() as events:
        assert events.last == events.cursor > 0
        await append(store, session_id, 4, 5)
        assert await take(events, 2) == [4, 5]


async def test_without_follow_it_ends_where_the_log_ended(store: Store, session_id: str) -> None:
    log = EventLog(store, page_size=2)
    await append(store, session_id, 1, 5)
    async with log.subscribe(since=0, follow=False) as events:
        await append(store, session_id, 6, 9)
        assert [event.data["n"] async for event in events] == [1, 2, 3, 4, 5]
    async with log.subscribe(since=0, follow=False, types=("no:such",)) as events:
        assert [event async for event in events] == []
    async with log.subscribe(follow=False) as events:
        assert [event async for event in events] == []


async def test_an_empty_log(store: Store) -> None:
    log = EventLog(store)
    async with log.subscribe(since=0, follow=False) as events:
        assert (events.oldest, events.last) == (0, 0)
        assert [event async for event in events] == []


async def test_only_what_is_wanted(store: Store, session_id: str) -> None:
    other = (await store.create_session("other")).id
    log = EventLog(store, page_size=2)
    for number in range(1, 11):
        await store.append_event([session_id, other, None][number % 3], f"t:{number % 2}", {"n": number})
    async with log.subscribe(since=0, session_id=session_id, types=("t:1",), follow=False) as events:
        assert [event.data["n"] async for event in events] == [3, 9]
    async with log.subscribe(since=0, session_id=other, follow=False) as events:
        assert [event.data["n"] async for event in events] == [1, 4, 7, 10]


async def test_a_subscriber_to_something_rare_does_not_read_the_rest_again(
    store: Store, session_id: str
) -> None:
    log = EventLog(store, page_size=5)
    await append(store, session_id, 1, 30)
    log._recent.clear()
    async with log.subscribe(since=0, types=("rare:one",)) as events, trio.open_nursery() as nursery:
        nursery.start_soon(take, events, 1)
        await trio.testing.wait_all_tasks_blocked(0.1)
        await append(store, session_id, 31, 31)
        await trio.testing.wait_all_tasks_blocked(0.1)
        assert events.cursor == (await store.last_cursor())
        await append(store, session_id, 32, 32, "rare:one")


async def test_a_live_subscriber_needs_no_database(
    store: Store, session_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = EventLog(store)
    await append(store, session_id, 1, 1)
    async with log.subscribe() as events:
        await append(store, session_id, 2, 2)

        async def down(*args: object) -> None:
            raise StorageUnavailable("gone")

        monkeypatch.setattr(store, "events", down)
        await append(store, session_id, 3, 9)
        assert await take(events, 8) == list(range(2, 10))


async def test_a_slow_subscriber_holds_a_page_and_nobody_up(store: Store, session_id: str) -> None:
    log = EventLog(store, page_size=4)
    async with log.subscribe() as slow, log.subscribe() as quick:
        total = RECENT + 50
        for number in range(1, total + 1):
            await store.append_event(session_id, "a:b", {"n": number})
            if number % 50 == 0:
                assert len(slow._ahead) <= 4
                assert await take(quick, 50) == list(range(number - 49, number + 1))
        assert await take(slow, total) == list(range(1, total + 1))
        assert len(log._recent) == RECENT


async def test_an_old_cursor_is_refused_with_the_oldest_one(store: Store, session_id: str) -> None:
    log = EventLog(store)
    await append(store, session_id, 1, 30)
    assert await store.prune(1) > 0
    oldest, last = await log.bounds()
    assert 0 < oldest < last
    with pytest.raises(CursorExpired) as caught:
        async with log.subscribe(since=oldest - 1):
            pass
    assert caught.value.oldest == oldest
    async with log.subscribe(since=oldest, follow=False) as events:
        assert [event.data["n"] async for event in events] == list(range(21, 31))


async def test_a_subscriber_that_is_overtaken_by_the_retention_is_told(store: Store, session_id: str) -> None:
    log = EventLog(store, page_size=2)
    await append(store, session_id, 1, 5)
    async with log.subscribe(since=0) as slow:
        assert await take(slow, 1) == [1]
        await append(store, session_id, 6, RECENT + 40)
        await store.prune(1)
        assert await take(slow, 4) == [2, 3, 4, 5]
        with pytest.raises(CursorExpired):
            await anext(slow)


async def test_everybody_sees_one_order_whoever_commits(store: Store, session_id: str) -> None:
    log = EventLog(store, page_size=7)
    seen: list[list[int]] = [[], [], []]

    async def read(place: int, subscription: Any) -> None:
        async for event in subscription:
            seen[place].append(event.cursor)
            if place == 1:
                await trio.lowlevel.checkpoint()
            if len(seen[place]) == 200:
                return

    async with (
        log.subscribe() as one,
        log.subscribe() as two,
        log.subscribe() as three,
        trio.open_nursery() as nursery,
    ):
        for place, subscription in enumerate((one, two, three)):
            nursery.start_soon(read, place, subscription)
        for part in range(10):
            nursery.start_soon(append, store, session_id, part * 20, part * 20 + 19)
    assert seen[0] == seen[1] == seen[2] == sorted(set(seen[0]))
    assert len(seen[0]) == 200


async def test_news_is_set_by_a_commit_with_events_only(store: Store, session_id: str) -> None:
    log = EventLog(store)
    news = log.news
    await store.update_session(session_id, push_name="x")
    assert not news.is_set()
    await append(store, session_id, 1, 1)
    assert news.is_set()
    assert not log.news.is_set()


@hypothesis_settings(max_examples=25)
@given(plan=st.lists(st.sampled_from("cctrw"), max_size=40), page=st.integers(1, 5))
def test_nothing_is_missed_or_told_twice(
    tmp_path_factory: pytest.TempPathFactory, plan: list[str], page: int
) -> None:
    """c: commit, t: take one, r: restart the log's memory, w: subscribe again from the cursor."""

    async def main() -> None:
        path = tmp_path_factory.mktemp("log") / "state" / "waD.db"
        async with open_store(StoreSettings(path=path)) as store:
            log, committed, taken, cursor = EventLog(store, page), 0, 0, 0
            for step in plan:
                if step == "c":
                    committed += 1
                    await store.append_event(None, "a:b", {"n": committed})
                elif step == "r":
                    log = EventLog(store, page)
                elif taken < committed:
                    async with log.subscribe(since=cursor) as events:
                        for _ in range(1 if step == "t" else committed - taken):
                            taken += 1
                            assert await take(events, 1) == [taken]
                        cursor = events.cursor

    trio.run(main)
