"""Sources found out by what they are, and PostgreSQL."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.transfer.baileys import samples
from tests.transfer.baileys.stores import (
    SHAPES,
    build,
    database,
    dump,
    once,
    same,
    whole,
    without_used,
)
from waD.transfer.baileys import PRESETS, BaileysItems, Preset, SourceRefused, Table, read_dump, read_source
from waD.transfer.baileys.postgres import read_postgres


def read(location: Path | str, **how: Any) -> BaileysItems:
    return read_source(str(location), now_ms=samples.NOW_MS, **{"stopped": True, **how})


def refused(location: Path | str, **how: Any) -> SourceRefused:
    with pytest.raises(SourceRefused) as refusal:
        read(location, **how)
    return refusal.value


def test_directories_and_files(tmp_path: Path, source: BaileysItems) -> None:
    same(read(tmp_path / "origin"), source)
    same(read(dump(tmp_path / "dump.json", once(whole(source)))), source)
    rows = [{"key": name, "data": value} for name, value in samples.values(source).items()]
    found = read(dump(tmp_path / "rows.json", once(rows)), preset=PRESETS["waha-mongo"])
    assert found.keeps_deleted
    same(without_used(found), source)
    assert refused(tmp_path / "missing").code == "source_missing"
    same(read(dump(tmp_path / "plain", "\n".join(map(once, rows))), form="jsonl"), source)


@pytest.mark.parametrize("name", SHAPES)
def test_the_program_is_found_out_by_its_tables(tmp_path: Path, source: BaileysItems, name: str) -> None:
    found = read(database(tmp_path / "db", name, source, "one"), session="one")
    assert found.keeps_deleted == PRESETS[name].keeps_deleted
    same(without_used(found), source)


def test_a_database_of_nobody_known(tmp_path: Path) -> None:
    build(tmp_path / "db", Table("mine", "v", "k"), [])
    refusal = refused(tmp_path / "db")
    assert (refusal.code, "prisma" in refusal.detail) == ("table_missing", True)


# PostgreSQL


def fill(url: str, table: Table, rows: list[Any], types: dict[str, str] | None = None) -> None:
    with psycopg.connect(url) as connection:
        columns = ", ".join(f'"{name}" {(types or {}).get(name, "text")}' for name in table.columns)
        connection.execute(f'CREATE TABLE "{table.name}" ({columns})'.encode())
        marks = ", ".join(["%s"] * len(table.columns))
        for row in rows:
            connection.execute(
                f'INSERT INTO "{table.name}" VALUES ({marks})'.encode(), row[-len(table.columns) :]
            )


@pytest.mark.parametrize("name", SHAPES)
def test_postgres(url: str, source: BaileysItems, name: str) -> None:
    for number, table in enumerate(PRESETS[name].tables):
        types = {table.value: "jsonb"} if name in ("waha_auth", "auth_state", "drizzle") else {}
        fill(url, table, SHAPES[name](source, "one")[number], types)
    same(without_used(read(url, session="one")), source)
    same(without_used(read_postgres(url, PRESETS[name], stopped=True, session="one")), source)


def test_sessions_of_integer_ids(url: str, source: BaileysItems) -> None:
    table = Table("rows", "value", "key", "owner")
    rows = [(5, name, once(value)) for name, value in samples.values(source).items()]
    fill(url, table, [*rows, (6, "creds", "{}")], {"owner": "bigint"})
    same(read(url, preset=Preset((table,)), session="5"), source)
    refusal = refused(url, preset=Preset((table,)))
    assert (refusal.code, refusal.choices) == ("session_several", ("5", "6"))


def test_tables_in_a_schema(url: str, source: BaileysItems) -> None:
    table = Table("auth", "data", "id")
    fill(url, table, [(name, once(value)) for name, value in samples.values(source).items()])
    with psycopg.connect(url) as connection:
        connection.execute("CREATE SCHEMA waha")
        connection.execute("ALTER TABLE auth SET SCHEMA waha")
    assert refused(url).code == "table_missing"
    same(read(url, preset=Preset((Table("waha.auth", "data", "id"),))), source)


def test_a_database_that_changes_while_it_is_read(
    url: str, source: BaileysItems, monkeypatch: pytest.MonkeyPatch
) -> None:
    from waD.transfer.baileys import postgres

    table = PRESETS["waha"].tables[0]
    fill(url, table, [(name, once(value)) for name, value in samples.values(source).items()])
    original = postgres.read_sql
    reads = []

    def then_changed(query: Any, preset: Any, *, session: str | None) -> BaileysItems:
        found = original(query, preset, session=session)
        reads.append(found)
        with psycopg.connect(url) as connection:
            connection.execute("DELETE FROM auth WHERE id LIKE 'session-%'")
        return found

    monkeypatch.setattr(postgres, "read_sql", then_changed)
    assert refused(url).code == "source_changed"
    assert len(reads) == 2


def test_nothing_can_be_written(url: str, source: BaileysItems) -> None:
    """A view that writes is refused by the transaction."""
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE hits (n int)")
        connection.execute(
            "CREATE FUNCTION hit() RETURNS text LANGUAGE sql AS 'INSERT INTO hits VALUES (1) RETURNING n::text'"
        )
        connection.execute("CREATE VIEW auth AS SELECT hit() AS id, hit() AS data")
    refusal = refused(url, preset=PRESETS["waha"])
    assert (refusal.code, "ReadOnly" in refusal.detail) == ("source_damaged", True)


def test_databases_that_cannot_be_read(server: Any, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refused(url, stopped=False).code == "source_running"
    assert refused(f"{url}nowhere").code == "source_unreachable"
    refusal = refused("postgresql://user:secret@host:port/")
    assert (refusal.code, "secret" in str(refusal)) == ("source_unreachable", False)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    assert refused(url).code == "driver_missing"


# Hostile files

PIECES = st.sampled_from(
    [
        "{", "}", "[", "]", '"creds"', '"keys"', ":", ",", "\n", '"_id"', '"noiseKey"', "creds", "pre-key-1", '1) "x"',
        "\\", '"session-1.0"', '{"$numberLong":"x"}', '{"$binary":5}', '"data"', '"key"', "5", "null", "\x00", "type",
        '"\\ud800"',
    ]
)  # fmt: skip


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(PIECES, max_size=14), st.sampled_from(["dump", "dump.csv", "dump.json"]))
def test_no_file_does_anything_but_be_refused(tmp_path: Path, pieces: list[str], name: str) -> None:
    path = dump(tmp_path / name, "".join(pieces))
    try:
        found = read_dump(path)
    except SourceRefused:
        return
    assert found.creds is None or isinstance(found.creds, dict)


def test_files_without_permission(tmp_path: Path) -> None:
    path = dump(tmp_path / "dump", "{}")
    if os.geteuid() == 0:
        for parent in (tmp_path, *tmp_path.parents[:3]):
            parent.chmod(0o755)
        path.chmod(0o600)
        os.seteuid(65534)
        try:
            assert refused(path).code == "source_unreachable"
        finally:
            os.seteuid(0)
    else:
        path.chmod(0)
        assert refused(path).code == "source_unreachable"
