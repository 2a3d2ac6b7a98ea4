"""Encrypting and decrypting in a pairwise session, beside the npm library that Baileys uses."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from typing import Any

from benchmarks import peer
from benchmarks.timing import compared, per_second
from waD.e2ee import curve, session
from waD.e2ee.curve import KeyPair
from waD.e2ee.record import SessionRecord
from waD.e2ee.x3dh import LocalIdentity, PreKeyBundle

PLAINTEXT = hashlib.shake_128(b"plaintext").digest(100)


class Party:
    """One side of a conversation."""

    def __init__(self) -> None:
        self.local = LocalIdentity(KeyPair.generate(os.urandom), 1)
        self.signed = KeyPair.generate(os.urandom)
        self.record: SessionRecord | None = None

    def bundle(self) -> PreKeyBundle:
        """What a stranger needs to write to this party."""
        signature = curve.sign(
            self.local.identity.private, curve.serialize_key(self.signed.public), os.urandom
        )
        return PreKeyBundle(1, self.local.identity.public, 1, self.signed.public, signature, None, None)

    def begin(self, other: Party) -> None:
        """Make a session towards the other party."""
        base, ratchet = KeyPair.generate(os.urandom), KeyPair.generate(os.urandom)
        self.record = session.process_bundle(None, self.local, other.bundle(), base, ratchet)

    def encrypt(self) -> session.Encrypted:
        """Encrypt the plaintext and advance."""
        assert self.record is not None
        sealed = session.encrypt(self.record, self.local, PLAINTEXT)
        self.record = sealed.record
        return sealed

    def decrypt(self, sealed: session.Encrypted) -> None:
        """Decrypt and advance."""
        opened = session.decrypt(
            self.record,
            self.local,
            sealed.kind,
            sealed.data,
            lambda _: None,
            lambda _: self.signed,
            lambda: KeyPair.generate(os.urandom),
        )
        assert opened.plaintext == PLAINTEXT
        self.record = opened.record


def conversation() -> tuple[Party, Party]:
    """Two parties whose session both have answered."""
    alice, bob = Party(), Party()
    alice.begin(bob)
    bob.decrypt(alice.encrypt())
    alice.decrypt(bob.encrypt())
    return alice, bob


def _decrypting() -> Callable[[], object]:
    alice, bob = conversation()
    waiting = iter([alice.encrypt() for _ in range(60_000)])
    return lambda: bob.decrypt(next(waiting))


def run() -> dict[str, Any]:
    """Operations in a second of processor time; `turn` is one message that turns the ratchet, both ends."""
    alice, bob = conversation()

    def turn() -> None:
        bob.decrypt(alice.encrypt())
        alice.decrypt(bob.encrypt())

    ours = {
        "encrypt": per_second(conversation()[0].encrypt),
        "decrypt": per_second(_decrypting(), seconds=0.8),
        "turn": 2 * per_second(turn, batch=10),
    }
    theirs = peer.run("e2ee.mjs", {"plaintext": PLAINTEXT.hex()})
    return {"goal": {"encrypt": 1.0, "decrypt": 1.0, "turn": 3.0}, "rates": compared(ours, theirs)}
