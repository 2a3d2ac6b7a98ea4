from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.e2ee.parties import DAY, NOW, acquainted, new_pair
from waD.e2ee import record as records
from waD.e2ee import skipped
from waD.e2ee.errors import SignalError
from waD.e2ee.limits import MAX_ARCHIVED_SESSIONS, MAX_COUNTER, MAX_RECORD_SIZE, MAX_SKIPPED_KEYS, MAX_UINT32
from waD.e2ee.record import PendingPreKey, ReceiverChain, SenderChain, SessionRecord, SessionState

KEYS = st.binary(min_size=32, max_size=32)
UINT32 = st.integers(0, MAX_UINT32)
TIMES = st.integers(0, 2**53)


def packed(width: int, parity: int) -> st.SearchStrategy[bytes]:
    entries = st.lists(
        st.tuples(
            st.integers(0, 499).map(lambda half: 2 * half + parity),  # no counter has two keys
            TIMES,
            st.binary(min_size=width - skipped.HEAD, max_size=width - skipped.HEAD),
        ),
        max_size=4,
    )
    return entries.map(skipped.pack)


CHAINS = st.builds(
    ReceiverChain,
    KEYS,
    st.integers(1000, MAX_COUNTER + 1),
    st.none() | KEYS,
    packed(skipped.SEED_ENTRY, 0),
    packed(skipped.TRIPLE_ENTRY, 1),
)
STATES = st.builds(
    SessionState,
    KEYS,
    KEYS,
    UINT32,
    UINT32,
    KEYS,
    UINT32,
    st.builds(SenderChain, KEYS, KEYS, UINT32, KEYS),
    st.lists(CHAINS, max_size=6).map(tuple),
    st.none()
    | st.builds(PendingPreKey, st.none() | st.integers(1, 2**24 - 1), st.integers(0, 2**24 - 1), KEYS),
    KEYS,
    st.none() | st.booleans(),
    TIMES,
    TIMES,
    st.none() | TIMES,
    st.booleans(),
)
RECORDS = st.builds(SessionRecord, st.none() | STATES, st.lists(STATES, max_size=4).map(tuple), TIMES)


def chain_with(first: int, count: int, seed: int = 1, key: bytes | None = bytes(32)) -> ReceiverChain:
    """A chain whose skipped counters are first … first + count − 1."""
    seeds = skipped.append(b"", first, [bytes([seed]) * 32] * count, NOW)
    return ReceiverChain(new_pair(seed).public, first + count + 1, key, seeds)


def counters(chain: ReceiverChain) -> list[int]:
    return [counter for counter, _, _ in skipped.unpack(chain.seeds, skipped.SEED_ENTRY)]


def earlier(record: SessionRecord) -> bytes:
    """The form in which earlier versions stored a record."""
    return b"\x01" + msgspec.msgpack.encode(record)


def dated(record: SessionRecord) -> SessionRecord:
    """The same record with the time that its skipped keys tell."""
    chains = [chain for state in record.states() for chain in state.receivers]
    times = {time for chain in chains for _, time, _ in skipped.unpack(chain.seeds, skipped.SEED_ENTRY)}
    times |= {time for chain in chains for _, time, _ in skipped.unpack(chain.triples, skipped.TRIPLE_ENTRY)}
    return replace(record, oldest_skipped_ms=min(times - {0}, default=0))


@given(RECORDS)
@settings(max_examples=60)
def test_every_field_survives_storage(record: SessionRecord) -> None:
    data = record.serialize()
    assert SessionRecord.parse(data) == dated(record)
    assert SessionRecord.parse(data).serialize() == data


@given(RECORDS)
@settings(max_examples=60)
def test_the_stored_form_is_canonical_json(record: SessionRecord) -> None:
    text = record.serialize().decode("ascii")
    assert json.dumps(json.loads(text), sort_keys=True, separators=(",", ":")) == text


