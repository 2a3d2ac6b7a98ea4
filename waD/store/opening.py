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
    engine = PostgresEngine(postgres, codec=parts.codec, vault=vault, upgrade=parts.upgrade, new_phase=phase)
    try:
        if vault.current is None and settings.encrypt is None:
            _refuse_the_clear(
                engine, vault, "sessions are encrypted, and store.kek_file names no key", "FILE"
            )
    except BaseException:
        engine.close()
        raise
    return engine


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
    if _refuse_the_clear(engine, vault, f"the key file {file} is gone", str(file)):
        return
    vault.add(MAIN, make_key(file))
    vault.current = MAIN
    _log.info(
        "auth states are encrypted from now on with the key in %s: without it, or a backup, every account in this "
        "database must be paired again",
        file,
    )


def _refuse_the_clear(engine: Engine, vault: Vault, what: str, file: str) -> bool:
    """Make nothing new while the key is gone: in the clear it would lie beside what is encrypted; says whether so."""
    if not any(row.kek_id is not None for row in engine.sessions(True)):
        return False
    vault.lost = (
        f"{what}, so no new auth state is stored: put it back, or the systemd credential wad-kek; or make a new key, "
        f'(umask 077; head -c 32 /dev/urandom | base64 >{file}.second), name it with store.kek = "second" and start '
        'again; or store new ones in the clear with store.encrypt = "off"'
    )
    _log.critical("sessions that are encrypted with a key that is not here cannot be used: %s", vault.lost)
    return True
