"""The header of an age v1 file (chapter 08 §7.3): reading it, and putting another one before the same payload.

`pyrage` encrypts and decrypts every payload, and every file for recipients. For passphrases it works in memory only
and chooses the work factor by the speed of the machine, so that one machine would write what another refuses. So a
passphrase wraps the file key here, and `pyrage` sees the same file for a recipient that lives as long as the call.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import pyrage
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from waD.e2ee import curve
from waD.e2ee.kdf import hkdf, hmac_sha256
from waD.transfer.archive import ArchiveError

MAGIC_PREFIX: Final = b"age-encryption.org/"
MAGIC: Final = b"age-encryption.org/v1\n"
MAX_HEADER: Final = 64 * 1024
FILE_KEY_LENGTH: Final = 16
WRAPPED_LENGTH: Final = 32
SALT_LENGTH: Final = 16
MAC_LENGTH: Final = 32
WORK_FACTOR: Final = 18
"""log2 of scrypt's N that is written: 256 MiB of memory."""
MAX_WORK_FACTOR: Final = 20
"""The largest that is read: 1 GiB of memory."""

_COLUMNS: Final = 64
_SCRYPT_LABEL: Final = b"age-encryption.org/v1/scrypt"
_X25519_LABEL: Final = b"age-encryption.org/v1/X25519"
_NONCE: Final = bytes(12)
_LOG_N: Final = re.compile(r"[1-9][0-9]{0,2}", re.ASCII)
_BECH32: Final = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"

Random = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class Stanza:
    """How the file key is wrapped for one recipient."""

    kind: str
    arguments: tuple[str, ...]
    body: bytes

    def encode(self) -> bytes:
        """As it stands in a header; the last line of the body is shorter than 64 columns."""
        text = _b64(self.body)
        lines = [" ".join(("->", self.kind, *self.arguments))]
        lines += [text[start : start + _COLUMNS] for start in range(0, len(text) + 1, _COLUMNS)]
        return "".join(f"{line}\n" for line in lines).encode()


@dataclass(frozen=True, slots=True)
class Header:
    """A well-formed header; `size` in bytes, `covered` is what its MAC is over."""

    stanzas: tuple[Stanza, ...]
    covered: bytes
    mac: bytes
    size: int

    @property
    def passphrase(self) -> Stanza | None:
        """The stanza of a passphrase: it stands alone."""
        return next((stanza for stanza in self.stanzas if stanza.kind == "scrypt"), None)


def parse(data: bytes) -> Header:
    """Read the header at the beginning of a file; `data` may go on behind it.

    Raises:
        ArchiveError: `not_age`, `archive_too_new`, `archive_truncated`, `archive_damaged`, or
            `work_factor_too_high`.
    """
    if not data.startswith(MAGIC):
        if data and data.startswith(MAGIC_PREFIX[: len(data)]):
            known = len(data) < len(MAGIC)
            raise ArchiveError(
                "archive_truncated" if known else "archive_too_new", "its first line is not that of age v1"
            )
        raise ArchiveError("not_age", "it does not begin as an age file does")
    lines = _Lines(data, len(MAGIC))
    stanzas: list[Stanza] = []
    while (line := lines.take()).startswith("-> "):
        stanzas.append(_stanza(line, lines))
    if not line.startswith("--- ") or not stanzas:
        raise _damaged("no recipient, or no end of the header")
    mac = _unb64(line[4:], MAC_LENGTH)
    header = Header(tuple(stanzas), data[: lines.position - len(line) + 3], mac, lines.position + 1)
    _check_passphrase(header)
    return header


class _Lines:
    """Lines of a header; `position` is that of the line end behind the line taken last."""

    def __init__(self, data: bytes, start: int) -> None:
        self._data = data[:MAX_HEADER]
        self._whole = len(data) < MAX_HEADER
        self._next = start
        self.position = start

    def take(self) -> str:
        end = self._data.find(b"\n", self._next)
        if end < 0:
            if self._whole:
                raise ArchiveError("archive_truncated", "it ends within the header")
            raise _damaged(f"a header of {MAX_HEADER} bytes or more")
        line, self._next, self.position = self._data[self._next : end], end + 1, end
        try:
            return line.decode("ascii")
        except UnicodeDecodeError:
            raise _damaged("a line that is not text") from None


def _stanza(line: str, lines: _Lines) -> Stanza:
    kind, *arguments = line[3:].split(" ")
    if not all(word and word.isprintable() for word in (kind, *arguments)):
        raise _damaged("a recipient without a proper name")
    body: list[str] = []
    while True:
        body.append(lines.take())
        if len(body[-1]) > _COLUMNS:
            raise _damaged("a line that is too long")
        if len(body[-1]) < _COLUMNS:
            return Stanza(kind, tuple(arguments), _unb64("".join(body)))


