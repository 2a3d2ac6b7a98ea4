"""Which engine, with which keys: blocking, called once at the start."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Final

from waD.store.engine import Engine
from waD.store.errors import StoreForbidden
from waD.store.keks import MAIN, make_key, read_keys
from waD.store.phases import Phase
from waD.store.postgres.settings import PostgresSettings
from waD.store.vault import Vault

if TYPE_CHECKING:
    from waD.store.store import Parts, StoreSettings

KEY_SUFFIX: Final = ".kek"

_log = logging.getLogger(__name__)


def open_engine(settings: StoreSettings, parts: Parts) -> Engine:
    """Open the database, with the keys that are there.

    Raises:
        StoreError: it cannot be used; nothing was changed.
    """
    phase: Phase = "snapshot_primary" if settings.legacy else "cut_over"
    if settings.postgres is not None:
        return _open_postgres(settings, settings.postgres, parts, phase)
    from waD.store.sqlite.engine import SqliteEngine

    vault = load_vault(settings, settings.kek_file or default_key_file(settings.path))
    engine = SqliteEngine(
        settings.path, codec=parts.codec, vault=vault, upgrade=parts.upgrade, new_phase=phase
    )
    try:
        if vault.current is None and settings.encrypt is None and settings.kek_file is None:
            _begin_to_encrypt(engine, vault, default_key_file(settings.path))
    except BaseException:
        engine.close()
        raise
    return engine


def _open_postgres(settings: StoreSettings, postgres: PostgresSettings, parts: Parts, phase: Phase) -> Engine:
    """Several daemons may use the server, so that no key can be made here and lie beside it."""
    try:
        from waD.store.postgres.engine import PostgresEngine
    except ImportError as error:
        raise StoreForbidden(
            f"store.url names a PostgreSQL server, and its driver is missing ({error}): pip install 'wactl[postgres]'"
        ) from None
    vault = load_vault(settings, settings.kek_file)
    return PostgresEngine(postgres, codec=parts.codec, vault=vault, upgrade=parts.upgrade, new_phase=phase)


def default_key_file(database: Path) -> Path:
    """The key of a database file lies beside it."""
    return database.with_name(database.name + KEY_SUFFIX)


def load_vault(settings: StoreSettings, file: Path | None) -> Vault:
    """The keys in and beside a file.

    Raises:
        StoreForbidden: encryption is wanted and the key is not there, or a key may not be used.
    """
    keys = {} if file is None else read_keys(file)
    wanted = settings.encrypt is not False
    named = settings.kek_file is not None or settings.kek != MAIN
    if wanted and settings.kek not in keys and (settings.encrypt or named):
        raise StoreForbidden(
            f"the key {settings.kek!r} that auth states are to be encrypted with is not at {file or 'store.kek_file'}: "
            f"put it there, or make one with: head -c 32 /dev/urandom | base64 >{file or 'FILE'}"
        )
    return Vault(keys, settings.kek if wanted and settings.kek in keys else None)


def _begin_to_encrypt(engine: Engine, vault: Vault, file: Path) -> None:
    """Make the key of a database in which nothing is encrypted yet; one that is lost is never replaced."""
    if any(row.kek_id is not None for row in engine.sessions(True)):
        _log.critical("the key file %s is gone; sessions that are encrypted with it cannot be used", file)
        return
    vault.add(MAIN, make_key(file))
    vault.current = MAIN
    _log.info(
        "auth states are encrypted from now on with the key in %s: without it, or a backup, every account in this "
        "database must be paired again",
        file,
    )
