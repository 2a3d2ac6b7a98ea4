"""What the statements of an SQL dump say: columns of tables, and rows; all others are passed over, none is run."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Final, NamedTuple, TypeAlias

from waD.transfer.sources.errors import SourceRefused
from waD.transfer.sources.sql_lexer import Dialect, Lexer, Token
from waD.transfer.sources.sql_values import Literal, copied, read_value, unquoted, unquoted_name

HEAD: Final = 1 << 16
"""Bytes at the beginning that tell which program wrote it."""
MAX_COLUMNS: Final = 2000
_MAX_NAME: Final = 200

_MYSQL: Final = re.compile(
    rb"^-- (?:MySQL|MariaDB|phpMyAdmin|HeidiSQL|Host:)|/\*M?![0-9]{5,6}|"
    rb"^(?:CREATE|DROP|INSERT|REPLACE|LOCK)\b[^'\"\n(]*`",
    re.MULTILINE,
)
_POSTGRESQL: Final = re.compile(
    rb"^-- PostgreSQL database|^SET (?:client_encoding|standard_conforming_strings|statement_timeout)|"
    rb"^COPY [^\n]* FROM stdin|^\\(?:restrict|connect) ",
    re.MULTILINE | re.IGNORECASE,
)
_SQLITE: Final = re.compile(rb"^PRAGMA |^BEGIN TRANSACTION;", re.MULTILINE)
_SQL: Final = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:--|#|/\*|\\(?:restrict|connect)\s|"
    rb"(?:ALTER|BEGIN|COPY|CREATE|DELIMITER|DROP|INSERT|LOCK|PRAGMA|REPLACE|SELECT pg_catalog|SET|START|USE)\s)",
    re.IGNORECASE,
)
_PROGRAM_DONE: Final = (
    (re.compile(rb"^-- PostgreSQL database cluster dump\r?$", re.MULTILINE), rb"cluster dump complete"),
    (re.compile(rb"^-- PostgreSQL database dump\r?$", re.MULTILINE), rb"(?:database|cluster) dump complete"),
    (re.compile(rb"^-- (?:MySQL|MariaDB) dump ", re.MULTILINE), rb"Dump completed"),
)
"""How a dump begins, and what its last comment then says; the dump programs write it when nothing failed."""
_ENCODINGS: Final = frozenset(
    {b"utf8", b"utf-8", b"utf8mb3", b"utf8mb4", b"unicode", b"sql_ascii", b"ascii", b"binary", b"default"}
)
_STATEMENTS: Final = frozenset(
    b"ALTER ANALYZE BEGIN CALL COMMENT COMMIT COPY CREATE DELETE DELIMITER DO DROP END FLUSH GRANT INSERT LOCK PRAGMA "
    b"REFRESH REINDEX RELEASE REPLACE REVOKE ROLLBACK SAVEPOINT SECURITY SELECT SET START TRUNCATE UNLOCK UPDATE USE "
    b"VACUUM WITH".split()
)
_NOT_COLUMNS: Final = frozenset(
    {b"PRIMARY", b"UNIQUE", b"CONSTRAINT", b"FOREIGN", b"CHECK", b"EXCLUDE", b"LIKE"}
)
_NOT_COLUMNS_OF_MYSQL: Final = frozenset({b"KEY", b"INDEX", b"FULLTEXT", b"SPATIAL", b"PERIOD"})


class TableName(NamedTuple):
    """A table, and the database or schema it is in, empty where the dump does not say."""

    schema: str
    name: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}" if self.schema else self.name


class Created(NamedTuple):
    """A table and its columns, each with its type in small letters, empty where it has none."""

    table: TableName
    columns: tuple[tuple[str, str], ...]


class Inserted(NamedTuple):
    """One row.

    Attributes:
        table: it belongs to.
        columns: their names; None: those of the table, in order.
        values: one for each.
        printed: byte strings and truth values are text, as PostgreSQL prints them.
        at: offset of the row.
    """

    table: TableName
    columns: tuple[str, ...] | None
    values: tuple[Literal, ...]
    printed: bool
    at: int


Wanted: TypeAlias = Callable[[TableName], bool]


def is_sql(start: bytes) -> bool:
    """Whether a file begins like a dump in SQL."""
    return _SQL.match(start) is not None


def dialect_of(head: bytes) -> Dialect:
    """How a dump is written, by its beginning."""
    known: tuple[tuple[Dialect, re.Pattern[bytes]], ...] = (
        ("postgresql", _POSTGRESQL),
        ("sqlite", _SQLITE),
        ("mysql", _MYSQL),
    )
    found = [(match.start(), dialect) for dialect, pattern in known if (match := pattern.search(head))]
    return min(found)[1] if found else "standard"


def read_statements(pieces: Iterable[bytes], wanted: Wanted) -> Iterator[Created | Inserted]:
    """Read a dump to its end.

    Args:
        pieces: the text.
        wanted: whether the rows of a table are of any use; the others are passed over.

    Raises:
        SourceRefused: `source_damaged` with the offset; `dump_unsupported`. What came before is not to be trusted then.
    """
    return _Reader(pieces, wanted).read()


class _Reader:
    def __init__(self, pieces: Iterable[bytes], wanted: Wanted) -> None:
        pieces = iter(pieces)
        head = b""
        while len(head) < HEAD and (piece := next(pieces, None)) is not None:
            head += piece
        self._head = head[:HEAD]
        start = head.removeprefix(b"\xef\xbb\xbf")
        self._lexer = Lexer(chain((start,), pieces), dialect_of(self._head))
        self._wanted = wanted
        self._schema = ""
        self._filled: set[TableName] = set()
        self._open = False

    def read(self) -> Iterator[Created | Inserted]:
        lexer = self._lexer
        while (token := lexer.next()).kind != "end":
            if token.says(b"\\"):
                self._meta_command()
            elif token.says(b";"):
                continue
            elif token.kind != "word" or token.text.upper() not in _STATEMENTS:
                raise lexer.damaged("not the beginning of a statement that dumps have", token.at)
            elif token.says(b"CREATE"):
                yield from self._create()
            elif token.says(b"INSERT", b"REPLACE"):
                yield from self._insert()
            elif token.says(b"COPY"):
                yield from self._copy()
            else:
                self._other(token)
        self._check_whole()

    # ------------------------------------------------------------------------------------- statements without rows

    def _meta_command(self) -> None:
        r"""Commands of psql: `\connect` begins another database."""
        words = self._lexer.line().split()
        if words[:1] in ([b"connect"], [b"c"]) and len(words) > 1:
            name = next((word for word in words[1:] if not word.startswith(b"-")), b"")
            self._schema = name.strip(b"\"'").decode("utf-8", "replace")

    def _other(self, token: Token) -> None:
        lexer = self._lexer
        if token.says(b"DELIMITER"):
            self._pass_routines()
            return
        if token.says(b"SET"):
            self._set()
        elif token.says(b"USE"):
            self._schema = unquoted_name(self._name_token())
        elif token.says(b"DELETE", b"TRUNCATE", b"UPDATE", b"DROP"):
            self._refuse_changes(token)
        elif token.says(b"BEGIN", b"START"):
            self._open = True
        elif token.says(b"COMMIT", b"END"):
            self._open = False
        elif token.says(b"ROLLBACK"):
            raise lexer.damaged("the dump takes itself back: its program met errors", token.at)
        lexer.skip_statement()

    def _pass_routines(self) -> None:
        """MySQL's client takes everything up to another delimiter as one statement: triggers and functions."""
        delimiter = self._lexer.line().strip()
        while delimiter != b";":
            line = self._lexer.line()
            if not line:
                raise self._lexer.damaged("the text ends within a routine: it was cut short")
            words = line.split()
            if len(words) == 2 and words[0].upper() == b"DELIMITER":
                delimiter = words[1]

    def _set(self) -> None:
        lexer = self._lexer
        name = lexer.next()
        value = lexer.next()
        if name.says(b"NAMES"):
            self._check_encoding(value)
        elif value.says(b"=", b"TO"):
            value = lexer.next()
            if name.says(b"CLIENT_ENCODING"):
                self._check_encoding(value)
            elif name.says(b"STANDARD_CONFORMING_STRINGS"):
                lexer.escapes = value.text.strip(b"'").lower() in (b"off", b"false", b"0")
        lexer.put_back(value)

    def _check_encoding(self, value: Token) -> None:
        name = unquoted(value, self._lexer) if value.kind == "string" else value.text
        if name.lower() not in _ENCODINGS:
            raise SourceRefused(
                "dump_unsupported",
                f"byte {value.at}: its text is written in {name[:_MAX_NAME].decode('ascii', 'replace')}: "
                "make the dump in UTF-8",
            )

    def _refuse_changes(self, token: Token) -> None:
        """What changes rows that were read would have to be run to be understood."""
        lexer = self._lexer
        following = lexer.next()
        while following.says(b"FROM", b"TABLE", b"ONLY", b"IF", b"EXISTS", b"LOW_PRIORITY", b"IGNORE"):
            following = lexer.next()
        if following.kind in ("word", "name", "string"):
            table = self._table(following)
            if table in self._filled:
                raise SourceRefused(
                    "dump_unsupported",
                    f"byte {token.at}: rows of {table} are changed after they were inserted; only dumps of what is "
                    "there are read",
                )
        else:
            lexer.put_back(following)

    def _check_whole(self) -> None:
        lexer = self._lexer
        if lexer.names is not None and lexer.names.lower() not in _ENCODINGS:
            name = lexer.names[:_MAX_NAME].decode("ascii", "replace")
            raise SourceRefused("dump_unsupported", f"its text is written in {name}: make the dump in UTF-8")
        if self._open:
            raise lexer.damaged("the text ends within a transaction: it was cut short")
        for begins, ends in _PROGRAM_DONE:
            if begins.search(self._head) and not re.search(rb"(?m)^-- [A-Za-z ]*" + ends, lexer.tail):
                raise lexer.damaged(
                    "the comment is missing that its program writes at the end: it was cut short"
                )

    # -------------------------------------------------------------------------------------------------------- names

    def _name_token(self) -> Token:
        token = self._lexer.next()
        if token.kind not in ("word", "name", "string"):
            raise self._lexer.damaged("a name is missing", token.at)
        return token

    def _table(self, first: Token | None = None) -> TableName:
        """`name`, `schema.name`, `database.schema.name`."""
        lexer = self._lexer
        parts = [self._folded(first or self._name_token())]
        while (token := lexer.next()).says(b".") and len(parts) < 3:
            parts.append(self._folded(self._name_token()))
        lexer.put_back(token)
        schema = ".".join(parts[:-1])
        return TableName(".".join(part for part in (self._schema, schema) if part), parts[-1])

    def _folded(self, token: Token) -> str:
        name = unquoted_name(token)
        return name.lower() if token.kind == "word" and self._lexer.dialect == "postgresql" else name

    def _columns(self) -> tuple[str, ...] | None:
        """The names in parentheses, if they come next."""
        lexer = self._lexer
        token = lexer.next()
        if not token.says(b"("):
            lexer.put_back(token)
            return None
        found: list[str] = []
        while len(found) < MAX_COLUMNS:
            found.append(unquoted_name(self._name_token()))
            token = lexer.next()
            if token.says(b")"):
                return tuple(found)
            if not token.says(b","):
                break
        raise lexer.damaged("a list of columns that is none", token.at)

    # ------------------------------------------------------------------------------------------------------- CREATE

    def _create(self) -> Iterator[Created]:
        lexer = self._lexer
        token = lexer.next()
        while token.says(b"GLOBAL", b"LOCAL", b"TEMP", b"TEMPORARY", b"UNLOGGED", b"OR"):
            token = lexer.next()
        if not token.says(b"TABLE"):
            self._pass_definition(token)
            return
        token = lexer.next()
        if token.says(b"IF"):
            lexer.next()
            lexer.next()
            token = lexer.next()
        if token.kind not in ("word", "name", "string"):
            raise lexer.damaged("the name of a table is missing", token.at)
        table = self._table(token)
        token = lexer.next()
        if token.says(b"(") and self._wanted(table):
            yield Created(table, tuple(self._definitions()))
        else:
            lexer.put_back(token)
        lexer.skip_statement()

    def _definitions(self) -> Iterator[tuple[str, str]]:
        """Name and type of each column; constraints in between are passed over."""
        lexer = self._lexer
        none = _NOT_COLUMNS | (_NOT_COLUMNS_OF_MYSQL if lexer.dialect == "mysql" else frozenset())
        for _ in range(MAX_COLUMNS):
            name = self._name_token()
            token = lexer.next()
            if not (name.kind == "word" and name.text.upper() in none):
                kind = token.text.decode("utf-8", "replace").lower() if token.kind == "word" else ""
                yield unquoted_name(name), kind
            depth = 0
            while not (depth == 0 and token.says(b",", b")")):
                if token.kind == "end" or token.says(b";"):
                    raise lexer.damaged(
                        "the definition of a table that does not end: it was cut short", token.at
                    )
                depth += token.says(b"(") - token.says(b")")
                token = lexer.next()
            if token.says(b")"):
                return
        raise lexer.damaged("a table of more columns than any real one")

    def _pass_definition(self, token: Token) -> None:
        """Up to the end of CREATE, whose body may hold statements of its own."""
        lexer = self._lexer
        has_body = False
        depth = blocks = 0
        while not (token.says(b";") and depth <= 0 and blocks <= 0):
            if token.kind == "end":
                raise lexer.damaged("the text ends within a definition: it was cut short")
            has_body = has_body or token.says(b"TRIGGER", b"FUNCTION", b"PROCEDURE", b"EVENT")
            depth += token.says(b"(") - token.says(b")")
            if has_body and depth <= 0:
                blocks += token.says(b"BEGIN", b"CASE") - token.says(b"END")
            token = lexer.next()

    # --------------------------------------------------------------------------------------------------------- rows

    def _insert(self) -> Iterator[Inserted]:
        lexer = self._lexer
        token = lexer.next()
        while token.kind == "word" and not token.says(b"INTO"):
            if not token.says(
                b"OR", b"IGNORE", b"REPLACE", b"DELAYED", b"LOW_PRIORITY", b"HIGH_PRIORITY", b"ABORT", b"FAIL"
            ):
                break
            token = lexer.next()
        table = self._table(None if token.says(b"INTO") else token)
        if not self._wanted(table):
            lexer.skip_statement()
            return
        columns = self._columns()
        token = lexer.next()
        if token.says(b"OVERRIDING"):  # SYSTEM VALUE
            lexer.next()
            lexer.next()
            token = lexer.next()
        if not token.says(b"VALUES", b"VALUE"):
            raise lexer.damaged(f"rows of {table} that are not written out", token.at)
        self._filled.add(table)
        while True:
            at = lexer.offset
            yield Inserted(table, columns, self._values(), lexer.dialect not in ("mysql", "sqlite"), at)
            token = lexer.next()
            if not token.says(b","):
                break
        if token.kind == "end":
            raise lexer.damaged("the text ends within a statement: it was cut short", token.at)
        lexer.put_back(token)
        lexer.skip_statement()

    def _values(self) -> tuple[Literal, ...]:
        lexer = self._lexer
        token = lexer.next()
        if not token.says(b"("):
            raise lexer.damaged("a row is missing", token.at)
        found: list[Literal] = []
        while len(found) < MAX_COLUMNS:
            found.append(read_value(lexer))
            token = lexer.next()
            if token.says(b")"):
                return tuple(found)
            if not token.says(b","):
                break
        raise lexer.damaged("a row that is none, or was cut short", token.at)

    def _copy(self) -> Iterator[Inserted]:
        r"""Rows of PostgreSQL's COPY, one in each line, up to `\.`."""
        lexer = self._lexer
        table = self._table()
        columns = self._columns()
        words = [lexer.next() for _ in range(3)]
        if words[-1].kind == "end":
            raise lexer.damaged("the text ends within a statement: it was cut short", words[-1].at)
        if not (words[0].says(b"FROM") and words[1].says(b"STDIN") and words[2].says(b";")):
            raise SourceRefused(
                "dump_unsupported", f"byte {words[0].at}: COPY of {table} in another form than pg_dump writes"
            )
        wanted = self._wanted(table)
        if wanted:
            self._filled.add(table)
        lexer.line()
        while True:
            at = lexer.offset
            line = lexer.line()
            if not line.endswith(b"\n"):
                raise lexer.damaged(f"the text ends within the rows of {table}: it was cut short")
            line = line.removesuffix(b"\n").removesuffix(b"\r")
            if line == rb"\.":
                return
            if wanted:
                values = tuple(copied(field) for field in line.split(b"\t"))
                yield Inserted(table, columns, values, True, at)
