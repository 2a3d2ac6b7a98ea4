"""What is done to a store of waD from outside of any daemon, under the session's lease: blocking (chapter 08 §6.4)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final

from waD.events import model as events
from waD.link.credentials import Credentials
from waD.store.engine import (
    Attach,
    CopyRows,
    CreateSession,
    Engine,
    Job,
    MovePhase,
    OwnMove,
    ReleaseLease,
    RestoreAuth,
)
from waD.store.errors import SessionLeased, StoreError
from waD.store.model import SessionRow
from waD.store.moves import note_key
from waD.store.names import SESSION_NAME
from waD.store.sql import message_secrets
from waD.store.sql.moving import secret_values
from waD.transfer.reviving import columns
from waD.transfer.state import AuthState, Report
from waD.transfer.verify import read_credentials, verify

LEASE_MS: Final = 60_000
PAGE: Final = 500


class MoveRefused(Exception):  # noqa: N818 - what is the case
    """A session is not moved; both stores are as they were, or as the text says. `code` is stable.

    The codes: `no_such_session`, `not_paired`, `session_in_use`, `session_up`, `name_invalid`, `name_taken`,
    `already_here`, `same_store`, `state_damaged`, `move_incomplete`, `not_equal`, `move_elsewhere`, `move_aborted`,
    `move_interrupted` (then not all is as it was),
    `move_ended`, `no_move`, `destination_unreachable`.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


def do(engine: Engine, job: Job) -> Any:
    """Commit one job.

    Raises:
        StoreError, ValueError: it changed nothing.
    """
    return together(engine, job)[0]


def together(engine: Engine, *jobs: Job) -> list[Any]:
    """Commit jobs as one; none of them may be refused without the others.

    Raises:
        StoreError, ValueError: they changed nothing.
    """
    outcomes = engine.write(jobs)
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
    return outcomes


def stored_state(engine: Engine, row: SessionRow) -> AuthState:
    """The state of a session.

    Raises:
        MoveRefused: there is none, or none that works.
        StoreError: it cannot be read.
    """
    found = engine.auth_state(row.id)
    report = Report()
    creds = None if found.creds is None else read_credentials(found.creds, report)
    if not report.ok:
        raise MoveRefused("state_damaged", f"session {row.name}: {report.errors[0]}")
    if creds is None or not creds.registered:
        raise MoveRefused("not_paired", f"session {row.name} is not paired: there is nothing to move")
    return AuthState(creds, {name: document for name, (_, document) in found.items.items()})


def checked(state: AuthState, now_ms: int) -> Report:
    """Verify a state to level 2.

    Raises:
        MoveRefused: it would not work.
    """
    report = verify(state, now_ms)
    if not report.ok:
        raise MoveRefused("state_damaged", f"the state would not work: {report.errors[0]}")
    return report


def refuse_taken(
    target: Engine, name: str, creds: Credentials, *, but: str | None = None
) -> SessionRow | None:
    """The session of that name, which is not paired, or None; one account is never in two sessions.

    Raises:
        MoveRefused: it is paired, or the account is here under another name. `but` is a session that does not count.
    """
    own = None if creds.me_pn is None else str(creds.me_pn)
    for row in target.sessions(True):
        if row.id == but:
            continue
        if own is not None and row.me_pn == own:
            raise MoveRefused(
                "already_here", f"the account's device is in {target.name} as session {row.name!r}"
            )
        if row.name == name and row.me_pn is not None:
            raise MoveRefused(
                "name_taken", f"there is a paired session {name!r} in {target.name}: choose another name"
            )
    return target.session(name)


@contextmanager
def lease(engine: Engine, row: SessionRow, holder: str, lease_ms: int | None) -> Iterator[SessionRow]:
    """Own a session for the life of the block.

    Raises:
        MoveRefused: somebody else does.
    """
    owned = own(engine, Attach(row.id, holder, lease_ms))
    try:
        yield owned
    finally:
        release(engine, owned)


def own(engine: Engine, job: Attach | OwnMove) -> SessionRow:
    """Own a session until `release`, or until the lease ends.

    Raises:
        MoveRefused: somebody else does.
        StoreError: see the job.
    """
    try:
        owned: SessionRow = do(engine, job)
    except SessionLeased as error:
        raise MoveRefused(
            "session_in_use", f"{error}: stop that daemon, or what else uses it, and try again"
        ) from None
    return owned


