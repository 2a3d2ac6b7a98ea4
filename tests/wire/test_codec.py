"""The binary node codec (chapter 01 §5)."""

from __future__ import annotations

import zlib
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from waD.wire import _encode, codec, tokens
from waD.wire.codec import decode, encode, encode_value
from waD.wire.errors import CodecError
from waD.wire.jid import JID, SERVER
from waD.wire.node import Node

NIBBLES = "0123456789-."
HEX = "0123456789ABCDEF"

# Properties


words = st.one_of(
    st.sampled_from([*tokens.SINGLE_BYTE[1:], *tokens.DOUBLE_BYTE[0], *tokens.DOUBLE_BYTE[3]]),
    st.text(alphabet=NIBBLES, max_size=130),
    st.text(alphabet=HEX, max_size=130),
    st.text(max_size=300),
)
users = st.one_of(st.text(alphabet="0123456789", min_size=1, max_size=20), st.text(min_size=1, max_size=20))
addresses = st.one_of(
    st.builds(
        JID, users, st.sampled_from(["s.whatsapp.net", "lid", "hosted", "hosted.lid"]), st.integers(0, 255)
    ),
    st.builds(JID, st.one_of(st.just(""), users), st.one_of(st.sampled_from(["g.us", "call"]), users)),
    st.builds(JID, users, st.just("msgr"), st.integers(0, 65535)),
    st.builds(JID, users, st.just("interop"), st.integers(0, 65535), st.integers(0, 65535)),
)
attributes = st.dictionaries(words, st.one_of(words, addresses), max_size=5)
contents = st.one_of(st.none(), st.binary(max_size=300))
nodes = st.recursive(
    st.builds(Node, words.filter(bool), attributes, contents),
    lambda below: st.builds(Node, words.filter(bool), attributes, st.lists(below, max_size=4)),
    max_leaves=12,
)


@settings(max_examples=200)
@given(nodes)
def test_decode_reverses_encode(node: Node) -> None:
    assert decode(encode(node)) == node


@settings(max_examples=100)
@given(nodes, st.integers(0, 9))
def test_compressed_frames_mean_the_same(node: Node, level: int) -> None:
    compressed = b"\x02" + zlib.compress(encode(node)[1:], level)
    assert decode(compressed) == node
    assert decode(compressed + b"after the stream") == node


@settings(max_examples=300)
@given(st.binary(max_size=200))
@example(b"\x00\xf8\x01")
@example(b"\x00\xf8\x02\x19\xfe\xff\xff\xff\xff")
def test_any_bytes_decode_or_raise_only_codec_error(data: bytes) -> None:
    for frame in (data, b"\x00" + data, b"\x02" + data, b"\x02" + zlib.compress(data)):
        decode_or_refuse(frame)


@settings(max_examples=200)
@given(nodes, st.data())
def test_damaged_frames_decode_or_raise_only_codec_error(node: Node, data: st.DataObject) -> None:
    frame = bytearray(encode(node))
    for _ in range(data.draw(st.integers(1, 4))):
        frame[data.draw(st.integers(1, len(frame) - 1))] = data.draw(st.integers(0, 255))
    decode_or_refuse(bytes(frame))


@settings(max_examples=100)
@given(nodes)
def test_every_cut_of_a_frame_is_refused(node: Node) -> None:
    frame = encode(node)
    for length in {*range(min(len(frame), 60)), len(frame) - 1}:
        with pytest.raises(CodecError):
            decode(frame[:length])


def decode_or_refuse(frame: bytes) -> None:
    try:
        node = decode(frame)
    except CodecError:
        return
    assert node.tag
    node.xml()


# Strings in their canonical form


@pytest.mark.parametrize(
    ("text", "wire"),
    [
        ("", "fc00"),
        ("iq", "19"),
        ("read-self", "ec00"),
        ("404", "ec35"),
        ("1", "55"),
        ("15-.", "ff0215ab"),
        ("155", "ff82155f"),
        ("0AF", "fb820aff"),
        ("0A", "fb010a"),
        ("0ab", "fc03306162"),
        ("A-", "fc02412d"),
        ("1 2", "fc03312032"),
        ("٣", "fc02d9a3"),
        ("é", "fc02c3a9"),
        ("1@lid", "fc0531406c6964"),
    ],
)
def test_canonical_strings(text: str, wire: str) -> None:
    assert encode_value(text).hex() == wire
    assert decode(b"\x00\xf8\x03\x19\x08" + encode_value(text)) == Node("iq", {"id": text})


