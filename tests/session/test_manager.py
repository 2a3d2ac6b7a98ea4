"""All sessions over a real store, with scripted connections."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NoReturn, cast

import pytest
import trio
import trio.testing

from tests.messaging.accounts import OWN_LID, OWN_PN
from tests.session.fakes import PAIRED, START_MS, FakeDoors, Step, refused, rejected
from waD.config import Settings, load
from waD.control.api import ControlError, Sessions
from waD.control.types import SendRequest, SessionView
from waD.events.log import EventLog
from waD.events.model import message_status
from waD.messaging import kinds
from waD.messaging.context import MessagingSettings, make_context
from waD.messaging.facade import Messaging
from waD.session.manager import Manager
from waD.session.vitals import Clock, Vitals
from waD.store.errors import StorageUnavailable, StoreDamaged
from waD.store.model import MessageRow
from waD.store.state import SessionState
from waD.store.store import Store, StoreSettings, open_store
from waD.wire.jid import JID

BOB = "15550000002@s.whatsapp.net"
QUICK = Step(dial_s=0, login_s=0, goodbye_s=0)


class Doors(FakeDoors):
    """Scripted connections, and the real messaging over the real store."""

    def messaging(self, state: SessionState) -> Any:
        context = make_context(
            state, settings=MessagingSettings(), now_ms=lambda: START_MS, random=os.urandom
        )
        return Messaging(context)


class Bed:
    """A manager with a store and scripts by session name."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self.store = store
        self.settings = settings
        self.log = EventLog(store)
        self.doors: dict[str, Doors] = {}
        self.scripts: dict[str, list[Step]] = {}
        self.manager = self.again()

    def again(self) -> Manager:
        """Another process over the same store."""
        clock = Clock(unix_ms=lambda: START_MS, jitter=lambda: 0.5, random=os.urandom)
        self.manager = Manager(self.store, self.log, lambda: self.settings, self._doors, clock, "test/1")
        return self.manager

    def _doors(self, name: str) -> Doors:
        script = [*self.scripts.get(name, []), *[QUICK] * 50]
        self.doors[name] = Doors(script)
        return self.doors[name]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Manager]:
        manager = self.manager
        async with trio.open_nursery() as nursery:
            await nursery.start(manager.run)
            yield manager
            await manager.stop()
            nursery.cancel_scope.deadline = trio.current_time() + 5
        assert not nursery.cancel_scope.cancelled_caught

    async def paired(self, *names: str, desired: str = "up") -> None:
        """Make paired sessions, as a process before left them."""
        for name in names:
            row = await self.store.create_session(name)
            state = await self.store.attach(row.id, "before")
            device = len(await self.store.sessions()) + 6
            own = PAIRED.change(
                me_pn=OWN_PN.account.with_device(device), me_lid=OWN_LID.account.with_device(device)
            )
            unit = state.unit()
            unit.set_creds(own.serialize())
            unit.set_session(
                me_pn=str(own.me_pn), me_lid=str(own.me_lid), desired_state=desired, current_status="stopped"
            )
            await state.commit(unit)

    def vitals(self, name: str) -> Vitals:
        """What the supervisor of a session shows."""
        entries = self.manager.roster.entries.values()
        return next(e.supervisor.vitals for e in entries if e.supervisor.vitals.name == name)

    async def until(self, name: str, condition: Callable[[SessionView], bool]) -> SessionView:
        """Wait until a session's view is as wanted."""
        with trio.fail_after(10):
            while True:
                news = self.log.news
                view = await self.manager.status(name)
                if condition(view):
                    return view
                with trio.move_on_after(0.05):
                    await news.wait()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with open_store(StoreSettings(path=tmp_path / "state" / "waD.db")) as opened:
        yield opened


@pytest.fixture
async def bed(store: Store, tmp_path: Path) -> Bed:
    config = tmp_path / "waD.toml"
    config.write_text("[daemon]\nrestore_spread = 0\nstop_timeout = 2\n[alerts]\nreconnects = 1000\n")
    return Bed(store, load(config, {"HOME": str(tmp_path)}))


def is_open(view: SessionView) -> bool:
    return view.state == "open" and view.ready


