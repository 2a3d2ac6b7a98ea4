"""The sandbox server without input and output: links in, stanzas in, stanzas out (chapter 07)."""

from __future__ import annotations

import itertools
from typing import Final

from google.protobuf.message import DecodeError

from waD.e2ee import curve
from waD.e2ee.errors import SignalError
from waD.e2ee.messages import MAC_LENGTH, parse_prekey_message
from waD.proto.payload_pb2 import ClientPayload, DeviceProps
from waD.sandbox.accounts import Device
from waD.sandbox.appstate import AppState
from waD.sandbox.blobs import AppStateBlobs
from waD.sandbox.encryption import Encryption
from waD.sandbox.environment import Environment, Settings
from waD.sandbox.errors import IqError, SandboxError
from waD.sandbox.faults import NOW, Fault
from waD.sandbox.iqs import Iqs, error_reply, is_ping, result
from waD.sandbox.journal import Journal
from waD.sandbox.links import PROTOCOL_ERROR, Link, Output
from waD.sandbox.media import Media
from waD.sandbox.pairing import Pairing
from waD.sandbox.phones import Phones
from waD.sandbox.presence import PresenceService
from waD.sandbox.queues import Item
from waD.sandbox.router import Router
from waD.sandbox.usync import Usync
from waD.sandbox.world import World
from waD.wire.jid import SERVER
from waD.wire.node import Node, Value

MAX_PAYLOAD: Final = 65_536
BUILD_HASH_LENGTH: Final = 16
LOCATION: Final = "sandbox"
ENC_STATIC: Final = "c2FuZGJveA=="
MAX_PHONE_ROUNDS: Final = 100_000
_PREVIEWED: Final = ("message", "notification", "receipt", "call")


class Network:
    """Router, key server and app state as phones see them."""

    def __init__(self, router: Router, encryption: Encryption, app_state: AppState) -> None:
        self.message = router.message
        self.receipt = router.receipt
        self.bundle = encryption.bundle
        self.sync = app_state.sync
        self.load = app_state.load


