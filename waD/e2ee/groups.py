"""Sender keys: one chain per (group, sender device), signed (chapter 03 §6).

Pure functions over immutable records, as in the session module. Public keys have 32 bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Final, TypeAlias

import msgspec
from msgspec import Meta, Struct

from waD.e2ee import curve, documents, skipped
from waD.e2ee.documents import (
    FORMAT_VERSION,
    Key,
    SenderKeyDocument,
    SenderKeyStateDocument,
    UInt32,
    with_type,
    without_type,
)
from waD.e2ee.errors import SignalError, malformed
from waD.e2ee.kdf import hkdf, hmac_sha256
from waD.e2ee.limits import (
    MAX_COUNTER,
    MAX_FORWARD_JUMP,
    MAX_RECORD_SIZE,
    MAX_SENDER_KEY_ID,
    MAX_SENDER_KEY_STATES,
    MAX_SKIPPED_KEYS,
    SKIPPED_KEY_LIFETIME_MS,
)
from waD.e2ee.messages import (
    CHAIN_KEY_LENGTH,
    SenderKeyMessage,
    encode_distribution,
    encode_sender_key_body,
    parse_distribution,
    parse_sender_key_message,
)
from waD.e2ee.ratchet import CHAIN_LABEL, SEED_LABEL, advance, aes_cbc_decrypt, aes_cbc_encrypt
from waD.e2ee.record import SeedEntries

MESSAGE_INFO: Final = b"WhisperGroup"
_KEY_MATERIAL: Final = 48
_IV_LENGTH: Final = 16

_ReprItems: TypeAlias = list[tuple[str, object]]


class SenderKeyState(Struct, frozen=True, gc=False, array_like=True):
    """One sender key. `iteration` is that of the next message; `private` is None for other people's keys."""

    key_id: UInt32
    iteration: UInt32
    chain_key: Key
    public: Key
    private: Key | None
    seeds: SeedEntries = b""

    def __repr__(self) -> str:
        return f"SenderKeyState({', '.join(f'{name}={value}' for name, value in self.__rich_repr__())})"

    def __rich_repr__(self) -> _ReprItems:
        return [
            ("key_id", self.key_id),
            ("iteration", self.iteration),
            ("signing", curve.fingerprint(self.public)),
            ("skipped", len(self.seeds) // skipped.SEED_ENTRY),
        ]


class SenderKeyRecord(Struct, frozen=True, gc=False, array_like=True):
    """The sender keys of one device in one group, newest first."""

    states: Annotated[tuple[SenderKeyState, ...], Meta(max_length=MAX_SENDER_KEY_STATES)]

    def serialize(self) -> bytes:
        """Return the stored form."""
        return documents.encode(
            SenderKeyDocument([_state_document(state) for state in self.states], FORMAT_VERSION)
        )

    @classmethod
    def parse(cls, data: bytes) -> SenderKeyRecord:
        """Read the stored form; raises SignalError(malformed) on anything else."""
        if data[:1] == _EARLIER:
            return _parse_earlier(data)
        document = documents.decode(_decoder, data, "sender-key record")
        return cls(tuple([state_of(state) for state in document.states]))


_decoder: Final = msgspec.json.Decoder(SenderKeyDocument)
_EARLIER: Final = b"\x01"
"""Format version of the earlier form, msgpack."""
_decode_earlier: Final = msgspec.msgpack.Decoder(SenderKeyRecord).decode


def _state_document(state: SenderKeyState) -> SenderKeyStateDocument:
    keys, times = documents.list_keys(state.seeds)
    return SenderKeyStateDocument(
        ck=state.chain_key,
        i=state.iteration,
        id=state.key_id,
        mk=keys,
        mt=times,
        priv=state.private,
        pub=with_type(state.public),
    )


def state_of(document: SenderKeyStateDocument) -> SenderKeyState:
    """A stored sender key; raises SignalError(malformed)."""
    seeds, triples = documents.pack_keys(document.mk, document.mt, document.i)
    if triples:
        raise malformed("a skipped sender key without its seed")
    return SenderKeyState(
        document.id, document.i, document.ck, without_type(document.pub), document.priv, seeds
    )


def _parse_earlier(data: bytes) -> SenderKeyRecord:
    if len(data) > MAX_RECORD_SIZE:
        raise malformed(f"a sender-key record of {len(data)} bytes")
    try:
        record = _decode_earlier(memoryview(data)[1:])
    except msgspec.DecodeError:
        raise malformed("a sender-key record that does not follow its earlier format") from None
    for state in record.states:
        if not skipped.is_well_formed(state.seeds, skipped.SEED_ENTRY, state.iteration):
            raise malformed("skipped keys that do not belong to their sender key")
    return record


def create(random: Callable[[int], bytes]) -> SenderKeyRecord:
    """Make our own sender key for a group; `random(n)` returns n unpredictable bytes."""
    key_id = int.from_bytes(random(4), "big") & MAX_SENDER_KEY_ID
    chain_key = random(CHAIN_KEY_LENGTH)
    signing = curve.KeyPair.generate(random)
    return SenderKeyRecord((SenderKeyState(key_id, 0, chain_key, signing.public, signing.private),))


def distribution(record: SenderKeyRecord) -> bytes:
    """Return what members need to read our next message; take it before encrypting that message.

    Raises SignalError(no_sender_key_state) when the record holds no key of ours.
    """
    state = _own_state(record)
    return encode_distribution(state.key_id, state.iteration, state.chain_key, state.public)


def process_distribution(record: SenderKeyRecord | None, data: bytes) -> SenderKeyRecord:
    """Learn a sender key; the same record comes back when nothing is new, so that writing can be skipped.

    A known key keeps its position and skipped keys; a known id with another signing key is replaced
    (`replaced_key` tells). Raises SignalError(malformed).
    """
    message = parse_distribution(data)
    states = () if record is None else record.states
    known = next((state for state in states if state.key_id == message.key_id), None)
    if known is not None and known.public == message.signing_key:
        if record is not None and states[0] is known:
            return record
        fresh = known
    else:
        fresh = SenderKeyState(
            message.key_id, message.iteration, message.chain_key, message.signing_key, None
        )
    others = tuple(state for state in states if state.key_id != message.key_id)
    return SenderKeyRecord((fresh, *others)[:MAX_SENDER_KEY_STATES])


def replaced_key(before: SenderKeyRecord | None, after: SenderKeyRecord) -> int | None:
    """Return the key id whose signing key a distribution replaced: honest senders never do that."""
    known = {} if before is None else {state.key_id: state.public for state in before.states}
    for state in after.states:
        if known.get(state.key_id, state.public) != state.public:
            return state.key_id
    return None


def encrypt(
    record: SenderKeyRecord, plaintext: bytes, random: Callable[[int], bytes]
) -> tuple[SenderKeyRecord, bytes]:
    """Encrypt and sign with our newest sender key, advancing it by one.

    Raises SignalError with `no_sender_key_state` or `exhausted`.
    """
    state = _own_state(record)
    assert state.private is not None
    if state.iteration > MAX_COUNTER:
        raise SignalError("exhausted", "the sender key has used its last iteration", key_id=state.key_id)
    iv, cipher_key = message_keys(hmac_sha256(state.chain_key, SEED_LABEL))
    body = encode_sender_key_body(state.key_id, state.iteration, aes_cbc_encrypt(cipher_key, iv, plaintext))
    signature = curve.sign(state.private, body, random)
    chain_key = hmac_sha256(state.chain_key, CHAIN_LABEL)
    advanced = SenderKeyState(
        state.key_id, state.iteration + 1, chain_key, state.public, state.private, state.seeds
    )
    return _replaced(record, state, advanced), body + signature


def decrypt(record: SenderKeyRecord | None, data: bytes, now_ms: int = 0) -> tuple[SenderKeyRecord, bytes]:
    """Decrypt a `skmsg`; the signature is checked before anything is derived.

    `now_ms` is Unix time in milliseconds, for the age of skipped keys. Raises SignalError with
    `no_sender_key_state`, `invalid_signature`, `duplicate`, `too_far` or `malformed`.
    """
    message = parse_sender_key_message(data)
    states = () if record is None else record.states
    state = next((state for state in states if state.key_id == message.key_id), None)
    if record is None or state is None:
        raise SignalError(
            "no_sender_key_state",
            f"no sender key {message.key_id}",
            counter=message.iteration,
            key_id=message.key_id,
        )
    if not curve.verify(state.public, message.body, message.signature):
        raise SignalError(
            "invalid_signature",
            f"iteration {message.iteration} of sender key {message.key_id} is not authentic",
            counter=message.iteration,
            key_id=message.key_id,
        )
    seed, advanced = _find_seed(state, message, now_ms)
    iv, cipher_key = message_keys(seed)
    return _replaced(record, state, advanced), aes_cbc_decrypt(cipher_key, iv, message.ciphertext)


def merge(first: SenderKeyRecord | None, second: SenderKeyRecord | None) -> SenderKeyRecord | None:
    """Join the records of one sender under two addresses; of two copies of a key the further one is kept."""
    if first is None or second is None:
        return first or second
    kept: dict[tuple[int, bytes], SenderKeyState] = {}
    for state in (*first.states, *second.states):
        name = (state.key_id, state.public)
        if name not in kept or state.iteration > kept[name].iteration:
            kept[name] = state
    return SenderKeyRecord(tuple(kept.values())[:MAX_SENDER_KEY_STATES])


def message_keys(seed: bytes) -> tuple[bytes, bytes]:
    """Expand a message seed to IV (16 bytes) and cipher key (32 bytes)."""
    okm = hkdf(seed, None, MESSAGE_INFO, _KEY_MATERIAL)
    return okm[:_IV_LENGTH], okm[_IV_LENGTH:]


def _find_seed(state: SenderKeyState, message: SenderKeyMessage, now_ms: int) -> tuple[bytes, SenderKeyState]:
    jump = message.iteration - state.iteration
    if jump < 0:
        taken = skipped.take(state.seeds, skipped.SEED_ENTRY, message.iteration)
        if taken is None:
            raise SignalError(
                "duplicate",
                f"iteration {message.iteration} has been used",
                counter=message.iteration,
                key_id=state.key_id,
            )
        seed, rest = taken
        return seed, _with_position(state, state.iteration, state.chain_key, rest)
    if jump > MAX_FORWARD_JUMP:
        raise SignalError(
            "too_far",
            f"iteration {message.iteration} is {jump} ahead",
            counter=message.iteration,
            key_id=state.key_id,
        )
    passed, chain_key = advance(state.chain_key, jump)
    seeds = _remembered(state, passed, now_ms)
    after = hmac_sha256(chain_key, CHAIN_LABEL)
    return hmac_sha256(chain_key, SEED_LABEL), _with_position(state, message.iteration + 1, after, seeds)


def _remembered(state: SenderKeyState, passed: list[bytes], now_ms: int) -> bytes:
    """Add the seeds that were stepped over. Some senders step over every second one: eviction is silent."""
    seeds = state.seeds
    if seeds and now_ms:
        stored = int.from_bytes(seeds[4 : skipped.HEAD], "big")
        limit = now_ms - SKIPPED_KEY_LIFETIME_MS
        if 0 < stored < limit:
            seeds = skipped.drop_older(seeds, skipped.SEED_ENTRY, limit)
    if passed:
        seeds = skipped.append(seeds, state.iteration, passed, skipped.stamp(now_ms))
    surplus = len(seeds) // skipped.SEED_ENTRY - MAX_SKIPPED_KEYS
    return skipped.drop_lowest(seeds, skipped.SEED_ENTRY, surplus) if surplus > 0 else seeds


def _with_position(state: SenderKeyState, iteration: int, chain_key: bytes, seeds: bytes) -> SenderKeyState:
    return SenderKeyState(state.key_id, iteration, chain_key, state.public, state.private, seeds)


def _replaced(record: SenderKeyRecord, before: SenderKeyState, after: SenderKeyState) -> SenderKeyRecord:
    return SenderKeyRecord(tuple(after if state is before else state for state in record.states))


def _own_state(record: SenderKeyRecord) -> SenderKeyState:
    for state in record.states:
        if state.private is not None:
            return state
    raise SignalError("no_sender_key_state", "the record holds no sender key of ours")