@pytest.mark.parametrize("alphabet", [NIBBLES, HEX])
def test_packed_up_to_127_characters(alphabet: str) -> None:
    text = (alphabet[::-1] * 20)[:127]
    assert encode_value(text)[:2].hex()[2:] == "c0"
    assert len(encode_value(text)) == 66
    assert encode_value(text + text[0])[0] == 0xFC
    for size in range(2, 128):
        assert decode(encode(Node("x", {"y": text[:size]}))).attrs["y"] == text[:size]


def test_packed_strings_of_254_characters_are_read() -> None:
    assert decode(b"\x00\xf8\x03\x19\x08\xff\x7f" + b"\x12" * 127).attrs == {"id": "12" * 127}


def test_every_token_has_its_own_bytes() -> None:
    everything = [*tokens.SINGLE_BYTE[1:], *(token for words in tokens.DOUBLE_BYTE for token in words)]
    assert len(everything) == len(set(everything)) == 235 + 1024
    assert max(map(len, everything)) == 48
    assert encode_value("xmlstreamstart") == b"\x01"
    assert encode_value(tokens.SINGLE_BYTE[235]) == b"\xeb"
    for number, words_ in enumerate(tokens.DOUBLE_BYTE):
        assert [encode_value(token) for token in words_] == [bytes((0xEC + number, n)) for n in range(256)]


