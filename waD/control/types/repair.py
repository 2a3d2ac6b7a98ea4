"""Repairs of auth states that need no new pairing."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import msgspec

from waD.control.types.auth import NoteView
from waD.control.types.base import AddressParam, Answer, NameParam, Params

RepairAction: TypeAlias = Literal[
    "drop-damaged",
    "drop-session",
    "upload-prekeys",
    "rotate-signed-prekey",
    "reset-sender-key",
    "refresh-devices",
    "resync",
]


class RepairKind(msgspec.Struct, frozen=True):
    """What an action is about.

    Attributes:
        target: what it is told besides the session: `PEER`, `GROUP`, `[COLLECTION]`, or empty; what is in brackets
            may be left out.
        connected: it asks WhatsApp, so the session must be connected.
        drops: it removes something and asks for nothing in its place.
        meaning: for people.
    """

    target: str
    connected: bool
    drops: bool
    meaning: str

    @property
    def needs_target(self) -> bool:
        """Whether it cannot do without one."""
        return self.target != "" and not self.target.startswith("[")


REPAIRS: Final[dict[RepairAction, RepairKind]] = {
    "drop-damaged": RepairKind("", False, True, "remove every item that cannot be read or does not fit"),
    "drop-session": RepairKind(
        "PEER", False, True, "forget the sessions with a peer's devices; the next message makes new ones"
    ),
    "upload-prekeys": RepairKind("", True, False, "make new one-time prekeys and upload them"),
    "rotate-signed-prekey": RepairKind(
        "", True, False, "replace the signed prekey; the two before it stay usable"
    ),
    "reset-sender-key": RepairKind(
        "GROUP", False, True, "forget the own sender key; the next message distributes a new one"
    ),
    "refresh-devices": RepairKind("PEER", True, False, "ask for a peer's device list anew"),
    "resync": RepairKind(
        "[COLLECTION]", True, False, "fetch a collection of the app state anew, or all of them"
    ),
}
"""By action, in the order in which they are offered."""


class RepairParams(Params, frozen=True, kw_only=True):
    """Parameters of `repair.run`.

    Attributes:
        target: number or address of a peer, address of a group, or name of a collection, if the action takes one.
    """

    name: NameParam
    action: RepairAction
    target: AddressParam | None = None


class RepairAdvice(Answer, frozen=True, kw_only=True):
    """A repair that is advised.

    Attributes:
        possible: whether it can be done now.
        count: how many findings speak for it.
        reasons: the first of them.
    """

    action: RepairAction
    target: str | None = None
    possible: bool = True
    count: int = 1
    reasons: list[NoteView] = []


class RepairChoice(Answer, frozen=True, kw_only=True):
    """A repair that there is; `possible` says whether it can be done now."""

    action: RepairAction
    target: str
    meaning: str
    connected: bool
    possible: bool


class RepairList(Answer, frozen=True, kw_only=True):
    """Answer of `repair.list`.

    Attributes:
        level: how deep was looked (chapter 08 §7.6): 4 when it is connected, else 3.
        advice: repairs for what was found.
        beyond: errors that no repair helps against: a backup or a new pairing does.
        choices: all repairs.
    """

    name: str
    connection_id: str
    level: int
    advice: list[RepairAdvice]
    beyond: list[NoteView]
    choices: list[RepairChoice]


class RepairResult(Answer, frozen=True, kw_only=True):
    """Answer of `repair.run`.

    Attributes:
        count: how many things were dropped, uploaded, or are listed now; with 0 and no `backup` nothing was changed.
        items: the stored items that were removed, as kind/key.
        backup: where the state before it is sealed.
    """

    name: str
    connection_id: str
    action: RepairAction
    target: str | None = None
    count: int = 0
    items: list[str] = []
    backup: str | None = None
