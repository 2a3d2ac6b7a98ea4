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
    ReleaseLease,
    RestoreAuth,
)
from waD.store.errors import SessionLeased, StoreError
from waD.store.model import SessionRow
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
    `already_here`, `same_store`, `state_damaged`, `move_incomplete`, `not_equal`.
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
    (outcome,) = engine.write([job])
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


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
    """Own a session for the life of the block, or until `release`.

    Raises:
        MoveRefused: somebody else does.
    """
    try:
        owned: SessionRow = do(engine, Attach(row.id, holder, lease_ms))
    except SessionLeased as error:
        raise MoveRefused(
            "session_in_use", f"{error}: stop that daemon, or what else uses it, and try again"
        ) from None
    try:
        yield owned
    finally:
        with suppress(StoreError):  # it ends by itself
            do(engine, ReleaseLease(owned.id, owned.lease_token))


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
