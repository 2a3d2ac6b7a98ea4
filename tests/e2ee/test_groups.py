from __future__ import annotations

import base64
import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.e2ee.parties import DAY, NOW, flip, new_pair, seeded
from waD.e2ee import curve, groups, messages, ratchet, skipped
from waD.e2ee.errors import SignalError
from waD.e2ee.groups import SenderKeyRecord, SenderKeyState
from waD.e2ee.limits import (
    MAX_COUNTER,
    MAX_FORWARD_JUMP,
    MAX_RECORD_SIZE,
    MAX_SENDER_KEY_STATES,
    MAX_SKIPPED_KEYS,
    MAX_UINT32,
)

RANDOM = seeded(1)


def own(seed: int = 1) -> SenderKeyRecord:
    return groups.create(seeded(seed))


def member_of(record: SenderKeyRecord) -> SenderKeyRecord:
    return groups.process_distribution(None, groups.distribution(record))


def sent(record: SenderKeyRecord, count: int) -> tuple[SenderKeyRecord, list[bytes]]:
    """The next `count` messages; each says its number. All carry the signature of a cheap nonce."""
    letters = []
    for number in range(count):
        record, data = groups.encrypt(record, b"%d" % number, lambda size: bytes(size))
        letters.append(data)
    return record, letters


def code_of(record: SenderKeyRecord | None, data: bytes, now_ms: int = NOW) -> str:
    with pytest.raises(SignalError) as caught:
        groups.decrypt(record, data, now_ms)
    return caught.value.code


def advanced(record: SenderKeyRecord, steps: int) -> SenderKeyRecord:
    """The sender after `steps` messages that nobody saw."""
    (state,) = record.states
    _, chain_key = ratchet.advance(state.chain_key, steps)
    return SenderKeyRecord((replace(state, iteration=state.iteration + steps, chain_key=chain_key),))


def test_a_new_key() -> None:
    record = own()
    (state,) = record.states
    assert state.iteration == 0
    assert state.key_id < 1 << 31
    assert state.private is not None
    assert curve.KeyPair.from_private(state.private).public == state.public
    assert groups.create(lambda size: b"\xff" * size).states[0].key_id == (1 << 31) - 1
    assert own(1) != own(2)


def test_a_distribution_is_taken_before_the_message_it_is_for() -> None:
    record = own()
    record, _ = sent(record, 3)
    late = member_of(record)
    record, data = groups.encrypt(record, b"the fourth", RANDOM)
    assert groups.decrypt(late, data)[1] == b"the fourth"
    assert messages.parse_distribution(groups.distribution(record)).iteration == 4


def test_a_sender_advances_by_one() -> None:
    _, letters = sent(own(), 4)
    assert [messages.parse_sender_key_message(data).iteration for data in letters] == [0, 1, 2, 3]


def test_members_cannot_send() -> None:
    member = member_of(own())
    for action in (
        lambda: groups.distribution(member),
        lambda: groups.encrypt(member, b"", RANDOM),
        lambda: groups.encrypt(SenderKeyRecord(()), b"", RANDOM),
    ):
        with pytest.raises(SignalError, match="no_sender_key_state"):
            action()


@given(st.permutations(range(8)))
def test_any_order_and_each_once(order: list[int]) -> None:
    record, letters = sent(own(), 8)
    member = member_of(own())
    for number in order:
        member, plaintext = groups.decrypt(member, letters[number], NOW)
        member = SenderKeyRecord.parse(member.serialize())
        assert plaintext == b"%d" % number
        assert code_of(member, letters[number]) == "duplicate"
    assert member.states[0].seeds == b""
    assert member.states[0].iteration == record.states[0].iteration


def test_the_signature_is_checked_before_anything_else() -> None:
    _, letters = sent(own(), 1)
    member = member_of(own())
    for position in range(len(letters[0])):
        assert code_of(member, flip(letters[0], position)) in {
            "invalid_signature",
            "malformed",
            "no_sender_key_state",
        }
    other_signer = replace(member.states[0], public=new_pair(9).public)
    assert code_of(SenderKeyRecord((other_signer,)), letters[0]) == "invalid_signature"
    far = messages.encode_sender_key_body(member.states[0].key_id, 100_000, bytes(16)) + bytes(64)
    assert code_of(member, far) == "invalid_signature"


def test_errors_name_key_and_iteration() -> None:
    _, letters = sent(own(), 1)
    with pytest.raises(SignalError) as caught:
        groups.decrypt(None, letters[0])
    assert caught.value.code == "no_sender_key_state"
    assert (caught.value.key_id, caught.value.counter) == (own().states[0].key_id, 0)
    assert code_of(member_of(own(2)), letters[0]) == "no_sender_key_state"


