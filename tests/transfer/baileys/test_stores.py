"""One account in the shape of every store that is known: what is read is always the same."""

from __future__ import annotations

import csv
import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.transfer.baileys import samples
from tests.transfer.baileys.stores import (
    SHAPES,
    Encode,
    build,
    dashed,
    database,
    dump,
    fixed,
    item_rows,
    numbers,
    once,
    same,
    twice,
    whole,
    without_used,
)
from waD.transfer.baileys import PRESETS, BaileysItems, Preset, SourceRefused, Table, combine, read_dump
from waD.transfer.baileys.rows import Row, read_rows
from waD.transfer.baileys.sql import cursor_query, read_sql, read_sqlite

# SQL


def read(path: Path, preset: str, session: str | None = None, *, stopped: bool = True) -> BaileysItems:
    return read_sqlite(path, PRESETS[preset], now_ms=samples.NOW_MS, stopped=stopped, session=session)


@pytest.mark.parametrize("name", SHAPES)
def test_sql(tmp_path: Path, source: BaileysItems, name: str) -> None:
    path = database(tmp_path / "db", name, source, "one")
    if name.startswith("whaticket") and "unpaired" in str(SHAPES[name](source, "one")):
        same(read(path, name, "one"), source)
        return
    same(without_used(read(path, name)), source)
    same(without_used(read(path, name, "one")), source)


@pytest.mark.parametrize("name", SHAPES)
def test_one_of_two_sessions_has_to_be_named(tmp_path: Path, source: BaileysItems, name: str) -> None:
    path = database(tmp_path / "db", name, source, "one", "two")
    same(without_used(read(path, name, "two")), source)
    with pytest.raises(SourceRefused) as refusal:
        read(path, name)
    assert refusal.value.code == "session_several"
    assert {choice.removeprefix("keyv:") for choice in refusal.value.choices} >= {"one", "two"}
    with pytest.raises(SourceRefused) as refusal:
        read(path, name, "three")
    assert refusal.value.code == "session_unknown"


def test_waha_has_a_database_for_each_session_and_keeps_what_was_used(
    tmp_path: Path, source: BaileysItems
) -> None:
    table = PRESETS["waha"].tables[0]
    build(tmp_path / "db", table, [row[1:] for row in item_rows(source, "", str, once)])
    found = read(tmp_path / "db", "waha")
    assert found.keeps_deleted
    same(without_used(found), source)


def test_evolution_keeps_credentials_in_sql_and_items_in_files(tmp_path: Path, source: BaileysItems) -> None:
    build(tmp_path / "db", PRESETS["evolution"].tables[0], [("one", twice(source.creds)), ("two", None)])
    directory = tmp_path / "files"
    directory.mkdir()
    items = samples.files()
    del items["creds.json"]
    files = samples.read(directory, items)
    assert [note.code for note in files.notes] == ["creds_unreadable"]
    found = combine([read(tmp_path / "db", "evolution"), files])
    assert found.notes == ()
    assert (found.creds, dict(found.items)) == (source.creds, dict(files.items))
    assert combine([files]).notes == files.notes


def test_a_table_of_another_name(tmp_path: Path, source: BaileysItems) -> None:
    table = Table('odd "name"', "v", "k", "s")
    build(tmp_path / "db", Table('odd ""name""', "v", "k", "s"), item_rows(source, "one", str, once))
    found = read_sqlite(tmp_path / "db", Preset((table,)), now_ms=samples.NOW_MS, stopped=True)
    same(found, source)


def test_missing_tables_and_columns(tmp_path: Path, source: BaileysItems) -> None:
    path = database(tmp_path / "db", "prisma", source, "one")
    for preset in ("waha_auth", "evolution"):
        with pytest.raises(SourceRefused) as refusal:
            read(path, preset)
        assert refusal.value.code == "table_missing"
    assert "creds" in refusal.value.detail


@pytest.mark.parametrize("name", ["", "a?b", "a\0b", "a%sb"])
def test_impossible_names_of_tables(name: str) -> None:
    def query(text: str, parameters: Any) -> Iterator[tuple[Any, ...]]:
        raise AssertionError(text)

    with pytest.raises(SourceRefused) as refusal:
        read_sql(query, Preset((Table(name, "value", "key"),)))
    assert refusal.value.code == "table_missing"


