"""The disconnect table (chapter 02 §8.2): what happens on each cause of the end of a connection.

Data only. `policy.decide` reads it, `[reconnect.on]` changes rows of it, the manual is generated from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

Action: TypeAlias = Literal["restart", "backoff", "slow", "wait", "repair", "hold", "stop", "close"]
Severity: TypeAlias = Literal["info", "warning", "critical"]
Section: TypeAlias = Literal["transport", "stream", "failure", "pairing", "local"]
Until: TypeAlias = Literal["open", "stable", "never"]

SEVERITIES: Final[tuple[Severity, ...]] = ("info", "warning", "critical")

ACTION_MEANINGS: Final[Mapping[Action, str]] = {
    "restart": "connect again at once; at most 3 times in 60 s, then as backoff",
    "backoff": "connect again after a growing delay; counts as an attempt",
    "slow": "as backoff with longer delays and a counter of its own",
    "wait": "nothing before the time that the server named, then one attempt",
    "repair": "seal and clear the credentials, then show QR codes; history and events stay",
    "hold": "keep the credentials and do nothing until the operator acts",
    "stop": "as ordered",
    "close": "no codes any more until the operator asks for them",
}


@dataclass(frozen=True, slots=True)
class Limit:
    """How often a row's action is taken before another one is.

    Attributes:
        times: occurrences that get the row's own action.
        then: the action for the next one.
        within_s: only occurrences of the last so many seconds count; None: all.
        until: what starts it anew: the next `open`, the next stable one, or only the operator.
    """

    times: int
    then: Action
    within_s: float | None = None
    until: Until = "stable"


@dataclass(frozen=True, slots=True)
class ForCodes:
    """A cause with a number in this range is handled as another row says, under its own name."""

    low: int
    high: int
    row: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One cause.

    Attributes:
        id: its name everywhere.
        section: where it arises.
        code: number of the record; None when the cause has none or brings its own.
        action: what is done.
        meaning: what happened, for people.
        hint: what the operator does next; `{name}` is the session. Empty when there is nothing to do.
        alerts: (n, severity): the n-th occurrence raises an alert. `hold`, `repair` and `wait` raise one anyway.
        limit: how often.
        base_s: first delay of `slow`, instead of the setting.
        fixed_s: delay that does not grow.
        counted_as: rows that share one count have the same text here.
        in_a_row: another cause in between starts the count anew.
        codes: exceptions by number.
        needs_newer_version: the action makes sense only with a newer client version, else `hold`.
        quick_after_stable: the first delay after a stable connection is only the jitter.
        clears_auth: the credentials go although the action does not say so.
    """

    id: str
    section: Section
    code: int | None
    action: Action
    meaning: str
    hint: str = ""
    alerts: tuple[tuple[int, Severity], ...] = ()
    limit: Limit | None = None
    base_s: float | None = None
    fixed_s: float | None = None
    counted_as: str = ""
    in_a_row: bool = False
    codes: tuple[ForCodes, ...] = ()
    needs_newer_version: bool = False
    quick_after_stable: bool = False
    clears_auth: bool = False

    @property
    def group(self) -> str:
        """The name under which occurrences are counted."""
        return self.counted_as or self.id


_FIRST: Final[tuple[tuple[int, Severity], ...]] = ((1, "warning"),)
_ROUTINE: Final[tuple[tuple[int, Severity], ...]] = ((1, "info"), (2, "warning"))
_BAD: Final[tuple[tuple[int, Severity], ...]] = ((1, "critical"),)

SCAN: Final = "wactl connect {name} and scan the QR code"
_NETWORK: Final = "check network, DNS and proxy"
_LOG: Final = "see the daemon's log and report it"
_SERVER: Final = "nothing to do unless it lasts: the trouble is on WhatsApp's side"
_REPAIRED: Final = "the device is not linked any more; scan the new QR code: wactl qr {name}"
_MESSENGER: Final = "logins of Messenger accounts are not supported"
_UNKNOWN_CLIENT: Final = (
    "look at WhatsApp on the phone for a notice about the account, then wactl connect {name}"
)
_VERSION: Final = "set network.version to the current web client's, or upgrade waD, then wactl connect {name}"

