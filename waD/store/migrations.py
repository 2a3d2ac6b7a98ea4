"""Numbered steps of a schema, as the packages of the databases carry them."""

from __future__ import annotations

import hashlib
from importlib import resources
from typing import NamedTuple


class Migration(NamedTuple):
    """One numbered step of the schema."""

    version: int
    name: str
    script: str

    @property
    def checksum(self) -> bytes:
        """SHA-256 of the script; a recorded one that differs means another history."""
        return hashlib.sha256(self.script.encode()).digest()


def steps_of(package: str) -> list[Migration]:
    """All steps of a package's directory `migrations`, in order."""
    found = []
    for entry in (resources.files(package) / "migrations").iterdir():
        number, _, rest = entry.name.partition("_")
        if rest.endswith(".sql"):
            found.append(Migration(int(number), rest.removesuffix(".sql"), entry.read_text("utf-8")))
    return sorted(found)
