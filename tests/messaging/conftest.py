"""A store on disk with one paired session, and a contact, for the tests of this room."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.messaging.accounts import START_MS, paired_credentials
from tests.messaging.inbound_helpers import ANN_LID, Peer, Receiver, introduce
from waD.messaging.context import Context, MessagingSettings, make_context
from waD.store.state import SessionState
from waD.store.store import Store, StoreSettings, open_store


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with open_store(StoreSettings(path=tmp_path / "state" / "waD.db")) as opened:
        yield opened


@pytest.fixture
async def state(store: Store) -> SessionState:
    """The state of a paired session."""
    row = await store.create_session("alerts")
    state = await store.attach(row.id, "test")
    unit = state.unit()
    unit.set_creds(paired_credentials().serialize())
    await state.commit(unit)
    return state


@pytest.fixture
def ctx(state: SessionState) -> Context:
    """That session's context, with a clock that stands still."""
    return make_context(state, settings=MessagingSettings(), now_ms=lambda: START_MS, random=os.urandom)


@pytest.fixture
def receiver(ctx: Context) -> Receiver:
    """Takes messages for that session."""
    return Receiver(ctx)


@pytest.fixture
async def ann(ctx: Context) -> Peer:
    """A contact's phone, with a session towards us that it has not used yet."""
    peer = Peer(ANN_LID)
    await introduce(ctx, peer)
    return peer
