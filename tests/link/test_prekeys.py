from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from itertools import islice, pairwise

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.e2ee.parties import seeded
from tests.link.memory_store import MemoryStore
from tests.link.requester import Answer, FakeRequester, refusal, result
from waD.e2ee import curve
from waD.e2ee.curve import KeyPair
from waD.e2ee.limits import MAX_PREKEY_ID
from waD.link import prekeys
from waD.link.causes import cause
from waD.link.credentials import SignedPreKey, new_credentials
from waD.link.errors import Disconnected, RequestError, RequestTimeout
from waD.link.prekeys import (
    DAY_MS,
    HIGH_WATERMARK,
    LOW_WATERMARK,
    ROTATION_JITTER_MS,
    ROTATION_MS,
    OneTimePreKey,
    PreKeyRecordError,
    PreKeys,
    compare_digest,
    draw_prekeys,
    fibonacci_delays,
    next_id,
    upload_node,
)
from waD.link.stanzas import big_endian
from waD.wire.node import Node

CREDENTIALS = new_credentials(seeded(40), now_ms=1_000)
GONE = Disconnected(cause("eof", "gone"))
NOW = 100 * DAY_MS


def pair(number: int) -> KeyPair:
    return KeyPair.generate(seeded(number))


class KeyServer:
    """What the server keeps of our keys (chapter 02 §6.1), and how it misbehaves.

    Attributes:
        faults: answer to give instead, by the number of the upload from 1; after `lost` the upload counts all the same.
    """

    def __init__(
        self, *, count: int = 0, faults: dict[int, Answer] | None = None, lost: bool = False
    ) -> None:
        self.keys: dict[int, bytes] = {-number: b"" for number in range(1, count + 1)}
        self.faults = faults or {}
        self.lost = lost
        self.uploads: list[list[int]] = []
        self.identities: set[bytes] = set()
        self.signed: list[tuple[int, bytes]] = []
        self.digest_answer: Answer | None = None
        self.rotations: list[int] = []
        self.rotation_answer: Answer | None = None
        self.count_answer: Answer | None = None
        self.on_upload: Callable[[list[int]], None] = lambda ids: None

    def __call__(self, request: Node) -> Answer:
        assert request.attrs["xmlns"] == "encrypt"
        if request.text("type") == "set":
            return self.rotate(request) if request.child("rotate") is not None else self.upload(request)
        if request.child("digest") is not None:
            return self.digest_answer or self.digest()
        assert request.child("count") is not None
        return self.count_answer or result(Node("count", {"value": str(len(self.keys))}))

    def upload(self, request: Node) -> Answer:
        listed, identity = request.child("list"), request.child("identity")
        assert listed is not None
        assert identity is not None
        keys = {number_in(key): value_in(key) for key in listed.children("key")}
        assert len(keys) == len(listed.children()) <= HIGH_WATERMARK
        assert all(1 <= number <= MAX_PREKEY_ID for number in keys)
        self.uploads.append(list(keys))
        self.on_upload(list(keys))
        fault = self.faults.get(len(self.uploads))
        if fault is None or self.lost:
            self.keys.update(keys)
            self.identities.add(identity.data)
        return fault or result()

    def digest(self) -> Answer:
        return digest_reply(CREDENTIALS.signed_prekey, list(self.keys.items()))

    def rotate(self, request: Node) -> Answer:
        rotate = request.child("rotate")
        assert rotate is not None
        skey = rotate.child("skey")
        assert skey is not None
        signature = skey.child("signature")
        assert signature is not None
        assert curve.verify(CREDENTIALS.identity.public, curve.serialize_key(value_in(skey)), signature.data)
        self.rotations.append(number_in(skey))
        return self.rotation_answer or result()


def number_in(node: Node) -> int:
    child = node.child("id")
    assert child is not None
    assert len(child.data) == 3
    return int.from_bytes(child.data, "big")


def value_in(node: Node) -> bytes:
    child = node.child("value")
    assert child is not None
    assert len(child.data) == 32
    return child.data


def digest_reply(signed: SignedPreKey, keys: list[tuple[int, bytes]], told: bytes | None = None) -> Node:
    made = prekeys.digest_of(
        CREDENTIALS.identity.public, signed.key.public, signed.signature, [public for _, public in keys]
    )
    listed = Node("list", {}, [Node("id", {}, big_endian(number, 3)) for number, _ in keys])
    return result(Node("digest", {}, [listed, Node("hash", {}, made if told is None else told)]))


