"""The words of the control protocol: states, roles, errors, requests and answers.

The daemon and the command line share this module and `paths`, so it imports only msgspec. JSON names are
camelCase; every point in time is an integer of Unix milliseconds, every duration a number of seconds.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec

PROTOCOL_VERSION: Final = 1
"""Grows when a method or field changes its meaning; additions leave it alone."""

MAX_LINE: Final = 1 << 20
"""Bytes of one request line without its newline: a text of 65 536 characters fits, fully escaped."""

MAX_PAGE: Final = 500
"""Rows of one answer of `message.list` and `events.list`."""

MAX_IDS: Final = 256
"""Message ids of one `message.read` (chapter 04 §6.7)."""

MAX_CURSOR: Final = (1 << 53) - 1
"""Cursors and `seq` stay integers in every JSON reader, also in those that know only floating point."""

MAX_MENTIONS: Final = 1024
MAX_TYPES: Final = 64
MAX_NAME: Final = 64
MAX_IDEMPOTENCY_KEY: Final = 128
MAX_MESSAGE_ID: Final = 255
MAX_ADDRESS: Final = 128
MAX_WAIT: Final = 86_400.0
DEFAULT_WAIT: Final = 60.0
DEFAULT_PAGE: Final = 50

Role: TypeAlias = Literal["observer", "operator", "admin"]
ROLE_RANK: Final[dict[Role, int]] = {"observer": 1, "operator": 2, "admin": 3}

State: TypeAlias = Literal[
    "new", "stopped", "connecting", "pairing", "open", "backoff", "needs_pairing", "failed"
]
MessageState: TypeAlias = Literal[
    "queued", "sending", "sent", "delivered", "read", "played", "held", "failed", "expired", "cancelled"
]
Milestone: TypeAlias = Literal["sent", "delivered", "read", "played"]
"""The states that can be waited for."""

PROGRESS: Final[tuple[MessageState, ...]] = ("queued", "sending", "sent", "delivered", "read", "played")
"""Chapter 04 §5.4: a message moves to the right only."""

DEAD_ENDS: Final[frozenset[MessageState]] = frozenset({"failed", "expired", "cancelled"})

NEXT_STEP: Final[dict[State, str]] = {
    "new": "wactl connect {name}",
    "stopped": "wactl connect {name}",
    "connecting": "wait, or wactl tail-events {name}",
    "pairing": "wactl qr {name}",
    "open": "",
    "backoff": "wait: it reconnects by itself; wactl connect {name} tries at once",
    "needs_pairing": "wactl connect {name} and scan the QR code",
    "failed": "see the last disconnect reason, then wactl connect {name}",
}
"""What an operator does next in each state, if the session itself has nothing more precise to say."""


def reached(state: str, wanted: str) -> bool:
    """Tell whether a message in `state` has got at least as far as `wanted`."""
    return state in PROGRESS and wanted in PROGRESS and PROGRESS.index(state) >= PROGRESS.index(wanted)


Symbol: TypeAlias = Literal[
    "parse_error",
    "invalid_request",
    "unknown_method",
    "bad_params",
    "internal_error",
    "not_permitted",
    "no_such_session",
    "wrong_state",
    "timeout",
    "refused",
    "damaged",
    "not_on_whatsapp",
    "cursor_expired",
    "storage_unavailable",
    "lease_held",
    "invalid_text",
    "shutting_down",
]


class ErrorKind(msgspec.Struct, frozen=True):
    """One row of the error table: the number on the wire, its exit code in `wactl`, and what it means."""

    code: int
    exit: int
    meaning: str


ERRORS: Final[dict[Symbol, ErrorKind]] = {
    "parse_error": ErrorKind(-32700, 1, "the line is not JSON"),
    "invalid_request": ErrorKind(-32600, 1, "the JSON is not a request, is a batch, or the line is too long"),
    "unknown_method": ErrorKind(-32601, 1, "this daemon has no such method"),
    "bad_params": ErrorKind(-32602, 2, "a parameter is missing, unknown or malformed; data.param names it"),
    "internal_error": ErrorKind(-32603, 1, "a fault of the daemon; data.reference is in its log"),
    "not_permitted": ErrorKind(-32001, 7, "the role of the caller is too low; data.needs names the role"),
    "no_such_session": ErrorKind(-32002, 4, "no session, or no message in it, by that name"),
    "wrong_state": ErrorKind(-32003, 4, "the session is not in a state for this; data.state names it"),
    "timeout": ErrorKind(-32004, 5, "the state was not reached in time; nothing is undone"),
    "refused": ErrorKind(-32005, 1, "WhatsApp or the daemon refused; data.code is WhatsApp's number"),
    "damaged": ErrorKind(-32006, 6, "verification found damage"),
    "not_on_whatsapp": ErrorKind(-32007, 1, "the number has no WhatsApp account"),
    "cursor_expired": ErrorKind(-32008, 1, "the log no longer reaches back so far; data.oldest is its start"),
    "storage_unavailable": ErrorKind(-32009, 1, "the store cannot be written or read now"),
    "lease_held": ErrorKind(-32010, 4, "another process runs this session; data.holder names it"),
    "invalid_text": ErrorKind(-32011, 2, "the text is empty, too long or not text"),
    "shutting_down": ErrorKind(-32012, 3, "the daemon is stopping"),
}
SYMBOL_OF_CODE: Final[dict[int, Symbol]] = {kind.code: symbol for symbol, kind in ERRORS.items()}

EXIT_OK: Final = 0
EXIT_REFUSED: Final = 1
EXIT_USAGE: Final = 2
EXIT_UNREACHABLE: Final = 3
EXIT_STATE: Final = 4
EXIT_TIMEOUT: Final = 5
EXIT_DAMAGED: Final = 6
EXIT_NOT_PERMITTED: Final = 7
EXIT_INTERRUPTED: Final = 130

MIN_DIGITS: Final = 7
MAX_DIGITS: Final = 15


def parse_recipient(text: str) -> str:
    """Bring a phone number or an address into the form the daemon takes.

    A number may hold spaces, dots, dashes, brackets and a leading `+`; 7 to 15 digits without a leading zero
    remain (chapter 06 §1.3). Text with an `@` is an address and is passed on as it is.

    Raises:
        ValueError: it is neither; the message says why.
    """
    text = text.strip()
    if "@" in text:
        user, _, server = text.partition("@")
        odd = not (user and server) or "@" in server or " " in text or not text.isprintable()
        if odd or len(text) > MAX_ADDRESS:
            raise ValueError("not an address; expected for example 15550000002@s.whatsapp.net")
        return text
    digits = text.removeprefix("+").translate(_NUMBER_PUNCTUATION)
    if not (digits.isascii() and digits.isdigit()):
        raise ValueError("neither a phone number nor an address; expected for example +15550000002")
    if digits.startswith("0"):
        raise ValueError("the number starts with 0; write it in international form, for example +15550000002")
    if not MIN_DIGITS <= len(digits) <= MAX_DIGITS:
        raise ValueError(
            f"a phone number has {MIN_DIGITS} to {MAX_DIGITS} digits, this one has {len(digits)}"
        )
    return digits


_NUMBER_PUNCTUATION: Final = str.maketrans("", "", " .-()/\u00a0\u202f")


class _Model(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An answer: readers ignore fields they do not know."""