def test_any_driver(tmp_path: Path, source: BaileysItems) -> None:
    """The interface is a cursor; values may come decoded, as jsonb does."""
    path = database(tmp_path / "db", "prisma", source, "one")
    connection = sqlite3.connect(path)

    class Decoding:
        def __init__(self) -> None:
            self.cursor = connection.cursor()

        def execute(self, text: str, parameters: Any = ()) -> None:
            self.cursor.execute(text.replace("%s", "?"), parameters)

        def fetchmany(self, size: int = 1) -> list[tuple[Any, ...]]:
            return [
                tuple(json.loads(v) if isinstance(v, str) and v[:1] in '{["' else v for v in row)
                for row in self.cursor.fetchmany(size)
            ]

    query = cursor_query(Decoding(), placeholder="%s", failure=sqlite3.Error)
    same(read_sql(query, PRESETS["prisma"], session="one"), source)
    with pytest.raises(SourceRefused) as refusal:
        read_sql(query, PRESETS["waha"])
    assert refusal.value.code == "source_damaged"
    connection.close()


def test_a_database_in_use(tmp_path: Path, source: BaileysItems) -> None:
    path = database(tmp_path / "db", "prisma", source, "one")
    with pytest.raises(SourceRefused) as refusal:
        read(path, "prisma", stopped=False)
    assert refusal.value.code == "source_running"
    with pytest.raises(SourceRefused) as refusal:
        read(tmp_path / "missing", "prisma")
    assert refusal.value.code == "source_missing"
    (tmp_path / "text").write_text("no database")
    with pytest.raises(SourceRefused) as refusal:
        read(tmp_path / "text", "prisma")
    assert refusal.value.code == "not_sqlite"


def test_broken_rows_are_told(tmp_path: Path, source: BaileysItems) -> None:
    rows = [
        *item_rows(source, "one", fixed, once),
        ("one", "session-1.0", '{"_sess'),
        ("one", "session-2.0", None),
    ]
    rows += [("one", "other", "7"), ("one", "pre-key-77", ""), ("one", "metadata", "{}"), ("one", None, None)]
    build(tmp_path / "db", PRESETS["prisma"].tables[0], rows)
    found = {note.item: note.code for note in read(tmp_path / "db", "prisma").notes}
    assert found == {
        "session-1.0": "item_unreadable",
        "pre-key-77": "item_unreadable",
        "other": "unknown_item",
    }


def test_broken_credentials(tmp_path: Path, source: BaileysItems) -> None:
    for value in ('{"noiseKey"', "", "7", None):
        rows = [row for row in item_rows(source, "one", fixed, once) if row[1] != "creds"]
        path = tmp_path / f"db{value}"
        build(path, PRESETS["prisma"].tables[0], [*rows, ("one", "creds", value)])
        assert [note.code for note in read(path, "prisma").notes] == ["creds_unreadable"]


# Dumps


def test_csv(tmp_path: Path, source: BaileysItems) -> None:
    for header in (("sessionId", "id", "data"), ("session_id", "key", "value")):
        path = tmp_path / "dump.csv"
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("pkId", *header))
            writer.writerows((1, *row) for row in item_rows(source, "one", fixed, once))
            writer.writerows((1, *row) for row in item_rows(source, "two", fixed, once))
        same(read_dump(path, session="two"), source)
        with pytest.raises(SourceRefused) as refusal:
            read_dump(path)
        assert refusal.value.choices == ("one", "two")
    table = Table("any", "value", "key", "session_id")
    same(read_dump(path, session="one", table=table), source)
    with pytest.raises(SourceRefused) as refusal:
        read_dump(path, table=Table("any", "wert", "key"))
    assert (refusal.value.code, "wert" in refusal.value.detail) == ("table_missing", True)


def test_csv_of_types_and_ids(tmp_path: Path, source: BaileysItems) -> None:
    path = tmp_path / "dump.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "whatsappId", "type", "key", "value"))
        for (kind, text), value in source.items.items():
            writer.writerow((5, 3, kind, text, numbers(value)))
    keys = read_dump(path)
    creds = read_dump(dump(tmp_path / "creds.json", once({"creds": source.creds, "keys": {}})))
    same(combine([creds, keys]), source)


def mongo(source: BaileysItems, document: Callable[[str, Any], dict[str, Any]]) -> list[dict[str, Any]]:
    return [document(name, value) for name, value in samples.values(source).items()]


