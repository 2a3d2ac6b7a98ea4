"""Where the operator's keys are, what is refused, and how a database gets one."""

from __future__ import annotations

import base64
import os
import pwd
import socket
import stat
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tests.store.test_damage import Raw, raw_in
from waD.store.engine import CreateSession
from waD.store.errors import KekUnavailable, StoreForbidden
from waD.store.keks import MAX_KEYS, credential_file, make_key, read_key, read_keys
from waD.store.opening import default_key_file
from waD.store.state import SessionState
from waD.store.store import Store, StoreSettings, open_store

KEY = bytes(range(100, 132))


def write(path: Path, data: bytes = KEY, mode: int = 0o400) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(mode)
    return path


# Reading one.


@pytest.mark.parametrize(
    "data",
    [
        KEY,
        base64.b64encode(KEY),
        base64.b64encode(KEY) + b"\n",
        KEY.hex().encode(),
        b" " + KEY.hex().upper().encode() + b"\r\n",
    ],
)
def test_the_forms_of_a_key(tmp_path: Path, data: bytes) -> None:
    assert read_key(write(tmp_path / "kek", data)) == KEY


@pytest.mark.parametrize(
    "data",
    [
        b"",
        KEY[:-1],
        KEY + b"\0",
        KEY.hex()[:-1].encode(),
        base64.b64encode(KEY[:-1]),
        b"x" * 5000,
        b"\xff" * 64,
    ],
)
def test_what_is_no_key(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(StoreForbidden, match="32 bytes") as refused:
        read_key(write(tmp_path / "kek", data))
    assert str(tmp_path / "kek") in str(refused.value)
    assert len(data) < 10 or data.decode("latin-1") not in str(refused.value)


@pytest.mark.parametrize("mode", [0o440, 0o404, 0o444, 0o660, 0o620, 0o602, 0o777, 0o601])
def test_a_key_that_others_can_use(tmp_path: Path, mode: int) -> None:
    with pytest.raises(StoreForbidden, match=f"{mode:04o}: chmod"):
        read_key(write(tmp_path / "kek", mode=mode))


@pytest.mark.parametrize("mode", [0o400, 0o600])
def test_a_key_that_is_closed(tmp_path: Path, mode: int) -> None:
    assert read_key(write(tmp_path / "kek", mode=mode)) == KEY


def test_a_key_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StoreForbidden, match="No such file"):
        read_key(tmp_path / "kek")
    assert read_keys(tmp_path / "kek") == {}
    assert read_keys(tmp_path / "no" / "kek") == {}


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_a_key_of_somebody_else(tmp_path: Path) -> None:
    os.chown(write(tmp_path / "kek"), 12345, 0)
    with pytest.raises(StoreForbidden, match="user 12345: chown"):
        read_key(tmp_path / "kek")


def test_what_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir(mode=0o700)
    os.mkfifo(tmp_path / "pipe", 0o600)  # reading one would wait for ever
    for name in ("directory", "pipe"):
        with pytest.raises(StoreForbidden, match="no regular file"):
            read_key(tmp_path / name)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "socket"))
        with pytest.raises(StoreForbidden):
            read_key(tmp_path / "socket")


def open_directory(path: Path, mode: int = 0o777) -> Path:
    path.mkdir()
    path.chmod(mode)
    return path


def test_a_link_into_a_directory_that_is_open_to_all(tmp_path: Path) -> None:
    write(open_directory(tmp_path / "open") / "kek")
    (tmp_path / "kek").symlink_to(tmp_path / "open" / "kek")
    for path in (tmp_path / "kek", tmp_path / "open" / "kek"):
        with pytest.raises(StoreForbidden, match="everybody may replace"):
            read_key(path)


def test_a_link_that_itself_can_be_replaced(tmp_path: Path) -> None:
    write(tmp_path / "closed" / "kek")
    link = open_directory(tmp_path / "open") / "kek"
    link.symlink_to(tmp_path / "closed" / "kek")
    with pytest.raises(StoreForbidden, match="everybody may replace"):
        read_key(link)


