"""What the operator may do with messages that have not left: look, release, cancel."""

from __future__ import annotations

from typing import Any, cast

import pytest
import trio

from tests.session.test_manager import BOB, Bed, bed, is_open, refuses, store  # noqa: F401 - fixtures
from waD.control.types import MAX_IDS, UNFINISHED, OutboxView, SendRequest
from waD.messaging import shelf
from waD.session.manager import Manager
from waD.store.errors import StorageUnavailable
from waD.store.model import OutboxRow, OutboxStatus


async def put(manager: Manager, *texts: str) -> list[str]:
    """Submit messages; returns their ids."""
    requests = [SendRequest(session="one", to="15550000002", text=text) for text in texts]
    return [(await manager.send(request)).message_id for request in requests]


async def set_state(manager: Manager, message_id: str, state: OutboxStatus, **changes: Any) -> None:
    (entry,) = manager.roster.entries.values()
    session = entry.supervisor.state
    unit = session.unit()
    unit.update_outbox(message_id, state=state, **changes)
    await session.commit(unit)


async def row(bed: Bed, message_id: str) -> OutboxRow:  # noqa: F811
    (session,) = await bed.store.sessions()
    found = await bed.store.outbox_row(session.id, message_id=message_id)
    assert found is not None
    return found


async def listed(manager: Manager, *states: str) -> list[OutboxView]:
    page = await manager.outbox("one", states=cast(Any, states) or UNFINISHED, limit=50)
    assert page.total == len(page.messages)
    return page.messages


async def news(manager: Manager, since: int = 0) -> list[tuple[str, str, str | None]]:
    page = await manager.events(since=since, types=("message:status",), session="one", limit=500)
    return [(e.data["messageId"], e.data["status"], e.data.get("error")) for e in page.events]


async def test_the_outbox_is_listed_by_state_and_the_oldest_first(bed: Bed) -> None:  # noqa: F811
    await bed.paired("one", desired="down")
    async with bed.running() as manager:
        first, second, third = await put(manager, "first", "second", "third")
        await set_state(manager, second, "held", attempts=1, written_at=7, last_error="timeout")
        await set_state(manager, third, "sent", sent_at=9)
        assert [m.message_id for m in await listed(manager)] == [first, second]
        (held,) = await listed(manager, "held")
        assert (held.message_id, held.chat, held.state, held.body) == (second, BOB, "held", "second")
        assert (held.attempts, held.written_at, held.last_error) == (1, 7, "timeout")
        assert (held.idempotency_key, held.created_at > 0) == (second, True)
        assert [m.message_id for m in await listed(manager, "sent", "held")] == [second, third]
        page = await manager.outbox("one", states=("queued", "sent"), limit=1)
        assert ([m.message_id for m in page.messages], page.total) == ([first], 2)
        assert "second" not in repr(held)


async def test_held_messages_are_counted_apart(bed: Bed) -> None:  # noqa: F811
    await bed.paired("one", desired="down")
    async with bed.running() as manager:
        first, _, third = await put(manager, "first", "second", "third")
        await set_state(manager, first, "held")
        await set_state(manager, third, "sending")
        view = await manager.status("one")
        assert (view.queued, view.held_messages) == (2, 1)


async def test_a_released_message_is_queued_and_encrypted_anew(bed: Bed) -> None:  # noqa: F811
    await bed.paired("one", desired="down")
    async with bed.running() as manager:
        first, second, third = await put(manager, "first", "second", "third")
        for message_id in (first, second):
            await set_state(manager, message_id, "held", stanza=b"old", attempts=1, last_error="x")
        done = await manager.release_held("one", [second, second])
        assert (done.session, done.count, done.message_ids) == ("one", 1, [second])
        released = await row(bed, second)
        assert (released.state, released.stanza, released.last_error) == ("queued", None, None)
        assert (await row(bed, first)).state == "held"
        assert await news(manager) == [(second, "queued", None)]
        assert (await manager.release_held("one", None)).message_ids == [first]
        assert (await manager.release_held("one", None)).count == 0
        assert [m.message_id for m in await listed(manager, "queued")] == [first, second, third]


async def test_a_cancelled_message_ends_and_stays_in_the_history(bed: Bed) -> None:  # noqa: F811
    await bed.paired("one", desired="down")
    async with bed.running() as manager:
        held, queued, other = await put(manager, "held", "queued", "other")
        await set_state(manager, held, "held")
        assert (await manager.cancel_unsent("one", [queued])).message_ids == [queued]
        assert (await manager.cancel_unsent("one", None)).message_ids == [held]
        assert [(m.message_id, m.last_error) for m in await listed(manager, "cancelled")] == [
            (held, "cancelled"),
            (queued, "cancelled"),
        ]
        assert (await row(bed, other)).state == "queued"
        assert await news(manager) == [
            (queued, "cancelled", "cancelled"),
            (held, "cancelled", "cancelled"),
        ]
        page = await manager.messages("one", chat="15550000002", before=None, limit=10)
        assert {m.message_id: m.status for m in page.messages} == {
            held: "cancelled",
            queued: "cancelled",
            other: "queued",
        }
        error = await refuses("refused", manager.wait("one", held, "sent"))
        assert error.data["state"] == "cancelled"


