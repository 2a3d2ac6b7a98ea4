"""Stores of waD that a command line names: how they are opened, and with which key (chapter 08 §8)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from waD.store.engine import Engine
from waD.store.errors import (
    KekUnavailable,
    LeaseLost,
    SessionLeased,
    StorageUnavailable,
    StoreDamaged,
    StoreError,
    StoreForbidden,
    StoreLocked,
    StoreTooNew,
)
from waD.store.keks import credential_file, read_keys
from waD.store.model import SessionRow
from waD.store.opening import default_key_file, open_engine
from waD.store.postgres.settings import PostgresSettings, password_credential
from waD.store.store import Parts, StoreSettings
from waD.transfer.legacy import LegacyCodec
from waD.transfer.migrating.places import Place
from waD.transfer.upgrade import upgrade_item

PARTS: Final = Parts(codec=LegacyCodec(), upgrade=upgrade_item)
WAIT_S: Final = 10.0
"""For a database that does not answer: somebody waits for the command, which can be given again."""
_READ_ONLY: Final = "25006"


class StoreRefused(Exception):  # noqa: N818 - what is the case
    """A store cannot be opened or used; nothing was changed.

    The codes: `source_missing`, `session_in_use`, `store_too_new`, `store_unreachable`, `store_forbidden`,
    `store_read_only`, `store_damaged`, `store_unusable`, `config_invalid`, `url_invalid`, `key_missing`, `key_wrong`,
    `key_unusable`, `key_misplaced`.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class Key(NamedTuple):
    """Where the key that a store is encrypted with is.

    Attributes:
        option: of the command, that names it.
        file: what was named.
    """

    option: str
    file: Path | None


def named(place: Place, key: Key, *, careful: bool, credentials: str | None) -> StoreSettings:
    """How a store is opened that is named by a path or a URL.

    Args:
        place: of a store.
        key: what was said about its key.
        careful: change nothing about how it is encrypted.
        credentials: the directory of the process's systemd credentials; the key there opens a store that needs one.

    Raises:
        StoreRefused: the URL makes no sense, or the key cannot be used.
    """
    check_key(key)
    encrypt = False if careful else None
    if place.scheme == "sqlite":
        settings = StoreSettings(path=canonical(Path(place.location)), kek_file=key.file, encrypt=encrypt)
    else:
        url = PostgresSettings(
            url=place.location, password_file=password_credential(credentials), wait_s=WAIT_S
        )
        server_name(url)  # or what is wrong with it
        settings = StoreSettings(
            path=Path("unused"), postgres=url, kek_file=key.file, encrypt=encrypt, legacy=True
        )
    return settings


def _with_credential(settings: StoreSettings, credentials: str | None) -> StoreSettings | None:
    """The same with the credential as its key; None where there is none, or another key comes first."""
    credential = credential_file(credentials)
    if credential is None or settings.kek_file is not None:
        return None
    if settings.postgres is None and (not settings.path.exists() or default_key_file(settings.path).exists()):
        return None
    return msgspec.structs.replace(settings, kek_file=credential)


def canonical(path: Path) -> Path:
    """The same file by the same name, from whatever directory it was named: a move knows its stores by that."""
    return path.parent.resolve() / path.name


def check_key(key: Key) -> None:
    """Look at a key file that was named.

    Raises:
        StoreRefused: there is no key in it, or it must not be used.
    """
    if key.file is None:
        return
    try:
        found = read_keys(key.file)
    except StoreForbidden as error:
        raise StoreRefused("key_unusable", f"{key.option}: {error}") from None
    if not found:
        raise StoreRefused("key_unusable", f"{key.option}: there is no key at {key.file}")


def server_name(settings: PostgresSettings) -> str:
    """What the engine calls a server, open or not.

    Raises:
        StoreRefused: the URL makes no sense, or the driver is missing.
    """
    try:
        from waD.store.postgres.place import Place as Server
    except ImportError as error:
        raise StoreRefused(
            "store_forbidden",
            f"the driver for PostgreSQL is missing ({error}): pip install 'wactl[postgres]'",
        ) from None
    try:
        return str(Server(settings))
    except StoreForbidden as error:
        raise StoreRefused("url_invalid", str(error).replace("store.url", "the URL")) from None


