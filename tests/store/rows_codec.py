"""A stand-in for the rows of a Node service: one row for each item, and it keeps what it does not know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from waD.store.codec import LegacyKey

CREDS: LegacyKey = ("creds", "")
_PREFIX = "old-"


class RowsCodec:
    """Each document stands in a row whose type has a prefix; implements `waD.store.codec.Codec`.

    Attributes:
        broken: kinds whose rows are written wrongly, as a fault in a codec would.
    """

    def __init__(self) -> None:
        self.broken: set[str] = set()

    def names(self, kind: str, key: str) -> Sequence[LegacyKey]:
        return ((_PREFIX + kind, key),)

    def item_rows(self, kind: str, key: str, document: bytes | None) -> Mapping[LegacyKey, bytes | None]:
        wrong = kind in self.broken and document is not None
        return {(_PREFIX + kind, key): b'"wrong"' if wrong else document}

    def item(self, kind: str, key: str, rows: Mapping[LegacyKey, bytes]) -> bytes | None:
        return rows.get((_PREFIX + kind, key))

    def creds_names(self) -> Sequence[LegacyKey]:
        return (CREDS,)

    def creds_rows(self, document: bytes) -> Mapping[LegacyKey, bytes | None]:
        return {CREDS: document}

    def creds(self, rows: Mapping[LegacyKey, bytes]) -> bytes | None:
        return rows.get(CREDS)

    def types(self, kind: str) -> Sequence[str]:
        return (_PREFIX + kind,)

    def native(self, legacy: LegacyKey) -> tuple[str, str] | None:
        kind, key = legacy
        return (kind.removeprefix(_PREFIX), key) if kind.startswith(_PREFIX) else None