def supplier(server: KeyServer, store: MemoryStore) -> tuple[PreKeys, FakeRequester]:
    requester = FakeRequester(server)
    return PreKeys(requester, store, os.urandom), requester


def stored(*keys: OneTimePreKey, uploaded_before: bool = True, next_prekey_id: int = 1) -> MemoryStore:
    store = MemoryStore(CREDENTIALS.change(server_has_prekeys=uploaded_before, next_prekey_id=next_prekey_id))
    store.keys = {key.id: key for key in keys}
    return store


def waiting(*ids: int) -> list[OneTimePreKey]:
    return [OneTimePreKey(number, pair(number)) for number in ids]


# Records.

keys = st.builds(
    OneTimePreKey,
    st.integers(1, MAX_PREKEY_ID),
    st.integers(0, 1000).map(pair),
    st.sampled_from(["new", "uploaded", "direct", "stale"]),
)


@given(keys)
def test_record_round_trip(key: OneTimePreKey) -> None:
    assert OneTimePreKey.parse(key.id, key.serialize()) == key
    assert key.serialize() == key.serialize()
    assert key.key.private.hex() not in repr(key)


@given(st.binary(max_size=80) | st.from_type(dict).map(lambda value: json.dumps(str(value)).encode()))
def test_a_damaged_record_is_named_and_shows_nothing(data: bytes) -> None:
    with pytest.raises(PreKeyRecordError, match="prekey 7"):
        OneTimePreKey.parse(7, data)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("v", 2),
        ("v", "1"),
        ("priv", "00"),
        ("priv", None),
        ("priv", "zz" * 32),
        ("pub", "00" * 31),
        ("pub", 5),
        ("state", "gone"),
        ("state", []),
        ("state", None),
    ],
)
def test_a_record_with_a_wrong_field(field: str, value: object) -> None:
    fields = json.loads(OneTimePreKey(1, pair(1)).serialize())
    for changed in ({**fields, field: value}, {name: fields[name] for name in fields if name != field}):
        with pytest.raises(PreKeyRecordError) as caught:
            OneTimePreKey.parse(1, json.dumps(changed).encode())
        assert fields["priv"] not in str(caught.value)


@pytest.mark.parametrize("data", [b"[]", b"1", b'"x"', b"null", b"[" * 100_000, b"9" * 10_000, b'{"v":NaN}'])
def test_a_record_that_is_no_object(data: bytes) -> None:
    with pytest.raises(PreKeyRecordError):
        OneTimePreKey.parse(1, data)


@pytest.mark.parametrize("number", [0, -1, MAX_PREKEY_ID + 1])
def test_a_record_under_an_impossible_id(number: int) -> None:
    with pytest.raises(PreKeyRecordError, match="wrong id"):
        OneTimePreKey.parse(number, OneTimePreKey(1, pair(1)).serialize())


# Ids.


@pytest.mark.parametrize(
    ("number", "after"), [(1, 2), (MAX_PREKEY_ID - 1, MAX_PREKEY_ID), (MAX_PREKEY_ID, 1)]
)
def test_the_id_after_another(number: int, after: int) -> None:
    assert next_id(number) == after


@settings(max_examples=50)
@given(
    st.integers(1, 12) | st.integers(MAX_PREKEY_ID - 12, MAX_PREKEY_ID),
    st.integers(0, 8),
    st.frozensets(st.integers(1, 15) | st.integers(MAX_PREKEY_ID - 9, MAX_PREKEY_ID), max_size=12),
)
def test_drawn_ids_are_free_distinct_and_in_order(first: int, count: int, taken: frozenset[int]) -> None:
    drawn = [key.id for key in draw_prekeys(first, count, taken, seeded(1))]
    assert len(set(drawn)) == len(drawn) == count
    assert not taken & set(drawn)
    assert all(1 <= number <= MAX_PREKEY_ID for number in drawn)
    distances = [(number - first) % MAX_PREKEY_ID for number in drawn]
    assert distances == sorted(distances)
    skipped = set(range(distances[-1] + 1)) - set(distances) if distances else set()
    assert {(first - 1 + distance) % MAX_PREKEY_ID + 1 for distance in skipped} <= taken


