"""What a supervisor needs from the rooms below, as one interface: tests put fakes there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, NoReturn, Protocol

from waD.link.causes import Cause
from waD.link.credentials import Credentials, CredentialStore
from waD.link.devices import DeviceAnswer
from waD.link.digest import ServerKeys
from waD.link.login import LoginResult
from waD.link.prekeys import OneTimePreKey
from waD.link.qr import QrCode
from waD.store.state import SessionState
from waD.wire.jid import JID
from waD.wire.node import Node

if TYPE_CHECKING:
    from waD.messaging.facade import Messaging


class Link(Protocol):
    """The part of a `waD.link.connection.Connection` that a supervisor uses itself."""

    on_health: Callable[[bool], None] | None

    @property
    def latency_s(self) -> float | None:
        """Seconds between the last answered ping and its answer."""
        ...

    @property
    def unacked(self) -> int:
        """Messages sent on this connection that the server has not acknowledged."""
        ...

    def fail(self, reason: Cause) -> None:
        """End the connection for a reason of our own."""
        ...

    async def send(self, node: Node) -> None:
        """Send a stanza; raises Disconnected."""
        ...


class Login(Protocol):
    """One run of a logged-in connection; see `waD.session.online.Online`."""

    @property
    def result(self) -> LoginResult | None:
        """What the login told, once it is through."""
        ...

    @property
    def backlog_timed_out(self) -> bool:
        """Whether the server never ended its backlog."""
        ...

    @property
    def unanswered(self) -> int:
        """Received stanzas that are not answered yet."""
        ...

    async def run(
        self, *, opened: Callable[[], Awaitable[None]], ready: Callable[[], Awaitable[None]]
    ) -> None:
        """Run until the connection ends, which raises Disconnected, or until cancelled."""
        ...

    async def upload_prekeys(self) -> int:
        """Upload a full lot of one-time prekeys; returns how many went.

        This and the following two raise RequestError, RequestTimeout, MalformedReply, Disconnected and StoreError.
        """
        ...

    async def rotate_signed_prekey(self) -> None:
        """Replace the signed prekey."""
        ...

    async def refresh_devices(self, user: JID) -> None:
        """Ask for the device list of an account."""
        ...

    async def resync(self, collections: Sequence[str]) -> int:
        """Fetch collections of the app state anew; returns how many entries they have.

        Raises:
            ResyncFailed: not all of them are complete.
            Disconnected, StoreError: as above.
        """
        ...


class Doors(Protocol):
    """The ways out of a supervisor; there is one for each session."""

    def messaging(self, state: SessionState) -> Messaging:
        """Build the session's messaging over its state; again after the credentials were cleared."""
        ...

    def refresh(self, messaging: Messaging) -> None:
        """Let a session's messaging go by the settings as they are now."""
        ...

    def connect(self, credentials: Credentials, *, use_routing: bool) -> AbstractAsyncContextManager[Link]:
        """Connect as `waD.link.connection.connect` does.

        Raises:
            Disconnected: out of the block.
        """
        ...

    async def pair(
        self,
        link: Link,
        store: CredentialStore,
        on_qr: Callable[[QrCode], Awaitable[None]],
        accept: Callable[[JID], bool],
    ) -> NoReturn:
        """Pair; always ends in Disconnected, whose cause `restart` means paired.

        Args:
            link: made with unregistered credentials.
            store: where the credentials become durable.
            on_qr: called with each code to show.
            accept: False refuses the account whose device address it is given.
        """
        ...

    def login(self, link: Link, messaging: Messaging) -> Login:
        """Make the run of a logged-in connection."""
        ...

    async def unlink(self, link: Link, me: JID) -> bool:
        """Tell WhatsApp to forget this device; says whether it confirmed. Takes a few seconds at most."""
        ...

    async def ask_keys(
        self, link: Link, creds: Credentials, keys: Collection[OneTimePreKey]
    ) -> ServerKeys | None:
        """Ask WhatsApp what it has of this device's keys; raises as `waD.link.digest.server_keys` does."""
        ...

    async def ask_devices(self, link: Link, me: JID) -> DeviceAnswer:
        """Ask WhatsApp for the devices of the own account; raises as `waD.link.devices.query_devices` does."""
        ...

    async def newer_version(self) -> bool:
        """Look for a newer client version, and use it from now on; says whether there is one."""
        ...
