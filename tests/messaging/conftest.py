"""A store on disk with one paired session, for the tests of this room."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from waD.e2ee import adv
from waD.e2ee.curve import KeyPair
from waD.link.credentials import Credentials, new_credentials
from waD.messaging.context import Context, MessagingSettings, make_context
from waD.proto import adv_pb2
from waD.store.state import SessionState
from waD.store.store import Store, StoreSettings, open_store
from waD.wire.jid import JID

START_MS = 1_700_000_000_000
OWN_PN = JID.parse("15550000001:7@s.whatsapp.net")
OWN_LID = JID.parse("100000000000001:7@lid")


def account_blob(phone: KeyPair, identity: KeyPair, key_index: int = 7) -> bytes:
    """A complete ADVSignedDeviceIdentity of a companion."""
    outer = adv_pb2.ADVSignedDeviceIdentityHMAC.FromString(
        adv.make_device_identity(
            phone, identity.public, 1, key_index, START_MS // 1000, bytes(32), os.urandom
        )
    )
    signed = adv_pb2.ADVSignedDeviceIdentity.FromString(outer.details)
    signed.deviceSignature = adv.sign_device_signature(identity, signed.details, phone.public, os.urandom)
    return signed.SerializeToString()


def paired_credentials(phone: KeyPair | None = None) -> Credentials:
    """Credentials of device 7 of an account whose phone signed it."""
    creds = new_credentials(os.urandom, START_MS)
    blob = account_blob(phone or KeyPair.generate(os.urandom), creds.identity)
    return creds.change(account=blob, me_pn=OWN_PN, me_lid=OWN_LID, push_name="Alerts", platform="iphone")


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
