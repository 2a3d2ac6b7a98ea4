"""Bytes to nodes, with every limit (chapter 01 §5.8).

Nothing is allocated for an announced length before the bytes are known to be there, and depth is a list, not
the call stack. Reading past the end is noticed by the index error of the `bytes` object: a check per byte
would double the time. Each reader takes the data and the position after the tag byte, and returns its value
and the next position.
"""

from __future__ import annotations

import zlib
from binascii import hexlify
from collections.abc import Callable
from typing import Final, TypeAlias

from waD.wire._tags import (
    AD_JID,
    BINARY_8,
    BINARY_20,
    BINARY_32,
    DICTIONARY_0,
    FB_JID,
    FLAG_COMPRESSED,
    HEX_8,
    INTEROP_JID,
    JID_PAIR,
    LIST_8,
    LIST_16,
    LIST_EMPTY,
    MAX_DEPTH,
    NIBBLE_8,
)
from waD.wire.errors import CodecError
from waD.wire.jid import HOSTED, HOSTED_LID, INTEROP, JID, LID, MESSENGER, PN
from waD.wire.node import Node, Value
from waD.wire.tokens import DOUBLE_BYTE, SINGLE_BYTE

MAX_INFLATED: Final = 16 * 1024 * 1024
"""Bytes a compressed frame may grow to."""
MAX_NODES: Final = 300_000
MAX_ATTRIBUTES: Final = 300_000
"""Nodes and attributes of one frame."""

_StringReader: TypeAlias = Callable[[bytes, int], tuple[str, int]]
_ValueReader: TypeAlias = Callable[[bytes, int], tuple[Value | None, int]]

_SINGLE: Final[list[str | None]] = [None, *SINGLE_BYTE[1:], *[None] * (256 - len(SINGLE_BYTE))]
_BAD_NIBBLE: Final = b"\xff" * 4
_HEX_TO_NIBBLE: Final = bytes.maketrans(b"abcdef", b"-." + _BAD_NIBBLE)
_DOMAINS: Final = {0: PN, 1: LID, 128: HOSTED, 129: HOSTED_LID}


def decode(plaintext: bytes) -> Node:
    """Decode frame plaintext, flag byte included, to exactly one node.

    Texts are strict UTF-8; an attribute without value is left out; text content becomes bytes.

    Raises:
        CodecError: and nothing else, for any bytes that are not one node within the limits.
    """
    if not plaintext:
        raise CodecError("truncated", "an empty frame")
    try:
        if plaintext[0] & FLAG_COMPRESSED:
            plaintext = _inflate(plaintext[1:])
            node, end = _read_tree(plaintext, 0)
        else:
            node, end = _read_tree(plaintext, 1)
    except IndexError:
        raise CodecError("truncated", "the frame ends inside a node") from None
    except UnicodeDecodeError:
        raise CodecError(
            "bad_text", "a text is not UTF-8, or a packed text holds an undefined digit"
        ) from None
    if end != len(plaintext):
        raise CodecError("trailing", f"{len(plaintext) - end} bytes after the node")
    return node


def _inflate(data: bytes) -> bytes:
    inflater = zlib.decompressobj()
    try:
        plain = inflater.decompress(data, MAX_INFLATED + 1)
    except zlib.error:
        raise CodecError("bad_zlib", "the compressed frame is damaged") from None
    if len(plain) > MAX_INFLATED:
        raise CodecError("too_large", f"the frame inflates to more than {MAX_INFLATED} bytes")
    if not inflater.eof:
        raise CodecError("bad_zlib", "the compressed frame is cut short")
    return plain