def test_drawing_ends_when_no_id_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prekeys, "MAX_PREKEY_ID", 4)
    assert [key.id for key in draw_prekeys(3, 10, {1}, seeded(1))] == [3, 4, 2]
    assert list(draw_prekeys(3, 10, {1, 2, 3, 4}, seeded(1))) == []


def test_drawn_keys_differ_and_are_whole() -> None:
    drawn = list(draw_prekeys(1, 5, (), os.urandom))
    assert len({key.key.private for key in drawn}) == 5
    assert all(KeyPair.from_private(key.key.private) == key.key for key in drawn)
    assert {key.state for key in drawn} == {"new"}


# Stanzas.


def test_the_upload() -> None:
    lot = waiting(1, 0x010203)
    node = upload_node(CREDENTIALS, lot)
    assert [child.tag for child in node.children()] == ["registration", "type", "identity", "list", "skey"]
    registration, kind, identity, listed, skey = node.children()
    assert registration.data == CREDENTIALS.registration_id.to_bytes(4, "big")
    assert (kind.data, identity.data) == (b"\x05", CREDENTIALS.identity.public)
    assert [(number_in(key), value_in(key)) for key in listed.children("key")] == [
        (key.id, key.key.public) for key in lot
    ]
    assert (number_in(skey), value_in(skey)) == (1, CREDENTIALS.signed_prekey.key.public)
    secret = [key.key.private for key in lot] + [CREDENTIALS.identity.private]
    assert not any(private in child.data for child in walk(node) for private in secret)


def walk(node: Node) -> list[Node]:
    return [node, *(found for child in node.children() for found in walk(child))]


def test_fibonacci() -> None:
    assert list(islice(fibonacci_delays(), 8)) == [1, 2, 3, 5, 8, 13, 21, 34]
    assert list(islice(fibonacci_delays(), 14, 18)) == [610, 610, 610, 610]


@pytest.mark.parametrize(
    ("node", "count"),
    [
        (result(Node("count", {"value": "7"})), 7),
        (result(Node("count")), 0),
        (result(Node("count", {"value": "x"})), 0),
        (result(), 0),
    ],
)
def test_count(node: Node, count: int) -> None:
    assert prekeys.count_of(node) == count


# At login.


async def test_the_first_login_uploads_a_full_lot() -> None:
    server, store = KeyServer(), stored(uploaded_before=False)
    keeper, requester = supplier(server, store)
    await keeper.at_login()
    assert server.uploads == [list(range(1, HIGH_WATERMARK + 1))]
    assert len(requester.sent) == 1
    assert store.writes == ["credentials", "prekeys", "uploaded"]
    assert store.now.server_has_prekeys
    assert store.now.next_prekey_id == HIGH_WATERMARK + 1
    assert {key.state for key in store.keys.values()} == {"uploaded"}
    assert {number: key.key.public for number, key in store.keys.items()} == server.keys


async def test_keys_are_durable_before_the_server_hears_of_them() -> None:
    server, store = KeyServer(), stored(uploaded_before=False)
    server.on_upload = lambda ids: checked.append(
        set(ids) <= store.keys.keys() and store.now.next_prekey_id == max(ids) + 1
    )
    checked: list[bool] = []
    await supplier(server, store)[0].at_login()
    assert checked == [True]


@pytest.mark.parametrize("count", [0, 1, LOW_WATERMARK - 1, LOW_WATERMARK, 6, HIGH_WATERMARK, 2000])
async def test_later_logins_count_first(count: int) -> None:
    server, store = KeyServer(count=count), stored(next_prekey_id=1000)
    await supplier(server, store)[0].at_login()
    if count >= LOW_WATERMARK:
        assert server.uploads == []
        assert store.writes == []
    else:
        assert server.uploads == [list(range(1000, 1000 + HIGH_WATERMARK - count))]
        assert len(server.keys) == HIGH_WATERMARK


@pytest.mark.parametrize("failure", [refusal(503), refusal(400), RequestTimeout("upload", 60), GONE])
async def test_a_login_tries_once(failure: Answer) -> None:
    server, store = KeyServer(faults={1: failure}), stored(uploaded_before=False)
    with pytest.raises((RequestError, RequestTimeout, Disconnected)):
        await supplier(server, store)[0].at_login()
    assert len(server.uploads) == 1
    assert not store.now.server_has_prekeys
    assert {key.state for key in store.keys.values()} == {"new"}


