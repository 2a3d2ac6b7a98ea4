"""The double ratchet of one session state (chapter 03 §3).

Functions take a state and return a new one; a failure leaves the old one untouched.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Final, NamedTuple

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from waD.e2ee import curve, skipped
from waD.e2ee.errors import SignalError, malformed
from waD.e2ee.kdf import hkdf, hmac_sha256
from waD.e2ee.limits import MAX_COUNTER, MAX_FORWARD_JUMP
from waD.e2ee.messages import BLOCK, MAC_LENGTH, SignalMessage, encode_signal_body
from waD.e2ee.record import ReceiverChain, SenderChain, SessionState, trim_chains

ROOT_INFO: Final = b"WhisperRatchet"
MESSAGE_INFO: Final = b"WhisperMessageKeys"
SEED_LABEL: Final = b"\x01"
CHAIN_LABEL: Final = b"\x02"
_KEY_MATERIAL: Final = 80
_TYPE: Final = bytes((curve.KEY_TYPE,))


class MessageKeys(NamedTuple):
    """What protects one message: keys of 32 bytes and a 16-byte IV."""

    cipher_key: bytes
    mac_key: bytes
    iv: bytes

    def __repr__(self) -> str:
        return "MessageKeys()"


class _Found(NamedTuple):
    """Where the keys of a received message were found, and the chain as it is after using them."""

    keys: MessageKeys
    chain: ReceiverChain

    def __repr__(self) -> str:
        return "_Found()"


def root_step(root_key: bytes, private: bytes, public: bytes) -> tuple[bytes, bytes]:
    """Return the new root key and a chain key; raises SignalError(malformed) for a low-order public key."""
    try:
        secret = curve.agree(private, public)
    except curve.CurveError as error:
        raise malformed(str(error)) from None
    okm = hkdf(secret, root_key, ROOT_INFO, 64)
    return okm[:32], okm[32:]


def message_keys(seed: bytes) -> MessageKeys:
    """Expand a 32-byte message seed."""
    okm = hkdf(seed, None, MESSAGE_INFO, _KEY_MATERIAL)
    return MessageKeys(okm[:32], okm[32:64], okm[64:])


def advance(chain_key: bytes, steps: int) -> tuple[list[bytes], bytes]:
    """Return the message seeds of the next `steps` counters and the chain key after them."""
    seeds = []
    for _ in range(steps):
        seeds.append(hmac_sha256(chain_key, SEED_LABEL))
        chain_key = hmac_sha256(chain_key, CHAIN_LABEL)
    return seeds, chain_key


def aes_cbc_encrypt(key: bytes, iv: bytes, plaintext: bytes) -> bytes:
    """Encrypt with AES-256-CBC and PKCS#7 padding."""
    count = BLOCK - len(plaintext) % BLOCK
    encryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
    return encryptor.update(plaintext + bytes((count,)) * count) + encryptor.finalize()


def aes_cbc_decrypt(key: bytes, iv: bytes, ciphertext: bytes) -> bytes:
    """Undo aes_cbc_encrypt; raises SignalError(malformed) when the padding is wrong."""
    decryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).decryptor()
    padded = decryptor.update(ciphertext) + decryptor.finalize()
    count = padded[-1]
    if not 1 <= count <= BLOCK or padded[-count:] != padded[-1:] * count:
        raise malformed("an authentic message with wrong block padding")
    return padded[:-count]


def encrypt(state: SessionState, plaintext: bytes, now_ms: int) -> tuple[SessionState, bytes]:
    """Encrypt on the sending chain; returns the advanced state and the signal message.

    Raises SignalError(exhausted) on a chain that has used its last counter.
    """
    chain = state.sender
    counter = chain.next
    if counter > MAX_COUNTER:
        raise SignalError("exhausted", "the sending chain has used its last counter", counter=counter)
    keys = message_keys(hmac_sha256(chain.key, SEED_LABEL))
    ciphertext = aes_cbc_encrypt(keys.cipher_key, keys.iv, plaintext)
    body = encode_signal_body(chain.public, counter, state.previous_counter, ciphertext)
    mac = _mac(keys.mac_key, state.local_identity, state.remote_identity, body)
    advanced = SenderChain(chain.public, chain.private, counter + 1, hmac_sha256(chain.key, CHAIN_LABEL))
    return _with_sender(state, advanced, now_ms), body + mac


def decrypt(
    state: SessionState, message: SignalMessage, draw: Callable[[], curve.KeyPair], now_ms: int
) -> tuple[SessionState, bytes]:
    """Decrypt with this state; returns the new state, without pending prekey, and the plaintext.

    `draw` gives the next ratchet key pair; it is called at most once, after the MAC was found right. Raises
    SignalError with `duplicate`, `too_far`, `bad_mac` or `malformed`.
    """
    position = _find_chain(state.receivers, message.ratchet_key)
    if position is None:
        return _decrypt_on_new_chain(state, message, draw, now_ms)
    found = _find_keys(state.receivers[position], message.counter, now_ms)
    plaintext = _open(state, message, found.keys)
    receivers = _replaced(state.receivers, position, found.chain)
    return _received(
        state, state.root_key, state.previous_counter, state.sender, receivers, now_ms
    ), plaintext


