"""Proofs from outside: which message keys were used, and how often each message was put on a wire.

The header of a ciphertext is not encrypted: ratchet key and counter name the message key. Two different
ciphertexts under one of them mean that somebody used a key twice (chapter 03 §8.2).
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Any, Final

from waD.e2ee.errors import SignalError
from waD.e2ee.messages import parse_prekey_message, parse_sender_key_message, parse_signal_message

MAX_KEYS: Final = 400_000
MAX_DELIVERIES: Final = 200_000
MAX_REUSES: Final = 1000
DIGEST_BYTES: Final = 8

KeyName = tuple[str, str, bytes, int]
"""Sending device, receiving device (or group), ratchet key (or sender-key id), counter."""


class KeyLedger:
    """Every message key seen, with a short digest of its ciphertext; the oldest are forgotten."""

    def __init__(self, limit: int = MAX_KEYS) -> None:
        self._limit = limit
        self._seen: OrderedDict[KeyName, bytes] = OrderedDict()
        self._repeated = 0
        self._unreadable = 0
        self._forgotten = 0
        self.reuses: list[dict[str, Any]] = []

    def note(self, sender: str, receiver: str, kind: str, ciphertext: bytes, message_id: str) -> None:
        """Record one `<enc>`."""
        try:
            ratchet_key, counter = _key_of(kind, ciphertext)
        except SignalError:
            self._unreadable += 1
            return
        name = (sender, receiver, ratchet_key, counter)
        digest = hashlib.sha256(ciphertext).digest()[:DIGEST_BYTES]
        known = self._seen.get(name)
        if known is None:
            self._seen[name] = digest
            if len(self._seen) > self._limit:
                self._seen.popitem(last=False)
                self._forgotten += 1
        elif known == digest:
            self._repeated += 1
        elif len(self.reuses) < MAX_REUSES:
            self.reuses.append(
                {
                    "sender": sender,
                    "receiver": receiver,
                    "ratchetKey": ratchet_key.hex(),
                    "counter": counter,
                    "id": message_id,
                    "digests": [known.hex(), digest.hex()],
                }
            )

    def report(self, sender: str | None = None, *, full: bool = False) -> dict[str, Any]:
        """Counts, every reuse, and with `full` every key seen (of one sending device)."""
        shown = [name for name in self._seen if sender in (None, name[0])]
        report: dict[str, Any] = {
            "keys": len(shown),
            "sameCiphertextAgain": self._repeated,
            "unreadable": self._unreadable,
            "forgotten": self._forgotten,
            "reused": [reuse for reuse in self.reuses if sender in (None, reuse["sender"])],
        }
        if full:
            report["seen"] = [
                {"sender": name[0], "receiver": name[1], "ratchetKey": name[2].hex(), "counter": name[3]}
                for name in shown
            ]
        return report


class Deliveries:
    """How often each (device, stanza, id) was put on a wire; bounded, the oldest are forgotten."""

    def __init__(self, limit: int = MAX_DELIVERIES) -> None:
        self._limit = limit
        self._counts: OrderedDict[tuple[str, str, str], int] = OrderedDict()

    def note(self, device: str, tag: str, message_id: str) -> None:
        """Count one delivery."""
        key = (device, tag, message_id)
        self._counts[key] = self._counts.get(key, 0) + 1
        if len(self._counts) > self._limit:
            self._counts.popitem(last=False)

    def count(self, device: str, message_id: str, tag: str = "message") -> int:
        """Say how often a stanza was put on the wire to a device."""
        return self._counts.get((device, tag, message_id), 0)

    def report(self, message_id: str | None = None) -> list[dict[str, Any]]:
        """All counts, or those of one id."""
        return [
            {"device": device, "tag": tag, "id": found, "count": count}
            for (device, tag, found), count in self._counts.items()
            if message_id in (None, found)
        ]


def _key_of(kind: str, ciphertext: bytes) -> tuple[bytes, int]:
    if kind == "pkmsg":
        inner = parse_prekey_message(ciphertext).message
        return inner.ratchet_key, inner.counter
    if kind == "msg":
        message = parse_signal_message(ciphertext)
        return message.ratchet_key, message.counter
    group = parse_sender_key_message(ciphertext)
    return group.key_id.to_bytes(4, "big"), group.iteration