def test_links_between_closed_directories(tmp_path: Path) -> None:
    write(tmp_path / "closed" / "kek")
    (tmp_path / "kek").symlink_to(tmp_path / "closed" / "kek")
    assert read_key(tmp_path / "kek") == KEY
    assert read_key(write(open_directory(tmp_path / "sticky", 0o1777) / "kek")) == KEY
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    with pytest.raises(StoreForbidden, match="cannot be read"):
        read_key(tmp_path / "dangling")


# Several.


def test_keys_beside_the_main_one(tmp_path: Path) -> None:
    write(tmp_path / "kek")
    write(tmp_path / "kek.2026-11", b"2" * 32)
    write(tmp_path / "kek.not a name", b"not a key", 0o666)
    write(tmp_path / "kek.new", b"half")
    assert read_keys(tmp_path / "kek") == {"main": KEY, "2026-11": b"2" * 32}
    write(tmp_path / "kek.bad", b"short")
    with pytest.raises(StoreForbidden, match=r"kek\.bad"):
        read_keys(tmp_path / "kek")


def test_only_others_than_the_main_one(tmp_path: Path) -> None:
    write(tmp_path / "kek.two")
    assert read_keys(tmp_path / "kek") == {"two": KEY}


def test_a_name_that_looks_like_a_pattern(tmp_path: Path) -> None:
    write(tmp_path / "k[e]k")
    write(tmp_path / "k[e]k.two", b"2" * 32)
    write(tmp_path / "kek.three", b"3" * 32)
    assert read_keys(tmp_path / "k[e]k") == {"main": KEY, "two": b"2" * 32}


def test_too_many(tmp_path: Path) -> None:
    for number in range(MAX_KEYS + 1):
        write(tmp_path / f"kek.{number}")
    with pytest.raises(StoreForbidden, match="more than"):
        read_keys(tmp_path / "kek")


def test_the_credential_of_the_unit(tmp_path: Path) -> None:
    assert credential_file(None) is credential_file("") is credential_file(str(tmp_path)) is None
    write(tmp_path / "wad-kek.two")
    assert credential_file(str(tmp_path)) == tmp_path / "wad-kek"
    write(tmp_path / "wad-kek")
    assert read_keys(tmp_path / "wad-kek") == {"main": KEY, "two": KEY}


