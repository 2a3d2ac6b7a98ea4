"""The URL of a database server, as libpq reads it: several hosts, none for a socket, and a password in two places."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from waD.config.kinds import CONTROL, Kind, Problem, quoted

MAX_URL: Final = 4096
_FORM: Final = re.compile(
    r"(?P<head>postgres(?:ql)?://)(?:(?P<user>[^:@/?#\s]*)(?P<password>:[^@/?#\s]*)?@)?"
    r"(?P<hosts>[^@/?#\s]*)(?P<name>/[^@/?#\s]*)?(?P<query>\?[^#\s]*)?"
)
_HOSTS: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[^\[\]:,]*)(?::(?P<port>[0-9]{1,5}))?")
_PASSWORD: Final = re.compile(r"(?<=[?&])((?:ssl)?password)=[^&]*")


@dataclass(frozen=True, slots=True)
class DatabaseUrl(Kind[str]):
    """The URL of a PostgreSQL server and a database on it."""

    def parse(self, raw: object) -> str:
        """Accept what has the form; an error never repeats it, for it may hold a password."""
        if not isinstance(raw, str) or len(raw) > MAX_URL or CONTROL.search(raw):
            raise Problem(f"must be {self.describe()}")
        found = _FORM.fullmatch(raw)
        if found is None or not all(map(_is_host, found["hosts"].split(","))):
            raise Problem(f"must be {self.describe()}; special characters are written as %XX")
        return raw

    def toml(self, value: str) -> str:
        """A quoted URL."""
        return quoted(value)

    def masked(self, value: str) -> str:
        """The URL with passwords replaced."""
        found = _FORM.fullmatch(value)
        if found is None:
            return quoted("***")
        start, end = found.span("password")
        bare = value if start < 0 else f"{value[:start]}:***{value[end:]}"
        return quoted(_PASSWORD.sub(r"\1=***", bare))

    def describe(self) -> str:
        """Name the form."""
        return "a URL: postgresql://[USER[:PASSWORD]@][HOST[:PORT]]/DATABASE[?PARAMETERS]"


def _is_host(text: str) -> bool:
    found = _HOSTS.fullmatch(text)
    return found is not None and (found["port"] is None or 0 < int(found["port"]) < 1 << 16)


def has_password(url: str) -> bool:
    """Whether a URL that was accepted holds one."""
    return DatabaseUrl().masked(url) != quoted(url)
