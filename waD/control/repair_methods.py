"""Methods that repair an auth state without a new pairing."""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from waD.control import types as t
from waD.control.api import bad_param
from waD.control.method import Call, Method, row


async def _list(call: Call, params: t.SessionParams) -> t.RepairList:
    """Verify a session's auth state, as deep as is possible now, and answer with the repairs that are advised.

    Changes nothing.
    """
    return await call.sessions.repair.list(params.name)


async def _run(call: Call, params: t.RepairParams) -> t.RepairResult:
    """Repair something; a session that runs goes on meanwhile.

    The state is sealed first, and what was done is an event auth:repaired. An action that asks WhatsApp needs a
    connection. Where there is nothing to repair nothing is changed, and the count is 0.
    """
    kind = t.REPAIRS[params.action]
    wanted = kind.target
    if (kind.needs_target and params.target is None) or (not wanted and params.target is not None):
        raise bad_param("target", f"{params.action} takes {f'a {wanted}' if wanted else 'none'}")
    return await call.sessions.repair.run(replace(params, target=_target(params.target, wanted)))


def _target(text: str | None, wanted: str) -> str | None:
    if text is None or wanted != "PEER":
        return text
    try:
        return t.parse_recipient(text)
    except ValueError as error:
        raise bad_param("target", str(error)) from None


REPAIR_METHODS: Final[tuple[Method, ...]] = (
    row("repair.list", "query", "admin", t.SessionParams, t.RepairList, _list),
    row("repair.run", "command", "admin", t.RepairParams, t.RepairResult, _run),
)
