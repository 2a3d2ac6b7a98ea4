"""usync: asking the directory about users (chapter 06 §1, chapter 04 §2).

This module builds requests and reads answers; what becomes of a device list is `devices.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from waD.link.errors import RequestError
from waD.link.stanzas import Requester, error_of, iq, need_child, raise_for_error
from waD.wire.jid import JID
from waD.wire.node import Node, Value

CHUNK: Final = 50
"""Users asked for with one iq."""
MAX_USERS: Final = 10_000
MAX_DEVICES: Final = 256
MAX_DEVICE_ID: Final = 255
MAX_KEY_INDEX_LIST: Final = 4096
MAX_TEXT: Final = 4096
MAX_REFRESH_S: Final = 30 * 86_400
MIN_NUMBER: Final = 7
MAX_NUMBER: Final = 15

Protocol: TypeAlias = Literal[
    "contact", "devices", "lid", "status", "disappearing_mode", "username", "bot", "picture", "business"
]
Context: TypeAlias = Literal["interactive", "background", "message", "voip", "notification", "add"]
Mode: TypeAlias = Literal["query", "full", "delta"]

_SEPARATORS: Final = re.compile(r"[\s().+\-/\u2010-\u2015]")
_DIGITS: Final = re.compile(rf"[1-9][0-9]{{{MIN_NUMBER - 1},{MAX_NUMBER - 1}}}", re.ASCII)


class NumberError(ValueError):
    """A text is not an international phone number."""


@dataclass(frozen=True, slots=True)
class UserQuery:
    """One user to ask about; what is set decides what is sent.

    Attributes:
        jid: bare address; not together with `phone`.
        phone: digits, sent with a leading `+`.
        lid: known LID, sent along with the `lid` protocol.
        device_hash, ts: of the stored device list: the server leaves the user out when nothing changed. `ts` in
            seconds.
        username, pin: contact lookup by user name.
        contact_type: `add` or `delete` in address-book mode.
        persona_id: of a bot.
    """

    jid: JID | None = None
    phone: str | None = None
    lid: JID | None = None
    device_hash: str | None = None
    ts: int | None = None
    username: str | None = None
    pin: str | None = None
    contact_type: str | None = None
    persona_id: str | None = None


@dataclass(frozen=True, slots=True)
class ListedDevice:
    """One `<device>`: number 0…255, key index when there is one, and whether a Meta server runs it."""

    id: int
    key_index: int | None = None
    hosted: bool = False


@dataclass(frozen=True, slots=True)
class DevicesAnswer:
    """The `devices` protocol of one user, unverified.

    Attributes:
        devices: in the server's order, each number once.
        hash: the server's hash over the list, to be sent as hint later.
        key_index_list: serialised ADVSignedKeyIndexList, or None.
        ts, expected_ts: seconds.
    """

    devices: tuple[ListedDevice, ...] = ()
    hash: str | None = None
    key_index_list: bytes | None = None
    ts: int | None = None
    expected_ts: int | None = None


@dataclass(frozen=True, slots=True)
class StatusAnswer:
    """The about text: empty when privacy hides it, None when there is none; `set_at` in seconds."""

    text: str | None
    set_at: int | None


@dataclass(frozen=True, slots=True)
class UserAnswer:
    """What the server says about one user; None where a protocol was not asked or not answered.

    Attributes:
        jid: the user's address, or the phone-number form when only that is there.
        pn_jid: the phone-number form beside a LID.
        query: the text the server echoes for a number.
        on_whatsapp: answer of `contact`.
        errors: protocol name to the error of that protocol for this user.
    """

    jid: JID | None
    pn_jid: JID | None = None
    query: str | None = None
    on_whatsapp: bool | None = None
    devices: DevicesAnswer | None = None
    lid: JID | None = None
    status: StatusAnswer | None = None
    disappearing_s: int | None = None
    disappearing_set_at: int | None = None
    username: str | None = None
    errors: dict[str, RequestError] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class UsyncAnswer:
    """A whole answer: users in order, and protocols that failed for all of them.

    `refresh_s` says after how many seconds a protocol may sensibly be asked again.
    """

    users: list[UserAnswer]
    errors: dict[str, RequestError]
    refresh_s: dict[str, int]


def request_node(
    sid: str,
    protocols: Sequence[Protocol],
    users: Iterable[UserQuery],
    *,
    context: Context = "interactive",
    mode: Mode = "query",
) -> Node:
    """Build the iq (chapter 06 §1.1); `sid` is fresh and is not the iq's id."""
    query = [
        Node(name, {"version": "2"} if name == "devices" else {}, _query_content(name)) for name in protocols
    ]
    listed = [_user_node(user, protocols) for user in users]
    attrs: dict[str, Value] = {"sid": sid, "mode": mode, "last": "true", "index": "0", "context": context}
    return iq("get", "usync", Node("usync", attrs, [Node("query", {}, query), Node("list", {}, listed)]))


