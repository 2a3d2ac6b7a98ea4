"""Moving an auth state from one representation to the other, step by step (chapter 08 §6.5).

Nothing here decides whether a step is wise; that is asked before (`waD.session.storage`). What is impossible is
refused by the database itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from waD.store.codec import Codec, LegacyKey
from waD.store.engine import Backfill, Comparison, MovePhase
from waD.store.errors import LeaseLost, StoreDamaged
from waD.store.model import SessionRow
from waD.store.phases import FALLS_BACK, NEXT, WRITES_LEGACY
from waD.store.sql import auth, rows
from waD.store.sql.database import Database, Ms
from waD.store.sql.heads import Fenced, Heads, empty_head, put_legacy, set_creds
from waD.store.sql.sealing import Sealing
from waD.store.sql.writing import open_cipher
from waD.store.vault import Vault

BEFORE: Final = frozenset(
    {("legacy_only", "dual_write"), ("snapshot_primary", "cut_over"), ("cut_over", "legacy_retired")}
)
"""Steps before which the state is sealed."""
_FENCE: Final = (
    "UPDATE wa_sessions SET updated_at=? WHERE id=? AND lease_token=? RETURNING dek_wrapped, dek_kek_id"
)
_MOVE: Final = "UPDATE wa_sessions SET auth_phase=?, updated_at=? WHERE id=?"
_LOG: Final = (
    "INSERT INTO wa_auth_phase_log (session_id, from_phase, to_phase, actor, report, at) VALUES (?,?,?,?,?,?)"
)


class Phasing:
    """Phase changes of one database.

    Args:
        heads: of the connection that writes.
        sealing: makes the seals.
        codec: of legacy rows; None where this program cannot read them.
        vault: the operator's keys.
    """

    def __init__(self, heads: Heads, sealing: Sealing, codec: Codec | None, vault: Vault | None) -> None:
        self._heads = heads
        self._sealing = sealing
        self._codec = codec
        self._vault = vault

    def move(self, db: Database, row: SessionRow, job: MovePhase, now_ms: int) -> None:
        """Change the phase.

        Raises:
            LeaseLost: the token is not the current one.
            ValueError: there is no such step, or the legacy rows cannot be written.
        """
        step = (row.auth_phase, job.to_phase)
        if job.to_phase not in NEXT[row.auth_phase]:
            raise ValueError(f"there is no step from {row.auth_phase} to {job.to_phase}")
        at = self._fenced(db, row, job.token, now_ms)
        if step in BEFORE:
            self._sealing.put(db, row, "pre_migration", now_ms)
        if (do := _STEPS.get(step)) is not None:
            do(self, db, at, now_ms)
        self._heads.flush(db, now_ms, row.id)
        self._heads.drop(row.id)
        if job.to_phase in {"backfilled", "snapshot_primary"}:
            db.execute("UPDATE wa_auth_snapshots SET complete=? WHERE session_id=?", (True, row.id))
        db.execute(_MOVE, (job.to_phase, Ms(now_ms), row.id))
        if job.to_phase == "legacy_only":
            self._drop_snapshot(db, row.id)
        report = rows.json_text(dict(job.report))
        db.execute(_LOG, (row.id, *step, job.actor, report, Ms(now_ms)))

    def backfill(self, db: Database, row: SessionRow, job: Backfill, now_ms: int) -> int:
        """Copy at most so many items that only the legacy rows have; returns how many.

        Raises:
            LeaseLost: the token is not the current one.
        """
        at = self._fenced(db, row, job.token, now_ms)
        codec = self._need_codec()
        if row.auth_phase not in {"dual_write", "backfilled"}:
            raise ValueError(f"in the phase {row.auth_phase} there is nothing to fill in")
        missing = auth.missing_in_snapshot(db, row.id, codec, job.limit)
        self._heads.write_copies(db, at, missing)
        return len(missing)

    def _fenced(self, db: Database, row: SessionRow, token: int, now_ms: int) -> Fenced:
        found = db.execute(_FENCE, (Ms(now_ms), row.id, token)).fetchone()
        if found is None:
            raise LeaseLost(f"session {row.name} has another owner now; its auth state was left as it is")
        cipher = open_cipher(self._vault, row.id, row.auth_epoch, *found)
        return Fenced(row.id, row.name, token, row.auth_epoch, row.auth_version, row.auth_phase, cipher)

    def _need_codec(self) -> Codec:
        if self._codec is None:
            raise ValueError("this store was opened without the means to read key-value rows")
        return self._codec

    def _begin_snapshot(self, db: Database, at: Fenced, now_ms: int) -> None:  # noqa: ARG002 - the form of a step
        """An empty snapshot with the credentials; the items follow by backfill."""
        codec = self._need_codec()
        self._drop_snapshot(db, at.session_id)
        head = empty_head(at)
        creds = codec.creds(auth.legacy_rows(db, at.session_id, codec.creds_names()))
        if creds is not None:
            set_creds(head, at, creds)
        self._heads.adopt(at.session_id, head)

    def _reverse_backfill(self, db: Database, at: Fenced, now_ms: int) -> None:
        """Write all legacy rows anew, and remove those that are not of this state."""
        codec = self._need_codec()
        self._heads.flush(db, now_ms, at.session_id)
        state = auth.read_state(db, at.session_id, codec, self._vault)
        wanted: dict[LegacyKey, bytes | None] = (
            {} if state.creds is None else {**codec.creds_rows(state.creds)}
        )
        for (kind, key), (_, document) in state.items.items():
            wanted.update(codec.item_rows(kind, key, document))
        for name, _ in auth.legacy_all(db, at.session_id):
            wanted.setdefault(name, None)
        put_legacy(db, at.session_id, wanted, now_ms)
        found = _contrast(state, dict(auth.legacy_all(db, at.session_id)), codec, at.phase)
        if not found.equal:
            kinds = sorted({*found.missing, *found.different, *found.extra})
            raise StoreDamaged(
                f"session {at.name}: key-value rows that were written anew do not say the same as the snapshot "
                f"({', '.join(kinds)}); nothing was changed"
            )
        db.execute("UPDATE wa_sessions SET legacy_version=auth_version WHERE id=?", (at.session_id,))

    def _retire(self, db: Database, at: Fenced, now_ms: int) -> None:  # noqa: ARG002 - the form of a step
        db.execute("DELETE FROM wa_auth_keys WHERE session_id=?", (at.session_id,))

    def _drop_snapshot(self, db: Database, session_id: str) -> None:
        """One that is not kept up any more would be a ratchet's past."""
        self._heads.drop(session_id)
        for table in ("wa_auth_items", "wa_auth_snapshots"):
            db.execute(f"DELETE FROM {table} WHERE session_id=?", (session_id,))


