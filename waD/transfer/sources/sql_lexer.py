"""Text of an SQL dump as tokens, piece by piece; nothing of it is ever run.

The text is bytes: dumps of MySQL hold byte strings as they are. A token is matched by one regular expression without
backtracking; where the text at hand ends inside of it more is fetched, twice as much each time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from typing import Final, Literal, NamedTuple, TypeAlias

from waD.transfer.sources.errors import SourceRefused

Dialect: TypeAlias = Literal["mysql", "postgresql", "sqlite", "standard"]
Kind: TypeAlias = Literal["word", "name", "string", "number", "mark", "end"]

MAX_TOKEN: Final = 1 << 27
"""Bytes of one string: a record of the largest size takes twice that in hexadecimal digits."""
TAIL: Final = 4096
"""Bytes before the end of the text that are kept, for what a program writes there when it is done."""
_KEPT: Final = 16
"""Bytes before the place reached that stay at hand: the letter that tells how a string is written."""

_STRING: Final = rb"'(?:[^']++|'')*+'"
_ESCAPED: Final = rb"'(?:[^'\\]++|\\.|'')*+'"
_DOUBLE: Final = rb'"(?:[^"]++|"")*+"'
_DOUBLE_ESCAPED: Final = rb'"(?:[^"\\]++|\\.|"")*+"'
_BACKTICK: Final = rb"`(?:[^`]++|``)*+`"
_BLOCK_COMMENT: Final = rb"/\*(?:[^*]++|\*(?!/))*+\*/"
_TAG: Final = rb"\$(?:[A-Za-z_\x80-\xff][0-9A-Za-z_\x80-\xff]*+)?+\$"
_DOLLAR: Final = rb"(?P<tag>" + _TAG + rb").*?(?P=tag)"
_PLAIN: Final = re.compile(_STRING, re.DOTALL)
_WITH_ESCAPES: Final = re.compile(_ESCAPED, re.DOTALL)
_NAME: Final = re.compile(_DOUBLE, re.DOTALL)
_DOUBLE_STRING: Final = re.compile(_DOUBLE_ESCAPED, re.DOTALL)
_BACKTICK_NAME: Final = re.compile(_BACKTICK, re.DOTALL)
_BRACKET_NAME: Final = re.compile(rb"\[[^\]]*+\]")
_DOLLAR_STRING: Final = re.compile(_DOLLAR, re.DOTALL)
_DOLLAR_START: Final = re.compile(_TAG)
_WORD: Final = re.compile(rb"[A-Za-z_\x80-\xff][0-9A-Za-z_$\x80-\xff]*+")
_NUMBER: Final = re.compile(rb"0[xX][0-9A-Fa-f]*+|(?:[0-9]++\.?[0-9]*+|\.[0-9]++)(?:[eE][+-]?[0-9]*+)?+")
_SPACE: Final = re.compile(rb"[\s\x00]++")
_COMMENT: Final = re.compile(_BLOCK_COMMENT, re.DOTALL)
_LINE: Final = re.compile(rb"[^\n]*+\n")
_LAST_LINE: Final = re.compile(rb"[^\n]*+")
_NAMES: Final = re.compile(rb"/\*!\d*\s*SET\s+NAMES\s+'?(\w+)")
_PREFIXES: Final = frozenset({b"e", b"x", b"b", b"n"})


class Token(NamedTuple):
    """One token.

    Attributes:
        kind: `name` is a quoted name, `end` the end of the text.
        text: as written, quotes included; a string's without its prefix.
        prefix: of a string, in small letters: `e`, `x`, `b`, `n`, or `$` and `"` for strings in other quotes.
        at: offset of its first byte.
    """

    kind: Kind
    text: bytes
    at: int
    prefix: bytes = b""

    def says(self, *words: bytes) -> bool:
        """Whether it is one of these words, in any letters, or one of these marks."""
        return self.text.upper() in words and self.kind in ("word", "mark")


class Lexer:
    """Cuts text into tokens.

    Every method raises SourceRefused: `source_damaged` with the offset where the text ends too soon, and
    `source_too_large`.

    Attributes:
        dialect: how it is written.
        escapes: whether a backslash means something in a plain string.
        names: what a comment of MySQL says about the encoding.
    """

    def __init__(self, pieces: Iterable[bytes], dialect: Dialect) -> None:
        self._pieces = iter(pieces)
        self._buffer = b""
        self._at = 0
        self._before = 0
        self._ended = False
        self._tail = b""
        self._back: Token | None = None
        self.dialect: Final[Dialect] = dialect
        self.escapes = dialect == "mysql"
        self.names: bytes | None = None

    @property
    def offset(self) -> int:
        """Bytes passed so far."""
        return self._before + self._at

    @property
    def tail(self) -> bytes:
        """The last bytes of the text, as far as it was fetched."""
        return self._tail

    def next(self) -> Token:
        """The next token behind space and comments."""
        if self._back is not None:
            token, self._back = self._back, None
            return token
        self._pass_space()
        at = self.offset
        first = self._look(2)
        if not first:
            return Token("end", b"", at)
        if first[:1] == b"'":
            return self._string(b"", at)
        if first[:1] in b'"`[$':
            return self._quoted(first[:1], at)
        if first[:1].isdigit() or (first[:1] == b"." and first[1:].isdigit()):
            return Token("number", self._match(_NUMBER, "a number")[0], at)
        if first[:1].isalpha() or first[0] >= 0x80 or first[:1] == b"_":
            word = self._match(_WORD, "a word")[0]
            prefix = word.lower()
            if prefix in _PREFIXES and self._look(1) == b"'":
                return self._string(prefix, at)
            return Token("word", word, at)
        return self._mark(first, at)

    def put_back(self, token: Token) -> None:
        """Let `next` give a token once more."""
        self._back = token

    def line(self) -> bytes:
        """The rest of the line, its end included."""
        matched = self._match(_LINE, "a line", whole=False)
        return matched[0]

    def skip_statement(self) -> None:
        """Pass over everything up to the semicolon that ends the statement."""
        if self._back is not None:
            token, self._back = self._back, None
            if token.says(b";"):
                return
        pattern = _skipping(self.dialect, self.escapes)
        while True:
            found = pattern.match(self._buffer, self._at)
            end = self._at if found is None else found.end()
            if end < len(self._buffer):
                if self._buffer[end : end + 1] == b";":
                    self._at = end + 1
                    return
            elif found is not None and found.lastgroup is not None and not self._ended:
                end = found.start("last")  # it may go on in what follows
            self._at = end
            self._check_size("a string")
            if not self._fill():
                raise self.damaged("the text ends here, within a statement: it was cut short")

    def damaged(self, reason: str, at: int | None = None) -> SourceRefused:
        """What to raise."""
        return SourceRefused("source_damaged", f"byte {self.offset if at is None else at}: {reason}")

    def _string(self, prefix: bytes, at: int) -> Token:
        escapes = self.escapes or prefix == b"e"
        found = self._match(_WITH_ESCAPES if escapes and prefix != b"x" else _PLAIN, "a string")
        return Token("string", found[0], at, prefix)

    def _quoted(self, quote: bytes, at: int) -> Token:
        if quote == b'"' and self.dialect == "mysql":
            return Token("string", self._match(_DOUBLE_STRING, "a string")[0], at, b'"')
        if quote == b'"':
            return Token("name", self._match(_NAME, "a name")[0], at)
        if quote == b"`" and self.dialect != "postgresql":
            return Token("name", self._match(_BACKTICK_NAME, "a name")[0], at)
        if quote == b"[" and self.dialect == "sqlite":
            return Token("name", self._match(_BRACKET_NAME, "a name")[0], at)
        if quote == b"$" and self.dialect in ("postgresql", "standard"):
            self._look(128)
            if _DOLLAR_START.match(self._buffer, self._at):
                return Token("string", self._match(_DOLLAR_STRING, "a string")[0], at, b"$")
        return self._mark(self._look(2), at)

    def _mark(self, first: bytes, at: int) -> Token:
        text = first if first in (b"::", b"||") else first[:1]
        self._at += len(text)
        return Token("mark", text, at)

    def _pass_space(self) -> None:
        while first := self._look(3):
            if first[:1].isspace() or first[:1] == b"\0":
                self._match(_SPACE, "space", whole=False)
            elif self._is_comment(first):
                self._match(_LINE, "a line", whole=False)
            elif first[:2] == b"/*":
                found = _NAMES.match(self._match(_COMMENT, "a comment")[0])
                self.names = found[1] if found else self.names
            else:
                return

    def _is_comment(self, first: bytes) -> bool:
        if first[:1] == b"#":
            return self.dialect == "mysql"
        return first[:2] == b"--" and (self.dialect != "mysql" or first[2:3].isspace() or len(first) == 2)

    def _look(self, count: int) -> bytes:
        """The bytes that come next; fewer at the end of the text."""
        while len(self._buffer) - self._at < count and self._fill():
            pass
        return self._buffer[self._at : self._at + count]

    def _match(self, pattern: re.Pattern[bytes], what: str, *, whole: bool = True) -> re.Match[bytes]:
        """Match here, however much has to be fetched, and pass over it.

        Args:
            pattern: matches nothing but a whole thing.
            what: it is, for people.
            whole: it may go on behind the end of what is at hand.
        """
        while True:
            found = pattern.match(self._buffer, self._at)
            if found is not None and (not whole or self._ended or found.end() < len(self._buffer)):
                self._at = found.end()
                return found
            self._check_size(what)
            if not self._fill():
                break
        if found is None and pattern is _LINE:
            found = _LAST_LINE.match(self._buffer, self._at)
        if found is None:
            raise self.damaged(f"the text ends within {what} that begins here: it was cut short")
        self._at = found.end()
        return found

    def _check_size(self, what: str) -> None:
        if len(self._buffer) - self._at > MAX_TOKEN:
            raise SourceRefused(
                "source_too_large", f"byte {self.offset}: {what} has more than {MAX_TOKEN >> 20} MiB"
            )

    def _fill(self) -> bool:
        """Get as much again as is at hand; False when there is no more."""
        if self._ended:
            return False
        start = max(self._at - _KEPT, 0)
        kept = [self._buffer[start:]]
        self._before += start
        self._at -= start
        wanted, size = max(len(kept[0]), 1), 0
        while size < wanted:
            piece = next(self._pieces, None)
            if piece is None:
                self._ended = True
                break
            size += len(piece)
            kept.append(piece)
        self._buffer = b"".join(kept)
        if size:
            self._tail = (self._tail + self._buffer[-min(size, TAIL) :])[-TAIL:]
        return size > 0 or self._ended


@cache
def _skipping(dialect: Dialect, escapes: bool) -> re.Pattern[bytes]:
    """What can stand before the end of a statement; its last part is the group `last`."""
    parts = [rb"[^;'\"`$/#-]++", rb"(?<=[^0-9A-Za-z_$][eE])" + _ESCAPED]
    if escapes:
        parts += [_ESCAPED]
    else:
        parts += [rb"(?<![^0-9A-Za-z_$][eE])" + _STRING]
    parts += [_DOUBLE_ESCAPED if dialect == "mysql" else _DOUBLE, _BLOCK_COMMENT, rb"/(?!\*)"]
    parts += [_BACKTICK] if dialect in ("mysql", "sqlite", "standard") else [rb"`"]
    if dialect == "mysql":
        parts += [rb"(?:--\s|#)[^\n]*+\n", rb"-(?!-)|--(?=\S)", rb"\$"]
    else:
        parts += [rb"--[^\n]*+\n", rb"-(?!-)", rb"#"]
        in_name = rb"(?<=[0-9A-Za-z_\x80-\xff])\$"
        parts += [rb"\$"] if dialect == "sqlite" else [in_name, rb"\$(?=[0-9])", _DOLLAR]
    return re.compile(rb"(?:(?P<last>" + rb"|".join(parts) + rb"))*+", re.DOTALL)
