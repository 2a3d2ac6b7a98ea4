"""Jobs that are done together: as if each had been done by itself, in few statements and round trips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from psycopg import RawCursor

from tests.store.postgres.helpers import LEASE_MS, count, keys, opened
from tests.store.postgres_server import Server
from tests.store.test_store import queued, text
from waD.store.engine import AppendEvent, Attach, CommitUnit, CreateSession, Job, Outcome
from waD.store.errors import LeaseLost, SessionUnknown
from waD.store.model import SessionRow
from waD.store.postgres import database as databases
from waD.store.postgres import stacking
from waD.store.postgres.engine import PostgresEngine
from waD.store.sql.heads import MOVE_HEAD
from waD.store.sql.jobs import Jobs
from waD.store.unit import Committed, Unit


def sessions(engine: PostgresEngine, number: int) -> list[SessionRow]:
    """Sessions that are attached."""
    made = engine.write([CreateSession(f"s{n}") for n in range(number)])
    found = engine.write([Attach(row.id, "test") for row in made if isinstance(row, SessionRow)])
    return [row for row in found if isinstance(row, SessionRow)]


def received(row: SessionRow, name: str) -> CommitUnit:
    """A received message, as an open chat commits it."""
    unit = keys(chat=msgspec.json.encode({"of": name}))
    unit.add_message(text(name))
    unit.journal("2@lid", "2@lid", name, name.encode().rjust(32, b"-"))
    unit.event("alert:raised", {"name": name})
    unit.set_session(last_message_at=5)
    return CommitUnit(row.id, row.lease_token, unit, row.auth_epoch)


def tallied(engine: PostgresEngine, row: SessionRow) -> tuple[int, int]:
    """Version, and messages that were received."""
    found = engine.session(row.id)
    assert found is not None
    return found.auth_version, found.messages_received


class Sent:
    """The statements that are sent, and the round trips that are waited for."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.statements = 0
        self.waits = 0
        execute, settle = RawCursor.execute, databases.PostgresDatabase.settle

        def counted(cursor: RawCursor[Any], *statement: Any, **options: Any) -> Any:
            self.statements += 1
            return execute(cursor, *statement, **options)

        def waited(db: databases.PostgresDatabase) -> None:
            self.waits += bool(db._waiting)
            settle(db)

        patch.setattr(RawCursor, "execute", counted)
        patch.setattr(databases.PostgresDatabase, "settle", waited)


