"""No type, no error and no rich representation of the room shows key material or plaintext."""

from __future__ import annotations

import base64
import dataclasses
import importlib
import inspect
import pkgutil
import traceback
from collections.abc import Callable, Iterator

import msgspec
import pytest

import waD.e2ee
from tests.e2ee.parties import Device, acquainted, flip, new_pair, seeded
from waD.e2ee import adv, curve, documents, groups, media, messages, ratchet, session, skipped
from waD.e2ee.address import SignalAddress
from waD.e2ee.documents import SenderKeyDocument, SessionDocument
from waD.e2ee.errors import SignalError
from waD.e2ee.groups import SenderKeyRecord
from waD.e2ee.interop import common, node, protobuf
from waD.e2ee.record import SessionRecord
from waD.e2ee.syncd import mutations, patches
from waD.e2ee.syncd.keys import MutationKeys
from waD.e2ee.syncd.lthash import EMPTY
from waD.proto.appstate_pb2 import SyncActionValue

PLAINTEXT = b"meet me at the old mill at nine"


def sessions() -> tuple[Device, Device]:
    """Devices with pending, archived and skipped parts in their records."""
    alice, bob = acquainted()
    alice.send(bob, b"lost")
    bob.receive(alice, alice.send(bob, b"x"))
    alice.initiate(bob)
    return alice, bob


ALICE, BOB = sessions()
ALICES = ALICE.existing("bob")
BOBS = BOB.existing("alice")
LETTER = ALICE.send(BOB, PLAINTEXT)
GROUP = groups.create(seeded(5))
MEMBER = groups.process_distribution(None, groups.distribution(GROUP))
_, GROUP_LETTER = groups.encrypt(GROUP, PLAINTEXT, seeded(6))
MEDIA_KEY = bytes(range(100, 132))
MEDIA_KEYS = media.expand(MEDIA_KEY, "image")
SETTINGS_KEY_ID, SETTINGS_KEY = b"\0\0\0\0\0\x01", MutationKeys.expand(bytes(range(50, 82)))
SETTING = mutations.encode(
    SETTINGS_KEY_ID,
    SETTINGS_KEY,
    mutations.Operation.SET,
    mutations.index_json(["setting_pushName", PLAINTEXT.decode()]),
    SyncActionValue(timestamp=1, pushNameSetting={"name": PLAINTEXT.decode()}),
    1,
    bytes(16),
)
BUILT = patches.build_patch(
    "critical_block",
    patches.CollectionState(0, EMPTY),
    [SETTING],
    SETTINGS_KEY_ID,
    {SETTINGS_KEY_ID: SETTINGS_KEY},
    {},
)
SEALED = media.encrypt(MEDIA_KEY, "image", PLAINTEXT)


def documents_of(record: SessionRecord | SenderKeyRecord) -> Iterator[object]:
    """What a record is stored as, and all that is inside."""
    read = SessionDocument if isinstance(record, SessionRecord) else SenderKeyDocument
    waiting: list[object] = [msgspec.json.decode(record.serialize(), type=read)]
    while waiting:
        value = waiting.pop()
        if isinstance(value, msgspec.Struct):
            yield value
            waiting += (getattr(value, name) for name in value.__struct_fields__)
        elif isinstance(value, list):
            waiting += value


def samples() -> list[object]:
    """At least one object of every type of the room, as secret as it can be."""
    alice, bob = ALICES.current, BOBS.current
    assert alice is not None
    assert alice.pending is not None
    assert bob is not None
    distribution = messages.parse_distribution(groups.distribution(GROUP))
    return [
        *(ALICES, BOBS, alice, bob, alice.pending, alice.sender, *bob.receivers),
        *(GROUP, MEMBER, *GROUP.states, *MEMBER.states, distribution),
        ALICE.local,
        ALICE.local.identity,
        ALICE.bundle(),
        session.encrypt(ALICES, ALICE.local, PLAINTEXT),
        BOB.open(ALICE, LETTER),
        messages.parse_prekey_message(LETTER[1]),
        messages.parse_prekey_message(LETTER[1]).message,
        messages.parse_sender_key_message(GROUP_LETTER),
        ratchet.message_keys(bytes(range(32))),
        ratchet._find_keys(bob.receivers[-1], 50, 0),
        common.Imported(BOBS),
        common.Imported(GROUP),
        node.export_session(BOBS),
        *documents_of(ALICES),
        *documents_of(BOBS),
        *documents_of(GROUP),
        MEDIA_KEYS,
        SEALED[1],
        SETTINGS_KEY,
        *(BUILT, BUILT.applied, BUILT.applied.state, *BUILT.applied.mutations),
        SignalAddress("1", 0, 0),
        adv.AdvResult(ALICE.local.identity.public, False, 1, 2, 3, False, False),
        adv.KeyIndexList(1, 2, 3, frozenset(), False, True),
    ]


def secrets() -> set[bytes]:
    """All key material inside the samples, and the plaintext."""
    found = {PLAINTEXT, *ratchet.message_keys(bytes(range(32)))}
    found |= {SETTINGS_KEY.index, SETTINGS_KEY.value_encryption, SETTINGS_KEY.value_mac}
    found |= {SETTINGS_KEY.snapshot_mac, SETTINGS_KEY.patch_mac}
    found |= {MEDIA_KEY, MEDIA_KEYS.iv, MEDIA_KEYS.cipher_key, MEDIA_KEYS.mac_key, MEDIA_KEYS.ref_key}
    for device in (ALICE, BOB):
        pairs = [device.local.identity, device.signed_prekey, *device.prekeys.values()]
        found |= {pair.private for pair in pairs}
    for state in (*ALICES.states(), *BOBS.states()):
        found |= {state.root_key, state.sender.private, state.sender.key}
        for chain in state.receivers:
            found |= {chain.key or PLAINTEXT}
            found |= {key for _, _, key in skipped.unpack(chain.seeds, skipped.SEED_ENTRY)}
    for key in (*GROUP.states, *MEMBER.states):
        found |= {key.chain_key, key.private or PLAINTEXT}
    return found


