"""The commands of `wactl sandbox` by name."""

from __future__ import annotations

from typing import Final

from wactl.base import LazyGroup

_PHONES: Final = "wactl.sandbox.phones"
_FAULTS: Final = "wactl.sandbox.faults"

sandbox = LazyGroup(
    "sandbox",
    table={
        "run": ("wactl.sandbox.run:run", "Run a sandbox in the foreground."),
        "info": ("wactl.sandbox.info:info", "Show the sandbox: address, root key, kinds of faults."),
        "phones": (f"{_PHONES}:phones", "List the phones and their linked devices."),
        "phone": (f"{_PHONES}:phone", "Make or show a phone, or change its habits."),
        "scan": (f"{_PHONES}:scan", "Let a phone scan a QR code."),
        "send": (f"{_PHONES}:send", "Let a phone send a text."),
        "read": (f"{_PHONES}:read", "Let a phone read messages."),
        "messages": (f"{_PHONES}:messages", "Show what a phone sent and received."),
        "unlink": (f"{_PHONES}:unlink", "Let a phone remove a linked device."),
        "drop-sessions": (f"{_PHONES}:drop_sessions", "Let a phone forget its Signal sessions."),
        "fault": (f"{_FAULTS}:fault", "Order a fault."),
        "faults": (f"{_FAULTS}:faults", "List the faults that wait for their occasion, or clear them."),
        "drop": (f"{_FAULTS}:drop", "Cut the connections of a linked device."),
        "complaints": ("wactl.sandbox.info:complaints", "Show what clients did wrong."),
    },
    help="Run a WhatsApp server with simulated phones, and give orders to it: for trying without a phone.",
    example="wactl sandbox run --port 8080\n"
    "wactl sandbox phone 15550000002 --name Bob --auto-reply 'you said {text}'\n"
    "wactl qr alerts --raw --once | wactl sandbox scan 15550000001 -",
)