def test_forward_jumps() -> None:
    member = member_of(own())
    _, (far,) = sent(advanced(own(), MAX_FORWARD_JUMP + 1), 1)
    assert code_of(member, far) == "too_far"
    _, (edge,) = sent(advanced(own(), MAX_FORWARD_JUMP), 1)
    after, plaintext = groups.decrypt(member, edge, NOW)
    assert plaintext == b"0"
    assert len(after.states[0].seeds) == MAX_FORWARD_JUMP * skipped.SEED_ENTRY


def test_a_sender_that_leaves_out_every_second_iteration() -> None:
    """Skipped keys collect for ever; the oldest go silently."""
    sender, member = own(), member_of(own())
    (state,) = member.states
    full = skipped.append(b"", 0, [bytes(32)] * MAX_SKIPPED_KEYS, NOW)
    sender = advanced(sender, MAX_SKIPPED_KEYS)
    _, key = ratchet.advance(state.chain_key, MAX_SKIPPED_KEYS)
    member = SenderKeyRecord((replace(state, iteration=MAX_SKIPPED_KEYS, chain_key=key, seeds=full),))
    for _ in range(3):
        sender = advanced(sender, 1)
        sender, (data,) = sent(sender, 1)
        member, _ = groups.decrypt(member, data, NOW)
    counters = [counter for counter, _, _ in skipped.unpack(member.states[0].seeds, skipped.SEED_ENTRY)]
    assert len(counters) == MAX_SKIPPED_KEYS
    assert (counters[0], counters[-1]) == (3, MAX_SKIPPED_KEYS + 4)


def test_skipped_keys_expire_when_the_chain_moves() -> None:
    _, letters = sent(own(), 5)
    member, _ = groups.decrypt(member_of(own()), letters[1], NOW)
    member, _ = groups.decrypt(member, letters[3], NOW + 29 * DAY)
    assert groups.decrypt(member, letters[0], NOW + 29 * DAY)[1] == b"0"
    member, _ = groups.decrypt(member, letters[4], NOW + 31 * DAY)
    assert code_of(member, letters[0]) == "duplicate"
    assert groups.decrypt(member, letters[2], NOW + 31 * DAY)[1] == b"2"


def test_an_exhausted_key_does_not_wrap() -> None:
    (state,) = own().states
    record = SenderKeyRecord((replace(state, iteration=MAX_COUNTER),))
    record, _ = groups.encrypt(record, b"last", RANDOM)
    assert SenderKeyRecord.parse(record.serialize()) == record
    with pytest.raises(SignalError, match="exhausted"):
        groups.encrypt(record, b"", RANDOM)


# Distributions.


def test_the_same_key_again_changes_nothing() -> None:
    sender, letters = sent(own(), 3)
    member, _ = groups.decrypt(member_of(own()), letters[2], NOW)
    for data in (groups.distribution(own()), groups.distribution(sender)):
        assert groups.process_distribution(member, data) is member
    assert groups.decrypt(member, letters[0])[1] == b"0"


def test_an_older_key_comes_back_to_the_front_with_its_position() -> None:
    member = groups.process_distribution(member_of(own(1)), groups.distribution(own(2)))
    older = member.states[1]
    again = groups.process_distribution(member, groups.distribution(own(1)))
    assert again.states == (older, member.states[0])


def test_five_keys_are_kept() -> None:
    record: SenderKeyRecord | None = None
    for seed in range(MAX_SENDER_KEY_STATES + 2):
        record = groups.process_distribution(record, groups.distribution(own(seed)))
    assert record is not None
    assert [state.key_id for state in record.states] == [
        own(seed).states[0].key_id for seed in (6, 5, 4, 3, 2)
    ]


def test_another_signing_key_under_a_known_id_replaces_and_is_told() -> None:
    before = groups.process_distribution(member_of(own(1)), groups.distribution(own(2)))
    key_id = own(1).states[0].key_id
    data = messages.encode_distribution(key_id, 5, bytes(32), new_pair(9).public)
    after = groups.process_distribution(before, data)
    assert after.states == (
        SenderKeyState(key_id, 5, bytes(32), new_pair(9).public, None),
        before.states[0],
    )
    assert groups.replaced_key(before, after) == key_id
    assert groups.replaced_key(None, after) is None
    assert groups.replaced_key(before, before) is None
    assert (
        groups.replaced_key(before, groups.process_distribution(before, groups.distribution(own(3)))) is None
    )