DOCUMENTS: dict[str, Callable[[str, Any], dict[str, Any]]] = {
    "fields": lambda name, value: (
        {"_id": name, **value} if isinstance(value, dict) else {"_id": name, "value": value}
    ),
    "text": lambda name, value: {"_id": name, "data": once(value)},
    "object": lambda name, value: {"_id": name, "data": value},
    "of users": lambda name, value: {"_id": f"one:{name}", "data": once(value)},
    "canonical": lambda name, value: {"_id": {"$oid": "5f"}, "key": name, "data": samples.as_binary(value)},
    "baileys-mongo": lambda name, value: {"_id": {"$oid": "5f"}, "key": name, "value": once(value), "__v": 0},
    "waha": lambda name, value: {"_id": {"$oid": "5f"}, "key": dashed(name), "data": value, "type": "kv"},
}


@pytest.mark.parametrize("lines", [False, True])
@pytest.mark.parametrize("name", DOCUMENTS)
def test_mongo_exports(tmp_path: Path, source: BaileysItems, name: str, lines: bool) -> None:
    documents = mongo(source, DOCUMENTS[name])
    content = "\n".join(map(once, documents)) if lines else once(documents)
    same(read_dump(dump(tmp_path / "dump.json", content)), source)


def test_binary_that_is_text(tmp_path: Path, source: BaileysItems) -> None:
    documents = [
        {"_id": name, "data": samples.as_binary(samples.buffer(once(value).encode()))}
        for name, value in samples.values(source).items()
    ]
    same(read_dump(dump(tmp_path / "dump.json", once(documents))), source)


def test_one_document_with_items_as_fields(tmp_path: Path, source: BaileysItems) -> None:
    document = {"_id": "x"} | {dashed(name): value for name, value in samples.values(source).items()}
    found = read_dump(dump(tmp_path / "dump.json", once(document)), keeps_deleted=True)
    assert found.keeps_deleted
    same(without_used(found), source)


@pytest.mark.parametrize(
    "wrap", [dict, once, twice, lambda value: {"_id": "one", **value}, lambda value: {"id": 1, "data": value}]
)
def test_whole_documents(tmp_path: Path, source: BaileysItems, wrap: Encode) -> None:
    for camel in (False, True):
        content = wrap(whole(source, camel=camel))
        text = content if isinstance(content, str) else once(content)
        same(read_dump(dump(tmp_path / "dump.json", text), form="json"), source)


def test_the_parts_of_a_document_may_be_text_themselves(tmp_path: Path, source: BaileysItems) -> None:
    state = whole(source)
    keys = {kind: once(inner) for kind, inner in state["keys"].items()}
    path = dump(tmp_path / "dump.json", once({"creds": twice(state["creds"]), "keys": once(keys)}))
    same(read_dump(path), source)


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


REDIS: dict[str, Callable[[dict[str, str]], str]] = {
    "json": json.dumps,
    "json of RESP2": lambda hash_: json.dumps([part for pair in hash_.items() for part in pair]),
    "piped": lambda hash_: "".join(f"{name}\n{value}\n" for name, value in hash_.items()),
    "shown": lambda hash_: "\n".join(
        f"{number}) {quoted(text)}"
        for number, text in enumerate((part for pair in hash_.items() for part in pair), 1)
    ),
    "shown by RESP3": lambda hash_: "\n".join(
        f"{number}# {quoted(name)} => {quoted(value)}"
        for number, (name, value) in enumerate(hash_.items(), 1)
    ),
}


@pytest.mark.parametrize("prefix", ["", "one:", "baileys:one:"])
@pytest.mark.parametrize("encode", [once, twice])
@pytest.mark.parametrize("name", REDIS)
def test_redis(tmp_path: Path, source: BaileysItems, name: str, encode: Encode, prefix: str) -> None:
    hash_ = {f"{prefix}{key}": encode(value) for key, value in samples.values(source).items()} | {
        "metadata": "{}"
    }
    path = dump(tmp_path / "dump", REDIS[name](hash_))
    same(read_dump(path), source)
    if prefix:
        same(read_dump(path, session="one"), source)


