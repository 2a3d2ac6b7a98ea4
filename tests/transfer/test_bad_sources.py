"""Whatever stands where a source should be: a refusal of its own code in good time, and nothing changed."""

from __future__ import annotations

import json
import os
import random
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.transfer.baileys import samples
from tests.transfer.dumps.making import HERE
from tests.transfer.dumps.programs import iterdump
from tests.transfer.whatsmeow.databases import original
from waD.transfer.migrating.options import EXIT_OF_CODE
from waD.transfer.migrating.places import FOREIGN, PlaceRefused, parse_source
from waD.transfer.migrating.reading import Choice, Reading, read
from waD.transfer.sources.errors import SourceRefused

LARGE = 20_000_000
NOW_MS = 1_900_000_000_000

NONSENSE: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "one byte": lambda: b"{",
    "zeros": lambda: bytes(LARGE),
    "noise": lambda: random.Random(1).randbytes(LARGE),
    "letters": lambda: b"a" * LARGE,
    "lines": lambda: b"x\n" * (LARGE // 40),
    "brackets": lambda: b"[" * LARGE,
    "objects": lambda: b'{"a":' * (LARGE // 5),
    "list": lambda: b"[" + b"1," * (LARGE // 2) + b"1]",
    "strings": lambda: b'"' + b"\\u0000" * (LARGE // 6) + b'"',
    "quotes": lambda: b"'" * LARGE,
    "items": lambda: b"session-1.0\n{}\n" * (LARGE // 300),
    "redis": lambda: b"REDIS0011" + bytes(LARGE // 20),
    "valkey": lambda: b"VALKEY080" + b"\x00\x01a\x01b" * (LARGE // 100),
    "sqlite": lambda: b"SQLite format 3\x00" + b"\xff" * LARGE,
    "statements": lambda: b"CREATE TABLE auth (id text, data text);\n" + b"x" * LARGE,
    "comment": lambda: b"-- " * (LARGE // 3),
    "gzip": lambda: b"\x1f\x8b" + bytes(LARGE),
    "archive": lambda: b"PGDMP" + bytes(LARGE),
    "bson": lambda: b"\x20\x00\x00\x00\x02_id\x00" + bytes(LARGE),
    "utf-16": lambda: "\ufeffCREATE TABLE".encode("utf-16-le") * 100,
}


def outcome(word: str, scheme: str, choice: Choice | None = None) -> str | Reading:
    """Code of the refusal, or what was read."""
    try:
        place = parse_source(word if scheme == "found" else f"{scheme}:{word}")
        return read(place, choice or Choice(stopped=True), NOW_MS)
    except (PlaceRefused, SourceRefused) as refusal:
        return refusal.code if len(refusal.detail) < 1000 else f"a text of {len(refusal.detail)} characters"


def snapshot(directory: Path) -> dict[str, tuple[int, int, int]]:
    found = {}
    for path in sorted(directory.rglob("*")):
        status = path.lstat()
        found[str(path)] = (status.st_size, status.st_mtime_ns, status.st_ino)
    return found


SCHEMES = [*sorted(FOREIGN), "found"]
WAYS_IN = ("baileys-redis", "found", "whatsmeow")
"""Each another reader of whole files."""


@pytest.mark.parametrize("name", NONSENSE)
def test_twenty_megabytes_of_nonsense(name: str, tmp_path: Path) -> None:
    path = tmp_path / "source"
    path.write_bytes(NONSENSE[name]())
    os.utime(path, (1, 1))
    before = snapshot(tmp_path)
    for scheme in WAYS_IN:
        found = outcome(str(path), scheme)
        if isinstance(found, Reading):
            assert (name, found.state) == ("items", None)
        else:
            assert found.startswith(("source_", "not_", "dump_", "table_")), found
    assert snapshot(tmp_path) == before


def odd(directory: Path) -> Iterator[tuple[str, Path]]:
    os.mkfifo(directory / "pipe")
    yield "not_", directory / "pipe"
    (directory / "loop").symlink_to("loop")
    yield "source_unreachable", directory / "loop"
    (directory / "dangling").symlink_to("nowhere")
    yield "source_missing", directory / "dangling"
    (directory / "zero").symlink_to("/dev/zero")
    yield "not_", directory / "zero"
    with closing(socket.socket(socket.AF_UNIX)) as listening:
        listening.bind(str(directory / "socket"))
        yield "source_unreachable", directory / "socket"
    yield "source_missing", directory / "none"
    yield "source_missing", directory / "none" / "deeper"
    yield "source_unreachable", directory / ("long" * 100)
    (directory / "empty").mkdir()
    yield "not_", directory / "empty"


@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_is_no_file(scheme: str, tmp_path: Path) -> None:
    for code, path in odd(tmp_path):
        found = outcome(str(path), scheme)
        assert isinstance(found, str)
        assert found.startswith(code) or (code.startswith("source_") and found.startswith("not_")), (
            path,
            found,
        )


# Sound sources, cut short


def with_items(path: Path, content: Callable[[dict[str, Any]], str]) -> bytes:
    directory = path / "origin"
    directory.mkdir()
    return content(samples.values(samples.read(directory, samples.files()))).encode()


def lines(values: dict[str, Any]) -> str:
    return "\n".join(json.dumps({"key": name, "value": value}) for name, value in values.items())


def sheet(values: dict[str, Any]) -> str:
    rows = [f'{name},"{json.dumps(value).replace(chr(34), chr(34) * 2)}"' for name, value in values.items()]
    return "\n".join(["key,value", *rows])


def printed(values: dict[str, Any]) -> str:
    return "\n".join(f"{name}\n{json.dumps(value)}" for name, value in values.items())


WHOLE: dict[str, tuple[str, Callable[[Path], bytes], Choice]] = {
    "rdb": ("dump.rdb", lambda _: (HERE / "redis-8.2.rdb").read_bytes(), Choice(stopped=True, session="old")),
    "sql": (
        "dump.sql",
        lambda _: (HERE / "mariadb-10.11.sql").read_bytes(),
        Choice(stopped=True, preset="prisma"),
    ),
    "sqlite": ("main.db", lambda _: original(), Choice(stopped=True)),
    "json": ("dump.json", lambda path: with_items(path, json.dumps), Choice()),
    "lines": ("dump.jsonl", lambda path: with_items(path, lines), Choice()),
    "csv": ("dump.csv", lambda path: with_items(path, sheet), Choice()),
    "redis": ("dump", lambda path: with_items(path, printed), Choice()),
}
TELLS_ITS_END = ("rdb", "sql", "json")


@pytest.mark.parametrize("kind", WHOLE)
def test_sources_that_were_cut_short(kind: str, tmp_path: Path) -> None:
    """Never an exception of another kind, or other credentials; and nothing at all of what tells its end."""
    name, make, choice = WHOLE[kind]
    data = make(tmp_path)
    path = tmp_path / name

    def cut(size: int) -> str | Reading:
        path.write_bytes(data[:size])
        os.utime(path, (1, 1))
        return outcome(str(path), "found", choice)

    whole = cut(len(data))
    assert isinstance(whole, Reading)
    assert whole.state is not None
    draw = random.Random(kind)
    for size in [*range(0, 40, 3), *(draw.randrange(len(data) - 31) for _ in range(25)), len(data) - 31]:
        found = cut(size)
        if isinstance(found, str):
            assert found in EXIT_OF_CODE or found.startswith(("source_", "not_"))
        elif found.state is not None:
            assert kind not in TELLS_ITS_END
            assert found.state.creds.serialize() == whole.state.creds.serialize()
            assert found.state.items.items() <= whole.state.items.items() or kind == "sqlite"


@pytest.mark.parametrize("kind", ["creds", "keys"])
@pytest.mark.parametrize("spelling", [lines, sheet, printed, json.dumps])
def test_one_half_alone(kind: str, spelling: Callable[[dict[str, Any]], str], tmp_path: Path) -> None:
    def half(values: dict[str, Any]) -> str:
        return spelling(
            {name: value for name, value in values.items() if (name == "creds") == (kind == "creds")}
        )

    path = tmp_path / ("dump.csv" if spelling is sheet else "dump")
    path.write_bytes(with_items(tmp_path, half))
    found = outcome(str(path), "found")
    assert isinstance(found, Reading)
    assert found.state is None
    expected = "keys_missing" if kind == "creds" else "creds_unreadable"
    assert [note.code for note in found.report.errors] == [expected]


@pytest.mark.parametrize("spelling", [lines, sheet, printed, json.dumps])
def test_names_that_lead_elsewhere(spelling: Callable[[dict[str, Any]], str], tmp_path: Path) -> None:
    bad = ("session-../../etc/passwd", "session-..", "pre-key-/etc/passwd", "sender-key-../x--1--0", "session-1\0.0",
           "app-state-sync-key-../../../x", "lid-mapping-../1", "tctoken-../../x@lid", "creds/../creds")  # fmt: skip
    path = tmp_path / ("dump.csv" if spelling is sheet else "dump")
    path.write_bytes(with_items(tmp_path, lambda values: spelling(values | {name: {} for name in bad})))
    found = outcome(str(path), "found")
    assert isinstance(found, Reading)
    assert found.state is not None
    assert not [key for _, key in found.state.items if ".." in key or "\0" in key or key.startswith("/")]
    assert {note.code for note in found.report.warnings} >= {"unknown_item"}


def test_a_dump_of_both(tmp_path: Path) -> None:
    """A database that a bridge shares with others: the tables of whatsmeow are found among them."""
    (tmp_path / "main.db").write_bytes(original())
    content = iterdump(tmp_path / "main.db").replace(b"COMMIT;", b"CREATE TABLE auth(id, data);\nCOMMIT;")
    (tmp_path / "dump.sql").write_bytes(content)
    found = outcome(str(tmp_path / "dump.sql"), "found")
    assert isinstance(found, Reading)
    assert found.place.scheme == "whatsmeow"
    assert found.state is not None
