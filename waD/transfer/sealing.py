"""Encrypting archives with age, to recipients or with a passphrase (chapter 08 §7.3), in bounded memory."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Protocol

import pyrage

from waD.transfer import age_header
from waD.transfer.age_header import MAGIC_PREFIX, MAX_HEADER
from waD.transfer.archive import ArchiveError

TAG_LENGTH: Final = 16
NONCE_LENGTH: Final = 16
CHUNK: Final = 64 * 1024
MAX_RECIPIENTS: Final = 64

_TOLD: Final = {
    "No matching keys found": (
        "wrong_key",
        "none of the identities given opens it: it is encrypted to others",
    ),
    "Header MAC is invalid": ("archive_damaged", "its header has been changed"),
    "Header is invalid": ("archive_damaged", "its header is damaged"),
    "failed to fill whole buffer": ("archive_truncated", "it ends before its content begins"),
    "Incomplete header": ("archive_truncated", "it ends within the header"),
    "age file is truncated": ("archive_truncated", "its last part is missing"),
}


class Readable(Protocol):
    """The reading side of a file."""

    def read(self, size: int, /) -> bytes:
        """Up to so many bytes; empty at the end."""
        ...


class Writable(Protocol):
    """The writing side of a file."""

    def write(self, data: bytes, /) -> int:
        """Write all of it."""
        ...

    def flush(self) -> None:
        """Pass on what is held back."""
        ...


class Key(Protocol):
    """Opens archives."""

    def decrypt(self, source: Readable, out: Writable) -> None:
        """Decrypt a file to its end.

        Raises:
            ArchiveError: what was written is not to be used.
        """
        ...


class Recipients:
    """Encrypts to public keys.

    Args:
        texts: as `age1…`.

    Raises:
        ArchiveError: `recipient_invalid`.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        if not 0 < len(texts) <= MAX_RECIPIENTS:
            raise ArchiveError(
                "recipient_invalid", f"{len(texts)} recipients; 1 to {MAX_RECIPIENTS} are possible"
            )
        self.names = tuple(texts)
        self._recipients = [_recipient(text) for text in texts]

    def encrypt(self, source: Readable, out: Writable) -> None:
        """Encrypt a file to its end."""
        _encrypt(source, out, self._recipients)


def _recipient(text: str) -> pyrage.x25519.Recipient:
    try:
        return pyrage.x25519.Recipient.from_str(text)
    except pyrage.RecipientError:
        hint = (
            "this is a secret key: keep it off this machine, and give"
            if text[:15].upper() == "AGE-SECRET-KEY-"
            else "give"
        )
        raise ArchiveError(
            "recipient_invalid", f"{hint} a public key as age-keygen prints it, age1…"
        ) from None


