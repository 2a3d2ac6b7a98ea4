"""A simulated phone: device 0 of an account, a full participant without a socket (chapter 07 §3)."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Final, Protocol

import msgspec
from google.protobuf.message import DecodeError

from waD.e2ee import adv, curve
from waD.e2ee.address import DOMAIN_LID, SignalAddress
from waD.e2ee.errors import SignalError
from waD.e2ee.padding import PaddingError, pad, unpad
from waD.proto.appstate_pb2 import ExternalBlobReference
from waD.proto.e2e_pb2 import Message
from waD.sandbox.accounts import Account, Device, Directory
from waD.sandbox.errors import SandboxError
from waD.sandbox.phone_appstate import PhoneAppState
from waD.sandbox.phone_content import (
    DELIVERED,
    PLAYED,
    READ,
    SENT,
    ChatMessage,
    kind_of,
    start_up_history,
    text_message,
    text_of,
)
from waD.sandbox.phone_keys import PhoneKeys
from waD.sandbox.phone_requests import answer_request
from waD.sandbox.phone_settings import PhoneSettings
from waD.sandbox.router import receipt_ids
from waD.sandbox.world import World
from waD.wire.jid import JID, LID
from waD.wire.node import Node, Value

MESSAGES_KEPT: Final = 20_000
MAX_RETRIES: Final = 5
ID_PREFIX: Final = "3EB0"
ID_BYTES: Final = 9
SECRET_LENGTH: Final = 32
"""Of what comes with each message, for votes on it and edits (chapter 04 §9.1)."""
HISTORY_PER_CHAT: Final = 50
_STATUS_OF: Final = {
    None: DELIVERED,
    "read": READ,
    "read-self": READ,
    "played": PLAYED,
    "played-self": PLAYED,
}


class Network(Protocol):
    """What a phone can do to the rest of the sandbox."""

    def message(self, sender: Device, node: Node) -> Node | None:
        """Send a message; returns its ack."""

    def receipt(self, sender: Device, node: Node) -> Node | None:
        """Send a receipt."""

    def bundle(self, device: Device) -> list[Node]:
        """Fetch a device's prekey bundle."""

    def sync(self, device: Device, iq: Node) -> list[Node]:
        """Download or upload app state."""

    def load(self, reference: ExternalBlobReference) -> bytes:
        """Open a file of the app state; raises SandboxError."""


