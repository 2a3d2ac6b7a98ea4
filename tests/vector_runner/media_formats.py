"""How the vectors of media files are checked: key expansion, sealing, opening, names in URLs."""

from __future__ import annotations

import hashlib
from typing import Any

from tests.vector_runner.core import Format, attempt
from waD.e2ee import media

PIECES = (1, 15, 16, 17, 65_536)
"""Sizes in which files are fed, beside all at once."""


def raw(text: str) -> bytes:
    return bytes.fromhex(text)


def contents(value: str | dict[str, Any]) -> bytes:
    """A plaintext, written out or as a recipe."""
    if isinstance(value, str):
        return raw(value)
    assert value["gen"] == "sha256ctr"
    seed, length = value["seed"].encode(), value["length"]
    blocks = (hashlib.sha256(seed + n.to_bytes(4, "big")).digest() for n in range(length // 32 + 1))
    return b"".join(blocks)[:length]


def expand(case: dict[str, Any]) -> None:
    assert media.INFOS[case["type"]] == case["info"].encode()
    keys = media.expand(raw(case["mediaKey"]), case["type"])
    got = (keys.iv, keys.cipher_key, keys.mac_key, keys.ref_key)
    assert b"".join(got) == raw(case["expanded"])
    if "iv" in case:
        assert got == tuple(raw(case[name]) for name in ("iv", "cipherKey", "macKey", "refKey"))


def encrypt(case: dict[str, Any]) -> None:
    plaintext, key, kind = contents(case["plaintext"]), raw(case["mediaKey"]), case["type"]
    sealed, facts = media.encrypt(key, kind, plaintext)
    assert len(sealed) == case["encLength"] == media.encrypted_length(case["fileLength"])
    assert (facts.file_sha256, facts.enc_sha256) == (raw(case["fileSha256"]), raw(case["fileEncSha256"]))
    assert (facts.length, facts.sidecar) == (case["fileLength"], raw(case["sidecar"]))
    assert hashlib.sha256(sealed).digest() == facts.enc_sha256
    assert sealed[-media.MAC_LENGTH :] == raw(case["mac"])
    if "enc" in case:
        assert sealed == raw(case["enc"])
    for size in PIECES:
        encryptor = media.Encryptor(key, kind)
        body = b"".join(encryptor.update(plaintext[at : at + size]) for at in range(0, len(plaintext), size))
        last, in_pieces = encryptor.finish()
        assert (body + last, in_pieces) == (sealed, facts), f"in pieces of {size}"
    opened = media.decrypt(
        key, kind, sealed, enc_sha256=facts.enc_sha256, file_sha256=facts.file_sha256, length=facts.length
    )
    assert opened == plaintext


def decrypt(case: dict[str, Any]) -> None:
    for size in (None, *PIECES):
        got = attempt(lambda size=size: opened(case, size), media.MediaFileError)
        if "error" in case:
            assert isinstance(got, media.MediaFileError), "it was opened"
            assert got.code == case["error"].replace("-", "_"), f"{got} instead of {case['error']}"
        else:
            assert got == raw(case["plaintext"])


def opened(case: dict[str, Any], size: int | None) -> bytes:
    data, decryptor = (
        raw(case["enc"]),
        media.Decryptor(
            raw(case["mediaKey"]),
            case["type"],
            enc_sha256=raw(case["fileEncSha256"]),
            file_sha256=raw(case["fileSha256"]),
            length=case["fileLength"],
        ),
    )
    step = size or max(1, len(data))
    body = b"".join(decryptor.update(data[at : at + step]) for at in range(0, len(data), step))
    return body + decryptor.finish()


def upload_token(case: dict[str, Any]) -> None:
    digest = raw(case["sha256"])
    assert media.file_token(digest) == case["token_padded"]
    assert media.parse_token(case["token_padded"]) == media.parse_token(case["token_unpadded"]) == digest


FORMATS: dict[str, Format] = {
    "media": {"expand": expand, "encrypt": encrypt, "decrypt": decrypt, "upload-token": upload_token},
}