async def test_a_store_that_fails_sends_nothing() -> None:
    server, store = KeyServer(), stored(uploaded_before=False)
    store.failure = OSError("disk full")
    with pytest.raises(OSError, match="disk full"):
        await supplier(server, store)[0].at_login()
    assert server.uploads == []


# Outcomes that nobody knows.


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("failure", [RequestTimeout("upload", 60), GONE])
async def test_after_an_unknown_outcome_the_same_keys_go_again(failure: Answer, lost: bool) -> None:
    """Chapter 02 §6.1: the same window, on the next connection too; no id and no key is made twice."""
    server, store = KeyServer(faults={1: failure}, lost=lost), stored(uploaded_before=False)
    with pytest.raises((RequestTimeout, Disconnected)):
        await supplier(server, store)[0].at_login()
    before = dict(store.keys)
    await supplier(server, store)[0].at_login()
    assert server.uploads[0] == server.uploads[1] == list(range(1, HIGH_WATERMARK + 1))
    assert {number: key.key for number, key in store.keys.items()} == {
        number: key.key for number, key in before.items()
    }
    assert server.keys == {number: key.key.public for number, key in before.items()}
    assert {key.state for key in store.keys.values()} == {"uploaded"}


async def test_a_crash_between_storing_and_uploading() -> None:
    """What was stored and never sent is what goes out after the restart, under the same ids."""
    store = stored(uploaded_before=False)

    class Dying(FakeRequester):
        async def request(self, node: Node, timeout: float | None = None) -> Node:  # noqa: ASYNC109
            scope.cancel()
            await trio.lowlevel.checkpoint()
            raise AssertionError("nothing runs after the end")

    with trio.CancelScope() as scope:
        await PreKeys(Dying([]), store, os.urandom).at_login()
    assert scope.cancelled_caught
    before = dict(store.keys)
    assert {key.state for key in before.values()} == {"new"}
    server = KeyServer()
    await supplier(server, store)[0].at_login()
    assert server.uploads == [list(range(1, HIGH_WATERMARK + 1))]
    assert server.keys == {number: key.key.public for number, key in before.items()}


async def test_a_few_stored_keys_of_an_older_lot_do_not_end_the_first_upload() -> None:
    store = stored(*waiting(1, 2, 3), uploaded_before=False, next_prekey_id=4)
    server = KeyServer()
    await supplier(server, store)[0].at_login()
    assert server.uploads == [[1, 2, 3], list(range(4, HIGH_WATERMARK + 1))]


async def test_a_crash_between_upload_and_marking() -> None:
    server, store = KeyServer(), stored(uploaded_before=False)
    server.on_upload = lambda _: setattr(store, "failure", OSError("power"))
    with pytest.raises(OSError, match="power"):
        await supplier(server, store)[0].at_login()
    store.failure, server.on_upload = None, lambda ids: None
    await supplier(server, store)[0].at_login()
    assert server.uploads[0] == server.uploads[1]
    assert len(server.keys) == HIGH_WATERMARK
    assert store.now.server_has_prekeys


async def test_keys_consumed_meanwhile_are_not_offered_again() -> None:
    server, store = KeyServer(faults={1: GONE}, lost=True), stored(uploaded_before=False)
    with pytest.raises(Disconnected):
        await supplier(server, store)[0].at_login()
    del store.keys[1], store.keys[5]
    await supplier(server, store)[0].at_login()
    assert not {1, 5} & set(server.uploads[1])
    assert server.uploads[2] == [HIGH_WATERMARK + 1, HIGH_WATERMARK + 2]


@pytest.mark.parametrize("state", ["uploaded", "direct", "stale"])
async def test_only_keys_of_unknown_fate_are_repeated(state: prekeys.State) -> None:
    """A key handed out in a retry receipt, or one from before a restore, is never uploaded."""
    store = stored(replace(waiting(1)[0], state=state), next_prekey_id=1)
    server = KeyServer()
    await supplier(server, store)[0].at_login()
    assert server.uploads == [list(range(2, HIGH_WATERMARK + 2))]
    assert store.keys[1].state == state