def _read_tree(data: bytes, pos: int) -> tuple[Node, int]:
    root, attributes, left, pos = _read_node(data, pos)
    nodes, siblings = 1 + left, root.content
    above: list[tuple[list[Node], int]] = []
    while left:
        assert isinstance(siblings, list)
        child, attribute_count, child_count, pos = _read_node(data, pos)
        siblings.append(child)
        left -= 1
        attributes += attribute_count
        if child_count:
            nodes += child_count
            above.append((siblings, left))
            siblings, left = child.content, child_count
            if len(above) >= MAX_DEPTH - 1 or nodes > MAX_NODES:
                raise CodecError("too_big", f"deeper than {MAX_DEPTH} levels or more than {MAX_NODES} nodes")
        while not left and above:
            siblings, left = above.pop()
        if attributes > MAX_ATTRIBUTES:
            raise CodecError("too_big", f"more than {MAX_ATTRIBUTES} attributes")
    return root, pos


def _read_node(data: bytes, pos: int) -> tuple[Node, int, int, int]:
    """Read one node up to its children; returns it, how many attributes and children it has, the position."""
    kind = data[pos]
    if kind == LIST_8:
        size = data[pos + 1]
        pos += 2
    elif kind == LIST_16:
        size = data[pos + 1] << 8 | data[pos + 2]
        pos += 3
    else:
        raise CodecError("not_a_node", f"byte {kind:#04x} where a node is expected")
    tag, pos = _read_string(data, pos)
    if not tag or not size:
        raise CodecError("empty_tag", "a node without tag")
    attrs: dict[str, Value] = {}
    single = _SINGLE
    for _ in range(size - 1 >> 1):
        byte = data[pos]
        key = single[byte]
        if key is None:
            key, pos = _STRING_READERS[byte](data, pos + 1)
        else:
            pos += 1
        byte = data[pos]
        value: Value | None = single[byte]
        if value is None:
            value, pos = _VALUE_READERS[byte](data, pos + 1)
            if value is None:
                attrs.pop(key, None)
                continue
        else:
            pos += 1
        attrs[key] = value
    if size & 1:
        return Node(tag, attrs), size >> 1, 0, pos
    content, children, pos = _read_content(data, pos)
    node = Node(tag, attrs, content)
    if children:
        node.content = []
    return node, size - 1 >> 1, children, pos


def _read_content(data: bytes, pos: int) -> tuple[bytes | None, int, int]:
    """Read bytes content, or only the number of children."""
    kind = data[pos]
    if kind == LIST_8:
        return None, data[pos + 1], pos + 2
    if kind == LIST_16:
        return None, data[pos + 1] << 8 | data[pos + 2], pos + 3
    if kind in _BINARY_READERS:
        start, end = _BINARY_READERS[kind](data, pos + 1)
        return data[start:end], 0, end
    value, pos = _read_value(data, pos)
    return None if value is None else str(value).encode(), 0, pos


def _read_string(data: bytes, pos: int) -> tuple[str, int]:
    byte = data[pos]
    text = _SINGLE[byte]
    if text is None:
        return _STRING_READERS[byte](data, pos + 1)
    return text, pos + 1


def _read_value(data: bytes, pos: int) -> tuple[Value | None, int]:
    byte = data[pos]
    text = _SINGLE[byte]
    if text is None:
        return _VALUE_READERS[byte](data, pos + 1)
    return text, pos + 1


def _span(data: bytes, start: int, size: int) -> tuple[int, int]:
    end = start + size
    if end > len(data):
        raise CodecError("truncated", "a length goes beyond the end of the frame")
    return start, end


def _span_8(data: bytes, pos: int) -> tuple[int, int]:
    return _span(data, pos + 1, data[pos])


def _span_20(data: bytes, pos: int) -> tuple[int, int]:
    return _span(data, pos + 3, (data[pos] & 0x0F) << 16 | data[pos + 1] << 8 | data[pos + 2])


def _span_32(data: bytes, pos: int) -> tuple[int, int]:
    return _span(
        data, pos + 4, int.from_bytes((data[pos], data[pos + 1], data[pos + 2], data[pos + 3]), "big")
    )


def _text_8(data: bytes, pos: int) -> tuple[str, int]:
    start, end = _span_8(data, pos)
    return data[start:end].decode(), end


def _text_20(data: bytes, pos: int) -> tuple[str, int]:
    start, end = _span_20(data, pos)
    return data[start:end].decode(), end


