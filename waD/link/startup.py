"""What is asked and told once after the backlog: properties, settings, dirty bits, presence (chapter 02 §5.3, §5.4).

Thin: each function builds one stanza and reads one answer. Who calls what, and when, is the session's business.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from waD.link.infos import Dirty
from waD.link.stanzas import Requester, iq, need_child
from waD.wire.jid import JID
from waD.wire.node import Node, Value

WEEK_MS: Final = 7 * 24 * 3600 * 1000
HALF_WEEK_MS: Final = 3 * 24 * 3600 * 1000
DEFAULT_REFRESH_S: Final = 86_400
MAX_REFRESH_S: Final = 7 * 86_400
MAX_PROPS: Final = 20_000
MAX_BLOCKED: Final = 100_000
MAX_CATEGORIES: Final = 256
MAX_VALUE: Final = 65_536
MAX_NAME: Final = 64


@dataclass(frozen=True, slots=True)
class Props:
    """Server properties (chapter 06 §11).

    Attributes:
        values: by number; replaces what is stored, or is merged into it when `delta`.
        delta: whether only changes were sent.
        hash, refresh_id: to be sent next time; empty when the server gave none.
        refresh_s: seconds until they should be fetched again.
    """

    values: dict[int, str] = field(repr=False)
    delta: bool
    hash: str
    refresh_id: str
    refresh_s: int


async def fetch_props(requester: Requester, known_hash: str = "", known_refresh_id: str = "") -> Props:
    """Ask for the server properties; with the stored hash and id an unchanged set comes back empty.

    Raises:
        RequestError, RequestTimeout, Disconnected, MalformedReply: no usable answer.
    """
    attrs: dict[str, Value] = {"protocol": "1"}
    if known_hash:
        attrs["hash"] = known_hash
    if known_refresh_id:
        attrs["refresh_id"] = known_refresh_id
    reply = await requester.request(iq("get", "abt", Node("props", attrs)))
    return parse_props(need_child(reply, "props", "props"))


def parse_props(node: Node) -> Props:
    """Read `<props>`; entries that are not a property, sampling weights among them, are skipped."""
    values: dict[int, str] = {}
    for prop in node.children("prop")[:MAX_PROPS]:
        code, value = prop.int("config_code"), prop.text("config_value")
        if code is None or value is None or "event_code" in prop.attrs or len(value) > MAX_VALUE:
            continue
        values[code] = value
    refresh = node.int("refresh")
    return Props(
        values=values,
        delta=node.attrs.get("delta_update") == "true",
        hash=_short(node.text("hash", "")),
        refresh_id=_short(node.text("refresh_id", "")),
        refresh_s=DEFAULT_REFRESH_S if not refresh else min(refresh, MAX_REFRESH_S),
    )


@dataclass(frozen=True, slots=True)
class Blocklist:
    """Blocked accounts as the server lists them, and the hash over them (empty when it gave none)."""

    jids: tuple[JID, ...] = field(repr=False)
    hash: str


async def fetch_blocklist(requester: Requester) -> Blocklist:
    """Ask for the block list (chapter 06 §6.3); raises RequestError, RequestTimeout, Disconnected."""
    reply = await requester.request(iq("get", "blocklist"))
    listed = reply.child("list") or reply
    jids = [jid for item in listed.children("item")[:MAX_BLOCKED] if (jid := item.jid("jid")) is not None]
    return Blocklist(tuple(dict.fromkeys(jids)), _short(listed.text("dhash", "")))


async def fetch_privacy(requester: Requester) -> dict[str, str]:
    """Ask for the privacy settings; category name to value, such as `last` to `contacts` (chapter 06 §6.2).

    Raises:
        RequestError, RequestTimeout, Disconnected, MalformedReply: no usable answer.
    """
    reply = await requester.request(iq("get", "privacy", Node("privacy")))
    categories = need_child(reply, "privacy", "privacy").children("category")[:MAX_CATEGORIES]
    pairs = [(item.text("name", "")[:MAX_NAME], item.text("value", "")[:MAX_NAME]) for item in categories]
    return {name: value for name, value in pairs if name and value}


async def clean_dirty(requester: Requester, dirty: Dirty) -> None:
    """Tell the server that a domain was fetched again (chapter 06 §11).

    Raises:
        RequestError, RequestTimeout, Disconnected: it will announce the domain at the next login again.
    """
    attrs: dict[str, Value] = {"type": dirty.kind}
    if dirty.timestamp is not None:
        attrs["timestamp"] = str(dirty.timestamp)
    await requester.request(iq("set", "urn:xmpp:whatsapp:dirty", Node("clean", attrs)))


async def announce_session(requester: Requester, server_time_ms: int) -> None:
    """Send the id of this week's usage session, derived from the server's time; raises Disconnected."""
    number = (server_time_ms + HALF_WEEK_MS) % WEEK_MS
    await requester.send(Node("ib", {}, [Node("unified_session", {"id": str(number)})]))


async def announce_presence(requester: Requester, push_name: str, *, available: bool) -> bool:
    """Tell whether this device is in use; without a push name it cannot be available (chapter 02 §5.2).

    Returns:
        Whether `available` was sent: only then do other people's presences arrive.

    Raises:
        Disconnected: the connection ends.
    """
    available = available and push_name != ""
    attrs: dict[str, Value] = {"type": "available" if available else "unavailable"}
    if push_name:
        attrs["name"] = push_name
    await requester.send(Node("presence", attrs))
    return available


def _short(text: str) -> str:
    """A hash or id to keep; one that is absurdly long counts as absent."""
    return text if len(text) <= MAX_NAME * 2 else ""
