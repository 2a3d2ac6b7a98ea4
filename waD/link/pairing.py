"""Linking this device to an account by a QR code (chapter 02 §3).

Secrets are durable before a code with them is shown, and the pairing is durable before the phone hears of it. What a
code says and how long is in `qr.py`, the proof of the phone in `pair_success.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final, NoReturn

import trio

from waD.crashpoints import crashpoint
from waD.link import stanzas
from waD.link.acks import ack
from waD.link.causes import cause
from waD.link.connection import Connection
from waD.link.credentials import ADV_SECRET_LENGTH, Credentials, CredentialStore, new_credentials
from waD.link.errors import Disconnected, PairingRefused
from waD.link.pair_success import Paired, verify
from waD.link.payload import ClientProfile
from waD.link.qr import QrCode, QrRound, parse_refs, qr_text
from waD.wire.jid import SERVER
from waD.wire.node import Node

__all__ = ["CredentialStore", "Paired", "QrCode", "pair"]

RESTART_WAIT_S: Final = 10.0
"""How long the server may take to end the connection after the pairing; then we do."""
REFRESH: Final = "companion_reg_refresh"
PASSKEY: Final = "passkey_prologue_request"

_log = logging.getLogger(__name__)


async def pair(
    connection: Connection,
    store: CredentialStore,
    profile: ClientProfile,
    *,
    random: Callable[[int], bytes],
    on_qr: Callable[[QrCode], Awaitable[None]],
    now_ms: Callable[[], int],
    accept: Callable[[Paired], bool] | None = None,
) -> NoReturn:
    """Show codes until a phone has scanned one; the only reader of `connection.stanzas` meanwhile.

    Never returns: a pairing ends with its connection. Cause `restart` means paired: connect again at once, with the
    stored credentials. Every other cause means unpaired. After a refused proof (`pair_hmac`, `pair_sig`,
    `pair_refused`) the stored identity is a new one.

    Args:
        connection: made with unregistered credentials.
        store: where credentials become durable.
        profile: the one in the payload of the connection.
        random: source of unpredictable bytes.
        on_qr: called with each code to show, in place of the one before.
        now_ms: Unix milliseconds.
        accept: False refuses an account that is not meant; nothing of it is stored then.

    Raises:
        Disconnected: always, unless something else comes first.
        ValueError: the credentials are registered already.
        Exception: what the store or `on_qr` raised.
    """
    if (await store.credentials()).registered:
        raise ValueError("these credentials belong to a paired device; a pairing needs new ones")
    await _Pairing(connection, store, profile, random, on_qr, now_ms, accept).run()


class _Pairing:
    """One run of `pair`."""

    def __init__(
        self,
        connection: Connection,
        store: CredentialStore,
        profile: ClientProfile,
        random: Callable[[int], bytes],
        on_qr: Callable[[QrCode], Awaitable[None]],
        now_ms: Callable[[], int],
        accept: Callable[[Paired], bool] | None,
    ) -> None:
        self._connection = connection
        self._store = store
        self._profile = profile
        self._random = random
        self._on_qr = on_qr
        self._now_ms = now_ms
        self._accept = accept
        self._round: QrRound | None = None

    async def run(self) -> NoReturn:
        while True:
            node = await self._next()
            if node is None:
                await self._next_code()
            elif node.tag == "iq":
                await self._handle_iq(node)
            elif node.tag == "notification":
                await self._handle_notification(node)

    async def _next(self) -> Node | None:
        """The next stanza; None when the current code is over first."""
        stanzas_in = self._connection.stanzas
        try:
            # What has arrived counts, even when the code is over by now.
            return stanzas_in.receive_nowait()
        except trio.WouldBlock:
            pass
        except trio.EndOfChannel:
            await self._end()
        try:
            with trio.move_on_at(float("inf") if self._round is None else self._round.deadline):
                return await stanzas_in.receive()
        except trio.EndOfChannel:
            await self._end()
        return None

    async def _end(self) -> NoReturn:
        raise Disconnected(await self._connection.wait_ended())

    async def _fail(self, cause_id: str, message: str) -> NoReturn:
        self._connection.fail(cause(cause_id, message))
        await self._end()

    # Stanzas.

    async def _handle_iq(self, iq: Node) -> None:
        """Answer the two requests of pairing; the engine let them through from the server only."""
        if iq.attrs.get("xmlns") != "md" or iq.attrs.get("type") != "set":
            return
        offer = iq.child("pair-device")
        if offer is not None:
            await self._begin_round(iq, offer)
        elif iq.child("pair-success") is not None:
            await self._finish(iq)

    async def _handle_notification(self, node: Node) -> None:
        kind, from_server = node.text("type"), node.jid("from") == SERVER
        refresh = kind == REFRESH and from_server and self._round is not None
        credentials = await self._new_secret() if refresh else None
        if kind == PASSKEY and from_server:
            _log.warning("the account asks for pairing with a passkey, which needs a browser; use a QR code")
        answer = ack(node)
        if answer is not None:
            await self._connection.send(answer)
        if credentials is not None:
            await self._show(credentials)

    # Codes.

    async def _begin_round(self, iq: Node, offer: Node) -> None:
        try:
            refs = parse_refs(offer)
        except PairingRefused as refusal:
            await self._connection.send(stanzas.error(iq, refusal.code, refusal.text))
            if self._round is None:
                await self._fail(refusal.cause_id, refusal.detail)
            return
        credentials = await self._new_secret()
        await self._connection.send(stanzas.result(iq))
        self._round = QrRound(refs, trio.current_time())
        await self._show(credentials)

    async def _next_code(self) -> None:
        assert self._round is not None
        if not self._round.advance(trio.current_time()):
            await self._fail("qr_exhausted", f"none of {self._round.of} codes was scanned")
        await self._show(await self._store.credentials())

    async def _new_secret(self) -> Credentials:
        """Make older codes worthless; durable before a new one is shown."""
        secret = self._random(ADV_SECRET_LENGTH)
        return await self._store.change_credentials(lambda now: now.change(adv_secret=secret))

    async def _show(self, credentials: Credentials) -> None:
        current = self._round
        assert current is not None
        text = qr_text(
            current.ref,
            credentials.noise.public,
            credentials.identity.public,
            credentials.adv_secret,
            self._profile.qr_type,
        )
        left = max(0.0, current.deadline - trio.current_time())
        await self._on_qr(QrCode(text, current.number, current.of, left))

    # The proof.

    async def _finish(self, iq: Node) -> NoReturn:
        credentials = await self._store.credentials()
        try:
            paired = verify(iq, credentials.adv_secret, credentials.identity, self._random)
            if self._accept is not None and not self._accept(paired):
                raise PairingRefused(
                    500, "internal-error", "pair_refused", "another account than the meant one"
                )
        except PairingRefused as refusal:
            await self._refuse(iq, refusal)
        if self._connection.cause is not None:
            # It can no longer be answered, so the server forgets it, and so do we.
            await self._end()
        crashpoint("pair.before_commit")
        await self._store.change_credentials(paired.apply)
        crashpoint("pair.after_commit")
        if self._connection.cause is None:
            # From the write on it is not known whether the server has it: only a login tells.
            self._connection.expect_restart()
        await self._connection.send(paired.answer)
        crashpoint("pair.after_send")
        await self._await_restart()

    async def _refuse(self, iq: Node, refusal: PairingRefused) -> NoReturn:
        """Forget the identity somebody else may know by now, answer, end."""
        fresh = new_credentials(self._random, self._now_ms())
        await self._store.change_credentials(lambda _: fresh)
        await self._connection.send(stanzas.error(iq, refusal.code, refusal.text))
        await self._fail(refusal.cause_id, refusal.detail)

    async def _await_restart(self) -> NoReturn:
        """Whatever else comes now is not for an unpaired device; a second proof is ignored."""
        with trio.move_on_after(RESTART_WAIT_S):
            async for _ in self._connection.stanzas:
                pass
            await self._end()
        await self._fail("restart", f"paired; the server kept the connection for {RESTART_WAIT_S:g} s")
