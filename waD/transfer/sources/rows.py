"""Rows as a driver gives them."""

from __future__ import annotations

from typing import Final, TypeAlias

Value: TypeAlias = object
"""A column as the driver gives it: nothing about its type is certain."""
Row: TypeAlias = tuple[Value, ...]
QUIET_MS: Final = 60_000
"""How long a source must have been untouched (chapter 08 §4.4)."""