async def refuses(symbol: str, work: Any) -> ControlError:
    with pytest.raises(ControlError) as caught:
        await work
    assert caught.value.symbol == symbol
    return caught.value


async def test_it_is_what_the_control_protocol_needs(bed: Bed) -> None:
    sessions: Sessions = bed.manager
    assert sessions is bed.manager


# Life.


async def test_all_wanted_sessions_are_taken_up_and_closed(bed: Bed) -> None:
    await bed.paired("one", "two", "three")
    await bed.paired("down", desired="down")
    async with bed.running() as manager:
        for name in ("one", "two", "three"):
            await bed.until(name, is_open)
        views = {view.name: view for view in await manager.list()}
        assert list(views) == ["down", "one", "three", "two"]
        assert views["down"].state == "stopped"
        assert views["one"].me == str(OWN_LID.account)
        assert views["one"].paired
    assert [doors.live for doors in bed.doors.values()] == [0] * 4
    rows = {row.name: row for row in await bed.store.sessions()}
    assert (rows["one"].current_status, rows["one"].desired_state) == ("stopped", "up")


async def test_a_new_process_takes_up_where_the_old_one_was(bed: Bed) -> None:
    await bed.paired("one", "two")
    bed.scripts["two"] = [rejected("f406", 406)]
    async with bed.running():
        await bed.until("one", is_open)
        await bed.until("two", lambda view: view.state == "failed")
    bed.scripts.clear()
    bed.again()
    async with bed.running() as manager:
        await bed.until("one", is_open)
        view = await manager.status("two")
        assert view.state == "failed"
        assert view.last_disconnect is not None
        assert (view.last_disconnect.cause, view.last_disconnect.code) == ("f406", 406)
        assert "counters" not in view.last_disconnect.detail
        assert "wactl connect two" in view.hint
        await manager.connect("two")
        await bed.until("two", is_open)


async def test_broken_sessions_do_not_delay_the_others(bed: Bed) -> None:
    broken = [f"bad-{n}" for n in range(5)]
    for name in broken:
        bed.scripts[name] = [Step(dial_s=1e6)]
    await bed.paired(*broken, *[f"good-{n}" for n in range(8)])
    async with bed.running():
        for number in range(8):
            await bed.until(f"good-{number}", is_open)