def release(engine: Engine, owned: SessionRow) -> None:
    """Let others have a session; a lease that cannot be given back ends by itself."""
    with suppress(StoreError):
        do(engine, ReleaseLease(owned.id, owned.lease_token))


@contextmanager
def going_on(
    source: Engine, target: str, words: str = "", unless: tuple[type[StoreError], ...] = ()
) -> Iterator[None]:
    """Steps of which each may be the last that was made: what fails is told as what has to go on.

    Args:
        source: the store that the session is in.
        target: the name of the other one.
        words: what the command to go on with has besides.
        unless: errors after which nothing was changed.

    Raises:
        MoveRefused: a store failed.
    """
    try:
        yield
    except unless:
        raise
    except StoreError as error:
        raise MoveRefused(
            "move_interrupted",
            f"{error}; nothing is lost, and the session can start at most in one of {source.name} and {target}: go on "
            f"with the same command{words}, when both answer",
        ) from error


def holder(source: Engine, target: str, row: SessionRow) -> str:
    """Who has the leases: the same for every attempt, so that the next one gets what this one has left."""
    return f"a move of session {row.id} from {source.name} to {target}"


def has_arrived(target: Engine, row: SessionRow, left: dict[str, Any]) -> bool:
    """Whether a destination has let just this state go; it may have run with it since."""
    note = target.move_note(note_key("arrived", left["session"]))
    return note is not None and note["session"] == row.id and note["state"] == left["state"]


def never_arrived(source: Engine, target: Engine, row: SessionRow) -> MoveRefused:
    """The source has given its state up, and what should have it does not know of it."""
    return MoveRefused(
        "move_incomplete",
        f"the session has left {source.name}, and {target.name} does not know of it: bring the right database back; if "
        f"it is lost for good, and the session runs nowhere, wactl restore-auth --unretire {row.name} brings it back "
        "here as from an old backup",
    )


def moves_elsewhere(source: Engine, row: SessionRow, note: dict[str, Any]) -> MoveRefused:
    """A move to another store comes first."""
    return MoveRefused(
        "move_elsewhere",
        f"a move of session {row.name!r} from {source.name} to {note['store']} has not ended: end it, or give it up "
        "with --abort, and name that store as there",
    )


def put_imported(
    target: Engine, name: str, state: AuthState, data: Mapping[str, Any], now_ms: int, actor: str
) -> SessionRow:
    """Put a state of another program into a store, under a name that is new or not paired; the session stays down.

    Where key-value rows are kept it begins in the phase `legacy_only` (chapter 08 §2.9).

    Args:
        target: the store.
        name: of the session.
        state: sound at level 2.
        data: of the event that announces it.
        now_ms: Unix milliseconds.
        actor: who wants it, for the log of phases.

    Raises:
        MoveRefused, StoreError: nothing was changed, but perhaps an empty session made, with secrets of messages.
    """
    if not SESSION_NAME.fullmatch(name):
        raise MoveRefused("name_invalid", "a name has 1 to 64 letters, digits, dots, dashes and underscores")
    checked(state, now_ms)
    refuse_taken(target, name, state.creds)
    created: SessionRow = do(target, CreateSession(name))
    with lease(
        target, created, f"an import, process {os.getpid()}", LEASE_MS if target.shared else None
    ) as owned:
        changes = columns(state.creds) | {"desired_state": "down", "current_status": "stopped"}
        token = owned.lease_token
        for start in range(0, len(state.secrets), PAGE):
            values = [secret_values(row) for row in state.secrets[start : start + PAGE]]
            do(target, CopyRows(owned.id, token, message_secrets.TABLE, values))
        job = RestoreAuth(
            owned.id, token, state.creds.serialize(), state.items, changes, events.AUTH_RESTORED, data
        )
        do(target, job)
        if owned.auth_phase == "snapshot_primary":
            do(target, MovePhase(owned.id, token, "legacy_only", actor, {"checks": []}))
    row = target.session(owned.id)
    assert row is not None
    return row