@given(RECORDS)
@settings(max_examples=60)
def test_the_earlier_form_is_read(record: SessionRecord) -> None:
    assert SessionRecord.parse(earlier(record)) == record
    assert SessionRecord.parse(SessionRecord.parse(earlier(record)).serialize()) == dated(record)


@given(st.binary(max_size=200))
@settings(max_examples=200)
def test_any_bytes_are_a_record_or_malformed(data: bytes) -> None:
    for candidate in (data, b"\x01" + data, b'{"cur":null,"prev":[],"v":1' + data):
        try:
            SessionRecord.parse(candidate)
        except SignalError as error:
            if error.code != "malformed":
                raise


@given(RECORDS, st.data())
@settings(max_examples=60)
def test_mutated_records_are_read_or_malformed(record: SessionRecord, data: st.DataObject) -> None:
    stored = bytearray(data.draw(st.sampled_from([record.serialize(), earlier(record)])))
    for _ in range(data.draw(st.integers(1, 3))):
        stored[data.draw(st.integers(0, len(stored) - 1))] = data.draw(st.integers(0, 255))
    try:
        SessionRecord.parse(bytes(stored))
    except SignalError as error:
        assert error.code == "malformed"  # noqa: PT017
        assert error.__cause__ is None  # noqa: PT017


@pytest.mark.parametrize(
    "data", [b"", b"\x01", b"\x00\x93", b"\x02\x93\xc0\x90\x00", b"\x01\x93\xc0\x90\x00\x00"]
)
def test_other_formats_are_refused(data: bytes) -> None:
    with pytest.raises(SignalError, match="malformed"):
        SessionRecord.parse(data)
    assert SessionRecord.parse(b"\x01\x93\xc0\x90\x00") == SessionRecord(None)


def test_a_stored_record_of_version_1_stays_readable() -> None:
    """A dump made when the format was fixed; a later version must still read it."""
    key = [bytes([number]) * 32 for number in range(8)]
    state = [key[0], key[1], 11, 12, key[2], 3, [key[3], key[4], 5, key[5]], [[key[6], 9, None, b"", b""]]]
    state += [[None, 7, key[7]], key[7], True, 1000, 2000, 3000, False]
    dump = b"\x01" + msgspec.msgpack.encode([state, [], 0])
    current = SessionRecord.parse(dump).current
    assert current is not None
    assert (current.local_registration_id, current.remote_registration_id) == (11, 12)
    assert current.sender == SenderChain(key[3], key[4], 5, key[5])
    assert current.receivers == (ReceiverChain(key[6], 9, None),)
    assert current.pending == PendingPreKey(None, 7, key[7])
    assert (current.created_ms, current.used_ms, current.closed_ms) == (1000, 2000, 3000)


def test_key_lengths_and_ranges_are_checked_when_read() -> None:
    alice, _ = acquainted()
    state = alice.existing("bob").current
    assert state is not None
    bad = [
        replace(state, root_key=bytes(31)),
        replace(state, remote_identity=bytes(33)),
        replace(state, previous_counter=MAX_UINT32 + 1),
        replace(state, remote_registration_id=-1),
        replace(state, pending=PendingPreKey(0, 1, bytes(32))),
        replace(state, used_ms=-1),
        replace(state, sender=replace(state.sender, private=b"")),
        replace(state, receivers=tuple(chain_with(0, 0, seed) for seed in range(41))),
        replace(state, receivers=(replace(chain_with(0, 3), next=2),)),
        replace(state, receivers=(chain_with(0, 1500, 1), chain_with(0, 501, 2))),
    ]
    for broken in bad:
        with pytest.raises(SignalError, match="malformed"):
            SessionRecord.parse(SessionRecord(broken).serialize())
    with pytest.raises(SignalError, match="malformed"):
        SessionRecord.parse(SessionRecord(None, (state,) * (MAX_ARCHIVED_SESSIONS + 1)).serialize())
    bad.append(replace(state, receivers=(replace(chain_with(0, 3), seeds=bytes(43)),)))
    for broken in bad:
        with pytest.raises(SignalError, match="malformed"):
            SessionRecord.parse(earlier(SessionRecord(broken)))


