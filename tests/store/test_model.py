"""The store against a model in memory: units, groups of jobs, seals, resets, leases, phases, endings and crashes.

A database is what `Backend` says; another one needs an `open`, a `close` and a `crash` of its own.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.store.store_model import Model, ModelSession, PlainCodec, Refused
from waD.store import checksum
from waD.store.codec import Codec
from waD.store.engine import (
    AppendEvent,
    Attach,
    Backfill,
    CommitUnit,
    CopyRows,
    CreateSession,
    DropSeals,
    EncryptAuth,
    Engine,
    Job,
    MovePhase,
    Prune,
    ReleaseLease,
    RenewLeases,
    ResetAuth,
    RestoreAuth,
    Seal,
    UpdateSession,
)
from waD.store.model import UNDECRYPTABLE, MessageRow, OutboxRow, SecretRow, SessionRow
from waD.store.phases import NEXT, Phase
from waD.store.sql.database import Database
from waD.store.sql.heads import as_stored
from waD.store.sql.message_secrets import TABLE
from waD.store.sql.moving import secret_values
from waD.store.sqlite.engine import SqliteEngine
from waD.store.unit import Committed, Unit
from waD.store.vault import Vault

NAMES = ("one", "two", "three")
KINDS = ("session", "identity", "prekey")
KEYS = ("1", "2.0", "é")
CHATS = ("1@lid", "2@lid")
IDS = ("A1", "A2", "A3")
NO_LEASE, ENDED, LONG = None, -1000, 3_600_000
KEK = b"K" * 32
EXAMPLES = int(os.environ.get("WAD_MODEL_EXAMPLES", "8"))
"""Walks of each kind; a long run takes more."""


class Backend(Protocol):
    """A database of one test: `crash` does jobs until so many statements were run, and opens what is left then."""

    def open(self, vault: Vault | None, codec: Codec | None, phase: Phase) -> Engine: ...

    def close(self) -> None: ...

    def crash(self, engine: Any, jobs: Sequence[Job], after: int) -> bool: ...


@cache
def empty_database() -> bytes:
    """Made once, since that takes longer than a walk."""
    with tempfile.TemporaryDirectory(prefix="wad-model-") as directory:
        path = Path(directory) / "waD.db"
        SqliteEngine(path).close()
        return path.read_bytes()


class SqliteBackend:
    """A crash is a copy of the files at that moment: what a killed process leaves, a full cache included."""

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="wad-model-"))
        self._numbers = itertools.count()
        self._path = self._new_path()
        self._path.write_bytes(empty_database())

    def _new_path(self) -> Path:
        directory = self._directory / str(next(self._numbers))
        directory.mkdir()
        return directory / "waD.db"

    def open(self, vault: Vault | None, codec: Codec | None, phase: Phase) -> Engine:
        engine = SqliteEngine(self._path, codec=codec, vault=vault, new_phase=phase)
        engine._db.execute("PRAGMA synchronous=OFF")  # a crash of the machine is not what is tested
        engine._db.execute("PRAGMA cache_size=4")  # so that pages are written before the commit
        return engine

    def close(self) -> None:
        shutil.rmtree(self._directory)

    def crash(self, engine: Any, jobs: Sequence[Job], after: int) -> bool:
        """Says whether the commit was through."""
        target = self._new_path()
        count = itertools.count()

        def copy() -> None:
            for suffix in ("", "-wal"):
                source = self._path.with_name(self._path.name + suffix)
                if source.exists():
                    shutil.copyfile(source, target.with_name(target.name + suffix))

        def traced(_: str) -> None:
            if next(count) == after:
                copy()

        engine._db.set_trace_callback(traced)
        engine.write(jobs)
        engine._db.set_trace_callback(None)
        done = not target.exists()
        if done:
            copy()
        engine.close()
        self._path = target
        return done


# What is done.

values = st.integers(0, 9).map(lambda n: b'{"n":%d}' % n)
items = st.dictionaries(
    st.tuples(st.sampled_from(KINDS), st.sampled_from(KEYS)), st.none() | values, max_size=4
)
stanzas = st.none() | st.just(b"node")


def message(chat: str, message_id: str, kind: str, from_me: bool) -> MessageRow:
    body = None if kind == UNDECRYPTABLE else f"text of {message_id}"
    return MessageRow(
        chat=chat, sender="9@lid" if from_me else chat, message_id=message_id, from_me=from_me, ts=5, kind=kind,
        body=body,
    )  # fmt: skip


def outgoing(message_id: str, ref: str, stanza: bytes | None) -> OutboxRow:
    return OutboxRow(
        client_ref=ref, chat="1@lid", message_id=message_id, payload={"text": message_id}, stanza=stanza
    )


Step = Callable[[Unit], None]
ids, chats = st.sampled_from(IDS), st.sampled_from(CHATS)
secrets: st.SearchStrategy[SecretRow] = st.builds(
    lambda chat, name, n, ts, expires: SecretRow(
        chat=chat, sender=chat, message_id=name, wire_sender=f"{n}@lid", secret=bytes([n]) * 32, message_ts=ts,
        expires_at=expires,
    ),
    chats,
    ids,
    st.integers(0, 9),
    st.integers(0, 5),
    st.none() | st.integers(1, 9),
)  # fmt: skip
steps: st.SearchStrategy[Step] = st.one_of(
    st.builds(
        lambda chat, name, kind, own: lambda unit: unit.add_message(message(chat, name, kind, own)),
        chats,
        ids,
        st.sampled_from(["text", UNDECRYPTABLE]),
        st.booleans(),
    ),
    st.builds(
        lambda chat, name: lambda unit: unit.update_message(chat, chat, name, revoked_at=8), chats, ids
    ),
    st.builds(
        lambda chat, name, status: lambda unit: unit.raise_status(chat, name, status),
        chats,
        ids,
        st.integers(0, 5),
    ),
    st.builds(
        lambda name, ref, stanza: lambda unit: unit.enqueue(outgoing(name, ref, stanza)),
        ids,
        st.sampled_from(["r1", "r2", "r3"]),
        stanzas,
    ),
    st.builds(
        lambda name, state, stanza: lambda unit: unit.update_outbox(name, state=state, stanza=stanza),
        ids,
        st.sampled_from(["queued", "sending", "sent", "failed"]),
        stanzas,
    ),
    st.builds(
        lambda chat, name, text: lambda unit: unit.keep_plaintext(chat, name, text),
        chats,
        ids,
        st.binary(max_size=5),
    ),
    secrets.map(lambda row: lambda unit: unit.keep_secret(row)),
    st.builds(
        lambda chat, name, n: lambda unit: unit.journal(chat, chat, name, bytes([n]) * 32),
        chats,
        ids,
        st.integers(0, 3),
    ),
    st.builds(lambda n: lambda unit: unit.event("message:new", {"n": n}), st.integers(0, 9)),
)
Columns = dict[str, Any]
columns: st.SearchStrategy[Columns] = st.one_of(
    st.just({}),
    st.fixed_dictionaries({"me_pn": st.sampled_from([None, "1:2@s.whatsapp.net"])}),
    st.fixed_dictionaries({"held": st.booleans(), "reconnect_count": st.integers(0, 5)}),
)


@st.composite
def units(draw: st.DrawFn) -> Unit:
    unit = Unit()
    for (kind, key), value in draw(items).items():
        unit.put(kind, key, value) if value is not None else unit.delete(kind, key)
    if draw(st.integers(0, 3)) == 0:
        unit.set_creds(draw(values))
    unit.set_session(**draw(columns))
    for step in draw(st.lists(steps, max_size=4)):
        step(unit)
    if draw(st.integers(0, 9)) == 0:
        unit.set_session(no_such_column=1)
    return unit


class StoreMachine(RuleBasedStateMachine):
    """Compares after each step."""

    backend: Callable[[], Backend] = SqliteBackend
    encrypted = True
    legacy = False

    def __init__(self) -> None:
        super().__init__()
        self.place = self.backend()
        self.codec = PlainCodec() if self.legacy else None
        self.phase: Phase = "snapshot_primary" if self.legacy else "cut_over"
        self.model = Model()
        self.engine = self._open()

    def _open(self) -> Engine:
        # A new one each time: what it knows must come from the database.
        vault = Vault({"main": KEK}, "main" if self.encrypted else None)
        return self.place.open(vault, self.codec, self.phase)

    def teardown(self) -> None:
        self.engine.close()
        self.place.close()

    @initialize()
    def make_sessions(self) -> None:
        for name in NAMES:
            (row,) = self.engine.write([CreateSession(name)])
            assert isinstance(row, SessionRow)
            session = ModelSession(row.id, row.auth_phase, encrypted=self.encrypted)
            self.model.sessions[row.id] = session

    # Jobs. Those of one group are drawn one after the other, each in view of what the ones before it do.

    @rule(data=st.data(), size=st.integers(1, 6))
    def group(self, data: st.DataObject, size: int) -> None:
        jobs, expected, model = self._plan(data, size)
        outcomes = self.engine.write(jobs)
        for job, outcome, known in zip(jobs, outcomes, expected, strict=True):
            _check_outcome(job, outcome, known)
        self.model = model

    @rule(data=st.data(), size=st.integers(1, 6), after=st.integers(0, 60))
    def crash(self, data: st.DataObject, size: int, after: int) -> None:
        jobs, _, model = self._plan(data, size)
        if self.place.crash(self.engine, jobs, after):
            self.model = model
        self.engine = self._open()

    @rule()
    def reopen(self) -> None:
        self.engine.close()
        self.engine = self._open()

    @precondition(lambda self: not self.encrypted)
    @rule()
    def have_a_key_from_now_on(self) -> None:
        self.encrypted = True
        self.reopen()

    def _plan(self, data: st.DataObject, size: int) -> tuple[list[Job], list[Any], Model]:
        model = deepcopy(self.model)
        jobs: list[Job] = []
        expected: list[Any] = []
        for _ in range(size):
            job = self._draw(data, model)
            before = deepcopy(model)
            jobs.append(job)
            try:
                expected.append(model.apply(job))
            except Refused as refused:
                model = before
                expected.append(refused.error)
            self._note_key(job, expected[-1], model)
        return jobs, expected, model

    def _note_key(self, job: Job, known: Any, model: Model) -> None:
        """A new epoch is encrypted when there is a key by now."""
        if isinstance(job, ResetAuth | RestoreAuth) and not isinstance(known, type):
            model.sessions[job.session_id].encrypted = self.encrypted

    def _draw(self, data: st.DataObject, model: Model) -> Job:
        session = model.sessions[data.draw(st.sampled_from(sorted(model.sessions)))]
        stale = data.draw(st.integers(0, 9)) == 0
        token = session.token - stale
        makers: list[Callable[[], Job]] = [
            *[lambda: CommitUnit(session.id, token, data.draw(units()))] * 8,
            lambda: Attach(
                session.id,
                data.draw(st.sampled_from(["one", "other"])),
                data.draw(st.sampled_from([NO_LEASE, ENDED, LONG])),
            ),
            lambda: ReleaseLease(session.id, token),
            lambda: RenewLeases([(session.id, token)], LONG),
            lambda: self._seal(data, session),
            lambda: self._drop_seals(data, session),
            lambda: ResetAuth(session.id, token, data.draw(values)),
            lambda: self._restore(data, session, token),
            lambda: AppendEvent(session.id if stale else None, "alert:raised", {"n": token}),
            lambda: UpdateSession(session.id, data.draw(columns)),
            lambda: self._copy_secrets(data, session, token),
            # At a time at which nothing but secrets is old.
            lambda: Prune(data.draw(st.integers(0, 9)), 10**9, 10**9, 10**9),
        ]  # fmt: skip
        if self.legacy:
            makers += [lambda: self._move(data, session, token)] * 4
            makers += [lambda: Backfill(session.id, token, data.draw(st.integers(1, 9)))]
        elif self.encrypted:
            makers += [lambda: EncryptAuth(session.id, token)]
        return data.draw(st.sampled_from(makers))()

    def _seal(self, data: st.DataObject, session: ModelSession) -> Job:
        reason = data.draw(st.sampled_from(["periodic", "manual", "shutdown"]))
        return Seal(session.id, reason, not self.legacy and data.draw(st.booleans()))

    def _drop_seals(self, data: st.DataObject, session: ModelSession) -> Job:
        known = st.sampled_from(sorted(session.seals) or [(9, 9)])
        return DropSeals(session.id, data.draw(st.lists(known, max_size=2, unique=True)))

    def _copy_secrets(self, data: st.DataObject, session: ModelSession, token: int) -> Job:
        found = data.draw(st.lists(secrets, max_size=3))
        return CopyRows(session.id, token, TABLE, [secret_values(row) for row in found])

    def _restore(self, data: st.DataObject, session: ModelSession, token: int) -> Job:
        found = {key: value for key, value in data.draw(items).items() if value is not None}
        changes = {"no_such_column": 1} if data.draw(st.integers(0, 4)) == 0 else data.draw(columns)
        least = data.draw(st.integers(0, session.epoch + 3))
        return RestoreAuth(
            session.id, token, data.draw(values), found, changes, "auth:restored", {"n": 1}, least
        )

    def _move(self, data: st.DataObject, session: ModelSession, token: int) -> Job:
        nexts = sorted(NEXT[session.phase] - {"backfilled", "legacy_retired"}) or ["cut_over"]
        if session.phase == "snapshot_primary":
            nexts.append("backfilled")
        return MovePhase(session.id, token, data.draw(st.sampled_from(nexts)), "test", {"n": 1})  # type: ignore[arg-type]

    # What is read.

    @invariant()
    def everything_is_as_it_should_be(self) -> None:
        for session in self.model.sessions.values():
            self._check_auth(session)
            self._check_rest(session)
        found = [(row.connection_id, row.type, row.data) for row in self.engine.events(0, 10_000, None, None)]
        assert found == self.model.events

    def _check_auth(self, session: ModelSession) -> None:
        row = self.engine.session(session.id)
        assert row is not None
        assert (row.auth_epoch, row.auth_version, row.auth_phase, row.lease_token) == (
            session.epoch, session.version, session.phase, session.token,
        )  # fmt: skip
        assert row.kek_id == ("main" if session.encrypted else None)
        assert (row.messages_received, row.decrypt_failures) == (session.received, session.failures)
        assert {name: getattr(row, name) for name in session.columns} == session.columns
        assert self.engine.checked_creds(session.id) == self.engine.creds(session.id) == session.creds
        state = self.engine.auth_state(session.id)
        assert {key: document for key, (_, document) in state.items.items()} == session.documents
        if not self.legacy:
            assert state.items == session.items
        else:
            comparison = self.engine.compare(session.id)
            assert comparison.equal or session.phase == "dual_write"
            assert (comparison.different, comparison.extra) == ({}, {})
        for kind in KINDS:
            own = {key: value for (own_kind, key), value in session.documents.items() if own_kind == kind}
            assert self.engine.items(session.id, kind, None) == own
            assert self.engine.items(session.id, kind, KEYS[:2]) == {k: own[k] for k in KEYS[:2] if k in own}
            assert self.engine.item_keys(session.id, kind, "2") == sorted(key for key in own if key[0] == "2")
        self.engine.look(lambda db: _check_head(db, session))  # type: ignore[attr-defined]

    def _check_rest(self, session: ModelSession) -> None:
        engine = self.engine
        found = {
            (row.chat, row.sender, row.message_id): row
            for row in engine.messages(session.id, None, None, 100)
        }
        assert found.keys() == session.messages.keys()
        for key, row in found.items():
            own = session.messages[key]
            assert (row.kind, row.body, row.status, row.revoked_at) == (
                own.kind,
                own.body,
                own.status,
                own.revoked_at,
            )
        states = ["queued", "held", "sending", "sent", "failed", "expired", "cancelled"]
        outbox = [
            (row.message_id, row.client_ref, row.state, row.stanza, row.payload)
            for row in engine.outbox(session.id, states, 100)
        ]
        assert outbox == [
            (name, own.row.client_ref, own.state, own.stanza, own.row.payload)
            for name, own in session.outbox.items()
        ]
        for name in IDS:
            own_texts = {chat: text for (chat, own_id), text in session.plaintexts.items() if own_id == name}
            assert dict(engine.plaintext(session.id, name)) == own_texts
        self._check_secrets(session)
        hashes = [bytes([n]) * 32 for n in range(4)]
        assert engine.journal_ciphers(session.id, hashes) == session.journal.keys()
        self._check_seals(session)

    def _check_secrets(self, session: ModelSession) -> None:
        engine, found = self.engine, []
        after: tuple[str, str, str] | None = ("", "", "")
        while after is not None:
            rows, after = engine.secrets(session.id, after, 2)
            found += rows
        assert found == [row for _, row in sorted(session.secrets.items())]
        for name in IDS:
            of_id = engine.message_secrets(session.id, CHATS, CHATS[:1], name)
            assert of_id == [row for key, row in session.secrets.items() if key == (CHATS[0], CHATS[0], name)]
        query = f"SELECT length(secret) FROM {TABLE} WHERE session_id=?"
        stored = engine.look(lambda db: db.execute(query, (session.id,)).fetchall())  # type: ignore[attr-defined]
        assert {length for (length,) in stored} <= {60 if session.encrypted else 32}

    def _check_seals(self, session: ModelSession) -> None:
        infos = self.engine.seals(session.id)
        assert [(info.epoch, info.version) for info in infos] == sorted(session.seals, reverse=True)
        for info in infos:
            own = session.seals[info.epoch, info.version]
            assert (info.reason, info.item_count) == (own.reason, len(own.items))
            sealed = self.engine.sealed(session.id, info.epoch, info.version)
            assert (sealed.epoch, sealed.version) == (info.epoch, info.version)
            assert (sealed.creds, sealed.items) == (own.creds, own.items)


def _check_outcome(job: Job, outcome: Any, known: Any) -> None:
    if isinstance(known, type):
        assert type(outcome) is known, (job, outcome)
        return
    assert not isinstance(outcome, Exception), (job, outcome)
    if isinstance(job, Attach):
        assert outcome.lease_token == known
    elif isinstance(job, RenewLeases):
        assert outcome.sessions == known
    elif isinstance(outcome, Committed):
        assert outcome.version == known
    elif isinstance(known, int):
        assert outcome == known


def _check_head(db: Database, session: ModelSession) -> None:
    """The head against all rows, by other statements than those of the store."""
    head = db.execute(
        "SELECT epoch, version, item_count, checksum, creds_version, snapshot FROM wa_auth_snapshots "
        "WHERE session_id=?",
        (session.id,),
    ).fetchone()
    rows = db.execute(
        "SELECT type, id, version, value, checksum FROM wa_auth_items WHERE session_id=?", (session.id,)
    ).fetchall()
    if head is None:
        assert not rows
        assert session.phase == "legacy_only" or (session.creds, session.creds_version) == (None, None)
        return
    epoch, version, count, root, creds_version, creds = head
    assert (epoch, version, count) == (session.epoch, session.version, len(rows))
    mac_key = None
    if session.encrypted:
        wrapped, kek_id = db.execute(
            "SELECT dek_wrapped, dek_kek_id FROM wa_sessions WHERE id=?", (session.id,)
        ).fetchone()
        mac_key = Vault({"main": KEK}, "main").cipher(session.id, epoch, wrapped, kek_id).mac_key
        for kind, _, _, value, _ in rows:
            assert ("$wad" in json.loads(value)) == (kind != "identity")
    parts = [checksum.item_checksum("creds", "", creds_version, as_stored(creds), mac_key)]
    for kind, key, own, value, stored in rows:
        parts.append(checksum.item_checksum(kind, key, own, as_stored(value), mac_key))
        assert parts[-1] == bytes(stored)
        assert own <= version
    assert checksum.total(parts) == bytes(root)


def run(machine: type[StoreMachine], examples: int) -> None:
    """As many walks as that."""
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=12,
            deadline=None,
            suppress_health_check=[
                HealthCheck.too_slow,
                HealthCheck.data_too_large,
                HealthCheck.filter_too_much,
            ],
        ),
    )


@pytest.mark.parametrize("encrypted", [True, False], ids=["encrypted", "clear"])
@pytest.mark.parametrize("legacy", [False, True], ids=["alone", "dual"])
def test_the_store_does_what_the_model_does(encrypted: bool, legacy: bool) -> None:
    run(type("Machine", (StoreMachine,), {"encrypted": encrypted, "legacy": legacy}), EXAMPLES)