async def test_a_session_that_cannot_be_attached_is_tried_again_later(
    bed: Bed, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await bed.paired("one", "two")
    attach = bed.store.attach

    async def failing(session_id: str, holder: str) -> SessionState:
        if (await bed.store.require_session("one")).id == session_id:
            raise StorageUnavailable("input/output error")
        return await attach(session_id, holder)

    monkeypatch.setattr(bed.store, "attach", failing)
    async with bed.running() as manager:
        await bed.until("two", is_open)
        assert "session one cannot be taken up: input/output error" in caplog.text
        assert (await manager.status("one")).state == "stopped"
        await refuses("storage_unavailable", manager.connect("one"))
        monkeypatch.undo()
        await manager.connect("one")
        await bed.until("one", is_open)


async def test_stop_does_not_wait_for_ever(bed: Bed, caplog: pytest.LogCaptureFixture) -> None:
    bed.scripts["slow"] = [Step(dial_s=0, login_s=0, goodbye_s=1e6)]
    await bed.paired("slow", "quick")
    async with bed.running():
        await bed.until("slow", is_open)
        await bed.until("quick", is_open)
        began = trio.current_time()
    assert 1.9 < trio.current_time() - began < 4
    assert "sessions that did not end in time: slow" in caplog.text


async def test_while_stopping_new_work_is_refused_and_questions_are_answered(bed: Bed) -> None:
    await bed.paired("one")
    async with bed.running() as manager:
        await bed.until("one", is_open)
        await manager.stop()
        await refuses("shutting_down", manager.connect("one"))
        await refuses("shutting_down", manager.send(SendRequest(session="one", to="15550000002", text="x")))
        assert (await manager.status("one")).state == "stopped"


# Orders.


async def test_connect_makes_a_session_and_shows_codes(bed: Bed) -> None:
    bed.scripts["alerts"] = [Step(dial_s=0, pairs=True, login_s=0.3)]
    async with bed.running() as manager:
        view = await manager.connect("alerts")
        assert view.desired == "up"
        assert not view.paired
        shown = await bed.until("alerts", lambda view: view.state == "pairing")
        await bed.until("alerts", lambda _: bed.vitals("alerts").qr is not None)
        code = await manager.qr("alerts")
        assert code is not None
        assert (code.qr, code.number, code.of) == ("code-1", 1, 6)
        assert shown.hint == "wactl qr alerts"
        view = await bed.until("alerts", is_open)
        assert view.paired
        assert view.me == str(OWN_LID.account)
        assert await manager.qr("alerts") is None
        assert await manager.qr(view.connection_id) is None


@pytest.mark.parametrize("name", ["", "-x", ".x", "a b", "a/b", "ä", "x" * 65, "a\n"])
async def test_a_bad_name_is_refused_and_nothing_is_made(bed: Bed, name: str) -> None:
    async with bed.running() as manager:
        error = await refuses("bad_params", manager.connect(name))
        assert error.data["param"] == "name"
    assert await bed.store.sessions(include_retired=True) == []


async def test_nobody_by_that_name(bed: Bed) -> None:
    async with bed.running() as manager:
        for work in (
            manager.status("x"), manager.disconnect("x"), manager.logout("x"), manager.remove("x"), manager.qr("x"),
            manager.send(SendRequest(session="x", to="15550000002", text="x")), manager.wait("x", "id", "sent"),
            manager.messages("x", chat=None, before=None, limit=5), manager.mark_read("x", BOB, ["a"]),
            manager.events(since=0, types=(), session="x", limit=5), manager.hold("x"), manager.release("x"),
        ):  # fmt: skip
            await refuses("no_such_session", work)


async def test_disconnect_and_connect_again(bed: Bed) -> None:
    await bed.paired("one")
    async with bed.running() as manager:
        view = await bed.until("one", is_open)
        view = await manager.disconnect(view.connection_id)
        assert (view.state, view.desired, view.healthy) == ("stopped", "down", None)
        assert bed.doors["one"].live == 0
        assert (await manager.connect("one")).desired == "up"
        await bed.until("one", is_open)


async def test_connect_tries_at_once_in_backoff(bed: Bed) -> None:
    bed.scripts["one"] = [rejected("f429", 429)]
    await bed.paired("one")
    async with bed.running() as manager:
        view = await bed.until("one", lambda view: view.state == "backoff")
        assert view.next_attempt_at == START_MS + 30_500
        await manager.connect("one")
        await bed.until("one", is_open)


async def test_hold_and_release(bed: Bed) -> None:
    await bed.paired("one")
    async with bed.running() as manager:
        await bed.until("one", is_open)
        view = await manager.hold("one")
        assert (view.state, view.held, view.desired) == ("stopped", True, "up")
        error = await refuses("wrong_state", manager.connect("one"))
        assert "release one" in error.message
    bed.again()
    async with bed.running() as manager:
        await trio.testing.wait_all_tasks_blocked(0.1)
        assert (await manager.status("one")).state == "stopped"
        await manager.release("one")
        await bed.until("one", is_open)


async def test_reset(bed: Bed) -> None:
    bed.scripts["one"] = [rejected("f406", 406)]
    await bed.paired("one")
    async with bed.running() as manager:
        await bed.until("one", lambda view: view.state == "failed")
        view = await manager.reset("one")
        assert view.last_disconnect is None
        assert (await bed.store.require_session("one")).last_disconnect is None


async def test_history_is_found_by_number_after_the_credentials_were_cleared(bed: Bed) -> None:
    lid = "100000000000002@lid"
    await bed.paired("one", desired="down")
    async with bed.running() as manager:
        await manager.status("one")
        (entry,) = manager.roster.entries.values()
        context = entry.supervisor.messaging.context
        async with context.state.lock:
            unit = context.state.unit()
            await context.addresses.learn(unit, JID.parse(BOB), JID.parse(lid), "live")
            unit.put(kinds.SESSION, "100000000000002_1.0", b'"secret"')
            await context.state.commit(unit)
        sent = await enqueue(manager)
        await manager.logout("one")
        assert await context.state.all_items(kinds.SESSION) == {}
        for chat in ("15550000002", BOB, lid):
            page = await manager.messages("one", chat=chat, before=None, limit=10)
            assert [(m.message_id, m.chat, m.status) for m in page.messages] == [(sent, lid, "held")]


async def test_who_is_who_that_cannot_be_read_keeps_nobody_from_beginning_anew(
    bed: Bed, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await bed.paired("one", desired="down")
    async with bed.running() as manager:
        await manager.status("one")
        (entry,) = manager.roster.entries.values()

        async def broken(kind: str) -> NoReturn:
            raise StoreDamaged(f"{kind} is damaged")

        monkeypatch.setattr(entry.supervisor.state, "all_items", broken)
        assert (await manager.logout("one")).session.paired is False
        assert "lid-of-pn is damaged" in caplog.text


async def test_logout_seals_clears_and_keeps_the_history(bed: Bed) -> None:
    await bed.paired("one")
    async with bed.running() as manager:
        view = await bed.until("one", is_open)
        await manager.send(SendRequest(session="one", to="15550000002", text="before"))
        done = await manager.logout("one")
        assert (done.unlinked, done.session.state, done.session.paired) == (True, "stopped", False)
        assert done.backup is not None
        assert "sealed" in done.backup
        page = await manager.messages("one", chat=None, before=None, limit=10)
        assert [message.body for message in page.messages] == ["before"]
        await refuses("wrong_state", manager.logout("one"))
        error = await refuses(
            "wrong_state", manager.send(SendRequest(session="one", to="15550000002", text="x"))
        )
        assert "wactl connect one" in error.message
        events = await manager.events(since=0, types=("auth:reset",), session=view.connection_id, limit=9)
        assert events.events[0].data["reason"] == "logout"
    row = await bed.store.require_session("one")
    assert (row.me_pn, row.desired_state, row.auth_epoch) == (None, "down", 2)


async def test_repair_keeps_history_and_events(bed: Bed) -> None:
    bed.scripts["one"] = [rejected("f401", 401), Step(dial_s=0, pairs=True, login_s=0)]
    await bed.paired("one")
    async with bed.running() as manager:
        view = await bed.until("one", is_open)
        row = await bed.store.require_session("one")
        assert (row.auth_epoch, view.paired) == (2, True)
        events = await manager.events(since=0, types=(), session="one", limit=500)
        kinds = [event.type for event in events.events]
        assert kinds.index("connection:error") < kinds.index("auth:reset")
        assert "alert:raised" in kinds


async def test_remove_retires_and_the_name_comes_back_with_its_id(bed: Bed) -> None:
    await bed.paired("one")
    async with bed.running() as manager:
        view = await bed.until("one", is_open)
        removed = await manager.remove("one")
        assert removed.connection_id == view.connection_id
        assert bed.doors["one"].live == 0
        assert await manager.list() == []
        await refuses("no_such_session", manager.status("one"))
        assert (await manager.events(since=0, types=(), session="one", limit=9)).events
        again = await manager.connect("one")
        assert again.connection_id == view.connection_id
        await bed.until("one", is_open)


async def test_a_session_that_another_process_took(bed: Bed) -> None:
    await bed.paired("one")
    async with bed.running() as manager:
        view = await bed.until("one", is_open)
        await bed.store.attach(view.connection_id, "other/2")
        await manager.disconnect("one")
        assert (await manager.status("one")).state == "stopped"
        error = await refuses("lease_held", manager.connect("one"))
        assert error.data["holder"] == "other/2"
        with trio.fail_after(5):
            async with manager.subscribe(
                since=0, types=("alert:raised",), session="one", follow=True
            ) as alerts:
                alert = await anext(alerts)
        assert alert.connection_id == view.connection_id
        assert (alert.data["severity"], alert.data["cause"]) == ("critical", "lease_lost")


# Messages.


async def test_send_queues_offline_and_a_key_makes_it_once(bed: Bed) -> None:
    await bed.paired("one", desired="down")
    async with bed.running() as manager:
        request = SendRequest(session="one", to="15550000002", text="hello", idempotency_key="k")
        first = await manager.send(request)
        assert (first.state, first.chat, first.duplicate, first.session) == ("queued", BOB, False, "one")
        again = await manager.send(request)
        assert (again.message_id, again.seq, again.duplicate) == (first.message_id, first.seq, True)
        assert (await manager.status("one")).queued == 1
        page = await manager.messages("one", chat="15550000002", before=None, limit=10)
        assert [(m.message_id, m.status, m.body) for m in page.messages] == [
            (first.message_id, "queued", "hello")
        ]


@pytest.mark.parametrize(
    ("change", "symbol", "param"),
    [
        ({"text": ""}, "invalid_text", None),
        ({"text": "x" * 65_537}, "invalid_text", None),
        ({"to": "nobody@nowhere"}, "bad_params", "to"),
        ({"to": "12"}, "bad_params", "to"),
        ({"quote": "NOSUCH"}, "bad_params", "quote"),
        ({"mentions": ["x@y"]}, "bad_params", "mentions"),
    ],
)
async def test_send_refuses_what_cannot_be_sent(
    bed: Bed, change: dict[str, Any], symbol: str, param: str | None
) -> None:
    await bed.paired("one", desired="down")
    async with bed.running() as manager:
        fields = {"session": "one", "to": "15550000002", "text": "hello"} | change
        error = await refuses(symbol, manager.send(SendRequest(**fields)))
        assert error.data.get("param") == param
        assert (await manager.status("one")).queued == 0


async def enqueue(manager: Manager) -> str:
    sent = await manager.send(SendRequest(session="one", to="15550000002", text="hello"))
    return sent.message_id


def state_of(manager: Manager) -> SessionState:
    (entry,) = manager.roster.entries.values()
    return entry.supervisor.state


async def move(manager: Manager, message_id: str, status: int) -> None:
    """As the server's ack or a receipt does."""
    state = state_of(manager)
    unit = state.unit()
    unit.update_outbox(message_id, state="sent")
    unit.raise_status(BOB, message_id, status)
    unit.event(*message_status(BOB, message_id, status))
    await state.commit(unit)


async def test_wait_until_delivered(bed: Bed) -> None:
    await bed.paired("one", desired="down")
    async with bed.running() as manager:
        message_id = await enqueue(manager)
        found: list[str] = []

        async def wait() -> None:
            found.append((await manager.wait("one", message_id, "delivered")).state)

        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait)
                for status in (2, 2):
                    await move(manager, message_id, status)
                    await trio.testing.wait_all_tasks_blocked(0.05)
                    assert found == []
                await move(manager, message_id, 4)
        assert found == ["read"]
        assert (await manager.wait("one", message_id, "sent")).state == "read"


async def test_wait_for_what_failed_and_for_what_is_not_there(bed: Bed) -> None:
    await bed.paired("one", desired="down")
    async with bed.running() as manager:
        message_id = await enqueue(manager)
        await refuses("no_such_session", manager.wait("one", "3EB000", "sent"))
        state = state_of(manager)

        async def fail() -> None:
            await trio.testing.wait_all_tasks_blocked(0.05)
            unit = state.unit()
            unit.update_outbox(message_id, state="failed", last_error="463")
            unit.event(*message_status(BOB, message_id, "failed", code=463))
            await state.commit(unit)

        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fail)
                error = await refuses("refused", manager.wait("one", message_id, "read"))
        assert error.data == {"messageId": message_id, "state": "failed", "code": 463}


