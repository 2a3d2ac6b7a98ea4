"""What the store should do, in memory: sessions as plain values, and every job as a change of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from waD.store.canonical import canonical
from waD.store.codec import LegacyKey
from waD.store.engine import (
    AppendEvent,
    Attach,
    Backfill,
    CommitUnit,
    CopyRows,
    DropSeals,
    EncryptAuth,
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
from waD.store.errors import LeaseLost, SessionLeased
from waD.store.model import UNDECRYPTABLE, MessageRow, OutboxRow, SecretRow
from waD.store.phases import NEXT
from waD.store.seals import ROUTINE
from waD.store.sql.moving import TABLES
from waD.store.unit import (
    Announce,
    ChangeMessage,
    ChangeOutbox,
    Enqueue,
    Journal,
    KeepPlaintext,
    KeepSecret,
    PutMessage,
    RaiseStatus,
    Unit,
)

ItemKey = tuple[str, str]
WAITING = ("queued", "sending")


@dataclass
class ModelMessage:
    """What counts of a message."""

    row: MessageRow
    kind: str
    body: str | None
    status: int
    revoked_at: int | None = None


@dataclass
class ModelOutbox:
    """What counts of a message on its way."""

    row: OutboxRow
    state: str
    stanza: bytes | None = None


@dataclass
class ModelSeal:
    """A sealed copy."""

    reason: str
    creds: bytes | None
    items: dict[ItemKey, bytes]


@dataclass
class ModelSession:
    """One session. `lease` is whose it is while it lasts, `holder` who had it last."""

    id: str
    phase: str
    token: int = 0
    lease: str | None = None
    holder: str | None = None
    epoch: int = 1
    version: int = 0
    creds: bytes | None = None
    creds_version: int | None = None
    items: dict[ItemKey, tuple[int, bytes]] = field(default_factory=dict)
    columns: dict[str, Any] = field(default_factory=dict)
    messages: dict[tuple[str, str, str], ModelMessage] = field(default_factory=dict)
    outbox: dict[str, ModelOutbox] = field(default_factory=dict)
    plaintexts: dict[tuple[str, str], bytes] = field(default_factory=dict)
    secrets: dict[tuple[str, str, str], SecretRow] = field(default_factory=dict)
    journal: dict[bytes, tuple[str, str, str]] = field(default_factory=dict)
    seals: dict[tuple[int, int], ModelSeal] = field(default_factory=dict)
    received: int = 0
    failures: int = 0
    encrypted: bool = False

    @property
    def documents(self) -> dict[ItemKey, bytes]:
        """Without versions."""
        return {key: document for key, (_, document) in self.items.items()}


class Refused(Exception):  # noqa: N818 - what is the case
    """The job must fail in this way."""

    def __init__(self, error: type[Exception]) -> None:
        super().__init__(error.__name__)
        self.error = error


@dataclass
class Model:
    """All sessions, and the log of events."""

    sessions: dict[str, ModelSession] = field(default_factory=dict)
    events: list[tuple[str | None, str, dict[str, Any]]] = field(default_factory=list)

    def apply(self, job: Job) -> Any:
        """Do a job: what it gives, as far as that is known; raises Refused, and has changed nothing then."""
        return getattr(self, f"_{type(job).__name__}")(job)

    def _owned(self, session_id: str, token: int) -> ModelSession:
        session = self.sessions[session_id]
        if session.token != token:
            raise Refused(LeaseLost)
        return session

    def _CommitUnit(self, job: CommitUnit) -> int:  # noqa: N802 - named like its job
        if "no_such_column" in job.unit.session:
            raise Refused(ValueError)
        session = self._owned(job.session_id, job.token)
        refs, ids = {row.row.client_ref for row in session.outbox.values()}, set(session.outbox)
        for step in job.unit.steps:
            if isinstance(step, Enqueue):
                if step.row.message_id in ids or step.row.client_ref in refs:
                    raise Refused(ValueError)
                refs.add(step.row.client_ref)
                ids.add(step.row.message_id)
        self._unit(session, job.unit)
        return session.version

    def _unit(self, session: ModelSession, unit: Unit) -> None:
        session.version += 1
        # A unit that touches no key makes no head.
        if session.creds_version is None and (unit.items or unit.creds is not None):
            session.creds_version = session.version
        for key, value in unit.items.items():
            if value is None:
                session.items.pop(key, None)
            else:
                assert isinstance(value, bytes)
                session.items[key] = (session.version, value)
        if unit.creds is not None:
            session.creds, session.creds_version = unit.creds, session.version
        session.columns |= unit.session
        for step in unit.steps:
            self._step(session, step)

    def _step(self, session: ModelSession, step: Any) -> None:
        match step:
            case PutMessage(row):
                self._put_message(session, row)
            case ChangeMessage(chat, sender, message_id, changes):
                if (found := session.messages.get((chat, sender, message_id))) is not None:
                    found.revoked_at = changes["revoked_at"]
            case RaiseStatus(chat, message_id, status):
                for (own_chat, _, own_id), message in session.messages.items():
                    if (own_chat, own_id) == (chat, message_id) and message.row.from_me:
                        message.status = max(message.status, status)
            case Enqueue(row):
                session.outbox[row.message_id] = ModelOutbox(row, row.state, row.stanza)
            case ChangeOutbox(message_id, changes):
                if message_id in session.outbox:
                    session.outbox[message_id].state = changes["state"]
                    session.outbox[message_id].stanza = changes["stanza"]
            case KeepPlaintext(chat, message_id, plaintext):
                session.plaintexts[chat, message_id] = plaintext
            case KeepSecret(row):
                self._put_secret(session, row)
            case Journal(chat, sender, message_id, sha):
                session.journal.setdefault(sha, (chat, sender, message_id))
            case Announce(kind, data):
                self.events.append((session.id, kind, data))

    def _put_message(self, session: ModelSession, row: MessageRow) -> None:
        key = (row.chat, row.sender, row.message_id)
        found = session.messages.get(key)
        if found is None:
            session.messages[key] = ModelMessage(row, row.kind, row.body, row.status)
        elif found.kind == UNDECRYPTABLE:
            found.kind, found.body = row.kind, row.body
        else:
            return
        if not row.from_me:
            session.failures += row.kind == UNDECRYPTABLE
            session.received += row.kind != UNDECRYPTABLE

    def _put_secret(self, session: ModelSession, row: SecretRow) -> None:
        key = (row.chat, row.sender, row.message_id)
        found = session.secrets.get(key)
        if found is None or found.message_ts < row.message_ts:
            session.secrets[key] = row

    def _CopyRows(self, job: CopyRows) -> int:  # noqa: N802
        session = self._owned(job.session_id, job.token)
        for values in job.rows:
            self._put_secret(session, SecretRow(**dict(zip(TABLES[job.table].columns, values, strict=True))))
        return len(job.rows)

    def _Prune(self, job: Prune) -> int:  # noqa: N802 - with times that only reach secrets
        went = 0
        for session in self.sessions.values():
            gone = [
                key
                for key, row in session.secrets.items()
                if row.expires_at is not None and row.expires_at < job.now_ms
            ]
            for key in gone:
                del session.secrets[key]
            went += len(gone)
        return went

    def _Attach(self, job: Attach) -> int:  # noqa: N802
        session = self.sessions[job.session_id]
        if session.lease not in (None, job.holder):
            raise Refused(SessionLeased)
        session.token += 1
        session.holder = job.holder
        session.lease = None if job.lease_ms is None or job.lease_ms < 0 else job.holder
        return session.token

    def _RenewLeases(self, job: RenewLeases) -> frozenset[str]:  # noqa: N802
        ours = [name for name, token in job.leases if self.sessions[name].token == token]
        for name in ours:
            self.sessions[name].lease = self.sessions[name].holder or "nobody"
        return frozenset(ours)

    def _ReleaseLease(self, job: ReleaseLease) -> int:  # noqa: N802
        session = self.sessions[job.session_id]
        if session.token != job.token:
            return 0
        session.token, session.lease, session.holder = session.token + 1, None, None
        return 1

    def _AppendEvent(self, job: AppendEvent) -> int:  # noqa: N802
        self.events.append((job.session_id, job.type, job.data))
        return 0

    def _UpdateSession(self, job: UpdateSession) -> None:  # noqa: N802
        self.sessions[job.session_id].columns |= job.changes

    def _Seal(self, job: Seal) -> int:  # noqa: N802
        session = self.sessions[job.session_id]
        if job.if_changed and self._unchanged(session):
            return 0
        return self._seal(session, job.reason)

    def _unchanged(self, session: ModelSession) -> bool:
        versions = [version for epoch, version in session.seals if epoch == session.epoch]
        if not versions:
            return False
        seal = session.seals[session.epoch, max(versions)]
        newest = max([version for version, _ in session.items.values()], default=0)
        return max(newest, session.creds_version or 0) <= max(versions) and len(seal.items) == len(
            session.items
        )

    def _seal(self, session: ModelSession, reason: str) -> int:
        key = (session.epoch, session.version)
        if key not in session.seals:
            session.seals[key] = ModelSeal(reason, session.creds, session.documents)
        elif reason not in ROUTINE:
            session.seals[key].reason = reason
        return session.version

    def _DropSeals(self, job: DropSeals) -> int:  # noqa: N802
        session = self.sessions[job.session_id]
        there = set(job.seals) & set(session.seals)
        for key in there:
            del session.seals[key]
        return len(there)

    def _ResetAuth(self, job: ResetAuth) -> int:  # noqa: N802
        session = self._owned(job.session_id, job.token)
        sealed = self._seal(session, "pre_reset")
        self._begin(session, job.creds, {}, 0)
        session.columns |= {"me_pn": None, "me_lid": None}
        session.plaintexts.clear()
        session.journal.clear()
        return sealed

    def _RestoreAuth(self, job: RestoreAuth) -> int:  # noqa: N802
        if "no_such_column" in job.changes:
            raise Refused(ValueError)
        session = self._owned(job.session_id, job.token)
        sealed = self._seal(session, "pre_restore")
        self._begin(session, job.creds, job.items, job.least_epoch)
        session.columns |= job.changes
        self.events.append((session.id, job.event_type, {**job.event_data, "sealedVersion": sealed}))
        return session.version

    def _begin(
        self, session: ModelSession, creds: bytes, items: Mapping[ItemKey, bytes], least_epoch: int
    ) -> None:
        session.epoch = max(session.epoch + 1, least_epoch)
        session.version += 1
        session.creds, session.creds_version = creds, session.version
        session.items = {key: (session.version, document) for key, document in items.items()}
        for row in session.outbox.values():
            if row.state in WAITING:
                row.state, row.stanza = "held", None

    def _MovePhase(self, job: MovePhase) -> None:  # noqa: N802
        session = self.sessions[job.session_id]
        if job.to_phase not in NEXT[session.phase]:
            raise Refused(ValueError)
        self._owned(job.session_id, job.token)
        if (session.phase, job.to_phase) in {
            ("legacy_only", "dual_write"), ("snapshot_primary", "cut_over"), ("cut_over", "legacy_retired"),
        }:  # fmt: skip
            self._seal(session, "pre_migration")
        session.phase = job.to_phase

    def _Backfill(self, job: Backfill) -> None:  # noqa: N802
        session = self._owned(job.session_id, job.token)
        if session.phase not in {"dual_write", "backfilled"}:
            raise Refused(ValueError)

    def _EncryptAuth(self, job: EncryptAuth) -> int | None:  # noqa: N802
        session = self.sessions[job.session_id]
        if session.encrypted:
            return 0
        self._owned(job.session_id, job.token)
        session.version += 1
        session.encrypted = True
        return session.version


class PlainCodec:
    """Legacy rows that are the items under other names: an item of kind K and key I is the row (x-wad-K, I)."""

    def names(self, kind: str, key: str) -> Sequence[LegacyKey]:
        """One row."""
        return [(f"x-wad-{kind}", key)]

    def item_rows(self, kind: str, key: str, document: bytes | None) -> Mapping[LegacyKey, bytes | None]:
        """That row."""
        return {(f"x-wad-{kind}", key): None if document is None else canonical({"was": document.decode()})}

    def item(self, kind: str, key: str, rows: Mapping[LegacyKey, bytes]) -> bytes | None:
        """From that row."""
        return self._back(rows.get((f"x-wad-{kind}", key)))

    def creds_names(self) -> Sequence[LegacyKey]:
        """One row."""
        return [("creds", "")]

    def creds_rows(self, document: bytes) -> Mapping[LegacyKey, bytes | None]:
        """That row."""
        return {("creds", ""): canonical({"was": document.decode()})}

    def creds(self, rows: Mapping[LegacyKey, bytes]) -> bytes | None:
        """From that row."""
        return self._back(rows.get(("creds", "")))

    def types(self, kind: str) -> Sequence[str]:
        """One type for one kind."""
        return [f"x-wad-{kind}"]

    def native(self, legacy: LegacyKey) -> tuple[str, str] | None:
        """The item of a row."""
        kind, key = legacy
        return (kind.removeprefix("x-wad-"), key) if kind.startswith("x-wad-") else None

    def _back(self, row: bytes | None) -> bytes | None:
        if row is None:
            return None
        import json

        text: str = json.loads(row)["was"]
        return text.encode()
