"""Removing what is past its time from the store: events, retry bookkeeping, finished outbox rows. Never messages."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import trio

from waD.config import Settings
from waD.store.errors import StoreError
from waD.store.keks import credential_file
from waD.store.postgres.settings import PostgresSettings, password_credential
from waD.store.store import Store, StoreSettings

EVERY_S: Final = 3600.0
PAUSE_S: Final = 1.0
"""Between two batches: others write in the meantime."""

_log = logging.getLogger(__name__)


async def run_retention(store: Store, unix_ms: Callable[[], int]) -> None:
    """Prune at the start and every hour, in bounded batches, until cancelled."""
    while True:
        try:
            await prune_all(store, unix_ms)
        except StoreError as error:
            _log.warning("what is past its time stays for another hour: %s", error)
        await trio.sleep(EVERY_S)


async def prune_all(store: Store, unix_ms: Callable[[], int]) -> int:
    """Prune until nothing is left to remove; returns how many rows went.

    Raises:
        StoreError: the store cannot be written.
    """
    total = 0
    while went := await store.prune(unix_ms()):
        total += went
        await trio.sleep(PAUSE_S)
    if total:
        _log.info("%d rows were past their time and are removed", total)
    return total


_ON_OFF: Final = {"on": True, "off": False, "auto": None}


def store_settings(
    settings: Settings, credentials: str | None = None, *, unsafe_durability: bool = False
) -> StoreSettings:
    """The part of the settings that the store takes.

    Args:
        settings: in force.
        credentials: the directory of the process's systemd credentials.
        unsafe_durability: accept a database that may lose commits, whatever the settings say.
    """
    store = settings.store
    postgres = None
    if store.url is not None:
        postgres = PostgresSettings(
            url=store.url,
            password_file=store.password_file or password_credential(credentials),
            unsafe_durability=unsafe_durability or store.unsafe_durability,
            connections=store.connections,
        )
    return StoreSettings(
        path=store.path,
        postgres=postgres,
        kek_file=store.kek_file or credential_file(credentials),
        kek=store.kek,
        lease_ms=round(store.lease_s * 1000),
        encrypt=_ON_OFF[store.encrypt],
        legacy=store.legacy == "on" or (store.legacy == "auto" and postgres is not None),
        event_days=settings.events.days,
        events_per_session=settings.events.rows,
        outbox_days=settings.outbox.keep_days,
    )