async def test_wait_is_cancelled_with_its_caller(bed: Bed) -> None:
    await bed.paired("one", desired="down")
    async with bed.running() as manager:
        message_id = await enqueue(manager)
        with trio.move_on_after(0.1) as scope:
            await manager.wait("one", message_id, "sent")
        assert scope.cancelled_caught


async def receive(manager: Manager, count: int) -> list[str]:
    state = state_of(manager)
    unit = state.unit()
    ids = [f"IN{n:03d}" for n in range(count)]
    for n, message_id in enumerate(ids):
        unit.add_message(
            MessageRow(
                chat=BOB, sender=BOB, message_id=message_id, from_me=False, ts=START_MS + n, kind="text", body=f"{n}",
                status=3, wire_chat=BOB, wire_sender=BOB,
            )
        )  # fmt: skip
    await state.commit(unit)
    return ids


async def test_pages_of_the_history(bed: Bed) -> None:
    await bed.paired("one", desired="down")
    async with bed.running() as manager:
        await receive(manager, 25)
        bodies: list[str | None] = []
        before: int | None = None
        while True:
            page = await manager.messages("one", chat="15550000002", before=before, limit=10)
            bodies += [message.body for message in page.messages]
            if page.next is None:
                break
            before = page.next
        assert bodies == [str(n) for n in reversed(range(25))]
        assert {m.status for m in page.messages} == {"received"}
        other = await manager.messages("one", chat="15550000009", before=None, limit=10)
        assert (other.messages, other.next) == ([], None)
        await refuses("bad_params", manager.messages("one", chat="a b@c", before=None, limit=10))


