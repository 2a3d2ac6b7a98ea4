"""What all parts of one session's messaging share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from msgspec import Struct

from waD.messaging.account import Account
from waD.messaging.addresses import Addresses
from waD.messaging.records import Records
from waD.store.state import SessionState


class MessagingSettings(Struct, frozen=True, kw_only=True):
    """How messages are handled.

    Attributes:
        retries: retry receipts sent for one message at the most (chapter 04 §7.1).
        retry_delay_ms: between retry receipts while online.
        max_text: characters of a text; more are refused, nothing is cut (chapter 04 §14).
        rate_per_s: messages sent per second; 0 for no limit.
        new_chat_interval_s: seconds between first messages to people never written to; 0 for no limit.
        send_read_receipts: whether the sender sees that a message was read; otherwise only own devices do.
        available: whether this client counts as available, so that delivery receipts are plain.
    """

    retries: int = 5
    retry_delay_ms: int = 250
    max_text: int = 65_536
    rate_per_s: float = 20.0
    new_chat_interval_s: float = 10.0
    send_read_receipts: bool = True
    available: bool = True


class ServerClock:
    """The time as the server sees it: local Unix milliseconds plus an offset learned at login (chapter 02 §5.6).

    Attributes:
        offset_ms: what to add to the local time.
    """

    __slots__ = ("_unix_ms", "offset_ms")

    def __init__(self, unix_ms: Callable[[], int]) -> None:
        self._unix_ms = unix_ms
        self.offset_ms = 0

    def __call__(self) -> int:
        """Unix milliseconds at the server."""
        return self._unix_ms() + self.offset_ms

    def local_ms(self) -> int:
        """Unix milliseconds here."""
        return self._unix_ms()


@dataclass(slots=True)
class Context:
    """One session's state with its views, settings, clock and randomness.

    Attributes:
        settings: in force; another value replaces it when the configuration is read again.
        now_ms: time as the server sees it.
        random: source of unpredictable bytes.
    """

    state: SessionState
    account: Account
    records: Records
    addresses: Addresses
    settings: MessagingSettings
    now_ms: ServerClock
    random: Callable[[int], bytes]


def make_context(
    state: SessionState,
    *,
    settings: MessagingSettings,
    now_ms: Callable[[], int],
    random: Callable[[int], bytes],
) -> Context:
    """Build the views over a session's state; `now_ms` is the local clock, Unix milliseconds."""
    records = Records(state)
    return Context(
        state=state,
        account=Account(state),
        records=records,
        addresses=Addresses(state, records),
        settings=settings,
        now_ms=ServerClock(now_ms),
        random=random,
    )
