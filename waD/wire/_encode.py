"""Nodes to bytes, in the one canonical form that all peers share (chapter 01 §5.6).

The encoder runs once per stanza and decides how many stanzas a second a session can send, so every string the
dictionary knows has its bytes ready, and packing is left to the C code of `bytes.translate` and `unhexlify`.
"""

from __future__ import annotations

from binascii import unhexlify
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from waD.wire._tags import (
    AD_JID,
    BINARY_8,
    BINARY_20,
    BINARY_32,
    DICTIONARY_0,
    FB_JID,
    HEX_8,
    INTEROP_JID,
    JID_PAIR,
    LIST_8,
    LIST_16,
    LIST_EMPTY,
    MAX_DEPTH,
    MAX_LIST,
    MAX_PACKED,
    NIBBLE_8,
)
from waD.wire.errors import CodecError
from waD.wire.jid import HOSTED, HOSTED_LID, INTEROP, JID, LID, MAX_USER_LENGTH, MESSENGER, PN
from waD.wire.node import Content, Node, Value
from waD.wire.tokens import DOUBLE_BYTE, SINGLE_BYTE

_USERS_KEPT: Final = 4096
_MAX_BINARY: Final = 0xFFFFFFFF
_NIBBLE_CHARS: Final = b"0123456789-."
_HEX_CHARS: Final = b"0123456789ABCDEF"
_NIBBLE_TO_HEX: Final = bytes.maketrans(b"-.", b"ab")

_KNOWN: Final[dict[str, bytes]] = {"": bytes((BINARY_8, 0))}
_KNOWN.update((token, bytes((index,))) for index, token in enumerate(SINGLE_BYTE) if index)
_KNOWN.update(
    (token, bytes((DICTIONARY_0 + number, index)))
    for number, dictionary in enumerate(DOUBLE_BYTE)
    for index, token in enumerate(dictionary)
)
_SHORT_LIST: Final = tuple(bytes((LIST_8, size)) for size in range(256))
_SHORT_BINARY: Final = tuple(bytes((BINARY_8, size)) for size in range(256))
_AD_DEVICE: Final = {
    server: tuple(bytes((AD_JID, domain, device)) for device in range(256))
    for server, domain in ((PN, 0), (LID, 1), (HOSTED, 128), (HOSTED_LID, 129))
}
_PAIR_TAG: Final = bytes((JID_PAIR,))
_NO_USER: Final = bytes((JID_PAIR, LIST_EMPTY))
_NO_CONTENT: Final = bytes((LIST_EMPTY,))


def encode(node: Node) -> bytes:
    """Encode one node as frame plaintext, flag byte 00 included.

    A `str` never becomes an address, whatever it looks like; a `JID` always does.

    Raises:
        CodecError: the node has no binary form: empty tag, an attribute that is neither text nor address, too
            many attributes or children, too deep, or an address with a device its server cannot carry.
    """
    parts = [b"\x00"]
    try:
        _write_node(node, parts.append, 0)
    except UnicodeEncodeError:
        raise CodecError("not_unicode", f"<{node.tag!a}> holds text with unpaired surrogates") from None
    return b"".join(parts)


def encode_value(value: Value) -> bytes:
    """Encode one text or address in its canonical form.

    Raises:
        CodecError: see `encode`.
    """
    return _jid(value) if isinstance(value, JID) else _KNOWN.get(value) or _string(value)


def _write_node(node: Node, put: Callable[[bytes], None], depth: int) -> None:
    tag, attrs, content = node.tag, node.attrs, node.content
    if not tag:
        raise CodecError("empty_tag", "a node without tag")
    if depth >= MAX_DEPTH:
        raise CodecError("too_deep", f"<{tag}> is nested {depth} levels deep")
    known = _KNOWN.get
    size = 1 + 2 * len(attrs) + (content is not None)
    put(_SHORT_LIST[size] if size < 256 else _long_list(size, tag))
    put(known(tag) or _string(tag))
    for key, value in attrs.items():
        put(known(key) or _string(key))
        if isinstance(value, str):
            put(known(value) or _string(value))
        elif isinstance(value, JID):
            put(_jid(value))
        else:
            raise CodecError("bad_value", f"attribute {key!r} of <{tag}> is neither text nor address")
    if content is not None:
        _write_content(content, tag, put, depth)