def _decrypt_on_new_chain(
    state: SessionState, message: SignalMessage, draw: Callable[[], curve.KeyPair], now_ms: int
) -> tuple[SessionState, bytes]:
    root_key, chain_key = root_step(state.root_key, state.sender.private, message.ratchet_key)
    found = _find_keys(ReceiverChain(message.ratchet_key, 0, chain_key), message.counter, now_ms)
    plaintext = _open(state, message, found.keys)
    pair = draw()
    root_key, sending_key = root_step(root_key, pair.private, message.ratchet_key)
    sender = SenderChain(pair.public, pair.private, 0, sending_key)
    previous = max(state.sender.next - 1, 0)
    receivers = trim_chains((*state.receivers, found.chain))
    return _received(state, root_key, previous, sender, receivers, now_ms, stale=False), plaintext


def _find_chain(chains: tuple[ReceiverChain, ...], ratchet: bytes) -> int | None:
    """Look for a chain from the newest on: that is nearly always the one."""
    for position in range(len(chains) - 1, -1, -1):
        if chains[position].ratchet == ratchet:
            return position
    return None


def _find_keys(chain: ReceiverChain, counter: int, now_ms: int) -> _Found:
    jump = counter - chain.next
    if jump < 0:
        return _take_skipped(chain, counter)
    if chain.key is None:
        raise SignalError("too_far", f"counter {counter} on a closed chain", counter=counter)
    if jump > MAX_FORWARD_JUMP:
        raise SignalError("too_far", f"counter {counter} is {jump} ahead of the chain", counter=counter)
    passed, chain_key = advance(chain.key, jump)
    seeds = skipped.append(chain.seeds, chain.next, passed, skipped.stamp(now_ms)) if passed else chain.seeds
    keys = message_keys(hmac_sha256(chain_key, SEED_LABEL))
    after = hmac_sha256(chain_key, CHAIN_LABEL)
    return _Found(keys, ReceiverChain(chain.ratchet, counter + 1, after, seeds, chain.triples))


def _take_skipped(chain: ReceiverChain, counter: int) -> _Found:
    taken = skipped.take(chain.seeds, skipped.SEED_ENTRY, counter)
    if taken is not None:
        seed, seeds = taken
        return _Found(
            message_keys(seed), ReceiverChain(chain.ratchet, chain.next, chain.key, seeds, chain.triples)
        )
    taken = skipped.take(chain.triples, skipped.TRIPLE_ENTRY, counter)
    if taken is not None:
        triple, triples = taken
        return _Found(
            MessageKeys(triple[:32], triple[32:64], triple[64:]),
            ReceiverChain(chain.ratchet, chain.next, chain.key, chain.seeds, triples),
        )
    raise SignalError("duplicate", f"the key of counter {counter} has been used", counter=counter)


def _open(state: SessionState, message: SignalMessage, keys: MessageKeys) -> bytes:
    mac = _mac(keys.mac_key, state.remote_identity, state.local_identity, message.body)
    if not hmac.compare_digest(mac, message.mac):
        raise SignalError("bad_mac", f"message {message.counter} is not authentic", counter=message.counter)
    return aes_cbc_decrypt(keys.cipher_key, keys.iv, message.ciphertext)


def _mac(key: bytes, sender: bytes, receiver: bytes, body: bytes) -> bytes:
    return hmac_sha256(key, b"".join((_TYPE, sender, _TYPE, receiver, body)))[:MAC_LENGTH]


def _replaced(
    chains: tuple[ReceiverChain, ...], position: int, chain: ReceiverChain
) -> tuple[ReceiverChain, ...]:
    """Put the used chain back; a closed one without keys goes, and new skipped keys may push old ones out."""
    before = chains[position]
    if chain.key is None and not chain.seeds and not chain.triples:
        return chains[:position] + chains[position + 1 :]
    changed = (*chains[:position], chain, *chains[position + 1 :])
    return trim_chains(changed) if len(chain.seeds) > len(before.seeds) else changed


def _with_sender(state: SessionState, sender: SenderChain, now_ms: int) -> SessionState:
    return SessionState(
        state.local_identity,
        state.remote_identity,
        state.local_registration_id,
        state.remote_registration_id,
        state.root_key,
        state.previous_counter,
        sender,
        state.receivers,
        state.pending,
        state.base_key,
        state.own_base,
        state.created_ms,
        now_ms or state.used_ms,
        state.closed_ms,
        state.stale,
    )


def _received(
    state: SessionState,
    root_key: bytes,
    previous_counter: int,
    sender: SenderChain,
    receivers: tuple[ReceiverChain, ...],
    now_ms: int,
    *,
    stale: bool | None = None,
) -> SessionState:
    return SessionState(
        state.local_identity,
        state.remote_identity,
        state.local_registration_id,
        state.remote_registration_id,
        root_key,
        previous_counter,
        sender,
        receivers,
        None,
        state.base_key,
        state.own_base,
        state.created_ms,
        now_ms or state.used_ms,
        state.closed_ms,
        state.stale if stale is None else stale,
    )