async def test_who_waits_hears_of_a_cancellation(bed: Bed) -> None:  # noqa: F811
    await bed.paired("one", desired="down")
    async with bed.running() as manager:
        (message_id,) = await put(manager, "x")
        await set_state(manager, message_id, "held")
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:

                async def wait() -> None:
                    await refuses("refused", manager.wait("one", message_id, "sent"))

                nursery.start_soon(wait)
                await trio.testing.wait_all_tasks_blocked(0.05)
                await manager.cancel_unsent("one", [message_id])


@pytest.mark.parametrize("state", ["queued", "sending", "sent", "failed", "expired", "cancelled"])
async def test_only_what_is_held_is_released(bed: Bed, state: OutboxStatus) -> None:  # noqa: F811
    await bed.paired("one", desired="down")
    async with bed.running() as manager:
        held, other = await put(manager, "held", "other")
        await set_state(manager, held, "held")
        await set_state(manager, other, state)
        error = await refuses("wrong_state", manager.release_held("one", [held, other]))
        assert error.data == {"name": "one", "messageId": other, "state": state}
        assert "wactl outbox list one" in str(error)
        assert (await row(bed, held)).state == "held"
        assert await news(manager) == []


@pytest.mark.parametrize("state", ["sending", "sent", "failed", "expired", "cancelled"])
async def test_what_may_have_left_is_not_cancelled(bed: Bed, state: OutboxStatus) -> None:  # noqa: F811
    await bed.paired("one", desired="down")
    async with bed.running() as manager:
        held, other = await put(manager, "held", "other")
        await set_state(manager, held, "held")
        await set_state(manager, other, state)
        error = await refuses("wrong_state", manager.cancel_unsent("one", [held, other]))
        assert error.data["state"] == state
        assert [(await row(bed, one)).state for one in (held, other)] == ["held", state]


async def test_an_unknown_message_or_session_is_refused(bed: Bed) -> None:  # noqa: F811
    await bed.paired("one", desired="down")
    async with bed.running() as manager:
        (held,) = await put(manager, "held")
        await set_state(manager, held, "held")
        for decide in (manager.release_held, manager.cancel_unsent):
            error = await refuses("no_such_session", decide("one", [held, "NOSUCH"]))
            assert error.data["messageId"] == "NOSUCH"
            await refuses("no_such_session", decide("nobody", None))
        await refuses("no_such_session", manager.outbox("nobody", states=UNFINISHED, limit=1))
        assert (await row(bed, held)).state == "held"


async def test_many_are_decided_about_in_batches(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr(shelf, "BATCH", 3)
    await bed.paired("one", desired="down")
    async with bed.running() as manager:
        ids = await put(manager, *(f"{n}" for n in range(8)))
        for message_id in ids:
            await set_state(manager, message_id, "held")
        done = await manager.release_held("one", None)
        assert (done.count, done.message_ids) == (8, ids)
        assert (await manager.status("one")).queued == 8
        assert MAX_IDS == 256


async def test_a_store_that_refuses_leaves_them_held(
    bed: Bed,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await bed.paired("one", desired="down")
    async with bed.running() as manager:
        (held,) = await put(manager, "held")
        await set_state(manager, held, "held")
        full = StorageUnavailable("disk full")
        with monkeypatch.context() as patch:
            patch.setattr(bed.store.engine, "write", lambda jobs: [full] * len(jobs))
            await refuses("storage_unavailable", manager.release_held("one", None))
        assert (await row(bed, held)).state == "held"


async def test_a_session_that_another_process_took_decides_nothing(bed: Bed) -> None:  # noqa: F811
    await bed.paired("one", desired="down")
    async with bed.running() as manager:
        (held,) = await put(manager, "held")
        await set_state(manager, held, "held")
        (session,) = await bed.store.sessions()
        await bed.store.attach(session.id, "other/2")
        await refuses("lease_held", manager.cancel_unsent("one", None))
        assert (await row(bed, held)).state == "held"


async def test_a_session_that_is_up_looks_at_its_outbox_after_a_release(bed: Bed) -> None:  # noqa: F811
    await bed.paired("one")
    async with bed.running() as manager:
        await bed.until("one", is_open)
        (held,) = await put(manager, "held")
        await set_state(manager, held, "held")
        (entry,) = manager.roster.entries.values()
        woken: list[bool] = []
        entry.supervisor.messaging.outbound.wake = lambda: woken.append(True)  # type: ignore[method-assign]
        await manager.release_held("one", [held])
        assert woken == [True]
