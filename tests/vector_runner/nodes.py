"""Nodes and bytes as the vector files write them."""

from __future__ import annotations

from typing import Any, Final

from waD.wire.codec import decode, encode
from waD.wire.jid import GROUP, INTEROP, JID, PN
from waD.wire.node import Node, Value

ANY: Final = "*"
"""What a vector writes for an attribute with any unique value."""
BARE_SERVERS: Final = frozenset({PN, GROUP})
"""Servers that a vector writes as text where the wire has an address with an empty user."""


def wire_bytes(value: Any) -> bytes:
    """Hex, `{"repeat": hex, "times": n}`, or a list of these."""
    if isinstance(value, str):
        return bytes.fromhex(value)
    if isinstance(value, list):
        return b"".join(wire_bytes(part) for part in value)
    if "hex" in value:
        return bytes.fromhex(value["hex"])
    return bytes.fromhex(value["repeat"]) * int(value["times"])


def jid_of(text: str) -> JID:
    """The address a vector means by a text with `@`; any user and server goes."""
    account, _, server = text.partition("@")
    user, _, device = account.partition(":")
    integrator = "0"
    if server == INTEROP and "-" in user:
        integrator, _, user = user.partition("-")
    return JID(user, server, int(device or 0), int(integrator))


def jid_text(jid: JID) -> str:
    """The text a vector writes for an address: the package prints a server with `@`."""
    return str(jid) if jid.user else f"@{jid.server}"


def address(text: str) -> JID:
    """An address in any of the forms of the vectors: `user@server`, `@server`, or the server alone."""
    return jid_of(text) if "@" in text else JID("", text)


def received(value: dict[str, Any]) -> Node:
    """A node of a vector as it arrives: through our codec, addresses as addresses, texts as bytes."""
    return decode(encode(_node(value)))


def _node(value: dict[str, Any]) -> Node:
    attrs: dict[str, Value] = {
        name: address(text) if "@" in text or text in BARE_SERVERS else text
        for name, text in value["attrs"].items()
        if text is not None
    }
    content = value.get("content")
    if isinstance(content, list):
        return Node(value["tag"], attrs, [_node(child) for child in content])
    return Node(value["tag"], attrs, wire_bytes(content) if isinstance(content, dict) else content)


def expect_sent(node: Node, value: dict[str, Any]) -> None:
    """Compare a node of ours with the one a vector wants on the wire; what is compared went through the codec."""
    _expect(decode(encode(node)), received(value))


def _expect(got: Node, wanted: Node) -> None:
    assert got.tag == wanted.tag, f"<{got.tag}> instead of <{wanted.tag}>"
    ours = {name: "*" if wanted.attrs.get(name) == ANY and text else text for name, text in got.attrs.items()}
    assert ours == wanted.attrs, f"<{got.tag}> has {ours} instead of {wanted.attrs}"
    if not isinstance(wanted.content, list):
        assert got.content == wanted.content, f"the content of <{got.tag}>"
        return
    assert isinstance(got.content, list), f"<{got.tag}> has no children"
    tags = [child.tag for child in got.content], [child.tag for child in wanted.content]
    assert tags[0] == tags[1], f"<{got.tag}> has the children {tags[0]} instead of {tags[1]}"
    for child, wanted_child in zip(got.content, wanted.content, strict=True):
        _expect(child, wanted_child)


def optional_address(text: str | None) -> JID | None:
    """An address that may be missing."""
    return None if text is None else address(text)
