"""One way in for every source that is known: a directory, a database, or an exported file."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from waD.transfer.baileys.directory import read_directory
from waD.transfer.baileys.dumps import Format, read_dump
from waD.transfer.baileys.postgres import read_postgres
from waD.transfer.baileys.presets import Preset
from waD.transfer.baileys.source import BaileysItems
from waD.transfer.baileys.sql import read_sqlite
from waD.transfer.sources.errors import SourceRefused

_URL_SCHEMES: Final = ("postgres://", "postgresql://")
_SQLITE: Final = b"SQLite format 3\x00"


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
        location: path of a directory, an SQLite file or an exported file, or URL of a PostgreSQL database.
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
    if path.is_dir():
        return read_directory(path, now_ms=now_ms, stopped=stopped)
    if form is None and _starts(path, _SQLITE):
        return read_sqlite(path, preset, now_ms=now_ms, stopped=stopped, session=session)
    table = preset.tables[0] if preset is not None and len(preset.tables) == 1 else None
    keeps_deleted = preset is not None and preset.keeps_deleted
    return read_dump(path, form=form, table=table, session=session, keeps_deleted=keeps_deleted)


def _starts(path: Path, magic: bytes) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(magic)) == magic
    except FileNotFoundError:
        raise SourceRefused("source_missing", f"there is nothing at {path}") from None
    except OSError as error:
        raise SourceRefused("source_unreachable", f"cannot read {path}: {error.strerror}") from None
