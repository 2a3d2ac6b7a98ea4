"""Moves between stores that have not ended, as a daemon sees them: a session that cannot start says why."""

from __future__ import annotations

from msgspec.structs import replace

from waD.control.types import MoveView, SessionView
from waD.session.undo import NothingToUndo
from waD.store.engine import Depart
from waD.store.model import SessionRow
from waD.store.moves import MoveUnderWay
from waD.store.store import Store


async def listed(store: Store) -> tuple[list[SessionRow], dict[str, MoveUnderWay]]:
    """The sessions, those included that only a move keeps, and the moves by the id of their session.

    Raises:
        StoreError: the store cannot be read.
    """
    moves = await store.read(store.engine.moves)
    rows = await store.sessions(include_retired=bool(moves))
    return [row for row in rows if row.desired_state != "retired" or row.id in moves], moves


def with_move(view: SessionView, move: MoveUnderWay | None) -> SessionView:
    """A session and the move that it is part of."""
    if move is None:
        return view
    told = MoveView(store=move.store, into=move.into, given_up=move.given_up, command=move.command(view.name))
    stands = view.desired == "retired"
    hint = move.hint(view.name) if stands or not view.hint else view.hint
    return replace(view, move=told, hint=hint, run_by=None if stands else view.run_by)


async def break_off(store: Store, row: SessionRow, creds: bytes) -> None:
    """End a move whose other store is lost: seal what is here, and clear it, so that it comes back as an old state.

    Args:
        store: the open store.
        row: of a session that a move keeps, with credentials.
        creds: fresh ones.

    Raises:
        NothingToUndo: it is not known here whether the session was given up there: it can run where it was.
        StoreError: nothing was changed.
    """
    move = (await store.read(store.engine.moves)).get(row.id)
    if move is None:
        raise NothingToUndo("its credentials were never cleared: wactl connect brings it back as it is")
    if not move.given_up:
        raise NothingToUndo(f"it was not given up: {move.hint(row.name)}")
    await store.write(Depart(row.id, row.lease_token, creds, None))
