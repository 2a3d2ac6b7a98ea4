"""Orders to the sandbox's phones."""

from __future__ import annotations

import sys
from typing import Any, Final

import click

from wactl.base import App, command
from wactl.eventtext import shortened
from wactl.failure import usage
from wactl.recipients import RECIPIENT
from wactl.sandbox.http import Admin, admin_options, phone_path
from wactl.text import clean, moment
from waD.control.types import MAX_LINE

MAX_COUNT: Final = 1_000_000
STATUSES: Final = ("failed", "queued", "sent", "delivered", "read", "played")

_number = click.argument("number", type=RECIPIENT)


@command("phones", example="wactl sandbox phones\nwactl sandbox phones --json | jq -r '.[].number'")
@admin_options
def phones(app: App, admin: Admin) -> None:
    """List the phones with their linked devices."""
    found = admin.get("/admin/phones")
    if app.as_json:
        app.out.document(found)
    elif found:
        app.out.table(("NUMBER", "NAME", "LID", "PHONE", "DEVICES", "MESSAGES"), [_row(one) for one in found])
    else:
        app.out.note("no phones; make one with: wactl sandbox phone NUMBER")


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    devices = [
        f"{device.get('id')} {_online(device)}" for device in one.get("devices", []) if device.get("id")
    ]
    return (
        str(one.get("number")),
        str(one.get("name") or "-"),
        str(one.get("lid", "")).partition("@")[0],
        _online(one),
        ", ".join(devices) or "-",
        str(one.get("messages", "")),
    )


def _online(thing: dict[str, Any]) -> str:
    return "online" if thing.get("online") else "offline"


@command(
    "phone",
    example="wactl sandbox phone 15550000002 --name Bob --auto-reply 'you said {text}'\n"
    "wactl sandbox phone 15550000001 --offline",
)
@_number
@click.option("--name", metavar="NAME", help="Push name.")
@click.option("--auto-reply", metavar="TEXT", help="Answer what comes in; {text} is what it said, '' is off.")
@click.option("--auto-read/--no-auto-read", default=None, help="Read what comes in at once.")
@click.option("--online/--offline", default=None, help="Whether the phone is connected.")
@click.option("--addressing", type=click.Choice(["lid", "pn"]), help="By which addresses it sends.")
@admin_options
def phone(
    app: App,
    admin: Admin,
    number: str,
    *,
    name: str | None,
    auto_reply: str | None,
    auto_read: bool | None,
    online: bool | None,
    addressing: str | None,
) -> None:
    """Show a phone; make it if there is none of this number, and change what it does by itself."""
    found = admin.post("/admin/phones", {"number": number, "name": name})
    habits = {
        "name": name if name != found.get("name") else None,
        "autoReply": auto_reply,
        "autoRead": auto_read,
        "online": online,
        "addressing": addressing,
    }
    if any(value is not None for value in habits.values()):
        found = admin.post(phone_path(number), habits)
    if app.as_json:
        return app.out.document(found)
    app.out.line(f"{clean(str(found.get('number')))}  {clean(found.get('name') or '-')}")
    app.out.fields(_facts(found))
    return None


def _facts(found: dict[str, Any]) -> list[tuple[str, str]]:
    devices = [
        f"{device.get('id')} {_online(device)} {device.get('platform') or ''}".strip()
        for device in found.get("devices", [])
        if device.get("id")
    ]
    return [
        ("phone", _online(found)),
        ("lid", clean(str(found.get("lid", "")))),
        ("devices", clean(", ".join(devices)) or "none"),
        ("auto-read", "on" if found.get("autoRead") else "off"),
        ("auto-reply", clean(found.get("autoReply") or "off")),
        ("messages", str(found.get("messages", ""))),
    ]


@command("scan", example="wactl qr alerts --raw --once | wactl sandbox scan 15550000001 -")
@_number
@click.argument("code", metavar="[QR|-]", required=False)
@admin_options
def scan(app: App, admin: Admin, number: str, code: str | None) -> None:
    """Let a phone scan a QR code: the text of the code, from standard input without QR or with "-".

    Makes the phone if there is none of this number.
    """
    text = (_standard_input("the QR text") if code in (None, "-") else str(code)).strip()
    if not text:
        raise usage("there is no QR text; nothing was scanned")
    admin.post("/admin/phones", {"number": number})
    done = admin.post(phone_path(number, "/scan"), {"qr": text})
    if app.as_json:
        app.out.document(done)
    else:
        app.out.line(f"linked as {clean(str(done.get('jid') if isinstance(done, dict) else done))}")


