"""How the vectors of the wire room are checked: binary nodes, Noise."""

from __future__ import annotations

import hashlib
from typing import Any

from tests.vector_runner.core import Format
from tests.vector_runner.nodes import jid_of, jid_text, wire_bytes
from tests.wire.resuming_client import ResumingClient
from waD.e2ee.curve import KeyPair
from waD.wire.certs import verify_chain
from waD.wire.codec import decode, encode, encode_value
from waD.wire.errors import CodecError, NoiseError
from waD.wire.frames import INTRO, FrameReader, IntroReader, edge_preamble, frame
from waD.wire.jid import JID
from waD.wire.node import Node
from waD.wire.noise import ClientHandshake, ServerHandshake
from waD.wire.symmetric import SymmetricState
from waD.wire.transport import Transport

Spelled = list[tuple[bytes, bytes]]
"""Pairs of a placeholder in the encoded frame and the bytes that belong there."""


def binary_encode(case: dict[str, Any]) -> None:
    wire = frame_of(case)
    spelled: Spelled = []
    node = node_of(case["node"], spelled)
    encoded = encode(node)
    for placeholder, form in spelled:
        assert encoded.count(placeholder) == 1
        encoded = encoded.replace(placeholder, form)
    if says_device_zero(case["node"]):
        # Our address type has no explicit device 0: the device-less form is written, which means the same.
        assert decode(encoded) == decode(wire)
    else:
        assert encoded == wire, f"encoded to {encoded[:200].hex()}"
    expect_node(decode(wire), case.get("decoded", case["node"]))


def binary_decode(case: dict[str, Any]) -> None:
    node = decode(frame_of(case))
    expect_node(node, case["decoded"])
    assert decode(encode(node)) == node


def binary_malformed(case: dict[str, Any]) -> None:
    try:
        node = decode(frame_of(case))
    except CodecError:
        return
    raise AssertionError(f"accepted as {node!r}, but: {case['reason']}")


def frame_of(case: dict[str, Any]) -> bytes:
    wire = wire_bytes(case["wire"])
    assert len(wire) == case["length"]
    assert hashlib.sha256(wire).hexdigest() == case["sha256"]
    return wire


def node_of(value: dict[str, Any], spelled: Spelled) -> Node:
    """The node to encode; every text with `@` is an address, a null attribute is not there.

    Our nodes have no text content: it is sent as bytes (chapter 01 §5.7). Where a vector has some, a
    placeholder goes in, and `spelled` says what belongs there.
    """
    attrs = {name: typed(text) for name, text in value["attrs"].items() if text is not None}
    content = value.get("content")
    if isinstance(content, str):
        mark = f"text content {len(spelled)}".encode()
        spelled.append((bytes((0xFC, len(mark))) + mark, encode_value(typed(content))))
        return Node(value["tag"], attrs, mark)
    if content is None:
        return Node(value["tag"], attrs)
    if is_list(content):
        node = Node(value["tag"], attrs)
        node.content = [node_of(child, spelled) for child in children(content)]
        return node
    return Node(value["tag"], attrs, wire_bytes(content))


def typed(text: str) -> str | JID:
    return jid_of(text) if "@" in text else text


def is_list(content: Any) -> bool:
    return isinstance(content, list) or "list_of" in content


def children(content: Any) -> list[dict[str, Any]]:
    if isinstance(content, list):
        return content
    return [content["list_of"]] * int(content["times"])


def says_device_zero(value: dict[str, Any]) -> bool:
    content = value.get("content")
    below = (
        children(content) if content is not None and not isinstance(content, str) and is_list(content) else []
    )
    texts = [content, *value["attrs"].values()]
    return any(isinstance(text, str) and ":0@" in text for text in texts) or any(map(says_device_zero, below))


def expect_node(node: Node, value: dict[str, Any]) -> None:
    assert node.tag == value["tag"]
    got = {name: jid_text(text) if isinstance(text, JID) else text for name, text in node.attrs.items()}
    # A null on the wire is an absent attribute for us and an empty text for others (chapter 01 §5.3).
    wanted = {
        name: text for name, text in value["attrs"].items() if text is not None and (text or name in got)
    }
    assert got == wanted, f"attributes {got} instead of {wanted}"
    content = value.get("content")
    if content is None or content == []:
        assert node.content is None
    elif isinstance(content, str):
        assert node.content in (content.encode(), content.removeprefix("@").encode())
    elif is_list(content):
        wanted_children = children(content)
        assert isinstance(node.content, list)
        assert len(node.content) == len(wanted_children)
        for child, wanted_child in zip(node.content, wanted_children, strict=True):
            expect_node(child, wanted_child)
    else:
        assert node.content == wire_bytes(content)


def noise_handshake(case: dict[str, Any]) -> None:
    """A whole handshake: our client, our server, every state in between, the frames after it."""
    keys = {name: key_pair(pair) for name, pair in case["keys"].items()}
    for transcript in ("transcript", "ik_transcript"):
        replay(case.get(transcript, ()), bytes.fromhex(case["prologue"]))
    payload, chain = bytes.fromhex(case["client_payload"]), bytes.fromhex(case["certificates"]["chain"])
    root, now = keys["root"].public, case["now"]
    assert verify_chain(chain, keys["server_static"].public, root, now).raw == chain
    client = client_of(case, keys, payload)
    server = ServerHandshake(keys["server_static"], lambda: keys["server_ephemeral"], chain)
    first = client.hello()
    preamble = edge_preamble(bytes.fromhex(case["routing_info"])) if "routing_info" in case else b""
    expect_hex(first, case["client_hello"]["message"])
    expect_hex(preamble + INTRO + frame(first), case["client_hello"]["wire"])
    expect_arrival(case, first)
    answer = server.hello(first)
    expect_hex(answer, case["server_hello"]["message"])
    last = client.finish(answer)
    assert server.needs_finish == ("client_finish" in case)
    if server.needs_finish:
        expect_hex(last, case["client_finish"]["message"])
        server.finish(last)
    assert (server.client_static, server.payload) == (keys["client_static"].public, payload)
    assert (client.server_static, client.chain_der) == (keys["server_static"].public, chain)
    for number in range(len(case["transport"])):
        expect_frame(case["transport"][number], client.transport, server.transport)


