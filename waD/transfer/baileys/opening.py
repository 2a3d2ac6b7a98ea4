"""One way in for every source that is known: a directory, a database, or an exported file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from waD.transfer.baileys.directory import read_directory
from waD.transfer.baileys.dumps import Format, read_dump
from waD.transfer.baileys.postgres import read_postgres
from waD.transfer.baileys.presets import Preset
from waD.transfer.baileys.redis_dump import is_redis_dump, read_redis_dump
from waD.transfer.baileys.source import BaileysItems
from waD.transfer.baileys.sql import read_sql_dump, read_sqlite
from waD.transfer.sources.files import beginning
from waD.transfer.sources.sql_statements import is_sql
from waD.transfer.sources.sqlite import MAGIC

_URL_SCHEMES: Final = ("postgres://", "postgresql://")
_START: Final = 4096
"""Bytes of a file that tell what it is."""


def read_source(
    location: str,
    *,
    now_ms: int,
    stopped: bool = False,
    session: str | None = None,
    preset: Preset | None = None,
    form: Format | None = None,
) -> BaileysItems:
    """Read one session of Baileys, whatever it is in.

    Args:
        location: path of a directory, an SQLite file, a dump or an exported file, or URL of a PostgreSQL database.
        now_ms: current Unix time in ms.
        stopped: somebody says that the old program does not run; databases are not read without that.
        session: which one, when there are several.
        preset: which program wrote it, or which table it is; None: found out.
        form: what an exported file is; None: found out.

    Raises:
        SourceRefused: it was not read.
    """
    if location.startswith(_URL_SCHEMES):
        return read_postgres(location, preset, stopped=stopped, session=session)
    path = Path(location)
    if os.path.isdir(path):  # Path.is_dir raises for names that no file can have
        return read_directory(path, now_ms=now_ms, stopped=stopped)
    start = beginning(path, _START, other="not_baileys")
    if is_redis_dump(start) and form in (None, "redis"):
        return read_redis_dump(path, session=session)
    if form is None and start.startswith(MAGIC):
        return read_sqlite(path, preset, now_ms=now_ms, stopped=stopped, session=session)
    if form is None and is_sql(start):
        return read_sql_dump(path, preset, session=session)
    table = preset.tables[0] if preset is not None and len(preset.tables) == 1 else None
    keeps_deleted = preset is not None and preset.keeps_deleted
    return read_dump(path, form=form, table=table, session=session, keeps_deleted=keeps_deleted)
