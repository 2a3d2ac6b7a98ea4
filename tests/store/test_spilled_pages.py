"""A crash of the process right behind a commit, in which a large job was refused: what was committed is there."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path

from waD.store.engine import CommitUnit, CreateSession, ReleaseLease
from waD.store.model import OutboxRow
from waD.store.sqlite.engine import SqliteEngine
from waD.store.unit import Unit

MANY = 30


def refused() -> Unit:
    """Fills more pages than there is cache for, before the last row turns out to be one too many."""
    unit = Unit()
    for number in range(MANY):
        name = f"M{number % (MANY - 1)}"
        unit.enqueue(
            OutboxRow(client_ref=f"r{number}", chat="1@lid", message_id=name, payload={"text": "x" * 500})
        )
    return unit


def as_a_killed_process_leaves_it(path: Path, target: Path) -> Path:
    target.mkdir()
    for suffix in ("", "-wal"):
        shutil.copyfile(f"{path}{suffix}", target / f"waD.db{suffix}")
    return target / "waD.db"


def test_a_commit_is_found_again_in_the_log(tmp_path: Path) -> None:
    path = tmp_path / "state" / "waD.db"
    path.parent.mkdir()
    with closing(SqliteEngine(path)) as engine:
        engine._db.execute("PRAGMA cache_size=4")
        (row,) = engine.write([CreateSession("alerts")])
        done, failed = engine.write([ReleaseLease(row.id, 0), CommitUnit(row.id, 1, refused())])
        assert done == 1
        assert isinstance(failed, ValueError)
        copy = as_a_killed_process_leaves_it(path, tmp_path / "copy")
    with closing(SqliteEngine(copy)) as engine:
        found = engine.session(row.id)
        assert found is not None
        assert found.lease_token == 1
