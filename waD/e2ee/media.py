"""Encrypted media files: keys, sealing and opening, piece by piece in constant memory (chapter 05 §2.1–2.5)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CBC

from waD.e2ee.kdf import hkdf

KEY_LENGTH: Final = 32
HASH_LENGTH: Final = 32
MAC_LENGTH: Final = 10
BLOCK: Final = 16
MIN_FILE: Final = BLOCK + MAC_LENGTH
"""An empty plaintext has this size."""

MediaKind: TypeAlias = Literal[
    "image",
    "sticker",
    "product",
    "video",
    "gif",
    "ptv",
    "audio",
    "ptt",
    "document",
    "thumbnail-document",
    "thumbnail-image",
    "thumbnail-video",
    "thumbnail-link",
    "md-msg-hist",
    "md-app-state",
    "sticker-pack",
    "thumbnail-sticker-pack",
    "payment-bg-image",
    "music-artwork",
    "group-history",
    "ads-image",
    "ads-video",
    "preview",
]
"""The kinds that are encrypted."""

INFOS: Final[dict[MediaKind, bytes]] = {
    "image": b"WhatsApp Image Keys",
    "sticker": b"WhatsApp Image Keys",
    "product": b"WhatsApp Image Keys",
    "video": b"WhatsApp Video Keys",
    "gif": b"WhatsApp Video Keys",
    "ptv": b"WhatsApp Video Keys",
    "audio": b"WhatsApp Audio Keys",
    "ptt": b"WhatsApp Audio Keys",
    "document": b"WhatsApp Document Keys",
    "thumbnail-document": b"WhatsApp Document Thumbnail Keys",
    "thumbnail-image": b"WhatsApp Image Thumbnail Keys",
    "thumbnail-video": b"WhatsApp Video Thumbnail Keys",
    "thumbnail-link": b"WhatsApp Link Thumbnail Keys",
    "md-msg-hist": b"WhatsApp History Keys",
    "md-app-state": b"WhatsApp App State Keys",
    "sticker-pack": b"WhatsApp Sticker Pack Keys",
    "thumbnail-sticker-pack": b"WhatsApp Sticker Pack Thumbnail Keys",
    "payment-bg-image": b"WhatsApp Payment Background Keys",
    "music-artwork": b"WhatsApp Music Artwork Keys",
    "group-history": b"Group History",
    "ads-image": b"ads-image",
    "ads-video": b"ads-video",
    "preview": b"Messenger Preview Keys",
}
"""What separates the keys of one kind from those of another (chapter 05 §2.1)."""

MediaFault: TypeAlias = Literal["key", "length", "enc_hash", "mac", "padding", "plain_hash", "file_length"]
"""`key`: the media key cannot be one. The others, in order, are the checks of chapter 05 §2.4; the first one tells."""

_EXPANDED: Final = 112
_SIDECAR_PIECE: Final = 65_536
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{43}=?", re.ASCII)


class MediaFileError(Exception):
    """A file is not what its keys and hashes say. `code` is stable."""

    def __init__(self, code: MediaFault, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code: MediaFault = code
        self.detail = detail


@dataclass(frozen=True, slots=True, repr=False)
class MediaKeys:
    """What a media key expands to: 16 bytes of iv, then three keys of 32 (chapter 05 §2.1)."""

    iv: bytes
    cipher_key: bytes
    mac_key: bytes
    ref_key: bytes

    def __repr__(self) -> str:
        return "MediaKeys()"


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What a receiver needs beside the media key, and the sidecar for playing from the middle.

    Attributes:
        file_sha256: hash of the plaintext, 32 bytes.
        enc_sha256: hash of the uploaded file, 32 bytes.
        length: of the plaintext, bytes.
        sidecar: ten bytes for each 64 KiB of the uploaded file (chapter 05 §2.5).
    """

    file_sha256: bytes
    enc_sha256: bytes
    length: int
    sidecar: bytes = field(repr=False)