class Core:
    """Everything a sandbox does; the shell only carries bytes.

    When a public method returns, what the phones do because of it has happened too.
    """

    def __init__(
        self,
        environment: Environment | None = None,
        settings: Settings | None = None,
        journal: Journal | None = None,
    ) -> None:
        self.world = World(environment, settings, journal)
        self.router = Router(self.world)
        self.encryption = Encryption(self.world, self._uploaded, self._refill)
        self.app_state = AppState(self.world)
        self.phones = Phones(self.world, Network(self.router, self.encryption, self.app_state))
        self.app_state.reseal = self.phones.reseal
        self.presence = PresenceService(self.world)
        self.pairing = Pairing(self.world, self.phones, self._removed)
        usync = Usync(self.world, self.phones.key_index_list)
        self.media = Media(self.world)
        self.app_state.blobs = AppStateBlobs(self.media)
        self.iqs = Iqs(
            self.world, self.encryption, self.pairing, usync, self.app_state, self.media, self._activate
        )
        self._numbers = itertools.count(1)

    def open_link(self, client_static: bytes, payload: bytes) -> Link:
        """A client finished its handshake: begin its pairing or log it in."""
        link = Link(next(self._numbers), client_static)
        self.world.links[link.number] = link
        parsed = _parse_payload(payload)
        if parsed is None:
            self._fail(link, 400)
        elif parsed.HasField("devicePairingData"):
            self._begin_pairing(link, parsed)
        else:
            self._log_in(link, parsed)
        self.settle()
        return link

    def receive(self, link: Link, node: Node) -> None:
        """A stanza of a client."""
        device = link.device
        self.world.note_traffic("in", device.key if device else f"link {link.number}", node)
        if device is None:
            self._receive_unpaired(link, node)
        elif device.link is link:
            self._receive_paired(link, device, node)
        self.settle()

    def undecodable(self, link: Link, reason: str) -> None:
        """A client sent a frame that is not a node."""
        self.world.complain(link.device, f"an undecodable frame: {reason}")
        link.send(Node("stream:error", content=[Node("xml-not-well-formed")]))
        link.close(PROTOCOL_ERROR)

    def link_closed(self, link: Link) -> None:
        """The connection of a link is gone."""
        link.closed = True
        self.world.links.pop(link.number, None)
        self.pairing.link_gone(link)
        device = link.device
        if device is not None and device.link is link:
            device.link = None
            device.record.last_seen_ms = self.world.now_ms
            self.presence.link_gone(device, link)
        if link.held is not None:
            link.held = None
        self.settle()

    def next_output(self, link: Link) -> Output | None:
        """What is to be written next: answers first, then the queue in order, then presence."""
        if link.stalled_sending:
            return None
        output = link.next_output(self.world.now_ms)
        idle = output is None and not link.closed
        if idle and link.active and link.device is not None and not link.stalled_queue:
            output = self._next_pushed(link, link.device)
        if isinstance(output, Node):
            who = link.device.key if link.device else f"link {link.number}"
            self.world.note_traffic("out", who, output)
        return output

    def settle(self) -> None:
        """Let the phones work until they have nothing to do."""
        work = self.world.phone_work
        for _ in range(MAX_PHONE_ROUNDS):
            if not work:
                break
            device = work.popleft()
            self.phones.of(device.account).drain()
        if self.world.on_settled is not None:
            self.world.on_settled()

    def apply(self, fault: Fault) -> Fault:
        """Arm a fault, or do it at once; raises SandboxError."""
        faults = self.world.faults
        faults.check(fault)
        if fault.kind not in NOW:
            return faults.arm(fault)
        devices = [
            device for account in self.world.directory for device in account.companions if fault.hits(device)
        ]
        if not devices:
            raise SandboxError(f"there is no companion {fault.target!r}", 404)
        for device in devices:
            self._apply_now(fault, device)
        self.settle()
        return fault

    def drop(self, device: Device, *, frame: bool) -> bool:
        """End a device's connection; False when it has none."""
        link = device.link
        if link is None:
            return False
        if frame:
            link.close()
        else:
            link.cut()
        return True

    def _uploaded(self, device: Device) -> None:
        self.phones.companion_uploaded(device)

    def _refill(self, device: Device) -> None:
        self.phones.refill(device)

    def _removed(self, device: Device) -> None:
        if device.link is not None:
            self.presence.link_gone(device, device.link)
            device.link.device = None
            device.link = None

    def _begin_pairing(self, link: Link, payload: ClientPayload) -> None:
        if not _registration_is_sound(payload):
            self._fail(link, 400)
            return
        fault = self.world.faults.take("failure")
        if fault is not None:
            self._fail(link, fault.code or 500, fault.attrs)
            return
        self.pairing.begin(link, payload)

    def _log_in(self, link: Link, payload: ClientPayload) -> None:
        account = self.world.directory.by_number(str(payload.username))
        device = account.devices.get(payload.device) if account and payload.HasField("device") else None
        if device is None or device.is_phone or device.record.noise_key != link.client_static:
            self._fail(link, 401)
            return
        fault = self.world.faults.take("failure", device)
        if fault is not None:
            self._fail(link, fault.code or 500, fault.attrs)
            return
        if device.link is not None:
            self._replace(device.link, device)
        link.device, device.link = device, link
        device.record.logins += 1
        if payload.pushName and payload.pushName != device.account.record.name:
            device.account.record.name = payload.pushName
            self.world.save_account(device.account)
        self.world.save_device(device)
        self._welcome(link, device)
        if not payload.passive:
            self._activate(link)

    def _welcome(self, link: Link, device: Device) -> None:
        success: dict[str, Value] = {
            "t": str(self.world.now_s),
            "lid": device.lid,
            "location": LOCATION,
            "abprops": "1",
            "companion_enc_static": ENC_STATIC,
            "creation": str(device.record.paired_ms // 1000),
            "props": "27",
        }
        link.send(Node("success", success))
        counts = device.queue.counts()
        total = sum(counts.get(tag, 0) for tag in _PREVIEWED)
        if total:
            preview: dict[str, Value] = {"count": str(total), "appdata": "0"}
            preview.update({tag: str(counts.get(tag, 0)) for tag in _PREVIEWED})
            link.send(Node("ib", {"from": SERVER}, [Node("offline_preview", preview)]))
        link.offline_done = False

    def _replace(self, old: Link, device: Device) -> None:
        old.send(Node("stream:error", content=[Node("conflict", {"type": "replaced"})]))
        old.send(Node("xmlstreamend"))
        old.close()
        self.presence.link_gone(device, old)
        old.device = None
        device.link = None

    def _activate(self, link: Link) -> None:
        if link.active or link.device is None:
            return
        link.active = True
        link.boundary = link.device.queue.last_seq
        if self.world.settings.batch:
            link.credit = 0
        self.presence.link_active(link.device, link)
        link.wake()

    def _fail(self, link: Link, reason: int, attrs: dict[str, str] | None = None) -> None:
        failure: dict[str, Value] = {"reason": str(reason), "location": LOCATION, **(attrs or {})}
        link.send(Node("failure", failure))
        link.close()

    def _receive_unpaired(self, link: Link, node: Node) -> None:
        if node.tag != "iq" or link.closed:
            return
        if node.text("type") in ("result", "error"):
            self.pairing.from_unpaired(link, node)
        elif "id" not in node.attrs:
            return
        elif is_ping(node):
            link.send(result(node, [], self.world.now_s))
        else:
            link.send(error_reply(node, IqError(501, "feature-not-implemented")))

    def _receive_paired(self, link: Link, device: Device, node: Node) -> None:
        if node.tag == "message":
            self._send_ack(link, device, self.router.message(device, node))
        elif node.tag == "receipt":
            ack = self.router.receipt(device, node)
            if ack is not None:
                link.send(ack)
        elif node.tag == "ack":
            self.router.client_ack(device, node)
        elif node.tag == "iq":
            self.iqs.answer(link, node)
        elif node.tag == "presence":
            self.presence.presence(device, node)
        elif node.tag == "chatstate":
            self.presence.chatstate(device, node)
        elif node.tag == "call":
            self._call(link, device, node)
        elif node.tag == "ib":
            self._bulletin(link, node)
        else:
            self.world.complain(device, f"an unknown stanza <{node.tag[:64]}>")

    def _send_ack(self, link: Link, device: Device, ack: Node | None) -> None:
        if ack is None:
            return
        faults = self.world.faults
        if faults.take("drop-ack", device) is not None:
            return
        delay = faults.take("delay-ack", device)
        link.send(ack, self.world.now_ms + delay.delay_ms if delay is not None else None)

    def _call(self, link: Link, device: Device, node: Node) -> None:
        """Calls are acked and go nowhere: nobody here has ears."""
        if "id" in node.attrs and "to" in node.attrs:
            link.send(Node("ack", {"class": "call", "id": node.attrs["id"], "from": node.attrs["to"]}))
        else:
            self.world.complain(device, "a call without id or to")

    def _bulletin(self, link: Link, node: Node) -> None:
        batch = node.child("offline_batch")
        if batch is not None and link.credit is not None:
            link.credit += batch.int("count") or 0
            link.wake()

    def _next_pushed(self, link: Link, device: Device) -> Node | None:
        item = self._next_item(link, device)
        if item is not None:
            return self._deliver(link, device, item)
        if not link.offline_done and link.cursor >= self._end_of_backlog(link, device):
            link.offline_done = True
            return Node("ib", {"from": SERVER}, [Node("offline", {"count": str(link.offline_sent)})])
        if link.presence and link.offline_done:
            return link.presence.pop(next(iter(link.presence)))
        return None

    def _end_of_backlog(self, link: Link, device: Device) -> int:
        """Position up to which the backlog reaches; what was acked or expired meanwhile is not waited for."""
        item = device.queue.after(link.cursor)
        return link.cursor if item is None or item.seq > link.boundary else item.seq

    def _next_item(self, link: Link, device: Device) -> Item | None:
        if link.held is not None:
            held, link.held = link.held, None
            return held
        while (item := device.queue.after(link.cursor)) is not None:
            backlog = item.seq <= link.boundary
            if not backlog and not link.offline_done:
                return None
            if backlog and link.credit is not None:
                if link.credit <= 0:
                    return None
                link.credit -= 1
            link.cursor = item.seq
            if item.expires_ms is not None and item.expires_ms < self.world.now_ms:
                self.world.remove_item(device, item)
                continue
            return self._reordered(link, device, item)
        return None

    def _reordered(self, link: Link, device: Device, item: Item) -> Item:
        following = device.queue.after(item.seq)
        if following is None or self.world.faults.take("reorder", device) is None:
            return item
        link.cursor, link.held = following.seq, item
        return following

    def _deliver(self, link: Link, device: Device, item: Item) -> Node:
        item.sent += 1
        stanza = item.stanza
        self.world.deliveries.note(device.key, stanza.tag, stanza.text("id") or "")
        if item.seq <= link.boundary and stanza.tag in _PREVIEWED:
            link.offline_sent += 1
            stanza = Node(stanza.tag, {**stanza.attrs, "offline": str(link.offline_sent)}, stanza.content)
        if not item.needs_ack:
            self.world.remove_item(device, item)
        if stanza.tag == "message" and self.world.faults.take("corrupt-enc", device) is not None:
            stanza = _corrupted(stanza)
        if self.world.faults.take("duplicate", device) is not None:
            link.send(stanza)
        return stanza

    def _apply_now(self, fault: Fault, device: Device) -> None:
        fault.fired += 1
        if fault.kind == "unlink":
            self.pairing.remove(device)
            return
        if fault.kind == "exhaust-prekeys":
            device.record.keys.one_time.clear()
            self.world.save_device(device)
            return
        link = device.link
        if link is None:
            raise SandboxError(f"{device.key} is not connected", 409)
        if fault.kind == "close":
            self.drop(device, frame=fault.frame)
        elif fault.kind in ("stall", "resume"):
            stalled = fault.kind == "stall"
            link.stalled_reading = stalled and fault.mode in (None, "read", "both")
            link.stalled_sending = stalled and fault.mode in ("send", "both")
            link.stalled_queue = stalled and fault.mode == "queue"
            link.wake()
        elif fault.kind == "replaced":
            self._replace(link, device)
        else:
            self._send_odd(fault, link)

    def _send_odd(self, fault: Fault, link: Link) -> None:
        if fault.kind == "ping":
            ping = Node(
                "iq", {"from": SERVER, "type": "get", "xmlns": "urn:xmpp:ping", "id": self.world.stanza_id()}
            )
            link.send(ping)
            return
        if fault.kind == "ib":
            link.send(Node("ib", {"from": SERVER}, [Node(fault.child or "tos", dict(fault.attrs))]))
            return
        if fault.kind == "stream-error":
            attrs: dict[str, Value] = {} if fault.code is None else {"code": str(fault.code)}
            children = [Node("conflict", {"type": fault.conflict})] if fault.conflict else []
            if fault.child:
                children.append(Node(fault.child, dict(fault.attrs)))
            link.send(Node("stream:error", attrs, children))
        link.send(Node("xmlstreamend"))
        link.close(1000 if fault.frame else None)


def _parse_payload(payload: bytes) -> ClientPayload | None:
    if len(payload) > MAX_PAYLOAD:
        return None
    try:
        parsed = ClientPayload.FromString(payload)
    except DecodeError:
        return None
    one = parsed.HasField("devicePairingData") != parsed.HasField("username")
    return parsed if one else None


def _registration_is_sound(payload: ClientPayload) -> bool:
    """Whether all eight fields are there in the right form and the signature holds (chapter 02 §2.5)."""
    data = payload.devicePairingData
    lengths = (
        (data.eRegid, 4),
        (data.eKeytype, 1),
        (data.eIdent, curve.KEY_LENGTH),
        (data.eSkeyId, 3),
        (data.eSkeyVal, curve.KEY_LENGTH),
        (data.eSkeySig, curve.SIGNATURE_LENGTH),
        (data.buildHash, BUILD_HASH_LENGTH),
    )
    if any(len(value) != length for value, length in lengths) or not data.HasField("deviceProps"):
        return False
    try:
        DeviceProps.FromString(data.deviceProps)
    except DecodeError:
        return False
    return data.eKeytype[0] == curve.KEY_TYPE and curve.verify(
        data.eIdent, curve.serialize_key(data.eSkeyVal), data.eSkeySig
    )


def _corrupted(stanza: Node) -> Node:
    """Spoil the first `<enc>` so that everything about it can be read but its MAC does not hold."""
    content = stanza.children()
    for index, child in enumerate(content):
        if child.tag == "enc" and child.data:
            content[index] = Node("enc", child.attrs, _spoilt(child.text("type") or "", child.data))
            break
    return Node(stanza.tag, stanza.attrs, content)


def _spoilt(kind: str, ciphertext: bytes) -> bytes:
    last = len(ciphertext) - 1
    if kind == "pkmsg":
        try:
            last = ciphertext.rindex(parse_prekey_message(ciphertext).message.mac) + MAC_LENGTH - 1
        except SignalError:
            last = len(ciphertext) - 1
    return ciphertext[:last] + bytes((ciphertext[last] ^ 1,)) + ciphertext[last + 1 :]
