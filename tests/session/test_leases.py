"""Which sessions a daemon that shares its database may take up."""

from __future__ import annotations

from typing import Final

import pytest

from tests.store.conftest import Raw, raw, server, settings  # noqa: F401 - fixtures
from waD.session.holders import own_holder
from waD.session.leases import without_a_daemon
from waD.store.engine import ReleaseLease
from waD.store.store import Store, StoreSettings, open_store

ELSEWHERE: Final = "far/1/boot/uuid"


@pytest.fixture
def backend() -> str:
    """Only a server is shared."""
    return "postgres"


async def names(store: Store) -> list[str]:
    return [row.name for row in await without_a_daemon(store)]


async def test_what_nobody_runs(settings: StoreSettings, raw: Raw) -> None:  # noqa: F811
    async with open_store(settings) as store:
        rows = {name: await store.create_session(name) for name in ("ended", "kept", "left", "new", "dead")}
        for name in ("ended", "kept", "left"):
            await store.attach(rows[name].id, ELSEWHERE)
        host, _, boot, _ = own_holder().split("/")
        await store.attach(rows["dead"].id, f"{host}/4194305/{boot}/uuid")  # above every process id
        left = await store.session("left")
        assert left is not None
        await store.write(ReleaseLease(left.id, left.lease_token))
        raw(
            "UPDATE wa_sessions SET lease_expires_at = clock_timestamp() - interval '1 ms' WHERE name = 'ended'"
        )
        assert await names(store) == ["dead", "ended", "left", "new"]
        await store.update_session(rows["new"].id, desired_state="retired")
        assert await names(store) == ["dead", "ended", "left"]