async def test_ids_wrap_and_step_over_keys_that_are_still_there() -> None:
    store = stored(
        *(replace(key, state="uploaded") for key in waiting(1, 3, MAX_PREKEY_ID)),
        next_prekey_id=MAX_PREKEY_ID - 1,
    )
    server = KeyServer(count=2)
    await supplier(server, store)[0].at_login()
    (ids,) = server.uploads
    assert ids[:4] == [MAX_PREKEY_ID - 1, 2, 4, 5]
    assert len(ids) == HIGH_WATERMARK - 2
    assert store.now.next_prekey_id == next_id(ids[-1])


async def test_ids_that_others_take_meanwhile_stay_theirs() -> None:
    """Retry receipts hand out keys of their own while a lot is made (chapter 03 §8.5 P2, P3)."""
    server, store = KeyServer(), stored(uploaded_before=False, next_prekey_id=10)
    handed_out: list[OneTimePreKey] = []

    def random(count: int) -> bytes:
        if len(handed_out) < 3:
            key = OneTimePreKey(store.now.next_prekey_id, pair(len(handed_out)), "direct")
            store.now = store.now.change(next_prekey_id=next_id(key.id))
            store.keys[key.id] = key
            handed_out.append(key)
        return os.urandom(count)

    await PreKeys(FakeRequester(server), store, random).at_login()
    assert len(store.keys) == HIGH_WATERMARK + 3
    assert [store.keys[key.id] for key in handed_out] == handed_out
    assert store.now.next_prekey_id not in store.keys
    assert not {key.id for key in handed_out} & set(server.uploads[0])


# Topping up.


@pytest.mark.parametrize("count", [0, 4, 10, HIGH_WATERMARK - 1])
async def test_a_low_notification_fills_up_whatever_it_named(count: int) -> None:
    server, store = KeyServer(count=count), stored(next_prekey_id=50)
    await supplier(server, store)[0].top_up()
    assert [len(ids) for ids in server.uploads] == [HIGH_WATERMARK - count]
    assert len(server.keys) == HIGH_WATERMARK


@pytest.mark.parametrize("count", [HIGH_WATERMARK, HIGH_WATERMARK + 90])
async def test_nothing_to_top_up(count: int) -> None:
    server, store = KeyServer(count=count), stored()
    await supplier(server, store)[0].top_up()
    assert server.uploads == []


@pytest.mark.parametrize("count", [0, 700, HIGH_WATERMARK])
async def test_a_full_lot_by_order_whatever_the_server_has(count: int) -> None:
    server, store = KeyServer(count=count), stored(*waiting(1, 2, 3), next_prekey_id=4)
    assert await supplier(server, store)[0].replenish() == HIGH_WATERMARK
    assert [len(ids) for ids in server.uploads] == [3, HIGH_WATERMARK - 3]
    assert len(server.keys) == count + HIGH_WATERMARK
    assert {key.state for key in store.keys.values()} == {"uploaded"}


async def test_an_order_that_fails_is_tried_once_and_goes_on_with_the_same_keys() -> None:
    server, store = KeyServer(faults={1: refusal(503)}), stored(next_prekey_id=50)
    keeper, _ = supplier(server, store)
    with pytest.raises(RequestError):
        await keeper.replenish()
    assert len(server.uploads) == 1
    assert await keeper.replenish() == HIGH_WATERMARK
    assert server.uploads[1] == server.uploads[0]
    assert len(store.keys) == HIGH_WATERMARK


@pytest.mark.parametrize("already_there", [False, True])
async def test_a_few_keys_of_unknown_fate_do_not_end_a_top_up(already_there: bool) -> None:
    """The server says only once that it runs low."""
    unknown = waiting(1, 2, 3)
    server, store = KeyServer(count=2), stored(*unknown, next_prekey_id=4)
    if already_there:
        server.keys.update({key.id: key.key.public for key in unknown})
    await supplier(server, store)[0].top_up()
    assert server.uploads[0] == [1, 2, 3]
    assert server.uploads[1][0] == 4
    assert len(server.keys) == HIGH_WATERMARK


