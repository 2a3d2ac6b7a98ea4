"""The server's side of app state: versions and opaque patches (chapter 05 §4.3, §4.4)."""

from __future__ import annotations

from typing import Final

from google.protobuf.message import DecodeError

from waD.proto.appstate_pb2 import SyncdPatch
from waD.sandbox.accounts import COLLECTIONS, Account, Device
from waD.sandbox.errors import IqError
from waD.sandbox.world import World
from waD.wire.jid import SERVER
from waD.wire.node import Node, Value

MAX_PATCH: Final = 2 * 1024 * 1024
MAX_PATCHES: Final = 50
MAX_REPLY: Final = 512 * 1024
MAC_LENGTH: Final = 32


class AppState:
    """Stores patches in order and tells the other devices; needs no keys."""

    def __init__(self, world: World) -> None:
        self._world = world

    def sync(self, device: Device, iq: Node) -> list[Node]:
        """Answer a sync with one `<collection>` for each that was asked; raises IqError(400)."""
        sync = iq.child("sync")
        if sync is None:
            raise IqError(400, "bad-request", "no sync element")
        return [Node("sync", content=[self._collection(device, one) for one in sync.children("collection")])]

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
        if base > len(patches):
            return _error(name, 400, "bad-request")
        upload = asked.child("patch")
        if upload is None:
            return _reply(name, patches, base, {})
        if base != len(patches):
            node = _reply(name, patches, base, {"type": "error"})
            return Node(
                "collection",
                node.attrs,
                [*node.children(), Node("error", {"code": "409", "text": "conflict"})],
            )
        if not _well_formed(upload.data):
            return _error(name, 400, "bad-request")
        version = self.upload(device.account, device, name, upload.data)
        return Node("collection", {"name": name, "version": str(version)})


def _reply(name: str, patches: list[bytes], base: int, attrs: dict[str, Value]) -> Node:
    """Patches after a version, as many as fit; an empty collection has no version at all."""
    chosen: list[bytes] = []
    size = 0
    for patch in patches[base : base + MAX_PATCHES]:
        size += len(patch)
        if chosen and size > MAX_REPLY:
            break
        chosen.append(patch)
    attrs = {"name": name, **attrs}
    if not patches:
        return Node("collection", attrs)
    reached = base + len(chosen)
    attrs["version"] = str(reached)
    if reached < len(patches):
        attrs["has_more_patches"] = "true"
    if not chosen:
        return Node("collection", attrs)
    return Node("collection", attrs, [Node("patches", content=[Node("patch", content=p) for p in chosen])])


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
