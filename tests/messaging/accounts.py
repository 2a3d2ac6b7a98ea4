"""The account that the tests of messaging belong to."""

from __future__ import annotations

import os

from waD.e2ee import adv
from waD.e2ee.curve import KeyPair
from waD.link.credentials import Credentials, new_credentials
from waD.proto import adv_pb2
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
