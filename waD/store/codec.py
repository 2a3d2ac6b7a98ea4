"""The other representation of an auth state, key-value rows as a Node service reads them (chapter 08 §6.5).

The store keeps both in step; what the rows look like is not its business. All documents are canonical JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, cast

LegacyKey: TypeAlias = tuple[str, str]
"""Type and id of a row of wa_auth_keys; the credentials are ('creds', '')."""
Upgrade: TypeAlias = Callable[[str, str, bytes], bytes]
"""Turns what an earlier version of this program stored under a kind and key into today's document."""


class Codec(Protocol):
    """Translates items of the auth state into legacy rows and back, exactly."""

    def names(self, kind: str, key: str) -> Sequence[LegacyKey]:
        """All rows that an item may be kept in."""
        ...

    def item_rows(self, kind: str, key: str, document: bytes | None) -> Mapping[LegacyKey, bytes | None]:
        """The rows of an item; None for those there must not be. All of them for None, an item that is deleted."""
        ...

    def item(self, kind: str, key: str, rows: Mapping[LegacyKey, bytes]) -> bytes | None:
        """The item kept in rows, those of `names` that exist; None when there is none."""
        ...

    def creds_names(self) -> Sequence[LegacyKey]:
        """The rows of the credentials."""
        ...

    def creds_rows(self, document: bytes) -> Mapping[LegacyKey, bytes | None]:
        """The rows of the credentials."""
        ...

    def creds(self, rows: Mapping[LegacyKey, bytes]) -> bytes | None:
        """The credentials kept in rows; None when there are none."""
        ...

    def types(self, kind: str) -> Sequence[str]:
        """Types of rows in which items of a kind are kept."""
        ...

    def native(self, legacy: LegacyKey) -> tuple[str, str] | None:
        """Kind and key of the item that a row belongs to; None for rows of nobody here, and for the credentials."""
        ...


class _Deferred:
    """A codec that is made when a state with legacy rows is met: most databases have none."""

    def __init__(self, make: Callable[[], Codec]) -> None:
        self._make = make
        self._made: Codec | None = None

    def __getattr__(self, name: str) -> Any:
        if self._made is None:
            self._made = self._make()
        return getattr(self._made, name)


def deferred(make: Callable[[], Codec]) -> Codec:
    """A codec that is made, and its modules loaded, at its first use."""
    return cast("Codec", _Deferred(make))