def spoilt(change: Callable[[dict[str, Any]], object]) -> bytes:
    """A stored record with three skipped seeds, changed."""
    alice, _ = acquainted()
    state = alice.existing("bob").current
    assert state is not None
    fields = json.loads(SessionRecord(replace(state, receivers=(chain_with(0, 3),))).serialize())
    change(fields["cur"])
    return json.dumps(fields).encode()


SPOILS: dict[str, Callable[[dict[str, Any]], object]] = {
    "a public key of 32 bytes": lambda state: state.update(lid=state["rk"]),
    "an unknown type of key": lambda state: state.update(lid=base64.b64encode(bytes(33)).decode()),
    "no stale": lambda state: state.pop("stale"),
    "an unknown field": lambda state: state.update(more=1),
    "a number as text": lambda state: state.update(lreg="1"),
    "a broken number": lambda state: state.update(pc=1.5),
    "a truth as number": lambda state: state.update(own=1),
    "no padding": lambda state: state.update(rk=state["rk"].rstrip("=")),
    "ages of nothing": lambda state: state["rc"][0].update(mk=[]),
    "too few ages": lambda state: state["rc"][0]["mt"][0].__setitem__(1, 2),
    "an age of no keys": lambda state: state["rc"][0]["mt"].append([1, 0]),
    "a repeated counter": lambda state: state["rc"][0]["mk"][1].__setitem__(0, 0),
    "counters out of order": lambda state: state["rc"][0]["mk"].reverse(),
    "a counter ahead": lambda state: state["rc"][0].update(i=2),
    "a key without its counter": lambda state: state["rc"][0]["mk"][0].pop(0),
    "half a triple": lambda state: state["rc"][0]["mk"][0].append(state["rk"]),
    "a fourth part": lambda state: state["rc"][0]["mk"][0].extend([state["rk"], "A" * 22 + "==", 1]),
}


@pytest.mark.parametrize("change", SPOILS.values(), ids=SPOILS)
def test_a_document_that_is_not_exactly_one_is_malformed(change: Callable[[dict[str, Any]], object]) -> None:
    SessionRecord.parse(spoilt(lambda _: None))
    with pytest.raises(SignalError, match="malformed"):
        SessionRecord.parse(spoilt(change))


def test_another_version_is_malformed() -> None:
    for text in (
        b'{"cur":null,"prev":[]}',
        b'{"cur":null,"prev":[],"v":2}',
        b'{"cur":null,"prev":[],"v":true}',
        b"[" * 100_000,
        b"null",
    ):
        with pytest.raises(SignalError, match="malformed"):
            SessionRecord.parse(text)
    assert SessionRecord.parse(b'{"cur":null,"prev":[],"v":1}') == SessionRecord(None)


def test_too_large_records_are_not_looked_at() -> None:
    with pytest.raises(SignalError, match="malformed"):
        SessionRecord.parse(b"\x01" + bytes(MAX_RECORD_SIZE))
    with pytest.raises(SignalError, match="malformed"):
        SessionRecord.parse(b" " * MAX_RECORD_SIZE + b'{"cur":null,"prev":[],"v":1}')


def test_the_largest_record_fits() -> None:
    alice, _ = acquainted()
    state = alice.existing("bob").current
    assert state is not None
    full = replace(state, receivers=(chain_with(0, MAX_SKIPPED_KEYS),))
    record = SessionRecord(full, (full,) * MAX_ARCHIVED_SESSIONS)
    assert len(record.serialize()) < MAX_RECORD_SIZE
    assert SessionRecord.parse(record.serialize()) == dated(record)