_MAYBE_BADSESSION: Final = Limit(3, "repair", within_s=600, until="open")

_TRANSPORT: Final = (
    Row(
        id="dns", section="transport", code=408, action="backoff",
        meaning="the server's name could not be resolved", hint=_NETWORK,
    ),
    Row(
        id="refused", section="transport", code=408, action="backoff",
        meaning="no TCP connection: refused, unreachable or reset", hint=_NETWORK,
    ),
    Row(
        id="dial_timeout", section="transport", code=408, action="backoff",
        meaning="TCP, TLS and upgrade took too long", hint=_NETWORK,
    ),
    Row(
        id="tls", section="transport", code=495, action="slow", alerts=_FIRST,
        meaning="TLS failed: certificate or protocol",
        hint="check the clock, a proxy that intercepts TLS, and network.ca_file",
    ),
    Row(
        id="http", section="transport", code=None, action="slow", alerts=_FIRST,
        meaning="the websocket upgrade was answered with an HTTP status; the number is 1000 + status",
        hint="check proxy, firewall and network.url",
        codes=(
            ForCodes(1408, 1408, "refused"), ForCodes(1425, 1425, "refused"), ForCodes(1429, 1429, "refused"),
            ForCodes(1500, 1599, "refused"),
        ),
    ),
    Row(
        id="noise_timeout", section="transport", code=408, action="backoff",
        meaning="the server did not answer the handshake in time", hint=_NETWORK,
    ),
    Row(
        id="noise_fail", section="transport", code=496, action="slow", alerts=_FIRST,
        meaning="the server could not prove that it is WhatsApp, or the handshake failed",
        hint="check the clock and who is between here and WhatsApp; with network.url also network.root_key",
    ),
    Row(
        id="eof", section="transport", code=428, action="backoff",
        meaning="the connection was closed",
    ),
    Row(
        id="eof_fresh", section="transport", code=428, action="backoff", alerts=((3, "warning"),), in_a_row=True,
        meaning="closed within 10 s of the login without an answer, three times in a row or more",
        hint="WhatsApp may block this address; try another network",
    ),
    Row(
        id="dead_socket", section="transport", code=408, action="backoff", quick_after_stable=True,
        meaning="pings were not answered", hint=_NETWORK,
    ),
    Row(
        id="login_timeout", section="transport", code=408, action="backoff",
        meaning="neither success nor failure in time, or the session was not made active", hint=_SERVER,
    ),
    Row(
        id="deaf", section="transport", code=408, action="backoff", alerts=_FIRST,
        meaning="pings are answered but requests, messages or the backlog are not", hint=_SERVER,
    ),
    Row(
        id="frame", section="transport", code=428, action="backoff", alerts=((3, "warning"),), in_a_row=True,
        meaning="what arrived could not be decrypted or decoded", hint=_LOG,
    ),
    Row(
        id="counter", section="transport", code=None, action="restart",
        meaning="the connection's encryption counter is used up",
    ),
)  # fmt: skip