def test_malformed_distributions_change_nothing() -> None:
    data = groups.distribution(own())
    for broken in (b"", data[:-1], b"\x23" + data[1:], data + b"\x00"):
        with pytest.raises(SignalError, match="malformed"):
            groups.process_distribution(None, broken)


# Records.

KEYS = st.binary(min_size=32, max_size=32)
SEEDS = st.lists(st.tuples(st.integers(0, 99), st.integers(0, 2**40), KEYS), max_size=4).map(skipped.pack)
STATES = st.builds(
    SenderKeyState,
    st.integers(0, MAX_UINT32),
    st.integers(100, MAX_UINT32),
    KEYS,
    KEYS,
    st.none() | KEYS,
    SEEDS,
)
RECORDS = st.lists(STATES, max_size=5).map(lambda states: SenderKeyRecord(tuple(states)))


@given(RECORDS)
def test_records_survive_storage(record: SenderKeyRecord) -> None:
    data = record.serialize()
    assert SenderKeyRecord.parse(data) == record
    assert json.dumps(json.loads(data), sort_keys=True, separators=(",", ":")).encode() == data
    assert SenderKeyRecord.parse(earlier(record)) == record


def earlier(record: SenderKeyRecord) -> bytes:
    """The form in which earlier versions stored a record."""
    return b"\x01" + msgspec.msgpack.encode(record)


@given(RECORDS, st.data())
@settings(max_examples=100)
def test_mutated_records_are_read_or_malformed(record: SenderKeyRecord, data: st.DataObject) -> None:
    stored = bytearray(record.serialize())
    stored[data.draw(st.integers(0, len(stored) - 1))] = data.draw(st.integers(0, 255))
    for candidate in (
        bytes(stored),
        data.draw(st.binary(max_size=60)),
        b"\x01" + data.draw(st.binary(max_size=60)),
        b'{"states":[],"v":1' + data.draw(st.binary(max_size=20)),
    ):
        try:
            SenderKeyRecord.parse(candidate)
        except SignalError as error:
            assert error.code == "malformed"  # noqa: PT017


def test_records_beyond_their_limits_are_malformed() -> None:
    (state,) = own().states
    one_key = skipped.append(b"", 5, [bytes(32)], NOW)
    bad = [
        SenderKeyRecord((state,) * (MAX_SENDER_KEY_STATES + 1)),
        SenderKeyRecord((replace(state, chain_key=bytes(31)),)),
        SenderKeyRecord((replace(state, private=b""),)),
        SenderKeyRecord((replace(state, key_id=1 << 32),)),
        SenderKeyRecord((replace(state, iteration=5, seeds=one_key),)),
        SenderKeyRecord((replace(state, iteration=9999, seeds=one_key * (MAX_SKIPPED_KEYS + 1)),)),
    ]
    for record in bad:
        with pytest.raises(SignalError, match="malformed"):
            SenderKeyRecord.parse(record.serialize())
    bad.append(SenderKeyRecord((replace(state, iteration=6, seeds=one_key[:-1]),)))
    for record in bad:
        with pytest.raises(SignalError, match="malformed"):
            SenderKeyRecord.parse(earlier(record))
    with pytest.raises(SignalError, match="malformed"):
        SenderKeyRecord.parse(b" " * MAX_RECORD_SIZE + b'{"states":[],"v":1}')
    triple = base64.b64encode(bytes(32)).decode(), base64.b64encode(bytes(16)).decode()
    fields = json.loads(SenderKeyRecord((replace(state, iteration=6, seeds=one_key),)).serialize())
    fields["states"][0]["mk"][0] += triple
    with pytest.raises(SignalError, match="malformed"):
        SenderKeyRecord.parse(json.dumps(fields).encode())
    with pytest.raises(SignalError, match="malformed"):
        SenderKeyRecord.parse(b"\x01" + bytes(MAX_RECORD_SIZE))


def test_merging_keeps_the_further_copy() -> None:
    sender, letters = sent(own(1), 3)
    near = member_of(own(1))
    far, _ = groups.decrypt(near, letters[2], NOW)
    other = member_of(own(2))
    assert groups.merge(near, far) == groups.merge(far, near) == far
    merged = groups.merge(SenderKeyRecord(near.states + other.states), far)
    assert merged == SenderKeyRecord(far.states + other.states)
    assert groups.merge(near, None) is near
    assert groups.merge(None, near) is near
    assert groups.merge(None, None) is None
    many = [member_of(own(seed)).states[0] for seed in range(8)]
    limited = groups.merge(SenderKeyRecord(tuple(many[:5])), SenderKeyRecord(tuple(many[5:])))
    assert limited == SenderKeyRecord(tuple(many[:5]))
    assert sender.states[0].iteration == 3
