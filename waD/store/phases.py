"""Which of the two representations is written and read, and what may follow (chapter 08 §6.5): pure."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

Phase: TypeAlias = Literal[
    "legacy_only", "dual_write", "backfilled", "snapshot_primary", "cut_over", "legacy_retired"
]

WRITES_LEGACY: Final[frozenset[str]] = frozenset(
    {"legacy_only", "dual_write", "backfilled", "snapshot_primary"}
)
WRITES_SNAPSHOT: Final[frozenset[str]] = frozenset(
    {"dual_write", "backfilled", "snapshot_primary", "cut_over", "legacy_retired"}
)
FALLS_BACK: Final[frozenset[str]] = frozenset({"legacy_only", "dual_write", "backfilled"})
"""An item that is absent from the snapshot is read from the legacy rows."""
COMPLETE: Final[frozenset[str]] = frozenset({"backfilled", "snapshot_primary", "cut_over", "legacy_retired"})
"""The snapshot has everything."""

NEXT: Final[dict[str, frozenset[str]]] = {
    "legacy_only": frozenset({"dual_write"}),
    "dual_write": frozenset({"backfilled", "legacy_only"}),
    "backfilled": frozenset({"snapshot_primary", "legacy_only"}),
    "snapshot_primary": frozenset({"cut_over", "backfilled", "legacy_only"}),
    "cut_over": frozenset({"legacy_retired", "snapshot_primary"}),
    "legacy_retired": frozenset(),
}
