"""Patches and snapshots: any history gives every client the same; whatever is wrong changes nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.e2ee.syncd.entries import KEYS, NAME, NEW_ID, OLD_ID, Replica, sealed, versioned
from waD.e2ee.syncd import limits, patches
from waD.e2ee.syncd.errors import MissingKeys, SyncdError
from waD.e2ee.syncd.lthash import EMPTY, lt_hash
from waD.e2ee.syncd.mutations import Operation
from waD.proto.appstate_pb2 import ExternalBlobReference, SyncdPatch, SyncdSnapshot

CHATS = [f"{number}@lid" for number in range(5)]

steps = st.lists(
    st.dictionaries(
        st.sampled_from(CHATS),
        st.tuples(
            st.sampled_from(Operation),
            st.booleans(),
            st.sampled_from([OLD_ID, NEW_ID]),
            st.binary(min_size=16, max_size=16),
        ),
        max_size=len(CHATS),
    ),
    max_size=8,
)


@given(steps)
def test_every_client_comes_to_the_same(
    history: list[dict[str, tuple[Operation, bool, bytes, bytes]]],
) -> None:
    """The writer, a reader of all patches, and the hash over what is left of them agree."""
    writer, reader, pins = Replica(), Replica(), dict[tuple[str, bytes], bool]()
    for step in history:
        listed = [
            sealed(op, chat, pinned=pinned, key=key, iv=iv) for chat, (op, pinned, key, iv) in step.items()
        ]
        built = writer.build(listed)
        applied = reader.apply(versioned(built, writer.state.version + 1))
        assert not applied.mac_mismatch
        assert applied == built.applied
        writer.store(built.applied)
        reader.store(applied)
        for chat, (operation, pinned, key, _) in step.items():
            pins.pop((chat, key), None)
            if operation is Operation.SET:
                pins[(chat, key)] = pinned
    assert writer == reader
    assert reader.state.version == len(history)
    assert reader.state.hash == lt_hash(reader.macs.values())
    assert len(reader.macs) == len(pins)


def test_rotation_moves_an_entry_to_the_new_key() -> None:
    replica = Replica()
    replica.store(replica.build([sealed(Operation.SET, "a")]).applied)
    move = [sealed(Operation.SET, "a", key=NEW_ID), sealed(Operation.REMOVE, "a", key=OLD_ID)]
    replica.store(replica.build(move, NEW_ID).applied)
    assert replica.pins == {"a": True}
    assert len(replica.macs) == 1
    assert replica.state.hash == lt_hash(replica.macs.values())


@pytest.mark.parametrize("order", [(Operation.SET, Operation.REMOVE), (Operation.REMOVE, Operation.SET)])
def test_set_and_removal_of_one_entry_leave_what_was_set(order: tuple[Operation, Operation]) -> None:
    """Lookups are before the patch: the removal takes the old value, whatever the order (chapter 05 §4.7)."""
    replica = Replica()
    replica.store(replica.build([sealed(Operation.SET, "a")]).applied)
    listed = [sealed(one, "a", pinned=False, iv=b"\x02" * 16) for one in order]
    replica.store(replica.build(listed).applied)
    assert replica.pins == {"a": False}
    assert replica.state.hash == lt_hash(replica.macs.values()) != EMPTY


def test_a_removal_of_nothing_changes_nothing() -> None:
    replica = Replica()
    replica.store(replica.build([sealed(Operation.REMOVE, "a")]).applied)
    assert (replica.state.hash, replica.macs) == (EMPTY, {})


def no_version(patch: SyncdPatch) -> None:
    patch.ClearField("version")


def no_key(patch: SyncdPatch) -> None:
    patch.ClearField("keyId")


def no_snapshot_mac(patch: SyncdPatch) -> None:
    patch.ClearField("snapshotMac")


def no_patch_mac(patch: SyncdPatch) -> None:
    patch.ClearField("patchMac")


def file_too(patch: SyncdPatch) -> None:
    patch.externalMutations.CopyFrom(reference())


def failed(patch: SyncdPatch) -> None:
    patch.exitCode.code = 3


def reference() -> ExternalBlobReference:
    return ExternalBlobReference(mediaKey=b"k", directPath="/v/x", fileSha256=b"h", fileEncSha256=b"e")


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (no_version, "version"),
        (no_key, "malformed"),
        (no_snapshot_mac, "malformed"),
        (no_patch_mac, "malformed"),
        (file_too, "malformed"),
        (failed, "exit-code"),
    ],
)
def test_an_incomplete_patch_is_refused(damage: Callable[[SyncdPatch], None], code: str) -> None:
    built = Replica().build([sealed(Operation.SET, "a")])
    built.patch.version.version = 1
    damage(built.patch)
    with pytest.raises(SyncdError) as caught:
        Replica().apply(built.patch.SerializeToString())
    assert caught.value.code == code


def test_all_missing_keys_are_named_at_once() -> None:
    built = Replica().build([sealed(Operation.SET, "a"), sealed(Operation.SET, "b", key=NEW_ID)])
    built.patch.version.version = 1
    with pytest.raises(MissingKeys) as caught:
        patches.apply_patch(NAME, patches.EMPTY_STATE, built.patch, built.patch.mutations, {}, {})
    assert caught.value.key_ids == (OLD_ID, NEW_ID)


def test_another_history_of_the_writer_is_told_and_not_fatal() -> None:
    writer = Replica()
    writer.store(writer.build([sealed(Operation.SET, "a")]).applied)
    data = versioned(writer.build([sealed(Operation.SET, "b")]), 2)
    reader = Replica()
    reader.store(reader.build([sealed(Operation.SET, "c")]).applied)
    assert reader.apply(data).mac_mismatch


@pytest.mark.parametrize("field", ["mediaKey", "directPath", "fileSha256", "fileEncSha256"])
def test_a_reference_names_all_that_a_download_needs(field: str) -> None:
    patch = SyncdPatch(externalMutations=reference())
    assert patches.external_mutations(patch) == reference()
    patch.externalMutations.ClearField(field)  # type: ignore[arg-type]
    with pytest.raises(SyncdError, match="reference"):
        patches.external_mutations(patch)


def test_no_reference_is_none() -> None:
    assert patches.external_mutations(SyncdPatch()) is None


def snapshot_of(replica: Replica, chats: list[str]) -> SyncdSnapshot:
    built = replica.build([sealed(Operation.SET, chat) for chat in chats])
    result = SyncdSnapshot(mac=built.patch.snapshotMac, records=[one.record for one in built.patch.mutations])
    result.version.version, result.keyId.id = 1, OLD_ID
    return result


@pytest.mark.parametrize("field", ["version", "mac", "keyId"])
def test_an_incomplete_snapshot_is_refused(field: str) -> None:
    snapshot = snapshot_of(Replica(), ["a"])
    assert patches.apply_snapshot(NAME, snapshot, KEYS).state.version == 1
    snapshot.ClearField(field)  # type: ignore[arg-type]
    with pytest.raises(SyncdError, match="malformed"):
        patches.apply_snapshot(NAME, snapshot, KEYS)


def test_a_snapshot_misses_no_record() -> None:
    snapshot = snapshot_of(Replica(), ["a", "b"])
    del snapshot.records[0]
    with pytest.raises(SyncdError, match="snapshot-mac"):
        patches.apply_snapshot(NAME, snapshot, KEYS)


@pytest.mark.parametrize("parse", [patches.parse_patch, patches.parse_snapshot, patches.parse_mutations])
def test_unreadable_and_huge_input_is_refused(
    parse: Callable[[bytes], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SyncdError, match="malformed"):
        parse(b"\x0a\xff")
    monkeypatch.setattr(patches, "MAX_FILE_SIZE", 10)
    monkeypatch.setattr(patches, "MAX_PATCH_SIZE", 10)
    with pytest.raises(SyncdError, match="limit"):
        parse(bytes(11))


def test_entries_are_counted_before_they_are_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    built = Replica().build([sealed(Operation.SET, chat) for chat in CHATS])
    snapshot = snapshot_of(Replica(), CHATS)
    monkeypatch.setattr(patches, "MAX_ENTRIES", len(CHATS) - 1)
    for action in (
        lambda: Replica().apply(versioned(built, 1)),
        lambda: Replica().build(built.patch.mutations),
        lambda: patches.apply_snapshot(NAME, snapshot, KEYS),
    ):
        with pytest.raises(SyncdError, match="limit"):
            action()
    assert limits.MAX_ENTRIES > 10_000


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_read(data: bytes) -> None:
    try:
        Replica().apply(data)
    except SyncdError:
        return
    raise AssertionError("nobody signed this")
