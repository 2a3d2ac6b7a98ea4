"""The app state of an account as its phone writes it and the server hands it out, with real cryptography."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.link.requester import FakeRequester, refusal, result
from waD.e2ee.syncd import mutations, patches
from waD.e2ee.syncd.keys import MutationKeys, key_id
from waD.e2ee.syncd.lthash import lt_hash
from waD.e2ee.syncd.mutations import Operation
from waD.e2ee.syncd.patches import EMPTY_STATE, CollectionState
from waD.messaging import kinds
from waD.messaging.appstate.page import BlobError
from waD.messaging.appstate.stored import Head
from waD.messaging.appstate.syncing import AppState, Way
from waD.messaging.context import Context
from waD.messaging.facade import Messaging
from waD.messaging.values import encode_app_state_key
from waD.proto.appstate_pb2 import ExternalBlobReference, SyncActionValue, SyncdMutations, SyncdSnapshot
from waD.proto.e2e_pb2 import Message, SyncdMutation
from waD.transfer.collections import sums_up, value_macs
from waD.wire.node import Node

KEY, OTHER = key_id(0, 7), key_id(0, 8)
DATA = {KEY: bytes(range(32)), OTHER: bytes(range(1, 33))}
T_MS = 1_700_000_000_000


@dataclass
class Shelf:
    """One collection: its patches as they were uploaded, and what a client that has them all keeps."""

    patches: list[bytes] = field(default_factory=list)
    state: CollectionState = EMPTY_STATE
    entries: dict[bytes, SyncdMutation] = field(default_factory=dict)
    signer: bytes = KEY

    @property
    def macs(self) -> dict[bytes, bytes]:
        return {index: mutations.value_mac_of(one.record) for index, one in self.entries.items()}


class Cloud:
    """Answers what a client asks.

    Attributes:
        page: patches in one answer.
        snapshots: whether a snapshot is given to whoever asks for one.
        files: content by direct path.
        hook: may answer instead, for a collection and the version asked for.
        asked: versions by collection, one for each request.
        cleaned: timestamps of what was cleaned.
    """

    def __init__(self) -> None:
        self.shelves = {name: Shelf() for name in patches.COLLECTIONS}
        self.page = 50
        self.snapshots = False
        self.files: dict[str, bytes] = {}
        self.hook: Callable[[str, int], Node | None] = lambda _name, _version: None
        self.refuse: Callable[[Node], Exception | Node | None] = lambda _: None
        self.asked: list[dict[str, int]] = []
        self.wants_snapshot: list[dict[str, str]] = []
        self.cleaned: list[str] = []
        self.requester = FakeRequester(self.answer)

    @property
    def way(self) -> Way:
        return Way(self.requester, self.fetch)

    # The phone.

    def sealed(
        self, parts: Sequence[str], value: SyncActionValue | None = None, *,
        remove: bool = False, key: bytes = KEY, version: int = 1,
    ) -> SyncdMutation:  # fmt: skip
        value = value or SyncActionValue()
        value.timestamp = value.timestamp or T_MS
        operation = Operation.REMOVE if remove else Operation.SET
        index = mutations.index_json(parts)
        return mutations.encode(
            key, MutationKeys.expand(DATA[key]), operation, index, value, version, os.urandom(16)
        )

    def write(self, name: str, *sealed: SyncdMutation, key: bytes = KEY, external: bool = False) -> int:
        """Upload one patch; returns its version."""
        shelf = self.shelves[name]
        keys = {one: MutationKeys.expand(data) for one, data in DATA.items()}
        reference = self._file(SyncdMutations(mutations=sealed).SerializeToString()) if external else None
        built = patches.build_patch(name, shelf.state, sealed, key, keys, shelf.macs, external=reference)
        built.patch.version.version = built.applied.state.version
        shelf.patches.append(built.patch.SerializeToString())
        shelf.state, shelf.signer = built.applied.state, key
        by_index = {(one.record.index.blob, one.operation): one for one in sealed}
        for gone in built.applied.removes:
            shelf.entries.pop(gone.index_mac, None)
        for put in built.applied.sets:
            shelf.entries[put.index_mac] = by_index[put.index_mac, SyncdMutation.SET]
        return shelf.state.version

    def _file(self, content: bytes) -> ExternalBlobReference:
        path = f"/v/{len(self.files)}"
        self.files[path] = content
        return ExternalBlobReference(
            mediaKey=bytes(32), directPath=path, fileSha256=bytes(32), fileEncSha256=bytes(32),
            fileSizeBytes=len(content),
        )  # fmt: skip

    def rename(self, name: str) -> int:
        value = SyncActionValue()
        value.pushNameSetting.name = name
        return self.write("critical_block", self.sealed(["setting_pushName"], value))

    def pin(self, chat: str, name: str = "regular_low", **more: bytes) -> int:
        value = SyncActionValue()
        value.pinAction.pinned = True
        return self.write(name, self.sealed(["pin_v1", chat], value, version=5, **more))

    def contacts(self, count: int, *, external: bool = False) -> int:
        listed = []
        for number in range(count):
            value = SyncActionValue()
            value.contactAction.fullName = f"Contact {number}"
            listed.append(self.sealed(["contact", f"1555{number:07}@s.whatsapp.net"], value, version=2))
        return self.write("critical_unblock_low", *listed, external=external)

    # The server.

    def answer(self, node: Node) -> Node | Exception:
        refused = self.refuse(node)
        if refused is not None:
            return refused
        match node.text("xmlns"):
            case "w:sync:app:state":
                return self._sync(node)
            case "urn:xmpp:whatsapp:dirty":
                (clean,) = node.children()
                self.cleaned.append(clean.text("timestamp", ""))
                return result()
            case _:
                return refusal(503)

    def _sync(self, node: Node) -> Node:
        sync = node.child("sync")
        assert sync is not None
        listed = sync.children("collection")
        self.asked.append({one.text("name", ""): one.int("version") or 0 for one in listed})
        self.wants_snapshot.append({one.text("name", ""): one.text("return_snapshot", "") for one in listed})
        found = []
        for one in listed:
            name, version = one.text("name", ""), one.int("version") or 0
            found.append(self.hook(name, version) or self.collection(name, version))
        return result(Node("sync", {}, found))

    def collection(self, name: str, version: int) -> Node:
        shelf = self.shelves[name]
        if not shelf.patches:
            return Node("collection", {"name": name})
        content: list[Node] = []
        if version == 0 and self.snapshots:
            content.append(Node("snapshot", {}, self.snapshot(name).SerializeToString()))
            version = shelf.state.version
        chosen = shelf.patches[version : version + self.page]
        if chosen:
            content.append(Node("patches", {}, [Node("patch", {}, patch) for patch in chosen]))
        attrs = {"name": name, "version": str(version + len(chosen))}
        if version + len(chosen) < len(shelf.patches):
            attrs["has_more_patches"] = "true"
        return Node("collection", attrs, content)

    def snapshot(self, name: str) -> ExternalBlobReference:
        shelf = self.shelves[name]
        snapshot = SyncdSnapshot(records=[one.record for one in shelf.entries.values()])
        snapshot.version.version = shelf.state.version
        snapshot.keyId.id = shelf.signer
        snapshot.mac = patches.SyncdPatch.FromString(shelf.patches[-1]).snapshotMac
        return self._file(snapshot.SerializeToString())

    async def fetch(self, reference: ExternalBlobReference) -> bytes:
        if reference.directPath not in self.files:
            raise BlobError("gone", permanent=True)
        return self.files[reference.directPath]


class Client:
    """A session that syncs from a cloud."""

    def __init__(self, ctx: Context, cloud: Cloud) -> None:
        self.ctx = ctx
        self.cloud = cloud
        self.messaging = Messaging(ctx)
        self.app_state: AppState = self.messaging.app_state
        self.renamed: list[str] = []

    async def share(self, *names: bytes) -> None:
        """Have keys."""
        async with self.ctx.state.lock:
            unit = self.ctx.state.unit()
            for name in names:
                document = encode_app_state_key(Message.AppStateSyncKeyData(keyData=DATA[name]))
                unit.put(kinds.APP_STATE_KEY, name.hex(), document)
            await self.ctx.state.commit(unit)

    async def note_name(self) -> None:
        self.renamed.append(self.ctx.account.creds.push_name)

    async def head(self, name: str) -> Head:
        document = await self.ctx.state.item(kinds.APP_STATE_VERSION, name)
        assert document is not None
        return Head.parse(document)

    async def items(self) -> dict[tuple[str, str], bytes]:
        state = self.ctx.state
        whole = await state._store.read(state._engine.auth_state, state.session_id)
        return {item: document for item, (_, document) in whole.items.items()}

    async def agrees(self, name: str) -> bool:
        """Whether this client has exactly what the phone has, and its own hash sums up."""
        head, items, shelf = await self.head(name), await self.items(), self.cloud.shelves[name]
        macs = value_macs(items, name, head)
        return (
            sums_up(items, name, head)
            and CollectionState(head.version, head.hash) == shelf.state
            and lt_hash(macs.values()) == shelf.state.hash
            and len(macs) == len(shelf.entries)
        )