class Phone:
    """Chats, keys and habits of one phone.

    Attributes:
        app_state: the account's app state as this phone has it.
        settings: what it says about names, contacts and chats.
    """

    def __init__(self, world: World, network: Network, account: Account, keys: PhoneKeys) -> None:
        self._world = world
        self._network = network
        self.account = account
        self.keys = keys
        self._messages: OrderedDict[tuple[str, str], ChatMessage] = OrderedDict()
        self._by_id: dict[str, ChatMessage] = {}
        self._position = 0
        self._retries: dict[tuple[str, str], int] = {}
        self._resend_notes: dict[tuple[str, str], bytes] = {}
        self.requests: list[dict[str, Any]] = []
        self.failures: list[dict[str, Any]] = []
        self.app_state = PhoneAppState(world, network, self)
        self.settings = PhoneSettings(world, self)

    @property
    def device(self) -> Device:
        """The device 0 this phone is."""
        return self.account.phone

    @property
    def directory(self) -> Directory:
        """All accounts of the sandbox."""
        return self._world.directory

    def messages(self, chat: Account | None = None) -> list[ChatMessage]:
        """All messages, or those of one chat, in order."""
        return [one for one in self._messages.values() if chat is None or one.chat == chat.number]

    def message(self, message_id: str) -> ChatMessage | None:
        """A message by its id, the newest if several chats have one with it."""
        return self._by_id.get(message_id)

    def new_id(self) -> str:
        """A fresh message id."""
        return ID_PREFIX + self._world.random(ID_BYTES).hex().upper()

    def send_text(
        self, to: Account, text: str, *, message_id: str | None = None, quote: str | None = None
    ) -> ChatMessage:
        """Send a text to every device of an account, with copies for the own companions."""
        quoted = self._messages.get((to.number, quote)) if quote else None
        if quote and quoted is None:
            raise SandboxError(f"there is no message {quote} in the chat with {to.number}", 404)
        author = "" if quoted is None else str((self.account if quoted.from_me else to).lid_jid)
        message = text_message(text, quoted, author)
        message.messageContextInfo.messageSecret = self._world.random(SECRET_LENGTH)
        return self.send(to, message, message_id=message_id)

    def send(self, to: Account, message: Message, *, message_id: str | None = None) -> ChatMessage:
        """Encrypt a message for each device and send it; what is returned shows the server's answer."""
        message_id = message_id or self.new_id()
        lid = self.account.record.addressing == LID
        body = message.SerializeToString()
        theirs = [] if to is self.account else list(to.devices.values())
        entries = self._entries(theirs, body, lid=lid)
        copy = Message()
        copy.deviceSentMessage.destinationJid = str(to.jid(lid=lid))
        copy.deviceSentMessage.message.CopyFrom(message)
        entries += self._entries(self.account.companions, copy.SerializeToString(), lid=lid)
        stored = ChatMessage(
            message_id,
            to.number,
            self.device.key,
            True,
            text_of(message),
            kind_of(message),
            self._world.now_s,
        )
        stored.body = body
        if entries:
            attrs: dict[str, Value] = {"id": message_id, "to": to.jid(lid=lid), "type": "text"}
            node = Node("message", attrs, [Node("participants", content=entries)])
            ack = self._network.message(self.device, node)
            stored.error = ack.text("error") if ack else "no answer"
            if stored.error is not None:
                stored.status = 0
        self._keep(stored)
        return stored

    def send_peer(self, companion: Device, message: Message, message_id: str | None = None) -> str:
        """Send a peer message to one own companion."""
        message_id = message_id or self.new_id()
        stored = ChatMessage(
            message_id, self.account.number, self.device.key, True, None, "peer", self._world.now_s
        )
        stored.body = message.SerializeToString()
        self._keep(stored)
        self._send_peer_bytes(companion, stored, count=None)
        return message_id

    def read(self, chat: Account, ids: list[str], kind: str = "read") -> None:
        """Send read receipts for received messages of a chat."""
        if not ids:
            raise SandboxError("no message ids")
        attrs: dict[str, Value] = {
            "id": ids[0],
            "to": chat.jid(lid=self.account.record.addressing == LID),
            "type": kind,
            "t": str(self._world.now_s),
        }
        items = [Node("item", {"id": one}) for one in ids[1:]]
        content = [Node("list", content=items)] if items else None
        self._network.receipt(self.device, Node("receipt", attrs, content))

    def start_companion(self, companion: Device) -> None:
        """Send what a phone sends after a companion's first login, key share first (chapter 05 §5.2)."""
        self.app_state.share(companion)
        contacts = [
            other
            for number in self.account.record.contacts
            if (other := self._world.directory.by_number(number)) is not None
        ]
        chats = {other: self._history(other) for other in contacts}
        chats = {other: messages for other, messages in chats.items() if messages}
        for message in start_up_history(self.account, contacts, chats):
            self.send_peer(companion, message)

    def drain(self) -> None:
        """Take in everything that is queued, unless the phone is off."""
        if not self.keys.record.online:
            return
        self.app_state.renew_key()
        for item in self.device.queue:
            if item.expires_ms is not None and item.expires_ms < self._world.now_ms:
                self._world.remove_item(self.device, item)
                continue
            item.sent += 1
            self._world.deliveries.note(self.device.key, item.stanza.tag, item.stanza.text("id") or "")
            self._take(item.stanza)
            self._world.remove_item(self.device, item)

    def restore_messages(self, rows: list[bytes]) -> None:
        """Put journalled messages back, oldest first."""
        messages = [msgspec.msgpack.decode(row, type=ChatMessage) for row in rows]
        for message in sorted(messages, key=lambda one: one.position):
            self._messages[(message.chat, message.id)] = message
            self._by_id[message.id] = message
            self._position = message.position

    def view(self) -> dict[str, Any]:
        """The phone for people."""
        return {
            **self.account.view(),
            "online": self.keys.record.online,
            "autoRead": self.keys.record.auto_read,
            "autoReply": self.keys.record.auto_reply,
            "messages": len(self._messages),
            "appState": self.app_state.versions(),
            "identity": curve.fingerprint(self.keys.identity.public),
        }

    def _entries(self, devices: list[Device], body: bytes, *, lid: bool) -> list[Node]:
        if not devices:
            return []
        padded = pad(body, self._world.random(1)[0])
        entries = []
        for device in devices:
            kind, data = self._encrypt(device, padded)
            enc = Node("enc", {"v": "2", "type": kind}, data)
            entries.append(Node("to", {"jid": device.jid(lid=lid)}, [enc]))
        return entries

    def _encrypt(self, device: Device, padded: bytes) -> tuple[str, bytes]:
        if not self.keys.has_session(device):
            try:
                self.keys.start_session(device, self._network.bundle(device))
            except (SignalError, adv.AdvError) as error:
                raise SandboxError(f"no session with {device.key}: {error}", 409) from error
        return self.keys.encrypt(device, padded)

    def _send_peer_bytes(self, companion: Device, stored: ChatMessage, count: str | None) -> None:
        kind, data = self._encrypt(companion, pad(stored.body, self._world.random(1)[0]))
        enc_attrs: dict[str, Value] = {"v": "2", "type": kind}
        if count is not None:
            enc_attrs["count"] = count
        attrs: dict[str, Value] = {
            "id": stored.id,
            "to": companion.jid(lid=self.account.record.addressing == LID),
            "type": "text",
            "category": "peer",
            "push_priority": "high",
        }
        self._network.message(self.device, Node("message", attrs, [Node("enc", enc_attrs, data)]))

    def _take(self, stanza: Node) -> None:
        if stanza.tag == "message":
            self._take_message(stanza)
        elif stanza.tag == "receipt":
            self._take_receipt(stanza)
        elif stanza.tag == "notification" and stanza.text("type") == "server_sync":
            self.app_state.notified(stanza)

    def _take_message(self, stanza: Node) -> None:
        sender = stanza.jid("from")
        account = self._world.directory.find(sender)
        if account is None or sender is None:
            return
        address = SignalAddress(account.lid, DOMAIN_LID, sender.device).text
        plaintext: bytes | None = None
        try:
            for enc in stanza.children("enc"):
                plaintext = unpad(self.keys.decrypt(address, enc.text("type") or "", enc.data))
            message = Message.FromString(plaintext or b"")
        except SignalError as error:
            self._could_not_read(stanza, sender, account, error)
            return
        except (PaddingError, DecodeError) as error:
            self._fail(stanza, str(error))
            return
        if account is self.account:
            self._take_own(stanza, sender, message)
        else:
            self._take_foreign(stanza, account, sender, message)

    def _take_own(self, stanza: Node, sender: JID, message: Message) -> None:
        peer = stanza.text("category") == "peer"
        attrs: dict[str, Value] = {
            "id": stanza.attrs["id"],
            "to": sender,
            "type": "peer_msg" if peer else "sender",
        }
        if not peer and (recipient := stanza.jid("recipient")) is not None:
            attrs["recipient"] = recipient.bare
        self._network.receipt(self.device, Node("receipt", attrs))
        if peer:
            companion = self.account.devices.get(sender.device)
            if companion is not None:
                answer_request(self, companion, str(stanza.attrs["id"]), message)
            return
        if not message.HasField("deviceSentMessage"):
            self._fail(stanza, "a copy without deviceSentMessage")
            return
        inner = message.deviceSentMessage.message
        chat = self._world.directory.find(_jid(message.deviceSentMessage.destinationJid))
        if chat is None:
            self._fail(stanza, "a copy of a message to nobody")
            return
        self._store(stanza, chat, f"{self.account.number}:{sender.device}", inner, from_me=True)

    def _take_foreign(self, stanza: Node, account: Account, sender: JID, message: Message) -> None:
        attrs: dict[str, Value] = {"id": stanza.attrs["id"], "to": sender}
        self._network.receipt(self.device, Node("receipt", attrs))
        stored = self._store(stanza, account, f"{account.number}:{sender.device}", message, from_me=False)
        record = self.keys.record
        if stored is None or stored.copies > 1:
            return
        if record.auto_read:
            self.read(account, [stored.id])
        if record.auto_reply is not None and stored.text is not None and sender.device:
            self.send_text(account, record.auto_reply.replace("{text}", stored.text))

    def _store(
        self, stanza: Node, chat: Account, sender: str, message: Message, *, from_me: bool
    ) -> ChatMessage | None:
        message_id = str(stanza.attrs["id"])
        known = self._messages.get((chat.number, message_id))
        if known is not None:
            known.copies += 1
            return known
        stored = ChatMessage(
            message_id, chat.number, sender, from_me, text_of(message), kind_of(message), stanza.int("t") or 0
        )
        stored.body = message.SerializeToString()
        self._keep(stored)
        return stored

    def _could_not_read(self, stanza: Node, sender: JID, account: Account, error: SignalError) -> None:
        if error.code == "duplicate":
            attrs: dict[str, Value] = {"id": stanza.attrs["id"], "to": sender}
            self._network.receipt(self.device, Node("receipt", attrs))
            return
        self._fail(stanza, str(error))
        message_id = str(stanza.attrs["id"])
        counter = (str(sender), message_id)
        own = [enc.int("count") or 0 for enc in stanza.children("enc")]
        count = max(self._retries.get(counter, 0), *own, 0) + 1
        if count > MAX_RETRIES:
            return
        self._retries[counter] = count
        self._network.receipt(self.device, self._retry_receipt(stanza, sender, account, count))

    def _retry_receipt(self, stanza: Node, sender: JID, account: Account, count: int) -> Node:
        attrs: dict[str, Value] = {"id": stanza.attrs["id"], "to": sender, "type": "retry"}
        recipient = stanza.jid("recipient")
        if account is self.account and recipient is not None:
            attrs["recipient"] = recipient
        if stanza.text("category") == "peer":
            attrs["category"] = "peer"
        retry: dict[str, Value] = {
            "count": str(count),
            "id": stanza.attrs["id"],
            "t": stanza.attrs.get("t", "0"),
            "v": "1",
        }
        registration = self.keys.record.registration_id.to_bytes(4, "big")
        children = [Node("retry", retry), Node("registration", content=registration)]
        if count > 1:
            children.append(self.keys.fresh_retry_keys(self.device.record.keys))
        return Node("receipt", attrs, children)

    def _take_receipt(self, stanza: Node) -> None:
        sender = stanza.jid("from")
        if sender is None:
            return
        kind = stanza.text("type")
        if kind == "retry":
            requester = self._world.directory.device(sender)
            if requester is not None:
                self._resend(stanza, requester)
            return
        status = _STATUS_OF.get(kind)
        for message_id in receipt_ids(stanza):
            stored = self.message(message_id)
            if stored is None:
                continue
            stored.receipts[str(sender)] = kind or "delivered"
            if status is not None and stored.from_me and stored.status:
                stored.status = max(stored.status, status)
            self._save(stored)

    def _resend(self, stanza: Node, requester: Device) -> None:
        """Answer a retry receipt (chapter 03 §7.4)."""
        retry = stanza.child("retry")
        stored = self.message(stanza.text("id") or "")
        count = (retry.int("count") if retry else None) or 1
        if stored is None or count >= MAX_RETRIES or not self._may_ask(stored, requester):
            return
        if not self._prepare_session(stanza, requester, stored, count):
            return
        if stored.kind == "peer":
            self._send_peer_bytes(requester, stored, str(count))
            return
        chat = self._world.directory.by_number(stored.chat)
        if chat is None:
            return
        lid = self.account.record.addressing == LID
        message = Message.FromString(stored.body)
        attrs: dict[str, Value] = {"id": stored.id, "to": requester.jid(lid=lid), "type": "text"}
        if requester.account is self.account:
            copy = Message()
            copy.deviceSentMessage.destinationJid = str(chat.jid(lid=lid))
            copy.deviceSentMessage.message.CopyFrom(message)
            message, attrs["recipient"] = copy, chat.jid(lid=lid)
        padded = pad(message.SerializeToString(), self._world.random(1)[0])
        kind, data = self._encrypt(requester, padded)
        enc = Node("enc", {"v": "2", "type": kind, "count": str(count)}, data)
        self._network.message(self.device, Node("message", attrs, [enc]))

    def _prepare_session(self, stanza: Node, requester: Device, stored: ChatMessage, count: int) -> bool:
        """Repair the session before a resend; False when the asker's keys are not acceptable."""
        keys, registration = stanza.child("keys"), stanza.child("registration")
        if keys is not None and registration is not None:
            try:
                self.keys.start_session(requester, [registration, *keys.children()])
            except (SignalError, adv.AdvError) as error:
                self._fail(stanza, f"the keys of a retry receipt: {error}")
                return False
            return True
        known = self.keys.remote_registration(requester)
        told = int.from_bytes(registration.data, "big") if registration is not None else 0
        note = (requester.key, stored.id)
        if (known and told and known != told) or count > 1 or note in self._resend_notes:
            self.keys.archive(requester)
        self._resend_notes[note] = b""
        return True

    def _may_ask(self, stored: ChatMessage, requester: Device) -> bool:
        return requester.account is self.account or requester.account.number == stored.chat

    def _history(self, chat: Account) -> list[ChatMessage]:
        kept = [one for one in self.messages(chat) if one.kind != "peer"]
        return kept[-HISTORY_PER_CHAT:]

    def _keep(self, message: ChatMessage) -> None:
        key = (message.chat, message.id)
        self._position += 1
        message.position = self._position
        self._messages[key] = message
        self._by_id[message.id] = message
        self._save(message)
        if len(self._messages) > MESSAGES_KEPT:
            old, oldest = self._messages.popitem(last=False)
            if self._by_id.get(oldest.id) is oldest:
                del self._by_id[oldest.id]
            self._world.journal.delete("message", f"{self.account.number}|{old[0]}|{old[1]}")

    def _save(self, message: ChatMessage) -> None:
        if self._world.journal.enabled:
            key = f"{self.account.number}|{message.chat}|{message.id}"
            self._world.journal.put("message", key, msgspec.msgpack.encode(message))

    def _fail(self, stanza: Node, reason: str) -> None:
        self.failures.append({"id": stanza.text("id"), "from": stanza.text("from"), "reason": reason})


def _jid(text: str) -> JID | None:
    return Node("x", {"jid": text}).jid("jid")


__all__ = ["SENT", "Network", "Phone"]
