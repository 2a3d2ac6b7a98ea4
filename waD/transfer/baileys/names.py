"""Names of items in every spelling that stores of Baileys use (chapter 08 §2.1, §2.7, §3).

A name is `<type>-<id>`. Files spell `/` as `__` and `:` as `-`; one database spells `.` as `-`. No id can be read in
two ways, so one reader serves all of them.
"""

from __future__ import annotations

import re
from typing import Final

from waD.e2ee.address import AddressError, SignalAddress
from waD.e2ee.limits import MAX_PREKEY_ID
from waD.wire.errors import JIDError
from waD.wire.jid import JID

CREDS: Final = "creds"
APP_STATE_VERSION: Final = "app-state-sync-version"
APP_STATE_KEY: Final = "app-state-sync-key"
SENDER_KEY_MEMORY: Final = "sender-key-memory"
SENDER_KEY: Final = "sender-key"
IDENTITY: Final = "identity-key"
DEVICE_LIST: Final = "device-list"
LID_MAPPING: Final = "lid-mapping"
PRE_KEY: Final = "pre-key"
TC_TOKEN: Final = "tctoken"  # noqa: S105 - the name of a kind of token
SESSION: Final = "session"

TYPES: Final = (
    APP_STATE_VERSION,
    APP_STATE_KEY,
    SENDER_KEY_MEMORY,
    SENDER_KEY,
    IDENTITY,
    DEVICE_LIST,
    LID_MAPPING,
    PRE_KEY,
    TC_TOKEN,
    SESSION,
)
"""Longest first among those of which one begins like another."""
_ALIASES: Final = {"contacts-tc-token": TC_TOKEN}
_CAMEL: Final = {
    "preKeys": PRE_KEY,
    "sessions": SESSION,
    "senderKeys": SENDER_KEY,
    "appStateSyncKeys": APP_STATE_KEY,
    "appStateVersions": APP_STATE_VERSION,
    "senderKeyMemory": SENDER_KEY_MEMORY,
}
REVERSE: Final = "_reverse"
TOKEN_INDEX: Final = "__index"  # noqa: S105 - names tokens, is none
MAX_NAME: Final = 512
SHOWN: Final = 120

_PREFIXED: Final = re.compile(
    rf"(?P<prefix>(?:.*?:)?)(?P<name>(?:auth_)?creds|(?:{'|'.join((*TYPES, *_ALIASES))})-.+)", re.DOTALL
)
_DEVICE_IN_FILE: Final = re.compile(r"(?P<user>[0-9]+)-(?P<device>[0-9]{1,3})@(?P<server>[a-z.-]+)", re.ASCII)
_SERVERS: Final = {
    "g-us": "g.us",
    "s-whatsapp-net": "s.whatsapp.net",
    "c-us": "c.us",
    "hosted-lid": "hosted.lid",
}
_KEY_ID: Final = re.compile(r"[A-Za-z0-9+/_-]{1,128}={0,2}", re.ASCII)
_COLLECTION: Final = re.compile(r"[a-z_]{1,64}", re.ASCII)
_USER: Final = re.compile(r"[0-9]{1,32}", re.ASCII)


class NameRefused(ValueError):  # noqa: N818 - what is the case
    """A name is not that of an item; the text says why without repeating it."""


def split_prefix(name: str) -> tuple[str, str] | None:
    """Cut what stores put in front of a name (`session:`, `keyv:session:`); None when there is no name in it."""
    match = _PREFIXED.fullmatch(name) if len(name) <= MAX_NAME else None
    if match is None:
        return None
    plain = match["name"]
    return match["prefix"], CREDS if plain.endswith(CREDS) and not _type_of(plain) else plain


def read_name(name: str) -> tuple[str, str]:
    """Type and id of an item, the id as Baileys itself spells it.

    Raises:
        NameRefused: no such type, or no id of that type.
    """
    found = _type_of(name) if len(name) <= MAX_NAME else None
    if found is None:
        raise NameRefused("not the name of an item that Baileys keeps")
    kind, text = found
    return kind, read_id(kind, text)


def type_named(text: str) -> str | None:
    """The type that an inner object of a document is named for: `pre-key`, or `preKeys` of old stores."""
    return text if text in TYPES else _ALIASES.get(text) or _CAMEL.get(text)


def read_id(kind: str, text: str) -> str:
    """Bring an id of a type into Baileys' own spelling.

    Raises:
        NameRefused: it is no id of that type.
    """
    try:
        if kind in (SESSION, IDENTITY):
            return _address(text).text
        if kind == SENDER_KEY:
            return _author(text)
        if kind == SENDER_KEY_MEMORY:
            return str(_jid(text))
    except (AddressError, JIDError):
        raise NameRefused(f"not the id of a {kind}") from None
    return _plain_id(kind, text)


def sender_key_parts(text: str) -> tuple[JID, SignalAddress]:
    """Group and author's device of a sender key's id as `read_id` gives it."""
    group, user, device = text.rsplit("::", 2)
    return JID.parse(group), SignalAddress.parse(f"{user}.{device}")


def file_name(kind: str, text: str) -> str:
    """The name of an item's file."""
    return f"{kind}-{text}".replace("/", "__").replace(":", "-") + ".json"


def shown(name: str) -> str:
    """A name from outside, fit for a report."""
    return name[:SHOWN].encode("ascii", "backslashreplace").decode("ascii")


def _type_of(name: str) -> tuple[str, str] | None:
    for kind in TYPES:
        if name.startswith(f"{kind}-"):
            return kind, name[len(kind) + 1 :]
    for alias, kind in _ALIASES.items():
        if name.startswith(f"{alias}-"):
            return kind, name[len(alias) + 1 :]
    return None


def _plain_id(kind: str, text: str) -> str:
    if kind == TC_TOKEN and text != TOKEN_INDEX:
        try:
            return str(_jid(text))
        except JIDError:
            raise NameRefused("not the id of a token") from None
    if kind == APP_STATE_KEY:
        text = text.replace("__", "/")
    accepted = {
        PRE_KEY: text.isascii() and text.isdigit() and len(text) <= len(str(MAX_PREKEY_ID)),
        APP_STATE_KEY: _KEY_ID.fullmatch(text) is not None,
        APP_STATE_VERSION: _COLLECTION.fullmatch(text) is not None,
        LID_MAPPING: _USER.fullmatch(text.removesuffix(REVERSE)) is not None,
        DEVICE_LIST: _USER.fullmatch(text) is not None,
        TC_TOKEN: True,
    }
    if not accepted[kind]:
        raise NameRefused(f"not the id of a {kind}")
    return str(int(text)) if kind == PRE_KEY else text


def _address(text: str) -> SignalAddress:
    if "." not in text:
        user, _, device = text.rpartition("-")
        text = f"{user}.{device}"
    return SignalAddress.parse(text)


def _author(text: str) -> str:
    """Files have `--` where Baileys has `::`; a group may hold a `-` itself, hence from the right."""
    group, *author = text.rsplit("::" if "::" in text else "--", 2)
    if len(author) != 2:
        raise NameRefused("not the id of a sender-key")
    _address(".".join(author))
    return "::".join((str(_jid(group)), *author))


def _jid(text: str) -> JID:
    user, at, server = text.rpartition("@")
    text = f"{user}{at}{_SERVERS.get(server, server)}"
    match = _DEVICE_IN_FILE.fullmatch(text)
    if match is not None and match["server"] not in ("g.us", "broadcast"):
        text = f"{match['user']}:{match['device']}@{match['server']}"
    return JID.parse(text)
