"""Single mutations: what is refused, and what is kept although it means nothing to us."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.e2ee.syncd.entries import KEYS, OLD_ID, sealed
from waD.e2ee.ratchet import aes_cbc_encrypt
from waD.e2ee.syncd import mutations
from waD.e2ee.syncd.errors import MissingKeys, SyncdError
from waD.e2ee.syncd.mutations import Operation, decode, encode, index_json, index_parts
from waD.proto.appstate_pb2 import SyncActionEnvelope, SyncActionValue
from waD.proto.e2e_pb2 import SyncdMutation

texts = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.lists(texts, min_size=1, max_size=16))
def test_an_index_comes_back_as_it_went(parts: list[str]) -> None:
    data = index_json(parts)
    assert json.loads(data) == parts
    assert index_parts(data) == (tuple(parts) if len(data) <= 8192 else None)


@pytest.mark.parametrize(
    "index",
    [
        b"",
        b"[]",
        b"{}",
        b"null",
        b'["a",1]',
        b'["a",null]',
        b'["a"',
        b"\xff",
        b"[" * 8000,
        b'["a"]' * 2,
        index_json(["x"] * 17),
        index_json(["x" * 8192]),
    ],
)
def test_other_indexes_have_no_parts(index: bytes) -> None:
    assert index_parts(index) is None


@given(st.sampled_from(Operation), texts, st.binary(min_size=16, max_size=16), st.binary(max_size=30))
def test_what_is_sealed_opens(operation: Operation, name: str, iv: bytes, salt: bytes) -> None:
    value = SyncActionValue(timestamp=5)
    value.nctSaltSyncAction.salt = salt
    index = index_json(["nct_salt_sync", name])
    mutation = decode(KEYS, encode(OLD_ID, KEYS[OLD_ID], operation, index, value, 1, iv))
    assert (mutation.operation, mutation.index, mutation.value, mutation.version) == (
        operation,
        index,
        value,
        1,
    )
    assert "nct_salt" not in repr(mutation)


def drop_operation(mutation: SyncdMutation) -> None:
    mutation.ClearField("operation")


def new_operation(mutation: SyncdMutation) -> None:
    mutation.ClearField("operation")
    mutation.MergeFromString(b"\x08\x07")


def drop_index(mutation: SyncdMutation) -> None:
    mutation.record.ClearField("index")


def drop_key(mutation: SyncdMutation) -> None:
    mutation.record.ClearField("keyId")


def shorten(mutation: SyncdMutation) -> None:
    mutation.record.value.blob = mutation.record.value.blob[:63]


def turn_value(mutation: SyncdMutation) -> None:
    mutation.record.value.blob = b"\x00" + mutation.record.value.blob[1:]


def turn_index(mutation: SyncdMutation) -> None:
    mutation.record.index.blob = bytes(32)


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (drop_operation, "malformed"),
        (new_operation, "malformed"),
        (drop_index, "malformed"),
        (drop_key, "malformed"),
        (shorten, "malformed"),
        (turn_value, "value-mac"),
        (turn_index, "index-mac"),
    ],
)
def test_a_damaged_mutation_is_refused(damage: Callable[[SyncdMutation], None], code: str) -> None:
    mutation = sealed(Operation.SET, "a@lid", iv=b"\x01" * 16)
    damage(mutation)
    with pytest.raises(SyncdError) as caught:
        decode(KEYS, mutation)
    assert caught.value.code == code


def test_an_unknown_key_is_named() -> None:
    with pytest.raises(MissingKeys) as caught:
        decode({}, sealed(Operation.SET, "a@lid"))
    assert (caught.value.code, caught.value.key_ids) == ("missing-key", (OLD_ID,))


def value_mac(operation: Operation, ciphertext: bytes) -> bytes:
    """As chapter 05 §4.6 has it, for a key id of 6 bytes."""
    signed = bytes((1 + operation,)) + OLD_ID + ciphertext + bytes(7) + b"\x07"
    return hmac.digest(KEYS[OLD_ID].value_mac, signed, "sha512")[:32]


def with_plaintext(
    plaintext: bytes, operation: Operation = Operation.SET, index: bytes = b'["x"]'
) -> SyncdMutation:
    """An authentic mutation around any bytes."""
    keys, iv = KEYS[OLD_ID], bytes(16)
    mutation = SyncdMutation(operation=SyncdMutation.SyncdOperation.ValueType(operation))
    ciphertext = iv + aes_cbc_encrypt(keys.value_encryption, iv, plaintext)
    mutation.record.value.blob = ciphertext + value_mac(operation, ciphertext)
    mutation.record.index.blob = mutations.index_mac(keys, index)
    mutation.record.keyId.id = OLD_ID
    return mutation


def envelope(value: bytes | None) -> bytes:
    return SyncActionEnvelope(index=b'["x"]', value=value, version=1).SerializeToString()


def test_a_value_that_cannot_be_read_stays_an_entry() -> None:
    mutation = decode(KEYS, with_plaintext(envelope(b"\x0a\xff")))
    assert (mutation.parts, mutation.value) == (("x",), None)


@pytest.mark.parametrize(
    "plaintext", [b"\x0a\xff", envelope(None), envelope(b"")], ids=["junk", "nothing", "no time"]
)
def test_a_set_needs_a_readable_entry_with_a_value_and_a_time(plaintext: bytes) -> None:
    with pytest.raises(SyncdError, match="malformed"):
        decode(KEYS, with_plaintext(plaintext))


def test_a_removal_needs_no_value() -> None:
    mutation = decode(KEYS, with_plaintext(envelope(None), Operation.REMOVE))
    assert mutation.value is not None
    assert not mutation.value.ListFields()


def test_a_ciphertext_is_made_of_blocks() -> None:
    mutation = sealed(Operation.SET, "a@lid")
    ciphertext = mutation.record.value.blob[:-33]
    mutation.record.value.blob = ciphertext + value_mac(Operation.SET, ciphertext)
    with pytest.raises(SyncdError, match="whole blocks"):
        decode(KEYS, mutation)


def test_an_iv_has_16_bytes() -> None:
    with pytest.raises(ValueError, match="IV"):
        sealed(Operation.SET, "a", iv=b"short")
