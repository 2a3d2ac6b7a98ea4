"""Sessions in dumps of statements that the databases' own programs wrote.

Those of SQLite and PostgreSQL are made here; those of MariaDB once, by a real server (`tests/transfer/dumps`).
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.store.postgres_server import Server
from tests.transfer.baileys import samples
from tests.transfer.baileys.stores import SHAPES, build, database, item_rows, once, same, without_used
from tests.transfer.dumps.making import HERE
from tests.transfer.dumps.programs import SQLITE_SHELL, iterdump, pg_dump, shell_dump
from waD.transfer.baileys import PRESETS, BaileysItems, Preset, SourceRefused, Table, read_source
from waD.transfer.baileys.sql import read_sql_dump


def read(path: Path, preset: str | None = None, session: str | None = "one") -> BaileysItems:
    return read_sql_dump(path, None if preset is None else PRESETS[preset], session=session)


def refused(content: bytes | str, tmp_path: Path, preset: str | None = "prisma") -> SourceRefused:
    path = tmp_path / "dump.sql"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(SourceRefused) as refusal:
        read(path, preset)
    return refusal.value


@pytest.mark.parametrize("name", SHAPES)
def test_sqlite(tmp_path: Path, source: BaileysItems, name: str) -> None:
    path = database(tmp_path / "db", name, source, "one", "two")
    (tmp_path / "dump.sql").write_bytes(iterdump(path))
    same(without_used(read(tmp_path / "dump.sql", name)), source)
    with pytest.raises(SourceRefused) as refusal:
        read(tmp_path / "dump.sql", name, None)
    assert refusal.value.code == "session_several"


@pytest.mark.skipif(SQLITE_SHELL is None, reason="the machine has no shell of SQLite")
def test_sqlite_shell(tmp_path: Path, source: BaileysItems) -> None:
    """Line ends are written as `replace(…, char(10))` by it; the definition may stand after a trigger."""
    path = tmp_path / "db"
    rows = [(s, k, v.replace("{", "{\r\n", 1)) for s, k, v in item_rows(source, "one", str, once)]
    build(path, PRESETS["prisma"].tables[0], rows)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(
            'CREATE TABLE "other;" (a, "b;'
            "\" TEXT); INSERT INTO \"other;\" VALUES ('it''s; --', x'00ff');"
            "CREATE TRIGGER t AFTER INSERT ON Session BEGIN"
            ' INSERT INTO "other;" VALUES (CASE WHEN 1 THEN 2 END, 3); DELETE FROM Session; END;'
        )
    dump = shell_dump(path)
    assert b"char(10)" in dump
    (tmp_path / "dump.sql").write_bytes(dump)
    same(read(tmp_path / "dump.sql", "prisma"), source)


def test_newer_sqlite_shells_write_unistr(tmp_path: Path, source: BaileysItems) -> None:
    rows = []
    for _, key, value in item_rows(source, "one", str, once):
        text = value.replace("\\", "\\\\").replace("'", "''").replace("{", "\\u007b").replace("a", "\\000061")
        rows.append(
            f"INSERT INTO Session VALUES('one','{key}',unistr('{text.replace(chr(92) + '000061', 'a')}'));"
        )
    content = (
        "BEGIN TRANSACTION;\nCREATE TABLE Session(sessionId, id, data);\n" + "\n".join(rows) + "\nCOMMIT;\n"
    )
    (tmp_path / "dump.sql").write_text(content)
    same(read(tmp_path / "dump.sql", "prisma"), source)


# MariaDB

MARIADB = ("mariadb-10.11", "mariadb-10.11-hex")


@pytest.fixture
def plain(tmp_path: Path) -> BaileysItems:
    (tmp_path / "plain").mkdir()
    return samples.read(tmp_path / "plain", samples.files(samples.PLAIN))


@pytest.mark.parametrize("name", MARIADB)
@pytest.mark.parametrize(
    ("preset", "session"), [("prisma", "shop"), ("mysql-baileys", "shop"), ("ticketz", "7")]
)
def test_mariadb(name: str, preset: str, session: str, plain: BaileysItems) -> None:
    same(read(HERE / f"{name}.sql", preset, session), plain)
    same(read(HERE / f"{name}.sql", preset, None), plain)
    location = str(HERE / f"{name}.sql")
    same(read_source(location, now_ms=samples.NOW_MS, preset=PRESETS[preset]), plain)


@pytest.mark.parametrize("name", MARIADB)
def test_texts_and_bytes_of_mariadb(name: str, tmp_path: Path) -> None:
    """What MariaDB escapes comes out as it went in, in a table that nobody asks for otherwise."""
    from waD.transfer.sources.sql_dump import open_sql_dump

    with open_sql_dump(HERE / f"{name}.sql", lambda table: table.name == "Messages") as source:
        (row,) = source.rows("SELECT body, raw, price, bits, ratio FROM Messages")
        assert source.columns("session") == frozenset()
    assert row[:2] == ('it\'s; \\ "quoted" `name` -- no /* comment\r\n\t\x1a and 🙂', bytes(range(256)))
    assert row[2:] in [(12345678901234567890.12, bits, -1.5e-300) for bits in ("\x05", b"\x05")]


@pytest.mark.parametrize("name", MARIADB)
def test_mariadb_cut_short(name: str, tmp_path: Path) -> None:
    data = (HERE / f"{name}.sql").read_bytes()
    for size in [*range(60, len(data), 331), len(data) - 30]:
        refusal = refused(data[:size], tmp_path)
        assert (refusal.code, "byte" in refusal.detail) == ("source_damaged", True)


# PostgreSQL


def fill(url: str, source: BaileysItems, *, schema: str = "public", value: str = "text") -> None:
    with psycopg.connect(url) as connection:
        connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
        connection.execute(f'SET search_path TO "{schema}"')
        connection.execute(
            f"""CREATE TABLE "Session" ("pkId" bigserial, "sessionId" varchar(128) NOT NULL, id varchar(255),
            data {value}, "on" boolean DEFAULT true, "odd ""name" text[] DEFAULT '{{a,"b;c"}}')"""
        )
        encode: Any = once if value != "bytea" else lambda item: once(item).encode()
        for row in item_rows(source, "one", str, encode):
            connection.execute('INSERT INTO "Session" ("sessionId", id, data) VALUES (%s, %s, %s)', row)
        connection.execute(
            """CREATE TABLE message (id int, body text, raw bytea, made timestamptz DEFAULT now());
            CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.body := ';'; RETURN NEW; END $$;
            CREATE FUNCTION g() RETURNS int BEGIN ATOMIC SELECT 1; SELECT CASE WHEN true THEN 2 END; END;
            CREATE TRIGGER t BEFORE INSERT ON message FOR EACH ROW EXECUTE FUNCTION f();
            CREATE VIEW names AS SELECT id, 'a;b'::text AS x FROM message;
            COMMENT ON TABLE message IS 'it''s; a "comment" -- of /* mine';"""
        )
        connection.execute("INSERT INTO message VALUES (1, %s, %s)", ("a\tb\nc\\.\n\\N'", bytes(range(256))))


OPTIONS: dict[str, tuple[str, ...]] = {
    "copy": (),
    "inserts": ("--inserts",),
    "columns": ("--column-inserts", "--rows-per-insert=3", "--on-conflict-do-nothing"),
    "data": ("--data-only",),
    "quoted": ("--quote-all-identifiers", "--inserts", "--clean", "--if-exists", "--create"),
}


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("value", ["text", "jsonb", "bytea"])
def test_postgresql(tmp_path: Path, url: str, source: BaileysItems, options: str, value: str) -> None:
    fill(url, source, value=value)
    path = tmp_path / "dump.sql"
    path.write_bytes(pg_dump(url, *OPTIONS[options]))
    same(read(path, "prisma"), source)
    same(read_source(str(path), now_ms=samples.NOW_MS), source)


def test_strings_with_escapes(tmp_path: Path, server: Server, source: BaileysItems) -> None:
    """A server whose plain strings have escapes is dumped with `E'…'`, and byte strings in their old form."""
    name = server.database()
    fill(server.url(name), source, value="bytea")
    with psycopg.connect(server.url(name), autocommit=True) as connection:
        connection.execute(f'ALTER DATABASE "{name}" SET standard_conforming_strings = off')
        connection.execute(f"ALTER DATABASE \"{name}\" SET bytea_output = 'escape'")
    for options in OPTIONS.values():
        dump = pg_dump(server.url(name), *options)
        assert b"standard_conforming_strings = off" in dump
        (tmp_path / "dump.sql").write_bytes(dump)
        same(read(tmp_path / "dump.sql", "prisma"), source)


def test_the_same_table_in_two_schemas(tmp_path: Path, url: str, source: BaileysItems) -> None:
    fill(url, source)
    fill(url, source, schema="second")
    dump = pg_dump(url)
    refusal = refused(dump, tmp_path)
    assert refusal.code == "dump_unsupported"
    assert "public.Session" in refusal.detail
    assert "second.Session" in refusal.detail
    table = Table("second.Session", "data", "id", "sessionId")
    same(read_sql_dump(tmp_path / "dump.sql", Preset((table,))), source)


def test_databases_of_one_server(tmp_path: Path, server: Server, source: BaileysItems) -> None:
    """WAHA has a database for each session, and pg_dumpall puts them in one file."""
    content = b"-- PostgreSQL database cluster dump\n\nSET client_encoding = 'UTF8';\n"
    for number in range(2):
        name = server.database()
        fill(server.url(name), source)
        content += f"\\connect waha_noweb_{number}\n\n".encode() + pg_dump(server.url(name))
    content += b"--\n-- PostgreSQL database cluster dump complete\n--\n"
    refusal = refused(content, tmp_path)
    assert (refusal.code, "waha_noweb_1.public.Session" in refusal.detail) == ("dump_unsupported", True)


@pytest.mark.parametrize("options", OPTIONS)
def test_postgresql_cut_short(tmp_path: Path, url: str, source: BaileysItems, options: str) -> None:
    fill(url, source)
    data = pg_dump(url, *OPTIONS[options])
    for size in [*range(60, len(data) - 150, 577), len(data) - 150]:
        refusal = refused(data[:size], tmp_path)
        assert (refusal.code, "byte" in refusal.detail) == ("source_damaged", True)
