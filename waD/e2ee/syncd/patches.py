"""Patches and snapshots: checked, applied and built (chapter 05 §4.7 to §4.9)."""

from __future__ import annotations

import hmac
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from google.protobuf.message import DecodeError

from waD.e2ee.kdf import hmac_sha256
from waD.e2ee.syncd import lthash, mutations
from waD.e2ee.syncd.errors import MissingKeys, SyncdError
from waD.e2ee.syncd.keys import MutationKeys
from waD.e2ee.syncd.limits import MAX_ENTRIES, MAX_FILE_SIZE, MAX_PATCH_SIZE
from waD.e2ee.syncd.mutations import Mutation, Operation
from waD.proto.appstate_pb2 import ExternalBlobReference, SyncdMutations, SyncdPatch, SyncdSnapshot
from waD.proto.e2e_pb2 import SyncdMutation, SyncdRecord

COLLECTIONS: Final = (
    "critical_block",
    "critical_unblock_low",
    "regular_high",
    "regular",
    "regular_low",
)
"""All five, in the order in which they are fetched (chapter 05 §4.1)."""

MAC_LENGTH: Final = 32


@dataclass(frozen=True, slots=True)
class CollectionState:
    """Where a collection stands: its version, and the 128-byte hash over its entries."""

    version: int
    hash: bytes = field(repr=False)


EMPTY_STATE: Final = CollectionState(0, lthash.EMPTY)


@dataclass(frozen=True, slots=True)
class Applied:
    """What a patch or a snapshot changes, none of it done yet.

    Attributes:
        state: after it.
        mutations: all of them in their order.
        sets: entries to store, by index MAC in place of what is there.
        removes: entries to delete; some may not be there.
        mac_mismatch: the hash is not the one that the writer of the patch had. The patch itself is authentic, so
            whether to go on is up to the caller (chapter 05 §4.9 row 14). Never true of a snapshot.
    """

    state: CollectionState
    mutations: tuple[Mutation, ...]
    sets: tuple[Mutation, ...]
    removes: tuple[Mutation, ...]
    mac_mismatch: bool = False


@dataclass(frozen=True, slots=True)
class Built:
    """A patch to upload, without version as the server wants it, and what it changes once it is accepted."""

    patch: SyncdPatch = field(repr=False)
    applied: Applied


def parse_patch(data: bytes) -> SyncdPatch:
    """Read a patch of at most 2 MiB; raises SyncdError(malformed or limit)."""
    _expect_size("a patch", data, MAX_PATCH_SIZE)
    try:
        return SyncdPatch.FromString(data)
    except DecodeError:
        raise SyncdError("malformed", "a patch that cannot be read") from None


def parse_mutations(data: bytes) -> tuple[SyncdMutation, ...]:
    """Read the mutations of a patch from their file of at most 64 MiB; raises SyncdError(malformed or limit)."""
    _expect_size("the mutations of a patch", data, MAX_FILE_SIZE)
    try:
        return tuple(SyncdMutations.FromString(data).mutations)
    except DecodeError:
        raise SyncdError("malformed", "a file of mutations that cannot be read") from None


def parse_snapshot(data: bytes) -> SyncdSnapshot:
    """Read a snapshot of at most 64 MiB; raises SyncdError(malformed or limit)."""
    _expect_size("a snapshot", data, MAX_FILE_SIZE)
    try:
        return SyncdSnapshot.FromString(data)
    except DecodeError:
        raise SyncdError("malformed", "a snapshot that cannot be read") from None


def external_mutations(patch: SyncdPatch) -> ExternalBlobReference | None:
    """Where the mutations of a patch are, if they are in a file (chapter 05 §4.9 rows 5 and 6).

    Raises SyncdError(malformed) when it has some inside too, or when the reference is not complete.
    """
    if not patch.HasField("externalMutations"):
        return None
    if patch.mutations:
        raise SyncdError("malformed", "a patch with mutations inside and in a file")
    return expect_reference(patch.externalMutations)


