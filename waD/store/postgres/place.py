"""Which server, and the password for it: a password is never part of an argument, a log line or an error."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from waD.store.errors import StoreForbidden
from waD.store.postgres.settings import PostgresSettings

MAX_PASSWORD: Final = 4096
SCHEMES: Final = ("postgresql://", "postgres://")
CONNECT_TIMEOUT_S: Final = 5
_ALIVE: Final[Mapping[str, Any]] = {
    # A peer that vanished without a word shows within 15 s, also while an answer is awaited.
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 12_000,
}
_FIXED: Final[Mapping[str, Any]] = {"client_encoding": "UTF8", "fallback_application_name": "waD"}


class Place:
    """A server as settings name it.

    Args:
        settings: with the URL.

    Raises:
        StoreForbidden: the URL makes no sense; it is not repeated.
    """

    def __init__(self, settings: PostgresSettings) -> None:
        if not settings.url.startswith(SCHEMES):
            raise StoreForbidden("store.url must begin with postgresql://")
        try:
            parameters = conninfo_to_dict(settings.url)
            _check_ports(str(parameters.get("port") or ""))
        except (psycopg.Error, ValueError):  # their text holds the whole URL
            raise StoreForbidden(
                "store.url makes no sense: write postgresql://USER@HOST[:PORT]/DATABASE, special characters as %XX"
            ) from None
        self._parameters: dict[str, Any] = {
            "connect_timeout": max(2, round(min(CONNECT_TIMEOUT_S, settings.wait_s / 2))),
            "target_session_attrs": "primary",
            **_ALIVE,
            **_FIXED,
            **parameters,
        }
        self._file = settings.password_file
        self._described = _describe(parameters)

    def __str__(self) -> str:
        return self._described

    def __repr__(self) -> str:
        return f"Place({self._described})"

    def conninfo(self) -> str:
        """What libpq connects with; the password is read anew each time, for it may have been changed.

        Raises:
            StoreForbidden: the file of the password cannot be used.
        """
        if self._file is None:
            return make_conninfo("", **self._parameters)
        return make_conninfo("", **{**self._parameters, "password": read_password(self._file)})


def _check_ports(ports: str) -> None:
    """Raises ValueError; there may be several, and some may be left out."""
    for port in ports.split(","):
        if port and not 0 < int(port) < 1 << 16:
            raise ValueError(port)


def read_password(file: Path) -> str:
    """The first line of a file that others may not read.

    Raises:
        StoreForbidden: it cannot be read, is empty, or is open to everybody.
    """
    try:
        with file.open("rb") as opened:
            if os.fstat(opened.fileno()).st_mode & 0o007:
                raise StoreForbidden(f"{file} holds a password and is open to everybody: chmod o= it")
            line = opened.read(MAX_PASSWORD + 1).partition(b"\n")[0].removesuffix(b"\r")
    except OSError as error:
        raise StoreForbidden(
            f"{file} with the database's password cannot be read: {error.strerror}"
        ) from None
    if not line or len(line) > MAX_PASSWORD or b"\0" in line:
        raise StoreForbidden(f"{file} must hold the database's password in its first line")
    try:
        return line.decode()
    except UnicodeDecodeError:
        raise StoreForbidden(f"{file}: the database's password must be UTF-8 text") from None


def _describe(parameters: Mapping[str, Any]) -> str:
    user, name = parameters.get("user"), parameters.get("dbname")
    hosts = str(parameters.get("host") or parameters.get("hostaddr") or "").split(",")
    ports = str(parameters.get("port") or "").split(",")
    ports = ports * len(hosts) if len(ports) == 1 else ports
    places = [f"{host}:{port}" if port else host for host, port in zip(hosts, ports, strict=False)]
    return f"postgresql://{f'{user}@' if user else ''}{','.join(places)}/{name or user or ''}"