async def test_retries_with_growing_delays(autojump_clock: trio.testing.MockClock) -> None:
    faults: dict[int, Answer] = {
        1: refusal(503),
        2: RequestTimeout("upload", 60),
        3: refusal(500),
        4: refusal(408),
        5: refusal(429),
    }
    server, store = KeyServer(count=4, faults=faults), stored(next_prekey_id=50)
    keeper, requester = supplier(server, store)
    started = trio.current_time()
    await keeper.top_up()
    assert len(server.uploads) == 6
    assert len({tuple(ids) for ids in server.uploads}) == 1
    times = sorted({round(time - started, 3) for time in requester.times})
    assert times == [0, 1, 3, 6, 11, 19]
    assert len(store.keys) == HIGH_WATERMARK - 4


async def test_delays_end_at_610_s(autojump_clock: trio.testing.MockClock) -> None:
    faults: dict[int, Answer] = {number: refusal(503) for number in range(1, 18)}
    server, store = KeyServer(faults=faults), stored()
    keeper, requester = supplier(server, store)
    await keeper.top_up()
    times = sorted(set(requester.times))
    gaps = [round(later - earlier) for earlier, later in pairwise(times)]
    assert gaps == list(islice(fibonacci_delays(), 17))
    assert gaps[-1] == 610


async def test_a_longer_wait_that_the_server_orders_is_kept(autojump_clock: trio.testing.MockClock) -> None:
    server, store = KeyServer(faults={1: refusal(429, backoff="90"), 2: refusal(429, backoff="1")}), stored()
    keeper, requester = supplier(server, store)
    await keeper.top_up()
    times = sorted(set(requester.times))
    assert [round(later - earlier) for earlier, later in pairwise(times)] == [90, 2]


async def test_a_failed_count_is_retried_too(autojump_clock: trio.testing.MockClock) -> None:
    server, store = KeyServer(), stored()
    server.count_answer = refusal(503)
    keeper, requester = supplier(server, store)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keeper.top_up)
        await trio.sleep(4)
        assert len(requester.sent) == 3
        server.count_answer = None
    assert len(server.keys) == HIGH_WATERMARK


@pytest.mark.parametrize("code", [400, 401, 403, 406])
async def test_a_refusal_for_good_ends_the_top_up(code: int) -> None:
    server, store = KeyServer(faults={1: refusal(code)}), stored()
    with pytest.raises(RequestError) as caught:
        await supplier(server, store)[0].top_up()
    assert caught.value.code == code
    assert len(server.uploads) == 1


async def test_retries_end_with_the_connection(autojump_clock: trio.testing.MockClock) -> None:
    server, store = KeyServer(faults={1: refusal(503), 2: GONE}), stored()
    with pytest.raises(Disconnected):
        await supplier(server, store)[0].top_up()
    assert len(server.uploads) == 2


async def test_a_cancelled_top_up_leaves_its_keys_for_the_next(
    autojump_clock: trio.testing.MockClock,
) -> None:
    faults: dict[int, Answer] = {1: refusal(503)}
    server, store = KeyServer(faults=faults), stored()
    keeper, _ = supplier(server, store)
    with trio.move_on_after(0.5):
        await keeper.top_up()
    await keeper.top_up()
    assert server.uploads[0] == server.uploads[1]


async def test_one_upload_at_a_time(autojump_clock: trio.testing.MockClock) -> None:
    server, store = KeyServer(faults={1: refusal(503)}), stored()
    keeper, _ = supplier(server, store)
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(keeper.top_up)
    assert len(server.uploads) == 2
    assert len(server.keys) == HIGH_WATERMARK


async def test_making_keys_lets_others_run() -> None:
    server, store = KeyServer(), stored(uploaded_before=False)
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count_turns)
        await supplier(server, store)[0].at_login()
        nursery.cancel_scope.cancel()
    assert turns >= HIGH_WATERMARK // prekeys.KEYS_BETWEEN_CHECKPOINTS


# Digest.


def ours(*ids: int) -> list[tuple[int, bytes]]:
    return [(number, pair(number).public) for number in ids]


