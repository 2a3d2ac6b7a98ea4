"""The SQL tables and collections of documents that known programs keep their sessions in (chapter 08 §3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from waD.transfer.baileys.rows import Row


@dataclass(frozen=True, slots=True)
class Table:
    """Which columns of a table mean what.

    Attributes:
        name: of the table, perhaps with its schema in front.
        value: column of the value.
        key: column of the item's name; None: each row is the credentials, or credentials and keys at once.
        session: column that tells sessions apart; None: the names do, or there is one session.
        kind: column of the type, where the key is the id alone.
        keys: second column with the keys, where the value is the credentials.
    """

    name: str
    value: str
    key: str | None = None
    session: str | None = None
    kind: str | None = None
    keys: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns that are read."""
        named = (self.session, self.key, self.kind, self.value, self.keys)
        return tuple(column for column in named if column is not None)

    def row(self, record: Mapping[str, object]) -> Row:
        """A row from what is in the columns."""
        value = record.get(self.value)
        if self.keys is not None:
            value = {"creds": value, "keys": record.get(self.keys)}
        return Row(_text(record, self.session), _text(record, self.key), value, _text(record, self.kind))


@dataclass(frozen=True, slots=True)
class Preset:
    """How one program stores its sessions; tables with credentials come first."""

    tables: tuple[Table, ...]
    keeps_deleted: bool = False


def _one(
    name: str, value: str, key: str | None = None, session: str | None = None, *, keeps_deleted: bool = False
) -> Preset:
    return Preset((Table(name, value, key, session),), keeps_deleted)


_WHATICKET: Final = Table("Whatsapps", "session", session="id")

PRESETS: Final[Mapping[str, Preset]] = {
    "auth_state": _one("auth_state", "data", session="id"),
    "baileys_auth_state": Preset((Table("baileys_auth_state", "creds", session="session_id", keys="keys"),)),
    "baileys-mongo": _one("Auth", "value", "key"),
    "drizzle": _one("session", "data", "id", "session_id"),
    "evolution": _one("Session", "creds", session="sessionId"),
    "keyv": _one("keyv", "value", "key"),
    "mysql-baileys": _one("auth", "value", "id", "session"),
    "postgres-baileys": _one("auth_data", "data", "session_key"),
    "prisma": _one("Session", "data", "id", "sessionId"),
    "ticketz": Preset((_WHATICKET, Table("BaileysKeys", "value", "key", session="whatsappId", kind="type"))),
    "waha": _one("auth", "data", "id", keeps_deleted=True),
    "waha_auth": _one("waha_auth", "value", "key", "session_id", keeps_deleted=True),
    "waha-mongo": _one("auth", "data", "key", keeps_deleted=True),
    "whaticket": Preset(
        (_WHATICKET, Table("BaileysKeys", "value", "key", session="whatsappId", kind="type"))
    ),
    "whaticket-free": _one("BaileysSessions", "value", "name", "whatsappId"),
    "whaticket-old": Preset((_WHATICKET,)),
    "whatsapp_auth": _one("whatsapp_auth", "data", session="id"),
}
"""By name. `prisma` is nizarfadlan/baileys-api, ookamiiixd/baileys-store and mrx-baileys-store; `keyv` is
rodrigogs/baileys-store."""


def _text(record: Mapping[str, object], column: str | None) -> str | None:
    value = None if column is None else record.get(column)
    return None if value is None else str(value)
