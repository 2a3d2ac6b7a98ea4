"""A move that is given up: exact, and never two that can start, wherever the move and giving up stop."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.transfer.moves import (
    NAME,
    SAMPLE,
    Crash,
    Opening,
    abort,
    content,
    crash_at,
    fill,
    message,
    move,
    outgoing_states,
    same,
    sqlite,
    startable,
)
from waD.store.engine import (
    Attach,
    CommitUnit,
    CreateSession,
    Engine,
    Job,
    Outcome,
    OwnMove,
    ReleaseLease,
    UpdateSession,
)
from waD.store.errors import LeaseLost, SessionLeased, StorageUnavailable, StoreError
from waD.store.model import SessionRow
from waD.store.unit import Unit
from waD.transfer.migrating import moving
from waD.transfer.migrating.stores import LEASE_MS, MoveRefused, do, stored_state

BEFORE = ("move.staged", "move.page.wa_events", "move.copied", "move.restored", "move.written")
"""Steps after which the source still has its state."""
LEASE = {"lease_token", "lease_holder", "lease_expires_at", "updated_at"}


@pytest.fixture(autouse=True)
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moving, "PAGE", 3)


def lasting(row: SessionRow | None) -> dict[str, Any]:
    """A row without what every owner changes."""
    assert row is not None
    return {name: getattr(row, name) for name in row.__struct_fields__ if name not in LEASE}


def crash(source: Engine, target: Engine, at: str) -> None:
    with pytest.raises(Crash):
        move(source, target, crash_at(at)).run()


def refused(work: Callable[[], object]) -> str:
    with pytest.raises(MoveRefused) as refusal:
        work()
    return refusal.value.code


def is_free(target: Engine) -> bool:
    """Whether somebody else may use the name there, without anything of the move's."""
    row = do(target, CreateSession(NAME))
    assert not [seal for seal in target.seals(row.id) if seal.item_count]
    assert not {"queued", "sending", "held"} & set(outgoing_states(target, row.id).values())
    assert target.plaintext(row.id, "O9") == []
    owned: SessionRow = do(target, Attach(row.id, "a daemon", None))
    do(target, ReleaseLease(owned.id, owned.lease_token))
    creds = target.creds(row.id)
    registered = creds is not None and SAMPLE.state.creds.identity.public in creds
    assert target.items(row.id, "session", None) == {}
    return row.me_pn is None and not registered


@pytest.mark.parametrize("at", [*BEFORE, "move.departed"])
def test_the_source_is_as_if_nothing_had_been(ways: tuple[Opening, Opening], at: str) -> None:
    first, second = ways[0](), ways[1]()
    row = fill(first)
    do(first, UpdateSession(row.id, {"desired_state": "up"}))
    before, kept = lasting(first.session(NAME)), content(first, row.id)
    outbox = outgoing_states(first, row.id)
    crash(first, second, at)
    first.close()
    second.close()
    first, second = ways[0](), ways[1]()
    try:
        planned = abort(first, second).plan()
        assert (planned.done, planned.restored) == (False, at == "move.departed")
        done = abort(first, second).run()
        assert (done.done, done.freed, done.restored) == (True, True, at == "move.departed")
        assert (lasting(first.session(NAME)), content(first, row.id)) == (before, kept)
        assert outgoing_states(first, row.id) == outbox
        assert first.plaintext(row.id, "O9")
        assert (first.moves(), second.moves()) == ({}, {})
        assert (startable(first), startable(second)) == (True, False)
        assert second.sessions(False) == []
        assert refused(abort(first, second).run) == "no_move"
        assert is_free(second)
        moved = move(first, second).run()
        there = second.session(NAME)
        assert there is not None
        assert (moved.done, content(second, there.id)) == (True, kept)
        assert outgoing_states(second, there.id) == outbox
        assert same(stored_state(second, there), SAMPLE.state)
    finally:
        first.close()
        second.close()


@pytest.mark.parametrize("at", ["move.staged", "move.written", "move.departed"])
@pytest.mark.parametrize("then", ["abort.cleared", "abort.released"])
def test_giving_up_that_is_interrupted_goes_on(ways: tuple[Opening, Opening], at: str, then: str) -> None:
    first, second = ways[0](), ways[1]()
    row = fill(first)
    kept = content(first, row.id)
    crash(first, second, at)
    with pytest.raises(Crash):
        abort(first, second, crash_at(then)).run()
    first.close()
    second.close()
    first, second = ways[0](), ways[1]()
    try:
        nowhere = at == "move.departed" and then == "abort.cleared"
        assert not startable(second)
        if not nowhere:  # at the latest when the lease ends that giving up had
            row = first.session(NAME) or row
            left = None if row.lease_expires_at is None else row.lease_expires_at - time.time() * 1000
            assert startable(first) or (left is not None and left <= LEASE_MS)
        else:
            assert not startable(first)
            assert refused(move(first, second).run) == "move_aborted"
            assert not startable(second)
        if then == "abort.released":
            assert refused(abort(first, second).run) == "no_move"
        else:
            assert abort(first, second).run().done
        assert (startable(first), startable(second)) == (True, False)
        assert (first.moves(), second.moves(), content(first, row.id)) == ({}, {}, kept)
    finally:
        first.close()
        second.close()


