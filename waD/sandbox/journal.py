"""What the core wants to survive: puts and deletes of small rows, written elsewhere."""

from __future__ import annotations

from typing import Protocol


class Journal(Protocol):
    """Takes changes in order; somebody makes them durable in one transaction at a time."""

    @property
    def enabled(self) -> bool:
        """Whether anything is kept; when not, nobody needs to serialise."""

    def put(self, kind: str, key: str, value: bytes) -> None:
        """Insert or replace a row."""

    def delete(self, kind: str, key: str) -> None:
        """Remove a row."""


class MemoryJournal:
    """Keeps nothing."""

    enabled = False

    def put(self, kind: str, key: str, value: bytes) -> None:
        """Forget it."""

    def delete(self, kind: str, key: str) -> None:
        """Nothing to remove."""
