"""The newest backup and verification of a session are known for as long as it lives."""

from __future__ import annotations

from waD.store.store import Store

DAY = 86_400_000
KINDS = ("auth:backup", "auth:verified")


async def test_the_newest_of_each_session_stays(store: Store) -> None:
    first, second = await store.create_session("one"), await store.create_session("two")
    newest = {}
    for number in range(3):
        for row in (first, second):
            for kind in (*KINDS, "message:new"):
                newest[row.id, kind] = await store.append_event(row.id, kind, {"number": number})
    now = newest[second.id, "message:new"].time
    assert await store.prune(now + 31 * DAY) == 2 * 3 + 2 * 2 * 2
    for row in (first, second):
        assert await store.last_event(row.id, "message:new") is None
        for kind in KINDS:
            assert await store.last_event(row.id, kind) == newest[row.id, kind]
    assert await store.prune(now + 365 * DAY) == 0
    later = await store.append_event(first.id, KINDS[0], {})
    assert await store.prune(now + 31 * DAY) == 1
    assert await store.last_event(first.id, KINDS[0]) == later


async def test_also_in_a_crowded_log(store: Store) -> None:
    row = await store.create_session("one")
    backup = await store.append_event(row.id, KINDS[0], {})
    for number in range(10):
        await store.append_event(row.id, "message:new", {"number": number})
    store.settings = type(store.settings)(path=store.settings.path, events_per_session=4)
    assert await store.prune(backup.time) == 6
    assert await store.last_event(row.id, KINDS[0]) == backup
    events = await store.events(after=await store.oldest_cursor())
    assert [event.data["number"] for event in events] == [6, 7, 8, 9]
