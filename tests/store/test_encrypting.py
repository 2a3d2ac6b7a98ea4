"""States in the clear that are encrypted later, keys that are wrapped anew, and the purge of history."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from tests.store.conftest import Raw, alone
from tests.store.rows_codec import RowsCodec
from tests.store.test_store import queued, text
from waD.store.engine import EncryptAuth, MovePhase, Purge, Purged, RewrapAuth, Rewrapped
from waD.store.errors import KekUnavailable, LeaseLost
from waD.store.model import SecretRow
from waD.store.state import SessionState
from waD.store.store import Parts, Store, StoreSettings, open_store

SECRET = b'"ratchet secret"'


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """Two keys of the operator's, `main` and `next`."""
    file = tmp_path / "keys" / "kek"
    file.parent.mkdir()
    for path, byte in ((file, 1), (file.with_name("kek.next"), 2)):
        path.write_bytes(bytes([byte]) * 32)
        path.chmod(0o400)
    return file


@pytest.fixture(params=["sqlite", "postgres"])
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def clear(settings: StoreSettings) -> StoreSettings:
    """A database in which nothing is encrypted."""
    return msgspec.structs.replace(settings, encrypt=False, legacy=True)


KEPT = SecretRow(
    chat="2@lid", sender="9@lid", message_id="OUT0", wire_sender="9@lid", secret=b"secret of the message, 32 bytes.",
    message_ts=5,
)  # fmt: skip


def lose(key: Path) -> None:
    key.unlink()


async def fill(state: SessionState, store: Store) -> None:
    for number, value in enumerate((b'"older"', SECRET)):
        unit = state.unit()
        unit.put("session", "2.0", value)
        unit.put("identity", "2.0", b'"clear"')
        unit.set_creds(b'{"who":"secret us"}')
        unit.enqueue(queued(f"OUT{number}", f"ref{number}"))
        unit.keep_plaintext("2@lid", f"OUT{number}", b"secret plaintext")
        unit.keep_secret(KEPT)
        await state.commit(unit)
        await store.seal(state.session_id, "manual")


async def check(store: Store, state: SessionState) -> None:
    """Everything is as it was filled in."""
    whole = await store.read(store.engine.auth_state, state.session_id)
    assert whole.creds == b'{"who":"secret us"}'
    assert {key: value for key, (_, value) in whole.items.items()} == {
        ("session", "2.0"): SECRET,
        ("identity", "2.0"): b'"clear"',
    }
    assert await state.item("session", "2.0") == SECRET
    assert [row.payload for row in await state.outbox()] == [{"text": "hi"}] * 2
    assert await state.plaintext(["2@lid"], "OUT0") == b"secret plaintext"
    assert await state.message_secret(["2@lid"], ["9@lid"], "OUT0") == KEPT
    sealed = [await store.sealed(state.session_id, seal) for seal in await store.seals(state.session_id)]
    assert [one.items["session", "2.0"] for one in sealed] == [SECRET, b'"older"']


def secrets_in(raw: Raw) -> list[str]:
    """Where the secrets can be read in the tables, besides the rows of the other service."""
    found = []
    for table, column in (
        ("wa_auth_items", "value"), ("wa_auth_snapshots", "snapshot"), ("wa_auth_sealed", "document"),
        ("wa_outbox", "payload"), ("wa_retry_buffer", "plaintext"),
        ("wa_message_secrets", "secret"),
    ):  # fmt: skip
        for (value,) in raw(f"SELECT {column} FROM {table}"):
            shown = bytes(value) if isinstance(value, bytes | memoryview) else str(value).encode()
            if b"secret" in shown or b'"hi"' in shown or b"'hi'" in shown:
                found.append(table)
    return found


async def test_a_state_in_the_clear_is_encrypted(clear: StoreSettings, keys: Path, raw: Raw) -> None:
    async with open_store(clear, Parts(codec=RowsCodec())) as store:
        row = await store.create_session("alerts")
        await fill(await alone(store).attach(row.id, "one"), store)
    assert set(secrets_in(raw)) == {
        "wa_auth_items", "wa_auth_snapshots", "wa_auth_sealed", "wa_outbox", "wa_retry_buffer", "wa_message_secrets",
    }  # fmt: skip
    with_key = msgspec.structs.replace(clear, encrypt=True, kek_file=keys)
    async with open_store(with_key, Parts(codec=RowsCodec())) as store:
        state = await alone(store).attach(row.id, "two")
        await check(store, state)
        assert await store.read(store.engine.kek_ids) == (["main", "next"], "main")
        before = await store.read(store.engine.auth_state, row.id)
        version = await store.write(EncryptAuth(row.id, state.row.lease_token))
        now = await store.session("alerts")
        assert now is not None
        assert (now.auth_version, now.auth_epoch, now.kek_id) == (version, row.auth_epoch, "main")
        assert version == 3
        assert await store.read(store.engine.auth_state, row.id) == before  # versions of the items included
        await check(store, state)
        assert secrets_in(raw) == []
        assert await store.write(EncryptAuth(row.id, state.row.lease_token)) == 0
        comparison = await store.read(store.engine.compare, row.id)
        assert comparison.equal
        unit = state.unit()
        unit.put("session", "3.0", b'"more"')
        await state.commit(unit)
        unit = state.unit()
        unit.delete("session", "3.0")
        await state.commit(unit)
        await store.write(MovePhase(row.id, state.row.lease_token, "cut_over", "test", {}))
    async with open_store(with_key, Parts(codec=RowsCodec())) as store:
        state = await alone(store).attach(row.id, "three")
        assert state.creds == b'{"who":"secret us"}'
        assert await state.item("session", "2.0") == SECRET