UPLOADED = [replace(key, state="uploaded") for key in waiting(1, 2, 3)]


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        (digest_reply(CREDENTIALS.signed_prekey, ours(1, 2, 3)), "equal"),
        (digest_reply(CREDENTIALS.signed_prekey, ours(3, 1)), "equal"),
        (digest_reply(CREDENTIALS.signed_prekey, []), "equal"),
        (digest_reply(CREDENTIALS.signed_prekey, ours(1, 9)), "different"),
        (digest_reply(CREDENTIALS.signed_prekey, [(1, pair(2).public)]), "different"),
        (digest_reply(CREDENTIALS.signed_prekey, ours(1), bytes(20)), "different"),
        (digest_reply(CREDENTIALS.signed_prekey, ours(1), bytes(19)), "unreadable"),
        (digest_reply(CREDENTIALS.signed_prekey, ours(1), b""), "unreadable"),
        (
            digest_reply(CREDENTIALS.signed_prekey, [(1, pair(1).public)] * (prekeys.MAX_DIGEST_IDS + 1)),
            "unreadable",
        ),
        (result(Node("digest")), "unreadable"),
        (result(Node("digest", {}, [Node("list")])), "unreadable"),
        (result(), "absent"),
    ],
)
def test_comparing_digests(reply: Node, verdict: str) -> None:
    assert compare_digest(reply, CREDENTIALS, UPLOADED) == verdict


def test_a_digest_over_another_signed_prekey_differs() -> None:
    other = SignedPreKey.make(2, CREDENTIALS.identity, os.urandom)
    assert compare_digest(digest_reply(other, ours(1)), CREDENTIALS, UPLOADED) == "different"


def test_the_digest_layout() -> None:
    parts = bytes(range(32)), bytes(range(32, 64)), bytes(64), [b"\x01" * 32, b"\x02" * 32]
    wanted = hashlib.sha1(b"".join([*parts[:3], *parts[3]])).digest()
    assert prekeys.digest_of(*parts) == wanted


async def test_a_digest_that_agrees_or_not_uploads_nothing() -> None:
    server, store = KeyServer(), stored(*UPLOADED)
    server.keys = {key.id: key.key.public for key in UPLOADED}
    assert await supplier(server, store)[0].check_digest() == "equal"
    server.keys[9] = pair(9).public
    assert await supplier(server, store)[0].check_digest() == "different"
    assert server.uploads == []


@pytest.mark.parametrize("answer", [refusal(404, "item-not-found"), result()])
async def test_without_a_record_there_everything_goes_up(answer: Answer) -> None:
    server, store = KeyServer(), stored(*UPLOADED, next_prekey_id=4)
    server.digest_answer = answer
    assert await supplier(server, store)[0].check_digest() == "absent"
    assert server.uploads == [list(range(4, HIGH_WATERMARK + 4))]


async def test_a_full_upload_repeats_the_unknown_and_completes_the_lot() -> None:
    server, store = KeyServer(), stored(*waiting(1, 2), next_prekey_id=3)
    await supplier(server, store)[0].upload_all()
    assert [len(ids) for ids in server.uploads] == [2, HIGH_WATERMARK - 2]


@pytest.mark.parametrize("answer", [refusal(406), refusal(503), RequestTimeout("digest", 60), GONE])
async def test_other_answers_to_a_digest_wait_for_the_next_login(answer: Answer) -> None:
    server, store = KeyServer(), stored(*UPLOADED)
    server.digest_answer = answer
    with pytest.raises((RequestError, RequestTimeout, Disconnected)):
        await supplier(server, store)[0].check_digest()
    assert server.uploads == []


# Rotation.


def aged(now_ms: int, age_ms: int) -> MemoryStore:
    current = SignedPreKey.make(5, CREDENTIALS.identity, os.urandom, now_ms - age_ms)
    return MemoryStore(CREDENTIALS.change(signed_prekeys=(current,)))


async def test_a_young_prekey_stays() -> None:
    server = KeyServer()
    assert not await supplier(server, aged(NOW, ROTATION_MS - 1))[0].rotate_if_due(NOW)
    assert server.rotations == []


