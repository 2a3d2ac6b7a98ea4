"""The rows (chapter 08 §6.2): frozen values, the same for every database. Times are Unix milliseconds."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, TypeAlias

from msgspec import Meta, Struct, field

from waD.store.phases import Phase

SessionStatus: TypeAlias = Literal[
    "new", "stopped", "connecting", "pairing", "open", "backoff", "needs_pairing", "failed"
]
DesiredState: TypeAlias = Literal["up", "down", "retired"]
OutboxStatus: TypeAlias = Literal["queued", "held", "sending", "sent", "failed", "expired", "cancelled"]
Source: TypeAlias = Literal["live", "offline", "history", "import"]

STATUS_NUMBERS: Final = {"error": 0, "pending": 1, "sent": 2, "delivered": 3, "read": 4, "played": 5}
"""How far a message came, as stored (chapter 04 §5.4). A status is never lowered."""
STATUS_NAMES: Final = {number: name for name, number in STATUS_NUMBERS.items()}
STORAGE_FALLBACK: Final = "storage:fallback"
MESSAGES_PURGED: Final = "messages:purged"
"""Events that the store itself appends."""
UNDECRYPTABLE: Final = "undecryptable"
"""Kind of a message whose content we could not read yet."""


class DisconnectRecord(Struct, frozen=True, kw_only=True):
    """Why the last connection ended: cause id, number or None, facts without content (chapter 02 §8.1)."""

    cause: str
    code: int | None
    at_ms: int
    detail: dict[str, Any] = field(default_factory=dict)


class SessionRow(Struct, frozen=True, kw_only=True):
    """One session as the operator knows it. `id` is its connectionId.

    The three tallies count since the session was made: messages of others that could be read, own messages that
    WhatsApp took, and failures to decrypt. `kek_id` names the key that its auth state is encrypted with, if it is.
    """

    id: str
    name: str
    me_pn: str | None = None
    me_lid: str | None = None
    push_name: str | None = None
    business_name: str | None = None
    platform: str | None = None
    desired_state: DesiredState = "down"
    held: bool = False
    current_status: SessionStatus = "new"
    last_disconnect: DisconnectRecord | None = None
    last_connected_at: int | None = None
    last_message_at: int | None = None
    reconnect_count: int = 0
    reconnect_attempt: int = 0
    messages_received: int = 0
    messages_sent: int = 0
    decrypt_failures: int = 0
    retry_requests: int = 0
    auth_epoch: int = 1
    auth_version: int = 0
    auth_phase: Phase = "cut_over"
    legacy_version: int = 0
    lease_token: int = 0
    lease_holder: str | None = None
    lease_expires_at: int | None = None
    kek_id: str | None = None
    created_at: int = 0
    updated_at: int = 0


class SealInfo(Struct, frozen=True, kw_only=True):
    """A sealed copy of an auth state, without its content."""

    epoch: int
    version: int
    reason: str
    sealed_at: int
    item_count: int


class Sealed(Struct, frozen=True, kw_only=True):
    """What a seal holds: the credentials document, and the items by kind and key.

    Of a state that was kept while its key was gone also what that encrypted beside it: `texts` are payloads of the
    outbox by message id, `secrets` those of messages.
    """

    epoch: int
    version: int
    creds: bytes | None
    items: dict[tuple[str, str], bytes]
    texts: dict[str, bytes] = field(default_factory=dict)
    secrets: list[SecretRow] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"Sealed(epoch={self.epoch}, version={self.version}, {len(self.items)} items)"


class EventRow(Struct, frozen=True, kw_only=True, rename={"connection_id": "connectionId"}):
    """One event in its envelope; `data` depends on `type`."""

    cursor: int
    time: int
    connection_id: str | None
    session: str | None
    type: str
    data: dict[str, Any]


class MessageRow(Struct, frozen=True, kw_only=True):
    """A message of the history. Its key is (session, chat, sender, message_id) (chapter 04 §1.1).

    `chat` and `sender` are canonical bare addresses; `wire_chat` and `wire_sender` are as the stanza spelt them.
    `raw` is the unpadded Message protobuf. `status` is a number of `STATUS_NUMBERS`.
    """

    chat: str
    sender: str
    message_id: str
    from_me: bool
    ts: int
    kind: str
    body: str | None = None
    content: dict[str, Any] | None = None
    raw: bytes | None = None
    wire_chat: str | None = None
    wire_sender: str | None = None
    status: int = 1
    source: Source = "live"
    edited_at: int | None = None
    revoked_at: int | None = None
    seq: int = 0
    session_id: str = ""


class OutboxRow(Struct, frozen=True, kw_only=True):
    """A message on its way out. `client_ref` is the caller's idempotency key, or one made up.

    `stanza` is the encoded node, committed together with the ratchet steps it came from; None until encrypted.
    """

    client_ref: str
    chat: str
    message_id: str
    payload: dict[str, Any]
    stanza: bytes | None = None
    state: OutboxStatus = "queued"
    attempts: int = 0
    not_before: int = 0
    expires_at: int | None = None
    last_error: str | None = None
    created_at: int = 0
    written_at: int | None = None
    sent_at: int | None = None
    seq: int = 0
    session_id: str = ""

    def __repr__(self) -> str:
        return f"OutboxRow(seq={self.seq}, message_id={self.message_id}, state={self.state})"


SECRET_LENGTH: Final = 32
_Address = Annotated[str, Meta(min_length=1, max_length=256)]
_Name = Annotated[str, Meta(min_length=1, max_length=255)]
_Moment = Annotated[int, Meta(ge=0, le=2**53)]


class SecretRow(Struct, frozen=True, kw_only=True):
    """The secret of a message, which its add-ons are encrypted with (chapter 04 §10).

    `chat` and `sender` are canonical bare addresses; `wire_sender` is the author's bare address as the stanza spelt
    it, which the keys of add-ons are made from. `expires_at`: when it goes; None for never.
    """

    chat: _Address
    sender: _Address
    message_id: _Name
    wire_sender: _Address
    secret: Annotated[bytes, Meta(min_length=SECRET_LENGTH, max_length=SECRET_LENGTH)]
    message_ts: _Moment
    expires_at: _Moment | None = None

    def __repr__(self) -> str:
        return f"SecretRow(message_id={self.message_id})"