async def test_only_its_owner_encrypts_it_and_only_with_a_key(clear: StoreSettings, keys: Path) -> None:
    async with open_store(clear, Parts(codec=RowsCodec())) as store:
        row = await store.create_session("alerts")
        state = await alone(store).attach(row.id, "one")
        with pytest.raises(KekUnavailable, match=r"store\.kek_file"):
            await store.write(EncryptAuth(row.id, state.row.lease_token))
    with_key = msgspec.structs.replace(clear, encrypt=True, kek_file=keys)
    async with open_store(with_key, Parts(codec=RowsCodec())) as store:
        await alone(store).attach(row.id, "two")
        with pytest.raises(LeaseLost):
            await store.write(EncryptAuth(row.id, state.row.lease_token))
        found = await store.session("alerts")
        assert found is not None
        assert (found.kek_id, found.auth_version) == (None, 0)


async def test_another_key_takes_over_and_the_old_one_can_go(clear: StoreSettings, keys: Path) -> None:
    with_key = msgspec.structs.replace(clear, encrypt=True, kek_file=keys)
    async with open_store(with_key, Parts(codec=RowsCodec())) as store:
        row = await store.create_session("alerts")
        state = await alone(store).attach(row.id, "one")
        await fill(state, store)
        with pytest.raises(KekUnavailable, match="'nobody'"):
            await store.write(RewrapAuth(row.id, "nobody"))
        assert await store.write(RewrapAuth(row.id, "main")) == Rewrapped(own=False, seals=0)
        assert await store.write(RewrapAuth(row.id, "next")) == Rewrapped(own=True, seals=2)
        await check(store, state)
        unit = state.unit()
        unit.put("prekey", "1", b'"written meanwhile"')
        await state.commit(unit)
    lose(keys)
    async with open_store(msgspec.structs.replace(with_key, kek="next"), Parts(codec=RowsCodec())) as store:
        state = await alone(store).attach(row.id, "two")
        assert await state.item("prekey", "1") == b'"written meanwhile"'
        unit = state.unit()
        unit.delete("prekey", "1")
        await state.commit(unit)
        await check(store, state)


async def test_a_seal_whose_key_is_gone_leaves_everything_as_it_is(clear: StoreSettings, keys: Path) -> None:
    with_key = msgspec.structs.replace(clear, encrypt=True, kek_file=keys)
    async with open_store(with_key, Parts(codec=RowsCodec())) as store:
        row = await store.create_session("alerts")
        state = await alone(store).attach(row.id, "one")
        await fill(state, store)
    lose(keys)
    async with open_store(msgspec.structs.replace(with_key, kek="next"), Parts(codec=RowsCodec())) as store:
        with pytest.raises(KekUnavailable, match="'main'"):
            await store.write(RewrapAuth(row.id, "next"))
        found = await store.session("alerts")
        assert found is not None
        assert found.kek_id == "main"


# History.


@pytest.fixture
async def store(settings: StoreSettings) -> AsyncIterator[Store]:
    async with open_store(settings) as opened:
        yield alone(opened)


async def messages(store: Store, name: str, *rows: tuple[str, str, int]) -> str:
    session = await store.create_session(name)
    state = await store.attach(session.id, "test")
    unit = state.unit()
    for message_id, chat, at in rows:
        unit.add_message(text(message_id, chat=chat, sender=chat, ts=at))
    await state.commit(unit)
    return session.id


async def test_a_purge_takes_what_it_is_told_and_nothing_else(store: Store, raw: Raw) -> None:
    rows = [("A", "2@lid", 10), ("B", "2@lid", 20), ("C", "3@lid", 10), ("D", "3@lid", 30)]
    session = await messages(store, "alerts", *rows)
    other = await messages(store, "jobs", *rows)

    async def purge(chats: list[str] | None, before: int | None, limit: int = 100) -> int:
        count = await store.read(store.engine.message_count, session, chats, before)
        done = await store.write(Purge(session, chats, before, limit, "somebody"))
        assert isinstance(done, Purged)
        assert done.count == min(count, limit)
        return done.count

    async def left() -> set[str]:
        return {row.message_id for row in await store.messages(session)}

    assert await purge(["2@lid"], 15) == 1
    assert await left() == {"B", "C", "D"}
    assert await purge(None, 25, limit=1) == 1
    assert await left() == {"C", "D"}
    assert await purge(["nobody@lid"], None) == 0
    assert await purge(["3@lid", "2@lid"], None) == 2
    assert await left() == set()
    assert len(await store.messages(other)) == 4
    told = await store.events(types=["messages:purged"])
    assert [event.data["count"] for event in told] == [1, 1, 2]
    assert told[0].data == {"count": 1, "chats": ["2@lid"], "before": 15, "actor": "somebody"}
    assert told[0].session == "alerts"
    with pytest.raises(Exception, match=r"WA001|never deleted"):
        raw("DELETE FROM whatsapp_messages")
    assert len(await store.messages(other)) == 4


async def test_the_door_is_closed_again_in_the_same_transaction(store: Store, raw: Raw) -> None:
    session = await messages(store, "alerts", ("A", "2@lid", 10), ("B", "2@lid", 20))
    await store.write(Purge(session, None, 15, 10, "somebody"))
    with pytest.raises(Exception, match=r"WA001|never deleted"):
        raw("DELETE FROM whatsapp_messages")
    assert [row.message_id for row in await store.messages(session)] == ["B"]
