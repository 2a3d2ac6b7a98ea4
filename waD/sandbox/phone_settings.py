"""What the app state of an account says about its name, contacts and chats, and how its phone changes it.

Collections, versions and values: chapter 05 §4.15.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from waD.e2ee.syncd.mutations import Mutation, Operation
from waD.proto.appstate_pb2 import SyncActionValue
from waD.sandbox.errors import SandboxError
from waD.wire.jid import LID
from waD.wire.node import Node

if TYPE_CHECKING:
    from waD.sandbox.accounts import Account
    from waD.sandbox.phone import Phone
    from waD.sandbox.phone_content import ChatMessage
    from waD.sandbox.world import World

LOCALE: Final = "en_US"
PRIMARY_VERSION: Final = "2.25.1.1"
FOREVER: Final = -1

_WHERE: Final = {
    "setting_pushName": ("critical_block", 1),
    "setting_locale": ("critical_block", 3),
    "contact": ("critical_unblock_low", 2),
    "mute": ("regular_high", 2),
    "star": ("regular_high", 2),
    "archive": ("regular_low", 3),
    "markChatAsRead": ("regular_low", 3),
    "pin_v1": ("regular_low", 5),
    "setting_unarchiveChats": ("regular_low", 4),
    "android_unsupported_actions": ("regular_low", 4),
    "primary_version": ("regular_low", 7),
}
"""Collection and version of each action that a phone makes here."""

Entry = tuple[tuple[str, ...], SyncActionValue]


class ChatSettings(msgspec.Struct, rename="camel"):
    """Of one chat. `muted_until_ms` is None when it is not muted, -1 when it is for good."""

    muted_until_ms: int | None = None
    pinned: bool = False
    archived: bool = False
    marked_unread: bool = False
    starred: list[str] = []


class Contact(msgspec.Struct, rename="camel"):
    """An entry of the address book."""

    full_name: str
    first_name: str


class PhoneSettings:
    """Reads and writes entries of the app state. Every change raises SandboxError when it cannot be done."""

    def __init__(self, world: World, phone: Phone) -> None:
        self._world = world
        self._phone = phone

    @property
    def push_name(self) -> str | None:
        """The own name that companions find."""
        found = self._newest("setting_pushName")
        return found.pushNameSetting.name if found else None

    @property
    def contacts(self) -> dict[str, Contact]:
        """The address book, by number; by address for who is not in this sandbox."""
        found: dict[str, Contact] = {}
        for one in self._phone.app_state.entries("contact"):
            if one.value is not None and one.parts is not None and len(one.parts) > 1:
                action = one.value.contactAction
                found[self._name_of(one.parts[1])] = Contact(action.fullName, action.firstName)
        return found

    def chat(self, chat: Account) -> ChatSettings:
        """Settings of the chat with an account."""
        return self.chats.get(chat.number, ChatSettings())

    @property
    def chats(self) -> dict[str, ChatSettings]:
        """Settings of all chats that have some, by number; by address for who is not in this sandbox."""
        found: dict[str, ChatSettings] = {}
        entries = [one for action in _READERS for one in self._phone.app_state.entries(action)]
        for one in sorted(entries, key=_timestamp):
            if one.value is not None and one.parts is not None and len(one.parts) > 1:
                settings = found.setdefault(self._name_of(one.parts[1]), ChatSettings())
                _READERS[one.parts[0]](settings, one.parts, one.value)
        return found

    def view(self) -> dict[str, Any]:
        """All of it for people."""
        fields = {"pushName": self.push_name, "contacts": self.contacts, "chats": self.chats}
        return dict(msgspec.to_builtins(fields))

    def begin(self) -> None:
        """Write what a phone writes into a new account (chapter 05 §5.3)."""
        name, locale, unarchive, version, unsupported = (self._value() for _ in range(5))
        name.pushNameSetting.name = self._phone.account.record.name or self._phone.account.number
        locale.localeSetting.locale = LOCALE
        unarchive.unarchiveChatsSetting.unarchiveChats = False
        version.primaryVersionAction.version = PRIMARY_VERSION
        unsupported.androidUnsupportedActions.allowed = True
        self._set((("setting_pushName",), name), (("setting_locale",), locale))
        self._set(
            (("setting_unarchiveChats",), unarchive),
            (("primary_version", "current"), version),
            (("android_unsupported_actions",), unsupported),
        )

    def changed(self, mutations: Iterable[Mutation]) -> None:
        """Mutations were applied, own ones or a companion's: the account has the name that is set there."""
        for one in mutations:
            named = one.parts == ("setting_pushName",) and one.operation is Operation.SET
            if named and one.value is not None and one.value.pushNameSetting.name:
                self._phone.account.record.name = one.value.pushNameSetting.name
                self._world.save_account(self._phone.account)

    def set_push_name(self, name: str) -> None:
        """Change the own name."""
        if not name:
            raise SandboxError("a push name is not empty")
        value = self._value()
        value.pushNameSetting.name = name
        self._set((("setting_pushName",), value))

    def set_contact(self, other: Account, full_name: str, first_name: str | None = None) -> None:
        """Put somebody into the address book."""
        value = self._value()
        action = value.contactAction
        action.fullName, action.lidJid = full_name, str(other.lid_jid)
        action.firstName = full_name.partition(" ")[0] if first_name is None else first_name
        action.saveOnPrimaryAddressbook = True
        self._set((("contact", str(other.pn_jid)), value))

    def remove_contact(self, other: Account) -> None:
        """Take somebody out of the address book."""
        self._phone.app_state.remove(_WHERE["contact"][0], ["contact", str(other.pn_jid)])

    def mute(self, chat: Account, until_ms: int | None = FOREVER) -> None:
        """Mute a chat until a time, or for good with -1; None lets it sound again."""
        value = self._value()
        value.muteAction.muted = until_ms is not None
        if until_ms is not None:
            value.muteAction.muteEndTimestamp = until_ms
        self._set((("mute", self._address(chat)), value))

    def pin(self, chat: Account, pinned: bool = True) -> None:
        """Pin a chat, or unpin it."""
        self._set(self._pin(chat, pinned))

    def archive(self, chat: Account, archived: bool = True) -> None:
        """Archive a chat, which unpins it, or take it back."""
        value = self._value()
        value.archiveChatAction.archived = archived
        self._fill_range(value.archiveChatAction.messageRange, chat)
        entry = (("archive", self._address(chat)), value)
        self._set(entry, self._pin(chat, False)) if archived else self._set(entry)

    def mark_read(self, chat: Account, read: bool = True) -> None:
        """Mark a chat as read, or as unread."""
        value = self._value()
        value.markChatAsReadAction.read = read
        self._fill_range(value.markChatAsReadAction.messageRange, chat)
        self._set((("markChatAsRead", self._address(chat)), value))

    def star(self, chat: Account, message_id: str, starred: bool = True) -> None:
        """Star a message, or take the star away."""
        message = next((one for one in self._phone.messages(chat) if one.id == message_id), None)
        if message is None:
            raise SandboxError(f"there is no message {message_id} in the chat with {chat.number}", 404)
        value = self._value()
        value.starAction.starred = starred
        self._set((("star", self._address(chat), message.id, "1" if message.from_me else "0", "0"), value))

    def _set(self, *entries: Entry) -> None:
        """Set entries of one collection in one patch."""
        collection = _WHERE[entries[0][0][0]][0]
        changes = [(index, _WHERE[index[0]][1], value) for index, value in entries]
        self._phone.app_state.change(collection, changes)

    def _pin(self, chat: Account, pinned: bool) -> Entry:
        value = self._value()
        value.pinAction.pinned = pinned
        return ("pin_v1", self._address(chat)), value

    def _value(self) -> SyncActionValue:
        return SyncActionValue(timestamp=self._world.now_ms)

    def _address(self, chat: Account) -> str:
        return str(chat.jid(lid=self._phone.account.record.addressing == LID))

    def _fill_range(self, target: SyncActionValue.SyncActionMessageRange, chat: Account) -> None:
        """The last message that the phone knows of a chat, which is what the action is about."""
        messages: list[ChatMessage] = [one for one in self._phone.messages(chat) if one.kind != "peer"]
        if not messages:
            return
        last = messages[-1]
        target.lastMessageTimestamp = last.t
        entry = target.messages.add(timestamp=last.t)
        entry.key.remoteJid, entry.key.fromMe, entry.key.id = self._address(chat), last.from_me, last.id

    def _name_of(self, text: str) -> str:
        account = self._phone.directory.find(Node("x", {"jid": text}).jid("jid"))
        return account.number if account else text

    def _newest(self, action: str) -> SyncActionValue | None:
        found = max(self._phone.app_state.entries(action), key=_timestamp, default=None)
        return found.value if found else None


