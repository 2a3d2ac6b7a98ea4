"""What WhatsApp has of this device's keys, against what is stored here (chapter 02 §6.3, chapter 08 §7.6 L4)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from waD.link.credentials import Credentials
from waD.link.errors import RequestError
from waD.link.prekeys import MAX_DIGEST_IDS, OneTimePreKey, digest_of
from waD.link.stanzas import Requester, iq, raise_for_error
from waD.wire.node import Node


@dataclass(frozen=True, slots=True)
class ServerKeys:
    """What the server's digest says.

    Attributes:
        identity, registration, signed_prekey: whether they are ours.
        listed: one-time prekeys that the server still has.
        missing: those of them whose private half is not stored here.
        hash_equal: whether the hash over all is what ours gives; None when it cannot be computed.
    """

    identity: bool
    registration: bool
    signed_prekey: bool
    listed: int
    missing: int
    hash_equal: bool | None


class DigestUnknown(Exception):  # noqa: N818 - what is the case
    """The server did not say, or not so that it could be read; the message says why."""


async def server_keys(
    requester: Requester, credentials: Credentials, keys: Collection[OneTimePreKey]
) -> ServerKeys | None:
    """Ask the server; None when it has no record of this device.

    Raises:
        DigestUnknown: nothing is known.
        RequestTimeout, Disconnected: no answer.
    """
    try:
        reply = await requester.request(iq("get", "encrypt", Node("digest")))
        digest = raise_for_error(reply, "prekey digest").child("digest")
    except RequestError as refusal:
        if refusal.code == 404:
            return None
        raise DigestUnknown(f"the server refused to say ({refusal.code})") from None
    return None if digest is None else read_digest(digest, credentials, keys)


def read_digest(digest: Node, credentials: Credentials, keys: Collection[OneTimePreKey]) -> ServerKeys:
    """Compare a `<digest>`; raises DigestUnknown for one that cannot be read."""
    identity, registration = digest.child("identity"), digest.child("registration")
    skey, listed, told = digest.child("skey"), digest.child("list"), digest.child("hash")
    if identity is None or registration is None or skey is None or listed is None or told is None:
        raise DigestUnknown("the server's answer lacks a part")
    ids = [int.from_bytes(node.data, "big") for node in listed.children("id")[: MAX_DIGEST_IDS + 1]]
    if len(ids) > MAX_DIGEST_IDS:
        raise DigestUnknown("the server lists more keys than it may have")
    by_id = {key.id: key.key.public for key in keys}
    missing = sum(number not in by_id for number in ids)
    signed = credentials.signed_prekey
    equal = None
    if not missing:
        publics = [by_id[number] for number in ids]
        ours = digest_of(credentials.identity.public, signed.key.public, signed.signature, publics)
        equal = ours == told.data
    return ServerKeys(
        identity=identity.data == credentials.identity.public,
        registration=registration.data == credentials.registration_id.to_bytes(4, "big"),
        signed_prekey=_part(skey, "value") == signed.key.public
        and _part(skey, "id") == signed.id.to_bytes(3, "big"),
        listed=len(ids),
        missing=missing,
        hash_equal=equal,
    )


def _part(node: Node, name: str) -> bytes:
    child = node.child(name)
    return b"" if child is None else child.data
