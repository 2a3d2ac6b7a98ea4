"""What must not stand in a log: secrets, texts of messages, whole phone numbers; and what would break a line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

Plain: TypeAlias = "str | int | float | bool | list[Plain] | dict[str, Plain] | None"

SECRET_WORDS: Final = frozenset({
    "password", "passwd", "passphrase", "passkey", "secret", "secrets", "token", "tokens", "private", "credentials",
    "creds", "cookie", "authorization", "plaintext", "ciphertext", "seed", "ratchet", "qr", "proxy",
    "text", "body", "content", "caption", "payload", "quote", "stanza", "otp",
})  # fmt: skip
"""A field is dropped when one word of its name is among these."""

SECRET_ENDINGS: Final = ("_key", "_keys", "link_code", "pair_code", "pairing_code", "push_name", "pushname")
"""A field is dropped when its name ends like this; a bare `key` is the name of something."""

LABELS: Final = frozenset({"session", "connection_id"})
"""Chosen by the operator or random: shown as they are."""

COUNTS: Final = frozenset({
    "ms", "s", "us", "ns", "bytes", "size", "rows", "count", "cursor", "pid", "time", "version", "oldest", "newest",
    "last", "offset", "free", "total", "inode",
})  # fmt: skip
"""Last words of names of numbers that are no phone numbers however long they are."""

MAX_VALUE: Final = 1024
"""Characters of one value."""
MAX_EXCEPTION: Final = 16_384
"""Characters of a traceback; its end says most."""
MAX_ITEMS: Final = 20
MAX_DEPTH: Final = 4
MAX_FIELDS: Final = 40

_WORDS: Final = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_CONTROL_BUT_LINES: Final = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_BYTES: Final = re.compile(
    r"""\b(?:bytearray\()?b(?:'(?:[^'\\\n]|\\.){8,}(?:'|$)|"(?:[^"\\\n]|\\.){8,}(?:"|$))"""
)
_NUMBER: Final = re.compile(
    r"""
    (?P<keep>
        \b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b    # UUID
      | \b(?=[0-9]*[A-F])[0-9A-F]{16,64}\b                          # message id, digest
      | \b(?=[0-9]*[a-f])[0-9a-f]{16,64}\b
      | \b2\.3000\.[0-9]{1,10}\b                                    # version of the web client
    )
  | (?P<written> \+[0-9] [0-9 ().\-]{5,24} [0-9] (?![0-9]) )        # a number as people write it
  | (?<![0-9]) (?P<digits> [0-9]{7,15} ) (?![0-9])
    """,
    re.VERBOSE,
)


def redact(event: Mapping[str, Any]) -> dict[str, Plain]:
    """Return the fields of a log line without secrets, as plain values of bounded size.

    Fields named like secrets are dropped, bytes give way to their length, and digits that may be a phone number
    or a part of an address give way to their last four: `…0002`.
    """
    clean: dict[str, Plain] = {}
    for name, value in event.items():
        if secret(name) or len(clean) >= MAX_FIELDS:
            continue
        if name == "exception":
            clean[name] = _traceback(str(value))
        elif name in LABELS:
            clean[name] = one_line(str(value))
        else:
            clean[name] = _plain(name, value, 0)
    return clean


def secret(name: str) -> bool:
    """Whether a field of this name is not to be logged."""
    words = [word.lower() for word in _WORDS.findall(name)]
    return not SECRET_WORDS.isdisjoint(words) or "_".join(words).endswith(SECRET_ENDINGS)


def shorten(text: str) -> str:
    """Text with every run of digits that may be a phone number reduced to its last four, and without bytes."""
    return _NUMBER.sub(_last_four, _BYTES.sub("<bytes>", text))


def one_line(text: str, limit: int = MAX_VALUE) -> str:
    """Text of bounded length in which control characters are visible and harmless."""
    text = _CONTROL.sub(_escaped, text[: limit + 1])
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def _last_four(found: re.Match[str]) -> str:
    if found["keep"]:
        return found[0]
    digits = re.sub("[^0-9]", "", found[0])
    return found[0] if len(digits) < 7 else f"…{digits[-4:]}"


def _plain(name: str, value: object, depth: int) -> Plain:
    if value is None or isinstance(value, (bool, float)):
        return value
    if isinstance(value, int):
        return value if name.rpartition("_")[2] in COUNTS else _number(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"<{len(value)} bytes>"
    if isinstance(value, str):
        return one_line(shorten(value[: 2 * MAX_VALUE]))
    if depth < MAX_DEPTH and isinstance(value, Mapping):
        items = [(str(key), item) for key, item in list(value.items())[:MAX_ITEMS]]
        return {
            one_line(shorten(key)): _plain(key, item, depth + 1) for key, item in items if not secret(key)
        }
    if depth < MAX_DEPTH and isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(name, item, depth + 1) for item in list(value)[:MAX_ITEMS]]
    return one_line(shorten(_text(value)[: 2 * MAX_VALUE]))


def _number(value: int) -> Plain:
    if -(10**6) < value < 10**6:
        return value
    return shorten(str(value)) if value.bit_length() < 128 else "<large number>"


def _text(value: object) -> str:
    """An object as text; a broken `__str__` costs the value, not the line."""
    try:
        return str(value)
    except Exception:
        return f"<{type(value).__name__}>"


def _traceback(text: str) -> str:
    if len(text) > MAX_EXCEPTION:
        text = "…" + text[1 - MAX_EXCEPTION :]
    return _CONTROL_BUT_LINES.sub(_escaped, shorten(text))
