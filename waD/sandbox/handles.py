"""Phones as tests and the admin API handle them: orders that are finished, replies included, when they return."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import trio

from waD.sandbox.accounts import Account
from waD.sandbox.errors import SandboxError
from waD.sandbox.pairing import Scanned
from waD.sandbox.phone import Phone
from waD.sandbox.phone_content import ChatMessage
from waD.sandbox.phone_settings import FOREVER, ChatSettings, Contact, PhoneSettings
from waD.wire.jid import LID, PN
from waD.wire.node import Node

if TYPE_CHECKING:
    from waD.sandbox.sandbox import Sandbox

MAX_COUNT: Final = 100_000
CHUNK: Final = 50
"""Messages of a bulk order between two looks at everybody else."""


class PhoneHandle:
    """One phone. Every method raises SandboxError when the order cannot be done."""

    def __init__(self, sandbox: Sandbox, phone: Phone) -> None:
        self._sandbox = sandbox
        self.phone = phone

    def __repr__(self) -> str:
        return f"PhoneHandle({self.number})"

    @property
    def number(self) -> str:
        """Digits of the number."""
        return self.phone.account.number

    @property
    def jid(self) -> str:
        """Address by phone number."""
        return str(self.phone.account.pn_jid)

    @property
    def lid(self) -> str:
        """Address by LID."""
        return str(self.phone.account.lid_jid)

    async def scan(self, qr: str) -> Scanned:
        """Scan a pairing code with this phone."""
        await trio.lowlevel.checkpoint()
        scanned = self._sandbox.core.pairing.scan(qr, self.phone.account)
        self._settle()
        return scanned

    async def send(self, to: str, text: str, **options: Any) -> ChatMessage:
        """Send a text; `to` is a number or address. Options: `message_id`, `quote`."""
        await trio.lowlevel.checkpoint()
        sent = self.phone.send_text(self._account(to), text, **options)
        self._settle()
        return sent

    async def send_many(self, to: str, count: int, template: str = "message {n}") -> list[str]:
        """Send many texts, `{n}` counting from 1; returns their ids."""
        if not 0 < count <= MAX_COUNT:
            raise SandboxError(f"count is 1 to {MAX_COUNT}")
        account = self._account(to)
        ids: list[str] = []
        for number in range(1, count + 1):
            ids.append(self.phone.send_text(account, template.replace("{n}", str(number))).id)
            if number % CHUNK == 0:
                self._settle()
                await trio.lowlevel.checkpoint()
        self._settle()
        return ids

    async def read(self, chat: str, ids: list[str], kind: str = "read") -> None:
        """Send read receipts."""
        await trio.lowlevel.checkpoint()
        self.phone.read(self._account(chat), ids, kind)
        self._settle()

    async def presence(self, kind: str) -> None:
        """Be `available` or `unavailable`."""
        await trio.lowlevel.checkpoint()
        if kind not in ("available", "unavailable"):
            raise SandboxError("presence is available or unavailable")
        self._sandbox.core.presence.set_available(self.phone.device, available=kind == "available")
        self._settle()

    async def typing(self, chat: str, state: str = "composing") -> None:
        """Show a typing notice: `composing` or `paused`."""
        await trio.lowlevel.checkpoint()
        to = self._account(chat).jid(lid=self.phone.account.record.addressing == LID)
        self._sandbox.core.presence.chatstate(self.phone.device, Node("chatstate", {"to": to}, [Node(state)]))
        self._settle()

    async def configure(
        self,
        *,
        online: bool | None = None,
        auto_read: bool | None = None,
        auto_reply: str | None = None,
        addressing: str | None = None,
        name: str | None = None,
    ) -> None:
        """Change habits; an empty `auto_reply` switches it off, `addressing` is `lid` or `pn`."""
        await trio.lowlevel.checkpoint()
        account, record = self.phone.account, self.phone.keys.record
        if addressing is not None:
            if addressing not in ("lid", "pn"):
                raise SandboxError("addressing is lid or pn")
            account.record.addressing = LID if addressing == "lid" else PN
        if online is not None:
            record.online = online
            self._sandbox.core.world.phone_work.append(self.phone.device)
        if auto_read is not None:
            record.auto_read = auto_read
        if auto_reply is not None:
            record.auto_reply = auto_reply or None
        if name is not None:
            self.phone.settings.set_push_name(name)
        self._sandbox.core.world.save_account(account)
        self.phone.keys.save()
        self._settle()

    async def change_identity(self) -> None:
        """Register anew with other keys: companions are unlinked, and everybody who knows the account is told."""
        await trio.lowlevel.checkpoint()
        for companion in self.phone.account.companions:
            self._sandbox.core.pairing.remove(companion)
        self._sandbox.core.phones.change_identity(self.phone)
        self._settle()

    async def drop_sessions(self, other: str | None = None) -> int:
        """Lose sessions, all or those with one account, so that retries are needed."""
        await trio.lowlevel.checkpoint()
        return self.phone.keys.drop_sessions(self._account(other).lid if other else None)

    async def unlink(self, device_id: int) -> None:
        """Remove a companion."""
        await trio.lowlevel.checkpoint()
        device = self.phone.account.devices.get(device_id)
        if device is None:
            raise SandboxError(f"{self.number} has no device {device_id}", 404)
        self._sandbox.core.pairing.remove(device)
        self._settle()

    @property
    def contacts(self) -> dict[str, Contact]:
        """The address book in the app state, by number."""
        return self.phone.settings.contacts

    @property
    def chats(self) -> dict[str, ChatSettings]:
        """What the app state says about chats, by number."""
        return self.phone.settings.chats

    async def set_push_name(self, name: str) -> None:
        """Change the own name by app state."""
        await self._set(lambda settings: settings.set_push_name(name))

    async def set_contact(self, other: str, full_name: str, first_name: str | None = None) -> None:
        """Put somebody into the address book; the first name is the first word, if none is given."""
        account = self._account(other)
        await self._set(lambda settings: settings.set_contact(account, full_name, first_name))

    async def remove_contact(self, other: str) -> None:
        """Take somebody out of the address book."""
        account = self._account(other)
        await self._set(lambda settings: settings.remove_contact(account))

    async def mute(self, chat: str, until_ms: int | None = FOREVER) -> None:
        """Mute a chat until a time (unix ms), or for good with -1; None lets it sound again."""
        account = self._account(chat)
        await self._set(lambda settings: settings.mute(account, until_ms))

    async def pin(self, chat: str, pinned: bool = True) -> None:
        """Pin a chat, or unpin it."""
        account = self._account(chat)
        await self._set(lambda settings: settings.pin(account, pinned))

    async def archive(self, chat: str, archived: bool = True) -> None:
        """Archive a chat, or take it back."""
        account = self._account(chat)
        await self._set(lambda settings: settings.archive(account, archived))

    async def mark_read(self, chat: str, read: bool = True) -> None:
        """Mark a chat as read, or as unread."""
        account = self._account(chat)
        await self._set(lambda settings: settings.mark_read(account, read))

    async def star(self, chat: str, message_id: str, starred: bool = True) -> None:
        """Star a message, or take the star away."""
        account = self._account(chat)
        await self._set(lambda settings: settings.star(account, message_id, starred))

    async def share_keys(self, device_id: int | None = None) -> None:
        """Send the app-state keys to a companion again, or to all."""
        await trio.lowlevel.checkpoint()
        companions = self.phone.account.companions
        chosen = [one for one in companions if device_id in (None, one.id)]
        if not chosen:
            raise SandboxError(f"{self.number} has no companion {device_id or ''}".rstrip(), 404)
        for companion in chosen:
            self.phone.app_state.share(companion)
        self._settle()

    def messages(self, chat: str | None = None) -> list[ChatMessage]:
        """All messages the phone has sent or read, peer messages left out."""
        account = self._account(chat) if chat else None
        return [one for one in self.phone.messages(account) if one.kind != "peer"]

    async def wait_message(
        self, matches: Callable[[ChatMessage], bool], timeout_s: float = 30.0
    ) -> ChatMessage:
        """Wait until there is a message that matches; raises trio.TooSlowError."""
        found: list[ChatMessage] = []

        def look() -> bool:
            found[:] = [one for one in self.messages() if matches(one)]
            return bool(found)

        await self._sandbox.wait(look, timeout_s)
        return found[0]

    def _account(self, text: str) -> Account:
        jid = Node("x", {"jid": text}).jid("jid") if "@" in text else None
        directory = self._sandbox.core.world.directory
        account = directory.find(jid.bare) if jid else self._sandbox.core.phones.by_number(text).account
        if account is None:
            raise SandboxError(f"there is no account {text!r}", 404)
        return account

    async def _set(self, order: Callable[[PhoneSettings], None]) -> None:
        await trio.lowlevel.checkpoint()
        order(self.phone.settings)
        self._settle()

    def _settle(self) -> None:
        self._sandbox.core.settle()