def _write_content(content: Content, tag: str, put: Callable[[bytes], None], depth: int) -> None:
    if isinstance(content, bytes):
        size = len(content)
        put(_SHORT_BINARY[size] if size < 256 else _long_binary(size))
        put(content)
    elif isinstance(content, list):
        size = len(content)
        put(_NO_CONTENT if not size else _SHORT_LIST[size] if size < 256 else _long_list(size, tag))
        for child in content:
            _write_node(child, put, depth + 1)
    else:
        raise CodecError("bad_content", f"the content of <{tag}> is neither bytes nor nodes")


def _long_list(size: int, tag: str) -> bytes:
    if size > MAX_LIST:
        raise CodecError("too_many", f"<{tag}> has more parts than a list can count: {size}")
    return bytes((LIST_16, size >> 8, size & 0xFF))


def _long_binary(size: int) -> bytes:
    if size < 1 << 20:
        return bytes((BINARY_20, size >> 16, size >> 8 & 0xFF, size & 0xFF))
    if size > _MAX_BINARY:
        raise CodecError("too_long", f"{size} bytes do not fit into one string")
    return bytes((BINARY_32,)) + size.to_bytes(4, "big")


def _string(text: str) -> bytes:
    """A string the dictionary does not know: packed when possible, else raw."""
    raw = text.encode()
    size = len(raw)
    if size <= MAX_PACKED:
        if not raw.translate(None, _NIBBLE_CHARS):
            return _packed(NIBBLE_8, raw.translate(_NIBBLE_TO_HEX), size)
        if not raw.translate(None, _HEX_CHARS):
            return _packed(HEX_8, raw, size)
    return (_SHORT_BINARY[size] if size < 256 else _long_binary(size)) + raw


def _packed(tag: int, digits: bytes, size: int) -> bytes:
    if size & 1:
        return bytes((tag, 0x80 | (size + 1) >> 1)) + unhexlify(digits + b"f")
    return bytes((tag, size >> 1)) + unhexlify(digits)


@lru_cache(maxsize=_USERS_KEPT)
def _short_user(user: str) -> bytes:
    return _KNOWN.get(user) or _string(user)


def _user(user: str) -> bytes:
    """The user part of an address; those of ordinary length are remembered, since the same people come again."""
    return _short_user(user) if len(user) <= MAX_USER_LENGTH else _string(user)


def _jid(jid: JID) -> bytes:
    server, device = jid.server, jid.device
    if device or jid.integrator:
        forms = _AD_DEVICE.get(server)
        if forms is None or not 0 <= device <= 0xFF or jid.integrator:
            return _foreign_jid(jid)
        return forms[device] + _user(jid.user)
    if not server:
        raise CodecError("bad_jid", "an address without server")
    head = _PAIR_TAG + _user(jid.user) if jid.user else _NO_USER
    return head + (_KNOWN.get(server) or _string(server))


def _foreign_jid(jid: JID) -> bytes:
    """Addresses of other networks (chapter 01 §5.5), and the refusal of what has no form at all."""
    if 0 <= jid.device <= 0xFFFF and 0 <= jid.integrator <= 0xFFFF:
        device = jid.device.to_bytes(2, "big")
        if jid.server == MESSENGER and not jid.integrator:
            return bytes((FB_JID,)) + _user(jid.user) + device + encode_value(MESSENGER)
        if jid.server == INTEROP:
            numbers = device + jid.integrator.to_bytes(2, "big")
            return bytes((INTEROP_JID,)) + _user(jid.user) + numbers + encode_value(INTEROP)
    raise CodecError("bad_jid", f"the server {jid.server!r} has no form for device {jid.device}")
