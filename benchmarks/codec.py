"""Encoding and decoding one 880-byte message node, beside Baileys' codec on the same bytes."""

from __future__ import annotations

import hashlib
from typing import Any

from benchmarks import peer
from benchmarks.timing import compared, per_second
from waD.wire.codec import decode, encode
from waD.wire.jid import JID, LID
from waD.wire.node import Node

SIZE = 880


def message_node() -> Node:
    """A message to four devices, with a device identity, as `wactl send` makes it."""

    def filler(name: str, length: int) -> bytes:
        return hashlib.shake_128(name.encode()).digest(length)

    devices = [JID("100000000000002", LID), JID("100000000000002", LID, 3), JID("100000000000001", LID)]
    targets = [
        Node("to", {"jid": device}, [Node("enc", {"v": "2", "type": "msg"}, filler(str(device), 170))])
        for device in devices
    ]
    attrs = {"id": "3EB0137DBA5E6679E892AB", "to": devices[0], "type": "text"}
    return Node(
        "message",
        attrs,
        [Node("participants", None, targets), Node("device-identity", None, filler("adv", 243))],
    )


def run() -> dict[str, Any]:
    """Operations in a second of processor time."""
    node = message_node()
    wire = encode(node)
    ours = {"encode": per_second(lambda: encode(node)), "decode": per_second(lambda: decode(wire))}
    theirs = peer.run("codec.mjs", {"wire": wire.hex()})
    return {"bytes": len(wire), "goal": {"encode": 0.25, "decode": 0.25}, "rates": compared(ours, theirs)}
