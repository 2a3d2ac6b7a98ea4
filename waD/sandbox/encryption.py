"""The iqs of `xmlns=encrypt`: publishing, counting and fetching prekeys (chapter 02 §6)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from waD.e2ee.curve import SIGNATURE_LENGTH
from waD.sandbox.accounts import Device
from waD.sandbox.errors import IqError
from waD.sandbox.prekeys import SignedKey, bundle_nodes
from waD.sandbox.world import World
from waD.wire.jid import SERVER
from waD.wire.node import Node, Value

MAX_FETCH: Final = 1000


class Encryption:
    """Keeps the published keys of all devices.

    `on_upload` is told when a device has published some; `refill_phone` when a simulated phone runs low.
    """

    def __init__(
        self, world: World, on_upload: Callable[[Device], None], refill_phone: Callable[[Device], None]
    ) -> None:
        self._world = world
        self._on_upload = on_upload
        self._refill_phone = refill_phone

    def answer(self, device: Device, iq: Node) -> list[Node]:
        """Answer one iq; raises IqError."""
        if iq.text("type") == "get":
            if iq.child("count") is not None:
                return [Node("count", {"value": str(len(device.record.keys.one_time))})]
            if iq.child("digest") is not None:
                return [device.record.keys.digest()]
            if (key := iq.child("key")) is not None:
                return [self._fetch(key)]
            raise IqError(400, "bad-request", "neither count, digest nor key")
        if iq.child("rotate") is not None:
            device.record.keys.rotate(iq)
        else:
            device.record.keys.upload(iq)
            self._on_upload(device)
        self._world.save_device(device)
        return []

    def bundle(self, device: Device) -> list[Node]:
        """Hand out a device's keys, one one-time prekey included while there are any."""
        keys = device.record.keys
        fault = self._world.faults.take("bad-bundle", device)
        one_time = keys.take()
        nodes = bundle_nodes(keys, one_time, device.record.blob)
        if fault is not None:
            broken = SignedKey(keys.signed.id, keys.signed.key, bytes(SIGNATURE_LENGTH))
            nodes = [broken.node() if node.tag == "skey" else node for node in nodes]
        if len(keys.one_time) < self._world.settings.low_prekeys:
            self._tell_low(device)
        self._world.save_device(device)
        return nodes

    def _tell_low(self, device: Device) -> None:
        keys = device.record.keys
        if device.is_phone:
            self._refill_phone(device)
        elif not keys.low_told:
            keys.low_told = True
            attrs: dict[str, Value] = {"from": SERVER, "type": "encrypt", "id": self._world.stanza_id()}
            attrs["t"] = str(self._world.now_s)
            count = Node("count", {"value": str(len(keys.one_time))})
            self._world.push(device, Node("notification", attrs, [count]))

    def _fetch(self, key: Node) -> Node:
        users = key.children("user")
        if len(users) > MAX_FETCH:
            raise IqError(429, "rate-overlimit", "too many bundles in one query", backoff_s=60)
        return Node("list", content=[self._user(user) for user in users])

    def _user(self, user: Node) -> Node:
        jid = user.jid("jid")
        device = self._world.directory.device(jid)
        if jid is None or device is None:
            error = Node("error", {"code": "406", "text": "not-acceptable"})
            return Node("user", {} if jid is None else {"jid": jid}, [error])
        return Node("user", {"jid": jid, "t": str(self._world.now_s)}, self.bundle(device))
