"""The node: one element of WhatsApp's binary XML (chapter 01 §5.3)."""

from __future__ import annotations

import builtins
import re
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias, overload

from waD.wire.errors import JIDError
from waD.wire.jid import JID

Value: TypeAlias = str | JID
Content: TypeAlias = "bytes | list[Node] | None"

MAX_INT: Final = 2**53
MAX_XML_DEPTH: Final = 128

_DECIMAL: Final = re.compile(r"[0-9]{1,16}", re.ASCII)


class Node:
    """Tag, attributes, and either nothing, bytes or child nodes.

    Attributes keep the type they had on the wire: an address stays a `JID`, so that an answer can copy it as
    it was (chapter 01 §7.4). The order of attributes has no meaning.

    Args:
        tag: name, not empty.
        attrs: taken over as it is when it is a dict.
        content: text becomes its UTF-8 bytes; an empty sequence of nodes becomes no content at all, because
            an empty list must never be sent (chapter 01 §5.7). A list is taken over as it is.
    """

    __slots__ = ("attrs", "content", "tag")

    tag: str
    attrs: dict[str, Value]
    content: Content

    def __init__(
        self,
        tag: str,
        attrs: Mapping[str, Value] | None = None,
        content: str | bytes | Sequence[Node] | None = None,
    ) -> None:
        self.tag = tag
        self.attrs = attrs if isinstance(attrs, dict) else dict(attrs or {})
        if content is None or isinstance(content, bytes):
            self.content = content
        elif isinstance(content, str):
            self.content = content.encode()
        else:
            self.content = (content if isinstance(content, list) else list(content)) or None

    def child(self, tag: str) -> Node | None:
        """The first child of that tag."""
        if isinstance(self.content, list):
            for node in self.content:
                if node.tag == tag:
                    return node
        return None

    def children(self, tag: str | None = None) -> list[Node]:
        """All children, or those of one tag, in order; empty when the content is not a list."""
        if not isinstance(self.content, list):
            return []
        return [node for node in self.content if tag is None or node.tag == tag]

    @overload
    def text(self, name: str, default: None = None) -> str | None: ...
    @overload
    def text(self, name: str, default: str) -> str: ...
    def text(self, name: str, default: str | None = None) -> str | None:
        """An attribute as text, addresses in their text form."""
        value = self.attrs.get(name)
        if value is None:
            return default
        return value if isinstance(value, str) else str(value)

    def jid(self, name: str) -> JID | None:
        """An attribute as address, also when the peer wrote it as text; None when it is not one."""
        value = self.attrs.get(name)
        if value is None or isinstance(value, JID):
            return value
        try:
            return JID.parse_any_server(value)
        except JIDError:
            return None

    def int(self, name: str) -> builtins.int | None:
        """An attribute as decimal number from 0 to `MAX_INT`; None when it is anything else."""
        value = self.attrs.get(name)
        if not isinstance(value, str) or not _DECIMAL.fullmatch(value):
            return None
        number = builtins.int(value)
        return number if number <= MAX_INT else None

    @property
    def data(self) -> bytes:
        """The content when it is bytes, else no bytes."""
        return self.content if isinstance(self.content, bytes) else b""

    def xml(self) -> str:
        """Render for people: attributes in full, bytes only as their length."""
        return "\n".join(_xml_lines(self, 0))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Node):
            return NotImplemented
        return (
            self.tag == other.tag
            and self.attrs == other.attrs
            and _comparable(self.content) == _comparable(other.content)
        )

    def __repr__(self) -> str:
        attrs = "".join(f" {name}={str(value)!r}" for name, value in self.attrs.items())
        return f"<Node {self.tag}{attrs} {_shape(self.content)}>"


def _comparable(content: Content) -> Content:
    return None if content == [] else content


def _shape(content: Content) -> str:
    if isinstance(content, bytes):
        return f"{len(content)} bytes"
    if not content:
        return "empty"
    return f"[{' '.join(node.tag for node in content[:8])}{' …' if len(content) > 8 else ''}]"


def _xml_lines(node: Node, depth: int) -> list[str]:
    pad = "  " * depth
    attrs = "".join(f' {name}="{value}"' for name, value in node.attrs.items())
    head = f"{pad}<{node.tag}{attrs}"
    if not node.content and not isinstance(node.content, bytes):
        return [f"{head}/>"]
    if isinstance(node.content, bytes):
        return [f"{head}><!-- {len(node.content)} bytes --></{node.tag}>"]
    if depth >= MAX_XML_DEPTH:
        return [f"{head}><!-- deeper --></{node.tag}>"]
    lines = [f"{head}>"]
    for child in node.content:
        lines += _xml_lines(child, depth + 1)
    return [*lines, f"{pad}</{node.tag}>"]
