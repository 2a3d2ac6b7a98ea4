"""Why a patch, a snapshot or a mutation was refused: stable codes, never contents (chapter 05 §4.9)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeAlias

SyncdCode: TypeAlias = Literal[
    "duplicate-index",
    "exit-code",
    "index-mac",
    "limit",
    "malformed",
    "missing-key",
    "patch-mac",
    "snapshot-mac",
    "value-mac",
    "version",
]
"""`exit-code`: the server marked the patch as failed (§4.11). `limit`: more than our own bounds allow."""


class SyncdError(Exception):
    """A patch, a snapshot or a mutation was refused; nothing has changed. `code` is stable."""

    def __init__(self, code: SyncdCode, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code: SyncdCode = code
        self.detail = detail


class MissingKeys(SyncdError):  # noqa: N818 - says what is the case: the collection is blocked, not broken
    """Keys with the ids `key_ids` are needed first; the collection waits for them (chapter 05 §4.13)."""

    def __init__(self, key_ids: Iterable[bytes]) -> None:
        self.key_ids = tuple(dict.fromkeys(key_ids))
        super().__init__("missing-key", "unknown keys " + ", ".join(one.hex() for one in self.key_ids))