def shapes(secret: bytes) -> Iterator[str]:
    """How a secret would look in a text; the first bytes are enough to notice it."""
    yield secret[:12].hex()
    yield base64.b64encode(secret[:12]).decode()
    yield repr(secret[:12])[2:-1]
    yield str(list(secret[:6]))[1:-1]


def assert_harmless(text: str) -> None:
    for secret in SECRETS:
        for shape in shapes(secret):
            assert shape not in text


SECRETS = secrets()


def rich(value: object) -> str:
    """What rich tracebacks and pretty printers would show."""
    method = getattr(value, "__rich_repr__", None)
    return "" if method is None else str([str(item) for item in method()])


@pytest.mark.parametrize("sample", samples(), ids=lambda sample: type(sample).__name__)
def test_representations_are_harmless(sample: object) -> None:
    for text in (repr(sample), str(sample), f"{sample}", f"{[sample]}", rich(sample)):
        assert_harmless(text)


def test_the_check_itself_notices_a_secret() -> None:
    secret = next(iter(SECRETS))
    for text in (repr(secret), secret.hex(), base64.b64encode(secret).decode(), str(list(secret))):
        with pytest.raises(AssertionError):
            assert_harmless(text)


def types_of_the_room() -> set[type]:
    found = set()
    for module in pkgutil.walk_packages(waD.e2ee.__path__, "waD.e2ee."):
        for value in vars(importlib.import_module(module.name)).values():
            if inspect.isclass(value) and value.__module__.startswith("waD.e2ee") and holds_data(value):
                found.add(value)
    return found


def holds_data(kind: type) -> bool:
    return (
        dataclasses.is_dataclass(kind)
        or (issubclass(kind, msgspec.Struct) and bool(kind.__struct_fields__))
        or hasattr(kind, "_fields")
    )


def test_every_type_has_a_sample() -> None:
    sampled = {type(sample) for sample in samples()}
    assert types_of_the_room() <= sampled, types_of_the_room() - sampled


def failures() -> dict[str, Callable[[], object]]:
    bob_session = BOBS.serialize()
    return {
        "bad mac": lambda: BOB.open(ALICE, ("pkmsg", flip(LETTER[1], -12))),
        "no session": lambda: session.encrypt(SessionRecord(None), ALICE.local, PLAINTEXT),
        "unknown prekey": lambda: Device("carol", 9, 0).open(ALICE, LETTER),
        "broken record": lambda: SessionRecord.parse(bob_session[:-3]),
        "broken sender key": lambda: SenderKeyRecord.parse(GROUP.serialize()[:-1]),
        "short key": lambda: curve.KeyPair.from_private(ALICE.local.identity.private[:-1]),
        "short signing key": lambda: curve.sign(ALICE.local.identity.private[:-1], b"", seeded(1)),
        "low order": lambda: curve.agree(ALICE.local.identity.private, bytes(32)),
        "group signature": lambda: groups.decrypt(MEMBER, flip(GROUP_LETTER, -1)),
        "group chain": lambda: groups.process_distribution(None, groups.distribution(GROUP)[:-1]),
        "untrusted": lambda: BOB.open(ALICE, LETTER, pinned=new_pair(70).public),
        "bundle": lambda: session.process_bundle(
            None,
            ALICE.local,
            msgspec.structs.replace(BOB.bundle(), signature=bytes(64)),
            new_pair(1),
            new_pair(2),
        ),
        "foreign": lambda: protobuf.import_session(protobuf.export_session(BOBS)[:-9]),
        "foreign pair": lambda: common.sender_chain(bytes(32), ALICE.local.identity.private, 0, bytes(32)),
        "media key": lambda: media.expand(MEDIA_KEY[:-1], "image"),
        "media kind": lambda: media.expand(MEDIA_KEY, "ppic"),  # type: ignore[arg-type]
        "media file": lambda: media.decrypt(MEDIA_KEY, "video", SEALED[0], enc_sha256=SEALED[1].enc_sha256),
        "media plaintext": lambda: media.decrypt(
            MEDIA_KEY, "image", SEALED[0], enc_sha256=SEALED[1].enc_sha256, file_sha256=bytes(32)
        ),
        "adv": lambda: adv.verify_companion(bytes(32), LETTER[1], None),
    }


@pytest.mark.parametrize("fail", failures().values(), ids=failures())
def test_errors_and_their_causes_are_harmless(fail: Callable[[], object]) -> None:
    with pytest.raises(Exception) as caught:
        fail()
    error = caught.value
    assert type(error).__module__.startswith("waD.e2ee")
    assert_harmless(str(error) + repr(error) + str(vars(error)))
    assert_harmless("".join(traceback.format_exception(error)))
    if isinstance(error, SignalError):
        assert str(error).startswith(f"{error.code}: ")


def test_secret_types_say_what_they_are() -> None:
    state = BOBS.current
    assert state is not None
    assert repr(state).startswith(f"SessionState(base={curve.fingerprint(state.base_key)}")
    assert f"ratchet={curve.fingerprint(state.sender.public)}" in repr(state.sender)
    assert "skipped=1" in repr(state.receivers[-1])
    assert f"key_id={GROUP.states[0].key_id}" in repr(GROUP.states[0])
    assert repr(documents.Secret()) == "Secret()"