def test_old_chains_are_closed_and_live_for_their_keys_only() -> None:
    chains = tuple(chain_with(0, 2 if number in (0, 2) else 0, number) for number in range(8))
    kept = records.trim_chains(chains)
    assert [chain.ratchet for chain in kept] == [chains[number].ratchet for number in (0, 2, 3, 4, 5, 6, 7)]
    assert [chain.key is None for chain in kept] == [True, True, False, False, False, False, False]
    assert kept[2:] == chains[3:]
    assert records.trim_chains(kept) == kept
    assert records.trim_chains(chains[:5]) is not None
    assert records.trim_chains(chains[:5]) == chains[:5]


def test_never_more_than_40_chains() -> None:
    chains = tuple(chain_with(0, 1, number) for number in range(60))
    kept = records.trim_chains(chains)
    assert [chain.ratchet for chain in kept] == [chain.ratchet for chain in chains[-40:]]


def test_the_oldest_skipped_keys_are_dropped_first() -> None:
    chains = (chain_with(0, 900, 1, None), chain_with(10, 900, 2), chain_with(5, 900, 3))
    kept = records.trim_chains(chains)
    assert [counters(chain) for chain in kept] == [
        list(range(700, 900)),
        list(range(10, 910)),
        list(range(5, 905)),
    ]
    emptied = records.trim_chains((chain_with(0, 900, 1, None), chain_with(0, 2000, 2)))
    assert [chain.skipped_count for chain in emptied] == [2000]
    open_chain = records.trim_chains((chain_with(0, 900, 1), chain_with(0, 2000, 2)))
    assert [chain.skipped_count for chain in open_chain] == [0, 2000]


def test_triples_are_dropped_before_seeds_of_the_same_chain() -> None:
    triples = skipped.append(b"", 0, [bytes(80)] * 1000, NOW)
    chain = replace(chain_with(1000, 1500), triples=triples)
    (kept,) = records.trim_chains((chain,))
    assert kept.skipped_count == MAX_SKIPPED_KEYS
    assert len(kept.triples) // skipped.TRIPLE_ENTRY == 500
    assert kept.seeds == chain.seeds


def test_skipped_keys_expire_after_30_days() -> None:
    alice, bob = acquainted()
    lost = alice.send(bob, b"lost")
    assert bob.receive(alice, alice.send(bob, b"one")) == b"one"
    bob.now += 20 * DAY
    late = alice.send(bob, b"late")
    assert bob.receive(alice, alice.send(bob, b"two")) == b"two"
    record = bob.existing("alice")
    assert record.oldest_skipped_ms == NOW
    assert records.expire_skipped(record, NOW + 30 * DAY) is record
    expired = records.expire_skipped(record, NOW + 30 * DAY + 1)
    assert expired.current is not None
    assert [counters(chain) for chain in expired.current.receivers][-1] == [2]
    assert expired.oldest_skipped_ms == NOW + 20 * DAY
    bob.now += 11 * DAY
    assert bob.receive(alice, alice.send(bob, b"three")) == b"three"
    assert bob.refuse(alice, lost).code == "duplicate"
    assert bob.receive(alice, late) == b"late"


def test_expiry_reaches_archived_sessions_and_drops_empty_closed_chains() -> None:
    alice, _ = acquainted()
    state = alice.existing("bob").current
    assert state is not None
    old = replace(state, receivers=(chain_with(0, 3, 1, None), chain_with(0, 3, 2)))
    record = SessionRecord(None, (old, old), NOW)
    expired = records.expire_skipped(record, NOW + 31 * DAY)
    assert expired.current is None
    assert expired.oldest_skipped_ms == 0
    for archived in expired.archived:
        assert [(chain.key is None, chain.skipped_count) for chain in archived.receivers] == [(False, 0)]


def test_usable_session() -> None:
    alice, _ = acquainted()
    record = alice.existing("bob")
    assert record.current is not None
    assert record.has_usable_session
    assert not SessionRecord(None, (record.current,)).has_usable_session
    assert not SessionRecord(replace(record.current, stale=True)).has_usable_session
