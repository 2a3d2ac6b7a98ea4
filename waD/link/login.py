"""From `<success>` to an open session, and the wanted end of a link (chapter 02 §5.1–§5.3, §7.2).

What is fetched after that is in `startup.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from waD.link.causes import cause
from waD.link.connection import Connection
from waD.link.credentials import Credentials
from waD.link.errors import Disconnected, MalformedReply, RequestError, RequestTimeout
from waD.link.prekeys import PreKeys, PreKeyStore
from waD.link.stanzas import Requester, iq
from waD.wire.jid import JID
from waD.wire.node import Node

MAX_CLOCK_OFFSET_MS: Final = 60_000
"""A clock further off than this is worth an alert (chapter 02 §5.6)."""
MAX_LOGINS: Final = 2**31 - 1
MAX_TEXT: Final = 1024
LOGOUT_WAIT_S: Final = 3.0
ABSENT: Final = "NULL"
"""What stands for a missing `companion_enc_static`."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Success:
    """The `<success>` stanza; texts are empty when absent or too long.

    Attributes:
        time_ms: server time, Unix ms; None when missing.
        lid: own device address by LID.
        display_name: of the account.
        companion_enc_static: kept for export.
        abprops, group_abprops: which server properties are current.
        location: data centre, for the log.
    """

    time_ms: int | None
    lid: JID | None = field(repr=False)
    display_name: str = field(repr=False)
    companion_enc_static: str = field(repr=False)
    abprops: str
    group_abprops: str
    location: str

    def apply(self, credentials: Credentials) -> Credentials:
        """The credentials after one more successful login."""
        return credentials.change(
            me_lid=self.lid or credentials.me_lid,
            login_counter=min(credentials.login_counter + 1, MAX_LOGINS),
            companion_enc_static=self.companion_enc_static or credentials.companion_enc_static or ABSENT,
        )


def parse_success(node: Node) -> Success:
    """Read a `<success>`; what is malformed counts as absent."""
    seconds = node.int("t")
    lid = node.jid("lid")
    return Success(
        time_ms=None if seconds is None else seconds * 1000,
        lid=lid if lid is not None and lid.is_lid and lid.device else None,
        display_name=_text(node, "display_name"),
        companion_enc_static=_text(node, "companion_enc_static"),
        abprops=_text(node, "abprops"),
        group_abprops=_text(node, "group_abprops"),
        location=_text(node, "location"),
    )


def _text(node: Node, name: str) -> str:
    text = node.text(name, "")
    return text if len(text) <= MAX_TEXT else ""


@dataclass(frozen=True, slots=True)
class LoginResult:
    """What the session has to know after a login.

    Attributes:
        clock_offset_ms: add this to local Unix time to get the server's; 0 when the server did not tell.
        first: whether this is the first login since pairing: the phone sends keys and history now.
        lid_changed: the server named another LID than the stored one; it was taken over: alert.
        props_due: the server properties fetched last are not the current ones.
        abprops: what to store as `Credentials.props_abprops` once they are fetched.
        display_name: of the account, empty when the server did not tell.
        location: data centre, for the log.
    """

    clock_offset_ms: int
    first: bool
    lid_changed: bool
    props_due: bool
    abprops: str
    display_name: str = field(repr=False)
    location: str

    @property
    def clock_is_off(self) -> bool:
        """Whether the local clock deserves an alert."""
        return abs(self.clock_offset_ms) > MAX_CLOCK_OFFSET_MS


async def login(
    connection: Connection,
    store: PreKeyStore,
    *,
    random: Callable[[int], bytes],
    now_ms: Callable[[], int],
    prekeys: PreKeys | None = None,
) -> LoginResult:
    """Steps 1 to 3 of the login order; returns when the session is open.

    Another task must read `connection.stanzas` meanwhile. A prekey upload that fails is logged and left to
    `PreKeys.top_up`; a failed `active` ends the connection with `login_timeout`.

    Args:
        connection: made with registered credentials.
        store: where facts and keys become durable.
        random: source of unpredictable bytes.
        now_ms: Unix milliseconds.
        prekeys: the supplier of this connection; made here when not given.

    Raises:
        Disconnected: the server refused the login or the connection ended.
        Exception: what the store raised.
    """
    success = parse_success(await connection.success())
    result = _compare(success, await store.credentials(), now_ms())
    await store.change_credentials(success.apply)
    supplier = prekeys or PreKeys(connection, store, random)
    await _tried("prekeys at login", supplier.at_login)
    try:
        await set_passive(connection, passive=False)
    except (RequestError, RequestTimeout) as failure:
        connection.fail(cause("login_timeout", f"the server did not make the session active: {failure}"))
        raise Disconnected(await connection.wait_ended()) from failure
    connection.mark_open()
    return result


def _compare(success: Success, before: Credentials, now_ms: int) -> LoginResult:
    if success.time_ms is None:
        _log.warning("the server did not tell its time at login; the local clock counts")
    lid_changed = None not in (before.me_lid, success.lid) and before.me_lid != success.lid
    if lid_changed:
        _log.warning("the server names another LID for this device than the stored one; it counts")
    return LoginResult(
        clock_offset_ms=0 if success.time_ms is None else success.time_ms - now_ms,
        first=before.login_counter == 0,
        lid_changed=lid_changed,
        props_due=not before.props_hash or success.abprops != before.props_abprops,
        abprops=success.abprops,
        display_name=success.display_name,
        location=success.location,
    )


async def _tried(step: str, work: Callable[[], Awaitable[None]]) -> None:
    """Run a step whose failure does not stop the login."""
    try:
        await work()
    except (RequestError, RequestTimeout, MalformedReply) as failure:
        _log.warning("%s: %s; the login goes on", step, failure)


async def set_passive(requester: Requester, *, passive: bool) -> None:
    """Ask the server to hold back the backlog, or to deliver it and everything new.

    Raises:
        RequestError, RequestTimeout, Disconnected: it did not say that it will.
    """
    await requester.request(iq("set", "passive", Node("passive" if passive else "active")))


async def logout(requester: Requester, me: JID) -> bool:
    """Unlink this device from its account; waits at most 3 s.

    Args:
        requester: an open connection.
        me: own device address by phone number.

    Returns:
        Whether the server confirmed it. If not, the phone may still list the device.
    """
    removal = Node("remove-companion-device", {"jid": me, "reason": "user_initiated"})
    try:
        await requester.request(iq("set", "md", removal), timeout=LOGOUT_WAIT_S)
    except Disconnected as end:
        return end.cause.id == "unlinked"
    except (RequestError, RequestTimeout) as failure:
        _log.warning("logout: %s; the phone may still list this device", failure)
        return False
    return True