def test_a_destination_that_may_have_run_keeps_it(source: Engine, target: Engine) -> None:
    fill(source)
    crash(source, target, "move.arrived")
    assert startable(target)
    assert refused(abort(source, target).plan) == "move_ended"
    assert refused(abort(source, target).run) == "move_ended"
    assert (startable(source), startable(target)) == (False, True)
    owned: SessionRow = do(target, Attach(target.session(NAME).id, "a daemon", None))  # type: ignore[union-attr]
    unit = Unit()
    unit.set_session(me_pn=None, me_lid=None)
    do(target, CommitUnit(owned.id, owned.lease_token, unit))
    assert refused(abort(source, target).run) == "move_ended"
    assert move(source, target).run().resumed
    assert refused(abort(source, target).run) == "move_ended"
    assert (startable(source), source.moves()) == (False, {})


def test_nothing_is_given_up_that_is_not_under_way(source: Engine, target: Engine) -> None:
    fill(source)
    assert refused(abort(source, target).run) == "no_move"
    assert refused(abort(target, source).run) == "no_such_session"
    assert startable(source)


def test_a_destination_that_cannot_be_reached(source: Engine, target: Engine) -> None:
    row = fill(source)
    assert refused(abort(source, None).run) == "destination_unreachable"
    crash(source, target, "move.written")

    def without() -> Any:
        given = abort(source, None)
        given.target_name = target.name
        return given

    done = without().run()
    assert (done.done, done.freed, source.moves()) == (True, False, {})
    assert (startable(source), startable(target)) == (True, False)
    assert [one.into for one in target.moves().values()] == [True]
    assert abort(source, target).run().freed
    assert target.moves() == {}
    crash(source, target, "move.departed")
    assert refused(without().run) == "destination_unreachable"
    assert (startable(source), startable(target)) == (False, False)
    assert abort(source, target).run().restored
    assert source.session(NAME).id == row.id  # type: ignore[union-attr]


def test_another_database_in_place_of_the_destination(ways: tuple[Opening, Opening], tmp_path: Path) -> None:
    source, target, other = ways[0](), ways[1](), sqlite(tmp_path / "c" / "waD.db")
    try:
        fill(source)
        crash(source, target, "move.departed")
        other.name = target.name
        assert refused(abort(source, other).run) == "move_incomplete"
        assert refused(move(source, other).run) == "move_incomplete"
        assert not startable(source)
        other.name = "sqlite:/elsewhere"
        assert refused(abort(source, other).run) == "move_elsewhere"
        assert refused(move(source, other).run) == "move_elsewhere"
    finally:
        for engine in (source, target, other):
            engine.close()


def test_a_source_that_a_daemon_runs_again_is_not_disturbed(source: Engine, target: Engine) -> None:
    row = fill(source)
    crash(source, target, "move.written")
    owned: SessionRow = do(source, Attach(row.id, "a daemon", 1 << 40))
    assert abort(source, target).run().freed
    unit = Unit()
    unit.add_message(message(70))
    do(source, CommitUnit(row.id, owned.lease_token, unit))
    assert source.session(NAME).lease_holder == "a daemon"  # type: ignore[union-attr]
    assert is_free(target)


@pytest.mark.parametrize("at", [*BEFORE, "move.departed"])
def test_a_move_that_still_runs_ends_when_it_is_given_up(source: Engine, target: Engine, at: str) -> None:
    row = fill(source)
    kept = content(source, row.id)

    def step(name: str) -> None:
        if name == at:
            abort(source, target).run()

    with pytest.raises(MoveRefused if at == "move.departed" else LeaseLost) as ended:
        move(source, target, step).run()
    assert "another owner" in str(ended.value) or "under way any more" in str(ended.value)
    assert (startable(source), startable(target)) == (True, False)
    assert content(source, row.id) == kept
    assert (source.moves(), target.moves()) == ({}, {})