def _query_content(name: Protocol) -> list[Node] | None:
    if name == "bot":
        return [Node("profile", {"v": "1"})]
    if name == "business":
        return [Node("verified_name")]
    return None


def _user_node(user: UserQuery, protocols: Sequence[Protocol]) -> Node:
    children = [node for name in protocols if (node := _user_part(name, user)) is not None]
    return Node("user", {} if user.jid is None else {"jid": user.jid}, children)


def _user_part(name: Protocol, user: UserQuery) -> Node | None:
    """What one protocol asks about one user, where it asks more than its name says."""
    if name == "contact":
        return _contact_node(user)
    if name == "devices" and user.device_hash is not None:
        ts: dict[str, Value] = {} if user.ts is None else {"ts": str(user.ts)}
        return Node("devices", {"device_hash": user.device_hash, **ts})
    if name == "lid" and user.lid is not None:
        return Node("lid", {"jid": user.lid})
    if name == "bot" and user.persona_id is not None:
        return Node("bot", {}, [Node("profile", {"persona_id": user.persona_id})])
    return None


def _contact_node(user: UserQuery) -> Node:
    if user.phone is not None:
        return Node("contact", {}, f"+{user.phone}")
    if user.username is not None:
        attrs: dict[str, Value] = {"username": user.username}
        if user.pin is not None:
            attrs["pin"] = user.pin
        if user.lid is not None:
            attrs["lid"] = user.lid
        return Node("contact", attrs)
    return Node("contact", {} if user.contact_type is None else {"type": user.contact_type})


def parse_answer(reply: Node, protocols: Sequence[Protocol]) -> UsyncAnswer:
    """Read an answer (chapter 06 §1.2); protocols that were not asked for are ignored.

    Raises:
        RequestError: the whole query was refused.
        MalformedReply: there is no list.
    """
    usync = need_child(raise_for_error(reply, "usync"), "usync", "usync")
    listed = need_child(usync, "list", "usync")
    errors: dict[str, RequestError] = {}
    refresh: dict[str, int] = {}
    verdicts = usync.child("result")
    for verdict in verdicts.children() if verdicts is not None else ():
        if verdict.tag not in protocols:
            continue
        if (failure := verdict.child("error")) is not None:
            errors[verdict.tag] = error_of(failure, f"usync {verdict.tag}")
        if (seconds := verdict.int("refresh")) is not None:
            refresh[verdict.tag] = min(seconds, MAX_REFRESH_S)
    nodes = listed.children("user")[:MAX_USERS]
    users = [answer for node in nodes if (answer := _parse_user(node, protocols)) is not None]
    return UsyncAnswer(users, errors, refresh)


def _parse_user(node: Node, protocols: Sequence[Protocol]) -> UserAnswer | None:
    jid, pn_jid = node.jid("jid"), _pn(node.jid("pn_jid"))
    if jid is None and pn_jid is None and node.child("contact") is None:
        return None
    errors: dict[str, RequestError] = {}
    parts: dict[str, Node] = {}
    for child in node.children():
        if child.tag not in protocols or child.tag in parts:
            continue
        if (failure := child.child("error")) is not None:
            errors[child.tag] = error_of(failure, f"usync {child.tag}")
        else:
            parts[child.tag] = child
    contact, devices, lid = parts.get("contact"), parts.get("devices"), parts.get("lid")
    disappearing = parts.get("disappearing_mode")
    return UserAnswer(
        jid=jid or pn_jid,
        pn_jid=pn_jid,
        query=_text(contact),
        on_whatsapp=None if contact is None else contact.attrs.get("type") == "in",
        devices=None if devices is None else _parse_devices(devices),
        lid=None if lid is None else _lid(lid),
        status=_parse_status(parts["status"]) if "status" in parts else None,
        disappearing_s=None if disappearing is None else disappearing.int("duration"),
        disappearing_set_at=None if disappearing is None else disappearing.int("t"),
        username=_text(parts.get("username")),
        errors=errors,
    )


def _pn(jid: JID | None) -> JID | None:
    return jid if jid is not None and jid.is_pn else None


def _lid(node: Node) -> JID | None:
    value = node.jid("val")
    return value if value is not None and value.is_lid else None


def _text(node: Node | None) -> str | None:
    if node is None or not 0 < len(node.data) <= MAX_TEXT:
        return None
    return node.data.decode(errors="replace")


def _parse_status(node: Node) -> StatusAnswer:
    text = _text(node)
    if text is None and node.int("code") == 401:
        text = ""
    return StatusAnswer(text, node.int("t"))


