"""Media files beyond the vectors: any split, any damage, hostile names (chapter 05 §2)."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waD.e2ee import media
from waD.e2ee.media import Decryptor, Encryptor, MediaFileError

KEY = bytes(range(32))


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


def opened(data: bytes, **facts: object) -> bytes:
    facts.setdefault("enc_sha256", hashlib.sha256(data).digest())
    return media.decrypt(KEY, "image", data, **facts)  # type: ignore[arg-type]


def refusal(data: bytes, **facts: object) -> str:
    with pytest.raises(MediaFileError) as caught:
        opened(data, **facts)
    return caught.value.code


@given(
    st.binary(max_size=200),
    st.lists(st.integers(0, 300), max_size=6),
    st.lists(st.integers(0, 300), max_size=6),
)
def test_any_split_gives_the_same_file_and_plaintext(
    plain: bytes, cuts: list[int], others: list[int]
) -> None:
    sealed, facts = media.encrypt(KEY, "md-app-state", plain)
    encryptor = Encryptor(KEY, "md-app-state")
    pieces = [encryptor.update(piece) for piece in split(plain, cuts)]
    assert (b"".join(pieces) + (end := encryptor.finish())[0], end[1]) == (sealed, facts)
    assert len(sealed) == media.encrypted_length(len(plain))
    decryptor = Decryptor(
        KEY, "md-app-state", enc_sha256=facts.enc_sha256, file_sha256=facts.file_sha256, length=facts.length
    )
    assert b"".join(decryptor.update(piece) for piece in split(sealed, others)) + decryptor.finish() == plain


@given(st.binary(max_size=100), st.data())
def test_a_flipped_bit_is_noticed_by_the_hash_and_without_it_by_the_mac(
    plain: bytes, data: st.DataObject
) -> None:
    sealed, facts = media.encrypt(KEY, "image", plain)
    at = data.draw(st.integers(0, len(sealed) * 8 - 1))
    damaged = bytearray(sealed)
    damaged[at // 8] ^= 1 << at % 8
    assert refusal(bytes(damaged), enc_sha256=facts.enc_sha256) == "enc_hash"
    assert refusal(bytes(damaged)) == "mac"


@given(st.binary(max_size=80))
def test_any_bytes_are_refused(data: bytes) -> None:
    """Nobody finds an 80-bit MAC by chance."""
    assert refusal(data) in ("length", "mac")


def test_facts_that_are_not_known_are_not_checked() -> None:
    sealed, facts = media.encrypt(KEY, "image", b"plain")
    assert opened(sealed) == b"plain"
    assert refusal(sealed, file_sha256=bytes(32), length=5) == "plain_hash"
    assert refusal(sealed, file_sha256=facts.file_sha256, length=6) == "file_length"
    assert refusal(sealed, length=0) == "file_length"


def test_memory_does_not_grow_with_the_file() -> None:
    """What is held back between pieces is less than three blocks."""
    encryptor, decryptor = Encryptor(KEY, "video"), Decryptor(KEY, "video", enc_sha256=bytes(32))
    for size in (1, 5, 15, 16, 31, 64, 1000):
        sealed = encryptor.update(bytes(size))
        decryptor.update(sealed)
        assert len(encryptor._rest) < media.BLOCK
        assert len(decryptor._rest) < media.MIN_FILE + media.BLOCK


@pytest.mark.parametrize(
    "use",
    [
        lambda: media.expand(KEY[1:], "image"),
        lambda: media.expand(b"", "image"),
        lambda: media.expand(KEY, "ppic"),  # type: ignore[arg-type]
        lambda: media.expand(KEY, "newsletter-image"),  # type: ignore[arg-type]
        lambda: Decryptor(KEY + b"x", "image", enc_sha256=bytes(32)),
    ],
)
def test_keys_and_kinds_that_cannot_be(use: Callable[[], object]) -> None:
    with pytest.raises(MediaFileError) as caught:
        use()
    assert caught.value.code == "key"


def test_kinds_do_not_share_keys_unless_they_are_the_same_thing() -> None:
    families = {media.expand(KEY, kind).mac_key for kind in media.INFOS}
    assert len(families) == len(set(media.INFOS.values())) == 18


@pytest.mark.parametrize(
    "text", ["", "=", "A", "ä" * 43, "A" * 42, "A" * 44, "A" * 65, "+" * 43, "A" * 42 + "\n", "A" * 10**6]
)
def test_names_that_are_no_hashes(text: str) -> None:
    assert media.parse_token(text) is None


@given(st.binary(min_size=32, max_size=32))
def test_a_token_comes_back(digest: bytes) -> None:
    token = media.file_token(digest)
    assert media.parse_token(token) == media.parse_token(token.rstrip("=")) == digest
    assert set(token) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_=")