class _Params(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """The parameters of a method: a misspelt one is an error."""


# ------------------------------------------------------------------------------------------------- answers


class DisconnectView(_Model, frozen=True, kw_only=True):
    """Why the last connection ended (chapter 02 §8.1).

    Attributes:
        cause: id of the row in the disconnect table.
        at: when.
        code: the number that goes with it, if it has one.
        message: one sentence for people.
        detail: further facts; which depends on the cause.
    """

    cause: str
    at: int
    code: int | None = None
    message: str = ""
    detail: dict[str, Any] = {}


class SessionView(_Model, frozen=True, kw_only=True):
    """A session as it is now.

    Attributes:
        connection_id: never changes, also when a session of this name is removed and made again.
        desired: what the operator wants: `up`, `down` or `retired`.
        held: an operator has put it on hold; it does not connect until it is released.
        paired: the session holds credentials that WhatsApp has accepted.
        ready: the start-up work after `open` is done.
        healthy: the connection answers; null when there is none.
        me: the canonical own address, if paired.
        me_pn: the address made of the phone number.
        me_lid: the address that hides it.
        push_name: the name others see.
        platform: what the phone runs, as WhatsApp calls it.
        reconnect_count: connections made again since the session was created.
        reconnect_attempt: how many attempts in a row have failed.
        last_disconnect: why the last connection ended; cleared when a new one has proved stable.
        next_attempt_at: when the next connection is tried, in `backoff` and some `failed`.
        queued: own messages not yet acknowledged by WhatsApp.
        hint: what to do next, if anything.
        healthy_since: since when the connection answers without a pause; null when it does not.
        ping_ms: milliseconds between the last ping and its answer, null before the first one.
        unacked: own messages sent on this connection that WhatsApp has not acknowledged.
        unanswered: received stanzas of this connection that are not answered yet.
        clock_offset_ms: WhatsApp's clock minus this machine's at the last login, null before the first one.
        messages_received: messages of others that could be read, since the session was created.
        messages_sent: own messages that WhatsApp took, since the session was created.
        decrypt_failures: how often a received message could not be decrypted, since the session was created.
    """

    name: str
    connection_id: str
    state: State
    desired: Literal["up", "down", "retired"] = "down"
    held: bool = False
    paired: bool = False
    ready: bool = False
    healthy: bool | None = None
    me: str | None = None
    me_pn: str | None = None
    me_lid: str | None = None
    push_name: str | None = None
    business_name: str | None = None
    platform: str | None = None
    last_connected_at: int | None = None
    last_message_at: int | None = None
    reconnect_count: int = 0
    reconnect_attempt: int = 0
    next_attempt_at: int | None = None
    last_disconnect: DisconnectView | None = None
    queued: int = 0
    hint: str = ""
    healthy_since: int | None = None
    ping_ms: int | None = None
    unacked: int = 0
    unanswered: int = 0
    clock_offset_ms: int | None = None
    messages_received: int = 0
    messages_sent: int = 0
    decrypt_failures: int = 0


class QrView(_Model, frozen=True, kw_only=True):
    """The QR code to scan now. It holds a secret: whoever has it can finish the pairing.

    Attributes:
        number: 1 for the first code of a round; `of` is how many the round may show.
        expires_at: when the next code replaces it, or the round ends.
    """

    session: str
    qr: str
    number: int
    of: int
    expires_at: int

    def __repr__(self) -> str:
        return f"QrView(session={self.session!r}, number={self.number}, of={self.of})"


class SessionList(_Model, frozen=True, kw_only=True):
    """Answer of `session.list`, by name."""

    sessions: list[SessionView]


class QrResult(_Model, frozen=True, kw_only=True):
    """Answer of `session.qr`: `code` is null while there is none to scan; `session` says why."""

    session: SessionView
    code: QrView | None = None


class SendResult(_Model, frozen=True, kw_only=True):
    """Answer of `message.send`: the message is durable in the outbox.

    Attributes:
        seq: its place in the outbox.
        duplicate: the idempotency key was seen before; this is the first message's row, whatever its state.
    """

    session: str
    message_id: str
    chat: str
    state: MessageState
    seq: int
    duplicate: bool = False


class WaitResult(_Model, frozen=True, kw_only=True):
    """Answer of `message.wait`: the state reached, at or beyond the one waited for."""

    session: str
    message_id: str
    state: MessageState


class MessageView(_Model, frozen=True, kw_only=True):
    """One message of the history.

    Attributes:
        seq: position in the history; `before` of `message.list` takes it.
        time: when the author sent it.
        status: for own messages a message state; for others `received`, `read` or `undecryptable`.
        content: what the kind adds to the text, such as a quoted id or a file's size.
    """

    seq: int
    chat: str
    sender: str
    message_id: str
    from_me: bool
    time: int
    kind: str
    status: str
    body: str | None = None
    content: dict[str, Any] | None = None
    edited_at: int | None = None
    revoked_at: int | None = None

    def __repr__(self) -> str:
        return f"MessageView(seq={self.seq}, kind={self.kind!r}, status={self.status!r})"


class MessageList(_Model, frozen=True, kw_only=True):
    """Answer of `message.list`, newest first; `next` is the `before` of the next page, null on the last."""

    session: str
    messages: list[MessageView]
    next: int | None = None


class ReadResult(_Model, frozen=True, kw_only=True):
    """Answer of `message.read`: how many messages are marked now that were not before."""

    session: str
    marked: int


class EventView(_Model, frozen=True, kw_only=True):
    """One entry of the durable event log; the envelope of an `event` notification."""

    cursor: int
    time: int
    type: str
    connection_id: str | None = None
    session: str | None = None
    data: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"EventView(cursor={self.cursor}, type={self.type!r}, session={self.session!r})"


class EventList(_Model, frozen=True, kw_only=True):
    """Answer of `events.list`: entries after `since`, oldest first.

    Attributes:
        oldest: first cursor the log still holds (0 when it is empty).
        last: cursor of the newest entry; ask again with `since` = the last cursor received.
    """

    events: list[EventView]
    oldest: int
    last: int


class Subscription(_Model, frozen=True, kw_only=True):
    """Answer of `events.subscribe`; `event` notifications with this number follow."""

    subscription: int
    oldest: int
    last: int


class EventNotice(_Model, frozen=True, kw_only=True):
    """Parameters of the notification `event`."""

    subscription: int
    event: EventView


class ErrorBody(_Model, frozen=True, kw_only=True):
    """The `error` of an answer. `data.symbol` is stable, `message` is for people and may change."""

    code: int
    message: str
    data: dict[str, Any] = {}


class EndNotice(_Model, frozen=True, kw_only=True):
    """Parameters of the notification `events.end`: this subscription sends nothing more.

    Attributes:
        reason: `complete` (`follow` was false and the log is read), `stopped` (the daemon is stopping),
            or `failed`, with `error`.
        cursor: the last cursor sent, or the `since` it started from.
    """

    subscription: int
    reason: Literal["complete", "stopped", "failed"]
    cursor: int
    error: ErrorBody | None = None


class Done(_Model, frozen=True, kw_only=True):
    """Answer of a method that has nothing more to tell."""

    done: bool = True


class LogoutResult(_Model, frozen=True, kw_only=True):
    """Answer of `session.logout`.

    Attributes:
        unlinked: WhatsApp confirmed it. When false, also remove the device on the phone.
        backup: where the credentials were sealed before they were cleared.
    """

    session: SessionView
    unlinked: bool
    backup: str | None = None


class RemoveResult(_Model, frozen=True, kw_only=True):
    """Answer of `session.remove`: the history stays, the name is free, `connection_id` comes back with it."""

    name: str
    connection_id: str
    backup: str | None = None


class UndoResult(_Model, frozen=True, kw_only=True):
    """Answer of `session.undo`: the credentials of before a reset, repair or logout are in place, the session is down.

    Attributes:
        restored: where the restored credentials had been sealed.
        sealed_at: when they were sealed.
        backup: where the credentials that were in place until now are sealed.
        receive_only: conversations that decrypt, and send again after a new key exchange.
        sender_keys: own group keys that were dropped; new ones are made with the next message to each group.
        stale_prekeys: one-time keys that still decrypt and are never uploaded again.
        held: messages on their way out that wait for a decision of the operator.
    """

    session: SessionView
    restored: str
    sealed_at: int
    backup: str
    receive_only: int = 0
    sender_keys: int = 0
    stale_prekeys: int = 0
    held: int = 0


class PolicyLimit(_Model, frozen=True, kw_only=True):
    """How often an action is taken before another one is.

    Attributes:
        times: occurrences that get the row's own action.
        then: the action for the next one.
        within: only occurrences of the last so many seconds count; null: all.
        until: what starts the count anew: the next `open`, the next `stable` one, or `never` by itself.
    """

    times: int
    then: str
    within: float | None = None
    until: Literal["open", "stable", "never"] = "stable"


class PolicyAlert(_Model, frozen=True, kw_only=True):
    """From which occurrence on an alert is raised, and how urgent it is."""

    occurrence: int
    severity: Literal["info", "warning", "critical"]


class PolicyException(_Model, frozen=True, kw_only=True):
    """Numbers of a cause that are handled as another row says."""

    low: int
    high: int
    handled_as: str


class PolicyRow(_Model, frozen=True, kw_only=True):
    """What happens when a connection ends for one reason.

    Attributes:
        cause: id of the row.
        section: where it arises: `transport`, `stream`, `failure`, `pairing` or `local`.
        code: the number of the disconnect reason, null when the cause brings its own or has none.
        action: what is done, settings included.
        default_action: what is done without settings.
        origin: where the action comes from: `default`, or `FILE:LINE`.
        fixed: no setting can change the action.
        clears_auth: the credentials are sealed and cleared, by the action or by the one that follows its limit.
        counts: it counts as an attempt; when these are used up the session is `failed`.
        counted_as: the name under which occurrences are counted; several rows may share one.
        in_a_row: another cause in between starts the count anew.
        limit: how often the action is taken; null without a limit, or when a setting replaced the action.
        delay: seconds before the next connection, where they do not grow.
        base: first delay in seconds, where it is the row's own.
        alerts: when an alert is raised.
        exceptions: numbers for which another row counts.
        needs_newer_version: the action is taken only if there is a newer client version, else `hold`.
        meaning: what happened.
        hint: what the operator does next.
    """

    cause: str
    section: str
    code: int | None
    action: str
    default_action: str
    origin: str = "default"
    fixed: bool = False
    clears_auth: bool = False
    counts: bool = False
    counted_as: str = ""
    in_a_row: bool = False
    limit: PolicyLimit | None = None
    delay: float | None = None
    base: float | None = None
    alerts: list[PolicyAlert] = []
    exceptions: list[PolicyException] = []
    needs_newer_version: bool = False
    meaning: str = ""
    hint: str = ""


class PolicyTable(_Model, frozen=True, kw_only=True):
    """Answer of `policy.show`: the disconnect table in force, for one session or for those without settings."""

    session: str | None
    rows: list[PolicyRow]


class OptionView(_Model, frozen=True, kw_only=True):
    """One option in force.

    Attributes:
        key: its full name, such as `reconnect.base` or `sessions.alerts.reconnect.base`.
        value: as TOML; passwords are masked, `none` when there is no value.
        origin: `default`, or `FILE:LINE`.
    """

    key: str
    value: str
    origin: str


class ConfigList(_Model, frozen=True, kw_only=True):
    """Answer of `config.show`: every option, the files they were read from, and what was odd in them."""

    options: list[OptionView]
    files: list[str] = []
    warnings: list[str] = []


Level: TypeAlias = Literal["ok", "warning", "critical"]


class Finding(_Model, frozen=True, kw_only=True):
    """One thing that was looked at.

    Attributes:
        check: what: `store`, `permissions`, `session`, `health`, `clock`, `decryption`, `outbox` or `events`.
        level: how it is.
        subject: the session, file or subscriber.
        message: one sentence.
        hint: what to do; empty when all is well.
        data: the facts, by check.
    """

    check: str
    level: Level
    subject: str
    message: str
    hint: str = ""
    data: dict[str, Any] = {}


class CheckReport(_Model, frozen=True, kw_only=True):
    """Answer of `daemon.check`: everything that was looked at, and the worst level among it."""

    level: Level
    findings: list[Finding]


class Pong(_Model, frozen=True, kw_only=True):
    """Answer of `daemon.ping`: who answers, and as what it sees the caller."""

    pid: int
    version: str
    protocol: int
    role: Role


class SubscriberView(_Model, frozen=True, kw_only=True):
    """Somebody who reads the event log.

    Attributes:
        name: `client`, or the part of the daemon that reads.
        cursor: the last event handed over, or passed over because it was not asked for.
        event_lag: how many entries of the log come after it.
    """

    name: str
    cursor: int
    event_lag: int


class DaemonInfo(_Model, frozen=True, kw_only=True):
    """Answer of `daemon.info`.

    Attributes:
        store: which store, without credentials.
        states: number of sessions in each state.
        event_lag: how far the slowest subscriber is behind the log.
    """

    pid: int
    version: str
    protocol: int
    started_at: int
    socket: str = ""
    config: str | None = None
    store: str = ""
    sessions: int = 0
    states: dict[str, int] = {}
    last_cursor: int = 0
    python: str = ""
    platform: str = ""
    event_lag: int = 0
    subscribers: list[SubscriberView] = []


class ReloadResult(_Model, frozen=True, kw_only=True):
    """Answer of `daemon.reload`: keys now in force, and keys that need a restart."""

    applied: list[str] = []
    restart_needed: list[str] = []


# ------------------------------------------------------------------------------------------------ requests

NameParam: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME)]
MessageIdParam: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_MESSAGE_ID)]
AddressParam: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ADDRESS)]
CursorParam: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=MAX_CURSOR)]
PageParam: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=MAX_PAGE)]
KeyParam: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_IDEMPOTENCY_KEY)]
WaitParam: TypeAlias = Annotated[float, msgspec.Meta(gt=0, le=MAX_WAIT)]
TypesParam: TypeAlias = Annotated[list[NameParam], msgspec.Meta(max_length=MAX_TYPES)]
IdsParam: TypeAlias = Annotated[list[MessageIdParam], msgspec.Meta(min_length=1, max_length=MAX_IDS)]
MentionsParam: TypeAlias = Annotated[list[AddressParam], msgspec.Meta(max_length=MAX_MENTIONS)]


