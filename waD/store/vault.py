"""Keys and contents encrypted at rest (chapter 08 §8): AES-256-GCM under a key per session and epoch.

That key (DEK) is stored wrapped by one of the operator's (KEK), which lives outside of the database. Every item is
bound to its session, kind, key and version, so that rows can be neither swapped nor put back unnoticed.
"""

from __future__ import annotations

import base64
import os
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from waD.store.errors import KekUnavailable, StoreDamaged

KEY_LENGTH: Final = 32
NONCE_LENGTH: Final = 12
CLEAR: Final = frozenset(
    {"lid-of-pn", "pn-of-lid", "device-list", "identity", "app-state-version", "sender-key-memory"}
)
"""Kinds of items that hold no secret."""
CACHED: Final = 1024
"""Sessions whose keys are kept unwrapped."""

Random = Callable[[int], bytes]


class _Box(msgspec.Struct, rename={"version": "$wad"}):
    """An encrypted document."""

    version: int
    n: bytes
    c: bytes


_decode_box: Final = msgspec.json.Decoder(_Box).decode


def _as_box(stored: bytes) -> _Box | None:
    try:
        return _decode_box(stored)
    except (msgspec.DecodeError, ValueError):
        return None


class Cipher:
    """Encrypts the state of one session in one epoch.

    Attributes:
        wrapped: its key as stored.
        kek_id: which of the operator's keys it is wrapped with.
        mac_key: for checksums.
    """

    __slots__ = ("_blob", "_item", "_random", "_session", "kek_id", "mac_key", "wrapped")

    def __init__(self, session_id: str, dek: bytes, wrapped: bytes, kek_id: str, random: Random) -> None:
        self.wrapped = wrapped
        self.kek_id = kek_id
        self.mac_key = _derive(dek, b"wad item mac")
        self._item = AESGCM(_derive(dek, b"wad item enc"))
        self._blob = AESGCM(_derive(dek, b"wad blob enc"))
        self._session = uuid.UUID(session_id).bytes
        self._random = random

    def __repr__(self) -> str:
        return f"Cipher(kek={self.kek_id})"

    def close(self, kind: str, key: str, version: int, document: bytes) -> bytes:
        """An item's document as it is stored; those of `CLEAR` stay as they are."""
        if kind in CLEAR:
            return document
        nonce = self._random(NONCE_LENGTH)
        sealed = self._item.encrypt(nonce, document, self._aad(kind, key, version))
        return b'{"$wad":1,"c":"%b","n":"%b"}' % (base64.b64encode(sealed), base64.b64encode(nonce))

    def open(self, kind: str, key: str, version: int, stored: bytes) -> bytes:
        """The document; raises StoreDamaged when it is not what was stored here."""
        if kind in CLEAR:
            return stored
        box = _as_box(stored)
        if box is None:
            raise StoreDamaged(f"a {kind} that must be encrypted is not, or is damaged: restore a backup")
        if box.version != 1 or len(box.n) != NONCE_LENGTH:
            raise StoreDamaged(
                f"an encrypted {kind} has an unknown form: a newer program wrote it, or it is damaged"
            )
        try:
            return self._item.decrypt(box.n, box.c, self._aad(kind, key, version))
        except InvalidTag:
            raise StoreDamaged(
                f"an encrypted {kind} does not belong where it is stored, or is damaged: restore a backup"
            ) from None

    def close_blob(self, purpose: str, data: bytes) -> bytes:
        """Bytes that are no item, such as a plaintext kept for retries; `purpose` binds them to their place."""
        nonce = self._random(NONCE_LENGTH)
        return nonce + self._blob.encrypt(nonce, data, self._session + purpose.encode())

    def open_blob(self, purpose: str, data: bytes) -> bytes:
        """The bytes; raises StoreDamaged."""
        try:
            return self._blob.decrypt(
                data[:NONCE_LENGTH], data[NONCE_LENGTH:], self._session + purpose.encode()
            )
        except (InvalidTag, ValueError):
            raise StoreDamaged(f"an encrypted {purpose} is damaged: restore a backup") from None

    def _aad(self, kind: str, key: str, version: int) -> bytes:
        parts = [b"wad-item-1\0"]
        for text in (kind.encode(), key.encode()):
            parts += [len(text).to_bytes(4, "big"), text]
        return b"".join((*parts, version.to_bytes(8, "big"), self._session))


