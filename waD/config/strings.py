"""Kinds of options that are written as strings or lists of strings."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from waD.config.kinds import CONTROL, Kind, Problem, quoted, shown

MAX_TEXT: Final = 4096
MAX_LIST: Final = 256
KEY_LENGTH: Final = 32


@dataclass(frozen=True, slots=True)
class Text(Kind[str]):
    """A string of a certain form, without control characters."""

    form: str = ".+"
    meaning: str = "a string that is not empty"

    def parse(self, raw: object) -> str:
        """Accept a string that the form matches as a whole."""
        if (
            not isinstance(raw, str)
            or len(raw) > MAX_TEXT
            or CONTROL.search(raw)
            or not re.fullmatch(self.form, raw)
        ):
            raise self.wrong(raw)
        return raw

    def toml(self, value: str) -> str:
        """A quoted string."""
        return quoted(value)

    def describe(self) -> str:
        """Name the form."""
        return self.meaning


@dataclass(frozen=True, slots=True)
class Texts(Kind[tuple[str, ...]]):
    """A list of strings of a certain form."""

    form: str
    meaning: str

    def parse(self, raw: object) -> tuple[str, ...]:
        """Accept a list in which every item matches."""
        if not isinstance(raw, list):
            raise self.wrong(raw)
        if len(raw) > MAX_LIST:
            raise Problem(f"has {len(raw)} items, more than {MAX_LIST}")
        for item in raw:
            if not isinstance(item, str) or "\x00" in item or not re.fullmatch(self.form, item):
                raise Problem(f"must be {self.meaning}; {shown(item)} does not fit")
        return tuple(raw)

    def toml(self, value: tuple[str, ...]) -> str:
        """A list of quoted strings."""
        return f"[{', '.join(quoted(item) for item in value)}]"

    def describe(self) -> str:
        """Name the form."""
        return self.meaning


@dataclass(frozen=True, slots=True)
class Command(Kind[tuple[str, ...]]):
    """A program with its arguments; no shell."""

    def parse(self, raw: object) -> tuple[str, ...]:
        """Accept a list of strings that is empty or starts with an absolute path."""
        if not isinstance(raw, list) or len(raw) > MAX_LIST:
            raise self.wrong(raw)
        if not all(isinstance(item, str) and "\x00" not in item for item in raw):
            raise self.wrong(raw)
        if raw and not raw[0].startswith("/"):
            raise Problem(f"must start with the absolute path of a program, not {shown(raw[0])}")
        return tuple(raw)

    def toml(self, value: tuple[str, ...]) -> str:
        """A list of quoted strings."""
        return f"[{', '.join(quoted(item) for item in value)}]"

    def describe(self) -> str:
        """Name the form."""
        return 'a list such as ["/usr/local/bin/notify", "--urgent"]'


@dataclass(frozen=True, slots=True)
class File(Kind[Path]):
    """An absolute path; `~` is the home directory."""

    def parse(self, raw: object) -> Path:
        """Accept an absolute path; whether it exists is the business of whoever opens it."""
        if not isinstance(raw, str) or not raw or CONTROL.search(raw):
            raise self.wrong(raw)
        try:
            path = Path(raw).expanduser()
        except RuntimeError:
            raise Problem(f"has a home directory that is not known: {shown(raw)}") from None
        if not path.is_absolute():
            raise self.wrong(raw)
        return path

    def toml(self, value: Path) -> str:
        """A quoted path."""
        return quoted(str(value))

    def describe(self) -> str:
        """Name the form."""
        return "an absolute path"


@dataclass(frozen=True, slots=True)
class Url(Kind[str]):
    """A URL with one of the schemes, a host and no fragment."""

    schemes: tuple[str, ...]
    user: bool = False
    """Whether it may hold a user name and a password."""

    def parse(self, raw: object) -> str:
        """Accept a complete URL; an error never repeats it, for it may hold a password."""
        if not isinstance(raw, str) or CONTROL.search(raw) or " " in raw:
            raise Problem(f"must be {self.describe()}")
        try:
            parts = urlsplit(raw)
            port = parts.port
        except ValueError:
            raise Problem(f"must be {self.describe()}; host or port make no sense") from None
        if parts.scheme not in self.schemes or not parts.hostname or port == 0 or parts.fragment:
            raise Problem(f"must be {self.describe()}")
        if not self.user and "@" in parts.netloc:
            raise Problem("must not hold a user name or password")
        return raw

    def toml(self, value: str) -> str:
        """A quoted URL."""
        return quoted(value)

    def masked(self, value: str) -> str:
        """The URL with user name and password replaced."""
        parts = urlsplit(value)
        place = parts.netloc.rpartition("@")[2]
        return quoted(value if "@" not in parts.netloc else parts._replace(netloc=f"***@{place}").geturl())

    def describe(self) -> str:
        """Name the form."""
        who = "[USER:PASSWORD@]" if self.user else ""
        return f"a URL: {' or '.join(f'{scheme}://{who}HOST[:PORT]' for scheme in self.schemes)}"


@dataclass(frozen=True, slots=True)
class PublicKey(Kind[bytes]):
    """32 bytes, in hexadecimal or base64."""

    def parse(self, raw: object) -> bytes:
        """Accept 64 hexadecimal digits or 44 characters of base64."""
        if not isinstance(raw, str):
            raise self.wrong(raw)
        try:
            key = bytes.fromhex(raw) if len(raw) == 2 * KEY_LENGTH else base64.b64decode(raw, validate=True)
        except (ValueError, binascii.Error):
            raise self.wrong(raw) from None
        if len(key) != KEY_LENGTH:
            raise self.wrong(raw)
        return key

    def toml(self, value: bytes) -> str:
        """Hexadecimal digits."""
        return quoted(value.hex())

    def describe(self) -> str:
        """Name the form."""
        return "32 bytes as 64 hexadecimal digits or in base64"


@dataclass(frozen=True, slots=True)
class Version(Kind[tuple[int, int, int]]):
    """Three numbers with dots between them."""

    def parse(self, raw: object) -> tuple[int, int, int]:
        """Accept a string such as "2.3000.1045649367"."""
        match = (
            re.fullmatch(r"([0-9]{1,4})\.([0-9]{1,5})\.([0-9]{1,10})", raw) if isinstance(raw, str) else None
        )
        if match is None:
            raise self.wrong(raw)
        primary, secondary, tertiary = map(int, match.groups())
        return primary, secondary, tertiary

    def toml(self, value: tuple[int, int, int]) -> str:
        """A quoted dotted version."""
        return quoted(".".join(map(str, value)))

    def describe(self) -> str:
        """Name the form."""
        return 'three numbers such as "2.3000.1045649367"'


@dataclass(frozen=True, slots=True)
class Mode(Kind[int]):
    """Permission bits, as a string of octal digits: a TOML number 660 would be decimal."""

    def parse(self, raw: object) -> int:
        """Accept three or four octal digits that let the owner read and write and nobody execute."""
        if not isinstance(raw, str) or not re.fullmatch(r"0?[0-7]{3}", raw):
            raise self.wrong(raw)
        mode = int(raw, 8)
        if mode & 0o600 != 0o600 or mode & 0o111:
            raise Problem(f"must let its owner read and write, and have no execute bit, not {shown(raw)}")
        return mode

    def toml(self, value: int) -> str:
        """Four octal digits."""
        return quoted(f"{value:04o}")

    def describe(self) -> str:
        """Name the form."""
        return 'octal digits in quotes such as "0660"'