async def test_the_day_of_rotation_is_the_same_each_time_and_within_a_day() -> None:
    due = [
        age
        for age in range(ROTATION_MS, ROTATION_MS + ROTATION_JITTER_MS + 1, ROTATION_JITTER_MS // 24)
        if await supplier(KeyServer(), aged(NOW, age))[0].rotate_if_due(NOW)
    ]
    assert due
    assert due == sorted(due)
    assert due[-1] == ROTATION_MS + ROTATION_JITTER_MS // 24 * 24


async def test_a_rotation() -> None:
    server, store = KeyServer(), aged(NOW, ROTATION_MS + DAY_MS)
    old = store.now.signed_prekey
    assert await supplier(server, store)[0].rotate_if_due(NOW)
    assert server.rotations == [6]
    assert store.now.signed_prekey.id == 6
    assert store.now.signed_prekey.signed_by(CREDENTIALS.identity.public)
    assert store.now.signed_prekeys[1] == old
    assert (store.now.rotation_candidate, store.now.last_rotation_ms) == (None, NOW)
    assert not await supplier(server, store)[0].rotate_if_due(NOW + ROTATION_MS - 1)


async def test_a_rotation_by_order_asks_for_no_age() -> None:
    server, store = KeyServer(), aged(NOW, 0)
    keeper, _ = supplier(server, store)
    assert (await keeper.rotate(NOW)).id == 6
    assert (await keeper.rotate(NOW + 1)).id == 7
    assert server.rotations == [6, 7]
    assert [key.id for key in store.now.signed_prekeys] == [7, 6, 5]
    assert not await keeper.rotate_if_due(NOW + ROTATION_MS)


async def test_two_rotations_at_once_replace_it_twice() -> None:
    server, store = KeyServer(), aged(NOW, 0)
    keeper, _ = supplier(server, store)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keeper.rotate, NOW)
        nursery.start_soon(keeper.rotate, NOW)
    assert server.rotations == [6, 7]
    assert [key.id for key in store.now.signed_prekeys] == [7, 6, 5]


async def test_three_signed_prekeys_stay_usable() -> None:
    store, now = aged(NOW, ROTATION_MS + DAY_MS), NOW
    for _ in range(4):
        assert await supplier(KeyServer(), store)[0].rotate_if_due(now)
        now += ROTATION_MS + DAY_MS
    assert [key.id for key in store.now.signed_prekeys] == [9, 8, 7]
    assert store.now.find_signed_prekey(6) is None
    assert store.now.find_signed_prekey(7) is not None


async def test_signed_prekey_ids_wrap() -> None:
    store = aged(NOW, ROTATION_MS + DAY_MS)
    last = SignedPreKey.make(MAX_PREKEY_ID, CREDENTIALS.identity, os.urandom, 0)
    store.now = store.now.change(signed_prekeys=(last,))
    await supplier(KeyServer(), store)[0].rotate_if_due(NOW)
    assert store.now.signed_prekey.id == 1


async def test_the_candidate_is_durable_and_usable_before_the_server_hears_of_it() -> None:
    store, seen = aged(NOW, ROTATION_MS + DAY_MS), []

    def answer(request: Node) -> Answer:
        candidate = store.now.rotation_candidate
        seen.append(candidate is not None and store.now.find_signed_prekey(candidate.id) == candidate)
        return result()

    await PreKeys(FakeRequester(answer), store, os.urandom).rotate_if_due(NOW)
    assert seen == [True]


@pytest.mark.parametrize("failure", [RequestTimeout("rotate", 60), GONE, refusal(503)])
async def test_an_unknown_outcome_uploads_the_same_candidate_again(failure: Answer) -> None:
    server, store = KeyServer(), aged(NOW, ROTATION_MS + DAY_MS)
    server.rotation_answer = failure
    with pytest.raises((RequestError, RequestTimeout, Disconnected)):
        await supplier(server, store)[0].rotate_if_due(NOW)
    candidate = store.now.rotation_candidate
    assert candidate is not None
    assert store.now.signed_prekey.id == 5
    server.rotation_answer = None
    assert await supplier(server, store)[0].rotate_if_due(NOW + DAY_MS)
    assert store.now.signed_prekey == candidate


@pytest.mark.parametrize("code", [406, 409])
async def test_a_refused_candidate_is_dropped(code: int) -> None:
    server, store = KeyServer(), aged(NOW, ROTATION_MS + DAY_MS)
    server.rotation_answer = refusal(code)
    with pytest.raises(RequestError):
        await supplier(server, store)[0].rotate_if_due(NOW)
    assert store.now.rotation_candidate is None
    assert store.now.signed_prekey.id == 5


async def test_a_clock_that_jumps_back_rotates_nothing() -> None:
    assert not await supplier(KeyServer(), aged(NOW, 0))[0].rotate_if_due(0)


def test_marking_a_key() -> None:
    (key,) = waiting(4)
    assert prekeys.uploaded(key) == OneTimePreKey(4, key.key, "uploaded")