def _timestamp(entry: Mutation) -> int:
    return entry.value.timestamp if entry.value else 0


def _read_mute(settings: ChatSettings, _index: tuple[str, ...], value: SyncActionValue) -> None:
    action = value.muteAction
    settings.muted_until_ms = action.muteEndTimestamp if action.muted else None


def _read_pin(settings: ChatSettings, _index: tuple[str, ...], value: SyncActionValue) -> None:
    settings.pinned = value.pinAction.pinned


def _read_archive(settings: ChatSettings, _index: tuple[str, ...], value: SyncActionValue) -> None:
    settings.archived = value.archiveChatAction.archived


def _read_mark(settings: ChatSettings, _index: tuple[str, ...], value: SyncActionValue) -> None:
    settings.marked_unread = not value.markChatAsReadAction.read


def _read_star(settings: ChatSettings, index: tuple[str, ...], value: SyncActionValue) -> None:
    message_id = index[2] if len(index) > 2 else ""
    settings.starred = [one for one in settings.starred if one != message_id]
    if value.starAction.starred:
        settings.starred.append(message_id)


_READERS: Final = {
    "mute": _read_mute,
    "pin_v1": _read_pin,
    "archive": _read_archive,
    "markChatAsRead": _read_mark,
    "star": _read_star,
}