def expand(media_key: bytes, kind: MediaKind) -> MediaKeys:
    """Derive the keys of one file; MediaFileError for a key that is not 32 bytes long or a kind without keys."""
    if len(media_key) != KEY_LENGTH:
        raise MediaFileError("key", f"a media key has {KEY_LENGTH} bytes, not {len(media_key)}")
    info = INFOS.get(kind)
    if info is None:
        raise MediaFileError("key", f"files of the kind {kind!r} are not encrypted")
    expanded = hkdf(media_key, None, info, _EXPANDED)
    return MediaKeys(expanded[:16], expanded[16:48], expanded[48:80], expanded[80:])


def encrypted_length(length: int) -> int:
    """Size of the uploaded file for a plaintext of that many bytes (chapter 05 §2.2)."""
    return (length // BLOCK + 1) * BLOCK + MAC_LENGTH


def file_token(digest: bytes) -> str:
    """The name of an uploaded file in URLs: base64url of its SHA-256, with padding (chapter 05 §1.3)."""
    return base64.urlsafe_b64encode(digest).decode()


def parse_token(text: str) -> bytes | None:
    """The 32 bytes that a token stands for, padded or not; None when it is no token."""
    if _TOKEN.fullmatch(text) is None:
        return None
    return base64.urlsafe_b64decode(text.rstrip("=") + "=")


class Encryptor:
    """Seals one file. The key must never have sealed anything else.

    Raises MediaFileError as `expand`.
    """

    def __init__(self, media_key: bytes, kind: MediaKind) -> None:
        keys = expand(media_key, kind)
        self._cipher = Cipher(AES256(keys.cipher_key), CBC(keys.iv)).encryptor()
        self._mac = hmac.new(keys.mac_key, keys.iv, hashlib.sha256)
        self._sidecar = _Sidecar(keys)
        self._plain, self._sealed = hashlib.sha256(), hashlib.sha256()
        self._length = 0
        self._rest = b""

    def update(self, plaintext: bytes) -> bytes:
        """Take a piece of the plaintext; returns the next bytes of the file."""
        self._plain.update(plaintext)
        self._length += len(plaintext)
        data = self._rest + plaintext
        whole = len(data) - len(data) % BLOCK
        self._rest = data[whole:]
        return self._note(self._cipher.update(data[:whole]))

    def finish(self) -> tuple[bytes, FileFacts]:
        """Return the last bytes of the file and its facts."""
        count = BLOCK - len(self._rest)
        last = self._note(self._cipher.update(self._rest + bytes((count,)) * count))
        mac = self._mac.digest()[:MAC_LENGTH]
        self._sealed.update(mac)
        self._sidecar.update(mac)
        facts = FileFacts(self._plain.digest(), self._sealed.digest(), self._length, self._sidecar.finish())
        return last + mac, facts

    def _note(self, ciphertext: bytes) -> bytes:
        self._mac.update(ciphertext)
        self._sealed.update(ciphertext)
        self._sidecar.update(ciphertext)
        return ciphertext


class Decryptor:
    """Opens one file.

    What `update` returns is not verified: keep it where nobody reads it until `finish` has returned.

    Args:
        media_key: 32 bytes.
        kind: of the file.
        enc_sha256: hash of the whole file; without it nobody could tell a file from another one made by its sender.
        file_sha256: hash of the plaintext, when it is known.
        length: of the plaintext in bytes, when it is known.

    Raises MediaFileError as `expand`.
    """

    def __init__(
        self,
        media_key: bytes,
        kind: MediaKind,
        *,
        enc_sha256: bytes,
        file_sha256: bytes | None = None,
        length: int | None = None,
    ) -> None:
        keys = expand(media_key, kind)
        self._cipher = Cipher(AES256(keys.cipher_key), CBC(keys.iv)).decryptor()
        self._mac = hmac.new(keys.mac_key, keys.iv, hashlib.sha256)
        self._plain, self._sealed = hashlib.sha256(), hashlib.sha256()
        self._wanted = (enc_sha256, file_sha256, length)
        self._received = 0
        self._released = 0
        self._rest = b""

    def update(self, data: bytes) -> bytes:
        """Take a piece of the file; returns plaintext that is not verified yet."""
        self._sealed.update(data)
        self._received += len(data)
        data = self._rest + data
        # The last block may be padding, and the last ten bytes the MAC.
        ready = max(0, len(data) - MIN_FILE) // BLOCK * BLOCK
        self._rest = data[ready:]
        return self._open(data[:ready])

    def finish(self) -> bytes:
        """Check everything and return the last bytes of the plaintext.

        Raises:
            MediaFileError: with the first check that refuses; what `update` gave must be thrown away.
        """
        enc_sha256, file_sha256, length = self._wanted
        if self._received < MIN_FILE:
            raise MediaFileError("length", f"{self._received} bytes are too few for a media file")
        if not hmac.compare_digest(self._sealed.digest(), enc_sha256):
            raise MediaFileError("enc_hash", "the file is not the one that was announced")
        ciphertext, mac = self._rest[:-MAC_LENGTH], self._rest[-MAC_LENGTH:]
        if len(ciphertext) % BLOCK:
            raise MediaFileError("mac", "the ciphertext is not made of whole blocks")
        last = self._cipher.update(ciphertext)
        self._mac.update(ciphertext)
        if not hmac.compare_digest(self._mac.digest()[:MAC_LENGTH], mac):
            raise MediaFileError("mac", "the file was not sealed with this key")
        last = _unpadded(last)
        self._plain.update(last)
        self._released += len(last)
        if file_sha256 is not None and not hmac.compare_digest(self._plain.digest(), file_sha256):
            raise MediaFileError("plain_hash", "the plaintext is not the one that was announced")
        if length is not None and self._released != length:
            raise MediaFileError("file_length", f"{self._released} bytes instead of {length}")
        return last

    def _open(self, ciphertext: bytes) -> bytes:
        self._mac.update(ciphertext)
        plaintext = self._cipher.update(ciphertext)
        self._plain.update(plaintext)
        self._released += len(plaintext)
        return plaintext


def encrypt(media_key: bytes, kind: MediaKind, plaintext: bytes) -> tuple[bytes, FileFacts]:
    """Seal a whole file; returns it and its facts. MediaFileError as `expand`."""
    encryptor = Encryptor(media_key, kind)
    body = encryptor.update(plaintext)
    last, facts = encryptor.finish()
    return body + last, facts


def decrypt(
    media_key: bytes,
    kind: MediaKind,
    data: bytes,
    *,
    enc_sha256: bytes,
    file_sha256: bytes | None = None,
    length: int | None = None,
) -> bytes:
    """Open a whole file; arguments and errors are those of `Decryptor`."""
    decryptor = Decryptor(media_key, kind, enc_sha256=enc_sha256, file_sha256=file_sha256, length=length)
    body = decryptor.update(data)
    return body + decryptor.finish()


class _Sidecar:
    """A short MAC for each 64 KiB of iv, ciphertext and MAC, over the piece and the 16 bytes after it (§2.5)."""

    def __init__(self, keys: MediaKeys) -> None:
        self._key = keys.mac_key
        self._piece = bytearray(keys.iv)
        self._entries = bytearray()

    def update(self, data: bytes) -> None:
        self._piece += data
        while len(self._piece) >= _SIDECAR_PIECE + BLOCK:
            self._add(self._piece[: _SIDECAR_PIECE + BLOCK])
            del self._piece[:_SIDECAR_PIECE]

    def finish(self) -> bytes:
        if len(self._piece) > BLOCK:
            self._add(self._piece)
        return bytes(self._entries)

    def _add(self, piece: bytearray) -> None:
        self._entries += hmac.digest(self._key, piece, "sha256")[:MAC_LENGTH]


def _unpadded(data: bytes) -> bytes:
    count = data[-1]
    if not 1 <= count <= BLOCK or data[-count:] != bytes((count,)) * count:
        raise MediaFileError("padding", "the end of the plaintext is not PKCS#7 padding")
    return data[:-count]