@pytest.mark.parametrize("at", ["move.written", "move.departed"])
def test_giving_up_fails_when_the_move_goes_on_meanwhile(source: Engine, target: Engine, at: str) -> None:
    """Both are at work: the one that owned the sides last decides."""
    fill(source)
    crash(source, target, at)

    class Late:
        """The destination, in which the move has ended when giving up comes to it."""

        def __getattr__(self, name: str) -> Any:
            return getattr(target, name)

        def write(self, jobs: list[Job]) -> list[Outcome]:
            if isinstance(jobs[0], OwnMove):
                with suppress(MoveRefused):
                    move(source, target).run()
            return target.write(jobs)

    with pytest.raises((LeaseLost, StoreError)):
        abort(source, Late()).run()  # type: ignore[arg-type]
    assert (startable(source), startable(target)) == (False, True)


def test_there_and_half_of_the_way_back(source: Engine, target: Engine) -> None:
    row = fill(source)
    move(source, target).run()
    left = lasting(source.session(NAME))
    changed = {"auth_epoch": 0, "auth_version": 0, "legacy_version": 0}
    for at in ("move.written", "move.departed"):
        with pytest.raises(Crash):
            move(target, source, crash_at(at)).run()
        assert abort(target, source).run().done
        assert (startable(source), startable(target)) == (False, True)
        there = source.session(NAME)
        assert there is not None
        assert {**lasting(there), **changed} == {**left, **changed}
        assert outgoing_states(source, row.id) == {"O1": "held", "O2": "held"}
    move(target, source).run()
    assert outgoing_states(source, row.id) == {"O1": "queued", "O2": "sending"}


def test_what_is_on_its_way_is_brought_back_by_no_name(source: Engine, target: Engine) -> None:
    fill(source)
    crash(source, target, "move.departed")
    for engine, other in ((source, f"--to {target.name}"), (target, f"--from {source.name}")):
        with pytest.raises(SessionLeased) as refusal:
            do(engine, CreateSession(NAME))
        assert "--abort" in str(refusal.value)
        assert other in str(refusal.value)
        (found,) = engine.moves().values()
        assert found.given_up
        assert engine.session(NAME).desired_state == "retired"  # type: ignore[union-attr]


# ------------------------------------------------------------------------------------------------ a database is gone


class Going:
    """A store whose database is gone from its n-th write on, with that or without."""

    def __init__(self, engine: Engine, at: int, *, written: bool) -> None:
        self._engine = engine
        self._left = at
        self._written = written
        self.gone = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def write(self, jobs: list[Job]) -> list[Outcome]:
        self._left -= 1
        if self._left >= 0:
            return self._engine.write(jobs)
        if not self.gone and self._written:
            self._engine.write(jobs)
        self.gone = True
        return [StorageUnavailable("the database is gone")] * len(jobs)


def _failure_of(work: Callable[[], object]) -> Exception | None:
    try:
        work()
    except (MoveRefused, StoreError) as failure:
        return failure
    return None


@pytest.mark.parametrize("ends", ["move", "abort"])
@pytest.mark.parametrize("written", [True, False])
@pytest.mark.parametrize("which", ["source", "target"])
def test_a_database_is_gone_at_each_write(tmp_path: Path, which: str, written: bool, ends: str) -> None:
    at, more = 0, True
    while more:
        source, target = sqlite(tmp_path / f"a{at}" / "waD.db"), sqlite(tmp_path / f"b{at}" / "waD.db")
        row = fill(source, messages=2)
        kept = content(source, row.id)
        going: Any = Going(source if which == "source" else target, at, written=written)
        pair = (going, target) if which == "source" else (source, going)
        failed = _failure_of(move(*pair).run)
        if isinstance(failed, MoveRefused):
            assert failed.code == "move_interrupted"
            assert "the database is gone" in failed.detail
        elif failed is not None:
            assert startable(source) or not source.moves()
        more = going.gone
        assert not (startable(source) and startable(target))
        if ends == "abort":
            _give_up_in_spite_of_faults(source, target)
        if not startable(target):
            with suppress(MoveRefused):
                move(source, target).run()
        there = target.session(NAME)
        assert there is not None
        assert (startable(source), startable(target)) == (False, True)
        assert content(target, there.id) == kept
        assert (source.moves(), target.moves()) in (({}, {}), ({row.id: source.moves().get(row.id)}, {}))
        source.close()
        target.close()
        at += 1
    assert at > 3


def _give_up_in_spite_of_faults(source: Engine, target: Engine) -> None:
    """Give up, with either database gone at each write of that as well."""
    for which in (0, 1):
        for written in (False, True):
            for at in range(4):
                pair: list[Any] = [source, target]
                pair[which] = Going(pair[which], at, written=written)
                with suppress(StoreError, MoveRefused):
                    abort(*pair).run()
                assert not (startable(source) and startable(target))
    with suppress(MoveRefused):
        abort(source, target).run()
    assert startable(source) is not startable(target)