@contextmanager
def opened(settings: StoreSettings, *, create: bool, credentials: str | None = None) -> Iterator[Engine]:
    """A store, for the life of the block; the credential is its key only if sessions there are encrypted already.

    Otherwise a session would be encrypted with a key that whoever else uses that store has not.

    Raises:
        StoreRefused: it cannot be opened.
    """
    if settings.postgres is None and not create and not settings.path.exists():
        raise StoreRefused("source_missing", f"there is no database at {settings.path}")
    other = _with_credential(settings, credentials)
    if other is not None:
        with _opened(msgspec.structs.replace(settings, encrypt=False)) as engine:
            encrypted = any(row.kek_id is not None for row in engine.sessions(True))
        settings = other if encrypted else settings
    with _opened(settings) as engine:
        yield engine


@contextmanager
def _opened(settings: StoreSettings) -> Iterator[Engine]:
    try:
        engine = open_engine(settings, PARTS)
    except (StoreError, OSError) as error:
        raise refusal(error) from None
    try:
        yield engine
    finally:
        engine.close()


def refusal(error: Exception, hint: str = "") -> StoreRefused:
    """What a store raised, as a refusal.

    Args:
        error: what it raised.
        hint: about keys.
    """
    if isinstance(error, KekUnavailable):
        return StoreRefused("key_missing", f"{error}{hint}")
    if getattr(error.__cause__, "sqlstate", None) == _READ_ONLY:
        return StoreRefused("store_read_only", str(error))
    for kinds, code in _CODES:
        if isinstance(error, kinds):
            return StoreRefused(code, str(error))
    return StoreRefused("store_unusable", str(error))


_CODES: Final[tuple[tuple[tuple[type[Exception], ...], str], ...]] = (
    ((StoreLocked, SessionLeased, LeaseLost), "session_in_use"),
    ((StoreTooNew,), "store_too_new"),
    ((StoreForbidden,), "store_forbidden"),
    ((StoreDamaged,), "store_damaged"),
    ((StorageUnavailable,), "store_unreachable"),
)


# ------------------------------------------------------------------------------------------------------------- keys


def require_key(engine: Engine, name: str, key: Key) -> None:
    """The source's key must be the one that its session is encrypted with.

    Raises:
        StoreRefused: it is not.
        StoreError: the store cannot be read.
    """
    row = engine.session(name)
    if row is not None and row.kek_id is not None and not _opens(engine, row):
        raise _refused_key(engine, row, key)


def require_keys(engine: Engine, key: Key, *, careful: bool) -> None:
    """A destination that encrypts its sessions must get the key for that: what comes would lie there in the clear.

    Args:
        engine: the destination.
        key: what was said about its key.
        careful: nothing is going to be encrypted.

    Raises:
        StoreRefused: it is missing, or another one.
        StoreError: the store cannot be read.
    """
    there = _encrypted(engine)
    ids, current = engine.kek_ids()
    same = [row for row in there if row.kek_id == current] if current is not None else there
    if same and not any(_opens(engine, row) for row in same):
        raise _refused_key(engine, same[0], key)
    if there and current is None and not careful:
        raise StoreRefused(
            "key_missing",
            f"sessions in {engine.name} are encrypted, and of its keys only {', '.join(ids)} are here, none to encrypt "
            f"another one with: it is the one in the file itself that {key.option} names",
        )


def _encrypted(engine: Engine) -> list[SessionRow]:
    return [row for row in engine.sessions(False) if row.kek_id is not None]


def _opens(engine: Engine, row: SessionRow) -> bool:
    try:
        engine.creds(row.id)
    except KekUnavailable:
        return False
    except StoreDamaged:
        return True
    return True


def _refused_key(engine: Engine, row: SessionRow, key: Key) -> StoreRefused:
    ids, _ = engine.kek_ids()
    what = f"session {row.name!r} in {engine.name} is encrypted with the key {row.kek_id!r}"
    if row.kek_id in ids:
        return StoreRefused(
            "key_wrong",
            f"{what}, and the one of that name that is here is another: name its file with {key.option}",
        )
    return StoreRefused("key_missing", f"{what}, which is not here: name its file with {key.option}")


def credentials_directory() -> str | None:
    """Of this process."""
    return os.environ.get("CREDENTIALS_DIRECTORY")
