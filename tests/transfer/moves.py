"""Stores with a session that moves, and what is looked at afterwards."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.transfer.samples import NOW, Sample, a_sample
from waD.store.engine import Attach, CommitUnit, CreateSession, Engine, ReleaseLease
from waD.store.errors import SessionLeased
from waD.store.model import MessageRow, OutboxRow, SecretRow, SessionRow
from waD.store.opening import open_engine
from waD.store.postgres.settings import PostgresSettings
from waD.store.sql.moving import TABLES
from waD.store.store import Parts, StoreSettings
from waD.store.unit import Unit
from waD.transfer.legacy import LegacyCodec
from waD.transfer.migrating.aborting import Abort
from waD.transfer.migrating.moving import Move
from waD.transfer.migrating.stores import do
from waD.transfer.reviving import columns
from waD.transfer.state import AuthState

NAME = "alerts"
PARTS = Parts(codec=LegacyCodec())
SAMPLE = a_sample()
CHAT = "200000000000002@lid"


class Crash(BaseException):
    """The process ends here."""


def sqlite(path: Path, *, legacy: bool = False) -> Engine:
    return open_engine(StoreSettings(path=path, legacy=legacy), PARTS)


def postgres(url: str) -> Engine:
    settings = StoreSettings(path=Path("unused"), postgres=PostgresSettings(url=url), legacy=True)
    return open_engine(settings, PARTS)


Opening = Callable[[], Engine]


def message(number: int) -> MessageRow:
    return MessageRow(
        chat=CHAT, sender=CHAT, message_id=f"M{number:05}", from_me=bool(number % 2), ts=NOW + number, kind="text",
        body=f"text {number}", content={"n": number, "x": 0.5}, raw=bytes([number % 256]), status=3,
    )  # fmt: skip


def secret(number: int, **more: Any) -> SecretRow:
    return SecretRow(
        chat=CHAT, sender=CHAT, message_id=f"M{number:05}", wire_sender=CHAT, message_ts=NOW + number,
        **{"secret": bytes([number]) * 32, "expires_at": None if number % 2 else NOW + 90} | more,
    )  # fmt: skip


def outgoing(number: int, **more: Any) -> OutboxRow:
    return OutboxRow(
        client_ref=f"ref{number}",
        chat=CHAT,
        message_id=f"O{number}",
        payload={"text": f"later {number}"},
        **more,
    )


def fill(engine: Engine, sample: Sample = SAMPLE, *, messages: int = 7) -> SessionRow:
    """A session with something in every table."""
    created: SessionRow = do(engine, CreateSession(NAME))
    owned: SessionRow = do(engine, Attach(created.id, "a daemon", None))
    unit = Unit()
    unit.creds = sample.state.creds.serialize()
    unit.items.update(sample.state.items)
    unit.set_session(**columns(sample.state.creds), last_connected_at=NOW, reconnect_count=3)
    for number in range(messages):
        unit.add_message(message(number))
        unit.event("message:new", {"n": number, "x": 1.5})
    unit.enqueue(outgoing(1))
    unit.enqueue(outgoing(2, state="sending", stanza=b"encrypted", attempts=1))
    unit.keep_plaintext(CHAT, "O9", b"what was sent")
    unit.journal(CHAT, CHAT, "M00001", bytes(range(32)))
    for number in range(4):
        unit.keep_secret(secret(number))
    do(engine, CommitUnit(owned.id, owned.lease_token, unit))
    do(engine, ReleaseLease(owned.id, owned.lease_token))
    row = engine.session(owned.id)
    assert row is not None
    return row


def content(engine: Engine, session_id: str) -> dict[str, Any]:
    """All rows of a session, without what a store gives them itself."""
    found = {}
    for table in TABLES:
        page = engine.rows_of(session_id, table, None, 100_000)
        found[table] = sorted(
            repr([_plain(value) for value in row]) for row in page.rows if row[0] != "auth:restored"
        )
    return found


def _plain(value: Any) -> Any:
    """Documents by what they say: a database may put blanks into them."""
    return json.loads(value) if isinstance(value, bytes) and value[:1] == b"{" else value


def startable(engine: Engine) -> bool:
    """Whether a daemon that is told to connect gets credentials to do it with."""
    row = engine.session(NAME)
    if row is None or row.me_pn is None:
        return False
    try:
        owned: SessionRow = do(engine, Attach(row.id, "another daemon", 30_000 if engine.shared else None))
    except SessionLeased:
        return False
    do(engine, ReleaseLease(owned.id, owned.lease_token))
    return True


def move(source: Engine, target: Engine, step: Callable[[str], None] = lambda _: None) -> Move:
    return Move(source, target, NAME, lambda: NOW, os.urandom, step)


def abort(source: Engine, target: Engine | None, step: Callable[[str], None] = lambda _: None) -> Abort:
    name = "a store that is gone" if target is None else target.name
    return Abort(source, target, name, NAME, lambda: NOW, os.urandom, step)


def same(state: AuthState, other: AuthState) -> bool:
    return state.creds.serialize() == other.creds.serialize() and dict(state.items) == dict(other.items)


def crash_at(at: str) -> Callable[[str], None]:
    def step(name: str) -> None:
        if name == at:
            raise Crash

    return step


def outgoing_states(engine: Engine, session_id: str) -> dict[str, str]:
    """What becomes of each message in the outbox."""
    found = engine.outbox(session_id, ["queued", "held", "sending", "sent", "failed", "cancelled"], 100)
    return {row.message_id: row.state for row in found}
