"""Extended triple Diffie-Hellman: how a session begins (chapter 03 §2)."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from waD.e2ee import curve
from waD.e2ee.errors import SignalError, malformed
from waD.e2ee.kdf import hkdf
from waD.e2ee.limits import MAX_PREKEY_ID, MAX_UINT32
from waD.e2ee.messages import PreKeyMessage
from waD.e2ee.ratchet import root_step
from waD.e2ee.record import PendingPreKey, ReceiverChain, SenderChain, SessionState

INFO: Final = b"WhisperText"
_DISCONTINUITY: Final = b"\xff" * 32


class LocalIdentity(Struct, frozen=True, gc=False):
    """Who we are in every session: identity key pair and registration id."""

    identity: curve.KeyPair
    registration_id: int


class PreKeyBundle(Struct, frozen=True, gc=False):
    """What the server hands out for a device. Keys have 32 bytes; a one-time prekey may be missing."""

    registration_id: int
    identity: bytes
    signed_prekey_id: int
    signed_prekey: bytes
    signature: bytes
    prekey_id: int | None
    prekey: bytes | None


def check_bundle(bundle: PreKeyBundle) -> None:
    """Check lengths, numbers and the signature of the signed prekey.

    Raises SignalError with `malformed` or `invalid_signature`.
    """
    keys = [bundle.identity, bundle.signed_prekey, *(() if bundle.prekey is None else (bundle.prekey,))]
    if any(len(key) != curve.KEY_LENGTH for key in keys) or len(bundle.signature) != curve.SIGNATURE_LENGTH:
        raise malformed("a prekey bundle with a key or signature of the wrong length")
    if (bundle.prekey is None) != (bundle.prekey_id is None):
        raise malformed("a prekey bundle with half a one-time prekey")
    ids = [bundle.signed_prekey_id, *(() if bundle.prekey_id is None else (bundle.prekey_id,))]
    if not all(0 <= number <= MAX_PREKEY_ID for number in ids) or bundle.prekey_id == 0:
        raise malformed("a prekey bundle with an impossible prekey id")
    if not 0 <= bundle.registration_id <= MAX_UINT32:
        raise malformed("a prekey bundle with an impossible registration id")
    if not curve.verify(bundle.identity, curve.serialize_key(bundle.signed_prekey), bundle.signature):
        raise SignalError(
            "invalid_signature",
            f"identity {curve.fingerprint(bundle.identity)} did not sign its prekey",
            key_id=bundle.signed_prekey_id,
        )


def initiate(
    local: LocalIdentity, bundle: PreKeyBundle, base: curve.KeyPair, ratchet: curve.KeyPair, now_ms: int
) -> SessionState:
    """Start a session from a checked bundle; `base` and `ratchet` are fresh and used nowhere else.

    Raises SignalError(malformed) when a key of the bundle is of low order.
    """
    pairs = [
        (local.identity.private, bundle.signed_prekey),
        (base.private, bundle.identity),
        (base.private, bundle.signed_prekey),
    ]
    if bundle.prekey is not None:
        pairs.append((base.private, bundle.prekey))
    root0, chain0 = derive(pairs)
    root_key, chain_key = root_step(root0, ratchet.private, bundle.signed_prekey)
    return SessionState(
        local_identity=local.identity.public,
        remote_identity=bundle.identity,
        local_registration_id=local.registration_id,
        remote_registration_id=bundle.registration_id,
        root_key=root_key,
        previous_counter=0,
        sender=SenderChain(ratchet.public, ratchet.private, 0, chain_key),
        receivers=(ReceiverChain(bundle.signed_prekey, 0, chain0),),
        pending=PendingPreKey(bundle.prekey_id, bundle.signed_prekey_id, base.public),
        base_key=base.public,
        own_base=True,
        created_ms=now_ms,
        used_ms=now_ms,
    )


def respond(
    local: LocalIdentity,
    message: PreKeyMessage,
    signed_prekey: curve.KeyPair,
    prekey: curve.KeyPair | None,
    now_ms: int,
) -> SessionState:
    """Build our side of the session a prekey message offers; it becomes real when the message decrypts.

    Raises SignalError(malformed) when a key of the message is of low order.
    """
    pairs = [
        (signed_prekey.private, message.identity),
        (local.identity.private, message.base_key),
        (signed_prekey.private, message.base_key),
    ]
    if prekey is not None:
        pairs.append((prekey.private, message.base_key))
    root_key, chain_key = derive(pairs)
    return SessionState(
        local_identity=local.identity.public,
        remote_identity=message.identity,
        local_registration_id=local.registration_id,
        remote_registration_id=message.registration_id,
        root_key=root_key,
        previous_counter=0,
        sender=SenderChain(signed_prekey.public, signed_prekey.private, 0, chain_key),
        receivers=(),
        pending=None,
        base_key=message.base_key,
        own_base=False,
        created_ms=now_ms,
        used_ms=now_ms,
    )


def derive(pairs: list[tuple[bytes, bytes]]) -> tuple[bytes, bytes]:
    """Return the first root and chain key from the (private, public) pairs in protocol order."""
    try:
        secrets = [curve.agree(private, public) for private, public in pairs]
    except curve.CurveError as error:
        raise malformed(str(error)) from None
    okm = hkdf(b"".join((_DISCONTINUITY, *secrets)), None, INFO, 64)
    return okm[:32], okm[32:]
