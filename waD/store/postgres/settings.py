"""How a PostgreSQL server is reached; without its driver, which those who use SQLite need not have."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from msgspec import Struct

CREDENTIAL: Final = "wad-postgres-password"
"""Name of the systemd credential that holds the password."""


def password_credential(directory: str | None) -> Path | None:
    """Where systemd puts the password, if the unit has one.

    Args:
        directory: of the process's credentials, `$CREDENTIALS_DIRECTORY`.
    """
    file = Path(directory) / CREDENTIAL if directory else None
    return file if file is not None and file.exists() else None


class PostgresSettings(Struct, frozen=True, kw_only=True):
    """How the database is reached and used.

    Attributes:
        url: `postgresql://USER@HOST[:PORT]/DATABASE[?PARAMETERS]`, as libpq reads it.
        password_file: holds the password in its first line.
        unsafe_durability: run although the server may lose commits.
        connections: how many there are for reading; one more writes, and one listens.
        wait_s: how long a database that does not answer is waited for (chapter 08 §0 R6).
    """

    url: str
    password_file: Path | None = None
    unsafe_durability: bool = False
    connections: int = 4
    wait_s: float = 30.0

    def __repr__(self) -> str:
        return f"PostgresSettings(connections={self.connections}, unsafe_durability={self.unsafe_durability})"