async def test_mark_read_says_so_over_the_open_connection(bed: Bed) -> None:
    await bed.paired("one", desired="down")
    async with bed.running() as manager:
        ids = await receive(manager, 3)
        await refuses("wrong_state", manager.mark_read("one", "15550000002", ids))
        await manager.connect("one")
        await bed.until("one", is_open)
        await refuses("bad_params", manager.mark_read("one", "15550000002", ["NOSUCH"]))
        assert (await manager.mark_read("one", "15550000002", ids[:2])).marked == 2
        assert (await manager.mark_read("one", BOB, ids)).marked == 1
        nodes = bed.doors["one"].links[-1].sent
        assert [node.attrs["type"] for node in nodes] == ["read", "read"]
        page = await manager.messages("one", chat=None, before=None, limit=10)
        assert {message.status for message in page.messages} == {"read"}


# Events.


async def test_events_by_page_and_by_subscription(bed: Bed) -> None:
    await bed.paired("one", "two", desired="down")
    async with bed.running() as manager:
        start = (await manager.events(since=0, types=(), session=None, limit=500)).last
        async with manager.subscribe(
            since=start, types=("connection:status",), session="one", follow=True
        ) as stream:
            assert stream.last == start
            await manager.connect("two")
            await manager.connect("one")
            with trio.fail_after(5):
                states = [(await anext(aiter(stream))).data["status"] for _ in range(3)]
            assert states == ["connecting", "open", "open"]
        await bed.until("two", is_open)
        page = await manager.events(since=start, types=("connection:status",), session=None, limit=2)
        assert len(page.events) == 2
        more = await manager.events(since=page.events[-1].cursor, types=(), session=None, limit=500)
        assert {event.session for event in more.events} <= {"one", "two", None}
        assert more.last >= more.events[-1].cursor


