"""App-state keys: no secrets shown, ids, and the one for uploads."""

from __future__ import annotations

import pytest

from waD.e2ee.syncd.keys import MutationKeys, active_key_id, device_of, epoch_of, key_id


def test_keys_do_not_show_themselves() -> None:
    assert repr(MutationKeys.expand(bytes(32))) == "MutationKeys()"


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_key_has_32_bytes(length: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        MutationKeys.expand(bytes(length))


def test_an_id_is_device_and_epoch() -> None:
    name = key_id(3, 0x01020304)
    assert name == b"\x00\x03\x01\x02\x03\x04"
    assert (device_of(name), epoch_of(name)) == (3, 0x01020304)
    assert device_of(b"short") is epoch_of(b"short") is None


def test_the_active_key_has_the_highest_epoch_and_then_the_lowest_device() -> None:
    names = [key_id(9, 4), key_id(2, 5), key_id(1, 5), key_id(0, 3), b"\xff" * 7]
    assert active_key_id(names) == key_id(1, 5)
    assert active_key_id(names, expired_epoch=4) == key_id(1, 5)
    assert active_key_id(names, expired_epoch=5) is None
    assert active_key_id([]) is None
