"""Literals of SQL dumps as values: strings in every quoting, byte strings, numbers, and what SQLite's shell adds.

Facts: the manuals of PostgreSQL (§4.1.2), MySQL (§9.1) and SQLite (lang_expr, cli), and what their dump programs wrote.
"""

from __future__ import annotations

import re
from typing import Final, TypeAlias

from waD.transfer.sources.sql_lexer import MAX_TOKEN, Dialect, Lexer, Token

Literal: TypeAlias = int | float | str | bytes | None

_MAX_NUMBER: Final = 40
"""Digits; what is longer is text to us."""
_MAX_DEPTH: Final = 8
_OCTAL: Final = re.compile(rb"\\([0-7]{3}|\\)")
_MYSQL_ESCAPE: Final = re.compile(rb"\\(.)|''", re.DOTALL)
_MYSQL_LETTERS: Final = {b"0": b"\0", b"b": b"\b", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"Z": b"\x1a"}
_ESCAPE: Final = re.compile(
    rb"\\(?:([0-7]{1,3})|x([0-9A-Fa-f]{1,2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(.))|''", re.DOTALL
)
_LETTERS: Final = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t"}
_COPY_ESCAPE: Final = re.compile(rb"\\(?:([0-7]{1,3})|x([0-9A-Fa-f]{1,2})|(.))", re.DOTALL)
_COPY_LETTERS: Final = _LETTERS | {b"v": b"\v"}
_UNISTR: Final = re.compile(
    r"\\(?:([0-9A-Fa-f]{4})|\+([0-9A-Fa-f]{6})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(\\))"
)


def read_value(lexer: Lexer, depth: int = 0) -> Literal:
    """Read one value and what may be done to it; what stands behind it comes next.

    Raises:
        SourceRefused: `source_damaged` with the offset, when it is none that a dump program writes.
    """
    token = lexer.next()
    negative = token.says(b"-")
    if negative or token.says(b"+"):
        token = lexer.next()
    value = _plain(lexer, token, depth)
    if negative:
        if not isinstance(value, int | float):
            raise lexer.damaged("a sign in front of what is no number", token.at)
        value = -value
    following = lexer.next()
    while following.says(b"::"):
        value = _cast(lexer, value)
        following = lexer.next()
    lexer.put_back(following)
    return value


def text_or_bytes(data: bytes) -> str | bytes:
    """Text, unless it is none."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def copied(field: bytes) -> Literal:
    r"""A field of PostgreSQL's COPY, whose `\N` is null."""
    if field == rb"\N":
        return None
    return text_or_bytes(_COPY_ESCAPE.sub(_copy_escape, field) if b"\\" in field else field)


def bytea(value: Literal) -> Literal:
    r"""What PostgreSQL prints of a byte string, `\x…` or with octal numbers, as bytes; anything else as it is."""
    if not isinstance(value, str):
        return value
    if value.startswith("\\x"):
        try:
            return bytes.fromhex(value[2:])
        except ValueError:
            return value
    try:
        data = value.encode("latin-1")
    except UnicodeEncodeError:
        return value
    return _OCTAL.sub(lambda found: b"\\" if found[1] == b"\\" else bytes((int(found[1], 8) & 255,)), data)


def unquoted_name(token: Token) -> str:
    """The name that a word, a quoted name or a string stands for."""
    if token.kind == "word":
        return token.text.decode("utf-8", "replace")
    text, quote = token.text[1:-1], token.text[-1:]
    return text.replace(quote * 2, quote).decode("utf-8", "replace")


# ---------------------------------------------------------------------------------------------------------- strings


def unquoted(token: Token, lexer: Lexer) -> bytes:
    """The bytes of a string that is no number in disguise."""
    text = token.text
    if token.prefix == b"$":
        size = text.index(b"$", 1) + 1
        return text[size:-size]
    inner = text[1:-1]
    if token.prefix == b'"':
        inner = inner.replace(b'""', b'"')
        return _MYSQL_ESCAPE.sub(_mysql_escape, inner) if b"\\" in inner else inner
    if not (lexer.escapes or token.prefix == b"e"):
        return inner.replace(b"''", b"'")
    if b"\\" not in inner:
        return inner.replace(b"''", b"'")
    if lexer.dialect == "mysql":
        return _MYSQL_ESCAPE.sub(_mysql_escape, inner)
    return _ESCAPE.sub(_escape, inner)


def _mysql_escape(found: re.Match[bytes]) -> bytes:
    letter = found[1]
    if letter is None:
        return b"'"
    return b"\\" + letter if letter in b"%_" else _MYSQL_LETTERS.get(letter, letter)


def _escape(found: re.Match[bytes]) -> bytes:
    octal, octet, short, long, letter = found.groups()
    if octal is not None:
        return bytes((int(octal, 8) & 255,))
    if octet is not None:
        return bytes((int(octet, 16),))
    if short is not None or long is not None:
        return _character(int(short or long, 16)).encode("utf-8", "replace")
    return b"'" if letter is None else _LETTERS.get(letter, letter)


def _copy_escape(found: re.Match[bytes]) -> bytes:
    octal, octet, letter = found.groups()
    if octal is not None:
        return bytes((int(octal, 8) & 255,))
    if octet is not None:
        return bytes((int(octet, 16),))
    return _COPY_LETTERS.get(letter, letter)


def _character(number: int) -> str:
    return chr(number) if number < 0x110000 else "\ufffd"


# ----------------------------------------------------------------------------------------------------------- values


