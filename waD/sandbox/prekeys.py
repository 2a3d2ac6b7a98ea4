"""One device's published keys: what others fetch to start a session (chapter 02 §6, chapter 07 §5)."""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from waD.e2ee import curve
from waD.sandbox.errors import IqError
from waD.wire.node import Node

MAX_UPLOAD: Final = 1000
MAX_STOCK: Final = 10_000
ID_LENGTH: Final = 3
REGISTRATION_LENGTH: Final = 4
KEY_TYPE: Final = bytes((curve.KEY_TYPE,))


class SignedKey(msgspec.Struct, frozen=True):
    """A signed prekey: id, 32-byte key and 64-byte signature."""

    id: int
    key: bytes
    signature: bytes

    def node(self) -> Node:
        """The `<skey>` element."""
        return Node(
            "skey",
            content=[
                Node("id", content=self.id.to_bytes(ID_LENGTH, "big")),
                Node("value", content=self.key),
                Node("signature", content=self.signature),
            ],
        )


class KeyStock(msgspec.Struct):
    """Public keys of a device. `one_time` keeps upload order; `published` counts every key ever uploaded."""

    registration_id: int
    identity: bytes
    signed: SignedKey
    one_time: dict[int, bytes] = {}
    published: int = 0
    low_told: bool = False

    def upload(self, iq: Node) -> None:
        """Add the keys of an upload; all or nothing.

        Raises:
            IqError: 406 for another identity, wrong lengths, ids or signatures; 400 when parts are missing.
        """
        identity = _child(iq, "identity")
        if identity != self.identity:
            raise IqError(406, "not-acceptable", "the identity is not the paired one")
        registration = _child(iq, "registration")
        if len(registration) != REGISTRATION_LENGTH or _child(iq, "type") != KEY_TYPE:
            raise IqError(406, "not-acceptable", "registration id or key type has the wrong form")
        signed = read_signed(iq.child("skey"), self.identity)
        keys = _read_list(iq.child("list"))
        if len(self.one_time) + len(keys) > MAX_STOCK:
            raise IqError(419, "resource-limit", f"more than {MAX_STOCK} prekeys of one device")
        self.registration_id = int.from_bytes(registration, "big")
        self.signed = signed
        self.one_time.update(keys)
        self.published += len(keys)
        self.low_told = False

    def rotate(self, iq: Node) -> None:
        """Replace the signed prekey; raises IqError(406) when it does not verify."""
        rotate = iq.child("rotate")
        self.signed = read_signed(rotate.child("skey") if rotate else None, self.identity)

    def take(self) -> tuple[int, bytes] | None:
        """Hand out the oldest one-time prekey, for good; None when there is none."""
        if not self.one_time:
            return None
        key_id = next(iter(self.one_time))
        return key_id, self.one_time.pop(key_id)

    def digest(self) -> Node:
        """The answer to a digest query: ids the server still holds, and a hash over everything."""
        hashed = hashlib.sha1(self.identity + self.signed.key + self.signed.signature, usedforsecurity=False)
        for key in self.one_time.values():
            hashed.update(key)
        ids = [Node("id", content=key_id.to_bytes(ID_LENGTH, "big")) for key_id in self.one_time]
        return Node(
            "digest",
            content=[
                Node("registration", content=self.registration_id.to_bytes(REGISTRATION_LENGTH, "big")),
                Node("type", content=KEY_TYPE),
                Node("identity", content=self.identity),
                self.signed.node(),
                Node("list", content=ids),
                Node("hash", content=hashed.digest()),
            ],
        )


def bundle_nodes(stock: KeyStock, one_time: tuple[int, bytes] | None, blob: bytes | None) -> list[Node]:
    """The children of a `<user>` in the answer to a key query; `blob` is a companion's signed identity."""
    nodes = [
        Node("registration", content=stock.registration_id.to_bytes(REGISTRATION_LENGTH, "big")),
        Node("type", content=KEY_TYPE),
        Node("identity", content=stock.identity),
    ]
    if one_time is not None:
        key_id, key = one_time
        nodes.append(
            Node(
                "key",
                content=[
                    Node("id", content=key_id.to_bytes(ID_LENGTH, "big")),
                    Node("value", content=key),
                ],
            )
        )
    nodes.append(stock.signed.node())
    if blob is not None:
        nodes.append(Node("device-identity", content=blob))
    return nodes


def read_signed(skey: Node | None, identity: bytes) -> SignedKey:
    """Read and verify a `<skey>`; raises IqError(406)."""
    if skey is None:
        raise IqError(406, "not-acceptable", "no signed prekey")
    key_id, key = _child(skey, "id"), _child(skey, "value")
    signature = _child(skey, "signature")
    if len(key_id) != ID_LENGTH or len(key) != curve.KEY_LENGTH:
        raise IqError(406, "not-acceptable", "the signed prekey has the wrong form")
    if not curve.verify(identity, curve.serialize_key(key), signature):
        raise IqError(406, "not-acceptable", "the signed prekey is not signed by the identity")
    return SignedKey(int.from_bytes(key_id, "big"), key, signature)


def _read_list(node: Node | None) -> dict[int, bytes]:
    if node is None:
        raise IqError(400, "bad-request", "no list of prekeys")
    children = node.children("key")
    if len(children) > MAX_UPLOAD:
        raise IqError(406, "not-acceptable", f"more than {MAX_UPLOAD} prekeys in one upload")
    keys: dict[int, bytes] = {}
    for child in children:
        raw_id, value = _child(child, "id"), _child(child, "value")
        key_id = int.from_bytes(raw_id, "big")
        if len(raw_id) != ID_LENGTH or len(value) != curve.KEY_LENGTH or not key_id or key_id in keys:
            raise IqError(406, "not-acceptable", "a prekey has a bad or repeated id or a bad length")
        keys[key_id] = value
    return keys


def _child(node: Node, tag: str) -> bytes:
    child = node.child(tag)
    return child.data if child else b""