def key_pair(pair: dict[str, str]) -> KeyPair:
    if "private" not in pair:
        return KeyPair(b"", bytes.fromhex(pair["public"]))
    made = KeyPair.from_private(bytes.fromhex(pair["private"]))
    expect_hex(made.public, pair["public"])
    return made


def client_of(case: dict[str, Any], keys: dict[str, KeyPair], payload: bytes) -> ClientHandshake:
    arguments = (keys["client_static"], keys["client_ephemeral"], payload, keys["root"].public, case["now"])
    if case["kind"] == "xx":
        return ClientHandshake(*arguments)
    known = keys.get("stale_server_static", keys["server_static"])
    return ResumingClient(*arguments, known_server=known.public)


def expect_hex(got: bytes, wanted: str) -> None:
    assert got == bytes.fromhex(wanted), f"{got.hex()} instead of {wanted}"


def expect_arrival(case: dict[str, Any], first: bytes) -> None:
    """Our server takes the client's first bytes apart, even one by one."""
    intro, frames, wire = IntroReader(), FrameReader(), bytes.fromhex(case["client_hello"]["wire"])
    rest = [intro.feed(wire[at : at + 1]) for at in range(len(wire) - frames_size(first))]
    assert rest[-1] == b""
    assert intro.routing_info == (bytes.fromhex(case["routing_info"]) if "routing_info" in case else None)
    assert frames.feed(wire[-frames_size(first) :]) == [first]


def frames_size(body: bytes) -> int:
    return len(frame(body))


def expect_frame(record: dict[str, Any], client: Transport, server: Transport) -> None:
    to_server = record["direction"] == "client_to_server"
    sender, receiver = (client, server) if to_server else (server, client)
    plaintext = bytes.fromhex(record["plaintext"])
    ciphertext = sender.encrypt(plaintext)
    expect_hex(ciphertext, record["ciphertext"])
    expect_hex(frame(ciphertext), record["frame"])
    assert receiver.decrypt(ciphertext) == plaintext
    expect_node(decode(plaintext), record["node"])


def replay(transcript: Any, prologue: bytes) -> None:
    """Repeat the operations of a transcript, comparing the state after each."""
    state: SymmetricState | None = None
    for step in transcript:
        if step["op"] == "init":
            state = SymmetricState(step["protocol_name"].encode(), prologue)
            continue
        assert state is not None
        if step["op"] == "split":
            assert [key.hex() for key in state.split()] == [
                step["client_to_server"],
                step["server_to_client"],
            ]
            continue
        apply(state, step)
        got = {"h": state.h.hex(), "ck": state.ck.hex(), "k": state.k.hex(), "n": state.n}
        assert got == {name: step[name] for name in got}, f"after {step['label']}"


def apply(state: SymmetricState, step: dict[str, Any]) -> None:
    match step["op"]:
        case "mix_hash":
            if step["label"] != "prologue":  # mixed by the constructor
                state.mix_hash(bytes.fromhex(step["data"]))
        case "mix_key":
            state.mix_key(bytes.fromhex(step["dh"]))
        case "encrypt_and_hash":
            expect_hex(state.encrypt_and_hash(bytes.fromhex(step["plaintext"])), step["ciphertext"])
        case "decrypt_and_hash":
            expect_hex(state.decrypt_and_hash(bytes.fromhex(step["ciphertext"])), step["plaintext"])
        case other:
            raise AssertionError(f"unknown operation {other}")


def noise_refused(case: dict[str, Any]) -> None:
    """A server hello that no client may answer."""
    keys = {name: key_pair(pair) for name, pair in case["keys"].items()}
    static, root = keys.get("client_static", keys["client_ephemeral"]), keys["root"].public
    client = ClientHandshake(static, keys["client_ephemeral"], b"payload", root, case["now"])
    bodies = FrameReader().feed(bytes.fromhex(case["server_hello"]["wire"]))
    assert bodies == [bytes.fromhex(case["server_hello"]["message"])]
    try:
        client.finish(bodies[0])
    except NoiseError:
        return
    raise AssertionError(f"accepted, but: {case['reason']}")


def noise_transport(case: dict[str, Any]) -> None:
    key = bytes.fromhex(case["key"])
    transport, reader = Transport(key, key), FrameReader()
    results: list[tuple[str, str | None]] = []
    for chunk in case.get("reads", case.get("frames")):
        for body in reader.feed(bytes.fromhex(chunk)):
            try:
                results.append(("ok", transport.decrypt(body).hex()))
            except NoiseError:
                results.append(("reject", None))
    assert results == list(zip(case["expect"], case["plaintexts"], strict=True))


FORMATS: dict[str, Format] = {
    "binary_nodes": {
        "encode": binary_encode,
        "decode": binary_decode,
        "malformed": binary_malformed,
    },
    "noise": {
        "xx": noise_handshake,
        "ik": noise_handshake,
        "xxfallback": noise_handshake,
        "xx_negative": noise_refused,
        "transport_negative": noise_transport,
    },
}
