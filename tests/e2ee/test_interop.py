"""Conversions of records: conversations go on after them, and no input breaks an importer."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.e2ee.parties import DAY, NOW, Device, Letter, acquainted, new_pair, seeded
from waD.e2ee import groups, session, skipped
from waD.e2ee.curve import serialize_key
from waD.e2ee.groups import SenderKeyRecord
from waD.e2ee.interop import common, golang, native, node, protobuf
from waD.e2ee.interop.common import ConversionError, Imported, ValueRefusedError
from waD.e2ee.kdf import hmac_sha256
from waD.e2ee.limits import MAX_ARCHIVED_SESSIONS, MAX_FOREIGN_RECORD_SIZE, MAX_SKIPPED_KEYS
from waD.e2ee.record import ReceiverChain, SessionRecord, SessionState
from waD.e2ee.x3dh import LocalIdentity
from waD.proto import signal_pb2

Convert = Callable[[SessionRecord, LocalIdentity], Imported[SessionRecord]]
ConvertGroup = Callable[[SenderKeyRecord], Imported[SenderKeyRecord]]


def through_node(record: SessionRecord, local: LocalIdentity) -> Imported[SessionRecord]:
    return node.import_session(json.dumps(node.export_session(record).value), local, NOW)


SESSIONS: dict[str, Convert] = {
    "node": through_node,
    "golang": lambda record, _: golang.import_session(golang.export_session(record), NOW),
    "protobuf": lambda record, _: protobuf.import_session(protobuf.export_session(record), NOW),
    "native": lambda record, _: native.import_session(native.export_session(record), NOW),
}
GROUPS: dict[str, ConvertGroup] = {
    "node": lambda record: node.import_sender_key(node.export_sender_key(record), NOW),
    "golang": lambda record: golang.import_sender_key(golang.export_sender_key(record), NOW),
    "protobuf": lambda record: protobuf.import_sender_key(protobuf.export_sender_key(record), NOW),
    "native": lambda record: native.import_sender_key(native.export_sender_key(record), NOW),
}
EVERY_FORMAT = pytest.mark.parametrize("convert", SESSIONS.values(), ids=SESSIONS)
EVERY_GROUP_FORMAT = pytest.mark.parametrize("convert", GROUPS.values(), ids=GROUPS)


def experienced() -> tuple[Device, Device, list[Letter]]:
    """Devices with turns behind them, an archived session each, and letters of old chains still out."""
    alice, bob = acquainted()
    late = [alice.send(bob, b"late 0")]
    bob.receive(alice, alice.send(bob, b"x"))
    alice.receive(bob, bob.send(alice, b"turn"))
    late += [alice.send(bob, b"late 1"), alice.send(bob, b"late 2")]
    bob.receive(alice, alice.send(bob, b"x"))
    alice.now += 10
    bob.now += 10
    alice.initiate(bob)
    bob.receive(alice, alice.send(bob, b"second session"))
    alice.receive(bob, bob.send(alice, b"answer"))
    late.append(alice.send(bob, b"late 3"))
    bob.receive(alice, alice.send(bob, b"x"))
    return alice, bob, late


def move(device: Device, peer: Device, convert: Convert) -> Imported[SessionRecord]:
    """Send the device's record through another format and keep what comes back."""
    made = convert(device.existing(peer.name), device.local)
    device.keep(peer.name, made.record)
    return made


# Conversations go on.


@EVERY_FORMAT
def test_a_conversation_goes_on_after_conversion(convert: Convert) -> None:
    alice, bob, late = experienced()
    before = bob.existing("alice")
    for device, peer in ((alice, bob), (bob, alice)):
        assert move(device, peer, convert).warnings == ()
    after = bob.existing("alice")
    assert [state.base_key for state in after.states()] == [state.base_key for state in before.states()]
    assert bob.receive(alice, alice.send(bob, b"same chain")) == b"same chain"
    assert alice.receive(bob, bob.send(alice, b"and back")) == b"and back"
    assert bob.receive(alice, alice.send(bob, b"next chain")) == b"next chain"
    assert bob.receive(alice, late[3]) == b"late 3"
    for number in (2, 0, 1):
        assert bob.receive(alice, late[number]) == b"late %d" % number
        move(bob, alice, convert)
        assert bob.refuse(alice, late[number]).code in {"duplicate", "bad_mac"}


