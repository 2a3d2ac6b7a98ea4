"""How auth states are stored: phases of the two representations, encryption, and the purge of history."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec

from waD.control.types.auth import Verdict
from waD.control.types.base import AddressParam, Answer, CursorParam, NameParam, PageParam, Params

Phase: TypeAlias = Literal[
    "legacy_only", "dual_write", "backfilled", "snapshot_primary", "cut_over", "legacy_retired"
]
RollbackPhase: TypeAlias = Literal["legacy_only", "backfilled", "snapshot_primary"]
StorageOutcome: TypeAlias = Literal["done", "unfinished", "nothing", "possible", "refused", "damaged"]

AgeParam: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
BatchParam: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=10_000)]
BatchesParam: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
KekParam: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class StorageParams(Params, frozen=True, kw_only=True):
    """Parameters of a step; with `dry_run` it is only said whether it would be taken."""

    name: NameParam
    dry_run: bool = False


class BackfillParams(Params, frozen=True, kw_only=True):
    """Parameters of `storage.backfill`.

    Attributes:
        batch: items that are copied in one transaction.
        batches: so many at the most; without it all that there are.
        dry_run: only say how much there is to copy.
    """

    name: NameParam
    batch: BatchParam = 500
    batches: BatchesParam | None = None
    dry_run: bool = False


class PromoteParams(Params, frozen=True, kw_only=True):
    """Parameters of `storage.promote`.

    Attributes:
        min_age: seconds that the session must have been in the phase before.
        dry_run: only say whether it would be done.
    """

    name: NameParam
    min_age: AgeParam = 86_400.0
    dry_run: bool = False


class RollbackParams(Params, frozen=True, kw_only=True):
    """Parameters of `storage.rollback`.

    Attributes:
        to: how far; without it one step.
        dry_run: only say whether it would be done.
    """

    name: NameParam
    to: RollbackPhase | None = None
    dry_run: bool = False


class RetireParams(Params, frozen=True, kw_only=True):
    """Parameters of `storage.retire_legacy`; `confirm` is the session's name once more."""

    name: NameParam
    confirm: Annotated[str, msgspec.Meta(max_length=256)] = ""
    dry_run: bool = False


class RewrapParams(Params, frozen=True, kw_only=True):
    """Parameters of `storage.rewrap`; `kek` names a key, without it the one that wraps new ones."""

    name: NameParam
    kek: KekParam | None = None
    dry_run: bool = False


class StorageStatus(Answer, frozen=True, kw_only=True):
    """How a session's auth state is stored.

    Attributes:
        phase: which of the two representations is written and read.
        phase_since: when that began.
        epoch: rises with each pairing, reset and restore.
        version: rises with each commit.
        legacy_version: the last version that the key-value rows contain whole.
        lag: `version` less `legacy_version`.
        items: in the snapshot.
        legacy_rows: key-value rows.
        bytes: of both.
        fallback_hits: items that were found only in key-value rows in this phase, where none should be.
        restarts: how often the session was taken up anew in this phase, at least.
        sealed_at: when a complete copy was sealed last.
        verified_at: when the state was verified last.
        verified_level: how deep.
        verified_ok: with what result.
        backup_at: when a backup was taken away last.
        encrypted: whether it is encrypted at rest.
        kek: the key of the operator's that its own key is wrapped with.
        kek_here: whether that key is here; without it the session cannot be used.
        seal_keks: how many sealed copies need which key.
    """

    name: str
    connection_id: str
    phase: Phase
    phase_since: int
    epoch: int
    version: int
    legacy_version: int
    lag: int
    items: int
    legacy_rows: int
    bytes: int
    fallback_hits: int = 0
    restarts: int = 0
    sealed_at: int | None = None
    verified_at: int | None = None
    verified_level: int | None = None
    verified_ok: bool | None = None
    backup_at: int | None = None
    encrypted: bool = False
    kek: str | None = None
    kek_here: bool = True
    seal_keks: dict[str, int] = {}


class KeyView(Answer, frozen=True, kw_only=True):
    """A key of the operator's.

    Attributes:
        id: main for the file itself, else the ending of its name.
        here: whether it is there.
        wraps_new: whether it wraps the keys of new states.
        sessions: those whose state needs it.
        retired: likewise, removed or moved ones, which can be brought back.
        seals: sealed copies that need it, of all sessions.
    """

    id: str
    here: bool
    wraps_new: bool
    sessions: list[str] = []
    retired: list[str] = []
    seals: int = 0


