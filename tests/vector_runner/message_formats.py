"""How the vectors of message-level cryptography are checked, as far as lower rooms decide: padding."""

from __future__ import annotations

from typing import Any

from tests.vector_runner.core import Format
from waD.e2ee import padding


def message_pad(case: dict[str, Any]) -> None:
    plaintext, padded = (
        bytes.fromhex(case["input"]["plaintext"]),
        bytes.fromhex(case["expect"]["padded"]),
    )
    assert padding.pad(plaintext, case["input"]["random_byte"]) == padded
    assert len(padded) - len(plaintext) == case["expect"]["pad_length"]
    assert padding.unpad(padded) == plaintext


def message_unpad(case: dict[str, Any]) -> None:
    wanted = case["expect"]["strict"]
    try:
        found = padding.unpad(bytes.fromhex(case["input"]["padded"]))
    except padding.PaddingError:
        assert "error" in wanted
        return
    assert "error" not in wanted, "accepted"
    assert found == bytes.fromhex(wanted["plaintext"])


FORMATS: dict[str, Format] = {
    "messages_crypto": {"pad": message_pad, "unpad": message_unpad},
}
