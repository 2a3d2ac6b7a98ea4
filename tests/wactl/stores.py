"""What `wactl migrate-auth` has made of stores, and what it refuses."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

from tests.wactl.conftest import Run, error_of
from waD.store.opening import open_engine
from waD.store.store import StoreSettings
from waD.transfer.migrating.opening import PARTS
from waD.transfer.migrating.stores import stored_state


def database(home: Path) -> Path:
    return home / "state" / "waD" / "waD.db"


def stored(path: Path, name: str = "alerts") -> Any:
    engine = open_engine(StoreSettings(path=path), PARTS)
    with closing(engine):
        row = engine.session(name)
        assert row is not None
        return row, stored_state(engine, row) if row.me_pn else None


def refused(run: Run, *words: str, name: str = "alerts") -> tuple[int, str, dict[str, Any]]:
    result = run("migrate-auth", *words, "--json", name)
    assert result.stdout == ""
    error = error_of(result)
    return result.exit_code, error["data"].get("code", ""), error
