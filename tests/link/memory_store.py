"""A session's credentials and prekeys in memory, with a journal of what became durable when."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import trio

from waD.link.credentials import Credentials
from waD.link.prekeys import OneTimePreKey


class MemoryStore:
    """Both stores of the link; every write passes through the documents' own serialisation."""

    def __init__(self, credentials: Credentials) -> None:
        self.now = credentials
        self.keys: dict[int, OneTimePreKey] = {}
        self.writes: list[str] = []
        self.failure: Exception | None = None

    async def credentials(self) -> Credentials:
        await trio.lowlevel.checkpoint()
        return self.now

    async def change_credentials(self, change: Callable[[Credentials], Credentials]) -> Credentials:
        await self._write("credentials")
        self.now = Credentials.parse(change(self.now).serialize())
        return self.now

    async def prekeys(self) -> list[OneTimePreKey]:
        await trio.lowlevel.checkpoint()
        return list(self.keys.values())

    async def add_prekeys(self, keys: Sequence[OneTimePreKey], next_prekey_id: int) -> None:
        await self._write("prekeys")
        self.keys.update((key.id, OneTimePreKey.parse(key.id, key.serialize())) for key in keys)
        self.now = self.now.change(next_prekey_id=next_prekey_id)

    async def mark_uploaded(self, ids: Collection[int]) -> None:
        await self._write("uploaded")
        self.keys.update((key, replace(self.keys[key], state="uploaded")) for key in ids if key in self.keys)
        self.now = self.now.change(server_has_prekeys=True)

    async def _write(self, what: str) -> None:
        await trio.lowlevel.checkpoint()
        if self.failure is not None:
            raise self.failure
        self.writes.append(what)
