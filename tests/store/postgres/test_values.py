"""Values on their way to PostgreSQL and back."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.store.postgres.helpers import session
from tests.store.test_store import text
from waD.store.engine import (
    CommitUnit,
)
from waD.store.postgres.adapters import (
    ESCAPE,
    MAX_MS,
    JsonDumper,
    JsonLoader,
    MsDumper,
    MsLoader,
    TextDumper,
    TextLoader,
    numbered,
)
from waD.store.postgres.engine import PostgresEngine
from waD.store.sql.database import Json, Ms
from waD.store.unit import Committed, Unit


@given(st.text(alphabet=st.sampled_from(f'\0{ESCAPE}01a\\"é')))
def test_text_comes_back_as_it_went(value: str) -> None:
    stored = bytes(TextDumper(str).dump(value))
    assert b"\0" not in stored
    assert TextLoader(25).load(stored) == value


@given(st.text(alphabet=st.sampled_from(f'\0{ESCAPE}01u\\"é')))
def test_documents_come_back_as_they_went(value: str) -> None:
    stored = bytes(JsonDumper(Json).dump(Json(msgspec.json.encode([value]), "utf-8")))
    assert "\0" not in msgspec.json.decode(stored[1:])[0]
    assert msgspec.json.decode(JsonLoader(3802).load(stored)) == [value]


@given(st.integers(0, MAX_MS))
def test_times_come_back_as_they_went(value: int) -> None:
    assert MsLoader(1184).load(MsDumper(Ms).dump(Ms(value))) == value


def test_a_time_beyond_all_times_is_put_to_the_end(engine: PostgresEngine) -> None:
    row = session(engine)
    unit = Unit()
    unit.add_message(text("A1", ts=2**63 - 1))
    unit.add_message(text("A2", ts=-(2**63)))
    (outcome,) = engine.write([CommitUnit(row.id, row.lease_token, unit)])
    assert isinstance(outcome, Committed)
    assert [message.ts for message in engine.messages(row.id, None, None, 5)][1] == MAX_MS


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("SELECT 1", b"SELECT 1"),
        ("a=? AND b=?", b"a=$1 AND b=$2"),
        ("a='?' AND b=? AND \"?\"='it''s ?'", b"a='?' AND b=$1 AND \"?\"='it''s ?'"),
        ("a LIKE '%x' AND b=?", b"a LIKE '%x' AND b=$1"),
    ],
)
def test_placeholders(ours: str, theirs: bytes) -> None:
    assert numbered(ours) == theirs


def test_what_no_column_takes_is_kept(engine: PostgresEngine) -> None:
    row = session(engine)
    odd = "a\0b\\u0000" + ESCAPE
    unit = Unit()
    unit.add_message(text("A\0", chat=odd, body=odd, content={"q": odd}))
    unit.put("session", odd, msgspec.json.encode({"bb": odd, "a": 1}))
    unit.set_session(push_name=odd)
    (outcome,) = engine.write([CommitUnit(row.id, row.lease_token, unit)])
    assert isinstance(outcome, Committed), outcome
    (message,) = engine.messages(row.id, [odd], None, 5)
    assert (message.message_id, message.body, message.content) == ("A\0", odd, {"q": odd})
    assert engine.items(row.id, "session", None) == {odd: msgspec.json.encode({"a": 1, "bb": odd})}
    found = engine.session("alerts")
    assert found is not None
    assert found.push_name == odd


def test_what_the_database_refuses_is_the_fault_of_one_job(engine: PostgresEngine) -> None:
    row = session(engine)
    bad, good = Unit(), Unit()
    bad.put("session", "a", b"not a document")
    good.put("session", "a", b"1")
    outcomes = engine.write([CommitUnit(row.id, row.lease_token, unit) for unit in (bad, good)])
    assert isinstance(outcomes[0], ValueError)
    assert isinstance(outcomes[1], Committed)
    deep = Unit()
    deep.put("session", "b", b"[" * 200_000 + b"]" * 200_000)
    (outcome,) = engine.write([CommitUnit(row.id, row.lease_token, deep)])
    assert isinstance(outcome, ValueError), outcome
    assert engine.items(row.id, "session", None) == {"a": b"1"}
