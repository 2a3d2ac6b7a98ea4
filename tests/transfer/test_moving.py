"""Sessions between stores: exact, and never startable in both, wherever a move stops."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.transfer.moves import (
    CHAT,
    NAME,
    SAMPLE,
    Crash,
    Opening,
    content,
    crash_at,
    fill,
    message,
    move,
    same,
    secret,
    sqlite,
    startable,
)
from tests.transfer.samples import NOW, a_sample
from waD.messaging import kinds
from waD.store.engine import (
    AppendEvent,
    Attach,
    CommitUnit,
    CreateSession,
    Engine,
    ReleaseLease,
    StageMove,
    UpdateSession,
)
from waD.store.errors import LeaseLost, StoreError
from waD.store.model import SessionRow
from waD.store.unit import Unit
from waD.transfer.migrating import moving
from waD.transfer.migrating.stores import MoveRefused, do, put_imported, stored_state


@pytest.fixture(autouse=True)
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moving, "PAGE", 3)


def test_everything_arrives_and_the_source_cannot_start(source: Engine, target: Engine) -> None:
    row = fill(source)
    before = content(source, row.id)
    planned = move(source, target).plan()
    assert (planned.rows["whatsapp_messages"], planned.done) == (7, False)
    assert target.sessions(True) == []
    moved = move(source, target).run()
    there = target.session(NAME)
    assert there is not None
    assert (moved.done, moved.resumed, moved.session_id) == (True, False, there.id)
    assert moved.rows["whatsapp_messages"] == 7
    assert content(target, there.id) == before
    assert same(stored_state(target, there), SAMPLE.state)
    assert (there.desired_state, there.current_status, there.lease_holder) == ("down", "stopped", None)
    assert there.me_pn == row.me_pn
    assert (there.last_connected_at, there.reconnect_count, there.messages_received) == (NOW, 3, 4)
    assert there.auth_epoch == row.auth_epoch + 1
    assert [one.state for one in target.outbox(there.id, ["queued", "sending"], 10)] == ["queued", "sending"]
    assert target.plaintext(there.id, "O9") == [(CHAT, b"what was sent")]
    assert target.secrets(there.id, ("", "", ""), 10)[0] == [secret(number) for number in range(4)]
    assert target.move_note(f"move.arriving.{there.id}") is None
    left = source.session(NAME)
    assert left is not None
    assert (left.desired_state, left.me_pn, left.auth_epoch) == ("retired", None, row.auth_epoch + 1)
    assert source.outbox(left.id, ["queued", "sending"], 10) == []
    assert not startable(source)
    assert startable(target)
    assert source.seals(left.id)[0].item_count == len(SAMPLE.state.items)


def test_the_same_command_after_the_end_says_where_it_is(source: Engine, target: Engine) -> None:
    fill(source)
    move(source, target).run()
    with pytest.raises(MoveRefused) as refusal:
        move(source, target).run()
    assert refusal.value.code == "no_such_session"
    assert startable(target)


STEPS = (
    "move.staged", "move.page.whatsapp_messages", "move.page.wa_events", "move.page.wa_outbox",
    "move.page.wa_retry_buffer", "move.page.wa_inbound_buffer", "move.page.wa_message_secrets",
    "move.copied", "move.restored", "move.written",
    "move.departed", "move.arrived",
)  # fmt: skip


@pytest.mark.parametrize("at", STEPS)
@pytest.mark.parametrize("passage", [1, 2])
def test_a_crash_leaves_one_that_can_start_and_the_command_goes_on(
    ways: tuple[Opening, Opening], at: str, passage: int
) -> None:
    first, second = ways[0](), ways[1]()
    row = fill(first)
    before, seen = content(first, row.id), 0

    def step(name: str) -> None:
        nonlocal seen
        seen += name == at
        if seen == passage:
            raise Crash

    try:
        move(first, second, step).run()
    except Crash:
        pass
    else:
        assert passage == 2
    first.close()
    second.close()
    first, second = ways[0](), ways[1]()
    try:
        departed = at in ("move.departed", "move.arrived") or seen < passage
        arrived = at == "move.arrived" or seen < passage
        assert (startable(first), startable(second)) == (not departed, arrived)
        if seen == passage:
            moved = move(first, second).run()
            assert moved.resumed is departed
        there = second.session(NAME)
        assert there is not None
        assert content(second, there.id) == before
        assert same(stored_state(second, there), SAMPLE.state)
        assert (startable(first), startable(second)) == (False, True)
    finally:
        first.close()
        second.close()


def test_a_source_that_went_on_after_a_crash_is_copied_anew(source: Engine, target: Engine) -> None:
    row = fill(source)
    with pytest.raises(Crash):
        move(source, target, crash_at("move.written")).run()
    do(source, ReleaseLease(row.id, source.session(row.id).lease_token))  # type: ignore[union-attr]
    owned: SessionRow = do(source, Attach(row.id, "a daemon", None))
    unit = Unit()
    unit.delete(kinds.SESSION, "15550000003.0")
    unit.add_message(message(99))
    unit.event("message:new", {"n": 99})
    do(source, CommitUnit(row.id, owned.lease_token, unit))
    do(source, ReleaseLease(row.id, owned.lease_token))
    assert not startable(target)
    before = content(source, row.id)
    move(source, target).run()
    there = target.session(NAME)
    assert there is not None
    assert content(target, there.id) == before
    assert (kinds.SESSION, "15550000003.0") not in stored_state(target, there).items


def test_a_note_that_does_not_fit_is_no_reason_to_start_two(source: Engine, target: Engine) -> None:
    fill(source)
    with pytest.raises(Crash):
        move(source, target, crash_at("move.departed")).run()
    there = target.session(NAME)
    assert there is not None
    note = target.move_note(f"move.arriving.{there.id}")
    assert note is not None
    do(
        target,
        StageMove(there.id, there.lease_token, (f"move.arriving.{there.id}", note | {"state": [1, 0]})),
    )
    with pytest.raises(MoveRefused) as refusal:
        move(source, target).run()
    assert refusal.value.code == "move_incomplete"
    assert not startable(target)


def test_there_and_back_again(source: Engine, target: Engine) -> None:
    row = fill(source)
    move(source, target).run()
    there = target.session(NAME)
    assert there is not None
    owned: SessionRow = do(target, Attach(there.id, "a daemon", None))
    unit = Unit()
    unit.add_message(message(50))
    unit.update_outbox("O1", state="sent", sent_at=NOW)
    do(target, CommitUnit(owned.id, owned.lease_token, unit))
    do(target, ReleaseLease(owned.id, owned.lease_token))
    do(target, AppendEvent(there.id, "message:new", {"n": 50}))
    move(target, source).run()
    back = source.session(NAME)
    assert back is not None
    assert (back.id, startable(source), startable(target)) == (row.id, True, False)
    assert same(stored_state(source, back), SAMPLE.state)
    assert len(source.messages(back.id, None, None, 100)) == 8
    sent = source.outbox_row(back.id, client_ref=None, message_id="O1")
    assert sent is not None
    assert sent.state == "sent"
    told = [event.data["n"] for event in source.events(0, 100, back.id, ["message:new"])]
    assert told == [*range(7), 50]


def test_a_session_that_somebody_runs_stays(source: Engine, target: Engine) -> None:
    row = fill(source)
    do(source, Attach(row.id, "a daemon elsewhere", 1 << 40))
    with pytest.raises(MoveRefused) as refusal:
        move(source, target).run()
    assert refusal.value.code == "session_in_use"
    assert target.sessions(True) == []


def test_refusals(source: Engine, target: Engine) -> None:
    assert _refused(source, target) == "no_such_session"
    do(source, CreateSession(NAME))
    assert _refused(source, target) == "not_paired"
    fill(source)
    assert _refused(source, source) == "same_store"
    put_imported(target, "other", SAMPLE.state, {}, NOW, "test")
    assert _refused(source, target) == "already_here"
    assert startable(source)


def _refused(source: Engine, target: Engine) -> str:
    with pytest.raises(MoveRefused) as refusal:
        move(source, target).run()
    return refusal.value.code


def test_another_account_of_that_name_stays(source: Engine, target: Engine) -> None:
    fill(source)
    there: SessionRow = do(target, CreateSession(NAME))
    do(target, UpdateSession(there.id, {"me_pn": "15559999999:3@s.whatsapp.net"}))
    assert _refused(source, target) == "name_taken"
    row = target.session(NAME)
    assert row is not None
    assert row.lease_holder is None


def test_a_lease_that_was_lost_ends_the_move(source: Engine, target: Engine) -> None:
    row = fill(source)

    def step(name: str) -> None:
        if name == "move.written":
            now = source.session(row.id)
            assert now is not None
            do(source, ReleaseLease(row.id, now.lease_token))
            do(source, Attach(row.id, "a daemon", None))

    with pytest.raises((LeaseLost, StoreError)):
        move(source, target, step).run()
    assert not startable(target)
    assert source.session(NAME).me_pn is not None  # type: ignore[union-attr]


@pytest.mark.parametrize("legacy", [False, True])
def test_an_import_is_put_in_place_as_the_store_keeps_states(tmp_path: Path, legacy: bool) -> None:
    engine = sqlite(tmp_path / "waD.db", legacy=legacy)
    try:
        row = put_imported(engine, NAME, SAMPLE.state, {"reason": "imported"}, NOW, "test")
        assert row.auth_phase == ("legacy_only" if legacy else "cut_over")
        assert (row.desired_state, row.current_status, row.lease_holder) == ("down", "stopped", None)
        assert same(stored_state(engine, row), SAMPLE.state)
        with pytest.raises(MoveRefused) as refusal:
            put_imported(engine, "../third", SAMPLE.state, {}, NOW, "test")
        assert refusal.value.code == "name_invalid"
        with pytest.raises(MoveRefused) as refusal:
            put_imported(engine, "second", SAMPLE.state, {}, NOW, "test")
        assert refusal.value.code == "already_here"
        with pytest.raises(MoveRefused) as refusal:
            put_imported(engine, NAME, a_sample(5).state, {}, NOW, "test")
        assert refusal.value.code in ("name_taken", "already_here")
    finally:
        engine.close()