@pytest.mark.parametrize("number", [1, 7, 64])
def test_many_units_are_as_many_statements_as_one(
    engine: PostgresEngine, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    rows = sessions(engine, number)
    engine.write([received(row, "first") for row in rows])
    sent = Sent(monkeypatch)
    outcomes = engine.write([received(row, f"M{n}") for n, row in enumerate(rows)])
    assert sent.waits == 2, "and a third one is that for the commit"
    kinds, sizes = (
        10,
        number.bit_count(),
    )  # the fence, checksums, an item, a message, the journal, two events …
    assert sent.statements <= kinds * sizes + 3
    cursors = [
        event.cursor for outcome in outcomes if isinstance(outcome, Committed) for event in outcome.events
    ]
    assert len(set(cursors)) == 2 * number
    found = {
        (event.connection_id, event.data.get("name")) for event in engine.events(2 * number, 1000, None, None)
    }
    assert found >= {(row.id, f"M{n}") for n, row in enumerate(rows)}
    for n, row in enumerate(rows):
        assert tallied(engine, row) == (2, 2)
        assert engine.auth_state(row.id).items == {("session", "chat"): (2, b'{"of":"M%d"}' % n)}
        assert [message.message_id for message in engine.messages(row.id, None, None, 9)] == [
            f"M{n}",
            "first",
        ]


def test_each_outcome_has_its_own_events(engine: PostgresEngine) -> None:
    rows = sessions(engine, 5)
    outcomes = engine.write([received(row, row.name) for row in rows])
    logged = {event.cursor: event for event in engine.events(0, 100, None, None)}
    for row, outcome in zip(rows, outcomes, strict=True):
        assert isinstance(outcome, Committed)
        assert [logged[event.cursor] for event in outcome.events] == outcome.events
        assert [event.session for event in outcome.events] == [row.name] * 2
        assert outcome.events[0].cursor < outcome.events[1].cursor


def test_messages_that_are_there_already_are_not_counted_again(engine: PostgresEngine) -> None:
    one, other, third = sessions(engine, 3)
    engine.write([received(one, "A"), received(other, "A")])
    engine.write([received(one, "A"), received(other, "B"), received(third, "A")])
    assert [tallied(engine, row) for row in (one, other, third)] == [(2, 1), (2, 2), (1, 1)]


def bad_unit(why: str, row: SessionRow) -> CommitUnit:
    unit, token, session_id = keys(chat=b"1"), row.lease_token, row.id
    if why == "lease":
        token += 1
    elif why == "no session":
        session_id = "00000000-0000-0000-0000-000000000000"
    elif why == "no id":
        session_id = "nonsense"
    elif why == "item":
        unit.put("session", "b", b"not a document")
    elif why == "credentials":
        unit.set_creds(b"not a document")
    elif why == "outbox":
        unit.enqueue(queued("OUT1"))
        unit.enqueue(queued("OUT1"))
    elif why == "column":
        unit.update_message("c", "s", "m", no_such_column=1)
    else:
        unit.set_session(push_name=object())
    return CommitUnit(session_id, token, unit)


@pytest.mark.parametrize(
    ("why", "error"),
    [("lease", LeaseLost), ("no session", LeaseLost), ("no id", SessionUnknown), ("item", ValueError),
     ("credentials", ValueError), ("outbox", ValueError), ("column", ValueError), ("fault", ValueError)],
)  # fmt: skip
def test_one_that_fails_takes_no_other_with_it(
    server: Server, database: str, engine: PostgresEngine, why: str, error: type[Exception]
) -> None:
    rows = sessions(engine, 4)
    engine.write([received(row, "first") for row in rows])
    jobs: list[Job] = [
        received(rows[0], "M0"),
        bad_unit(why, rows[1]),
        AppendEvent(None, "alert:raised", {}),
        received(rows[2], "M2"),
        received(rows[2], "M3"),
        received(rows[3], "M4"),
    ]
    outcomes = engine.write(jobs)
    assert [isinstance(outcome, error) for outcome in outcomes] == [False, True, False, False, False, False]
    assert all(isinstance(outcome, Committed) for outcome in [outcomes[0], *outcomes[2:]])
    assert [tallied(engine, row) for row in rows] == [(2, 2), (1, 1), (3, 3), (2, 2)]
    assert count(server, database) == 4 * 2 + 4 * 2 + 1
    engine.write([received(row, "last") for row in rows])
    for row in rows:
        assert engine.auth_state(row.id).items["session", "chat"][1] == b'{"of":"last"}'


def test_one_of_another_epoch_fails_alone(engine: PostgresEngine) -> None:
    one, other = sessions(engine, 2)
    old = received(one, "M1")
    outcomes = engine.write([msgspec.structs.replace(old, epoch=7), received(other, "M1")])
    assert [type(outcome) for outcome in outcomes] == [LeaseLost, Committed]
    assert [tallied(engine, row) for row in (one, other)] == [(0, 0), (1, 1)]


def test_units_of_one_session_keep_their_order(engine: PostgresEngine) -> None:
    one, other = sessions(engine, 2)
    outcomes = engine.write([received(row, f"M{n}") for n in range(3) for row in (one, other)])
    assert [outcome.version for outcome in outcomes if isinstance(outcome, Committed)] == [1, 1, 2, 2, 3, 3]
    for row in (one, other):
        assert engine.auth_state(row.id).items == {("session", "chat"): (3, b'{"of":"M2"}')}


def test_steps_of_one_unit_keep_their_order(engine: PostgresEngine) -> None:
    def unit(name: str) -> Unit:
        made = Unit()
        made.add_message(text(name, body="first"))
        made.update_message(text(name).chat, text(name).sender, name, body="second")
        made.add_message(text(name, body="third"))
        made.enqueue(queued(name))
        made.update_outbox(name, state="sent")
        return made

    rows = sessions(engine, 3)
    outcomes = engine.write(
        [CommitUnit(row.id, row.lease_token, unit(f"O{n}")) for n, row in enumerate(rows)]
    )
    assert all(isinstance(outcome, Committed) for outcome in outcomes), outcomes
    for row in rows:
        assert [message.body for message in engine.messages(row.id, None, None, 9)] == ["second"]
        found = engine.session(row.id)
        assert found is not None
        assert found.messages_sent == 1
        assert engine.outbox_count(row.id, ["sent"]) == 1


def test_a_unit_of_hundreds_of_items(engine: PostgresEngine) -> None:
    (row,) = sessions(engine, 1)
    for value in (b"1", b"2"):
        unit = Unit()
        for number in range(333):
            unit.put("prekey", str(number), value)
        assert isinstance(engine.write([CommitUnit(row.id, row.lease_token, unit)])[0], Committed)
    found = engine.auth_state(row.id).items
    assert len(found) == 333
    assert set(found.values()) == {(2, b"2")}


def test_what_is_done_together_is_what_is_done_one_by_one(
    server: Server, engine: PostgresEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_by_one(db: Any, jobs: Jobs, group: Sequence[Job]) -> list[Outcome]:
        return jobs.run(db, group, apart=True)

    def results(engine: PostgresEngine) -> list[Any]:
        rows = sessions(engine, 6)
        for name in ("A", "B"):
            engine.write([received(row, f"{name}{n}") for n, row in enumerate(rows)])
        states = [engine.auth_state(row.id).items for row in rows]
        messages = [[m.message_id for m in engine.messages(row.id, None, None, 9)] for row in rows]
        return [states, messages, [tallied(engine, row) for row in rows], engine.event_bounds()]

    together = results(engine)
    with monkeypatch.context() as patch, opened(server.url(server.database())) as other:
        patch.setattr("waD.store.postgres.engine.together", one_by_one)
        assert results(other) == together


def test_prepared_statements_that_are_gone(engine: PostgresEngine) -> None:
    """Poolers lose them, and a pipeline that fails may leave one behind that was never prepared."""
    rows = sessions(engine, 2)
    for number in range(6):
        engine.write([received(row, f"M{number}") for row in rows])
    link = engine._transactions._link
    assert link is not None
    link.pgconn.exec_(b"DEALLOCATE ALL")
    outcomes = engine.write([received(row, "N") for row in rows])
    assert [type(outcome) for outcome in outcomes] == [Committed, Committed]
    assert tallied(engine, rows[0]) == (7, 7)


def test_a_lease_is_not_prolonged_by_units(engine: PostgresEngine) -> None:
    (row,) = sessions(engine, 1)
    (row,) = engine.write([Attach(row.id, "test", LEASE_MS)])  # type: ignore[assignment]
    before = engine.session(row.id)
    engine.write([received(row, "A")])
    after = engine.session(row.id)
    assert before is not None
    assert after is not None
    assert (after.lease_token, after.lease_expires_at) == (before.lease_token, before.lease_expires_at)
    assert after.last_message_at == 5


@pytest.mark.parametrize(
    ("sql", "form"),
    [
        ("INSERT INTO t (a, b) VALUES (?,?) ON CONFLICT DO NOTHING",
         "INSERT INTO t (a, b) VALUES (?,?),(?,?) ON CONFLICT DO NOTHING"),
        ("SELECT 1 FROM (VALUES (CAST(? AS uuid), ?)) v",
         "SELECT 1 FROM (VALUES (CAST(? AS uuid), ?),(CAST(? AS uuid), ?)) v"),
        ("INSERT INTO t (a) VALUES (?) ON CONFLICT DO UPDATE SET a=?", None),
        ("UPDATE t SET a=? WHERE id=?", None),
    ],
)  # fmt: skip
def test_forms_for_many_rows(sql: str, form: str | None) -> None:
    found = stacking.many(sql)
    assert (None if found is None else stacking.stacked(found, 2)) == form


def test_portions_are_powers_of_two() -> None:
    assert [len(part) for part in stacking.portions([()] * 141)] == [64, 64, 8, 4, 1]
    assert [*stacking.portions([])] == []
    large = [(number, bytes(1 << 20)) for number in range(8)] + [(8, bytes(9 << 20))]
    assert [len(part) for part in stacking.portions(large)] == [4, 4, 1]
    assert [row for part in stacking.portions(large) for row in part] == large
    assert stacking.many(MOVE_HEAD) is not None