def _plain(lexer: Lexer, token: Token, depth: int) -> Literal:
    if token.kind == "string":
        return _string(lexer, token)
    if token.kind == "number":
        return _number(token.text, lexer.dialect)
    if token.kind == "word":
        word = token.text.upper()
        if word in (b"NULL", b"DEFAULT"):
            return None
        if word in (b"TRUE", b"FALSE"):
            return int(word == b"TRUE")
        if word.startswith(b"_") and lexer.dialect == "mysql":
            return _introduced(lexer, binary=word == b"_BINARY")
        if word in _FUNCTIONS and depth < _MAX_DEPTH:
            return _FUNCTIONS[word](lexer, token, _arguments(lexer, word, depth))
    raise lexer.damaged("a value that is no literal", token.at)


def _string(lexer: Lexer, token: Token) -> Literal:
    if token.prefix == b"x":
        try:
            return bytes.fromhex(token.text[1:-1].decode("latin-1"))
        except ValueError:
            raise lexer.damaged("a byte string of digits that are none", token.at) from None
    if token.prefix == b"b":
        digits = token.text[1:-1]
        if not digits or digits.strip(b"01") or len(digits) > 64:
            return text_or_bytes(digits)
        return int(digits, 2)
    return text_or_bytes(unquoted(token, lexer))


def _number(text: bytes, dialect: Dialect) -> Literal:
    if text[:2].lower() == b"0x":
        digits = text[2:].decode()
        if dialect == "mysql":
            return bytes.fromhex("0" * (len(digits) % 2) + digits)
        return int(digits or "0", 16) if len(digits) <= _MAX_NUMBER else digits
    if len(text) > _MAX_NUMBER:
        return text.decode()
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return text.decode()


def _introduced(lexer: Lexer, *, binary: bool) -> Literal:
    """MySQL's `_binary '…'`, `_utf8mb4'…'`, `_binary 0x…`."""
    token = lexer.next()
    if token.kind == "number":
        return _number(token.text, lexer.dialect)
    if token.kind != "string":
        raise lexer.damaged("a value that is no literal", token.at)
    if binary and token.prefix != b"x":
        return unquoted(token, lexer)
    return _string(lexer, token)


def _cast(lexer: Lexer, value: Literal) -> Literal:
    """Pass over a type; only byte strings are changed by it."""
    first = lexer.next()
    depth, token = 0, lexer.next()
    while not (depth == 0 and token.says(b",", b")", b";", b"::")):
        if token.kind == "end":
            raise lexer.damaged("the text ends within a value: it was cut short")
        depth += token.says(b"(", b"[") - token.says(b")", b"]")
        token = lexer.next()
    lexer.put_back(token)
    return bytea(value) if first.says(b"BYTEA") else value


# --------------------------------------------------------------------------------------- functions of SQLite's shell


def _arguments(lexer: Lexer, name: bytes, depth: int) -> list[Literal]:
    token = lexer.next()
    if not token.says(b"("):
        raise lexer.damaged("a value that is no literal", token.at)
    found = []
    while True:
        found.append(read_value(lexer, depth + 1))
        token = lexer.next()
        if name == b"CAST" and token.says(b"AS"):
            token = _cast_type(lexer, found)
        if token.says(b")"):
            return found
        if not token.says(b",") or len(found) > _MAX_DEPTH:
            raise lexer.damaged("a value that is no literal", token.at)


def _cast_type(lexer: Lexer, found: list[Literal]) -> Token:
    """`CAST(X'…' AS TEXT)`: the type is one word."""
    kind = lexer.next()
    if kind.says(b"TEXT") and isinstance(found[0], bytes):
        found[0] = text_or_bytes(found[0])
    elif kind.says(b"BLOB") and isinstance(found[0], str):
        found[0] = found[0].encode("utf-8", "surrogatepass")
    return lexer.next()


def _cast_result(lexer: Lexer, token: Token, arguments: list[Literal]) -> Literal:
    if len(arguments) != 1:
        raise lexer.damaged("a value that is no literal", token.at)
    return arguments[0]


def _characters(lexer: Lexer, token: Token, arguments: list[Literal]) -> Literal:
    numbers = [number for number in arguments if isinstance(number, int) and number >= 0]
    if len(numbers) != len(arguments):
        raise lexer.damaged("a value that is no literal", token.at)
    return _paired("".join(map(_character, numbers)))


def _replaced(lexer: Lexer, token: Token, arguments: list[Literal]) -> Literal:
    texts = [text for text in arguments if isinstance(text, str)]
    if len(texts) != len(arguments) or len(texts) != 3 or not texts[1]:
        raise lexer.damaged("a value that is no literal", token.at)
    text, old, new = texts
    if len(text) + text.count(old) * len(new) > MAX_TOKEN:
        raise lexer.damaged("a value larger than any real one", token.at)
    return text.replace(old, new)


def _unistr(lexer: Lexer, token: Token, arguments: list[Literal]) -> Literal:
    if len(arguments) != 1 or not isinstance(arguments[0], str):
        raise lexer.damaged("a value that is no literal", token.at)

    def character(found: re.Match[str]) -> str:
        if found[5] is not None:
            return "\\"
        digits = next(digits for digits in found.groups() if digits is not None)
        return _character(int(digits, 16))

    return _paired(_UNISTR.sub(character, arguments[0]))


def _paired(text: str) -> str:
    """Make one character of each pair of halves; a half alone is none, and cannot be kept."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


_FUNCTIONS: Final = {
    b"CAST": _cast_result,
    b"CHAR": _characters,
    b"REPLACE": _replaced,
    b"UNISTR": _unistr,
}
