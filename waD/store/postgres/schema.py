"""Whether a server can be trusted with what we store, and its schema (chapter 08 §0 R9, §6.2)."""

from __future__ import annotations

import os
import socket
from typing import Any, Final

from waD.store.errors import StoreDamaged, StoreForbidden, StoreTooNew
from waD.store.migrations import Migration, steps_of
from waD.store.postgres.link import Link
from waD.store.postgres.place import Place

MIN_VERSION: Final = 140_000
DURABLE: Final[dict[str, frozenset[str]]] = {
    "synchronous_commit": frozenset({"on", "remote_apply"}),
    "fsync": frozenset({"on"}),
    "full_page_writes": frozenset({"on"}),
}
"""What these settings must be; a server that lacks one of them has other means, and is not asked for it."""
_FACTS: Final = (
    "SELECT current_setting('server_version_num')::int, current_setting('server_encoding'), "
    + ", ".join(f"current_setting('{name}', true)" for name in DURABLE)
)
_LOCK: Final = "pg_advisory_lock(hashtext('wad.migrate'))"
_UNLOCK: Final = "pg_advisory_unlock(hashtext('wad.migrate'))"
_TABLE: Final = (
    "CREATE TABLE wa_schema_migrations (version integer PRIMARY KEY, name text NOT NULL, "
    "checksum bytea NOT NULL CHECK (length(checksum) = 32), applied_at timestamptz NOT NULL DEFAULT now(), "
    "applied_by text NOT NULL)"
)
_THERE: Final = (
    "SELECT to_regclass('wa_schema_migrations') IS NOT NULL, to_regclass('wa_sessions') IS NOT NULL"
)
_APPLIED: Final = "SELECT version, checksum FROM wa_schema_migrations"
_RECORD: Final = (
    "INSERT INTO wa_schema_migrations (version, name, checksum, applied_by) VALUES ($1, $2, $3, $4)"
)


def migrations() -> list[Migration]:
    """All steps, in order."""
    return steps_of("waD.store.postgres")


def weaknesses(link: Link, place: Place) -> list[str]:
    """Settings with which the server may lose what it has confirmed.

    Raises:
        StoreForbidden: the server is too old, or the database has an encoding that does not hold all text.
    """
    version, encoding, *settings = _row(link, _FACTS)
    if version < MIN_VERSION:
        raise StoreForbidden(
            f"{place} runs PostgreSQL {version // 10_000}, and {MIN_VERSION // 10_000} is the oldest that will do"
        )
    if encoding != "UTF8":
        raise StoreForbidden(f"{place} has the encoding {encoding}: create the database with ENCODING 'UTF8'")
    return [
        f"{name} = {value}"
        for (name, wanted), value in zip(DURABLE.items(), settings, strict=True)
        if value is not None and value not in wanted
    ]


def check_durability(link: Link, place: Place, unsafe: bool) -> list[str]:
    """The weaknesses that are to be put up with.

    Raises:
        StoreForbidden: there are some, and nobody said that they may be.
    """
    found = weaknesses(link, place)
    if found and not unsafe:
        raise StoreForbidden(
            f"{place} may lose what it has confirmed ({', '.join(found)}), and a lost commit can cost an account its "
            "login: change that on the server or for the role, or accept it with --unsafe-durability"
        )
    return found


def migrate(link: Link, place: Place) -> None:
    """Bring the schema up to date; only one process does at a time.

    Raises:
        StoreTooNew: a newer program has migrated it.
        StoreDamaged: it was made by another build, or the tables are not ours.
    """
    if not _missing(link, place):
        return
    link.execute(f"SELECT {_LOCK}")
    try:
        for step in _missing(link, place):
            _apply(link, step)
    finally:
        if not link.closed:
            link.execute(f"SELECT {_UNLOCK}")


def _missing(link: Link, place: Place) -> list[Migration]:
    """The steps to apply, after a look at those that were."""
    recorded, sessions = _row(link, _THERE)
    if not recorded and sessions:
        raise StoreDamaged(f"{place} has tables of this program without its records: name another database")
    steps, applied = migrations(), _applied(link) if recorded else {}
    newest = max(applied, default=0)
    if newest > steps[-1].version:
        raise StoreTooNew(
            f"{place} has schema version {newest}, and this program knows {steps[-1].version}: "
            "install the newer program again, or restore a backup made before it ran"
        )
    for step in steps:
        if applied.get(step.version, step.checksum) != step.checksum:
            raise StoreDamaged(
                f"{place} was made by another build: its schema step {step.version} differs from ours; "
                "install that build again, or name another database"
            )
    return [step for step in steps if step.version not in applied]


def _applied(link: Link) -> dict[int, bytes]:
    return dict(link.cursor().execute(_APPLIED, (), binary=True).fetchall())


def _apply(link: Link, step: Migration) -> None:
    with link.transaction():
        (there, _) = _row(link, _THERE)
        if not there:
            link.execute(_TABLE)
        link.execute(step.script.encode())
        who = f"{socket.gethostname()}/{os.getpid()}"
        link.execute(_RECORD, (step.version, step.name, step.checksum, who))


def _row(link: Link, query: str) -> tuple[Any, ...]:
    found = link.cursor().execute(query.encode(), (), binary=True).fetchone()
    assert found is not None
    return found
