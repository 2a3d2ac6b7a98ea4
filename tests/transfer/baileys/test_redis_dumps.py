"""Sessions in dumps that real servers wrote: Redis 6.2, 7.0 and 8.2, Valkey 9.1 (`tests/transfer/dumps`)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.transfer.baileys import samples
from tests.transfer.baileys.stores import build, twice
from tests.transfer.dumps.making import HERE
from tests.transfer.dumps.programs import iterdump
from waD.transfer.baileys import PRESETS, BaileysItems, SourceRefused, read_source
from waD.transfer.baileys.redis_dump import read_redis_dump
from waD.transfer.migrating.places import parse_source
from waD.transfer.migrating.reading import Choice
from waD.transfer.migrating.reading import read as read_place

SERVERS = ("redis-6.2", "redis-7.0", "redis-8.2", "valkey-9.1")
EVERYWHERE = ["2/authState:shop", "@baileys-api:connections:5511910000001:authState", "authState:packed",
              "authState:shop", "gone", "keyv:one", "old", "sessions:whole"]  # fmt: skip
TIMED = ["authState:packed timed", "authState:timed"]


@pytest.fixture
def source(tmp_path: Path) -> BaileysItems:
    (tmp_path / "origin").mkdir()
    return samples.read(tmp_path / "origin", samples.files(samples.PLAIN))


def read(server: str, session: str | None = None) -> BaileysItems:
    return read_redis_dump(HERE / f"{server}.rdb", session=session)


def refusal(server: str, session: str | None = None) -> SourceRefused:
    with pytest.raises(SourceRefused) as refused:
        read(server, session)
    return refused.value


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize(
    "session",
    [
        "authState:shop",
        "2/authState:shop",
        "@baileys-api:connections:5511910000001:authState",
        "5511910000001",
        "authState:packed",
        "packed",
        "old",
        "keyv:one",
        "one",
        "sessions:whole",
        "whole",
    ],
)
def test_every_layout(server: str, session: str, source: BaileysItems) -> None:
    found = read(server, session)
    assert (found.creds, dict(found.items), found.notes) == (source.creds, dict(source.items), ())
    state, _ = samples.converted(found)
    assert state == samples.converted(source)[0]


@pytest.mark.parametrize("server", SERVERS)
def test_evolution_keeps_items_alone_in_redis(server: str, source: BaileysItems) -> None:
    for session in ("3f2a", "evolution-cache:instance:3f2a"):
        found = read(server, session)
        assert dict(found.items) == dict(source.items)
        assert [note.code for note in found.notes] == ["creds_unreadable"]


def test_evolution_keeps_credentials_in_sql(tmp_path: Path, source: BaileysItems) -> None:
    """Both as dumps: one name serves for both."""
    build(tmp_path / "db", PRESETS["evolution"].tables[0], [("3f2a", twice(source.creds)), ("4", None)])
    (tmp_path / "evolution.sql").write_bytes(iterdump(tmp_path / "db"))
    keys = parse_source(str(HERE / "redis-7.0.rdb"))
    found = read_place(
        parse_source(str(tmp_path / "evolution.sql")), Choice(session="3f2a", keys=keys), samples.NOW_MS
    )
    assert found.report.errors == []
    assert found.state is not None
    assert found.state.counts() == samples.converted(source)[0].counts()


@pytest.mark.parametrize("server", SERVERS)
def test_the_sessions_there_are(server: str) -> None:
    newer = TIMED if float(server.split("-")[1]) >= 8 else []
    several = refusal(server)
    assert (several.code, several.choices) == ("session_several", tuple(sorted(EVERYWHERE + newer)))
    unknown = refusal(server, "nobody")
    assert unknown.code == "session_unknown"
    assert set(unknown.choices) == {*EVERYWHERE, *newer, "evolution-cache:instance:3f2a"}
    # One is in two databases: its short name does not tell which is meant.
    ambiguous = refusal(server, "shop")
    assert (ambiguous.code, ambiguous.choices) == ("session_several", ("2/authState:shop", "authState:shop"))


@pytest.mark.parametrize("server", SERVERS)
def test_what_was_over_when_the_dump_was_made_is_not_taken(server: str, source: BaileysItems) -> None:
    found = read(server, "gone")
    assert (found.creds, found.items) == (None, {})
    notes = {note.item: note.code for note in found.notes}
    assert notes["creds"] == "creds_unreadable"
    assert len(notes) == len(source.items) + 1
    assert {note.detail for note in found.notes} == {"its time to live was over when the dump was made"}


@pytest.mark.parametrize("server", SERVERS[2:])
@pytest.mark.parametrize("session", TIMED)
def test_fields_with_times(server: str, session: str, source: BaileysItems) -> None:
    found = read(server, session)
    assert (found.creds, dict(found.items)) == (source.creds, dict(source.items))
    assert [(note.code, note.item) for note in found.notes] == [("item_unreadable", "pre-key-9999")]


def test_it_is_found_out_what_it_is(source: BaileysItems) -> None:
    for form in (None, "redis"):
        found = read_source(
            str(HERE / "redis-7.0.rdb"),
            now_ms=samples.NOW_MS,
            session="old",
            form=form,  # type: ignore[arg-type]
        )
        assert found.creds == source.creds


@pytest.mark.parametrize("server", SERVERS)
def test_a_dump_that_was_cut_short(server: str, tmp_path: Path) -> None:
    data = (HERE / f"{server}.rdb").read_bytes()
    path = tmp_path / "dump.rdb"
    for size in [*range(9, 200, 7), *range(200, len(data), 397), len(data) - 1]:
        path.write_bytes(data[:size])
        with pytest.raises(SourceRefused) as refused:
            read_redis_dump(path, session="old")
        assert refused.value.code == "source_damaged"
        assert str(path) in refused.value.detail
        assert "byte" in refused.value.detail


@pytest.mark.parametrize("server", SERVERS)
def test_a_dump_with_a_wrong_byte(server: str, tmp_path: Path) -> None:
    """The checksum finds what the form does not show."""
    data = (HERE / f"{server}.rdb").read_bytes()
    path = tmp_path / "dump.rdb"
    for at in range(9, len(data), 503):
        path.write_bytes(data[:at] + bytes((data[at] ^ 4,)) + data[at + 1 :])
        with pytest.raises(SourceRefused) as refused:
            read_redis_dump(path, session="old")
        assert refused.value.code in ("source_damaged", "dump_unsupported", "source_too_large")


def test_a_dump_that_changes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "dump.rdb"
    path.write_bytes((HERE / "redis-7.0.rdb").read_bytes())
    from waD.transfer.baileys import redis_dump

    original = redis_dump.chunks

    def touched(file: Any) -> Any:
        yield from original(file)
        os.utime(path, (1, 1))

    monkeypatch.setattr(redis_dump, "chunks", touched)
    with pytest.raises(SourceRefused) as refused:
        read_redis_dump(path, session="old")
    assert refused.value.code == "source_changed"