@command(
    "send",
    example="wactl sandbox send 15550000002 15550000001 'on my way'\n"
    "wactl sandbox send 15550000002 15550000001 'message {n}' --count 1000",
)
@_number
@click.argument("to", type=RECIPIENT)
@click.argument("text", metavar="[TEXT|-]", required=False)
@click.option("--count", type=click.IntRange(1, MAX_COUNT), metavar="N", help="Send N; {n} in TEXT counts.")
@click.option("--id", "message_id", metavar="ID", help="The message's id.")
@click.option("--quote", metavar="ID", help="Reply to a message of the same chat.")
@admin_options
def send(
    app: App,
    admin: Admin,
    number: str,
    to: str,
    text: str | None,
    *,
    count: int | None,
    message_id: str | None,
    quote: str | None,
) -> None:
    """Let a phone send a text, and print the message's id."""
    if text is None or text == "-":
        text = _standard_input("the text")
    if count is not None and (message_id or quote):
        raise usage("--count goes with neither --id nor --quote")
    body: dict[str, Any] = {"to": to, "text": text, "id": message_id, "quote": quote}
    if count is not None:
        body = {"to": to, "count": count, "textTemplate": text}
    admin.post("/admin/phones", {"number": number})
    done = admin.post(phone_path(number, "/send"), body)
    if app.as_json:
        return app.out.document(done)
    for sent in done["ids"] if count is not None else [done["id"]]:
        app.out.line(clean(str(sent)))
    return None


@command("read", example="wactl sandbox read 15550000002 15550000001 3EB0A1B2C3D4E5F60718A9")
@_number
@click.argument("chat", type=RECIPIENT)
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@admin_options
def read(app: App, admin: Admin, number: str, chat: str, ids: tuple[str, ...]) -> None:
    """Let a phone read messages of a chat: their sender gets read receipts."""
    done = admin.post(phone_path(number, "/read"), {"chat": chat, "ids": list(ids)})
    if app.as_json:
        app.out.document(done)
    else:
        app.out.line(f"{done.get('read')} read")


@command("messages", example="wactl sandbox messages 15550000002 --chat 15550000001")
@_number
@click.option("--chat", type=RECIPIENT, metavar="NUMBER", help="Only those of this chat.")
@click.option("--limit", type=click.IntRange(1, 100_000), metavar="N", help="The latest N.")
@admin_options
def messages(app: App, admin: Admin, number: str, *, chat: str | None, limit: int | None) -> None:
    """Show what a phone sent and received, the latest last."""
    found = admin.get(phone_path(number, "/messages"), chat=chat, limit=limit)
    if app.as_json:
        return app.out.document(found)
    for message in found:
        app.out.line(_line(message))
    if not found:
        app.out.note("no messages")
    return None


def _line(message: dict[str, Any]) -> str:
    own = bool(message.get("fromMe"))
    status = message.get("status", -1)
    known = isinstance(status, int) and 0 <= status < len(STATUSES)
    about = f" ({STATUSES[status] if known else status})" if own else f" from {message.get('sender')}"
    text = message.get("text")
    body = f"[{message.get('kind')}]" if text is None else shortened(text)
    at = moment(message.get("t", 0) * 1000)
    head = f"{'→' if own else '←'} {message.get('chat')}  {message.get('id')}{about}"
    return f"{at}  {clean(head)}  {clean(body)}"


@command("unlink", example="wactl sandbox unlink 15550000001 1")
@_number
@click.argument("device", type=click.IntRange(1))
@admin_options
def unlink(app: App, admin: Admin, number: str, device: int) -> None:
    """Let a phone remove a linked device, as a person does under Linked devices."""
    found = admin.post(phone_path(number, "/unlink"), {"device": device})
    if app.as_json:
        app.out.document(found)
    else:
        app.out.line(f"unlinked {clean(number)}:{device}")


@command("drop-sessions", example="wactl sandbox drop-sessions 15550000002 --other 15550000001")
@_number
@click.option("--other", type=RECIPIENT, metavar="NUMBER", help="Only those with this account.")
@admin_options
def drop_sessions(app: App, admin: Admin, number: str, *, other: str | None) -> None:
    """Let a phone forget its Signal sessions: what comes next cannot be decrypted, and is asked for again."""
    done = admin.post(phone_path(number, "/drop-sessions"), {"other": other})
    if app.as_json:
        app.out.document(done)
    else:
        app.out.line(f"{clean(str(done.get('dropped')))} dropped")


def _standard_input(what: str) -> str:
    if sys.stdin is None:
        raise usage(f"{what} is to come from standard input, which is closed; nothing was done")
    data = sys.stdin.buffer.read(MAX_LINE + 1)
    if len(data) > MAX_LINE:
        raise usage(f"{what} is longer than {MAX_LINE} bytes; nothing was done")
    try:
        return str(data.decode().removesuffix("\n").removesuffix("\r"))
    except UnicodeDecodeError:
        raise usage(f"{what} on standard input is not valid UTF-8; nothing was done") from None