def _text_32(data: bytes, pos: int) -> tuple[str, int]:
    start, end = _span_32(data, pos)
    return data[start:end].decode(), end


def _nibble(data: bytes, pos: int) -> tuple[str, int]:
    digits, pos = _packed(data, pos)
    return digits.translate(_HEX_TO_NIBBLE).decode("ascii"), pos


def _hex(data: bytes, pos: int) -> tuple[str, int]:
    digits, pos = _packed(data, pos)
    return digits.decode("ascii").upper(), pos


def _packed(data: bytes, pos: int) -> tuple[bytes, int]:
    head = data[pos]
    start = pos + 1
    end = start + (head & 0x7F)
    if end > len(data):
        raise CodecError("truncated", "a packed text goes beyond the end of the frame")
    if head < 0x80:
        return hexlify(data[start:end]), end
    if head == 0x80:
        raise CodecError("bad_text", "a packed text of minus one character")
    return hexlify(data[start:end])[:-1], end


def _jid_pair(data: bytes, pos: int) -> tuple[JID, int]:
    if data[pos] == LIST_EMPTY:
        user, pos = "", pos + 1
    else:
        user, pos = _read_string(data, pos)
    server, pos = _read_string(data, pos)
    if not server:
        raise CodecError("bad_jid", "an address without server")
    return JID(user, server), pos


def _ad_jid(data: bytes, pos: int) -> tuple[JID, int]:
    domain, device = data[pos], data[pos + 1]
    server = _DOMAINS.get(domain)
    if server is None:
        if domain & 0x81 != 0x80:
            raise CodecError("bad_jid", f"unknown domain {domain} of an address")
        server = HOSTED
    user, pos = _read_string(data, pos + 2)
    return JID(user, server, device), pos


def _fb_jid(data: bytes, pos: int) -> tuple[JID, int]:
    user, pos = _read_string(data, pos)
    device = data[pos] << 8 | data[pos + 1]
    server, pos = _read_string(data, pos + 2)
    if server != MESSENGER:
        raise CodecError("bad_jid", "a Messenger address on another server")
    return JID(user, server, device), pos


def _interop_jid(data: bytes, pos: int) -> tuple[JID, int]:
    user, pos = _read_string(data, pos)
    device = data[pos] << 8 | data[pos + 1]
    integrator = data[pos + 2] << 8 | data[pos + 3]
    server, pos = _read_string(data, pos + 4)
    if server != INTEROP:
        raise CodecError("bad_jid", "an interop address on another server")
    return JID(user, server, device, integrator), pos


def _null(data: bytes, pos: int) -> tuple[None, int]:  # noqa: ARG001 - one signature for all readers
    return None, pos


def _no_text(data: bytes, pos: int) -> tuple[str, int]:
    raise CodecError("not_a_text", f"byte {data[pos - 1]:#04x} where a text is expected")


def _dictionary(tokens: tuple[str, ...]) -> _StringReader:
    def read(data: bytes, pos: int) -> tuple[str, int]:
        return tokens[data[pos]], pos + 1

    return read


_BINARY_READERS: Final = {BINARY_8: _span_8, BINARY_20: _span_20, BINARY_32: _span_32}
_STRING_READERS: Final[list[_StringReader]] = [_no_text] * 256
for _number, _tokens in enumerate(DOUBLE_BYTE):
    _STRING_READERS[DICTIONARY_0 + _number] = _dictionary(_tokens)
_STRING_READERS[HEX_8] = _hex
_STRING_READERS[NIBBLE_8] = _nibble
_STRING_READERS[BINARY_8] = _text_8
_STRING_READERS[BINARY_20] = _text_20
_STRING_READERS[BINARY_32] = _text_32

_VALUE_READERS: Final[list[_ValueReader]] = [*_STRING_READERS]
_VALUE_READERS[LIST_EMPTY] = _null
_VALUE_READERS[JID_PAIR] = _jid_pair
_VALUE_READERS[AD_JID] = _ad_jid
_VALUE_READERS[FB_JID] = _fb_jid
_VALUE_READERS[INTEROP_JID] = _interop_jid
