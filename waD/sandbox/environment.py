"""What the core takes from outside: time, randomness and its settings. The rest of it is pure."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import msgspec

DAY_MS: Final = 24 * 3600 * 1000
COUNTER_BYTES: Final = 8

Clock = Callable[[], int]
"""Unix time in milliseconds."""
Random = Callable[[int], bytes]
"""That many unpredictable bytes."""


class Settings(msgspec.Struct, frozen=True):
    """Knobs of a sandbox.

    Attributes:
        chat_state_ttl_s: life of a queued typing notice (chapter 07 §6).
        presence_memory_s: how long a dead link's presence subscriptions are kept for the next one.
        low_prekeys: a fetch that leaves fewer one-time prekeys tells the owner (chapter 07 §5).
        queue_items: most items of one device's queue; the oldest go first.
        queue_days: items older than that are dropped.
        batch: strict credit mode, off by default: backlog stanzas are only sent when the client asked for
            them with `offline_batch` (chapter 02 §5.5).
        require_lid_migration: refuse LID-addressed chats of accounts that are not migrated, off by default.
        idle_timeout_s: a link that sends nothing for so long is closed.
        media_host: `host:port` named as media host.
        app_state_page: most patches of one collection in one reply.
        app_state_snapshots: answer a client that asks for a snapshot with one, off by default: Baileys fetches
            files from nowhere but the real service (chapter 05 §1.2).
        media_max_bytes: largest upload.
        media_days: how long a file is served.
        media_ttl_s: how long the list of media hosts is said to be good.
        media_auth_ttl_s: how long a credential for uploads is good.
    """

    chat_state_ttl_s: float = 30.0
    presence_memory_s: float = 60.0
    low_prekeys: int = 10
    queue_items: int = 10_000
    queue_days: int = 30
    batch: bool = False
    require_lid_migration: bool = False
    idle_timeout_s: float = 120.0
    media_host: str = "127.0.0.1:8080"
    app_state_page: int = 50
    app_state_snapshots: bool = False
    media_max_bytes: int = 2 * 1024**3
    media_days: int = 30
    media_ttl_s: int = 300
    media_auth_ttl_s: int = 21_600


@dataclass(slots=True)
class Environment:
    """Time and randomness, replaceable in tests."""

    clock: Clock = field(default=lambda: time.time_ns() // 1_000_000)
    random: Random = os.urandom


def seeded(seed: int) -> Random:
    """A deterministic source for tests: SHA-256 over seed and counter. Never for anything real."""
    prefix = hashlib.sha256(f"waD sandbox {seed}".encode()).digest()
    counter = 0

    def draw(length: int) -> bytes:
        nonlocal counter
        blocks = bytearray()
        while len(blocks) < length:
            blocks += hashlib.sha256(prefix + counter.to_bytes(COUNTER_BYTES, "big")).digest()
            counter += 1
        return bytes(blocks[:length])

    return draw
