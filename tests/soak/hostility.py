"""What a hostile server, or anybody behind it, can put on the wire: stanzas by the dozen, each a reason to stumble.

All of it carries `SECRET`, which no log may show.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from typing import Final

from waD.wire._tags import FLAG_COMPRESSED
from waD.wire.codec import encode
from waD.wire.frames import MAX_PLAINTEXT
from waD.wire.jid import GROUP, JID, LID, PN, SERVER
from waD.wire.node import Node, Value

SECRET: Final = "tulip-of-the-hidden-garden"
STRANGER: Final = JID("15559990001", PN)
STRANGER_LID: Final = JID("199999999999991", LID)
ROOM: Final = JID("120363999999999991", GROUP)
MANY: Final = 10_000
LONG: Final = SECRET + "x" * 100_000
ODD_TEXTS: Final = ("", SECRET, "\x00\x1b[2J" + SECRET, "-1", "9" * 40, "1e9", "\u202e" + SECRET, LONG)
ODD_ADDRESSES: Final[tuple[Value, ...]] = (
    SERVER, STRANGER, STRANGER_LID, ROOM, JID("", PN), JID("status", "broadcast"), f"{'x' * 5000}@lid",
    JID("1", "newsletter"), JID("7", "bot"), f"{SECRET}@nowhere", "15559990001:65535@s.whatsapp.net", SECRET,
)  # fmt: skip
_TAGS: Final = ("message", "receipt", "notification", "call", "ack", "iq", "presence", "chatstate", "status")
_ENC: Final = ("msg", "pkmsg", "skmsg", "msmsg", "frskmsg", SECRET)
_NOTICES: Final = (
    "devices", "account_sync", "encrypt", "w:gp2", "server_sync", "picture", "mediaretry", "privacy_token", "mex",
    "newsletter", "psa", "business", "contacts", "link_code_companion_reg", SECRET,
)  # fmt: skip
_INSIDE: Final = (
    "add", "remove", "update", "device", "devices", "count", "digest", "identity", "key-index-list", "delete",
    "set", "participant", "list", "collection", "tokens", "item", "retry", "keys", "error", "registration", "user",
)  # fmt: skip


def ids() -> Iterator[str]:
    """Distinct ids of stanzas."""
    number = 0
    while True:
        number += 1
        yield f"HOSTILE{number:08d}"


def bare(tags: tuple[str, ...] = _TAGS) -> Iterator[Node]:
    """Stanzas without what they need, and with what makes no sense."""
    for tag in tags:
        yield Node(tag)
        yield Node(tag, {"id": "1"})
        yield Node(tag, {"from": STRANGER})
        yield Node(tag, {"id": "1", "from": STRANGER}, SECRET.encode())
        for text in ODD_TEXTS:
            yield Node(tag, {"id": text, "from": STRANGER, "t": text, "type": text, "offline": text})
            yield Node(tag, {"id": "1", "from": STRANGER, "class": text, "error": text, "category": text})
        for address in ODD_ADDRESSES:
            yield Node(tag, {"id": "2", "from": address, "participant": address, "recipient": address})
            yield Node(tag, {"id": "2", "from": ROOM, "participant": address, "sender_lid": address})


def messages() -> Iterator[Node]:
    """Messages that nobody could have encrypted."""
    names = ids()
    for kind in _ENC:
        for data in (b"", b"\x33", os.urandom(60), b"\x33" + os.urandom(70), b"\xff" * 50_000):
            enc = Node("enc", {"v": "2", "type": kind}, data)
            for source in ({"from": STRANGER_LID}, {"from": ROOM, "participant": STRANGER_LID}):
                yield Node("message", {"id": next(names), "t": "1800000000", "type": "text", **source}, [enc])
    odd = Node("enc", {"v": SECRET, "type": "msg"}, [Node("enc", {}, SECRET.encode())])
    yield Node("message", {"id": next(names), "from": STRANGER_LID, "t": "1"}, [odd] * 500)
    whole = Node("enc", {"v": "2", "type": "pkmsg", "count": "99999999999"}, os.urandom(80))
    blob = Node("device-identity", {}, os.urandom(5000))
    companion = JID(STRANGER_LID.user, LID, 44)
    yield Node("message", {"id": next(names), "from": companion, "t": "1"}, [whole, blob])
    for what in ("unavailable", "plaintext", "meta", "multicast", "url_number", SECRET):
        yield Node(
            "message", {"id": next(names), "from": STRANGER_LID, "t": "1"}, [Node(what, {"type": SECRET})]
        )


def receipts(known: str) -> Iterator[Node]:
    """Receipts about everything, and about a message that exists, by people who never got it."""
    items = [Node("item", {"id": f"{SECRET}{n}"}) for n in range(MANY)]
    for kind in (None, "read", "played", "sender", "inactive", "retry", "server-error", SECRET):
        typed: dict[str, Value] = {} if kind is None else {"type": kind}
        head: dict[str, Value] = {"id": known, "from": STRANGER_LID, **typed}
        yield Node("receipt", head)
        yield Node("receipt", head, [Node("list", {}, items)])
        yield Node("receipt", {**head, "from": ROOM}, [Node("list", {}, items)])
    users = [Node("user", {"jid": JID(str(n), LID), "t": "1", "type": "read"}) for n in range(MANY)]
    yield Node("receipt", {"id": known, "from": ROOM}, [Node("participants", {"key": known}, users)])
    yield from retries(known, STRANGER_LID)


def retries(known: str, source: JID) -> Iterator[Node]:
    """Requests to send a message again."""
    for count in ("1", "2", "0", "-1", "4", "99999999999999", SECRET):
        retry = Node("retry", {"count": count, "id": known, "t": "1", "v": "1", "error": SECRET})
        registration = Node("registration", {}, os.urandom(4))
        keys = Node("keys", {}, [Node("identity", {}, os.urandom(32)), Node("key", {}, SECRET.encode())])
        for parts in ([retry], [retry, registration], [retry, registration, keys], [retry] * 300):
            yield Node("receipt", {"id": known, "from": source, "type": "retry", "t": "1"}, parts)
            yield Node("receipt", {"id": known, "from": ROOM, "participant": source, "type": "retry"}, parts)


def notifications(own: JID) -> Iterator[Node]:
    """Every type with every content, also in the name of the own account."""
    names = ids()
    many = [Node("device", {"jid": JID(STRANGER.user, PN, n % 255), "key-index": "1"}) for n in range(MANY)]
    add = Node("add", {"device_hash": "2:AAAAAAAA"}, [*many, Node("key-index-list", {"ts": "-1"}, b"\xff")])
    for kind in _NOTICES:
        for source in (STRANGER, own, ROOM, SERVER):
            head: dict[str, Value] = {"from": source, "type": kind, "t": "1"}
            yield Node("notification", {**head, "id": next(names)}, SECRET.encode())
            inner = [
                Node(tag, {"jid": source, "id": SECRET, "value": "0", "device_hash": SECRET}, os.urandom(9))
                for tag in _INSIDE
            ]
            yield Node("notification", {**head, "id": next(names)}, inner)
    for kind in ("devices", "account_sync", "encrypt"):
        for source in (STRANGER, own):
            yield Node("notification", {"from": source, "type": kind, "t": "1", "id": next(names)}, [add])


def bulletins() -> Iterator[Node]:
    """`<ib>` with everything in it that does not end a connection."""
    tags = ("edge_routing", "offline_preview", "offline", "dirty", "thread_metadata", "tos", "client_expiration",
            "attestation", "safetynet", "gpia", SECRET)  # fmt: skip
    yield Node("ib")
    yield Node("ib", {"from": STRANGER}, SECRET.encode())
    for tag in tags:
        for text in ODD_TEXTS:
            attrs: dict[str, Value] = {"count": text, "type": text, "t": text, "timestamp": text}
            yield Node("ib", {"from": SERVER}, [Node(tag, attrs)])
        yield Node("ib", {"from": SERVER}, [Node(tag, {}, b"\xff" * 100_000)])
        yield Node("ib", {"from": SERVER}, [Node(tag)] * MANY)
    routing = Node("routing_info", {}, os.urandom(200_000))
    yield Node("ib", {"from": SERVER}, [Node("edge_routing", {}, [routing])])


def questions() -> Iterator[Node]:
    """Iqs that nobody asked for, and answers to nothing."""
    for kind in ("get", "set", "result", "error", SECRET):
        for xmlns in ("urn:xmpp:ping", "w:p", "md", "encrypt", "w:sync:app:state", "usync", SECRET):
            for name in ("1", "1.2-1", LONG):
                codes = Node("pair-device", {}, [Node("ref", {}, SECRET.encode())] * 100)
                inner = [codes, Node("error", {"code": SECRET})]
                yield Node("iq", {"id": name, "from": SERVER, "type": kind, "xmlns": xmlns}, inner)


def oddities() -> Iterator[Node]:
    """Tags that do not exist, and those of other times."""
    for tag in (SECRET, "x" * 50_000, "stream:features", "success", "handshake", "pair-success", "\u2028"):
        yield Node(tag, {"id": "1", "from": STRANGER, "t": SECRET, "lid": SECRET}, SECRET.encode())
        yield Node(tag, {str(n): SECRET for n in range(MANY)})


def large() -> Iterator[Node]:
    """As large and as deep as frames allow."""
    enc = Node("enc", {"v": "2", "type": "msg"}, bytes(MAX_PLAINTEXT - 500))
    yield Node("message", {"id": "LARGE1", "from": STRANGER_LID, "t": "1"}, [enc])
    crowd = [Node("x", {}, [Node("x")] * 60_000) for _ in range(4)]
    yield Node("notification", {"id": "LARGE2", "from": STRANGER, "type": "devices"}, crowd)
    node = Node("enc", {"v": "2", "type": "msg"}, SECRET.encode())
    for _ in range(120):
        node = Node("enc", {"v": "2", "type": "msg"}, [node])
    yield Node("message", {"id": "LARGE3", "from": STRANGER_LID, "t": "1"}, [node])


def undecodable() -> Iterator[bytes]:
    """Plaintexts of authentic frames that are no nodes: nine, one less than a connection bears."""
    good = encode(Node("message", {"id": SECRET}))
    yield b""
    yield good[:-3]
    yield good + SECRET.encode()
    yield b"\x00" + b"\xf8\x02\xfc" * 200_000
    yield b"\x00" + b"\xf9\xff\xff" + b"\x05" * 10
    yield b"\x00" + b"\xf8\x02" * 5000
    yield bytes((FLAG_COMPRESSED,)) + zlib.compress(bytes(200_000_000), 1)
    yield bytes((FLAG_COMPRESSED,)) + SECRET.encode()
    yield b"\xff" * 16_000_000