class KeyUser(Answer, frozen=True, kw_only=True):
    """What a session needs of the operator's keys.

    Attributes:
        retired: it was removed or moved, and can be brought back.
        kek: the key of its state, null in the clear.
        locked: that key is not here, or is another one of that name.
        seal_keks: how many sealed copies need which key.
    """

    name: str
    connection_id: str
    retired: bool
    kek: str | None = None
    locked: bool = False
    seal_keks: dict[str, int] = {}


class KeyList(Answer, frozen=True, kw_only=True):
    """Answer of `storage.keys`.

    Attributes:
        keys: those that are here, and those that are needed. One that nothing needs may be deleted, unless it wraps
            new ones.
        users: every session, retired ones too.
        lost: why no new state is stored, if the key for it is gone.
    """

    keys: list[KeyView]
    users: list[KeyUser]
    lost: str = ""


class Rewrap(Answer, frozen=True, kw_only=True):
    """What a rewrap did: the session's own key, 0 or 1, sealed copies, and those `left` since their key is gone."""

    sessions: int
    seals: int
    left: int = 0


class CheckView(Answer, frozen=True, kw_only=True):
    """One thing that a step demands. `check` is stable; `damage` says that damage or a difference was found."""

    check: str
    ok: bool
    detail: str
    damage: bool = False


class StorageLogParams(Params, frozen=True, kw_only=True):
    """Parameters of `storage.log`: at most so many changes."""

    name: NameParam
    limit: PageParam = 50


class PhaseChange(Answer, frozen=True, kw_only=True):
    """A change of the phase that was made.

    Attributes:
        was: the phase before.
        phase: the phase after.
        actor: who wanted it: a user's name and number, as the kernel knew them.
        at: when.
        checks: what was demanded then.
    """

    was: Phase
    phase: Phase
    actor: str
    at: int
    checks: list[CheckView] = []


class StorageLog(Answer, frozen=True, kw_only=True):
    """Answer of `storage.log`: changes of a session's phase, newest first."""

    name: str
    connection_id: str
    changes: list[PhaseChange]


class ComparisonView(Answer, frozen=True, kw_only=True):
    """The snapshot against the key-value rows, counts by kind of item.

    Attributes:
        items: in the snapshot.
        missing: only in the rows.
        different: in both, but not the same.
        extra: only in the snapshot.
    """

    items: int
    missing: dict[str, int] = {}
    different: dict[str, int] = {}
    extra: dict[str, int] = {}


class BackfillProgress(Answer, frozen=True, kw_only=True):
    """How far a backfill came: items copied by this call, and those that are left."""

    copied: int
    remaining: int


class StorageResult(Answer, frozen=True, kw_only=True):
    """Answer of the steps.

    Attributes:
        outcome: done; unfinished, call again to go on; nothing, it was so already; possible, said of a dry run;
            refused or damaged, and nothing was changed.
        was: the phase before.
        phase: the phase now.
        checks: what was demanded, and whether it was so.
        comparison: of the two representations, if both are kept up.
        progress: of a backfill.
        verdict: of a verification.
        rewrapped: of a rewrap.
        retired: the session was removed or moved.
        notes: what else the operator should know.
    """

    name: str
    connection_id: str
    outcome: StorageOutcome
    was: Phase
    phase: Phase
    checks: list[CheckView] = []
    comparison: ComparisonView | None = None
    progress: BackfillProgress | None = None
    verdict: Verdict | None = None
    rewrapped: Rewrap | None = None
    retired: bool = False
    notes: list[str] = []


class PurgeParams(Params, frozen=True, kw_only=True):
    """Parameters of `message.purge`: which messages; at least one of the two must be given.

    Attributes:
        chat: those of this chat.
        before: those that are older, in Unix milliseconds.
        dry_run: only count them.
    """

    session: NameParam
    chat: AddressParam | None = None
    before: CursorParam | None = None
    dry_run: bool = False


class PurgeResult(Answer, frozen=True, kw_only=True):
    """Answer of `message.purge`: how many messages there were, and how many are deleted now."""

    session: str
    found: int
    deleted: int