def _parse_devices(node: Node) -> DevicesAnswer:
    listed = node.child("device-list")
    devices: dict[int, ListedDevice] = {}
    for child in (listed.children("device") if listed is not None else ())[:MAX_DEVICES]:
        number = child.int("id")
        if number is not None and number <= MAX_DEVICE_ID:
            hosted = child.attrs.get("is_hosted") == "true"
            devices.setdefault(number, ListedDevice(number, child.int("key-index"), hosted))
    index = node.child("key-index-list")
    data = b"" if index is None else index.data
    return DevicesAnswer(
        devices=tuple(devices.values()),
        hash=None if listed is None else listed.text("hash"),
        key_index_list=data if 0 < len(data) <= MAX_KEY_INDEX_LIST else None,
        ts=None if index is None else index.int("ts"),
        expected_ts=None if index is None else index.int("expected_ts"),
    )


async def query(
    requester: Requester,
    protocols: Sequence[Protocol],
    users: Sequence[UserQuery],
    *,
    context: Context = "interactive",
    mode: Mode = "query",
) -> UsyncAnswer:
    """Ask about users, at most `CHUNK` with one iq; one at a time is the caller's duty (chapter 06 §12).

    Raises:
        RequestError: refused; `backoff` says how long to wait.
        RequestTimeout, Disconnected, MalformedReply: no usable answer.
    """
    whole = UsyncAnswer([], {}, {})
    for start in range(0, len(users), CHUNK):
        node = request_node(
            requester.next_id(), protocols, users[start : start + CHUNK], context=context, mode=mode
        )
        part = parse_answer(await requester.request(node), protocols)
        whole.users.extend(part.users)
        whole.errors.update(part.errors)
        whole.refresh_s.update(part.refresh_s)
    return whole


def parse_number(text: str) -> str:
    """Read a phone number as people write it; returns 7…15 digits without a leading 0 (chapter 06 §1.3).

    Raises:
        NumberError: it is none.
    """
    digits = _SEPARATORS.sub("", text)
    if not _DIGITS.fullmatch(digits):
        raise NumberError(
            f"not an international phone number: {MIN_NUMBER} to {MAX_NUMBER} digits, country code first"
        )
    return digits


@dataclass(frozen=True, slots=True)
class NumberAnswer:
    """Whether a number is on WhatsApp.

    Attributes:
        number: digits as asked.
        on_whatsapp: None when the server did not answer for this number.
        jid: phone-number address, as the server spells it.
        lid: the same user's LID, when the server told it.
    """

    number: str
    on_whatsapp: bool | None
    jid: JID | None = None
    lid: JID | None = None


NUMBER_PROTOCOLS: Final[tuple[Protocol, ...]] = ("contact", "lid")


async def check_numbers(requester: Requester, numbers: Sequence[str]) -> list[NumberAnswer]:
    """Ask which numbers are on WhatsApp and what their addresses are; one iq for at most `CHUNK` numbers.

    Bulk checks earn a 429: leave a second between chunks (chapter 06 §1.3).

    Args:
        requester: the connection.
        numbers: digits, from `parse_number`.

    Raises:
        ValueError: more numbers than `CHUNK`.
        RequestError, RequestTimeout, Disconnected, MalformedReply: no usable answer.
    """
    if len(numbers) > CHUNK:
        raise ValueError(f"{len(numbers)} numbers at once; {CHUNK} is the most")
    answer = await query(requester, NUMBER_PROTOCOLS, [UserQuery(phone=number) for number in numbers])
    if "contact" in answer.errors:
        raise answer.errors["contact"]
    return match_numbers(numbers, answer)


def match_numbers(numbers: Sequence[str], answer: UsyncAnswer) -> list[NumberAnswer]:
    """Find each number's answer: by the echoed text, by the address, else by its place in a complete list."""
    by_text: dict[str, UserAnswer] = {}
    for user in answer.users:
        echoed = (user.query or "").lstrip("+").partition("@")[0]
        for key in (echoed, _user_of(user.pn_jid), _user_of(user.jid)):
            if key:
                by_text.setdefault(key, user)
    spoken_for = {id(by_text[number]) for number in numbers if number in by_text}
    in_order = len(answer.users) == len(numbers)
    answers = []
    for place, number in enumerate(numbers):
        found = by_text.get(number)
        if found is None and in_order and not answer.users[place].query:
            found = answer.users[place] if id(answer.users[place]) not in spoken_for else None
        answers.append(NumberAnswer(number, None) if found is None else _number_answer(number, found))
    return answers


def _user_of(jid: JID | None) -> str:
    return jid.user if jid is not None and jid.is_pn else ""


def _number_answer(number: str, user: UserAnswer) -> NumberAnswer:
    pn = user.pn_jid or (user.jid if user.jid is not None and user.jid.is_pn else None)
    lid = user.lid or (user.jid if user.jid is not None and user.jid.is_lid else None)
    if not user.on_whatsapp:
        return NumberAnswer(number, user.on_whatsapp)
    return NumberAnswer(
        number, True, None if pn is None else pn.account, None if lid is None else lid.account
    )