_STREAM: Final = (
    Row(
        id="stream_end", section="stream", code=428, action="backoff",
        meaning="the server ended the stream",
    ),
    Row(
        id="restart", section="stream", code=515, action="restart",
        meaning="the server asks for a new connection, as after pairing",
    ),
    Row(
        id="force_logout", section="stream", code=516, action="repair",
        meaning="the server forced a logout", hint=_REPAIRED,
    ),
    Row(
        id="unlinked", section="stream", code=401, action="repair",
        meaning="the device was unlinked from the account", hint=_REPAIRED,
    ),
    Row(
        id="unlinked_other", section="stream", code=None, action="backoff", alerts=_FIRST,
        meaning="a conflict that is neither a takeover nor clearly an unlinking",
        hint="check on the phone whether the device is still linked", codes=(ForCodes(401, 401, "unlinked"),),
    ),
    Row(
        id="replaced", section="stream", code=440, action="slow", fixed_s=30, alerts=_FIRST,
        limit=Limit(1, "hold", within_s=300, until="never"),
        meaning="another connection with the same credentials took over; one try to recover",
        hint="find and stop the other client that uses these credentials, then wactl connect {name}",
    ),
    Row(
        id="stream_503", section="stream", code=503, action="slow", base_s=5, alerts=_ROUTINE, in_a_row=True,
        meaning="the server restarts or is unavailable", hint=_SERVER,
    ),
    Row(
        id="stream_429", section="stream", code=429, action="slow", alerts=_FIRST,
        meaning="the server limits our rate", hint="send less",
    ),
    Row(
        id="stream_500", section="stream", code=500, action="backoff", counted_as="500", in_a_row=True,
        limit=_MAYBE_BADSESSION,
        meaning="internal server error; the 4th in a row within 10 min means that the session is bad", hint=_SERVER,
    ),
    Row(
        id="stream_cat", section="stream", code=None, action="hold",
        meaning="a Messenger token is expired or invalid", hint=_MESSENGER,
    ),
    Row(
        id="stream_ack", section="stream", code=None, action="backoff",
        meaning="the server misses our answer to a stanza; it delivers it again",
    ),
    Row(
        id="stream_xml", section="stream", code=None, action="backoff", alerts=_FIRST,
        meaning="the server could not read a stanza of ours", hint=_LOG,
    ),
    Row(
        id="stream_other", section="stream", code=None, action="backoff", alerts=_FIRST,
        meaning="a stream error that no other row names", hint=_LOG,
        codes=(ForCodes(401, 401, "unlinked"), ForCodes(403, 403, "f403"), ForCodes(400, 499, "stream_429")),
    ),
)  # fmt: skip

_FAILURE: Final = (
    Row(
        id="f400", section="failure", code=400, action="slow", alerts=_FIRST, limit=Limit(3, "hold"),
        meaning="login refused without a particular reason", hint=_UNKNOWN_CLIENT,
    ),
    Row(
        id="f401", section="failure", code=401, action="repair",
        meaning="not authorized: the device is not linked any more", hint=_REPAIRED,
    ),
    Row(
        id="f402", section="failure", code=402, action="wait",
        meaning="the account is banned for a time",
        hint="see WhatsApp on the phone for the reason and the end of the ban",
    ),
    Row(
        id="f403", section="failure", code=403, action="slow", alerts=_BAD, limit=Limit(2, "hold"),
        meaning="the account is locked", hint="see WhatsApp on the phone",
    ),
    Row(
        id="f405", section="failure", code=405, action="restart", needs_newer_version=True,
        counted_as="405", limit=Limit(1, "hold"),
        meaning="this client version is too old for the server", hint=_VERSION,
    ),
    Row(
        id="f406", section="failure", code=406, action="hold",
        meaning="the account is banned", hint="appeal in WhatsApp on the phone; afterwards wactl connect {name}",
    ),
    Row(
        id="f409", section="failure", code=409, action="restart", needs_newer_version=True,
        counted_as="405", limit=Limit(1, "hold"),
        meaning="the server does not accept this user agent", hint=_VERSION,
    ),
    Row(
        id="f411", section="failure", code=411, action="repair",
        meaning="the phone is not on multi-device any more",
        hint="turn multi-device on in WhatsApp on the phone, then scan: wactl qr {name}",
    ),
    Row(
        id="f413", section="failure", code=413, action="hold",
        meaning="a Messenger token is expired", hint=_MESSENGER,
    ),
    Row(
        id="f414", section="failure", code=414, action="hold",
        meaning="a Messenger token is invalid", hint=_MESSENGER,
    ),
    Row(
        id="f415", section="failure", code=415, action="hold",
        meaning="the server does not find this client", hint=_UNKNOWN_CLIENT,
    ),
    Row(
        id="f416", section="failure", code=416, action="hold",
        meaning="another account on the phone violated the terms", hint=_UNKNOWN_CLIENT,
    ),
    Row(
        id="f418", section="failure", code=418, action="hold",
        meaning="the server does not know this client", hint=_UNKNOWN_CLIENT,
    ),
    Row(
        id="f429", section="failure", code=429, action="slow", alerts=_FIRST,
        meaning="too many logins",
    ),
    Row(
        id="f500", section="failure", code=500, action="backoff", counted_as="500", in_a_row=True,
        limit=_MAYBE_BADSESSION,
        meaning="internal server error at login; the 4th in a row within 10 min means that the session is bad",
        hint=_SERVER,
    ),
    Row(
        id="f501", section="failure", code=501, action="slow", alerts=_FIRST, limit=Limit(3, "hold"),
        meaning="login refused as experimental", hint=_UNKNOWN_CLIENT,
    ),
    Row(
        id="f503", section="failure", code=503, action="slow", base_s=5, alerts=_ROUTINE, in_a_row=True,
        meaning="the service is unavailable", hint=_SERVER,
    ),
    Row(
        id="f5xx", section="failure", code=None, action="slow", alerts=_FIRST,
        meaning="server trouble at login, 504 to 599", hint=_SERVER,
    ),
    Row(
        id="f_other", section="failure", code=None, action="slow", alerts=_FIRST, limit=Limit(3, "hold"),
        meaning="login refused for a reason that is missing or unknown", hint=_UNKNOWN_CLIENT,
    ),
)  # fmt: skip