def expect_reference(reference: ExternalBlobReference) -> ExternalBlobReference:
    """The reference itself, if it has all that a download needs; raises SyncdError(malformed)."""
    needed = (reference.mediaKey, reference.directPath, reference.fileSha256, reference.fileEncSha256)
    if not all(needed):
        raise SyncdError("malformed", "a reference to a file without its key, path or hashes")
    return reference


def apply_patch(
    name: str,
    state: CollectionState,
    patch: SyncdPatch,
    patch_mutations: Sequence[SyncdMutation],
    keys: Mapping[bytes, MutationKeys],
    stored: Mapping[bytes, bytes],
) -> Applied:
    """Check a patch that follows `state` and say what it changes; all or nothing (chapter 05 §4.9).

    Args:
        name: of the collection.
        state: before the patch.
        patch: with its version.
        patch_mutations: `patch.mutations`, or those of its file, see external_mutations.
        keys: by key id.
        stored: value MACs of the entries before the patch, by index MAC.

    Raises:
        MissingKeys: keys of the patch or of entries are not in `keys`; all of them are named.
        SyncdError: whatever else is wrong.
    """
    version = _version_after(state, patch)
    _expect_complete(patch, patch_mutations)
    records = [one.record for one in patch_mutations]
    _expect_keys(keys, patch.keyId.id, records)
    patch_keys = keys[patch.keyId.id]
    value_macs = [mutations.value_mac_of(one) for one in records]
    expected = patch_mac(patch_keys, patch.snapshotMac, value_macs, version, name)
    if not hmac.compare_digest(expected, patch.patchMac):
        raise SyncdError("patch-mac", f"patch {version} of {name} has a wrong MAC")
    _expect_unique(patch_mutations)
    decoded = tuple(mutations.decode(keys, one) for one in patch_mutations)
    after = CollectionState(version, _hash_after(state.hash, decoded, stored))
    mismatch = not hmac.compare_digest(_snapshot_mac(patch_keys, after, name), patch.snapshotMac)
    return _applied(after, decoded, mac_mismatch=mismatch)


def apply_snapshot(name: str, snapshot: SyncdSnapshot, keys: Mapping[bytes, MutationKeys]) -> Applied:
    """Check a snapshot, which replaces all of a collection (chapter 05 §4.9 row 15).

    Raises:
        MissingKeys: keys of the snapshot or of records are not in `keys`; all of them are named.
        SyncdError: whatever else is wrong; snapshot-mac when the records are not what the writer had.
    """
    _expect_count(len(snapshot.records))
    if not (snapshot.version.version and snapshot.mac and snapshot.keyId.id):
        raise SyncdError("malformed", f"a snapshot of {name} without version, MAC or key id")
    _expect_keys(keys, snapshot.keyId.id, snapshot.records)
    decoded = tuple(mutations.decode(keys, one) for one in snapshot.records)
    state = CollectionState(snapshot.version.version, lthash.lt_hash(one.value_mac for one in decoded))
    if not hmac.compare_digest(_snapshot_mac(keys[snapshot.keyId.id], state, name), snapshot.mac):
        raise SyncdError("snapshot-mac", f"snapshot {state.version} of {name} has a wrong MAC")
    return _applied(state, decoded)


def build_patch(
    name: str,
    state: CollectionState,
    patch_mutations: Sequence[SyncdMutation],
    key_id: bytes,
    keys: Mapping[bytes, MutationKeys],
    stored: Mapping[bytes, bytes],
    *,
    external: ExternalBlobReference | None = None,
) -> Built:
    """Make the patch that follows `state` out of sealed mutations, see mutations.encode.

    Args:
        name: of the collection.
        state: that the patch is based on.
        patch_mutations: in their order.
        key_id: of the key that signs the patch.
        keys: by key id; that of the patch and those of the mutations.
        stored: value MACs of the entries before the patch, by index MAC.
        external: the file that holds the mutations, if they do not travel inside.

    Raises:
        SyncdError: others would refuse the patch.
    """
    records = [one.record for one in patch_mutations]
    _expect_count(len(records))
    _expect_keys(keys, key_id, records)
    _expect_unique(patch_mutations)
    decoded = tuple(mutations.decode(keys, one) for one in patch_mutations)
    after = CollectionState(state.version + 1, _hash_after(state.hash, decoded, stored))
    patch = SyncdPatch(snapshotMac=_snapshot_mac(keys[key_id], after, name))
    value_macs = [one.value_mac for one in decoded]
    patch.patchMac = patch_mac(keys[key_id], patch.snapshotMac, value_macs, after.version, name)
    patch.keyId.id = key_id
    if external is None:
        patch.mutations.extend(patch_mutations)
    else:
        patch.externalMutations.CopyFrom(expect_reference(external))
    return Built(patch, _applied(after, decoded))


