"""The real ways out of a supervisor: to WhatsApp, or to whatever the settings name."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from typing import NoReturn, cast

import msgspec

from waD.config import SessionSettings
from waD.link import login as link_login
from waD.link.connection import Connection, LinkSettings, connect
from waD.link.credentials import Credentials, CredentialStore
from waD.link.devices import DeviceAnswer, query_devices
from waD.link.digest import ServerKeys, server_keys
from waD.link.endpoint import DEFAULT_URL, Endpoint
from waD.link.engine import EngineSettings
from waD.link.keepalive import KeepaliveSettings
from waD.link.pairing import pair
from waD.link.payload import ClientProfile, payload
from waD.link.prekeys import OneTimePreKey
from waD.link.qr import QrCode
from waD.link.usync import UserQuery
from waD.link.websocket import OpenStream, open_stream
from waD.messaging.context import MessagingSettings, make_context
from waD.messaging.facade import Messaging
from waD.messaging.media.downloads import Downloads
from waD.messaging.media.https import Https
from waD.session.doors import Link, Login
from waD.session.online import Online, OnlineSettings
from waD.session.version import VersionSource
from waD.session.vitals import MS, Clock
from waD.store.state import SessionState
from waD.wire.certs import ROOT_KEY
from waD.wire.jid import JID


class NetworkDoors:
    """Implements `waD.session.doors.Doors`.

    Args:
        settings: the session's settings; each connection goes by those at its beginning.
        clock: time and chance.
        versions: the version to announce when the settings name none, and where newer ones come from.
        dial: opens the stream under the websocket.
    """

    def __init__(
        self,
        settings: Callable[[], SessionSettings],
        clock: Clock,
        *,
        versions: VersionSource | None = None,
        dial: OpenStream = open_stream,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._versions = versions or VersionSource()
        self._dial = dial
        self._profile: ClientProfile | None = None
        self._state: SessionState | None = None

    def messaging(self, state: SessionState) -> Messaging:
        """Over the session's state."""
        self._state = state
        context = make_context(
            state,
            settings=messaging_settings(self._settings()),
            now_ms=self._clock.unix_ms,
            random=self._clock.random,
        )
        return Messaging(context)

    def refresh(self, messaging: Messaging) -> None:
        """What concerns messages counts at once; whether the account appears online, from the next login on."""
        context = messaging.context
        now = messaging_settings(self._settings())
        context.settings = msgspec.structs.replace(now, available=context.settings.available)
        messaging.outbound.settings_changed()

    @asynccontextmanager
    async def connect(self, credentials: Credentials, *, use_routing: bool) -> AsyncIterator[Link]:
        """Dial and shake hands."""
        settings = self._settings()
        profile = self._profile = client_profile(settings, self._versions.version)
        async with connect(
            endpoint(settings),
            credentials,
            payload(credentials, profile),
            link_settings(settings),
            random=self._clock.random,
            unix_time=lambda: self._clock.unix_ms() / MS,
            dial=self._dial,
            use_routing=use_routing,
        ) as connection:
            connection.may_write = self._owned
            yield connection

    def _owned(self) -> bool:
        return self._state is None or self._state.owned

    async def pair(
        self,
        link: Link,
        store: CredentialStore,
        on_qr: Callable[[QrCode], Awaitable[None]],
        accept: Callable[[JID], bool],
    ) -> NoReturn:
        """Show codes; always ends in Disconnected."""
        assert self._profile is not None, "a connection for pairing has announced a profile"
        await pair(
            cast(Connection, link),
            store,
            self._profile,
            random=self._clock.random,
            on_qr=on_qr,
            now_ms=self._clock.unix_ms,
            accept=lambda paired: accept(paired.jid),
        )

    def login(self, link: Link, messaging: Messaging) -> Login:
        """Follow a login up."""
        settings = self._settings()
        messaging.context.settings = messaging_settings(settings)
        online = OnlineSettings(
            mark_online=settings.network.online_on_connect, retry_delay_s=settings.messages.retry_delay_s
        )
        connection = cast(Connection, link)
        files = Downloads(
            connection, Https(endpoint(settings)), unix_s=lambda: messaging.context.now_ms() / MS
        )
        return Online(connection, messaging, online, files)

    async def unlink(self, link: Link, me: JID) -> bool:
        """Log out at WhatsApp."""
        return await link_login.logout(cast(Connection, link), me)

    async def ask_keys(
        self, link: Link, creds: Credentials, keys: Collection[OneTimePreKey]
    ) -> ServerKeys | None:
        """Over the session's own connection."""
        return await server_keys(cast(Connection, link), creds, keys)

    async def ask_devices(self, link: Link, me: JID) -> DeviceAnswer:
        """Over the session's own connection."""
        (answer,) = await query_devices(cast(Connection, link), [UserQuery(jid=me.account)])
        return answer

    async def newer_version(self) -> bool:
        """Look for one, unless the settings fix the version or the server is not WhatsApp."""
        network = self._settings().network
        if network.version is not None or network.url is not None or self._profile is None:
            return False
        return await self._versions.refresh(self._profile.version, network.proxy)


def endpoint(settings: SessionSettings) -> Endpoint:
    """Where a session connects."""
    network = settings.network
    return Endpoint(network.url or DEFAULT_URL, network.root_key or ROOT_KEY, network.ca_file, network.proxy)


def client_profile(settings: SessionSettings, version: tuple[int, int, int]) -> ClientProfile:
    """What a session calls itself."""
    network = settings.network
    return ClientProfile(
        version=network.version or version,
        browser=(network.os_name, network.device, ClientProfile().browser[2]),
        sync_full_history=network.full_history,
        country=network.country,
        push_name=network.push_name or "",
    )


def link_settings(settings: SessionSettings) -> LinkSettings:
    """Times of a connection."""
    network, health = settings.network, settings.health
    keepalive = KeepaliveSettings(
        interval_s=network.keepalive_s,
        jitter_s=network.keepalive_jitter_s,
        quiet_s=health.quiet_s,
        longest_s=health.ping_interval_s,
        late_s=health.pong_late_s,
        dead_s=health.dead_after_s,
    )
    engine = EngineSettings(
        hello_timeout_s=network.hello_timeout_s,
        login_timeout_s=network.connect_timeout_s,
        query_timeout_s=network.query_timeout_s,
        ack_timeout_s=network.ack_timeout_s,
        keepalive=keepalive,
    )
    return LinkSettings(engine=engine, dial_timeout_s=network.dial_timeout_s)


def messaging_settings(settings: SessionSettings) -> MessagingSettings:
    """How messages are handled."""
    return MessagingSettings(
        retries=settings.messages.retries,
        retry_delay_ms=round(settings.messages.retry_delay_s * MS),
        max_text=settings.outbox.text_limit,
        rate_per_s=settings.outbox.rate,
        new_chat_interval_s=settings.outbox.new_conversation_interval_s,
        send_read_receipts=settings.messages.read_receipts,
        available=settings.network.online_on_connect,
    )