_STEPS: Final[dict[tuple[str, str], Callable[[Phasing, Database, Fenced, int], None]]] = {
    ("legacy_only", "dual_write"): Phasing._begin_snapshot,
    ("cut_over", "snapshot_primary"): Phasing._reverse_backfill,
    ("cut_over", "legacy_retired"): Phasing._retire,
}


def compare(db: Database, session_id: str, codec: Codec, vault: Vault | None) -> Comparison:
    """Snapshot against legacy rows, both ways; differences are named by kind only.

    Raises:
        StoreDamaged: the snapshot does not match its checksum.
    """
    own = auth.owner(db, session_id, vault)
    if own.phase not in WRITES_LEGACY or not own.has_snapshot:
        return Comparison(phase=own.phase, compared=False)
    state = auth.read_snapshot(db, session_id, own)
    return _contrast(state, dict(auth.legacy_all(db, session_id)), codec, own.phase)


def _contrast(state: auth.State, stored: Mapping[LegacyKey, bytes], codec: Codec, phase: str) -> Comparison:
    missing: dict[str, int] = {}
    different: dict[str, int] = {}
    extra: dict[str, int] = {}

    def count(tally: dict[str, int], kind: str) -> None:
        tally[kind] = tally.get(kind, 0) + 1

    named = {name for name in map(codec.native, stored) if name is not None}
    for kind, key in named - state.items.keys():
        rows_of = {name: stored[name] for name in codec.names(kind, key) if name in stored}
        if codec.item(kind, key, rows_of) is not None:
            count(missing, kind)
    for (kind, key), (_, document) in state.items.items():
        present = {name: stored[name] for name in codec.names(kind, key) if name in stored}
        # Always by reading: what the codec would write says nothing about what can be read again.
        found = codec.item(kind, key, present) if present else None
        if found is None:
            count(extra, kind)
        elif found != document:
            count(different, kind)
    creds = codec.creds({name: stored[name] for name in codec.creds_names() if name in stored})
    if creds != state.creds:
        count(different, "creds")
    return Comparison(
        phase=phase,
        compared=True,
        items=len(state.items),
        missing=missing,
        different=different,
        extra=extra,
        falls_back=phase in FALLS_BACK,
    )


def phase_log(db: Database, session_id: str, limit: int) -> list[dict[str, Any]]:
    """The newest phase changes, newest first."""
    found = db.execute(
        "SELECT from_phase, to_phase, actor, report, at FROM wa_auth_phase_log WHERE session_id=? "
        "ORDER BY id DESC LIMIT ?",
        (session_id, limit),
    ).fetchall()
    return [
        {"from": old, "to": new, "actor": actor, "report": rows.decode_json(report), "at": at}
        for old, new, actor, report, at in found
    ]