@EVERY_FORMAT
@pytest.mark.parametrize("prekeys", [0, 1])
def test_a_pending_session_stays_pending(convert: Convert, prekeys: int) -> None:
    alice, bob = Device("alice", 1), Device("bob", 2, prekeys)
    lost = alice.send(bob, b"lost")
    move(alice, bob, convert)
    letter = alice.send(bob, b"again")
    assert letter[0] == "pkmsg"
    assert bob.receive(alice, letter) == b"again"
    move(bob, alice, convert)
    assert bob.receive(alice, lost) == b"lost"
    assert bob.existing("alice").archived == ()
    assert alice.receive(bob, bob.send(alice, b"answer")) == b"answer"
    assert alice.send(bob, b"next")[0] == "msg"


@EVERY_FORMAT
def test_a_stale_session_does_not_become_usable(convert: Convert) -> None:
    alice, bob = acquainted()
    letter = bob.send(alice, b"still readable")
    alice.keep("bob", session.mark_stale(alice.existing("bob")))
    move(alice, bob, convert)
    assert not alice.existing("bob").has_usable_session
    assert alice.receive(bob, letter) == b"still readable"


def test_seeds_survive_node_and_native_and_become_triples_elsewhere() -> None:
    _, bob, _ = experienced()
    record = bob.existing("alice")

    def keys(made: SessionRecord) -> tuple[int, int]:
        chains = [chain for state in made.states() for chain in state.receivers]
        return (
            sum(len(chain.seeds) // skipped.SEED_ENTRY for chain in chains),
            sum(len(chain.triples) // skipped.TRIPLE_ENTRY for chain in chains),
        )

    assert keys(record) == (4, 0)
    for name, expected in (("node", (4, 0)), ("native", (4, 0)), ("golang", (0, 4)), ("protobuf", (0, 4))):
        assert keys(SESSIONS[name](record, bob.local).record) == expected


def test_triples_have_no_form_in_node_records() -> None:
    _, bob, _ = experienced()
    move(bob, Device("alice", 1), SESSIONS["golang"])
    exported = node.export_session(bob.existing("alice"))
    assert exported.omitted_keys == 4
    assert repr(exported) == "ExportedSession(omitted_keys=4)"
    assert node.import_session(exported.value, bob.local).record.current is not None


def test_the_native_text_loses_nothing() -> None:
    alice, bob, _ = experienced()
    bob.keep("alice", SESSIONS["golang"](bob.existing("alice"), bob.local).record)
    for device, peer in ((alice, "bob"), (bob, "alice")):
        record = session.mark_stale(device.existing(peer))
        made = native.import_session(native.export_session(record), NOW).record
        assert list(made.states()) == [
            replace(state, receivers=tuple(stamped(chain) for chain in state.receivers))
            for state in record.states()
        ]


def stamped(chain: ReceiverChain) -> ReceiverChain:
    """The chain with all skipped keys stored at the time of the import."""
    seeds = [(counter, NOW, key) for counter, _, key in skipped.unpack(chain.seeds, skipped.SEED_ENTRY)]
    triples = [(counter, NOW, key) for counter, _, key in skipped.unpack(chain.triples, skipped.TRIPLE_ENTRY)]
    return replace(chain, seeds=skipped.pack(seeds), triples=skipped.pack(triples))


SESSION_FIELDS = {
    *("lid", "rid", "lreg", "rreg", "rk", "pc", "sc", "rc", "pp", "bk", "own", "t0", "tu", "tc", "stale"),
}


def test_the_native_text_is_canonical() -> None:
    _, bob, _ = experienced()
    text = native.export_session(bob.existing("alice"))
    assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    parsed = json.loads(text)
    assert set(parsed) == {"v", "cur", "prev"}
    assert set(parsed["cur"]) == SESSION_FIELDS
    assert base64.b64decode(parsed["cur"]["rid"])[0] == 5


def test_imported_skipped_keys_get_an_age() -> None:
    alice, bob, late = experienced()
    for convert in SESSIONS.values():
        assert convert(bob.existing("alice"), bob.local).record.oldest_skipped_ms == NOW
        assert convert(alice.existing("bob"), alice.local).record.oldest_skipped_ms == 0
    bob.now += 31 * DAY
    bob.receive(alice, alice.send(bob, b"a month later"))
    assert bob.refuse(alice, late[0]).code in {"duplicate", "bad_mac"}


# Closed chains.


def closed_record() -> tuple[SessionRecord, SessionState]:
    _, bob = acquainted()
    state = bob.existing("alice").current
    assert state is not None
    empty = ReceiverChain(new_pair(40).public, 3, None)
    holding = ReceiverChain(new_pair(41).public, 3, None, skipped.append(b"", 1, [bytes(32)], NOW))
    state = replace(state, receivers=(empty, holding, *state.receivers))
    return SessionRecord(state), state


@EVERY_FORMAT
def test_closed_chains_stay_closed_and_empty_ones_go(convert: Convert) -> None:
    record, state = closed_record()
    local = LocalIdentity(new_pair(1), 5)
    (made,) = convert(record, local).record.states()
    assert [chain.ratchet for chain in made.receivers] == [chain.ratchet for chain in state.receivers[1:]]
    assert [chain.key is None for chain in made.receivers] == [True, False]


def test_the_filler_of_closed_chains_is_secret() -> None:
    record, state = closed_record()
    structure = signal_pb2.RecordStructure.FromString(protobuf.export_session(record))
    filler = structure.currentSession.receiverChains[0].chainKey.key
    ratchet = serialize_key(state.receivers[0].ratchet)
    assert filler == hmac_sha256(state.root_key, b"waD closed chain" + ratchet)
    kept = protobuf.import_session(protobuf.export_session(record), prune=False).record.current
    assert kept is not None
    assert [chain.key is None for chain in kept.receivers] == [True, True, False]


# libsignal-node in particular.


def node_value() -> tuple[dict[str, Any], LocalIdentity]:
    _, bob, _ = experienced()
    exported = node.export_session(bob.existing("alice")).value
    return json.loads(json.dumps(exported)), bob.local


def entries(value: dict[str, Any]) -> list[dict[str, Any]]:
    return list(value["_sessions"].values())


def test_node_record_layout() -> None:
    value, _ = node_value()
    first, second = entries(value)
    assert value["version"] == "v1"
    assert first["indexInfo"]["closed"] == -1
    assert second["indexInfo"]["closed"] == NOW + 10
    assert first["indexInfo"]["baseKeyType"] == 2
    newest = first["currentRatchet"]["lastRemoteEphemeralKey"]
    assert first["_chains"][newest]["chainType"] == 2
    sending = first["currentRatchet"]["ephemeralKeyPair"]["pubKey"]
    assert first["_chains"][sending]["chainType"] == 1
    assert first["_chains"][sending]["chainKey"]["counter"] == -1
    assert {len(seed) for chain in first["_chains"].values() for seed in chain["messageKeys"].values()} == {
        44
    }


def test_the_chain_of_the_signed_prekey_is_left_out() -> None:
    alice, bob = Device("alice", 1), Device("bob", 2)
    alice.initiate(bob)
    (entry,) = entries(node.export_session(alice.existing("bob")).value)
    assert [chain["chainType"] for chain in entry["_chains"].values()] == [1]
    assert entry["currentRatchet"]["lastRemoteEphemeralKey"] == common.encode_public(bob.signed_prekey.public)


@pytest.mark.parametrize(
    "wrap", [json.dumps, lambda value: json.dumps(json.dumps(value)), lambda value: value]
)
def test_node_records_come_parsed_or_encoded_any_number_of_times(wrap: Callable[[object], object]) -> None:
    value, local = node_value()
    plain = node.import_session(value, local).record
    assert node.import_session(wrap(value), local).record == plain
    buffers = node.import_session(with_buffers(value), local).record
    assert buffers == plain


def with_buffers(value: Any, name: str = "") -> Any:
    """The same record with every byte string spelled as a buffer object."""
    if isinstance(value, dict):
        return {key: with_buffers(item, key) for key, item in value.items()}
    if isinstance(value, str) and name != "version":
        return {"type": "Buffer", "data": list(base64.b64decode(value))}
    return value


def test_an_old_record_has_its_registration_id_on_top() -> None:
    value, local = node_value()
    for entry in entries(value):
        del entry["registrationId"]
    del value["version"]
    value["registrationId"] = 4711
    current = node.import_session(value, local).record.current
    assert current is not None
    assert current.remote_registration_id == 4711


@pytest.mark.parametrize("counter", [-1, 4294967295])
def test_an_underflown_previous_counter_is_zero(counter: int) -> None:
    value, local = node_value()
    for entry in entries(value):
        entry["currentRatchet"]["previousCounter"] = counter
    record = node.import_session(value, local).record
    assert [state.previous_counter for state in record.states()] == [0, 0]


def test_of_several_open_sessions_the_last_used_stays_open() -> None:
    value, local = node_value()
    first, second = entries(value)
    second["indexInfo"].update(closed=-1, used=NOW + 999)
    made = node.import_session(value, local)
    current, archived = made.record.states()
    assert common.encode_public(current.base_key) == second["indexInfo"]["baseKey"]
    assert archived.closed_ms == archived.used_ms == first["indexInfo"]["used"]
    assert "2 open sessions" in made.warnings[0]


def test_all_closed_means_no_current_session() -> None:
    value, local = node_value()
    for entry in entries(value):
        entry["indexInfo"]["closed"] = 5
    record = node.import_session(value, local).record
    assert record.current is None
    assert len(record.archived) == 2


def test_the_newest_chain_is_last_whatever_the_order() -> None:
    value, local = node_value()
    for entry in entries(value):
        entry["_chains"] = dict(sorted(entry["_chains"].items()))
    for state, entry in zip(node.import_session(value, local).record.states(), entries(value), strict=True):
        newest = entry["currentRatchet"]["lastRemoteEphemeralKey"]
        assert common.encode_public(state.receivers[-1].ratchet) == newest


Breakage = Callable[[dict[str, Any]], object]


def newest_chain(entry: dict[str, Any]) -> dict[str, Any]:
    chain = entry["_chains"][entry["currentRatchet"]["lastRemoteEphemeralKey"]]
    assert isinstance(chain, dict)
    return chain


def sending_chain(entry: dict[str, Any]) -> dict[str, Any]:
    chain = entry["_chains"][entry["currentRatchet"]["ephemeralKeyPair"]["pubKey"]]
    assert isinstance(chain, dict)
    return chain


KEY = base64.b64encode(bytes(32)).decode()
PUBLIC = common.encode_public(new_pair(60).public)
BREAKAGES: dict[str, Breakage] = {
    "root key length": lambda e: e["currentRatchet"].update(rootKey="AAAA"),
    "ratchet pair": lambda e: e["currentRatchet"]["ephemeralKeyPair"].update(privKey=KEY),
    "base key": lambda e: e["indexInfo"].update(baseKey=PUBLIC),
    "base key type": lambda e: e["indexInfo"].update(baseKeyType=3),
    "remote identity": lambda e: e["indexInfo"].update(remoteIdentityKey="BQ=="),
    "no index info": lambda e: e.pop("indexInfo"),
    "no ratchet": lambda e: e.update(currentRatchet=None),
    "no chains": lambda e: e.update(_chains=[]),
    "no sending chain": lambda e: e["_chains"].pop(e["currentRatchet"]["ephemeralKeyPair"]["pubKey"]),
    "other sending chain": lambda e: newest_chain(e).update(chainType=1),
    "chain type": lambda e: newest_chain(e).update(chainType=9),
    "sending key missing": lambda e: sending_chain(e)["chainKey"].pop("key"),
    "newest chain missing": lambda e: e["currentRatchet"].update(lastRemoteEphemeralKey=PUBLIC),
    "skipped key ahead": lambda e: newest_chain(e)["messageKeys"].update({"99": KEY}),
    "skipped key name": lambda e: newest_chain(e)["messageKeys"].update({"-1": KEY}),
    "skipped key twice": lambda e: newest_chain(e).update(messageKeys={"0": KEY, "00": KEY}),
    "skipped key length": lambda e: newest_chain(e)["messageKeys"].update({"0": "AA=="}),
    "chain key length": lambda e: newest_chain(e)["chainKey"].update(key="AAAA"),
    "counter": lambda e: newest_chain(e)["chainKey"].update(counter=2**32 - 1),
    "counter text": lambda e: newest_chain(e)["chainKey"].update(counter="3"),
    "pending of another base": lambda e: e.update(pendingPreKey={"signedKeyId": 1, "baseKey": PUBLIC}),
    "pending of theirs": lambda e: e.update(
        pendingPreKey={"signedKeyId": 1, "baseKey": e["indexInfo"]["baseKey"]}
    ),
    "time": lambda e: e["indexInfo"].update(used=-5),
    "registration id": lambda e: e.update(registrationId=2**32),
}


@pytest.mark.parametrize("breakage", BREAKAGES.values(), ids=BREAKAGES)
def test_a_broken_node_session_is_dropped_alone(breakage: Breakage) -> None:
    value, local = node_value()
    breakage(entries(value)[0])
    made = node.import_session(value, local)
    assert [warning.split(":")[0] for warning in made.warnings] == ["session_invalid"]
    assert made.record.current is None
    assert len(made.record.archived) == 1
    del value["_sessions"][list(value["_sessions"])[1]]
    with pytest.raises(ConversionError) as caught:
        node.import_session(value, local)
    assert caught.value.code == "session_invalid"


def test_more_sessions_and_keys_than_we_keep() -> None:
    value, local = node_value()
    first = entries(value)[0]
    for number in range(MAX_ARCHIVED_SESSIONS + 5):
        base = common.encode_public(new_pair(1000 + number).public)
        entry = copy.deepcopy(first)
        entry["indexInfo"].update(baseKey=base, closed=1 + number, used=1 + number)
        value["_sessions"][base] = entry
    chain = newest_chain(first)
    chain["chainKey"]["counter"] = 5000
    chain["messageKeys"] = {str(number): KEY for number in range(2500)}
    made = node.import_session(value, local)
    assert len(made.record.archived) == MAX_ARCHIVED_SESSIONS
    current = made.record.current
    assert current is not None
    assert current.skipped_count == MAX_SKIPPED_KEYS
    assert len(made.warnings) == 2
    assert SessionRecord.parse(made.record.serialize()) == made.record


# Go and protobuf in particular.


def go_value() -> dict[str, Any]:
    _, bob, _ = experienced()
    value = json.loads(golang.export_session(bob.existing("alice")))
    assert isinstance(value, dict)
    return value


@pytest.mark.parametrize(
    "changes",
    [
        {"SessionVersion": 4},
        {"PendingKeyExchange": {"Sequence": 1}},
        {"RootKey": None},
        {"LocalIdentityPublic": "BQ=="},
        {"SenderChain": None},
        {"ReceiverChains": {}},
        {"RemoteRegistrationID": True},
        {
            "PendingPreKey": {
                "PreKeyID": {"Value": 1 << 24, "IsEmpty": False},
                "SignedPreKeyID": 1,
                "BaseKey": PUBLIC,
            }
        },
        {
            "PendingPreKey": {
                "PreKeyID": {"Value": 1, "IsEmpty": False},
                "SignedPreKeyID": 1,
                "BaseKey": PUBLIC,
            }
        },
    ],
)
def test_a_broken_go_session_is_dropped_alone(changes: dict[str, Any]) -> None:
    value = go_value()
    value["SessionState"].update(changes)
    made = golang.import_session(value)
    assert made.record.current is None
    assert len(made.record.archived) == 1
    assert made.warnings[0].startswith("session_invalid: ")
    with pytest.raises(ConversionError, match="session_invalid"):
        golang.import_session({"SessionState": value["SessionState"], "PreviousStates": None})


def test_go_lists_may_be_null() -> None:
    value = go_value()
    for state in (value["SessionState"], *value["PreviousStates"]):
        for chain in state["ReceiverChains"]:
            chain["MessageKeys"] = None
    record = golang.import_session(value).record
    assert sum(state.skipped_count for state in record.states()) == 0
    value["SessionState"]["ReceiverChains"] = None
    current = golang.import_session(value).record.current
    assert current is not None
    assert current.receivers == ()


def test_foreign_records_cannot_say_who_made_the_base_key() -> None:
    alice, bob = acquainted()
    for convert in (SESSIONS["golang"], SESSIONS["protobuf"]):
        made = convert(alice.existing("bob"), alice.local).record.current
        assert made is not None
        assert made.own_base is None
    assert (
        json.loads(native.export_session(SESSIONS["golang"](bob.existing("alice"), bob.local).record))["cur"][
            "own"
        ]
        is None
    )


def test_newer_libsignal_keeps_seeds_in_field_5() -> None:
    _, bob, _ = experienced()
    structure = signal_pb2.RecordStructure.FromString(protobuf.export_session(bob.existing("alice")))
    chain = structure.currentSession.receiverChains[-1]
    index = chain.messageKeys[0].index
    del chain.messageKeys[:]
    chain.messageKeys.add().MergeFromString(bytes([0x08, index, 0x2A, 32]) + bytes(range(32)))
    current = protobuf.import_session(structure.SerializeToString(), NOW).record.current
    assert current is not None
    assert current.receivers[-1].seeds == skipped.append(b"", index, [bytes(range(32))], NOW)


@pytest.mark.parametrize(
    "break_it",
    [
        lambda s: setattr(s, "sessionVersion", 4),
        lambda s: s.pendingKeyExchange.SetInParent(),
        lambda s: setattr(s.pendingPreKey, "kyberPreKeyId", 1),
        lambda s: s.ClearField("rootKey"),
        lambda s: s.ClearField("senderChain"),
        lambda s: s.ClearField("aliceBaseKey"),
        lambda s: s.receiverChains.add(),
        lambda s: s.receiverChains[0].messageKeys.add(index=0),
        lambda s: s.receiverChains.add().CopyFrom(s.receiverChains[0]),
    ],
)
def test_a_broken_protobuf_session_is_dropped_alone(
    break_it: Callable[[signal_pb2.SessionStructure], object],
) -> None:
    _, bob, _ = experienced()
    structure = signal_pb2.RecordStructure.FromString(protobuf.export_session(bob.existing("alice")))
    break_it(structure.currentSession)
    made = protobuf.import_session(structure.SerializeToString())
    assert made.record.current is None
    assert len(made.record.archived) == 1
    assert made.warnings[0].startswith("session_invalid: ")


# Sender keys.


def group_records() -> tuple[SenderKeyRecord, SenderKeyRecord, list[bytes]]:
    """Our own record, a member's record with two keys and skipped messages, and all messages sent."""
    own = groups.create(seeded(1))
    older = groups.process_distribution(None, groups.distribution(groups.create(seeded(2))))
    member = groups.process_distribution(older, groups.distribution(own))
    letters = []
    for number in range(5):
        own, data = groups.encrypt(own, b"%d" % number, lambda size: bytes(size))
        letters.append(data)
    for number in (1, 3):
        member, _ = groups.decrypt(member, letters[number], NOW)
    return own, member, letters


@EVERY_GROUP_FORMAT
def test_a_group_goes_on_after_conversion(convert: ConvertGroup) -> None:
    own, member, letters = group_records()
    assert convert(member).record == member
    assert convert(own).record == own
    member = convert(member).record
    for number in (2, 4, 0):
        member, plaintext = groups.decrypt(member, letters[number], NOW)
        assert plaintext == b"%d" % number
    _, data = groups.encrypt(convert(own).record, b"next", seeded(3))
    assert groups.decrypt(member, data)[1] == b"next"


@EVERY_GROUP_FORMAT
def test_skipped_keys_of_our_own_key_go(convert: ConvertGroup) -> None:
    own, _, _ = group_records()
    (state,) = own.states
    gaps = SenderKeyRecord((replace(state, seeds=skipped.append(b"", 1, [bytes(32)], NOW)),))
    assert convert(gaps).record == own


def test_newest_last_only_in_baileys_files() -> None:
    _, member, _ = group_records()
    ids = [state.key_id for state in member.states]
    inner = base64.b64decode(json.loads(node.export_sender_key(member))["data"])
    assert [entry["senderKeyId"] for entry in json.loads(inner)] == ids[::-1]
    assert [
        entry["KeyID"] for entry in json.loads(golang.export_sender_key(member))["SenderKeyStates"]
    ] == ids


def test_the_three_baileys_layouts() -> None:
    own, member, _ = group_records()
    for record in (own, member):
        text = base64.b64decode(json.loads(node.export_sender_key(record))["data"]).decode()
        plain = json.loads(text, object_hook=lambda o: o["data"] if o.get("type") == "Buffer" else o)
        numbers = json.loads(
            text,
            object_hook=lambda o: (
                {**o, "data": list(base64.b64decode(o["data"]))} if o.get("type") == "Buffer" else o
            ),
        )
        for state in numbers:
            state["senderSigningKey"].setdefault("private", {"type": "Buffer", "data": []})
        wrapped = {"type": "Buffer", "data": base64.b64encode(json.dumps(numbers).encode()).decode()}
        for form in (plain, json.dumps(plain), wrapped, json.dumps(wrapped), json.dumps(json.dumps(wrapped))):
            assert node.import_sender_key(form, NOW).record == record


def test_an_all_zero_private_key_is_none() -> None:
    _, member, _ = group_records()
    value = json.loads(golang.export_sender_key(member))
    for state in value["SenderKeyStates"]:
        state["SigningKeyPrivate"] = KEY
    assert golang.import_sender_key(value, NOW).record == member


@pytest.mark.parametrize(
    "changes",
    [
        {"KeyID": -1},
        {"SenderChainKey": {"Iteration": 1, "ChainKey": "AA=="}},
        {"SenderChainKey": None},
        {"SigningKeyPublic": None},
        {"SigningKeyPrivate": base64.b64encode(b"x" * 32).decode()},
        {"SigningKeyPrivate": "AQ=="},
        {"Keys": [{"Iteration": 99, "Seed": KEY}]},
        {"Keys": [{"Iteration": 0, "Seed": None}]},
        {"Keys": "none"},
    ],
)
def test_a_broken_sender_key_is_dropped_alone(changes: dict[str, Any]) -> None:
    _, member, _ = group_records()
    value = json.loads(golang.export_sender_key(member))
    value["SenderKeyStates"][0].update(changes)
    made = golang.import_sender_key(value, NOW)
    assert made.record == SenderKeyRecord(member.states[1:])
    assert made.warnings[0].startswith("sender_key_invalid: ")
    with pytest.raises(ConversionError) as caught:
        golang.import_sender_key({"SenderKeyStates": value["SenderKeyStates"][:1]})
    assert caught.value.code == "sender_key_invalid"


def test_more_sender_keys_than_we_keep() -> None:
    _, member, _ = group_records()
    many = SenderKeyRecord(member.states * 4)
    for convert in GROUPS.values():
        assert convert(many).record == SenderKeyRecord(many.states[:5])
    (state,) = groups.create(seeded(1)).states
    foreign = replace(
        state, private=None, iteration=9000, seeds=skipped.append(b"", 0, [bytes(32)] * 2100, NOW)
    )
    made = golang.import_sender_key(golang.export_sender_key(SenderKeyRecord((foreign,))), NOW).record
    counters = [counter for counter, _, _ in skipped.unpack(made.states[0].seeds, skipped.SEED_ENTRY)]
    assert counters == list(range(100, 2100))


# Byte spellings and hostile input.


@pytest.mark.parametrize(
    "value",
    [
        "DP8=",
        "DP8",
        {"type": "Buffer", "data": "DP8="},
        {"type": "Buffer", "data": [12, 255]},
        {"buffer": True, "data": [12, 255]},
        {"buffer": True, "value": "DP8="},
        {"0": 12, "1": 255},
        {"1": 255, "0": 12},
        {"$binary": {"base64": "DP8=", "subType": "00"}},
        {"type": "Buffer", "data": {"type": "Buffer", "data": [12, 255]}},
        [12, 255],
        [12.0, 255],
    ],
)
def test_every_spelling_of_bytes(value: object) -> None:
    assert common.decode_bytes(value, "it") == b"\x0c\xff"


def test_url_safe_and_absent_bytes() -> None:
    assert common.decode_bytes("-_8", "it") == b"\xfb\xff"
    assert common.decode_bytes(None, "it") is None
    assert common.decode_bytes({"type": "Buffer"}, "it") == b""


@pytest.mark.parametrize(
    "value", ["***", "A", "ä", 5, 1.5, True, [256], [-1], ["1"], [True], {"1": 1}, {"x": 1}]
)
def test_other_values_are_no_bytes(value: object) -> None:
    with pytest.raises(ValueRefusedError, match=r"^it "):
        common.decode_bytes(value, "it")


LOCAL = LocalIdentity(new_pair(1), 5)
IMPORTERS: dict[str, Callable[[Any], object]] = {
    "node session": lambda value: node.import_session(value, LOCAL),
    "go session": golang.import_session,
    "native session": native.import_session,
    "node sender key": node.import_sender_key,
    "go sender key": golang.import_sender_key,
    "native sender key": native.import_sender_key,
}
EVERY_IMPORTER = pytest.mark.parametrize("convert", IMPORTERS.values(), ids=IMPORTERS)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


def valid_values() -> list[Any]:
    """One good value for each importer, in their order."""
    _, bob, _ = experienced()
    record, (own, member, _) = bob.existing("alice"), group_records()
    states = SenderKeyRecord(own.states + member.states)
    inner = base64.b64decode(json.loads(node.export_sender_key(states))["data"])
    return [
        node.export_session(record).value,
        json.loads(golang.export_session(record)),
        json.loads(native.export_session(record)),
        json.loads(inner),
        json.loads(golang.export_sender_key(states)),
        json.loads(native.export_sender_key(states)),
    ]


VALID = dict(zip(IMPORTERS, valid_values(), strict=True))


@EVERY_IMPORTER
@pytest.mark.parametrize(
    "value", ["", "{", b"\xff", "[" * 100_000, 5, None, [], {}, "null", '"' * 9, b"{}", "1e999"]
)
def test_other_input_is_unreadable(convert: Callable[[object], object], value: object) -> None:
    with pytest.raises(ConversionError):
        convert(value)


@EVERY_IMPORTER
def test_too_large_input_is_not_looked_at(convert: Callable[[object], object]) -> None:
    with pytest.raises(ConversionError, match="item_unreadable"):
        convert(b" " * (MAX_FOREIGN_RECORD_SIZE + 1))


@EVERY_IMPORTER
@given(value=JSON_VALUES)
@settings(max_examples=40)
def test_any_json_is_refused_with_a_typed_error(convert: Callable[[object], object], value: object) -> None:
    with pytest.raises(ConversionError):
        convert(value)


@pytest.mark.parametrize("name", IMPORTERS)
@given(data=st.data())
@settings(max_examples=80)
def test_damaged_records_are_read_in_part_or_refused(name: str, data: st.DataObject) -> None:
    value = copy.deepcopy(VALID[name])
    place: Any = value
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(JSON_VALUES)
    try:
        made = IMPORTERS[name](value)
    except ConversionError:
        return
    assert isinstance(made, Imported)
    assert type(made.record).parse(made.record.serialize()) == made.record


@given(data=st.data())
@settings(max_examples=150)
def test_damaged_protobuf_is_read_in_part_or_refused(data: st.DataObject) -> None:
    for stored, convert in PROTOBUF:
        damaged = bytearray(stored)
        for _ in range(data.draw(st.integers(1, 3))):
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
        try:
            made = convert(bytes(damaged))
        except ConversionError:
            continue
        assert isinstance(made, Imported)
        assert type(made.record).parse(made.record.serialize()) == made.record


PROTOBUF: list[tuple[bytes, Callable[[bytes], object]]] = [
    (protobuf.export_session(experienced()[1].existing("alice")), protobuf.import_session),
    (protobuf.export_sender_key(group_records()[1]), protobuf.import_sender_key),
]


def test_other_protobuf_input() -> None:
    for _, convert in PROTOBUF:
        for data in (b"", b"\xff", bytes(MAX_FOREIGN_RECORD_SIZE + 1)):
            with pytest.raises(ConversionError):
                convert(data)


@pytest.mark.parametrize("name", IMPORTERS)
def test_warnings_name_places_and_not_values(name: str) -> None:
    """Damage every text in turn; no message may quote what stood there."""
    for path in text_paths(VALID[name]):
        value = copy.deepcopy(VALID[name])
        place: Any = value
        for key in path[:-1]:
            place = place[key]
        secret = place[path[-1]]
        place[path[-1]] = secret[:-8] + "========"
        try:
            made = IMPORTERS[name](value)
            assert isinstance(made, Imported)
            told = " ".join(made.warnings)
        except ConversionError as error:
            told = str(error)
        assert secret[:12] not in told


def text_paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, str):
        return [path] if len(value) > 20 else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, item in items for found in text_paths(item, (*path, key))]