class NoParams(_Params, frozen=True, kw_only=True):
    """For methods without parameters."""


class SessionParams(_Params, frozen=True, kw_only=True):
    """`name` is a session's name or its connection id."""

    name: NameParam


class PolicyParams(_Params, frozen=True, kw_only=True):
    """Parameters of `policy.show`: the session whose settings count, whether it exists or not."""

    session: NameParam | None = None


class SendRequest(_Params, frozen=True, kw_only=True):
    """Parameters of `message.send`.

    Attributes:
        to: phone number or address.
        idempotency_key: a second call with the same key returns the first one's message.
        quote: id of the message to quote, of the same chat.
        mentions: numbers or addresses named in the text as `@number`.
    """

    session: NameParam
    to: AddressParam
    text: str
    idempotency_key: KeyParam | None = None
    quote: MessageIdParam | None = None
    mentions: MentionsParam = []

    def __repr__(self) -> str:
        return f"SendRequest(session={self.session!r}, characters={len(self.text)})"


class WaitParams(_Params, frozen=True, kw_only=True):
    """Parameters of `message.wait`; `timeout` in seconds, at most a day."""

    session: NameParam
    message_id: MessageIdParam
    state: Milestone = "sent"
    timeout: WaitParam = DEFAULT_WAIT


class ListParams(_Params, frozen=True, kw_only=True):
    """Parameters of `message.list`; `before` is a `seq`, for paging."""

    session: NameParam
    chat: AddressParam | None = None
    before: CursorParam | None = None
    limit: PageParam = DEFAULT_PAGE


class ReadParams(_Params, frozen=True, kw_only=True):
    """Parameters of `message.read`: the chat, and the ids of messages received in it."""

    session: NameParam
    chat: AddressParam
    ids: IdsParam


class EventsParams(_Params, frozen=True, kw_only=True):
    """Parameters of `events.list`: entries with a cursor above `since`, of these types, of this session."""

    since: CursorParam = 0
    types: TypesParam = []
    session: NameParam | None = None
    limit: PageParam = DEFAULT_PAGE


class SubscribeParams(_Params, frozen=True, kw_only=True):
    """Parameters of `events.subscribe`.

    Attributes:
        since: start behind this cursor; without it, with what happens from now on.
        follow: false: end when the log is read.
    """

    since: CursorParam | None = None
    types: TypesParam = []
    session: NameParam | None = None
    follow: bool = True


class UnsubscribeParams(_Params, frozen=True, kw_only=True):
    """Parameters of `events.unsubscribe`: the number that `events.subscribe` answered."""

    subscription: CursorParam
