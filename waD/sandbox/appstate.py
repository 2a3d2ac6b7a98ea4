"""The server's side of app state: versions and opaque patches (chapter 05 §4.3, §4.4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from google.protobuf.message import DecodeError

from waD.e2ee.syncd.patches import COLLECTIONS
from waD.proto.appstate_pb2 import ExternalBlobReference, SyncdPatch
from waD.sandbox.accounts import Account, Device
from waD.sandbox.errors import IqError, SandboxError
from waD.sandbox.faults import Fault
from waD.sandbox.snapshots import BlobStore, snapshot_of
from waD.sandbox.world import World
from waD.wire.jid import SERVER
from waD.wire.node import Node, Value

MAX_PATCH: Final = 2 * 1024 * 1024
MAX_REPLY: Final = 512 * 1024
MAC_LENGTH: Final = 32
CONFLICT: Final = 409

Reseal = Callable[[Account, str, SyncdPatch], None]
"""Signs a patch of a collection again: what only the account's own devices can do."""


class AppState:
    """Stores patches in order and tells the other devices; needs no keys.

    Attributes:
        blobs: keeps snapshots; without it there are none.
        reseal: makes the patch around a wrong snapshot MAC authentic; without it that fault is a wrong patch MAC.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self.blobs: BlobStore | None = None
        self.reseal: Reseal | None = None

    def sync(self, device: Device, iq: Node) -> list[Node]:
        """Answer a sync with one `<collection>` for each that was asked; raises IqError(400)."""
        sync = iq.child("sync")
        if sync is None:
            raise IqError(400, "bad-request", "no sync element")
        return [Node("sync", content=[self._collection(device, one) for one in sync.children("collection")])]

    def load(self, reference: ExternalBlobReference) -> bytes:
        """Open a file of the app state; raises SandboxError."""
        if self.blobs is None:
            raise SandboxError("there is no media host for files of the app state")
        return self.blobs.load(reference)

    def upload(self, account: Account, uploader: Device, name: str, patch: bytes) -> int:
        """Append a patch made for the current version; returns the new version."""
        patches = account.record.patches.setdefault(name, [])
        version = len(patches) + 1
        parsed = SyncdPatch.FromString(patch)
        parsed.version.version = version
        patches.append(parsed.SerializeToString())
        self._world.save_account(account)
        for device in account.others(uploader):
            self._world.push(
                device,
                Node(
                    "notification",
                    {
                        "from": SERVER,
                        "type": "server_sync",
                        "id": self._world.stanza_id(),
                        "t": str(self._world.now_s),
                    },
                    [Node("collection", {"name": name, "version": str(version)})],
                ),
            )
        return version

    def _collection(self, device: Device, asked: Node) -> Node:
        name = asked.text("name") or ""
        if name not in COLLECTIONS:
            return _error(name, 404, "item-not-found")
        patches = device.account.record.patches.get(name, [])
        base = asked.int("version") or 0
        if not 0 <= base <= len(patches):
            return _error(name, 400, "bad-request")
        upload = asked.child("patch")
        fault = self._fault("sync-error", device, name)
        if fault is not None and (fault.code != CONFLICT or upload is None):
            return _error(name, fault.code or 500, "fault")
        if upload is None:
            return self._download(device, name, base, asked.text("return_snapshot") == "true")
        if fault is not None or base != len(patches):
            return self._conflict(device, name, base)
        if not _well_formed(upload.data):
            return _error(name, 400, "bad-request")
        version = self.upload(device.account, device, name, upload.data)
        return Node("collection", {"name": name, "version": str(version)})

    def _conflict(self, device: Device, name: str, base: int) -> Node:
        """The winners' patches and the error: the client's patch was made for a version that is over."""
        reply = self._patches(device, name, base)
        error = Node("error", {"code": str(CONFLICT), "text": "conflict"})
        return Node("collection", {**reply.attrs, "type": "error"}, [*reply.children(), error])

    def _download(self, device: Device, name: str, base: int, snapshot: bool) -> Node:
        """Patches after a version, or a snapshot of all but the last one: then a client meets both at once."""
        patches = device.account.record.patches.get(name, [])
        wanted = snapshot and not base and self._world.settings.app_state_snapshots
        if not wanted or self.blobs is None or not patches:
            return self._patches(device, name, base)
        covered = [SyncdPatch.FromString(one) for one in patches[:-1] or patches]
        try:
            reference = self.blobs.store(snapshot_of(covered, self.load).SerializeToString())
        except SandboxError as error:
            self._world.complain(device, f"no snapshot of {name}: {error}")
            return self._patches(device, name, base)
        rest = self._patches(device, name, len(covered))
        return Node(
            "collection",
            rest.attrs,
            [Node("snapshot", content=reference.SerializeToString()), *rest.children()],
        )

    def _patches(self, device: Device, name: str, base: int) -> Node:
        """Patches after a version, as many as fit; an empty collection has no version at all."""
        patches = device.account.record.patches.get(name, [])
        attrs: dict[str, Value] = {"name": name}
        if not patches:
            return Node("collection", attrs)
        chosen = _page(patches[base : base + self._world.settings.app_state_page])
        reached = base + len(chosen)
        attrs["version"] = str(reached)
        if reached < len(patches):
            attrs["has_more_patches"] = "true"
        if not chosen:
            return Node("collection", attrs)
        fault = self._fault("bad-patch", device, name)
        if fault is not None:
            chosen[-1] = self._spoilt(device.account, name, chosen[-1], fault.mode or "")
        return Node(
            "collection", attrs, [Node("patches", content=[Node("patch", content=one) for one in chosen])]
        )

    def _fault(self, kind: str, device: Device, name: str) -> Fault | None:
        """Phones are part of the sandbox: nothing goes wrong between the two."""
        return None if device.is_phone else self._world.faults.take(kind, device, collection=name)

    def _spoilt(self, account: Account, name: str, data: bytes, mode: str) -> bytes:
        """A patch as it is handed out once, wrong in one way and right in all others."""
        patch = SyncdPatch.FromString(data)
        if mode == "version":
            patch.version.version += 1
        elif mode == "patch-mac":
            patch.patchMac = _turned(patch.patchMac)
        elif mode == "snapshot-mac":
            patch.snapshotMac = _turned(patch.snapshotMac)
            if self.reseal is not None:
                self.reseal(account, name, patch)
        elif patch.mutations and mode == "value-mac":
            value = patch.mutations[-1].record.value
            value.blob = _turned(
                value.blob
            )  # its first byte: the MAC, which the patch MAC covers, is at the end
        elif patch.mutations:
            index = patch.mutations[-1].record.index
            index.blob = _turned(index.blob)
        return patch.SerializeToString()


def _page(patches: list[bytes]) -> list[bytes]:
    """The first patches, within the size of a reply; at least one."""
    chosen: list[bytes] = []
    size = 0
    for patch in patches:
        size += len(patch)
        if chosen and size > MAX_REPLY:
            break
        chosen.append(patch)
    return chosen


def _turned(data: bytes) -> bytes:
    """The same bytes but for one bit of the first."""
    return bytes((data[0] ^ 1,)) + data[1:] if data else b"\x01"


def _error(name: str, code: int, text: str) -> Node:
    return Node(
        "collection", {"name": name, "type": "error"}, [Node("error", {"code": str(code), "text": text})]
    )


def _well_formed(data: bytes) -> bool:
    if not 0 < len(data) <= MAX_PATCH:
        return False
    try:
        patch = SyncdPatch.FromString(data)
    except DecodeError:
        return False
    both = bool(patch.mutations) and patch.HasField("externalMutations")
    return (
        not both
        and patch.HasField("keyId")
        and len(patch.snapshotMac) == MAC_LENGTH
        and len(patch.patchMac) == MAC_LENGTH
    )
