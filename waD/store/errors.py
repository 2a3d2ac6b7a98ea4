"""What the store can refuse or fail to do. Every message names the file or session, and what to do next."""

from __future__ import annotations


class StoreError(Exception):
    """Base of everything the store raises."""


class StorageUnavailable(StoreError):
    """The database cannot be written or read now: disk full, read-only, input/output error."""


class StoreForbidden(StoreError):
    """The system does not let this process use the file; that does not pass by itself. Nothing was changed."""


class StoreDamaged(StoreError):
    """The database is not what this program wrote; nothing was changed."""


class StoreTooNew(StoreError):
    """A newer version of this program has migrated the database; nothing was changed."""


class KekUnavailable(StoreError):
    """A session is encrypted with a key that is not here; nothing was changed."""


class StoreLocked(StoreError):
    """Another process uses the database.

    Attributes:
        holder: who, as far as its lock file says.
    """

    def __init__(self, message: str, holder: str) -> None:
        super().__init__(message)
        self.holder = holder


class LeaseLost(StoreError):
    """Another owner took the session over: commit nothing, send nothing (chapter 08 §6.4)."""


class SessionLeased(StoreError):
    """Another process runs the session.

    Attributes:
        holder: who.
        expires_ms: when its lease ends unless it is renewed, Unix milliseconds by the database's clock.
    """

    def __init__(self, message: str, holder: str, expires_ms: int) -> None:
        super().__init__(message)
        self.holder = holder
        self.expires_ms = expires_ms


class SessionUnknown(StoreError):
    """There is no session of that name or id."""


class CursorExpired(StoreError):
    """Events behind that cursor are no longer kept.

    Attributes:
        oldest: the smallest cursor from which reading is complete.
    """

    def __init__(self, cursor: int, oldest: int) -> None:
        super().__init__(
            f"events after cursor {cursor} are no longer kept; the oldest usable cursor is {oldest}"
        )
        self.oldest = oldest
