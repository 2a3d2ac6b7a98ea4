"""Entries to make collections of, and what clients keep of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from waD.e2ee.syncd import mutations, patches
from waD.e2ee.syncd.keys import MutationKeys, key_id
from waD.e2ee.syncd.mutations import Operation
from waD.e2ee.syncd.patches import EMPTY_STATE, Applied, Built, CollectionState
from waD.proto.appstate_pb2 import SyncActionValue
from waD.proto.e2e_pb2 import SyncdMutation

NAME = "regular_low"
OLD_ID, NEW_ID = key_id(0, 7), key_id(0, 8)
KEYS = {OLD_ID: MutationKeys.expand(bytes(32)), NEW_ID: MutationKeys.expand(bytes(range(32)))}


def sealed(
    operation: Operation, chat: str, *, pinned: bool = True, key: bytes = OLD_ID, iv: bytes = bytes(16)
) -> SyncdMutation:
    """A mutation of one chat's pin."""
    value = SyncActionValue(timestamp=1_700_000_000_000)
    value.pinAction.pinned = pinned
    return mutations.encode(key, KEYS[key], operation, mutations.index_json(["pin_v1", chat]), value, 5, iv)


@dataclass
class Replica:
    """What a client keeps of one collection: its state, value MACs by index MAC, and pins by chat."""

    state: CollectionState = EMPTY_STATE
    macs: dict[bytes, bytes] = field(default_factory=dict)
    pins: dict[str, bool] = field(default_factory=dict)

    def store(self, applied: Applied) -> None:
        for one in applied.removes:
            self.macs.pop(one.index_mac, None)
        for one in applied.sets:
            self.macs[one.index_mac] = one.value_mac
        kept = {one.index for one in applied.sets}
        for one in applied.mutations:
            assert one.parts is not None
            if one.operation is Operation.SET:
                assert one.value is not None
                self.pins[one.parts[1]] = one.value.pinAction.pinned
            elif one.index not in kept:
                self.pins.pop(one.parts[1], None)
        self.state = applied.state

    def build(self, listed: Sequence[SyncdMutation], key: bytes = OLD_ID) -> Built:
        return patches.build_patch(NAME, self.state, listed, key, KEYS, self.macs)

    def apply(self, data: bytes) -> Applied:
        patch = patches.parse_patch(data)
        return patches.apply_patch(NAME, self.state, patch, patch.mutations, KEYS, self.macs)


def versioned(built: Built, version: int) -> bytes:
    """What the server hands out of a patch that was uploaded to it."""
    built.patch.version.version = version
    return built.patch.SerializeToString()
