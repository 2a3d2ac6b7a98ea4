"""The request for collections, and its answer (chapter 05 §4.3): pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from google.protobuf.message import DecodeError

from waD.e2ee.syncd.errors import SyncdError
from waD.e2ee.syncd.patches import parse_patch
from waD.link.errors import RequestError
from waD.link.stanzas import error_of, iq, need_child
from waD.proto.appstate_pb2 import ExternalBlobReference, SyncdPatch
from waD.wire.node import Node

XMLNS: Final = "w:sync:app:state"
_SUBJECT: Final = "the app state"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server has of one collection.

    Attributes:
        snapshot: where all of it is, in a file.
        patches: after the snapshot, or after the version that was named.
        more: there are more patches.
        refusal: the server's error, which does not exclude patches.
        fault: a part that cannot be read; nothing else is here then.
    """

    snapshot: ExternalBlobReference | None = field(default=None, repr=False)
    patches: tuple[SyncdPatch, ...] = field(default=(), repr=False)
    more: bool = False
    refusal: RequestError | None = None
    fault: SyncdError | None = None


def request(versions: Mapping[str, int]) -> Node:
    """Ask for collections by the versions that are here; from version 0 a snapshot may come."""
    asked = [
        Node(
            "collection",
            {"name": name, "version": str(version), "return_snapshot": "false" if version else "true"},
        )
        for name, version in versions.items()
    ]
    return iq("set", XMLNS, Node("sync", {}, asked))


def parse(reply: Node, wanted: Collection[str]) -> dict[str, Answer]:
    """Read the answer; collections that were not asked for are left out.

    Raises:
        MalformedReply: it is none.
    """
    found: dict[str, Answer] = {}
    for node in need_child(reply, "sync", _SUBJECT).children("collection"):
        name = node.text("name", "")
        if name in wanted and name not in found:
            try:
                found[name] = _answer(node)
            except SyncdError as fault:
                found[name] = Answer(fault=fault)
    return found


def _answer(node: Node) -> Answer:
    error = node.child("error")
    snapshot, listed = node.child("snapshot"), node.child("patches")
    patches = [*([] if listed is None else listed.children("patch")), *node.children("patch")]
    refused = error is not None or node.attrs.get("type") == "error"
    return Answer(
        snapshot=None if snapshot is None else _reference(snapshot.data),
        patches=tuple(parse_patch(patch.data) for patch in patches),
        more=node.text("has_more_patches", "false") != "false",
        refusal=error_of(error or Node("error"), _SUBJECT) if refused else None,
    )


def _reference(data: bytes) -> ExternalBlobReference:
    try:
        return ExternalBlobReference.FromString(data)
    except DecodeError:
        raise SyncdError("malformed", "a reference to a snapshot that cannot be read") from None
