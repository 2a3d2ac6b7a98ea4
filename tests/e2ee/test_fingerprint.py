from __future__ import annotations

from tests.e2ee.parties import new_pair
from waD.e2ee.fingerprint import security_code

ALICE = bytes.fromhex("06863bc66d02b40d27b8d49ca7c09e9239236f9d7d25d6fcca5ce13c7064d868")
BOB = bytes.fromhex("f781b6fb32fed9ba1cf2de978d4d5da28dc34046ae814402b5c0dbd96fda907b")
CODE = "300354477692869396892869876765458257569162576843440918079131"


def test_published_example_from_both_sides() -> None:
    assert security_code(b"+14152222222", [ALICE], b"+14153333333", [BOB]) == CODE
    assert security_code(b"+14153333333", [BOB], b"+14152222222", [ALICE]) == CODE


def test_every_key_counts_and_their_order_does_not() -> None:
    phone, companion = new_pair(1).public, new_pair(2).public
    code = security_code(b"1", [phone, companion], b"2", [BOB])
    assert code == security_code(b"1", [companion, phone], b"2", [BOB])
    assert code != security_code(b"1", [phone], b"2", [BOB])
    assert len(code) == 60
    assert code.isdigit()