def patch_mac(
    keys: MutationKeys, snapshot_mac: bytes, value_macs: Sequence[bytes], version: int, name: str
) -> bytes:
    """The 32 bytes that sign a patch of the collection `name` which leads to `version` (chapter 05 §4.8)."""
    signed = b"".join((snapshot_mac, *value_macs, version.to_bytes(8, "big"), name.encode()))
    return hmac_sha256(keys.patch_mac, signed)


def _applied(state: CollectionState, decoded: tuple[Mutation, ...], *, mac_mismatch: bool = False) -> Applied:
    sets = tuple(one for one in decoded if one.operation is Operation.SET)
    live = {one.index_mac for one in sets}
    # The hash counts what was set, also when the same patch removes what was there before.
    gone = tuple(one for one in decoded if one.operation is Operation.REMOVE and one.index_mac not in live)
    return Applied(state, decoded, sets, gone, mac_mismatch)


def _hash_after(before: bytes, decoded: Sequence[Mutation], stored: Mapping[bytes, bytes]) -> bytes:
    """All lookups are in what was stored before the patch, whatever its order (chapter 05 §4.7)."""
    removed_indexes = {one.index for one in decoded if one.operation is Operation.REMOVE}
    added: list[bytes] = []
    removed: list[bytes] = []
    for one in decoded:
        known = stored.get(one.index_mac)
        if one.operation is Operation.SET:
            added.append(one.value_mac)
            if one.index in removed_indexes:  # the removal accounts for the old value
                continue
        if known is not None:
            removed.append(known)
    return lthash.updated(before, added, removed)


def _version_after(state: CollectionState, patch: SyncdPatch) -> int:
    version = patch.version.version
    if version != state.version + 1:
        raise SyncdError("version", f"patch {version} does not follow version {state.version}")
    return version


def _expect_complete(patch: SyncdPatch, patch_mutations: Sequence[SyncdMutation]) -> None:
    if patch.exitCode.code:
        raise SyncdError("exit-code", f"patch {patch.version.version} was ended with {patch.exitCode.code}")
    if not (patch.snapshotMac and patch.patchMac and patch.keyId.id):
        raise SyncdError("malformed", f"patch {patch.version.version} has no MAC or no key id")
    external_mutations(patch)
    _expect_count(len(patch_mutations))
    for mutation in patch_mutations:
        mutations.expect_complete(mutation)


def _expect_keys(keys: Mapping[bytes, MutationKeys], signer: bytes, records: Sequence[SyncdRecord]) -> None:
    needed = dict.fromkeys((signer, *(one.keyId.id for one in records)))
    if missing := [one for one in needed if one not in keys]:
        raise MissingKeys(missing)


def _expect_unique(patch_mutations: Sequence[SyncdMutation]) -> None:
    named = Counter((one.operation, one.record.index.blob) for one in patch_mutations)
    if any(count > 1 for count in named.values()):
        raise SyncdError("duplicate-index", "a patch that does the same to one entry twice")


def _expect_count(count: int) -> None:
    if count > MAX_ENTRIES:
        raise SyncdError("limit", f"{count} entries at once, more than {MAX_ENTRIES}")


def _expect_size(what: str, data: bytes, limit: int) -> None:
    if len(data) > limit:
        raise SyncdError("limit", f"{what} of {len(data)} bytes, more than {limit}")


def _snapshot_mac(keys: MutationKeys, state: CollectionState, name: str) -> bytes:
    return hmac_sha256(keys.snapshot_mac, state.hash + state.version.to_bytes(8, "big") + name.encode())