_PAIRING: Final = (
    Row(
        id="qr_exhausted", section="pairing", code=408, action="close",
        meaning="no QR code of the round was scanned", hint=SCAN,
    ),
    Row(
        id="pair_hmac", section="pairing", code=401, action="close",
        meaning="the pairing proof was not made from a code of ours", hint=SCAN,
    ),
    Row(
        id="pair_sig", section="pairing", code=401, action="close", alerts=_BAD,
        meaning="the account's signature in the pairing proof is wrong: somebody else answered", hint=SCAN,
    ),
    Row(
        id="pair_refused", section="pairing", code=500, action="close",
        meaning="the offer or proof of the server was refused, or another account scanned the code",
        hint=SCAN + " with the phone of the same account, or first wactl reset {name} to allow another one",
    ),
    Row(
        id="pair_socket_lost", section="pairing", code=428, action="backoff", limit=Limit(5, "close"),
        meaning="the connection ended while unpaired", hint=SCAN,
    ),
)  # fmt: skip

_LOCAL: Final = (
    Row(
        id="stop", section="local", code=None, action="stop",
        meaning="the operator or the daemon's end stopped it", hint="wactl connect {name}",
    ),
    Row(
        id="logout", section="local", code=None, action="stop", clears_auth=True,
        meaning="the operator logged the device out", hint=SCAN,
    ),
    Row(
        id="lease_lost", section="local", code=None, action="stop", alerts=_BAD,
        meaning="another process runs this session now", hint="stop one of the two daemons that share this store",
    ),
    Row(
        id="auth_corrupt", section="local", code=None, action="hold",
        meaning="the stored credentials are missing or cannot be read",
        hint="wactl verify-auth {name}; then restore a backup, or wactl logout {name} and pair anew",
    ),
    Row(
        id="auth_write", section="local", code=None, action="hold",
        meaning="a change could not be made durable; nothing further was sent",
        hint="check free space and permissions of the store, then wactl connect {name}",
    ),
    Row(
        id="crash", section="local", code=None, action="backoff", alerts=_FIRST,
        meaning="a fault of this program ended the connection", hint=_LOG,
    ),
    Row(
        id="unknown", section="local", code=None, action="backoff", alerts=_FIRST,
        meaning="anything that no other row names", hint=_LOG,
    ),
)  # fmt: skip

ROWS: Final[Mapping[str, Row]] = {
    row.id: row for row in (*_TRANSPORT, *_STREAM, *_FAILURE, *_PAIRING, *_LOCAL)
}
"""Every row by its id, in the order of the manual."""

LIMITS: Final[Mapping[str, Limit]] = {row.group: row.limit for row in ROWS.values() if row.limit is not None}
"""The limit of each count."""
IN_A_ROW: Final = frozenset(row.group for row in ROWS.values() if row.in_a_row)
"""Counts that another cause starts anew."""
