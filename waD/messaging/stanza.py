"""From a `<message>` to facts: who wrote what into which chat, and what is enclosed (chapter 04 §6.1, §6.2).

Pure and total: any node whatever gives an `Incoming` or a `Rejection`, never an exception.
"""

from __future__ import annotations

import re
from typing import Final, Literal, TypeAlias, TypeGuard

from msgspec import Struct

from waD.link import acks
from waD.wire.jid import BROADCAST, GROUP, JID, LEGACY, LID, NEWSLETTER, PN
from waD.wire.node import Node

MAX_ID_BYTES: Final = 255
MAX_ENCS: Final = 64
MAX_PUSH_NAME: Final = 128
"""Characters of a push name that are kept."""
MAX_RECIPIENTS: Final = 1024
"""Recipients of an own broadcast list that are read."""
MAX_COUNT: Final = 1_000
"""A retry number above this is none."""

ChatKind: TypeAlias = Literal["user", "group", "status", "broadcast", "newsletter", "bot"]

PAIRWISE: Final = frozenset({"msg", "pkmsg"})
GROUP_CIPHER: Final = "skmsg"
BOT_CIPHER: Final = "msmsg"

_USER: Final = re.compile(r"[0-9A-Za-z.+_-]{1,64}")
_SIGNAL_USER: Final = re.compile(r"[0-9A-Za-z+-]{1,64}")
"""What can be part of a Signal address."""
_UNSHOWN: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""Control characters, and those that turn the direction of the text around a name."""


class Enc(Struct, frozen=True):
    """One ciphertext.

    Attributes:
        type: `msg`, `pkmsg`, `skmsg`, `msmsg` or something unknown.
        data: not empty.
        version: `2` unless the sender says otherwise.
        count: number of the retry this answers, 0 for a first sending.
    """

    type: str
    data: bytes
    version: str = "2"
    count: int = 0

    def __repr__(self) -> str:
        return f"Enc({self.type[:16]!r}, {len(self.data)} bytes, count={self.count})"


class Unavailable(Struct, frozen=True):
    """The phone did not send the content to companions; `final`: asking the phone for it is of no use (§6.6)."""

    type: str
    final: bool


class Incoming(Struct, frozen=True):
    """A well-formed message stanza.

    Attributes:
        node: as received.
        id: at most `MAX_ID_BYTES` bytes, printable.
        time_s: Unix seconds, by the server.
        kind: what sort of chat.
        source: where it came from, bare: the group or list, or the device's account as the stanza spells it.
        chat: bare, hosted servers folded in; the sender's own for lists of others.
        sender: device of the author, as the stanza spells it.
        from_me: written by the own account.
        own: sent by a device of the own account; differs from `from_me` in channels only.
        peer: from an own device, for this device and no chat.
        chat_alt: the chat's address in the other namespace.
        sender_alt: the author's address in the other namespace, with the device.
        recipient: chat of an own message as the stanza names it, bare.
        recipients: of an own broadcast list.
        addressing: namespace of the stanza.
        offline: from the server's queue.
        edit: the `edit` attribute, empty without.
        hide: what cannot be read shall not be shown.
        push_name: cleaned; empty when there is none.
        encs: ciphertexts for this device, in order.
        plaintext: of a channel.
        unavailable: instead of ciphertexts.
        device_identity: the companion's proof, empty without.
    """

    node: Node
    id: str
    time_s: int
    kind: ChatKind
    source: JID
    chat: JID
    sender: JID
    from_me: bool
    own: bool
    peer: bool = False
    chat_alt: JID | None = None
    sender_alt: JID | None = None
    recipient: JID | None = None
    recipients: tuple[JID, ...] = ()
    addressing: Literal["lid", "pn"] = "pn"
    offline: bool = False
    edit: str = ""
    hide: bool = False
    push_name: str = ""
    encs: tuple[Enc, ...] = ()
    plaintext: bytes | None = None
    unavailable: Unavailable | None = None
    device_identity: bytes = b""

    def __repr__(self) -> str:
        return f"Incoming({self.kind}, from_me={self.from_me}, {len(self.encs)} encs)"

    @property
    def time_ms(self) -> int:
        """Unix milliseconds, by the server."""
        return self.time_s * 1000

    @property
    def retry_count(self) -> int:
        """Number of the retry this answers, 0 for a first sending."""
        return max((enc.count for enc in self.encs), default=0)

    @property
    def shares_keys(self) -> bool:
        """Whether sender keys belong in this chat (§6.5)."""
        return self.kind in ("group", "status", "broadcast")


class Rejection(Struct, frozen=True):
    """A stanza that is no message: the nack code of chapter 04 §6.8 and what is wrong, for the log."""

    code: int
    reason: str


class _Refused(Exception):  # noqa: N818 - never leaves this module
    def __init__(self, reason: str, code: int = acks.NACK_PARSE_ERROR) -> None:
        super().__init__(reason)
        self.rejection = Rejection(code, reason)


def parse(node: Node, own_pn: JID | None, own_lid: JID | None) -> Incoming | Rejection:
    """Read a `<message>`.

    Args:
        node: any node.
        own_pn: this device by phone number, with device.
        own_lid: this device by LID; None while unknown.
    """
    try:
        return _Parser(node, own_pn, own_lid).parse()
    except _Refused as refusal:
        return refusal.rejection


def is_usable_id(text: str | None) -> TypeGuard[str]:
    """Whether a text can be the id of a message (chapter 04 §1.1)."""
    return text is not None and len(text) > 0 and text.isprintable() and len(text.encode()) <= MAX_ID_BYTES


def is_own(jid: JID, own_pn: JID | None, own_lid: JID | None) -> bool:
    """Whether an address is of the own account, compared in its own namespace (§6.2)."""
    if jid.is_pn:
        return own_pn is not None and jid.user == own_pn.user and jid.server != LEGACY
    return own_lid is not None and jid.is_lid and jid.user == own_lid.user


def other_form(jid: JID, candidate: JID | None) -> JID | None:
    """A stated address in the other namespace, on the plain server and with the device of the first.

    None when it is no user's address, one of the same namespace, or when one of the two cannot have sessions.
    """
    if candidate is None or candidate.server == LEGACY:
        return None
    if not (_SIGNAL_USER.fullmatch(jid.user) and _SIGNAL_USER.fullmatch(candidate.user)):
        return None
    server = LID if jid.is_pn else PN
    if not (candidate.is_lid if jid.is_pn else candidate.is_pn and jid.is_lid):
        return None
    return JID(candidate.user, server, candidate.device or jid.device)


def clean_name(text: str) -> str:
    """A name that a stranger chose, fit to be shown (§6.1)."""
    return _UNSHOWN.sub("", text).strip()[:MAX_PUSH_NAME]


class _Parser:
    """One stanza under examination."""

    def __init__(self, node: Node, own_pn: JID | None, own_lid: JID | None) -> None:
        self._node = node
        self._own_pn = own_pn
        self._own_lid = own_lid

    def parse(self) -> Incoming:
        node = self._node
        message_id = node.text("id")
        if not is_usable_id(message_id):
            raise _Refused("no usable id")
        if not node.attrs.get("from"):
            raise _Refused("no from")
        source = node.jid("from")
        if source is None or not _USER.fullmatch(source.user):
            raise _Refused("from is no address of a chat", acks.NACK_UNRECOGNISED_STANZA)
        time_s = node.int("t")
        if time_s is None:
            raise _Refused("no time")
        return self._incoming(message_id, time_s, source)

    def _incoming(self, message_id: str, time_s: int, source: JID) -> Incoming:
        node = self._node
        route = self._route(source)
        kind, chat, sender = route.kind, route.chat, route.sender
        encs, hide = self._encs()
        identity = node.child("device-identity")
        plaintext = node.child("plaintext") if kind == "newsletter" else None
        return Incoming(
            node=node,
            id=message_id,
            time_s=time_s,
            kind=kind,
            source=source.bare,
            chat=chat,
            sender=sender,
            from_me=route.from_me,
            own=route.from_me and kind != "newsletter",
            peer=route.peer,
            chat_alt=route.chat_alt,
            sender_alt=route.sender_alt,
            recipient=route.recipient,
            recipients=self._recipients() if kind == "broadcast" and route.from_me else (),
            addressing=self._addressing(kind, sender),
            offline="offline" in node.attrs,
            edit=node.text("edit", "")[:8],
            hide=hide,
            push_name=clean_name(node.text("notify", "")[: 2 * MAX_PUSH_NAME]),
            encs=encs,
            plaintext=None if plaintext is None else plaintext.data,
            unavailable=self._unavailable(),
            device_identity=b"" if identity is None else identity.data,
        )

    def _own(self, jid: JID) -> bool:
        return is_own(jid, self._own_pn, self._own_lid)

    def _route(self, source: JID) -> _Route:
        """The table of §6.2, in its order."""
        server = source.server
        if server in (GROUP, BROADCAST):
            return self._collective(source)
        if server == NEWSLETTER:
            mine = self._node.text("is_sender") == "true"
            return _Route("newsletter", source.bare, source, mine)
        if server == LEGACY:
            raise _Refused("an address on a server that is no longer used", acks.NACK_UNRECOGNISED_STANZA)
        if source.is_user and self._own(source):
            return self._own_copy(source)
        if source.is_bot:
            return self._bot(source)
        if source.is_user:
            return self._direct(source)
        raise _Refused("from is an address of no chat", acks.NACK_UNRECOGNISED_STANZA)

    def _collective(self, source: JID) -> _Route:
        author = self._node.jid("participant")
        if author is None or not _USER.fullmatch(author.user) or author.server == LEGACY:
            raise _Refused("no participant")
        if not (author.is_user or author.is_bot):
            raise _Refused("a participant that is no user")
        alt = other_form(author, self._node.jid("participant_pn" if author.is_lid else "participant_lid"))
        mine = self._own(author)
        if source.is_group:
            return _Route("group", source.bare, author, mine, sender_alt=alt)
        if source.is_status:
            return _Route("status", source.bare, author, mine, sender_alt=alt)
        # A list is its author's business; for everybody else it is a message from that person (§4.6).
        chat = source.bare if mine else author.account
        return _Route("broadcast", chat, author, mine, chat_alt=_bare(None if mine else alt), sender_alt=alt)

    def _own_copy(self, source: JID) -> _Route:
        if self._node.text("category") == "peer":
            return _Route("user", source.account, source, True, peer=True)
        if "recipient" not in self._node.attrs:
            return _Route("user", source.account, source, True)
        recipient = self._node.jid("recipient")
        if recipient is None or not _USER.fullmatch(recipient.user) or recipient.server == LEGACY:
            raise _Refused("a recipient that is no address")
        if not (recipient.is_user or recipient.is_bot):
            raise _Refused("a recipient that is no user")
        chat = recipient.account
        form = "pn" if chat.is_lid else "lid"
        stated = self._node.jid(f"peer_recipient_{form}") or self._node.jid(f"recipient_{form}")
        alt = None if self._own(chat) else _bare(other_form(chat, stated))
        kind: ChatKind = "bot" if chat.is_bot else "user"
        return _Route(kind, chat, source, True, chat_alt=alt, recipient=recipient.bare)

    def _bot(self, source: JID) -> _Route:
        meta = self._node.child("meta")
        target = None if meta is None else meta.jid("target_chat_jid")
        if target is None or not (target.is_user or target.is_group) or not _USER.fullmatch(target.user):
            target = source
        return _Route("bot", target.account, source, False)

    def _direct(self, source: JID) -> _Route:
        recipient = self._node.jid("recipient")
        if "recipient" in self._node.attrs and (recipient is None or not recipient.is_bot):
            raise _Refused("somebody else's message with a recipient")
        alt = other_form(source, self._node.jid("sender_pn" if source.is_lid else "sender_lid"))
        return _Route("user", source.account, source, False, chat_alt=_bare(alt), sender_alt=alt)

    def _addressing(self, kind: ChatKind, sender: JID) -> Literal["lid", "pn"]:
        """In direct chats the address decides, whatever the attribute says."""
        stated = self._node.attrs.get("addressing_mode") if kind == "group" else None
        if stated == "lid" or stated == "pn":
            return "lid" if stated == "lid" else "pn"
        return "lid" if sender.is_lid else "pn"

    def _encs(self) -> tuple[tuple[Enc, ...], bool]:
        """Ciphertexts at the top, then those that are listed for this device (§6.4, step 3)."""
        nodes = self._node.children("enc")
        listed = self._node.child("participants")
        for entry in () if listed is None else listed.children("to"):
            if self._is_this_device(entry.jid("jid")):
                nodes = nodes + entry.children("enc")
        if len(nodes) > MAX_ENCS:
            raise _Refused("too many ciphertexts")
        hide = any(node.attrs.get("decrypt-fail") == "hide" for node in nodes)
        return tuple(_enc(node) for node in nodes if node.data), hide

    def _is_this_device(self, jid: JID | None) -> bool:
        if jid is None:
            return False
        me = self._own_pn if jid.is_pn else self._own_lid
        return me is not None and self._own(jid) and jid.device == me.device

    def _recipients(self) -> tuple[JID, ...]:
        listed = self._node.child("participants")
        found = [] if listed is None else [entry.jid("jid") for entry in listed.children("to")]
        users = [
            jid.account for jid in found if jid is not None and jid.is_user and _USER.fullmatch(jid.user)
        ]
        others = [jid for jid in users if jid.server != LEGACY and not self._own(jid)]
        return tuple(dict.fromkeys(others))[:MAX_RECIPIENTS]

    def _unavailable(self) -> Unavailable | None:
        node = self._node.child("unavailable")
        if node is None:
            return None
        kind = node.text("type", "")[:64]
        special = kind.startswith(("view_once", "bot", "hosted")) or node.text("hosted") == "true"
        return Unavailable(kind, special or self._node.child("bot") is not None)


class _Route(Struct, frozen=True):
    """One row of the table of §6.2."""

    kind: ChatKind
    chat: JID
    sender: JID
    from_me: bool
    chat_alt: JID | None = None
    sender_alt: JID | None = None
    recipient: JID | None = None
    peer: bool = False


def _bare(jid: JID | None) -> JID | None:
    return None if jid is None else jid.account


def _enc(node: Node) -> Enc:
    count = node.int("count") or 0
    return Enc(
        node.text("type", ""),
        node.data,
        node.text("v", "2")[:8],
        count if count <= MAX_COUNT else 0,
    )
