"""Words for places, what is found without them, and what of a source may be used."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.transfer.baileys import samples
from tests.transfer.whatsmeow.databases import JID, original
from waD.messaging import kinds
from waD.store.model import SecretRow
from waD.store.opening import open_engine
from waD.store.store import Parts, StoreSettings
from waD.transfer.archive_reading import open_archive
from waD.transfer.migrating import reading
from waD.transfer.migrating.packing import pack
from waD.transfer.migrating.places import Place, PlaceRefused, parse_source, parse_target
from waD.transfer.migrating.reading import Choice, Reading, read, summary
from waD.transfer.state import AuthState, Report

STOPPED = Choice(stopped=True)


def code(word: str, *, target: bool = False) -> str:
    with pytest.raises(PlaceRefused) as refusal:
        (parse_target if target else parse_source)(word)
    return refusal.value.code


@pytest.mark.parametrize(
    ("word", "place"),
    [
        ("waD", Place("waD", "")),
        ("sqlite:/a/b.db", Place("sqlite", "/a/b.db")),
        ("baileys-dir:auth", Place("baileys-dir", "auth")),
        ("baileys-kv:postgresql://u@h/d", Place("baileys-kv", "postgresql://u@h/d")),
        ("whatsmeow:postgres://u@h/d", Place("whatsmeow", "postgres://u@h/d")),
        ("postgresql://u@h:5/d?sslmode=require", Place("postgresql", "postgresql://u@h:5/d?sslmode=require")),
        ("baileys-json:C:\\auth.json", Place("baileys-json", "C:\\auth.json")),
    ],
)
def test_words(word: str, place: Place) -> None:
    assert parse_source(word) == place


def test_words_that_are_none() -> None:
    for word in (
        "mysql:x",
        "sqlite:",
        "waD:x",
        "postgresql:x",
        "sqlite:postgresql://h/d",
        "baileys-json:postgres://h/d",
    ):
        assert code(word) == "scheme_unknown"
    assert code("/nowhere/at/all") == "source_missing"
    assert code("nul\0byte") == "source_unreachable"
    for word in ("postgresql://u:p@h/d", "postgresql://u@h/d?password=p", "whatsmeow:postgresql://u:p@h/d"):
        assert code(word) == "password_in_url"
        if not word.startswith("whatsmeow"):
            assert code(word, target=True) == "password_in_url"


def test_a_destination_is_never_guessed(tmp_path: Path) -> None:
    assert parse_target(f"baileys-dir:{tmp_path}").scheme == "baileys-dir"
    for word in (str(tmp_path), "whatsmeow:x", "baileys-kv:x", "nothing"):
        assert code(word, target=True) == "scheme_unknown"


def test_what_is_found(tmp_path: Path) -> None:
    assert parse_source(str(tmp_path)).scheme == "baileys-dir"
    (tmp_path / "main.db").write_bytes(original())
    assert parse_source(str(tmp_path / "main.db")).scheme == "whatsmeow"
    open_engine(StoreSettings(path=tmp_path / "waD.db"), Parts()).close()
    assert parse_source(str(tmp_path / "waD.db")).scheme == "sqlite"
    with closing(sqlite3.connect(tmp_path / "kv.db")) as connection, connection:
        connection.execute("CREATE TABLE auth (id TEXT, value TEXT)")
    assert parse_source(str(tmp_path / "kv.db")).scheme == "baileys-kv"
    (tmp_path / "dump.rdb").write_bytes(b"REDIS0011")
    assert parse_source(str(tmp_path / "dump.rdb")).scheme == "baileys-redis"
    (tmp_path / "dump.sql").write_text("CREATE TABLE public.whatsmeow_device (jid text);")
    assert parse_source(str(tmp_path / "dump.sql")).scheme == "whatsmeow"
    (tmp_path / "kv.sql").write_text("CREATE TABLE auth (id text); -- whatsmeow_device")
    assert parse_source(str(tmp_path / "kv.sql")).scheme == "baileys-kv"
    (tmp_path / "broken.db").write_bytes(b"SQLite format 3\x00" + bytes(50))
    assert code(str(tmp_path / "broken.db")) == "not_sqlite"
    (tmp_path / "broken.db").write_bytes(b"SQLite format 3\x00" + bytes(5000))
    assert code(str(tmp_path / "broken.db")) == "source_damaged"
    # A file whose name looks like a scheme is still a file.
    odd = tmp_path / "sqlite:x"
    odd.write_text("{}")
    assert parse_source(str(odd)).scheme == "baileys-kv"


@pytest.mark.parametrize("killed", [False, True])
def test_looking_at_a_database_leaves_nothing_beside_it(tmp_path: Path, killed: bool) -> None:
    """SQLite makes files beside one in WAL mode, which its program then may not be allowed to open."""
    path = tmp_path / "main.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE whatsmeow_device (jid TEXT)")
        connection.commit()
        if killed:
            for file in [*tmp_path.iterdir()]:
                (tmp_path / f"copy{file.name}").write_bytes(file.read_bytes())
    if killed:
        path = tmp_path / "copymain.db"
        assert (tmp_path / "copymain.db-wal").stat().st_size > 0
    before = {file.name: (file.stat().st_mtime_ns, file.read_bytes()) for file in tmp_path.iterdir()}
    assert parse_source(str(path)).scheme == "whatsmeow"
    assert {file.name: (file.stat().st_mtime_ns, file.read_bytes()) for file in tmp_path.iterdir()} == before


def test_a_session_is_read_and_packed_for_a_move(tmp_path: Path) -> None:
    (tmp_path / "auth").mkdir()
    samples.write(tmp_path / "auth", samples.files())
    found = read(parse_source(str(tmp_path / "auth")), STOPPED, samples.NOW_MS)
    assert found.state is not None
    kept = SecretRow(chat="c", sender="s", message_id="1", wire_sender="w", secret=bytes(32), message_ts=5)
    found.state = AuthState(found.state.creds, found.state.items, (kept,))
    with (tmp_path / "archive").open("w+b") as file:
        pack(file, found.state, "alerts", "waD 1", samples.NOW_MS, tmp_path)
        file.seek(0)
        with open_archive(file, tmp_path, None, Report()) as archive:
            (listed,) = archive.manifest.sessions
            session = archive.session(listed.id)
            assert (archive.manifest.final, listed.name) == (True, "alerts")
            assert [*archive.secrets(listed.id)] == [kept]
    assert {name: item.document for name, item in session.items.items()} == dict(found.state.items)
    assert session.creds == found.state.creds.serialize()


def test_every_packing_is_a_move_of_its_own(tmp_path: Path) -> None:
    """What is restored exactly is restored once, and an import that failed may be tried again."""
    state = _whatsmeow(tmp_path).state
    assert state is not None
    digests = set()
    for number in range(2):
        with (tmp_path / str(number)).open("w+b") as file:
            pack(file, state, "alerts", "waD 1", samples.NOW_MS, tmp_path)
            file.seek(0)
            with open_archive(file, tmp_path, None, Report()) as archive:
                digests.add(archive.sha256)
    assert len(digests) == 2


def _whatsmeow(tmp_path: Path) -> Reading:
    (tmp_path / "main.db").write_bytes(original())
    return read(
        Place("whatsmeow", str(tmp_path / "main.db")), Choice(stopped=True, jid=JID), 1_900_000_000_000
    )


def test_the_summary_groups_by_code_and_holds_no_key(tmp_path: Path) -> None:
    found = _whatsmeow(tmp_path)
    assert found.state is not None
    for number in range(9):
        found.report.warn("item_unreadable", f"session/{number}", "cut short")
    document = summary(found)
    (note,) = [note for note in document["warnings"] if note["code"] == "item_unreadable"]
    assert (note["count"], len(note["items"]), note["detail"]) == (9, reading.EXAMPLES, "cut short")
    assert document["counts"] == found.state.counts()
    assert document["account"]["pn"] == str(found.state.creds.me_pn)
    assert found.state.creds.identity.private.hex() not in repr(document)


def test_what_an_importer_left_faulty_is_dropped(tmp_path: Path) -> None:
    state = _whatsmeow(tmp_path).state
    assert state is not None
    report = Report()
    broken = AuthState(state.creds, {**state.items, (kinds.SESSION, "110000000000009_1.0"): b"{}"})
    kept = reading._checked(broken, report, 1_900_000_000_000)
    assert report.ok
    assert (kinds.SESSION, "110000000000009_1.0") not in kept.items
    assert "left out" in next(note.detail for note in report.warnings if "110000000000009" in note.item)


def test_credentials_alone_are_no_session(tmp_path: Path) -> None:
    state = _whatsmeow(tmp_path).state
    assert state is not None
    report = Report()
    reading._checked(AuthState(state.creds, {}), report, 1_900_000_000_000)
    assert [note.code for note in report.errors] == ["keys_missing"]
