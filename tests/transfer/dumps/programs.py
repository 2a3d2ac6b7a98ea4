"""Dumps as the databases' own programs make them."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Final

from tests.store.postgres_server import binaries

SQLITE_SHELL: Final = shutil.which("sqlite3")


def iterdump(path: Path) -> bytes:
    """What Python makes of an SQLite database."""
    with closing(sqlite3.connect(path)) as connection:
        return ("\n".join(connection.iterdump()) + "\n").encode()


def shell_dump(path: Path) -> bytes:
    """What SQLite's shell makes of it."""
    return subprocess.run([str(SQLITE_SHELL), path, ".dump"], capture_output=True, check=True).stdout


def pg_dump(url: str, *options: str) -> bytes:
    """What PostgreSQL's program makes of a database; it comes with the server."""
    place = binaries()
    assert place is not None
    return subprocess.run([place / "pg_dump", url, *options], capture_output=True, check=True).stdout
