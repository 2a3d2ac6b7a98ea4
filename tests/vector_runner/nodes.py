"""Nodes and bytes as the vector files write them."""

from __future__ import annotations

from typing import Any

from waD.wire.jid import INTEROP, JID


def wire_bytes(value: Any) -> bytes:
    """Hex, `{"repeat": hex, "times": n}`, or a list of these."""
    if isinstance(value, str):
        return bytes.fromhex(value)
    if isinstance(value, list):
        return b"".join(wire_bytes(part) for part in value)
    if "hex" in value:
        return bytes.fromhex(value["hex"])
    return bytes.fromhex(value["repeat"]) * int(value["times"])


def jid_of(text: str) -> JID:
    """The address a vector means by a text with `@`; any user and server goes."""
    account, _, server = text.partition("@")
    user, _, device = account.partition(":")
    integrator = "0"
    if server == INTEROP and "-" in user:
        integrator, _, user = user.partition("-")
    return JID(user, server, int(device or 0), int(integrator))


def jid_text(jid: JID) -> str:
    """The text a vector writes for an address: the package prints a server with `@`."""
    return str(jid) if jid.user else f"@{jid.server}"