async def test_a_subscription_that_reaches_back_too_far(bed: Bed, store: Store) -> None:
    await bed.paired("one", desired="down")
    for _ in range(3):
        await store.append_event(None, "a:b", {})
    await store.prune(2**53)
    async with bed.running() as manager:
        error = await refuses("cursor_expired", manager.events(since=0, types=(), session=None, limit=5))
        assert error.data["oldest"] > 0
        with pytest.raises(ControlError) as caught:
            async with manager.subscribe(since=0, types=(), session=None, follow=True):
                pass
        assert caught.value.symbol == "cursor_expired"


async def test_many_orders_at_once_make_one_session(bed: Bed) -> None:
    async with bed.running() as manager:
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(manager.connect, "one")
        await bed.until("one", lambda view: view.state == "pairing")
        assert len(await manager.list()) == 1
        assert len(cast(Doors, bed.doors["one"]).dials) == 1


async def test_the_store_is_refused_by_name_when_it_is_gone(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bed.paired("one", desired="down")
    async with bed.running() as manager:

        async def down(*args: object, **more: object) -> None:
            raise StorageUnavailable("/var/lib/waD/waD.db: disk full; free some space")

        monkeypatch.setattr(bed.store, "update_session", down)
        error = await refuses("storage_unavailable", manager.connect("one"))
        assert "disk full" in error.message
        assert (await manager.status("one")).desired == "down"


async def test_the_dial_failure_of_one_shows_in_its_view_only(bed: Bed) -> None:
    bed.scripts["bad"] = [refused("dns", dial_s=0)] * 99
    await bed.paired("bad", "good")
    async with bed.running() as manager:
        await bed.until("good", is_open)
        view = await bed.until("bad", lambda view: view.state == "backoff" and view.reconnect_attempt >= 1)
        assert view.last_disconnect is not None
        assert view.last_disconnect.cause == "dns"
        assert (await manager.status("good")).last_disconnect is None
