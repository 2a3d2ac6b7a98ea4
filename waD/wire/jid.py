"""Addresses: `user[:device]@server` (chapter 01 §6)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from waD.wire.errors import JIDError

PN: Final = "s.whatsapp.net"
LID: Final = "lid"
HOSTED: Final = "hosted"
HOSTED_LID: Final = "hosted.lid"
GROUP: Final = "g.us"
BROADCAST: Final = "broadcast"
NEWSLETTER: Final = "newsletter"
CALL: Final = "call"
BOT: Final = "bot"
MESSENGER: Final = "msgr"
INTEROP: Final = "interop"
LEGACY: Final = "c.us"

KNOWN_SERVERS: Final = frozenset(
    {PN, LID, HOSTED, HOSTED_LID, GROUP, BROADCAST, NEWSLETTER, CALL, BOT, MESSENGER, INTEROP, LEGACY}
)
PN_SERVERS: Final = frozenset({PN, HOSTED, LEGACY})
LID_SERVERS: Final = frozenset({LID, HOSTED_LID})

MAX_USER_LENGTH: Final = 64
MAX_DEVICE: Final = 0xFFFF

_SIGNAL_DOMAINS: Final = {PN: 0, LEGACY: 0, LID: 1, HOSTED: 128, HOSTED_LID: 129}
_ACCOUNT_SERVERS: Final = {HOSTED: PN, LEGACY: PN, HOSTED_LID: LID}
_BAD_IN_USER: Final = re.compile(r"[@:/\s\x00-\x1f\x7f-\x9f]")
_SMALL_NUMBER: Final = re.compile(r"[0-9]{1,5}", re.ASCII)
_AGENT_ON_PN: Final = re.compile(r"[0-9]+[._][0-9]+", re.ASCII)
_AGENT_ON_LID: Final = re.compile(r"[0-9]+_[0-9]+", re.ASCII)
_PN_BOT: Final = re.compile(r"1313555[0-9]{4}|131655500[0-9]{2}", re.ASCII)


@dataclass(frozen=True, slots=True)
class JID:
    """An address of a server, a person, a device, a group, a channel or a list.

    The constructor takes any text, because a relay has to carry addresses it does not understand; text from
    outside goes through `parse`. Equality is that of the four fields: compare `account` to ask whether two
    devices belong to one person (chapter 01 §6.4).

    Attributes:
        user: part before `@`; empty for a server.
        server: part after `@`.
        device: 0 for the phone itself and for everything that has no devices.
        integrator: number of the third-party network, on `interop` only.
    """

    user: str
    server: str
    device: int = 0
    integrator: int = 0

    @classmethod
    def parse(cls, text: str) -> JID:
        """Read the text form strictly (chapter 01 §6.2).

        Accepts a known server alone, with or without a leading `@`. Refuses unknown servers, the legacy agent
        forms, users with separators, whitespace or control characters, and users longer than
        `MAX_USER_LENGTH` characters.

        Raises:
            JIDError: the text is not an address.
        """
        jid = cls.parse_any_server(text)
        if jid.server not in KNOWN_SERVERS:
            raise JIDError("unknown_server", f"unknown server in the address {_shown(text)}")
        return jid

    @classmethod
    def parse_any_server(cls, text: str) -> JID:
        """Read the text form, letting servers pass that this program does not know; for relaying only.

        Raises:
            JIDError: the text is not an address.
        """
        account, at, server = text.partition("@")
        if not at:
            if text not in KNOWN_SERVERS:
                raise JIDError("no_server", f"no @ and not a server: {_shown(text)}")
            return cls("", text)
        if not server or len(server) > MAX_USER_LENGTH or _BAD_IN_USER.search(server):
            raise JIDError("bad_server", f"bad server in the address {_shown(text)}")
        user, colon, device_text = account.partition(":")
        device = _small_number(device_text, text) if colon else 0
        integrator = 0
        if server == INTEROP:
            network, dash, rest = user.partition("-")
            if dash:
                integrator, user = _small_number(network, text), rest
        _check_user(user, server, device, text)
        return cls(user, server, device, integrator)

    def __str__(self) -> str:
        if not self.user:
            return self.server
        user = f"{self.integrator}-{self.user}" if self.integrator else self.user
        return f"{user}:{self.device}@{self.server}" if self.device else f"{user}@{self.server}"

    @property
    def bare(self) -> JID:
        """The same address without device."""
        return JID(self.user, self.server, 0, self.integrator) if self.device else self

    @property
    def account(self) -> JID:
        """The address all devices of one person share: no device, hosted and legacy servers folded in."""
        server = _ACCOUNT_SERVERS.get(self.server, self.server)
        if not self.device and server == self.server:
            return self
        return JID(self.user, server, 0, self.integrator)

    def with_device(self, device: int) -> JID:
        """The same user's device of that number."""
        return JID(self.user, self.server, device, self.integrator)

    @property
    def is_server(self) -> bool:
        """Whether this is a server itself, such as `s.whatsapp.net`."""
        return not self.user

    @property
    def is_pn(self) -> bool:
        """Whether this is a user or device addressed by phone number."""
        return self.server in PN_SERVERS and self.user != ""

    @property
    def is_lid(self) -> bool:
        """Whether this is a user or device addressed by LID."""
        return self.server in LID_SERVERS and self.user != ""

    @property
    def is_user(self) -> bool:
        """Whether this is a person or business, or one of its devices, by phone number or LID."""
        return self.is_pn or self.is_lid

    @property
    def is_group(self) -> bool:
        """Whether this is a group or community."""
        return self.server == GROUP and self.user != ""

    @property
    def is_broadcast(self) -> bool:
        """Whether this is a broadcast list or the status list."""
        return self.server == BROADCAST and self.user != ""

    @property
    def is_status(self) -> bool:
        """Whether this is `status@broadcast`."""
        return self.server == BROADCAST and self.user == "status"

    @property
    def is_newsletter(self) -> bool:
        """Whether this is a channel."""
        return self.server == NEWSLETTER and self.user != ""

    @property
    def is_bot(self) -> bool:
        """Whether this is an AI bot: on `bot`, or one of the phone numbers reserved for bots."""
        if self.server == BOT:
            return self.user != ""
        return self.server in (PN, LEGACY) and _PN_BOT.fullmatch(self.user) is not None

    @property
    def is_hosted(self) -> bool:
        """Whether this is a device of a business hosted by Meta."""
        return self.server == HOSTED or self.server == HOSTED_LID

    @property
    def signal_domain(self) -> int:
        """Domain number in Signal addresses and AD_JIDs (chapter 01 §6.3).

        0 is PN, 1 LID, 128 hosted, 129 hosted LID.

        Raises:
            JIDError: the server has no Signal sessions.
        """
        domain = _SIGNAL_DOMAINS.get(self.server)
        if domain is None:
            raise JIDError("no_signal_domain", f"no Signal sessions on the server of {_shown(str(self))}")
        return domain


def _shown(text: str) -> str:
    return repr(text if len(text) <= MAX_USER_LENGTH else f"{text[:MAX_USER_LENGTH]}…")


def _small_number(digits: str, text: str) -> int:
    if not _SMALL_NUMBER.fullmatch(digits) or int(digits) > MAX_DEVICE:
        raise JIDError("bad_device", f"device or integrator is not a number of 16 bits: {_shown(text)}")
    return int(digits)


def _check_user(user: str, server: str, device: int, text: str) -> None:
    if not user and device:
        raise JIDError("bad_user", f"a device without a user: {_shown(text)}")
    if len(user) > MAX_USER_LENGTH or _BAD_IN_USER.search(user):
        raise JIDError("bad_user", f"bad user in the address {_shown(text)}")
    agent = _AGENT_ON_PN if server in PN_SERVERS else _AGENT_ON_LID if server in LID_SERVERS else None
    if agent and agent.fullmatch(user):
        raise JIDError("agent_form", f"the old form with an agent is not accepted: {_shown(text)}")


SERVER: Final = JID("", PN)
GROUP_SERVER: Final = JID("", GROUP)
STATUS: Final = JID("status", BROADCAST)