def test_redis_without_credentials_beside_a_database(tmp_path: Path, source: BaileysItems) -> None:
    """Evolution with Redis."""
    hash_ = {name: twice(value) for name, value in samples.values(source).items() if name != "creds"}
    keys = read_dump(dump(tmp_path / "dump", json.dumps(hash_)))
    assert [note.code for note in keys.notes] == ["creds_unreadable"]
    build(tmp_path / "db", PRESETS["evolution"].tables[0], [("one", twice(source.creds))])
    same(combine([read(tmp_path / "db", "evolution"), keys]), source)


def test_redis_escapes(tmp_path: Path) -> None:
    text = r'1) "creds"' + "\n" + r'2) "{\"noiseKey\":1,\"me\":{\"name\":\"Jos\xc3\xa9\\n\\\\\"}}"'
    found = read_dump(dump(tmp_path / "dump", text))
    assert found.creds == {"noiseKey": 1, "me": {"name": "José\n\\"}}


@pytest.mark.parametrize(
    "content",
    [
        {f"baileys:auth:one:{part}": once({"ciphertext": "x", "nonce": "y"}) for part in ("creds", "keys", "meta")},
        [{"_id": "one", "creds": "bm9uY2UrY2lwaGVydGV4dA==", "keys": {"session": "bm9uY2U="}}],
        {"creds": {"ciphertext": "x", "nonce": "y"}},
    ],
)  # fmt: skip
def test_encrypted_stores_are_refused_by_name(tmp_path: Path, content: Any) -> None:
    with pytest.raises(SourceRefused) as refusal:
        read_dump(dump(tmp_path / "dump", once(content)))
    assert refusal.value.code == "source_encrypted"
    assert "export them decrypted" in refusal.value.detail


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("dump.json", "", "source_damaged"),
        ("dump.json", "{", "source_damaged"),
        ("dump.json", "[1]", "source_damaged"),
        ("dump.json", "[[[[", "source_damaged"),
        ("dump.json", "[" * 100_000, "source_damaged"),
        ("dump.json", "{}", "not_baileys"),
        ("dump.json", "[]", "not_baileys"),
        ("dump.json", '[{"a": 1}]', "not_baileys"),
        ("dump.json", '{"table": [1]}', "not_baileys"),
        ("dump.csv", "", "not_baileys"),
        ("dump.csv", "a,b\n1,2\n", "not_baileys"),
        ("dump.csv", 'a,b\n"1,2\n', "source_damaged"),
        ("dump", "creds\n", "source_damaged"),
        ("dump", "one\ntwo\n", "not_baileys"),
        ("dump", '1) "creds"\nwhat\n', "source_damaged"),
        ("dump", "\ud800", "source_damaged"),
    ],
)
def test_what_is_no_dump(tmp_path: Path, name: str, content: str, code: str) -> None:
    path = tmp_path / name
    path.write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(SourceRefused) as refusal:
        read_dump(path)
    assert refusal.value.code == code


def test_files_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SourceRefused) as refusal:
        read_dump(tmp_path / "missing")
    assert refusal.value.code == "source_missing"
    with pytest.raises(SourceRefused) as refusal:
        read_dump(tmp_path)
    assert refusal.value.code == "not_baileys"
    monkeypatch.setattr("waD.transfer.baileys.dumps.MAX_TOTAL_SIZE", 2)
    with pytest.raises(SourceRefused) as refusal:
        read_dump(dump(tmp_path / "dump", "{}   "))
    assert refusal.value.code == "source_too_large"


def test_nesting_is_limited(tmp_path: Path, source: BaileysItems) -> None:
    deep: Any = {}
    for _ in range(200):
        deep = {"a": deep}
    rows = [{"key": name, "value": value} for name, value in samples.values(source).items()]
    rows.append({"key": "session-1.0", "value": deep})
    for content in (rows, samples.values(source) | {"session-1.0": deep}):
        (note,) = read_dump(dump(tmp_path / "dump.json", once(content))).notes
        assert (note.code, note.item) == ("item_unreadable", "session-1.0")


def test_more_sessions_than_anybody_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("waD.transfer.baileys.rows.MAX_SESSIONS", 3)
    with pytest.raises(SourceRefused) as refusal:
        read_rows(Row(str(number), "creds", "{}") for number in range(5))
    assert refusal.value.code == "source_too_large"


def test_more_items_than_anybody_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("waD.transfer.baileys.source.MAX_ITEMS", 3)
    with pytest.raises(SourceRefused) as refusal:
        read_rows(Row("one", f"pre-key-{number}", "{}") for number in range(5))
    assert refusal.value.code == "source_too_large"