@pytest.mark.skipif(os.getuid() != 0, reason="only root becomes somebody else")
@pytest.mark.parametrize(("mode", "accepted"), [(0o440, True), (0o444, False), (0o460, False)])
def test_a_credential_of_root_is_opened_by_an_acl(tmp_path: Path, mode: int, accepted: bool) -> None:
    """Which shows as the mode of the group."""
    nobody = pwd.getpwnam("nobody")
    for parent in (tmp_path, *tmp_path.parents[:3]):
        if parent.stat().st_uid == 0 and parent != Path("/tmp"):
            parent.chmod(0o755)
    os.chown(write(tmp_path / "wad-kek", mode=mode), 0, nobody.pw_gid)
    program = f"""
import os
from pathlib import Path
from waD.store import keks
from waD.store.errors import StoreForbidden
os.setgroups([]); os.setgid({nobody.pw_gid}); os.setuid({nobody.pw_uid})
try:
    print(len(keks.read_key(Path({str(tmp_path / "wad-kek")!r}))))
except StoreForbidden as refused:
    print(refused)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout == "32\n") is accepted, done.stdout
    assert accepted or f"{mode:04o}" in done.stdout


# Making one.


def test_a_new_key(tmp_path: Path) -> None:
    made = make_key(tmp_path / "kek")
    assert read_key(tmp_path / "kek") == made
    assert stat.S_IMODE((tmp_path / "kek").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["kek"]


def test_a_key_is_never_replaced(tmp_path: Path) -> None:
    write(tmp_path / "kek")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("kek", "link"):
        with pytest.raises(StoreForbidden, match="exists"):
            make_key(tmp_path / name)
    assert read_key(tmp_path / "kek") == KEY
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kek", "link"]
    with pytest.raises(StoreForbidden, match="cannot be written"):
        make_key(tmp_path / "no" / "kek")


def test_a_key_that_was_not_finished_is_none(tmp_path: Path) -> None:
    """A process that ended while it wrote one leaves nothing that would keep the next one from starting."""
    write(tmp_path / "kek.new", b"half", 0o600)
    assert read_keys(tmp_path / "kek") == {}
    made = make_key(tmp_path / "kek")
    assert read_keys(tmp_path / "kek") == {"main": made}


# Opening.


@pytest.fixture
def settings(tmp_path: Path) -> StoreSettings:
    return StoreSettings(path=tmp_path / "state" / "waD.db")


@pytest.fixture
def raw(settings: StoreSettings) -> Raw:
    return raw_in(settings.path)


async def paired(store: Store, name: str = "alerts") -> SessionState:
    row = await store.create_session(name)
    state = await store.attach(row.id, "test")
    unit = state.unit()
    unit.set_creds(b'{"noise":"SECRET"}')
    unit.put("session", "2.0", b'{"rk":"SECRET"}')
    unit.put("identity", "2.0", b'"public"')
    await state.commit(unit)
    return state


async def test_a_fresh_database_gets_a_key(settings: StoreSettings, raw: Raw) -> None:
    async with open_store(settings) as store:
        state = await paired(store)
        row = await store.session("alerts")
        assert row is not None
        assert row.kek_id == "main"
    key = default_key_file(settings.path)
    assert key.name == "waD.db.kek"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    before = key.read_bytes()
    stored = [
        value
        for (value,) in raw("SELECT value FROM wa_auth_items UNION SELECT snapshot FROM wa_auth_snapshots")
    ]
    assert sum("SECRET" in value for value in stored) == 0
    assert '"public"' in stored
    async with open_store(settings) as store:
        again = await store.attach(state.session_id, "test")
        assert again.creds == b'{"noise":"SECRET"}'
        assert await again.item("session", "2.0") == b'{"rk":"SECRET"}'
    assert key.read_bytes() == before
    assert b"SECRET" not in settings.path.read_bytes()


async def test_a_lost_key_is_not_replaced(settings: StoreSettings, caplog: pytest.LogCaptureFixture) -> None:
    async with open_store(settings) as store:
        state = await paired(store)
    key = default_key_file(settings.path)
    kept = key.read_bytes()
    key.unlink()
    async with open_store(settings) as store:
        assert "is gone" in caplog.text
        assert not key.exists()
        blind = await store.attach(state.session_id, "test")
        with pytest.raises(KekUnavailable, match="'main'"):
            _ = blind.creds
        with pytest.raises(KekUnavailable):
            await blind.item("session", "2.0")
        unit = blind.unit()
        unit.put("session", "2.0", b'"other"')
        with pytest.raises(KekUnavailable):
            await blind.commit(unit)
        with pytest.raises(KekUnavailable):
            await blind.reset_auth(b'"new"')
        with pytest.raises(KekUnavailable):
            await store.seal(state.session_id, "manual")
        assert [row.name for row in await store.sessions()] == ["alerts"]
        assert (
            await store.update_session(state.session_id, current_status="failed")
        ).current_status == "failed"
    assert not key.exists()
    write(key, kept)
    async with open_store(settings) as store:
        seeing = await store.attach(state.session_id, "test")
        assert seeing.creds == b'{"noise":"SECRET"}'
        assert await seeing.item("session", "2.0") == b'{"rk":"SECRET"}'


async def test_a_foreign_key(settings: StoreSettings) -> None:
    async with open_store(settings) as store:
        state = await paired(store)
    key = default_key_file(settings.path)
    key.unlink()
    write(key)
    async with open_store(settings) as store:
        blind = await store.attach(state.session_id, "test")
        with pytest.raises(KekUnavailable, match="not the one"):
            _ = blind.creds


async def test_one_session_without_its_key_does_not_stop_the_others(
    settings: StoreSettings, tmp_path: Path
) -> None:
    write(tmp_path / "kek")
    write(tmp_path / "kek.two", b"2" * 32)
    both = msgspec.structs.replace(settings, kek_file=tmp_path / "kek")
    async with open_store(both) as store:
        one = await paired(store, "one")
    async with open_store(msgspec.structs.replace(both, kek="two")) as store:
        two = await paired(store, "two")
    (tmp_path / "kek.two").unlink()
    async with open_store(both) as store:
        assert (await store.attach(one.session_id, "test")).creds is not None
        blind = await store.attach(two.session_id, "test")
        with pytest.raises(KekUnavailable, match="'two'"):
            _ = blind.creds
        jobs = [CreateSession("three"), CreateSession("four")]
        assert all(not isinstance(done, Exception) for done in await store.read(store.engine.write, jobs))


async def test_no_encryption(settings: StoreSettings, raw: Raw) -> None:
    clear = msgspec.structs.replace(settings, encrypt=False)
    async with open_store(clear) as store:
        state = await paired(store)
    assert not default_key_file(settings.path).exists()
    assert raw("SELECT snapshot FROM wa_auth_snapshots") == [('{"noise":"SECRET"}',)]
    assert raw("SELECT kek_id FROM (SELECT dek_kek_id AS kek_id FROM wa_sessions)") == [(None,)]
    async with open_store(settings) as store:
        assert (await store.attach(state.session_id, "test")).creds == b'{"noise":"SECRET"}'
    assert default_key_file(settings.path).exists()


async def test_encryption_that_is_turned_off_later_keeps_what_is_encrypted(settings: StoreSettings) -> None:
    async with open_store(settings) as store:
        state = await paired(store)
    async with open_store(msgspec.structs.replace(settings, encrypt=False)) as store:
        again = await store.attach(state.session_id, "test")
        assert again.creds == b'{"noise":"SECRET"}'
        assert (await store.create_session("clear")).kek_id is None


@pytest.mark.parametrize(
    "changes",
    [{"kek_file": "kek"}, {"encrypt": True}, {"kek": "other"}, {"kek_file": "there", "kek": "other"}],
)
async def test_a_key_that_is_asked_for_and_not_there(
    settings: StoreSettings, tmp_path: Path, changes: dict[str, object]
) -> None:
    write(tmp_path / "there")
    if "kek_file" in changes:
        changes = changes | {"kek_file": tmp_path / str(changes["kek_file"])}
    with pytest.raises(StoreForbidden, match=r"is not at .*head -c 32"):
        async with open_store(msgspec.structs.replace(settings, **changes)):
            pytest.fail("it was opened")
    assert not settings.path.exists()
    assert not default_key_file(settings.path).exists()


async def test_a_key_that_may_not_be_used_stops_the_start(settings: StoreSettings) -> None:
    async with open_store(settings):
        pass
    default_key_file(settings.path).chmod(0o644)
    before = settings.path.read_bytes()
    with pytest.raises(StoreForbidden, match="chmod 0400"):
        async with open_store(settings):
            pytest.fail("it was opened")
    assert settings.path.read_bytes() == before


async def test_a_refused_start_leaves_the_database_free(
    settings: StoreSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Path) -> bytes:
        raise StoreForbidden("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("waD.store.opening.make_key", full)
        with pytest.raises(StoreForbidden, match="full"):
            async with open_store(settings):
                pytest.fail("it was opened")
    async with open_store(settings) as store:
        assert (await store.create_session("alerts")).kek_id == "main"


async def test_what_holds_no_secret_is_written_without_the_key(tmp_path: Path) -> None:
    """So that a session can say what is wrong with it; afterwards the state is still the one that was stored."""
    settings = StoreSettings(path=tmp_path / "state" / "waD.db")
    async with open_store(settings) as store:
        row = await store.create_session("alerts")
        state = await store.attach(row.id, "one")
        unit = state.unit()
        unit.put("session", "2.0", b'"ratchet"')
        unit.set_creds(b'"creds"')
        await state.commit(unit)
    key = settings.path.with_name("waD.db.kek")
    key.rename(tmp_path / "elsewhere")
    async with open_store(settings) as store:
        state = await store.attach(row.id, "two")
        unit = state.unit()
        unit.set_session(current_status="failed")
        unit.event("connection:status", {"status": "failed"})
        await state.commit(unit)
        unit = state.unit()
        unit.put("session", "2.0", b'"later"')
        with pytest.raises(KekUnavailable):
            await state.commit(unit)
    (tmp_path / "elsewhere").rename(key)
    async with open_store(settings) as store:
        state = await store.attach(row.id, "three")
        assert state.creds == b'"creds"'
        assert await state.item("session", "2.0") == b'"ratchet"'