class Identities:
    """Opens files that were encrypted to one of these secret keys, `AGE-SECRET-KEY-1…`."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._identities = [_identity(text) for text in texts]

    def __repr__(self) -> str:
        return f"Identities({len(self._identities)})"

    @property
    def recipients(self) -> tuple[str, ...]:
        """Their public keys."""
        return tuple(str(identity.to_public()) for identity in self._identities)

    def decrypt(self, source: Readable, out: Writable) -> None:
        """Decrypt a file to its end; raises ArchiveError."""
        head = _head(source)
        header = age_header.parse(head)
        if header.passphrase is not None:
            raise ArchiveError("wrong_key", "it is encrypted with a passphrase, not to an identity")
        _decrypt(_Chained(head, source), out, self._identities)


def _identity(text: str) -> pyrage.x25519.Identity:
    try:
        return pyrage.x25519.Identity.from_str(text)
    except pyrage.IdentityError:
        raise ArchiveError("identity_unusable", "a line is no secret key AGE-SECRET-KEY-1…") from None


class Passphrase:
    """Encrypts and opens with a passphrase.

    Args:
        text: not empty.
        random: source of randomness.
    """

    def __init__(self, text: str, random: Callable[[int], bytes] = os.urandom) -> None:
        if not text:
            raise ArchiveError("passphrase_unusable", "an empty passphrase protects nothing")
        self._text = text
        self._random = random

    def __repr__(self) -> str:
        return "Passphrase()"

    def encrypt(self, source: Readable, out: Writable) -> None:
        """Encrypt a file to its end."""
        passing = pyrage.x25519.Identity.generate()

        def swap(head: bytes) -> bytes:
            file_key = age_header.open_recipient(age_header.parse(head), passing)
            return age_header.passphrase_header(file_key, self._text, self._random)

        swapped = _Swapped(out, swap)
        _encrypt(source, swapped, [passing.to_public()])

    def decrypt(self, source: Readable, out: Writable) -> None:
        """Decrypt a file to its end; raises ArchiveError."""
        head = _head(source)
        header = age_header.parse(head)
        file_key = age_header.open_passphrase(header, self._text)
        passing = pyrage.x25519.Identity.generate()
        ours = age_header.recipient_header(file_key, passing.to_public(), self._random)
        _decrypt(_Chained(ours + head[header.size :], source), out, [passing])


def _head(source: Readable) -> bytes:
    """As much of a file as a header can have."""
    head = b""
    while len(head) < MAX_HEADER and (more := source.read(MAX_HEADER - len(head))):
        head += more
    return head


class _Chained:
    """The reading side of bytes with a file behind them."""

    def __init__(self, head: bytes, rest: Readable) -> None:
        self._head = io.BytesIO(head)
        self._rest = rest

    def read(self, size: int, /) -> bytes:
        """Up to so many bytes; empty at the end."""
        return self._head.read(size) or self._rest.read(size)

    @property
    def at_end(self) -> bool:
        """Whether nothing is left."""
        return not self.read(1)


class _Swapped:
    """The writing side of a file whose age header is replaced on the way."""

    def __init__(self, out: Writable, swap: Callable[[bytes], bytes]) -> None:
        self._out = out
        self._swap: Callable[[bytes], bytes] | None = swap
        self._head = b""

    def write(self, data: bytes) -> int:
        """Write on, or hold back what may be a part of the header."""
        if self._swap is None:
            return self._out.write(data)
        self._head += data
        end = self._head.find(b"\n--- ")
        end = self._head.find(b"\n", end + 1) if end >= 0 else -1
        if end >= 0:
            self._out.write(self._swap(self._head[: end + 1]) + self._head[end + 1 :])
            self._swap = None
        return len(data)

    def flush(self) -> None:
        """Pass on that it is over."""
        self._out.flush()


class _Guarded:
    """Both sides of a file, remembering what they failed with: the library makes a text of it."""

    def __init__(self, source: Readable, out: Writable) -> None:
        self._source = source
        self._out = out
        self.failure: BaseException | None = None

    def read(self, size: int) -> bytes:
        """As the source does."""
        try:
            return self._source.read(size)
        except BaseException as failure:  # Ctrl-C too; raised again in _pumping
            self.failure = failure
            raise

    def write(self, data: bytes) -> int:
        """As the other side does."""
        try:
            return self._out.write(data)
        except BaseException as failure:  # Ctrl-C too; raised again in _pumping
            self.failure = failure
            raise

    def flush(self) -> None:
        """As the other side does."""
        self._out.flush()


@contextmanager
def _pumping(source: Readable, out: Writable) -> Iterator[_Guarded]:
    """The files for the library; what they raise comes out as it is."""
    guarded = _Guarded(source, out)
    try:
        yield guarded
    except Exception:
        if guarded.failure is not None:
            raise guarded.failure from None
        raise


def _encrypt(source: Readable, out: Writable, recipients: Sequence[pyrage.x25519.Recipient]) -> None:
    with _pumping(source, out) as files:
        pyrage.encrypt_io(files, files, recipients)
    out.flush()


def _decrypt(source: _Chained, out: Writable, identities: Sequence[pyrage.x25519.Identity]) -> None:
    try:
        with _pumping(source, out) as files:
            pyrage.decrypt_io(files, files, identities)
    except pyrage.DecryptError as error:
        code, detail = _TOLD.get(str(error), ("archive_damaged", "its header cannot be used"))
        raise ArchiveError(code, detail) from None
    except OSError as error:
        if error.errno is not None:
            raise
        if str(error) in _TOLD:
            code, detail = _TOLD[str(error)]
            raise ArchiveError(code, detail) from None
        if source.at_end:
            raise ArchiveError(
                "archive_truncated", "it has been cut short, or its last part is damaged"
            ) from None
        raise ArchiveError("archive_damaged", "its content is not what was encrypted") from None


def is_sealed(head: bytes) -> bool:
    """Whether a file that begins so is an age file, or the rest of one."""
    return head.startswith(MAGIC_PREFIX) or (bool(head) and MAGIC_PREFIX.startswith(head))


def check_size(header: age_header.Header, size: int) -> None:
    """Say what the size of a whole file tells without any key.

    Args:
        header: of the file.
        size: of the file in bytes.

    Raises:
        ArchiveError: `archive_truncated`: no payload has this length.
    """
    payload = size - header.size - NONCE_LENGTH
    last = payload % (CHUNK + TAG_LENGTH)
    # A last chunk holds at least a byte, unless there is nothing in the whole file.
    if payload < TAG_LENGTH or (0 < last <= TAG_LENGTH and payload != TAG_LENGTH):
        raise ArchiveError("archive_truncated", "no age file has this size: it has been cut short")
