from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.e2ee.parties import new_pair
from waD.e2ee import messages
from waD.e2ee.errors import SignalError
from waD.e2ee.limits import MAX_COUNTER, MAX_MESSAGE_SIZE, MAX_PREKEY_ID, MAX_UINT32

KEY = new_pair(1).public
OTHER_KEY = new_pair(2).public
MAC = bytes(range(8))
SIGNATURE = bytes(range(64))
UINT32 = st.integers(0, MAX_UINT32)
COUNTERS = st.integers(0, MAX_COUNTER)
PREKEY_IDS = st.integers(1, MAX_PREKEY_ID)
KEYS = st.binary(min_size=32, max_size=32)
CIPHERTEXTS = st.integers(1, 20).flatmap(lambda blocks: st.binary(min_size=16 * blocks, max_size=16 * blocks))

SIGNAL = messages.encode_signal_body(KEY, 3, 1, bytes(32)) + MAC
PREKEY = messages.encode_prekey_message(77, 5, 6, KEY, OTHER_KEY, SIGNAL)
GROUP = messages.encode_sender_key_body(300, 4, bytes(16)) + SIGNATURE
DISTRIBUTION = messages.encode_distribution(300, 4, bytes(32), KEY)

PARSERS: dict[str, tuple[Callable[[bytes], object], bytes]] = {
    "msg": (messages.parse_signal_message, SIGNAL),
    "pkmsg": (messages.parse_prekey_message, PREKEY),
    "skmsg": (messages.parse_sender_key_message, GROUP),
    "skdm": (messages.parse_distribution, DISTRIBUTION),
}
EVERY_PARSER = pytest.mark.parametrize(("parse", "valid"), PARSERS.values(), ids=PARSERS)


def is_refused(parse: Callable[[bytes], object], data: bytes) -> bool:
    """Whether the parser refuses the data; it may raise nothing but SignalError(malformed)."""
    try:
        parse(data)
    except SignalError as error:
        if error.code == "malformed":
            return True
        raise
    return False


def tagged(number: int, wire_type: int, content: bytes) -> bytes:
    return messages.varint(number << 3 | wire_type) + content


def length_field(number: int, content: bytes) -> bytes:
    return tagged(number, 2, messages.varint(len(content)) + content)


@given(KEYS, COUNTERS, UINT32, CIPHERTEXTS)
def test_signal_messages_round_trip(key: bytes, counter: int, previous: int, ciphertext: bytes) -> None:
    body = messages.encode_signal_body(key, counter, previous, ciphertext)
    parsed = messages.parse_signal_message(body + MAC)
    assert parsed == messages.SignalMessage(key, counter, previous, ciphertext, body, MAC)


@given(UINT32, st.none() | PREKEY_IDS, PREKEY_IDS, KEYS, KEYS)
def test_prekey_messages_round_trip(
    registration: int, prekey: int | None, signed_prekey: int, base: bytes, identity: bytes
) -> None:
    data = messages.encode_prekey_message(registration, prekey, signed_prekey, base, identity, SIGNAL)
    inner = messages.parse_signal_message(SIGNAL)
    expected = messages.PreKeyMessage(registration, prekey, signed_prekey, base, identity, inner)
    assert messages.parse_prekey_message(data) == expected


@given(UINT32, COUNTERS, CIPHERTEXTS)
def test_group_messages_round_trip(key_id: int, iteration: int, ciphertext: bytes) -> None:
    body = messages.encode_sender_key_body(key_id, iteration, ciphertext)
    parsed = messages.parse_sender_key_message(body + SIGNATURE)
    assert parsed == messages.SenderKeyMessage(key_id, iteration, ciphertext, body, SIGNATURE)


@given(UINT32, COUNTERS, KEYS, KEYS)
def test_distributions_round_trip(key_id: int, iteration: int, chain_key: bytes, key: bytes) -> None:
    data = messages.encode_distribution(key_id, iteration, chain_key, key)
    assert messages.parse_distribution(data) == messages.SenderKeyDistribution(
        key_id, iteration, chain_key, key
    )