class Vault:
    """The operator's keys, and the sessions' keys under them.

    Args:
        keks: 32-byte keys by id.
        current: id of the one that wraps new keys; without one, new states are stored in the clear.
        random: source of randomness.

    Attributes:
        current: as given, until a key is made.
        lost: why there is no key for new states although there should be one, and what to do; "" when all is well.
            Then no session is made, and what is encrypted does not come into the clear.
    """

    def __init__(self, keks: Mapping[str, bytes], current: str | None, random: Random = os.urandom) -> None:
        self._keks = {name: AESGCM(key) for name, key in keks.items()}
        self.current = current
        self.lost = ""
        self._random = random
        self._ciphers: OrderedDict[tuple[str, int, bytes, str], Cipher] = OrderedDict()

    def __repr__(self) -> str:
        return f"Vault({', '.join(self._keks)})"

    @property
    def ids(self) -> list[str]:
        """Of the keys that are here."""
        return sorted(self._keks)

    def add(self, kek_id: str, kek: bytes) -> None:
        """Take another key of the operator's."""
        self._keks[kek_id] = AESGCM(kek)

    def new(self, session_id: str, epoch: int) -> Cipher | None:
        """A cipher with a fresh key for a session's epoch; None where new states are stored in the clear.

        Raises:
            KekUnavailable: the current key is not here, or it is lost.
        """
        if self.lost:
            raise KekUnavailable(self.lost)
        if self.current is None:
            return None
        return self._wrap(session_id, epoch, self._random(KEY_LENGTH), self.current)

    def next(self, session_id: str, epoch: int, kek_id: str | None) -> Cipher | None:
        """The same for the next epoch of a session that is there.

        While the key for new states is lost, what was in the clear stays so, and what is encrypted stays under its key.

        Args:
            session_id: whose.
            epoch: the next one.
            kek_id: the key that its present state is encrypted with, None in the clear.

        Raises:
            KekUnavailable: neither key is here.
        """
        if not self.lost:
            return self.new(session_id, epoch)
        if kek_id is None:
            return None
        if kek_id not in self._keks:
            raise KekUnavailable(self.lost)
        return self._wrap(session_id, epoch, self._random(KEY_LENGTH), kek_id)

    def cipher(self, session_id: str, epoch: int, wrapped: bytes, kek_id: str) -> Cipher:
        """The cipher of a stored key.

        Raises:
            KekUnavailable: the key it is wrapped with is not here, or is another one of that name.
        """
        wrapped = bytes(wrapped)
        found = self._ciphers.get((session_id, epoch, wrapped, kek_id))
        if found is None:
            dek = self._unwrap(session_id, epoch, wrapped, kek_id)
            found = self._remember(session_id, epoch, Cipher(session_id, dek, wrapped, kek_id, self._random))
        return found

    def rewrap(self, session_id: str, epoch: int, wrapped: bytes, kek_id: str, to: str) -> Cipher:
        """The same key wrapped with another of the operator's keys.

        Raises:
            KekUnavailable: one of the two is not here.
        """
        return self._wrap(session_id, epoch, self._unwrap(session_id, epoch, bytes(wrapped), kek_id), to)

    def _wrap(self, session_id: str, epoch: int, dek: bytes, kek_id: str) -> Cipher:
        nonce = self._random(NONCE_LENGTH)
        wrapped = nonce + self._kek(kek_id, session_id).encrypt(nonce, dek, _dek_aad(session_id, epoch))
        return self._remember(session_id, epoch, Cipher(session_id, dek, wrapped, kek_id, self._random))

    def _unwrap(self, session_id: str, epoch: int, wrapped: bytes, kek_id: str) -> bytes:
        kek = self._kek(kek_id, session_id)
        try:
            return kek.decrypt(wrapped[:NONCE_LENGTH], wrapped[NONCE_LENGTH:], _dek_aad(session_id, epoch))
        except (InvalidTag, ValueError):
            raise KekUnavailable(
                f"the key {kek_id!r} is not the one that session {session_id} is encrypted with: "
                "put the right one back, or restore a backup"
            ) from None

    def _kek(self, kek_id: str, session_id: str) -> AESGCM:
        kek = self._keks.get(kek_id)
        if kek is None:
            raise KekUnavailable(missing_kek(kek_id, session_id))
        return kek

    def _remember(self, session_id: str, epoch: int, cipher: Cipher) -> Cipher:
        # A wrapped key that was copied to another session's row must not be found here.
        self._ciphers[session_id, epoch, cipher.wrapped, cipher.kek_id] = cipher
        while len(self._ciphers) > CACHED:
            self._ciphers.popitem(last=False)
        return cipher


def missing_kek(kek_id: str, session_id: str) -> str:
    """What is said when a key is not there."""
    return (
        f"session {session_id} is encrypted with the key {kek_id!r}, which is not here: provide it as "
        "store.kek_file or as the systemd credential wad-kek"
    )


def _dek_aad(session_id: str, epoch: int) -> bytes:
    return b"wad-dek-1" + uuid.UUID(session_id).bytes + epoch.to_bytes(4, "big")


def _derive(dek: bytes, info: bytes) -> bytes:
    return HKDF(hashes.SHA256(), KEY_LENGTH, salt=None, info=info).derive(dek)