@pytest.mark.parametrize(
    ("size", "head"),
    [
        (0, "fc00"),
        (255, "fcff"),
        (256, "fd000100"),
        (65536, "fd010000"),
        (2**20 - 1, "fd0fffff"),
        (2**20, "fe00100000"),
    ],
)
def test_lengths_take_the_shortest_form(size: int, head: str) -> None:
    raw = bytes.fromhex(head)
    assert encode(Node("enc", None, b"z" * size))[4 : 4 + len(raw)] == raw
    assert encode_value("z" * size).startswith(raw)
    assert decode(encode(Node("enc", {"a": "é" * (size // 2)}, b"z" * size))).data == b"z" * size


def test_an_enum_of_texts_is_a_text() -> None:
    class Kind(StrEnum):
        GET = "get"

    assert encode(Node("iq", {"type": Kind.GET})) == encode(Node("iq", {"type": "get"}))


# Addresses


@pytest.mark.parametrize(
    ("address", "wire"),
    [
        (SERVER, "fa0003"),
        (JID("1", "s.whatsapp.net"), "fa5503"),
        (JID("155", "s.whatsapp.net", 7), "f70007ff82155f"),
        (JID("155", "lid", 255), "f701ffff82155f"),
        (JID("155", "hosted", 99), "f78063ff82155f"),
        (JID("155", "hosted.lid", 99), "f78163ff82155f"),
        (JID("155", "hosted"), "faff82155ffc06686f73746564"),
        (JID("status", "broadcast"), "fa0b0d"),
        (JID("155", "msgr", 258), "f6ff82155f0102cc"),
        (JID("155", "msgr"), "faff82155fcc"),
        (JID("155", "interop", 7, 300), "f5ff82155f0007012cfc07696e7465726f70"),
        (JID("me ", " home"), "fafc036d6520fc0520686f6d65"),
    ],
)
def test_addresses(address: JID, wire: str) -> None:
    assert encode_value(address).hex() == wire
    node = Node("iq", {"to": address})
    assert decode(encode(node)) == node


@pytest.mark.parametrize(
    "address",
    [
        JID("1", "s.whatsapp.net", 256),
        JID("1", "lid", -1),
        JID("1", "g.us", 1),
        JID("1", "c.us", 1),
        JID("1", "lid", 1, 5),
        JID("1", "lid", 0, 5),
        JID("1", "msgr", 65536),
        JID("1", "msgr", 1, 1),
        JID("1", "interop", 1, 65536),
        JID("1", "interop", -1, 1),
        JID("1", ""),
    ],
)
def test_addresses_without_a_binary_form(address: JID) -> None:
    with pytest.raises(CodecError) as caught:
        encode(Node("iq", {"to": address}))
    assert caught.value.code == "bad_jid"


def test_text_is_never_turned_into_an_address_nor_back() -> None:
    node = Node("presence", {"name": "me @ home", "to": "15550001111@s.whatsapp.net"})
    assert decode(encode(node)) == node
    assert decode(encode(Node("a", {"to": SERVER}))).attrs["to"] == SERVER
    assert decode(encode(Node("a", {"to": "s.whatsapp.net"}))).attrs["to"] == "s.whatsapp.net"


@pytest.mark.parametrize("domain", range(256))
def test_domains_of_device_addresses(domain: int) -> None:
    frame = b"\x00\xf8\x03\x19\x06\xf7" + bytes((domain, 5)) + b"\xff\x02\x15\x55"
    server = {0: "s.whatsapp.net", 1: "lid", 129: "hosted.lid"}.get(domain)
    if server is None and domain >= 128 and not domain & 1:
        server = "hosted"
    if server:
        assert decode(frame).attrs["from"] == JID("1555", server, 5)
    else:
        with pytest.raises(CodecError):
            decode(frame)


# What the encoder refuses


def nested(depth: int) -> Node:
    node = Node("item")
    for _ in range(depth):
        node = Node("item", None, [node])
    return node


def surprising(content: Any) -> Node:
    node = Node("a")
    node.content = content
    return node


@pytest.mark.parametrize(
    ("node", "code"),
    [
        (Node(""), "empty_tag"),
        (Node("a", {"x": None}), "bad_value"),  # type: ignore[dict-item]
        (Node("a", {"x": 5}), "bad_value"),  # type: ignore[dict-item]
        (Node("a", {"x": b"y"}), "bad_value"),  # type: ignore[dict-item]
        (Node("a", {"x": "\ud800"}), "not_unicode"),
        (Node("a\ud800"), "not_unicode"),
        (Node("a", {"x": JID("\udfff", "lid")}), "not_unicode"),
        (nested(128), "too_deep"),
        (Node("a", None, [Node("b")] * 65536), "too_many"),
        (Node("a", {str(number): "" for number in range(32768)}), "too_many"),
        (surprising("text"), "bad_content"),
        (surprising((Node("b"),)), "bad_content"),
    ],
)
def test_what_encode_refuses(node: Node, code: str) -> None:
    with pytest.raises(CodecError) as caught:
        encode(node)
    assert caught.value.code == code
    str(caught.value).encode("ascii")


def test_a_node_inside_itself_ends() -> None:
    node = Node("a")
    node.content = [node]
    with pytest.raises(CodecError):
        encode(node)


def test_refusals_of_the_encoder_name_the_attribute_but_not_its_value() -> None:
    with pytest.raises(CodecError, match=r"attribute 'token' of <iq>") as caught:
        encode(Node("iq", {"token": b"secret"}))  # type: ignore[dict-item]
    assert "secret" not in str(caught.value)


# What the decoder accepts


def test_null_attribute_is_absent_and_the_last_of_two_wins() -> None:
    assert decode(bytes.fromhex("00f803190800")).attrs == {}
    assert decode(bytes.fromhex("00f8051908550829")).attrs == {"id": "get"}
    assert decode(bytes.fromhex("00f8051908550800")).attrs == {}
    assert decode(bytes.fromhex("00f8051908000855")).attrs == {"id": "1"}
    assert decode(bytes.fromhex("00f8031908fc00")).attrs == {"id": ""}


@pytest.mark.parametrize(
    ("wire", "content"),
    [
        ("00", None),
        ("f800", None),
        ("f90000", None),
        ("fc00", b""),
        ("29", b"get"),
        ("ec00", b"read-self"),
        ("ff01a5", b"-5"),
        ("fb01a5", b"A5"),
        ("fa0003", b"s.whatsapp.net"),
        ("f70005ff0115", b"15:5@s.whatsapp.net"),
        ("fc02ffff", b"\xff\xff"),
        ("f801f80156", [Node("ping")]),
    ],
)
def test_content_forms(wire: str, content: Any) -> None:
    assert decode(bytes.fromhex("00f80219" + wire)).content == content


@pytest.mark.parametrize("flags", [0x00, 0x01, 0x04, 0xFD])
def test_only_one_flag_matters(flags: int) -> None:
    assert decode(bytes((flags, 0xF8, 1, 2))) == Node("xmlstreamend")
    assert decode(bytes((flags | 2,)) + zlib.compress(b"\xf8\x01\x02")) == Node("xmlstreamend")


# Limits of the decoder


def list_16(size: int) -> bytes:
    return b"\xf9" + size.to_bytes(2, "big")


def refused(frame: bytes) -> str:
    with pytest.raises(CodecError) as caught:
        decode(frame)
    return caught.value.code


def test_depth() -> None:
    assert decode(encode(nested(127))) == nested(127)
    level = b"\xf8\x02\x3f\xf8\x01"
    assert decode(b"\x00" + level * 127 + b"\xf8\x01\x3f") == nested(127)
    assert refused(b"\x00" + level * 128 + b"\xf8\x01\x3f") == "too_big"
    assert refused(b"\x00" + level * 1_000_000) == "too_big"


def test_depth_is_counted_along_a_path_not_over_the_frame() -> None:
    wide = Node("list", None, [nested(126), nested(126), Node("item"), nested(126)])
    assert decode(encode(wide)) == wide


def nodes_frame(total: int) -> bytes:
    """A root with lists of 1000 items below it, `total` nodes in all."""
    full, rest = divmod(total - 1, 1001)
    lists = [b"\xf8\x02\x71" + list_16(1000) + b"\xf8\x01\x3f" * 1000] * full + [b"\xf8\x01\x3f"] * rest
    return b"\x00\xf8\x02\x71" + list_16(len(lists)) + b"".join(lists)


def test_number_of_nodes() -> None:
    count = len(decode(nodes_frame(codec.MAX_NODES)).children())
    assert count == 299 + 700
    assert refused(nodes_frame(codec.MAX_NODES + 1)) == "too_big"


def test_number_of_attributes() -> None:
    node = list_16(1 + 2 * 30_000) + b"\x19" + b"\x08\x55" * 30_000
    whole = b"\x00\xf8\x02\x71\xf8"
    assert decode(whole + b"\x0a" + node * 10).children()[9].attrs == {"id": "1"}
    assert refused(whole + b"\x0b" + node * 10 + b"\xf8\x03\x19\x08\x55") == "too_big"


def test_inflated_size() -> None:
    overhead = len(encode(Node("enc", None, b"0" * 2**20))) - 1 - 2**20
    largest = codec.MAX_INFLATED - overhead
    body = encode(Node("enc", None, bytes(largest)))[1:]
    assert len(body) == codec.MAX_INFLATED
    assert len(decode(b"\x02" + zlib.compress(body, 1)).data) == largest
    body = encode(Node("enc", None, bytes(largest + 1)))[1:]
    assert refused(b"\x02" + zlib.compress(body, 1)) == "too_large"


def test_a_zlib_stream_must_be_whole() -> None:
    stream = zlib.compress(encode(Node("iq", {"id": "x" * 100}))[1:])
    for length in range(len(stream)):
        assert refused(b"\x02" + stream[:length]) == "bad_zlib"
    assert refused(b"\x02" + stream[:-1] + bytes((stream[-1] ^ 1,))) == "bad_zlib"
    assert refused(b"\x02" + zlib.compress(b"")) == "truncated"


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        ("", "truncated"),
        ("00", "truncated"),
        ("00f801", "truncated"),
        ("00f8020c", "truncated"),
        ("00f80100", "not_a_text"),
        ("00f801fa0003", "not_a_text"),
        ("00f801fc00", "empty_tag"),
        ("00f80019", "empty_tag"),
        ("0019", "not_a_node"),
        ("00f8031900 29", "not_a_text"),
        ("00f80319fa000329", "not_a_text"),
        ("00f8031908f3", "not_a_text"),
        ("00f8031908ff80", "bad_text"),
        ("00f8031908ff01c0", "bad_text"),
        ("00f8031908ff010f", "bad_text"),
        ("00f8031908fc02c0af", "bad_text"),
        ("00f8031908fc03eda080", "bad_text"),
        ("00f8031906fa0000", "not_a_text"),
        ("00f8031906fa00fc00", "bad_jid"),
        ("00f8031906f70000fa0003", "not_a_text"),
        ("00f8031906f7000000", "not_a_text"),
        ("00f8031908feffffffff", "truncated"),
        ("00f8020cfd0fffff", "truncated"),
        ("00f801193f", "trailing"),
    ],
)
def test_what_decode_refuses(wire: str, code: str) -> None:
    assert refused(bytes.fromhex(wire)) == code


def test_errors_hold_no_content() -> None:
    with pytest.raises(CodecError) as caught:
        decode(b"\x00\xf8\x01\x19secret after the node")
    assert "secret" not in str(caught.value)


def test_announced_lengths_are_not_allocated() -> None:
    for frame in (
        b"\x00\xf8\x02\x1d\xfe\xff\xff\xff\xf0",
        b"\x00\xf9\xff\xff\x19",
        b"\x00\xf8\x02\x19\xf9\xff\xff",
    ):
        assert refused(frame) == "truncated"


def test_only_users_of_ordinary_length_are_remembered() -> None:
    for number in range(10):
        encode(Node("a", {"to": JID(f"{number}" * 100_000, "lid")}))
    kept = _encode._short_user.cache_info()
    before = kept.currsize
    assert kept.maxsize == 4096
    encode(Node("a", {"to": JID("9" * 100_001, "lid", 1)}))
    assert _encode._short_user.cache_info().currsize == before
