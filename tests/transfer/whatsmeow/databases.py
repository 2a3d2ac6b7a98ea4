"""Databases to import: the real one of the vectors, changed by SQL, and more devices with true signatures."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import sqlite3
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from typing import Any

import psycopg

from waD.e2ee import adv, curve
from waD.e2ee.curve import KeyPair
from waD.link.credentials import SignedPreKey
from waD.proto import adv_pb2
from waD.transfer.state import AuthState, Report
from waD.transfer.verify import verify
from waD.transfer.whatsmeow import import_device

VECTORS = Path(__file__).parents[2] / "vectors" / "whatsmeow_sqlite.json"
NOW_MS = 1_800_000_000_000
LONG_AGO_S = NOW_MS // 1000 - 3600
JID = "5511910000001:17@s.whatsapp.net"
LID = "110000000000001:17@lid"
BOB = "110000000000002_1:3"
CAROL = "110000000000003_1:0"
GROUP = "120363000000000901@g.us"


@lru_cache(maxsize=1)
def original() -> bytes:
    return base64.b64decode(json.loads(VECTORS.read_bytes())["cases"][0]["sqlite_base64"])


def age(*paths: Path, seconds: int = 3600) -> None:
    """Let files be untouched for a while."""
    for path in paths:
        os.utime(path, (NOW_MS // 1000 - seconds,) * 2)


class Database:
    """A file that tests change, aged after each change."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_bytes(original())
        age(path)

    def run(self, *statements: str | tuple[str, tuple[Any, ...]]) -> None:
        with closing(sqlite3.connect(self.path)) as connection, connection:
            connection.execute("PRAGMA foreign_keys = OFF")
            connection.execute("PRAGMA ignore_check_constraints = ON")
            for statement in statements:
                connection.execute(*((statement,) if isinstance(statement, str) else statement))
        age(self.path)

    def value(self, query: str) -> Any:
        with closing(sqlite3.connect(self.path)) as connection:
            (found,) = connection.execute(query).fetchone()
        age(self.path)
        return found

    def session(self, address: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(
            self.value(f"SELECT session FROM whatsmeow_sessions WHERE their_id = '{address}'")
        )
        return found

    def put_session(self, address: str, record: Any) -> None:
        text = json.dumps(record).encode()
        self.run(("INSERT OR REPLACE INTO whatsmeow_sessions VALUES (?, ?, ?)", (JID, address, text)))

    def load(self, **options: Any) -> tuple[AuthState | None, Report]:
        """Import; whatever was wrong with the database, a state that comes out of it is sound."""
        state, report = import_device(str(self.path), stopped=True, now_ms=NOW_MS, **options)
        assert (state is None) is bool(report.errors)
        assert state is None or verify(state, NOW_MS).errors == []
        return state, report

    def state(self, **options: Any) -> AuthState:
        state, report = self.load(**options)
        assert state is not None, report.notes
        return state

    def codes(self, **options: Any) -> list[str]:
        """All that is said, but for the four contacts that are always there."""
        _, report = self.load(**options)
        return [note.code for note in report.notes if note.item != "whatsmeow_contacts"]


def random(seed: str) -> Any:
    """Bytes that are the same in every run."""
    counter = iter(range(1 << 20))
    return lambda count: hashlib.shake_256(f"{seed}/{next(counter)}".encode()).digest(count)


def device_row(jid: str, lid: str, *, hosted: bool = False) -> dict[str, Any]:
    """A device that an account has really signed."""
    draw = random(jid)
    phone, identity, noise = (KeyPair.generate(draw) for _ in range(3))
    prekey = SignedPreKey.make(1, identity, draw)
    outer = adv_pb2.ADVSignedDeviceIdentityHMAC.FromString(
        adv.make_device_identity(phone, identity.public, 5, 1, 1_790_000_000, bytes(32), draw, hosted=hosted)
    )
    signed = adv.parse_signed_identity(outer.details)
    return {
        "jid": jid,
        "lid": lid,
        "registration_id": 77,
        "noise_key": noise.private,
        "identity_key": identity.private,
        "signed_pre_key": prekey.key.private,
        "signed_pre_key_id": prekey.id,
        "signed_pre_key_sig": prekey.signature,
        "adv_key": draw(32),
        "adv_details": signed.details,
        "adv_account_sig": signed.accountSignature,
        "adv_account_sig_key": signed.accountSignatureKey,
        "adv_device_sig": adv.sign_device_signature(identity, signed.details, phone.public, draw),
        "push_name": "Second",
    }


def add_device(database: Database, jid: str, lid: str, *, hosted: bool = False) -> dict[str, Any]:
    row = device_row(jid, lid, hosted=hosted)
    database.run(
        (
            f"INSERT INTO whatsmeow_device ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})",
            tuple(row.values()),
        )
    )
    return row


def public(private: bytes) -> bytes:
    return curve.KeyPair.from_private(private).public


def fill(url: str, database: Database) -> None:
    """Copy the SQLite database, table by table: whatsmeow has one schema for both."""
    with closing(sqlite3.connect(database.path)) as source, psycopg.connect(url) as target:
        tables = source.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'table' ORDER BY rowid"
        ).fetchall()
        for name, statement in tables:
            target.execute(statement.encode())
            types = {row[1]: row[2].lower() for row in source.execute(f"PRAGMA table_info({name})")}
            for row in source.execute(f"SELECT * FROM {name}").fetchall():
                values = [
                    bool(value) if kind == "boolean" and value is not None else value
                    for value, kind in zip(row, types.values(), strict=True)
                ]
                marks = ", ".join(["%s"] * len(values))
                target.execute(f"INSERT INTO {name} VALUES ({marks})".encode(), values)
