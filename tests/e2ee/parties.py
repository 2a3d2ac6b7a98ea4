"""Devices that talk to each other in the tests. Each keeps serialised records: every step is a restart."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from waD.e2ee import curve, session
from waD.e2ee.errors import SignalError
from waD.e2ee.record import SessionRecord
from waD.e2ee.x3dh import LocalIdentity, PreKeyBundle

NOW = 1_699_920_000_000
"""Midnight: times of skipped keys are kept to the day."""
DAY = 24 * 3600 * 1000
SIGNED_PREKEY_ID = 3

Letter = tuple[str, bytes]
"""Kind and bytes of one encrypted message."""


def seeded(seed: int) -> Callable[[int], bytes]:
    """A reproducible source of random bytes."""
    return Random(seed).randbytes


def new_pair(seed: int) -> curve.KeyPair:
    return curve.KeyPair.generate(seeded(seed))


class Device:
    """One device with its keys, and its sessions with others by name."""

    def __init__(self, name: str, seed: int, prekeys: int = 4) -> None:
        self.name = name
        self.random = seeded(seed)
        self.now = NOW
        self.local = LocalIdentity(self.pair(), 1000 + seed % 1000)
        self.signed_prekey = self.pair()
        self.prekeys = {number: self.pair() for number in range(1, prekeys + 1)}
        self.handed_out = 0
        self.stored: dict[str, bytes] = {}
        self.draws = 0

    def pair(self) -> curve.KeyPair:
        return curve.KeyPair.generate(self.random)

    def draw(self) -> curve.KeyPair:
        self.draws += 1
        return self.pair()

    def bundle(self) -> PreKeyBundle:
        """What the server hands out: every one-time prekey once."""
        self.handed_out += 1
        prekey = self.prekeys.get(self.handed_out)
        identity = self.local.identity
        signature = curve.sign(identity.private, curve.serialize_key(self.signed_prekey.public), self.random)
        return PreKeyBundle(
            self.local.registration_id,
            identity.public,
            SIGNED_PREKEY_ID,
            self.signed_prekey.public,
            signature,
            None if prekey is None else self.handed_out,
            None if prekey is None else prekey.public,
        )

    def record(self, peer: str) -> SessionRecord | None:
        stored = self.stored.get(peer)
        return None if stored is None else SessionRecord.parse(stored)

    def existing(self, peer: str) -> SessionRecord:
        record = self.record(peer)
        assert record is not None
        return record

    def keep(self, peer: str, record: SessionRecord) -> None:
        self.stored[peer] = record.serialize()

    def initiate(self, peer: Device) -> None:
        record = session.process_bundle(
            self.record(peer.name), self.local, peer.bundle(), self.pair(), self.pair(), self.now
        )
        self.keep(peer.name, record)

    def send(self, peer: Device, plaintext: bytes) -> Letter:
        record = self.record(peer.name)
        if record is None or not record.has_usable_session:
            self.initiate(peer)
        made = session.encrypt(self.existing(peer.name), self.local, plaintext, self.now)
        self.keep(peer.name, made.record)
        return made.kind, made.data

    def find_signed_prekey(self, number: int) -> curve.KeyPair | None:
        return self.signed_prekey if number == SIGNED_PREKEY_ID else None

    def open(self, peer: Device, letter: Letter, pinned: bytes | None = None) -> session.Decrypted:
        """Decrypt without storing anything."""
        return session.decrypt(
            self.record(peer.name),
            self.local,
            letter[0],
            letter[1],
            self.prekeys.get,
            self.find_signed_prekey,
            self.draw,
            self.now,
            pinned=pinned,
        )

    def receive(self, peer: Device, letter: Letter) -> bytes:
        done = self.open(peer, letter)
        self.keep(peer.name, done.record)
        if done.consumed_prekey is not None:
            del self.prekeys[done.consumed_prekey]
        return done.plaintext

    def refuse(self, peer: Device, letter: Letter) -> SignalError:
        """Return the error of a message that must not decrypt, and check that nothing has changed."""
        before = (dict(self.stored), dict(self.prekeys), self.draws)
        try:
            done = self.open(peer, letter)
        except SignalError as error:
            assert (self.stored, self.prekeys, self.draws) == before
            return error
        raise AssertionError(f"{self.name} accepted {done!r}")


def acquainted(seed: int = 1) -> tuple[Device, Device]:
    """Two devices whose session is past its first flight; both can send `msg`."""
    alice, bob = Device("alice", seed), Device("bob", seed + 1)
    assert bob.receive(alice, alice.send(bob, b"hello")) == b"hello"
    assert alice.receive(bob, bob.send(alice, b"hello back")) == b"hello back"
    return alice, bob


def flip(data: bytes, position: int, bit: int = 0) -> bytes:
    """Return the data with one bit changed."""
    changed = bytearray(data)
    changed[position] ^= 1 << bit
    return bytes(changed)
