"""Snapshots of a collection as a server makes them: blindly, out of the patches it has (chapter 05 §4.4)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from google.protobuf.message import DecodeError

from waD.proto.appstate_pb2 import ExternalBlobReference, SyncdMutations, SyncdPatch, SyncdSnapshot
from waD.proto.e2e_pb2 import SyncdMutation, SyncdRecord
from waD.sandbox.errors import SandboxError

Load = Callable[[ExternalBlobReference], bytes]


class BlobStore(Protocol):
    """Where files of the app state are kept (media type md-app-state)."""

    def store(self, data: bytes) -> ExternalBlobReference:
        """Seal a file under a fresh key and keep it; the reference says where it is."""

    def load(self, reference: ExternalBlobReference) -> bytes:
        """Open a file; raises SandboxError when it is gone or not what the reference says."""


def snapshot_of(patches: Sequence[SyncdPatch], load: Load) -> SyncdSnapshot:
    """The state after some patches: what was set last under each index MAC and not removed since.

    Version, MAC and key id are those of the last patch: the formulas of both are the same.

    Args:
        patches: all of a collection up to a version, at least one.
        load: opens the files in which patches have their mutations; raises SandboxError.

    Raises:
        SandboxError: the mutations of a patch cannot be had.
    """
    live: dict[bytes, SyncdRecord] = {}
    for patch in patches:
        # What a patch removes was there before it (chapter 05 §4.7), so its removals come first.
        mutations = mutations_of(patch, load)
        for mutation in _only(mutations, SyncdMutation.REMOVE):
            live.pop(mutation.record.index.blob, None)
        for mutation in _only(mutations, SyncdMutation.SET):
            live[mutation.record.index.blob] = mutation.record
    last = patches[-1]
    return SyncdSnapshot(version=last.version, records=live.values(), mac=last.snapshotMac, keyId=last.keyId)


def mutations_of(patch: SyncdPatch, load: Load) -> Sequence[SyncdMutation]:
    """The mutations of a patch, from its file when they are in one; raises SandboxError."""
    if not patch.HasField("externalMutations"):
        return patch.mutations
    try:
        return SyncdMutations.FromString(load(patch.externalMutations)).mutations
    except DecodeError:
        raise SandboxError(f"the file of patch {patch.version.version} holds no mutations") from None


def _only(
    mutations: Sequence[SyncdMutation], operation: SyncdMutation.SyncdOperation.ValueType
) -> Iterable[SyncdMutation]:
    return (one for one in mutations if one.operation == operation)