def test_zeros_are_written() -> None:
    body = messages.encode_signal_body(KEY, 0, 0, bytes(16))
    assert body[36:40] == bytes.fromhex("10001800")
    assert messages.encode_sender_key_body(0, 0, bytes(16))[:5] == bytes.fromhex("3308001000")
    assert messages.encode_distribution(0, 0, bytes(32), KEY)[:5] == bytes.fromhex("3308001000")
    assert messages.encode_prekey_message(0, None, 1, KEY, KEY, SIGNAL)[-4:] == bytes.fromhex("28003001")


@given(st.integers(0, 2**64 - 1))
def test_varints_are_minimal(value: int) -> None:
    data = messages.varint(value)
    assert len(data) == max(1, -(-value.bit_length() // 7))
    assert sum((byte & 0x7F) << 7 * index for index, byte in enumerate(data)) == value
    assert all(byte & 0x80 for byte in data[:-1])
    assert not data[-1] & 0x80


@EVERY_PARSER
@given(data=st.binary(max_size=300))
@settings(max_examples=200)
def test_any_bytes_are_parsed_or_malformed(
    parse: Callable[[bytes], object], valid: bytes, data: bytes
) -> None:
    is_refused(parse, data)
    is_refused(parse, b"\x33" + data)


@EVERY_PARSER
@given(data=st.data())
@settings(max_examples=300)
def test_mutated_messages_are_parsed_or_malformed(
    parse: Callable[[bytes], object], valid: bytes, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, len(valid)))
    end = data.draw(st.integers(start, min(len(valid), start + 8)))
    is_refused(parse, valid[:start] + data.draw(st.binary(max_size=12)) + valid[end:])


@EVERY_PARSER
def test_the_version_byte_is_exactly_0x33(parse: Callable[[bytes], object], valid: bytes) -> None:
    assert not is_refused(parse, valid)
    for version in set(range(256)) - {0x33}:
        assert is_refused(parse, bytes([version]) + valid[1:])


@EVERY_PARSER
def test_every_cut_is_refused(parse: Callable[[bytes], object], valid: bytes) -> None:
    for length in range(len(valid)):
        if parse is messages.parse_prekey_message and length >= len(valid) - 4:
            continue  # registration id and signed prekey id stand last; the next test has them
        assert is_refused(parse, valid[:length]), length


def test_a_prekey_message_needs_its_signed_prekey_id_only() -> None:
    assert is_refused(messages.parse_prekey_message, PREKEY[:-1])
    assert is_refused(messages.parse_prekey_message, PREKEY[:-2])
    assert PREKEY[-4:] == b"\x28\x4d\x30\x06"
    assert messages.parse_prekey_message(PREKEY[:-4] + PREKEY[-2:]).registration_id == 0


def test_missing_fields() -> None:
    key, ciphertext = length_field(1, b"\x05" + KEY), length_field(4, bytes(16))
    counter = tagged(2, 0, b"\x07")
    parsed = messages.parse_signal_message(b"\x33" + key + counter + ciphertext + MAC)
    assert (parsed.counter, parsed.previous_counter) == (7, 0)
    for fields in (key + counter, key + ciphertext, counter + ciphertext, b""):
        assert is_refused(messages.parse_signal_message, b"\x33" + fields + MAC)


def test_fields_of_the_wrong_wire_type() -> None:
    key, counter, ciphertext = (
        length_field(1, b"\x05" + KEY),
        tagged(2, 0, b"\x07"),
        length_field(4, bytes(16)),
    )
    for fields in (
        tagged(1, 0, b"\x05") + counter + ciphertext,
        key + length_field(2, b"\x07") + ciphertext,
        key + tagged(2, 5, bytes(4)) + ciphertext,
        key + counter + tagged(4, 1, bytes(8)),
        key + counter + ciphertext + tagged(5, 3, b"") + tagged(5, 4, b""),
        key + counter + ciphertext + tagged(5, 7, b""),
    ):
        assert is_refused(messages.parse_signal_message, b"\x33" + fields + MAC)


def test_repeated_and_numberless_fields_are_refused_and_unknown_ones_ignored() -> None:
    body = SIGNAL[:-8]
    unknown = (
        tagged(9, 0, b"\x01") + tagged(10, 1, bytes(8)) + tagged(11, 5, bytes(4)) + length_field(12, b"x")
    )
    parsed = messages.parse_signal_message(body + unknown + MAC)
    assert parsed.counter == 3
    assert parsed.body == body + unknown
    assert is_refused(messages.parse_signal_message, body + tagged(2, 0, b"\x03") + MAC)
    assert is_refused(messages.parse_signal_message, body + tagged(0, 0, b"\x03") + MAC)
    many = b"".join(tagged(number, 0, b"\x01") for number in range(20, 40))
    assert is_refused(messages.parse_signal_message, body + many + MAC)


@pytest.mark.parametrize(
    "number", ["ffffffff10", "ffffffffffffffffff01", "ffffffffffffffffffff01", "80808080808080808000", "ff"]
)
def test_numbers_beyond_32_bits_are_refused(number: str) -> None:
    fields = length_field(1, b"\x05" + KEY) + tagged(2, 0, bytes.fromhex(number))
    data = b"\x33" + fields + length_field(4, bytes(16)) + MAC
    assert is_refused(messages.parse_signal_message, data) is (number != "80808080808080808000")


def test_the_last_counter_leaves_room_for_its_successor() -> None:
    assert not is_refused(
        messages.parse_signal_message, messages.encode_signal_body(KEY, MAX_COUNTER, 0, bytes(16)) + MAC
    )
    assert is_refused(
        messages.parse_signal_message, messages.encode_signal_body(KEY, MAX_COUNTER + 1, 0, bytes(16)) + MAC
    )


@pytest.mark.parametrize("size", [0, 1, 15, 17, 31])
def test_ciphertexts_are_whole_blocks(size: int) -> None:
    assert is_refused(
        messages.parse_signal_message, messages.encode_signal_body(KEY, 0, 0, bytes(size)) + MAC
    )
    assert is_refused(
        messages.parse_sender_key_message, messages.encode_sender_key_body(1, 0, bytes(size)) + SIGNATURE
    )


@pytest.mark.parametrize("key", [b"", KEY, b"\x06" + KEY, b"\x05" + KEY + b"\0", b"\x05" + KEY[:-1]])
def test_keys_have_33_bytes_and_type_5(key: bytes) -> None:
    good = length_field(1, b"\x05" + KEY)
    assert SIGNAL.count(good) == 1
    assert is_refused(messages.parse_signal_message, SIGNAL.replace(good, length_field(1, key)))
    for number, value in ((2, KEY), (3, OTHER_KEY)):
        outer = length_field(number, b"\x05" + value)
        assert PREKEY.count(outer) == 1
        assert is_refused(messages.parse_prekey_message, PREKEY.replace(outer, length_field(number, key)))


@pytest.mark.parametrize(("prekey", "signed_prekey"), [(1 << 24, 1), (1, 1 << 24)])
def test_prekey_ids_have_three_bytes(prekey: int, signed_prekey: int) -> None:
    data = messages.encode_prekey_message(1, prekey, signed_prekey, KEY, KEY, SIGNAL)
    assert is_refused(messages.parse_prekey_message, data)


def test_prekey_id_zero_means_none() -> None:
    data = messages.encode_prekey_message(1, 0, 1, KEY, KEY, SIGNAL)
    assert messages.parse_prekey_message(data).prekey_id is None


def test_post_quantum_fields_are_ignored() -> None:
    data = PREKEY + tagged(7, 0, b"\x01") + length_field(8, bytes(1000))
    assert messages.parse_prekey_message(data) == messages.parse_prekey_message(PREKEY)


def test_a_bad_inner_message_makes_the_outer_malformed() -> None:
    for inner in (b"", SIGNAL[:-9], b"\x23" + SIGNAL[1:]):
        data = messages.encode_prekey_message(1, 1, 1, KEY, KEY, inner)
        assert is_refused(messages.parse_prekey_message, data)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_chain_keys_have_32_bytes(length: int) -> None:
    good = length_field(3, bytes(32))
    assert DISTRIBUTION.count(good) == 1
    data = DISTRIBUTION.replace(good, length_field(3, bytes(length)))
    assert is_refused(messages.parse_distribution, data)


@EVERY_PARSER
def test_too_large_messages_are_not_looked_at(parse: Callable[[bytes], object], valid: bytes) -> None:
    assert is_refused(parse, valid + bytes(MAX_MESSAGE_SIZE + 1 - len(valid)))
