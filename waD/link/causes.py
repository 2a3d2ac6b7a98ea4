"""Why a connection ended: one cause, named as a row of the disconnect table (chapter 02 §8.2).

This module recognises; it decides nothing. What to do about a cause is the session's policy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Final

from waD.wire.node import Node

MIN_FAILURE_REASON: Final = 400
MAX_FAILURE_REASON: Final = 599
MAX_STREAM_CODE: Final = 9999
HTTP_CODE_BASE: Final = 1000
"""A refused upgrade has the code 1000 + HTTP status: never a number that WhatsApp uses."""

TLS_CODE: Final = 495
NOISE_CODE: Final = 496


class Rank(IntEnum):
    """Precedence when several causes apply to one connection; the smallest is recorded (chapter 02 §8.1)."""

    STOP = 1
    STORAGE = 2
    STANZA = 3
    LOCAL = 4
    STREAM_END = 5
    EOF = 6


CODES: Final[Mapping[str, int | None]] = {
    "dns": 408,
    "refused": 408,
    "dial_timeout": 408,
    "tls": TLS_CODE,
    "noise_timeout": 408,
    "noise_fail": NOISE_CODE,
    "eof": 428,
    "dead_socket": 408,
    "login_timeout": 408,
    "deaf": 408,
    "frame": 428,
    "counter": None,
    "stream_end": 428,
    "restart": 515,
    "qr_exhausted": 408,
    "pair_hmac": 401,
    "pair_sig": 401,
    "pair_refused": 500,
    "pair_socket_lost": 428,
    "stop": None,
    "logout": None,
    "lease_lost": None,
    "auth_write": None,
    "crash": None,
    "unknown": None,
}
"""Number recorded with each cause that has no number of its own on the wire."""

_RANKS: Final[Mapping[str, Rank]] = {
    "stop": Rank.STOP,
    "logout": Rank.STOP,
    "lease_lost": Rank.STOP,
    "auth_write": Rank.STORAGE,
    "restart": Rank.STANZA,
    "qr_exhausted": Rank.LOCAL,
    "pair_hmac": Rank.STANZA,
    "pair_sig": Rank.STANZA,
    "pair_refused": Rank.STANZA,
    "stream_end": Rank.STREAM_END,
    "eof": Rank.EOF,
    "pair_socket_lost": Rank.EOF,
}


@dataclass(frozen=True, slots=True)
class Cause:
    """The one reason why a connection ended.

    Attributes:
        id: row of the disconnect table, such as `dns`, `restart`, `f403`.
        code: number for the record, or None where the table has none.
        message: one line for people; never holds secrets.
        stanza: what the server said, complete; to be shown without its content.
        rank: precedence over other causes of the same connection.
        age_s: seconds from the start of the dial to the end.
        was_open: whether the connection had been declared open.
        reached: whether the Noise handshake had been completed, that is, WhatsApp itself answered.
        retry_after_s: how long an HTTP answer asked to wait.
    """

    id: str
    code: int | None
    message: str
    stanza: Node | None = field(default=None, compare=False)
    rank: Rank = Rank.LOCAL
    age_s: float = 0.0
    was_open: bool = False
    reached: bool = False
    retry_after_s: float | None = None

    def at(self, *, age_s: float, was_open: bool, reached: bool) -> Cause:
        """The same cause with what the connection knows about itself."""
        return replace(self, age_s=round(age_s, 3), was_open=was_open, reached=reached)


def cause(cause_id: str, message: str, *, stanza: Node | None = None) -> Cause:
    """Build a cause that a row of `CODES` describes; KeyError for an id that is none."""
    rank = _RANKS.get(cause_id, Rank.LOCAL)
    return Cause(cause_id, CODES[cause_id], message, stanza=stanza, rank=rank)


def http_cause(status: int, retry_after_s: float | None = None) -> Cause:
    """The upgrade was answered with an HTTP status other than 101."""
    return Cause(
        "http",
        HTTP_CODE_BASE + status,
        f"the server answered the websocket upgrade with HTTP {status}",
        retry_after_s=retry_after_s,
    )


def from_stanza(node: Node) -> Cause | None:
    """Recognise the stanzas that end a connection; None for every other stanza."""
    if node.tag == "failure":
        return from_failure(node)
    if node.tag == "stream:error":
        return from_stream_error(node)
    if node.tag == "xmlstreamend":
        return cause("stream_end", "the server ended the stream", stanza=node)
    if node.tag == "ib" and node.child("downgrade_webclient") is not None:
        return _stanza_cause("f411", 411, "the phone is not on multi-device any more", node)
    return None


_FAILURES: Final[Mapping[int, tuple[str, str]]] = {
    400: ("f400", "login refused without a particular reason"),
    401: ("f401", "not authorized: the device is not linked any more"),
    402: ("f402", "the account is banned for a time"),
    403: ("f403", "the account is locked"),
    405: ("f405", "this client version is too old"),
    406: ("f406", "the account is banned"),
    409: ("f409", "the server does not accept this user agent"),
    411: ("f411", "the phone is not on multi-device any more"),
    413: ("f413", "the Messenger token is expired"),
    414: ("f414", "the Messenger token is invalid"),
    415: ("f415", "the server does not find this client"),
    416: ("f416", "another account on the phone violated the terms"),
    418: ("f418", "the server does not know this client"),
    429: ("f429", "too many logins"),
    500: ("f500", "internal server error at login"),
    501: ("f501", "login refused as experimental"),
    503: ("f503", "the service is unavailable"),
}


def from_failure(node: Node) -> Cause:
    """Read `<failure>` (chapter 02 §7.4); an unreadable reason is `f_other`, never 500."""
    reason = node.int("reason")
    if reason is None or not MIN_FAILURE_REASON <= reason <= MAX_FAILURE_REASON:
        return _stanza_cause("f_other", None, "login refused without a readable reason", node)
    if reason in _FAILURES:
        cause_id, message = _FAILURES[reason]
        return _stanza_cause(cause_id, reason, message, node)
    if 504 <= reason <= MAX_FAILURE_REASON:
        return _stanza_cause("f5xx", reason, f"server trouble at login ({reason})", node)
    return _stanza_cause("f_other", reason, f"login refused ({reason})", node)


_STREAM_CODES: Final[Mapping[int, tuple[str, str]]] = {
    409: ("replaced", "another connection of this device took over"),
    413: ("stream_cat", "the Messenger token is expired"),
    414: ("stream_cat", "the Messenger token is invalid"),
    429: ("stream_429", "the server limits our rate"),
    500: ("stream_500", "internal server error"),
    503: ("stream_503", "the server restarts or is unavailable"),
    515: ("restart", "the server asks for a new connection"),
    516: ("force_logout", "the server forced a logout"),
}


def from_stream_error(node: Node) -> Cause:
    """Read `<stream:error>`: first conflict, then code, ack, xml-not-well-formed (chapter 01 §7.7)."""
    code = node.int("code")
    if code is not None and code > MAX_STREAM_CODE:
        code = None
    conflict = node.child("conflict")
    if conflict is not None:
        return _from_conflict(node, code, conflict.text("type", "") or "")
    if code is not None and code in _STREAM_CODES:
        cause_id, message = _STREAM_CODES[code]
        return _stanza_cause(cause_id, 440 if cause_id == "replaced" else code, message, node)
    if code is not None:
        return _stanza_cause("stream_other", code, f"stream error {code}", node)
    if (ack := node.child("ack")) is not None:
        what = f"{ack.text('class', 'stanza')} {ack.text('id', '')}".rstrip()
        return _stanza_cause("stream_ack", None, f"the server misses our answer to {what}", node)
    if node.child("xml-not-well-formed") is not None:
        return _stanza_cause("stream_xml", None, "the server could not read a stanza of ours", node)
    return _stanza_cause("stream_other", None, "stream error without a code", node)


def _from_conflict(node: Node, code: int | None, kind: str) -> Cause:
    if kind == "replaced":
        return _stanza_cause("replaced", 440, "another connection of this device took over", node)
    if kind == "device_removed" and code == 401:
        return _stanza_cause("unlinked", 401, "this device was unlinked from the account", node)
    return _stanza_cause("unlinked_other", code, f"conflict of type {kind[:32] or 'unknown'}", node)


def _stanza_cause(cause_id: str, code: int | None, message: str, node: Node) -> Cause:
    return Cause(cause_id, code, message, stanza=node, rank=Rank.STANZA)
