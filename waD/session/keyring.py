"""Which of the operator's keys are here, what still needs them, and which may be deleted (chapter 08 §8)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from waD.control.types import Finding, KeyList, KeyUser, KeyView, Level
from waD.store.store import Store

CHECK: Final = "kek"
MAX_NAMED: Final = 5
"""Sessions that a finding names."""


async def key_list(store: Store) -> KeyList:
    """Keys and who needs them.

    Raises:
        StoreError: the store cannot be read.
    """
    use = await store.key_use()
    here, current = await store.read(store.engine.kek_ids)
    users = [
        KeyUser(
            name=row.name,
            connection_id=row.id,
            retired=row.desired_state == "retired",
            kek=row.kek_id,
            locked=row.id in use.locked,
            seal_keks=use.seals.get(row.id, {}),
        )
        for row in use.sessions
    ]
    needed = {user.kek for user in users if user.kek is not None}
    needed |= {kek for user in users for kek in user.seal_keks}
    keys = [
        KeyView(
            id=kek,
            here=kek in here,
            wraps_new=kek == current,
            sessions=[user.name for user in users if user.kek == kek and not user.retired],
            retired=[user.name for user in users if user.kek == kek and user.retired],
            seals=sum(user.seal_keks.get(kek, 0) for user in users),
        )
        for kek in sorted({*here, *needed})
    ]
    return KeyList(keys=keys, users=users, lost=await store.read(store.engine.kek_lost))


async def key_findings(store: Store) -> list[Finding]:
    """What `wactl doctor` says of them.

    Raises:
        StoreError: the store cannot be read.
    """
    return [*_findings(await key_list(store))]


def _findings(found: KeyList) -> Iterator[Finding]:
    if found.lost:
        yield Finding(check=CHECK, level="critical", subject="store", message=found.lost)
    for key in found.keys:
        locked = [user.name for user in found.users if user.kek == key.id and user.locked]
        yield _missing(key, locked) if locked or not key.here else _present(key)


def _missing(key: KeyView, locked: list[str]) -> Finding:
    level: Level = "critical" if set(locked) & set(key.sessions) else "warning"
    what = "it is another one of that name" if key.here else "it is not here"
    text = f"{what}, and it is needed by {_needed(key)}"
    hint = "put it back; or restore a backup, which needs no old key"
    if not locked:
        hint = "put it back if you find it; the sealed copies go by themselves in time"
    return _finding(key, level, text, hint)


def _present(key: KeyView) -> Finding:
    needed = _needed(key)
    if key.wraps_new:
        return _finding(key, "ok", f"it wraps new keys; it is needed by {needed or 'nothing yet'}", "")
    if not needed:
        return _finding(key, "ok", "nothing needs it any more: it may be deleted", "")
    return _finding(
        key, "ok", f"it is still needed by {needed}: wactl storage rewrap --all before it is deleted", ""
    )


def _needed(key: KeyView) -> str:
    named = [*key.sessions, *(f"{name} (retired)" for name in key.retired)]
    more = len(named) - MAX_NAMED
    parts = [*named[:MAX_NAMED], *([f"{more} more sessions"] if more > 0 else [])]
    return ", ".join([*parts, *([f"{key.seals} sealed copies"] if key.seals else [])])


def _finding(key: KeyView, level: Level, text: str, hint: str) -> Finding:
    data = {
        "here": key.here,
        "sessions": len(key.sessions),
        "retired": len(key.retired),
        "seals": key.seals,
    }
    return Finding(check=CHECK, level=level, subject=f"key {key.id}", message=text, hint=hint, data=data)
