"""Statements of dumps: literals of every database, what is passed over, and what ends in a refusal."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.transfer.dumps.making import HERE
from waD.transfer.sources import sql_dump, sql_lexer
from waD.transfer.sources.errors import SourceRefused
from waD.transfer.sources.sql_dump import open_sql_dump
from waD.transfer.sources.sql_statements import (
    Created,
    Inserted,
    TableName,
    dialect_of,
    is_sql,
    read_statements,
)

MYSQL = "-- MySQL dump 10.13\n"
MYSQL_END = "-- Dump completed on 2026-01-01\n"
POSTGRESQL = "SET client_encoding = 'UTF8';\n"
SQLITE = "PRAGMA foreign_keys=OFF;\n"


def read(content: str | bytes, size: int = 1 << 18) -> list[Created | Inserted]:
    data = content.encode() if isinstance(content, str) else content
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    return [*read_statements(pieces, lambda table: table.name == "t")]


def rows(content: str | bytes) -> list[tuple[Any, ...]]:
    return [one.values for one in read(content) if isinstance(one, Inserted)]


def value(literal: str | bytes, head: str = "", end: str = "") -> Any:
    data = literal.encode() if isinstance(literal, str) else literal
    ((found,),) = rows(head.encode() + b"INSERT INTO t VALUES (" + data + b");\n" + end.encode())
    return found


def refused(content: str | bytes) -> SourceRefused:
    with pytest.raises(SourceRefused) as refusal:
        read(content)
    assert refusal.value.code in ("source_damaged", "dump_unsupported")
    return refusal.value


NUMBERS: list[tuple[str, Any]] = [
    ("NULL", None), ("null", None), ("DEFAULT", None), ("TRUE", 1), ("false", 0), ("0", 0), ("-5", -5), ("+5", 5),
    ("1.5", 1.5), (".5", 0.5), ("-1.5e-300", -1.5e-300), ("1e3", 1000.0), ("- 7", -7), ("9223372036854775808", 1 << 63),
    ("1" * 50, "1" * 50),
]  # fmt: skip


@pytest.mark.parametrize(("literal", "expected"), NUMBERS)
def test_numbers(literal: str, expected: Any) -> None:
    for head, end in (("", ""), (MYSQL, MYSQL_END), (POSTGRESQL, ""), (SQLITE, "")):
        assert value(literal, head, end) == expected


@pytest.mark.parametrize(
    ("literal", "expected"),
    [
        (r"'it''s \n'", r"it's \n"),
        (r"E'it\'s ''\n\t\b\f\r\\ \101\x41\u00e9\U0001F642\q'", "it's '\n\t\b\f\r\\ AAé🙂q"),
        ("''", ""),
        ("'a'::text", "a"),
        ("'{}'::public.\"Enum\"[]::character varying(10)", "{}"),
        ("'2026-01-01'::timestamp(3) without time zone", "2026-01-01"),
        (r"'\x6162'::bytea", b"ab"),
        (r"'\x6162'", "\\x6162"),
        (r"'\000\\b'::bytea", b"\0\\b"),
        ("B'101'", 5),
        ("$$it's$$", "it's"),
        ("$a$ $b$ $a$", " $b$ "),
        ("N'x'", "x"),
    ],
)
def test_strings_of_postgresql(literal: str, expected: Any) -> None:
    assert value(literal, POSTGRESQL) == expected


def test_strings_with_escapes_of_old_servers() -> None:
    head = POSTGRESQL + "SET standard_conforming_strings = off;\n"
    assert value(r"'it\'s'", head) == "it's"


@pytest.mark.parametrize(
    ("literal", "expected"),
    [
        (r"'it\'s ''\0\b\n\r\t\Z\\ \% \_ \q\"'", "it's '\0\b\n\r\t\x1a\\ \\% \\_ q\""),
        ('"it\'s ""\\n"', "it's \"\n"),
        ("0x6162", b"ab"),
        ("0xabc", b"\x0a\xbc"),
        ("x'6162'", b"ab"),
        ("b'101'", 5),
        ("_binary 'ab'", b"ab"),
        (r"_binary '\0\''", b"\0'"),
        ("_binary 0x6162", b"ab"),
        ("_utf8mb4'é'", "é"),
        (b"_binary '\xff\xfe'", b"\xff\xfe"),
        (b"'\xff\xfe'", b"\xff\xfe"),
    ],
)
def test_strings_of_mysql(literal: str | bytes, expected: Any) -> None:
    assert value(literal, MYSQL, MYSQL_END) == expected


@pytest.mark.parametrize(
    ("literal", "expected"),
    [
        (r"'it''s \n'", r"it's \n"),
        ("X'00fF'", b"\0\xff"),
        (r"replace('a\nb','\n',char(10))", "a\nb"),
        (r"replace(replace('a\r\n','\r',char(13)),'\n',char(10))", "a\r\n"),
        ("unistr('\\u0041\\\\\\00e9\\+01F642\\U0001F642')", "A\\é🙂🙂"),
        (r"unistr('\ud83d\ude42')", "🙂"),
        ("char(72,105)", "Hi"),
        ("char(55357,56898,55357)", "🙂\ufffd"),
        ("CAST(X'6162' AS TEXT)", "ab"),
        ("9.0e+999", float("inf")),
    ],
)
def test_strings_of_sqlite(literal: str, expected: Any) -> None:
    assert value(literal, SQLITE) == expected


@pytest.mark.parametrize(
    "literal",
    [
        "now()",
        "(SELECT 1)",
        "a",
        "1 + 1",
        "'a' || 'b'",
        "",
        "1,",
        "X'0'",
        "X'zz'",
        "-'a'",
        "replace('a','','b')",
        "char(-1)",
        "unistr(1)",
        "CAST(1, 2)",
        "replace('a','b')",
        "replace(" * 20 + "1",
        "ARRAY[1]",
        "'a'::",
        ":a",
        "?",
    ],
)
@pytest.mark.parametrize("head", ["", MYSQL, POSTGRESQL, SQLITE])
def test_what_is_no_literal(literal: str, head: str) -> None:
    refusal = refused(f"{head}INSERT INTO t VALUES ({literal});\n{MYSQL_END}")
    assert (refusal.code, "byte" in refusal.detail) == ("source_damaged", True)


def test_replacing_does_not_make_gigabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("waD.transfer.sources.sql_values.MAX_TOKEN", 1000)
    inner = "a" * 100
    refused(f"INSERT INTO t VALUES (replace('{inner}','a','{inner}'));")


@pytest.mark.parametrize(
    ("statement", "table", "columns"),
    [
        ('INSERT INTO public."t" (a, "B ""c") VALUES (1, 2)', TableName("public", "t"), ("a", 'B "c')),
        ("INSERT IGNORE INTO `t` (`a``b`, c) VALUES (1, 2)", TableName("", "t"), ("a`b", "c")),
        ("insert or replace into 't' values (1, 2)", TableName("", "t"), None),
        ("REPLACE INTO db.t VALUE (1, 2)", TableName("db", "t"), None),
        (
            "INSERT INTO t (a, b) OVERRIDING SYSTEM VALUE VALUES (1, 2) ON CONFLICT DO NOTHING",
            TableName("", "t"),
            ("a", "b"),
        ),
        ("INSERT INTO t VALUES (1, 2) ON DUPLICATE KEY UPDATE a = ';'", TableName("", "t"), None),
        ("/* ; */ INSERT -- ;\n INTO t VALUES (1 /* ' */, 2)", TableName("", "t"), None),
    ],
)
def test_forms_of_insert(statement: str, table: TableName, columns: tuple[str, ...] | None) -> None:
    (found,) = read(f"{statement};")
    assert isinstance(found, Inserted)
    assert found[:3] == (table, columns, (1, 2))


def test_rows_in_one_statement() -> None:
    assert rows("INSERT INTO t VALUES (1,'a'),(2,'b;'),\n(3,'c''');") == [(1, "a"), (2, "b;"), (3, "c'")]


DEFINITIONS = [
    (
        "CREATE TABLE t (a int, b varchar(10) DEFAULT 'x,)' NOT NULL, PRIMARY KEY (a, b), CHECK (a > 0))",
        "a b",
    ),
    ("CREATE TABLE IF NOT EXISTS t(a,b TEXT,UNIQUE(a,b),FOREIGN KEY(a) REFERENCES u(a))", "a b"),
    (
        "CREATE UNLOGGED TABLE s.t (key text NOT NULL, value jsonb, index int, CONSTRAINT c PRIMARY KEY (key))",
        "key value index",
    ),
    ("CREATE TEMPORARY TABLE t (\"primary\" text, 'odd' int)", "primary odd"),
]


@pytest.mark.parametrize(("statement", "names"), DEFINITIONS)
def test_definitions(statement: str, names: str) -> None:
    (found,) = read(f"{statement};")
    assert isinstance(found, Created)
    assert " ".join(name for name, _ in found.columns) == names


def test_definitions_of_mysql() -> None:
    statement = (
        "CREATE TABLE `t` (`key` int(11) NOT NULL COMMENT 'a\\'b,', `index` text /*!80023 INVISIBLE */,"
        " PRIMARY KEY (`key`), KEY `k` (`index`(10)), UNIQUE KEY (`key`), FULLTEXT KEY x (`index`)) ENGINE=InnoDB;\n"
    )
    (found,) = read(MYSQL + statement + MYSQL_END)
    assert found == Created(TableName("", "t"), (("key", "int"), ("index", "text")))


OTHERS = {
    "": [
        "",
        ";;",
        "SELECT pg_catalog.setval('a;b', 1, true);",
        "COMMENT ON TABLE x IS 'a;''b';",
        "CREATE VIEW v AS SELECT 'INSERT INTO t VALUES (9)' AS \"a;\";",
        "INSERT INTO other VALUES ('a;', now());",
        "INSERT INTO other SELECT * FROM x;",
        "CREATE TABLE t AS SELECT 1;",
        "DELETE FROM other;",
        "ALTER TABLE t ADD COLUMN x text DEFAULT ';';",
        "BEGIN; COMMIT;",
        "START TRANSACTION; END;",
        'GRANT ALL ON t TO "a;b";',
        "-- INSERT INTO t VALUES (9);",
        "/* INSERT INTO t VALUES (9); */",
    ],
    POSTGRESQL: [
        "CREATE FUNCTION f() RETURNS int AS $$ BEGIN; INSERT INTO t VALUES (9); END $$ LANGUAGE plpgsql;",
        "CREATE FUNCTION f() RETURNS int AS $_a1$ ; $$ ; $_a1$ LANGUAGE sql;",
        "DO $$ BEGIN PERFORM 1; END $$;",
        'CREATE FUNCTION f("begin" int, b int) BEGIN ATOMIC SELECT 1; SELECT CASE WHEN true THEN 1 END; END;',
        "CREATE RULE r AS ON INSERT TO x DO INSTEAD (DELETE FROM y; DELETE FROM z);",
        r"COMMENT ON TABLE x IS E'a\';''';",
        "CREATE INDEX i ON x USING btree (begin);",
        "ALTER TABLE a$b OWNER TO c;",
        "SELECT $1;",
        "\\connect other",
        "\\unrestrict a;b",
        "COPY other (a) FROM stdin;\nINSERT INTO t VALUES (9);\n'\n\\.",
        "SELECT a - 1, 2 / 1, 3 -- ;\n;",
    ],
    SQLITE: [
        "CREATE TRIGGER g AFTER INSERT ON x BEGIN INSERT INTO t VALUES (9); SELECT CASE 1 WHEN 2 THEN 3 END; END;",
        "CREATE INDEX [a;b] ON x([c;d]);",
        "INSERT INTO sqlite_schema VALUES('table','f','f',0,'CREATE VIRTUAL TABLE f');",
        "CREATE VIRTUAL TABLE f USING fts5(a);",
        "DELETE FROM sqlite_sequence;",
        "INSERT INTO other VALUES('a\\');",
        "ALTER TABLE `a;b` RENAME TO c;",
        "SELECT $a;",
    ],
    MYSQL: [
        "/*!40101 SET NAMES utf8mb4 */;",
        "SET @a = ';';",
        "LOCK TABLES `t` WRITE;",
        "UNLOCK TABLES;",
        "USE `other`; USE ``;",
        "DELIMITER ;;\nCREATE TRIGGER g BEGIN INSERT INTO t VALUES (9); END ;;\nDELIMITER ;",
        "# ; '",
        "SELECT 2--1;",
        "DELIMITER $$\nCREATE FUNCTION f() BEGIN RETURN 'x$$'; END $$\nDELIMITER ;",
        "INSERT INTO other VALUES ('a\\';',\"b\\\";\");",
        "/*!50001 CREATE VIEW `v` AS SELECT 1 */;",
        "SELECT `a;b` FROM `c``;` -- ;\n;",
        "INSERT INTO other VALUES (1); -- '",
    ],
}


@pytest.mark.parametrize(
    ("head", "other"),
    [(head, other) for head, others in OTHERS.items() for other in others],
)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1 << 18])
def test_what_is_passed_over(head: str, other: str, size: int) -> None:
    end = MYSQL_END if head == MYSQL else ""
    found = read(f"{head}{other}\nINSERT INTO t VALUES (1);\n{other}\nINSERT INTO t VALUES (2);\n{end}", size)
    assert [one.values for one in found if isinstance(one, Inserted)] == [(1,), (2,)]


def test_rows_that_are_changed_are_refused() -> None:
    for change in ("DELETE FROM t;", "TRUNCATE TABLE t;", "UPDATE t SET a = 1;", "DROP TABLE IF EXISTS t;"):
        assert [*rows(f"{change}\nINSERT INTO t VALUES (1);")] == [(1,)]
        refusal = refused(f"INSERT INTO t VALUES (1);\n{change}")
        assert refusal.code == "dump_unsupported"


def test_databases_and_schemas() -> None:
    found = read(
        POSTGRESQL
        + '\\connect -reuse-previous=on "one"\nINSERT INTO t VALUES (1);\n\\connect two\nINSERT INTO a.t VALUES (2);'
    )
    assert [str(one.table) for one in found] == ["one.t", "two.a.t"]
    found = read(
        f"{MYSQL}USE `one`;\nINSERT INTO t VALUES (1);\nUSE two;\nINSERT INTO t VALUES (2);\n{MYSQL_END}"
    )
    assert [str(one.table) for one in found] == ["one.t", "two.t"]
    assert read(POSTGRESQL + 'INSERT INTO T VALUES (1); INSERT INTO "T" VALUES (2);')[0].table.name == "t"


def test_copy() -> None:
    content = (
        POSTGRESQL
        + "COPY t (a, b) FROM stdin;\n1\ta\\tb\\n\\\\ \\101\\x41\\v\n\\N\t\n\\\\N\t\\\\.\n\\.\n\nSELECT 1;\n"
    )
    assert rows(content) == [("1", "a\tb\n\\ AA\v"), (None, ""), ("\\N", "\\.")]
    assert rows(content.replace("\n", "\r\n")) == rows(content)
    assert refused(content.replace("stdin", "'/etc/passwd'")).code == "dump_unsupported"
    assert refused(content.replace("stdin;", "stdin WITH (FORMAT csv);")).code == "dump_unsupported"
    assert refused(content[: content.index("\\.\n\nSELECT")]).code == "source_damaged"


@pytest.mark.parametrize(
    "content",
    [
        "INSERT INTO t VALUES (1",
        "INSERT INTO t VALUES (1)",
        "INSERT INTO t VALUES ('a",
        "INSERT INTO t",
        "INSERT",
        "INSERT INTO t (a",
        "INSERT INTO t VALUES",
        "INSERT INTO t VALUES (1),",
        "CREATE TABLE t (a int",
        "CREATE TABLE",
        "CREATE TABLE t (a int)",
        "CREATE VIEW v AS SELECT 1",
        "SELECT '",
        "SELECT /* ",
        'SELECT "',
        "SELECT 1",
        "COPY t",
        "COPY t (a) FROM stdin;",
        "BEGIN;\nSELECT 1;",
        "nonsense;",
        "[1];",
        "'a';",
        "INSERT INTO t FROM x;",
        "SELECT $$ ;",
        f"{MYSQL}SELECT 1;",
        "-- PostgreSQL database dump\nSELECT 1;",
        f"{MYSQL}DELIMITER ;;\nSELECT 1;",
        "ROLLBACK;",
        "INSERT INTO t VALUES (1 2);",
        "INSERT INTO t (1) VALUES (2);",
        "INSERT INTO t VALUES 1;",
        "CREATE FUNCTION f() BEGIN ATOMIC SELECT 1; ",
        "INSERT INTO . VALUES (1);",
        "CREATE TABLE t (a int; b int);",
    ],
)
def test_damage(content: str) -> None:
    refusal = refused(content)
    assert (refusal.code, "byte" in refusal.detail) == ("source_damaged", True)


@pytest.mark.parametrize(
    "head", ["SET NAMES latin1;", "SET client_encoding = 'LATIN1';", "/*!40101 SET NAMES cp1251 */;"]
)
def test_other_encodings(head: str) -> None:
    """What cannot be told apart from UTF-8 would be taken wrongly."""
    refusal = refused(f"{MYSQL if '!' in head else ''}{head}\nINSERT INTO t VALUES (1);\n{MYSQL_END}")
    assert (refusal.code, "UTF-8" in refusal.detail) == ("dump_unsupported", True)


@pytest.mark.parametrize("name", ["mariadb-10.11", "mariadb-10.11-hex"])
def test_the_size_of_the_pieces_changes_nothing(name: str) -> None:
    data = (HERE / f"{name}.sql").read_bytes()

    def found(size: int) -> list[Created | Inserted]:
        pieces = (data[at : at + size] for at in range(0, len(data), size))
        return [*read_statements(pieces, lambda table: table.name in ("auth", "Messages"))]

    assert found(1 << 18) == found(1) == found(113)


@given(
    st.text(st.sampled_from("ab'\"`\\/*-#$;(),.[]E \n0é"), max_size=40),
    st.sampled_from(["", MYSQL, POSTGRESQL, SQLITE]),
)
@settings(max_examples=300)
@example("$", POSTGRESQL)
@example("--", MYSQL)
def test_any_text(text: str, head: str) -> None:
    """It is refused, or the same in pieces of any size."""
    for content in (
        head + text,
        f"{head}INSERT INTO t VALUES ({text});",
        f"{head}INSERT INTO u VALUES ({text});",
    ):
        outcomes = []
        for size in (1, 1 << 18):
            try:
                outcomes.append(str(read(content, size)))
            except SourceRefused as refusal:
                outcomes.append(refusal.code)
        assert outcomes[0] == outcomes[1]


@given(st.text(max_size=60), st.sampled_from([MYSQL, POSTGRESQL, SQLITE]))
def test_any_string_comes_back(text: str, head: str) -> None:
    quoted = text.replace("\0", "").replace("'", "''")
    if head == MYSQL:
        quoted = quoted.replace("\\", "\\\\")
    end = MYSQL_END if head == MYSQL else ""
    assert value(f"'{quoted}'", head, end) == text.replace("\0", "")


@pytest.mark.parametrize(
    "content",
    [
        "INSERT INTO t VALUES ('" + "a" * 20_000_000,
        "INSERT INTO t VALUES (" + "(" * 5_000_000,
        "SELECT " + "'" * 20_000_001,
        "SELECT " + "/*" * 10_000_000,
        "SELECT " + "$a" * 10_000_000,
        "SELECT " + "-" * 20_000_000,
        "CREATE TABLE t (a " + "(" * 300_000,
        "INSERT INTO t VALUES (" + "1," * 5_000_000,
        "CREATE FUNCTION f " + "BEGIN " * 200_000,
        ";" * 200_000 + "x",
    ],
    ids=range(10),
)
def test_twenty_megabytes_of_nonsense(content: str) -> None:
    begun = time.process_time()
    assert refused(POSTGRESQL + content).code == "source_damaged"
    assert time.process_time() - begun < 30


def test_strings_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql_lexer, "MAX_TOKEN", 1000)
    for content in ("INSERT INTO t VALUES ('" + "a" * 5000, "SELECT '" + "a" * 5000):
        with pytest.raises(SourceRefused) as refusal:
            read(content, 100)
        assert refusal.value.code == "source_too_large"


def loaded(tmp_path: Path, content: str | bytes, query: str) -> list[tuple[Any, ...]]:
    path = tmp_path / "dump.sql"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with open_sql_dump(path, lambda table: table.name == "t", {("t", "n"): "bigint"}) as source:
        return [*source.rows(query)]


def test_types_of_columns(tmp_path: Path) -> None:
    query = "SELECT *, typeof(n) FROM t"
    rows = "COPY t (n, d, s) FROM stdin;\n5\t\\\\x6162\tt\n\\.\n"
    define = "CREATE TABLE t (n bigint, d bytea, s boolean);\n"
    assert loaded(tmp_path, POSTGRESQL + define + rows, query) == [(5, b"ab", 1, "integer")]
    # Without definitions what is a number is known by others, and what is bytes by its form.
    assert loaded(tmp_path, POSTGRESQL + rows, query) == [(5, b"ab", "t", "integer")]
    large = f"{define}INSERT INTO t VALUES (1, 'a', {1 << 70});"
    assert loaded(tmp_path, large, "SELECT s FROM t") == [(str(1 << 70),)]
    plain = f"{SQLITE}{define}INSERT INTO t VALUES (1, 'a\\134', 2);"
    assert loaded(tmp_path, plain, "SELECT d FROM t") == [("a\\134",)]


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ("INSERT INTO t VALUES (1);", "dump_unsupported"),
        ("CREATE TABLE t (a int); INSERT INTO t VALUES (1, 2);", "source_damaged"),
        ("CREATE TABLE t (a int); INSERT INTO t (b) VALUES (1);", "source_damaged"),
        ("CREATE TABLE t (a int, A int); INSERT INTO t VALUES (1, 2);", "source_damaged"),
        ('CREATE TABLE t ("a\0" int); INSERT INTO t VALUES (1);', "source_damaged"),
        ("INSERT INTO a.t (x) VALUES (1); INSERT INTO b.t (x) VALUES (1);", "dump_unsupported"),
        ('INSERT INTO t ("") VALUES (1);', "ok"),
        ("CREATE TABLE a.t (x int); CREATE TABLE b.t (x int); INSERT INTO b.t VALUES (1);", "ok"),
        ("CREATE TABLE t (x int);", "ok"),
    ],
)
def test_tables(tmp_path: Path, content: str, code: str) -> None:
    if code == "ok":
        assert len(loaded(tmp_path, content, "SELECT * FROM t")) == content.count("INSERT")
        return
    with pytest.raises(SourceRefused) as refusal:
        loaded(tmp_path, content, "SELECT * FROM t")
    assert (refusal.value.code, str(tmp_path) in refusal.value.detail) == (code, True)


def test_rows_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql_dump, "MAX_KEPT", 10_000)
    with pytest.raises(SourceRefused) as refusal:
        loaded(tmp_path, "CREATE TABLE t (a int);" + "INSERT INTO t VALUES (1);" * 200, "SELECT * FROM t")
    assert refusal.value.code == "source_too_large"


def test_a_disk_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = sql_dump._Loader.load

    def limited(loader: Any, found: Any) -> None:
        loader._connection.execute("PRAGMA max_page_count = 3")
        original(loader, found)

    monkeypatch.setattr(sql_dump._Loader, "load", limited)
    content = "CREATE TABLE t (a int);" + f"INSERT INTO t VALUES ('{'x' * 9000}');" * 5
    with pytest.raises(SourceRefused) as refusal:
        loaded(tmp_path, content, "SELECT * FROM t")
    assert (refusal.value.code, "full" in refusal.value.detail) == ("source_too_large", True)


def test_nothing_of_a_dump_is_run(tmp_path: Path) -> None:
    content = (
        f"ATTACH DATABASE '{tmp_path}/made' AS m; CREATE TABLE m.x (a); PRAGMA user_version = 5;"
        "CREATE TABLE t (a int DEFAULT (load_extension('x')), CHECK (load_extension('x')));"
        'INSERT INTO t VALUES (1); CREATE TABLE "t""; DROP TABLE t; --" (a);'
    )
    with pytest.raises(SourceRefused) as refusal:
        loaded(tmp_path, content, "SELECT * FROM t")
    assert refusal.value.code == "source_damaged"
    assert loaded(tmp_path, content.partition(";")[2], "SELECT * FROM t") == [(1,)]
    assert [path.name for path in tmp_path.iterdir()] == ["dump.sql"]


def test_what_is_a_dump_and_whose() -> None:
    assert all(
        map(is_sql, (b"-- x", b"\n/*!40101", b"\xef\xbb\xbfCREATE TABLE", b"insert into", b"\\restrict x"))
    )
    assert not any(map(is_sql, (b"{}", b"creds\n", b"session-1.0\n", b'1) "creds"', b"INSERTED", b"")))
    assert dialect_of(b"INSERT INTO `a` VALUES ('PRAGMA')") == "mysql"
    assert dialect_of(b"INSERT INTO a VALUES ('`')") == "standard"
