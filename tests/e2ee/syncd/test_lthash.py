"""The hash of a collection, against a plain word by word sum."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from waD.e2ee.kdf import hkdf
from waD.e2ee.syncd.lthash import EMPTY, lt_hash, updated

WORDS = struct.Struct("<64H")
macs = st.lists(st.binary(min_size=32, max_size=32), max_size=8)


def plain(before: bytes, added: list[bytes], removed: list[bytes]) -> bytes:
    words = list(WORDS.unpack(before))
    for sign, values in ((1, added), (-1, removed)):
        for mac in values:
            stretched = WORDS.unpack(hkdf(mac, None, b"WhatsApp Patch Integrity", 128))
            words = [(word + sign * more) % 65536 for word, more in zip(words, stretched, strict=True)]
    return WORDS.pack(*words)


@given(st.binary(min_size=128, max_size=128), macs, macs)
def test_it_is_the_sum_of_the_words(before: bytes, added: list[bytes], removed: list[bytes]) -> None:
    assert updated(before, added, removed) == plain(before, added, removed)


@given(macs, macs)
def test_the_order_does_not_matter_and_nothing_is_left_of_what_goes(
    some: list[bytes], more: list[bytes]
) -> None:
    both = lt_hash([*some, *more])
    assert both == lt_hash([*more, *some])
    assert updated(both, [], more) == lt_hash(some)
    assert updated(both, [], [*some, *more]) == EMPTY
