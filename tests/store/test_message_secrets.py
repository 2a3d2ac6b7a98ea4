"""Secrets of messages in a database: how they outlive keys, addresses and each other."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from tests.store.conftest import Raw, alone
from waD.store.engine import EncryptAuth, Prune, ResetAuth
from waD.store.model import SecretRow
from waD.store.sql import message_secrets
from waD.store.state import SessionState
from waD.store.store import Store, StoreSettings, open_store

PN, LID, OWN = "15550000002@s.whatsapp.net", "100000000000002@lid", "100000000000001@lid"


@pytest.fixture(params=["sqlite", "postgres"])
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def encrypted(settings: StoreSettings, tmp_path: Path) -> StoreSettings:
    file = tmp_path / "keys" / "kek"
    file.parent.mkdir()
    file.write_bytes(bytes(32))
    file.chmod(0o400)
    return msgspec.structs.replace(settings, encrypt=True, kek_file=file)


@pytest.fixture
async def store(encrypted: StoreSettings) -> AsyncIterator[Store]:
    async with open_store(encrypted) as opened:
        yield alone(opened)


@pytest.fixture
async def state(store: Store) -> SessionState:
    return await attached(store)


async def attached(store: Store) -> SessionState:
    return await store.attach((await store.create_session("alerts")).id, "test")


def secret(number: int, chat: str = LID, sender: str = LID, **more: int | None) -> SecretRow:
    return SecretRow(
        chat=chat,
        sender=sender,
        message_id=f"A{number:03d}",
        wire_sender=sender,
        secret=bytes([number]) * 32,
        message_ts=more.get("ts") or 5,
        expires_at=more.get("expires"),
    )


async def keep(state: SessionState, *rows: SecretRow) -> None:
    unit = state.unit()
    for row in rows:
        unit.keep_secret(row)
    await state.commit(unit)


async def kept(state: SessionState) -> list[SecretRow]:
    engine = state._store.engine
    found: list[SecretRow] = []
    after: tuple[str, str, str] | None = ("", "", "")
    while after is not None:
        rows, after = await state._store.read(engine.secrets, state.session_id, after, 3)
        found += rows
    return found


async def moved(state: SessionState, old: str, new: str) -> list[SecretRow]:
    unit = state.unit()
    unit.move_person(old, new)
    await state.commit(unit)
    return await kept(state)


async def test_a_reset_leaves_them_under_the_new_key(
    state: SessionState, raw: Raw, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(message_secrets, "RECODED", 2)
    rows = [secret(number) for number in range(5)]
    await keep(state, *rows)
    before = {bytes(value) for (value,) in raw("SELECT secret FROM wa_message_secrets")}
    await state.reset_auth(b'{"who":"new"}')
    assert await kept(state) == rows
    after = {bytes(value) for (value,) in raw("SELECT secret FROM wa_message_secrets")}
    assert len(after) == 5
    assert not before & after


async def test_what_was_in_the_clear_is_encrypted_page_by_page(
    settings: StoreSettings, encrypted: StoreSettings, raw: Raw, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(message_secrets, "RECODED", 2)
    rows = [secret(number) for number in range(5)]
    async with open_store(msgspec.structs.replace(settings, encrypt=False)) as store:
        await keep(await attached(alone(store)), *rows)
    assert {len(value) for (value,) in raw("SELECT secret FROM wa_message_secrets")} == {32}
    async with open_store(encrypted) as store:
        state = await attached(alone(store))
        await store.write(EncryptAuth(state.session_id, state.row.lease_token))
        assert await kept(state) == rows
    assert {len(value) for (value,) in raw("SELECT secret FROM wa_message_secrets")} == {60}


async def test_a_damaged_one_costs_itself_alone(
    state: SessionState, store: Store, raw: Raw, caplog: pytest.LogCaptureFixture
) -> None:
    await keep(state, secret(1), secret(2))
    # Another row's content is damage as well: it is bound to its message.
    raw(
        "UPDATE wa_message_secrets SET secret=(SELECT secret FROM wa_message_secrets WHERE message_id='A001') "
        "WHERE message_id='A002'"
    )
    assert await kept(state) == [secret(1)]
    assert await state.message_secret([LID], [LID], "A002") is None
    assert "is damaged and is left out" in caplog.text
    await store.write(ResetAuth(state.session_id, state.row.lease_token, b'{"who":"new"}'))
    assert await kept(state) == [secret(1)]
    assert raw("SELECT count(*) FROM wa_message_secrets")[0][0] == 1


async def test_a_person_gets_another_address(state: SessionState) -> None:
    await keep(state, secret(1, PN, PN), secret(2, PN, OWN), secret(3, "7@g.us", PN), secret(4, OWN, OWN))
    found = await moved(state, PN, LID)
    assert {(row.chat, row.sender, row.wire_sender, row.message_id) for row in found} == {
        (LID, LID, PN, "A001"),
        (LID, OWN, OWN, "A002"),
        ("7@g.us", PN, PN, "A003"),  # readers ask for both
        (OWN, OWN, OWN, "A004"),
    }
    assert [row.secret[0] for row in sorted(found, key=lambda row: row.message_id)] == [1, 2, 3, 4]


async def test_where_both_addresses_have_one_the_new_one_stays(state: SessionState) -> None:
    newer = msgspec.structs.replace(secret(1), secret=bytes(32))
    await keep(state, secret(1, PN, PN), newer, secret(2, PN, PN), secret(2, PN, LID))
    found = {(row.chat, row.sender, row.message_id): row.secret for row in await moved(state, PN, LID)}
    assert found[LID, LID, "A001"] == bytes(32)
    assert found[LID, LID, "A002"] == bytes([2]) * 32
    assert len(found) == 4  # nothing is deleted: it goes when it is old


async def test_they_go_when_their_time_has_come(store: Store, state: SessionState) -> None:
    rows = [secret(1, expires=10), secret(2, expires=20), secret(3)]
    await keep(state, *rows)
    assert await store.write(Prune(10, 10**9, 10**9, 10**9)) == 0
    assert await store.write(Prune(15, 10**9, 10**9, 10**9)) == 1
    assert await kept(state) == rows[1:]
    assert await store.write(Prune(10**6, 10**9, 10**9, 10**9)) == 1
    assert await kept(state) == rows[2:]


async def test_other_sessions_have_their_own(store: Store, state: SessionState) -> None:
    other = await store.attach((await store.create_session("jobs")).id, "test")
    await keep(state, secret(1))
    await keep(other, msgspec.structs.replace(secret(1), secret=bytes(32)))
    await other.reset_auth(b'{"who":"new"}')
    assert await kept(state) == [secret(1)]
    assert (await kept(other))[0].secret == bytes(32)
