"""Requests of paired clients: each gets an answer, unknown ones the error 501 (chapter 06 §13)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from waD.sandbox.accounts import Device
from waD.sandbox.appstate import AppState
from waD.sandbox.encryption import Encryption
from waD.sandbox.errors import IqError
from waD.sandbox.links import Link
from waD.sandbox.media import Media
from waD.sandbox.pairing import Pairing
from waD.sandbox.settings_iqs import SettingsIqs
from waD.sandbox.usync import Usync
from waD.sandbox.world import World
from waD.wire.jid import SERVER
from waD.wire.node import Node, Value

MAX_IQ_ID: Final = 64
Handler = Callable[[Link, Device, Node], list[Node]]


class Iqs:
    """Finds the handler of a namespace and turns its outcome into a result or an error."""

    def __init__(
        self,
        world: World,
        encryption: Encryption,
        pairing: Pairing,
        usync: Usync,
        app_state: AppState,
        media: Media,
        activate: Callable[[Link], None],
    ) -> None:
        self._world = world
        settings = SettingsIqs(world)
        self._activate = activate
        self._handlers: dict[str, Handler] = {
            "encrypt": lambda _link, device, iq: encryption.answer(device, iq),
            "passive": self._passive,
            "usync": lambda _link, device, iq: usync.answer(device.account, iq),
            "privacy": lambda _link, device, iq: settings.privacy(device, iq),
            "blocklist": lambda _link, device, iq: settings.blocklist(device, iq),
            "status": lambda _link, device, iq: settings.status(device, iq),
            "disappearing_mode": lambda _link, device, iq: settings.disappearing(device, iq),
            "abt": lambda _link, device, _iq: settings.props(device),
            "w:m": lambda _link, _device, _iq: media.conn(),
            "w:sync:app:state": lambda _link, device, iq: app_state.sync(device, iq),
            "md": lambda link, device, iq: pairing.companion_request(link, device, iq),
            "urn:xmpp:whatsapp:dirty": _empty,
            "urn:xmpp:whatsapp:push": _empty,
            "w:stats": _empty,
            "w": _empty,
            "tos": _empty,
        }

    def answer(self, link: Link, node: Node) -> None:
        """Answer one iq of a paired client."""
        device = link.device
        iq_id = node.text("id")
        if device is None or not iq_id or len(iq_id) > MAX_IQ_ID:
            self._world.complain(device, "an iq without a usable id")
            return
        if node.text("type") in ("result", "error"):
            link.expected_results.discard(iq_id)
            return
        xmlns = node.text("xmlns") or ""
        fault = self._world.faults.take("iq", device, xmlns=xmlns)
        if fault is not None and fault.never:
            return
        try:
            if fault is not None:
                raise IqError(fault.code or 500, fault.child or "fault", backoff_s=fault.backoff_s)
            link.send(result(node, self._handle(link, device, xmlns, node), self._world.now_s))
        except IqError as error:
            link.send(error_reply(node, error))

    def _handle(self, link: Link, device: Device, xmlns: str, node: Node) -> list[Node]:
        if is_ping(node):
            return []
        handler = self._handlers.get(xmlns)
        if handler is None:
            raise IqError(501, "feature-not-implemented", f"no namespace {xmlns[:64]!r} here")
        return handler(link, device, node)

    def _passive(self, link: Link, _device: Device, iq: Node) -> list[Node]:
        if iq.child("active") is not None:
            self._activate(link)
        elif iq.child("passive") is not None:
            link.active = False
        else:
            raise IqError(400, "bad-request", "neither active nor passive")
        return []


def is_ping(node: Node) -> bool:
    """Whether an iq only asks for a sign of life."""
    return node.text("xmlns") in ("w:p", "urn:xmpp:ping") or (
        node.text("type") == "get" and node.child("ping") is not None
    )


def result(iq: Node, content: list[Node], now_s: int) -> Node:
    """The good answer to an iq; pings get the server's time."""
    attrs: dict[str, Value] = {"from": iq.jid("to") or SERVER, "id": iq.attrs["id"], "type": "result"}
    if is_ping(iq):
        attrs["t"] = str(now_s)
    return Node("iq", attrs, content)


def error_reply(iq: Node, error: IqError) -> Node:
    """The refusal of an iq."""
    attrs: dict[str, Value] = {"code": str(error.code), "text": error.text}
    if error.backoff_s is not None:
        attrs["backoff"] = str(error.backoff_s)
    return Node(
        "iq",
        {"from": iq.jid("to") or SERVER, "id": iq.attrs["id"], "type": "error"},
        [Node("error", attrs)],
    )


def _empty(_link: Link, _device: Device, _iq: Node) -> list[Node]:
    return []
