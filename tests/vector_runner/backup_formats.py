"""How the vectors of encrypted backups are checked: age files of two implementations, and damaged ones."""

from __future__ import annotations

import base64
import hashlib
import io
from typing import Any

from tests.vector_runner.core import NEGATIVE, Format, attempt
from waD.transfer import age_header
from waD.transfer.archive import ArchiveError
from waD.transfer.sealing import Identities, Key, Passphrase, Recipients, check_size

DAMAGE = {"archive_damaged", "archive_truncated"}


def opened(data: bytes, key: Key) -> bytes:
    out = io.BytesIO()
    key.decrypt(io.BytesIO(data), out)
    return out.getvalue()


def key_of(case: dict[str, Any]) -> Key:
    return Identities([case["identity"]]) if "identity" in case else Passphrase(case["passphrase"])


def age_file(case: dict[str, Any]) -> None:
    data, key = base64.b64decode(case["age_base64"]), key_of(case)
    check_size(age_header.parse(data), len(data))
    plain = opened(data, key)
    if "plaintext" in case:
        assert plain == bytes.fromhex(case["plaintext"])
    else:
        assert len(plain) == case["plaintext_len"]
        assert hashlib.sha256(plain).hexdigest() == case["plaintext_sha256"]
    if isinstance(key, Identities):
        expect_recipient(key, case["recipient"], plain)


def expect_recipient(key: Identities, recipient: str, plain: bytes) -> None:
    """The identity has this public key, and opens what is encrypted to it."""
    assert key.recipients == (recipient,)
    sealed = io.BytesIO()
    Recipients([recipient]).encrypt(io.BytesIO(plain), sealed)
    assert opened(sealed.getvalue(), key) == plain


def damaged_file(case: dict[str, Any]) -> None:
    refused = attempt(lambda: opened(base64.b64decode(case["age_base64"]), key_of(case)), ArchiveError)
    assert isinstance(refused, ArchiveError), "it was opened"
    assert refused.code in DAMAGE, refused


FORMATS: dict[str, Format] = {"backup_age": {None: age_file, NEGATIVE: damaged_file}}