def _check_passphrase(header: Header) -> None:
    stanza = header.passphrase
    if stanza is None:
        return
    if len(header.stanzas) != 1 or len(stanza.arguments) != 2 or len(stanza.body) != WRAPPED_LENGTH:
        raise _damaged("a passphrase must be the only recipient, with salt and work factor")
    _unb64(stanza.arguments[0], SALT_LENGTH)
    if _LOG_N.fullmatch(stanza.arguments[1]) is None:
        raise _damaged("a work factor that is no number")
    if int(stanza.arguments[1]) > MAX_WORK_FACTOR:
        raise ArchiveError(
            "work_factor_too_high",
            f"its passphrase has a work factor of 2^{stanza.arguments[1]}, more than 2^{MAX_WORK_FACTOR}: "
            "decrypt it with age, and encrypt it anew",
        )


def open_passphrase(header: Header, passphrase: str) -> bytes:
    """The 16-byte file key of a file for a passphrase.

    Raises:
        ArchiveError: `wrong_key`, or `archive_damaged` when the header is not the one that was written.
    """
    stanza = header.passphrase
    if stanza is None:
        raise ArchiveError(
            "wrong_key", "it is encrypted to recipients, not with a passphrase: give an identity file"
        )
    salt, work_factor = _unb64(stanza.arguments[0], SALT_LENGTH), int(stanza.arguments[1])
    try:
        file_key = ChaCha20Poly1305(_stretch(passphrase, salt, work_factor)).decrypt(
            _NONCE, stanza.body, None
        )
    except InvalidTag:
        raise ArchiveError("wrong_key", "this is not its passphrase") from None
    if not hmac.compare_digest(_mac(file_key, header.covered), header.mac):
        raise ArchiveError("archive_damaged", "its header has been changed")
    return file_key


def passphrase_header(file_key: bytes, passphrase: str, random: Random) -> bytes:
    """A header that opens with a passphrase."""
    salt = random(SALT_LENGTH)
    body = ChaCha20Poly1305(_stretch(passphrase, salt, WORK_FACTOR)).encrypt(_NONCE, file_key, None)
    return _header(Stanza("scrypt", (_b64(salt), str(WORK_FACTOR)), body), file_key)


def _stretch(passphrase: str, salt: bytes, work_factor: int) -> bytes:
    scrypt = Scrypt(salt=_SCRYPT_LABEL + salt, length=32, n=1 << work_factor, r=8, p=1)
    return scrypt.derive(passphrase.encode())


def recipient_header(file_key: bytes, recipient: pyrage.x25519.Recipient, random: Random) -> bytes:
    """A header that opens with the identity of a recipient."""
    public, own = _bech32(str(recipient)), curve.KeyPair.generate(random)
    wrap = _x25519_key(curve.agree(own.private, public), own.public, public)
    body = ChaCha20Poly1305(wrap).encrypt(_NONCE, file_key, None)
    return _header(Stanza("X25519", (_b64(own.public),), body), file_key)


def open_recipient(header: Header, identity: pyrage.x25519.Identity) -> bytes:
    """The file key of a file that was encrypted to one identity alone, just now."""
    private = _bech32(str(identity))
    stanza = next(stanza for stanza in header.stanzas if stanza.kind == "X25519")
    share = _unb64(stanza.arguments[0], curve.KEY_LENGTH)
    wrap = _x25519_key(curve.agree(private, share), share, curve.KeyPair.from_private(private).public)
    return ChaCha20Poly1305(wrap).decrypt(_NONCE, stanza.body, None)


def _x25519_key(secret: bytes, share: bytes, public: bytes) -> bytes:
    return hkdf(secret, share + public, _X25519_LABEL, 32)


def _header(stanza: Stanza, file_key: bytes) -> bytes:
    covered = MAGIC + stanza.encode() + b"---"
    return covered + f" {_b64(_mac(file_key, covered))}\n".encode()


def _mac(file_key: bytes, covered: bytes) -> bytes:
    return hmac_sha256(hkdf(file_key, None, b"header", 32), covered)


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode().rstrip("=")


def _unb64(text: str, length: int | None = None) -> bytes:
    """Canonical base64 without padding."""
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise _damaged("something in the header is not base64") from None
    if _b64(data) != text or (length is not None and len(data) != length):
        raise _damaged("something in the header is not base64 of the right length")
    return data


def _bech32(text: str) -> bytes:
    """The 32 bytes of a key that the library wrote out: its checksum needs no checking."""
    digits = [_BECH32.index(character) for character in text.lower().rpartition("1")[2][:-6]]
    number = 0
    for digit in digits:
        number = number << 5 | digit
    return (number >> (len(digits) * 5 - 256)).to_bytes(32, "big")


def _damaged(detail: str) -> ArchiveError:
    return ArchiveError("archive_damaged", detail)
