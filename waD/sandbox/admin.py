"""The admin API: phones, faults and records over HTTP, documented in the manual of the sandbox."""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from waD.sandbox.errors import SandboxError
from waD.sandbox.faults import LATER, MEDIA_MODES, NOISE_MODES, NOW, PATCH_MODES, STALL_MODES, Fault
from waD.sandbox.handles import PhoneHandle
from waD.sandbox.httpd import HttpRequest, HttpResponse
from waD.sandbox.media_admin import MediaAdmin
from waD.sandbox.qr import MAX_QR
from waD.wire.node import Node

if TYPE_CHECKING:
    from waD.sandbox.accounts import Device
    from waD.sandbox.sandbox import Sandbox

MAX_LISTED: Final = 1000
_T = TypeVar("_T")


class NewPhone(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /admin/phones`."""

    name: str | None = None
    number: str | None = None


class Scan(msgspec.Struct, forbid_unknown_fields=True):
    """Body of a scan."""

    qr: str


class Send(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """Body of a send: one text, or `count` times a template with `{n}`."""

    to: str
    text: str | None = None
    count: int | None = None
    text_template: str | None = None
    id: str | None = None
    quote: str | None = None


class Read(msgspec.Struct, forbid_unknown_fields=True):
    """Body of a read."""

    chat: str
    ids: list[str]
    kind: str = "read"


class Configure(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """Body of a change of habits."""

    online: bool | None = None
    auto_read: bool | None = None
    auto_reply: str | None = None
    addressing: str | None = None
    name: str | None = None


class Presence(msgspec.Struct, forbid_unknown_fields=True):
    """Body of a presence or typing order."""

    kind: str
    chat: str | None = None


class Unlink(msgspec.Struct, forbid_unknown_fields=True):
    """Body of an unlink."""

    device: int


class Other(msgspec.Struct, forbid_unknown_fields=True):
    """Body that may name another account."""

    other: str | None = None


class ContactOrder(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """A contact to set, or to remove when it has no name."""

    other: str
    full_name: str | None = None
    first_name: str | None = None


class Change(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """Body of a change of the app state: the own name, a contact, and what is said about one chat."""

    push_name: str | None = None
    contact: ContactOrder | None = None
    chat: str | None = None
    muted_until_ms: int | msgspec.UnsetType | None = msgspec.UNSET
    pinned: bool | None = None
    archived: bool | None = None
    read: bool | None = None
    star: str | None = None
    unstar: str | None = None


class ShareKeys(msgspec.Struct, forbid_unknown_fields=True):
    """Body of a share of app-state keys; to all companions without a device."""

    device: int | None = None


class Drop(msgspec.Struct, forbid_unknown_fields=True):
    """Body of a drop; `frame`: say goodbye first."""

    jid: str
    frame: bool = False


Handler = Callable[..., "Awaitable[Any] | Any"]


class Admin:
    """Finds the handler of a request and turns its outcome into a response."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        routes: list[tuple[str, str, Handler]] = [
            ("GET", r"/", self._ready),
            ("GET", r"/admin/info", self._info),
            ("POST", r"/admin/mock-phone/scan-qr", self._scan_any),
            ("GET", r"/admin/phones", self._phones),
            ("POST", r"/admin/phones", self._new_phone),
            ("GET", r"/admin/phones/([^/]+)", self._phone),
            ("POST", r"/admin/phones/([^/]+)", self._configure),
            ("POST", r"/admin/phones/([^/]+)/scan", self._scan),
            ("POST", r"/admin/phones/([^/]+)/send", self._send),
            ("POST", r"/admin/phones/([^/]+)/read", self._read),
            ("POST", r"/admin/phones/([^/]+)/presence", self._presence),
            ("POST", r"/admin/phones/([^/]+)/unlink", self._unlink),
            ("POST", r"/admin/phones/([^/]+)/change-identity", self._change_identity),
            ("POST", r"/admin/phones/([^/]+)/drop-sessions", self._drop_sessions),
            ("GET", r"/admin/phones/([^/]+)/settings", self._settings),
            ("POST", r"/admin/phones/([^/]+)/settings", self._change),
            ("POST", r"/admin/phones/([^/]+)/share-keys", self._share_keys),
            ("GET", r"/admin/phones/([^/]+)/messages", self._messages),
            ("GET", r"/admin/phones/([^/]+)/requests", self._requests),
            ("GET", r"/admin/faults", self._faults),
            ("POST", r"/admin/faults", self._fault),
            ("DELETE", r"/admin/faults(?:/([0-9]{1,9}))?", self._clear_faults),
            ("POST", r"/admin/drop", self._drop),
            ("GET", r"/admin/keys", self._keys),
            ("GET", r"/admin/deliveries", self._deliveries),
            ("GET", r"/admin/traffic", self._traffic),
            ("GET", r"/admin/complaints", self._complaints),
            *MediaAdmin(sandbox).routes(),
        ]
        self._routes = [(method, re.compile(pattern), handler) for method, pattern, handler in routes]

    async def answer(self, request: HttpRequest) -> HttpResponse:
        """Answer one request; refusals become JSON with a message."""
        method = "GET" if request.method == "HEAD" else request.method
        allowed: list[str] = []
        for route_method, pattern, handler in self._routes:
            match = pattern.fullmatch(request.path)
            if match is None:
                continue
            if route_method != method:
                allowed.append(route_method)
                continue
            return await self._call(handler, request, match.groups())
        if allowed:
            return _error(405, f"{request.path} takes {', '.join(allowed)}")
        return _error(404, f"there is nothing at {request.path[:200]}")

    async def _call(self, handler: Handler, request: HttpRequest, groups: tuple[str, ...]) -> HttpResponse:
        try:
            outcome = handler(request, *groups)
            payload = await outcome if inspect.isawaitable(outcome) else outcome
        except SandboxError as error:
            return _error(error.status, str(error))
        except (msgspec.ValidationError, msgspec.DecodeError) as error:
            return _error(400, str(error))
        return payload if isinstance(payload, HttpResponse) else HttpResponse(200, payload)

    def _ready(self, _request: HttpRequest) -> str:
        return "waD sandbox\n"

    def _info(self, _request: HttpRequest) -> dict[str, Any]:
        sandbox, world = self._sandbox, self._sandbox.core.world
        return {
            "url": sandbox.url,
            "adminUrl": sandbox.admin_url,
            "rootKey": sandbox.root_key.hex(),
            "caFile": str(sandbox.ca_file) if sandbox.ca_file else None,
            "accounts": len(world.directory),
            "links": len(world.links),
            "time": world.now_ms,
            "faults": {
                "now": sorted(NOW),
                "later": sorted(LATER),
                "noiseModes": NOISE_MODES,
                "stallModes": STALL_MODES,
                "patchModes": PATCH_MODES,
                "mediaModes": MEDIA_MODES,
            },
        }

    def _scan_any(self, request: HttpRequest) -> Any:
        if len(request.body) > MAX_QR:
            raise SandboxError(f"a QR text has at most {MAX_QR} characters")
        scanned = self._sandbox.core.pairing.scan(request.body.decode(errors="replace"))
        self._sandbox.core.settle()
        return scanned

    def _phones(self, _request: HttpRequest) -> list[dict[str, Any]]:
        return [phone.view() for phone in self._sandbox.core.phones][:MAX_LISTED]

    async def _new_phone(self, request: HttpRequest) -> HttpResponse:
        body = _body(request, NewPhone)
        phone = self._sandbox.phone(body.number, body.name)
        await self._sandbox.flush()
        return HttpResponse(201, phone.phone.view())

    def _phone(self, _request: HttpRequest, number: str) -> dict[str, Any]:
        return self._find(number).phone.view()

    async def _configure(self, request: HttpRequest, number: str) -> dict[str, Any]:
        phone = self._find(number)
        body = _body(request, Configure)
        await phone.configure(
            online=body.online,
            auto_read=body.auto_read,
            auto_reply=body.auto_reply,
            addressing=body.addressing,
            name=body.name,
        )
        return phone.phone.view()

    async def _scan(self, request: HttpRequest, number: str) -> Any:
        return await self._find(number).scan(_body(request, Scan).qr)

    async def _send(self, request: HttpRequest, number: str) -> Any:
        body = _body(request, Send)
        phone = self._find(number)
        if body.count is not None:
            ids = await phone.send_many(body.to, body.count, body.text_template or body.text or "message {n}")
            return {"count": len(ids), "ids": ids}
        if body.text is None:
            raise SandboxError("text is missing")
        sent = await phone.send(body.to, body.text, message_id=body.id, quote=body.quote)
        return sent.view()

    async def _read(self, request: HttpRequest, number: str) -> dict[str, Any]:
        body = _body(request, Read)
        await self._find(number).read(body.chat, body.ids, body.kind)
        return {"read": len(body.ids)}

    async def _presence(self, request: HttpRequest, number: str) -> dict[str, Any]:
        body = _body(request, Presence)
        phone = self._find(number)
        if body.chat is None:
            await phone.presence(body.kind)
        else:
            await phone.typing(body.chat, body.kind)
        return {"done": True}

    async def _unlink(self, request: HttpRequest, number: str) -> dict[str, Any]:
        phone = self._find(number)
        await phone.unlink(_body(request, Unlink).device)
        return phone.phone.view()

    async def _change_identity(self, _request: HttpRequest, number: str) -> dict[str, Any]:
        phone = self._find(number)
        await phone.change_identity()
        return phone.phone.view()

    async def _drop_sessions(self, request: HttpRequest, number: str) -> dict[str, Any]:
        body = _body(request, Other) if request.body else Other()
        return {"dropped": await self._find(number).drop_sessions(body.other)}

    def _settings(self, _request: HttpRequest, number: str) -> dict[str, Any]:
        return self._find(number).phone.settings.view()

    async def _change(self, request: HttpRequest, number: str) -> dict[str, Any]:
        phone = self._find(number)
        body = _body(request, Change)
        if body.push_name is not None:
            await phone.set_push_name(body.push_name)
        if body.contact is not None and body.contact.full_name is None:
            await phone.remove_contact(body.contact.other)
        elif body.contact is not None and body.contact.full_name is not None:
            await phone.set_contact(body.contact.other, body.contact.full_name, body.contact.first_name)
        if body.chat is not None:
            await _change_chat(phone, body.chat, body)
        return phone.phone.settings.view()

    async def _share_keys(self, request: HttpRequest, number: str) -> dict[str, Any]:
        body = _body(request, ShareKeys) if request.body else ShareKeys()
        await self._find(number).share_keys(body.device)
        return {"done": True}

    def _messages(self, request: HttpRequest, number: str) -> list[dict[str, Any]]:
        messages = self._find(number).messages(request.query.get("chat"))
        return [message.view() for message in messages[-_limit(request) :]]

    def _requests(self, _request: HttpRequest, number: str) -> dict[str, Any]:
        phone = self._find(number).phone
        return {"requests": phone.requests, "failures": phone.failures}

    def _faults(self, _request: HttpRequest) -> list[dict[str, Any]]:
        return self._sandbox.core.world.faults.report()

    def _fault(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse(201, self._sandbox.core.apply(_body(request, Fault)))

    def _clear_faults(self, _request: HttpRequest, fault_id: str | None) -> dict[str, Any]:
        return {"cleared": self._sandbox.core.world.faults.clear(int(fault_id) if fault_id else None)}

    def _drop(self, request: HttpRequest) -> dict[str, Any]:
        body = _body(request, Drop)
        dropped = [
            device for device in self._devices(body.jid) if self._sandbox.core.drop(device, frame=body.frame)
        ]
        return {"dropped": [device.key for device in dropped]}

    def _keys(self, request: HttpRequest) -> dict[str, Any]:
        full = request.query.get("full") in ("1", "true")
        return self._sandbox.core.world.keys.report(request.query.get("sender"), full=full)

    def _deliveries(self, request: HttpRequest) -> list[dict[str, Any]]:
        return self._sandbox.core.world.deliveries.report(request.query.get("id"))

    def _traffic(self, request: HttpRequest) -> list[dict[str, Any]]:
        return self._sandbox.core.world.traffic(request.query.get("device"))[-_limit(request) :]

    def _complaints(self, _request: HttpRequest) -> list[dict[str, Any]]:
        return self._sandbox.core.world.complaints()

    def _find(self, number: str) -> PhoneHandle:
        return PhoneHandle(self._sandbox, self._sandbox.core.phones.by_number(number))

    def _devices(self, text: str) -> list[Device]:
        """Companions named by an address, `number` or `number:device`; raises SandboxError(404)."""
        jid = Node("x", {"jid": text}).jid("jid") if "@" in text else None
        directory = self._sandbox.core.world.directory
        number, _, device = text.partition(":")
        account = directory.find(jid) if jid else directory.by_number(number)
        wanted = jid.device if jid else int(device) if device.isdecimal() else 0
        found = account.companions if account else []
        if wanted:
            found = [one for one in found if one.id == wanted]
        if not found:
            raise SandboxError(f"there is no companion {text!r}", 404)
        return found


async def _change_chat(phone: PhoneHandle, chat: str, change: Change) -> None:
    if not isinstance(change.muted_until_ms, msgspec.UnsetType):
        await phone.mute(chat, change.muted_until_ms)
    if change.pinned is not None:
        await phone.pin(chat, change.pinned)
    if change.archived is not None:
        await phone.archive(chat, change.archived)
    if change.read is not None:
        await phone.mark_read(chat, change.read)
    if change.star is not None:
        await phone.star(chat, change.star)
    if change.unstar is not None:
        await phone.star(chat, change.unstar, starred=False)


def _body(request: HttpRequest, kind: type[_T]) -> _T:
    return msgspec.json.decode(request.body or b"{}", type=kind)


def _limit(request: HttpRequest) -> int:
    text = request.query.get("limit", str(MAX_LISTED))
    if not text.isdecimal() or not 0 < int(text) <= MAX_LISTED * 100:
        raise SandboxError("limit is a positive number")
    return int(text)


def _error(status: int, message: str) -> HttpResponse:
    return HttpResponse(status, {"error": message})
