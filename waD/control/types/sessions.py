"""Sessions: their view, and the answers of the commands on them."""

from __future__ import annotations

from typing import Any, Literal

from waD.control.types.base import Answer, NameParam, Params
from waD.control.types.words import State


class SessionParams(Params, frozen=True, kw_only=True):
    """`name` is a session's name or its connection id."""

    name: NameParam


class DisconnectView(Answer, frozen=True, kw_only=True):
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


class MoveView(Answer, frozen=True, kw_only=True):
    """A move of a session between two stores that has begun and not ended.

    Attributes:
        store: the other store.
        into: true where the session comes from there, false where it goes there.
        given_up: the source can start no more, or, in the destination, the whole state is here: only the end of the
            move decides which of the two goes on.
        command: what ends the move once the daemon is stopped; with `--abort` the move is given up.
    """

    store: str
    into: bool
    given_up: bool
    command: str


class SessionView(Answer, frozen=True, kw_only=True):
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
        queued: own messages on their way that WhatsApp has not acknowledged.
        held_messages: own messages that wait for `outbox.release` or `outbox.cancel`.
        hint: what to do next, if anything.
        healthy_since: since when the connection answers without a pause; null when it does not.
        ping_ms: milliseconds between the last ping and its answer, null before the first one.
        unacked: own messages sent on this connection that WhatsApp has not acknowledged.
        unanswered: received stanzas of this connection that are not answered yet.
        clock_offset_ms: WhatsApp's clock minus this machine's at the last login, null before the first one.
        messages_received: messages of others that could be read, since the session was created.
        messages_sent: own messages that WhatsApp took, since the session was created.
        decrypt_failures: how often a received message could not be decrypted, since the session was created.
        retry_requests: how often others could not decrypt a message of ours and asked for it again; a restored old
            state causes some.
        last_backup_at: when the newest backup that was verified was stored, null when there is none.
        backup_due_at: from when on the absence of a newer one is a fault; null when nobody is to be told.
        last_verified_at: when the stored auth state was last verified, null if errors were found, or never.
        run_by: the process that runs the session, when it is not this one.
        move: a move to or from another store that has not ended; null when there is none.
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
    held_messages: int = 0
    hint: str = ""
    healthy_since: int | None = None
    ping_ms: int | None = None
    unacked: int = 0
    unanswered: int = 0
    clock_offset_ms: int | None = None
    messages_received: int = 0
    messages_sent: int = 0
    decrypt_failures: int = 0
    retry_requests: int = 0
    last_backup_at: int | None = None
    backup_due_at: int | None = None
    last_verified_at: int | None = None
    run_by: str | None = None
    move: MoveView | None = None


class QrView(Answer, frozen=True, kw_only=True):
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


class SessionList(Answer, frozen=True, kw_only=True):
    """Answer of `session.list`, by name."""

    sessions: list[SessionView]


class QrResult(Answer, frozen=True, kw_only=True):
    """Answer of `session.qr`: `code` is null while there is none to scan; `session` says why."""

    session: SessionView
    code: QrView | None = None


class LogoutResult(Answer, frozen=True, kw_only=True):
    """Answer of `session.logout`.

    Attributes:
        unlinked: WhatsApp confirmed it. When false, also remove the device on the phone.
        backup: where the credentials were sealed before they were cleared.
    """

    session: SessionView
    unlinked: bool
    backup: str | None = None


class RemoveResult(Answer, frozen=True, kw_only=True):
    """Answer of `session.remove`: the history stays, the name is free, `connection_id` comes back with it."""

    name: str
    connection_id: str
    backup: str | None = None


class UndoResult(Answer, frozen=True, kw_only=True):
    """Answer of `session.undo`: the credentials that were cleared last are in place, the session is down.

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
