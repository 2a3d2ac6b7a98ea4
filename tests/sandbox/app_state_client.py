"""A companion that keeps the app state: the shared checks of patches around requests of its own."""

from __future__ import annotations

from collections.abc import Callable

from tests.sandbox.core_client import CoreClient
from waD.e2ee.syncd import mutations, patches
from waD.e2ee.syncd.keys import MutationKeys, active_key_id
from waD.e2ee.syncd.mutations import Mutation, Operation, index_json
from waD.e2ee.syncd.patches import EMPTY_STATE, Applied, CollectionState
from waD.proto.appstate_pb2 import ExternalBlobReference, SyncActionValue, SyncdPatch
from waD.proto.e2e_pb2 import Message
from waD.wire.node import Node

Open = Callable[[ExternalBlobReference], bytes]


class Collection:
    """What a client keeps of one collection."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.state: CollectionState = EMPTY_STATE
        self.entries: dict[bytes, Mutation] = {}
        self.mismatches = 0

    @property
    def macs(self) -> dict[bytes, bytes]:
        return {index: one.value_mac for index, one in self.entries.items()}

    @property
    def values(self) -> dict[tuple[str, ...], SyncActionValue]:
        return {one.parts: one.value for one in self.entries.values() if one.parts and one.value}

    def store(self, applied: Applied) -> None:
        for one in applied.removes:
            self.entries.pop(one.index_mac, None)
        self.entries |= {one.index_mac: one for one in applied.sets}
        self.state = applied.state
        self.mismatches += applied.mac_mismatch


class AppStateClient:
    """Wraps a companion; keys come from the shares it is given."""

    def __init__(self, client: CoreClient, open_file: Open | None = None) -> None:
        self.client = client
        self.keys: dict[bytes, MutationKeys] = {}
        self.collections = {name: Collection(name) for name in patches.COLLECTIONS}
        self._open = open_file
        self._read = 0

    def read(self) -> list[Message]:
        """Decrypt what has come, take the keys in it, and acknowledge it."""
        self.client.pump()
        found, self._read = self.client.inbox[self._read :], len(self.client.inbox)
        messages = [self.client.decrypt(node) for node in found if node.tag == "message"]
        for message in messages:
            for one in message.protocolMessage.appStateSyncKeyShare.keys:
                if one.HasField("keyData"):
                    self.keys[one.keyId.keyId] = MutationKeys.expand(one.keyData.keyData)
        self.client.answer(found)
        return messages

    def request(self, name: str, patch: SyncdPatch | None = None, *, snapshot: bool = False) -> Node:
        """Ask for a collection, or upload to it; returns what is said about it."""
        attrs = {
            "name": name,
            "version": str(self.collections[name].state.version),
            "return_snapshot": str(snapshot).lower(),
        }
        content = [Node("patch", content=patch.SerializeToString())] if patch is not None else None
        asked = Node("sync", content=[Node("collection", attrs, content)])
        answer = self.client.request(self.client.iq("w:sync:app:state", "set", [asked])).child("sync")
        assert answer is not None
        (reply,) = answer.children("collection")
        return reply

    def sync(self, name: str, *, snapshot: bool = False) -> int:
        """Fetch all that is new; returns how many replies that took. Raises SyncdError."""
        collection = self.collections[name]
        for rounds in range(1, 1000):
            reply = self.request(name, snapshot=snapshot and not collection.state.version)
            self.apply(name, reply)
            if "has_more_patches" not in reply.attrs:
                return rounds
        raise AssertionError("no end")

    def apply(self, name: str, reply: Node) -> None:
        collection = self.collections[name]
        found = reply.child("snapshot")
        if found is not None:
            assert self._open is not None
            whole = patches.parse_snapshot(self._open(ExternalBlobReference.FromString(found.data)))
            collection.store(patches.apply_snapshot(name, whole, self.keys))
        listed = reply.child("patches")
        for node in listed.children("patch") if listed else ():
            patch = patches.parse_patch(node.data)
            collection.store(
                patches.apply_patch(
                    name, collection.state, patch, patch.mutations, self.keys, collection.macs
                )
            )

    def build(
        self, name: str, *entries: tuple[list[str], SyncActionValue], version: int = 5
    ) -> patches.Built:
        collection = self.collections[name]
        key = active_key_id(self.keys)
        assert key is not None
        sealed = [
            mutations.encode(
                key,
                self.keys[key],
                Operation.SET,
                index_json(index),
                value,
                version,
                self.client.random(mutations.IV_LENGTH),
            )
            for index, value in entries
        ]
        return patches.build_patch(name, collection.state, sealed, key, self.keys, collection.macs)

    def set(self, name: str, index: list[str], value: SyncActionValue) -> Node:
        """Upload one entry; what is kept changes only when the server takes it."""
        built = self.build(name, (index, value))
        reply = self.request(name, built.patch)
        if reply.text("type") != "error":
            self.collections[name].store(built.applied)
        return reply
