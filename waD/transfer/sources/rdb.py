"""Dumps of a Redis or Valkey server (RDB files): the strings and hashes in them, one after the other.

Facts of the format: Redis' own rdb.h and rdb.c, and Valkey's; seen in files that Redis 6.2, 7.0 and 8.2 and Valkey 9.1
wrote (versions 9, 10, 12 and 80). Version 13 is read as far as it is version 12: what a newer one adds has a number of
its own, and is refused by that number; nothing is guessed. All other kinds of values are passed over.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple, TypeAlias

from waD.transfer.sources import packed
from waD.transfer.sources.errors import SourceRefused
from waD.transfer.sources.rdb_input import Input

MAGIC: Final = re.compile(rb"REDIS[0-9]{4}|VALKEY[0-9]{3}")
_NEWEST_REDIS: Final = 13
_VALKEY: Final = range(80, 100)
"""Numbers of Valkey's own; those below are Redis' future."""
_CHECKSUM_SINCE: Final = 5
_CHECKSUM_SIZE: Final = 8
MAX_NAME: Final = 4096
"""Bytes of a key or a field that may be anything to us."""
_MAX_PACKED: Final = 1 << 26
"""Bytes of a packed hash, expanded; Redis itself unpacks what is longer than some kilobytes."""
_MAX_VERSION_TEXT: Final = 64

_EOF: Final = 255
_SELECT_DB: Final = 254
_EXPIRY_S: Final = 253
_EXPIRY_MS: Final = 252
_RESIZE: Final = 251
_AUX: Final = 250
_FREQUENCY: Final = 249
_IDLE: Final = 248
_MODULE_AUX: Final = 247
_OLD_FUNCTION: Final = 246
_FUNCTION: Final = 245
_SLOT: Final = 244

_STRING: Final = 0
_PACKED_HASHES: Final = {9: packed.zipmap, 13: packed.ziplist, 16: packed.listpack}
_HASH: Final = 4
_HASH_TIMED_EARLY: Final = 22
"""Redis 7.4 before its release; Valkey means something else by it."""
_PACKED_TIMED_EARLY: Final = 23
_HASH_TIMED: Final = 24
_PACKED_TIMED: Final = 25

Wanted: TypeAlias = Callable[[int, bytes, bytes | None], bool]
"""Asked with the database, the key, and the field of a hash."""


class Item(NamedTuple):
    """A string, or one field of a hash.

    Attributes:
        database: its number.
        key: name of the string or the hash.
        field: None for a string.
        value: None if it is larger than anything that is wanted.
        expired: its time was over when the dump was made.
    """

    database: int
    key: bytes
    field: bytes | None
    value: bytes | None
    expired: bool


def read_rdb(
    pieces: Iterable[bytes], wanted: Wanted, *, max_value: int, checked: bool = True
) -> Iterator[Item]:
    """Read a dump to its end, and check that it is whole.

    Args:
        pieces: the file.
        wanted: whether a string, or a field of a hash, is of any use; the others are passed over unread.
        max_value: bytes of a value, expanded.
        checked: count the checksum, which takes longer than all else.

    Raises:
        SourceRefused: `source_damaged` with the offset; `dump_unsupported` for what this program does not read. What
            came before is not to be trusted then.
    """
    return _Dump(Input(pieces, counted=checked), wanted, max_value).read()


class _Dump:
    def __init__(self, source: Input, wanted: Wanted, max_value: int) -> None:
        self._in = source
        self._wanted = wanted
        self._max_value = max_value
        self._valkey = False
        self._made_ms: int | None = None
        self._database = 0
        self._expiry_ms: int | None = None

    def read(self) -> Iterator[Item]:
        version = self._header()
        while (code := self._in.octet()) != _EOF:
            if code < 128:
                yield from self._entry(code)
                self._expiry_ms = None
            else:
                self._note(code)
        checksum = self._in.checksum()
        if version >= _CHECKSUM_SINCE:
            stored = int.from_bytes(self._in.take(_CHECKSUM_SIZE), "little")
            if checksum is not None and stored not in (0, checksum):
                raise SourceRefused(
                    "source_damaged",
                    f"byte {self._in.offset - _CHECKSUM_SIZE}: the checksum of the dump is another one",
                )
        self._in.expect_end()

    def _header(self) -> int:
        start = self._in.take(9)
        if MAGIC.fullmatch(start) is None:
            raise SourceRefused("source_damaged", "byte 0: not the beginning of a dump of Redis")
        self._valkey = start.startswith(b"VALKEY")
        version = int(start[-3:] if self._valkey else start[-4:])
        known = version in _VALKEY if self._valkey else 1 <= version <= _NEWEST_REDIS
        if not known:
            raise SourceRefused(
                "dump_unsupported",
                f"it is a dump of version {version}; this program reads Redis' up to {_NEWEST_REDIS} and Valkey's "
                f"from {_VALKEY.start}: export the session instead, redis-cli --json HGETALL KEY >FILE",
            )
        return version

    # ------------------------------------------------------------------------------------- what stands between keys

    def _note(self, code: int) -> None:
        source = self._in
        if code in (_EXPIRY_MS, _EXPIRY_S):
            width, unit = (8, 1) if code == _EXPIRY_MS else (4, 1000)
            self._expiry_ms = int.from_bytes(source.take(width), "little", signed=True) * unit
        elif code == _SELECT_DB:
            self._database = source.length()
        elif code == _AUX:
            self._aux()
        elif code == _FREQUENCY:
            source.skip(1)
        elif code in _LENGTHS_OF:
            for _ in range(_LENGTHS_OF[code]):
                source.length()
        elif code == _FUNCTION:
            source.skip_string()
        else:
            self._skip_rare(code)

    def _skip_rare(self, code: int) -> None:
        source = self._in
        if code == _MODULE_AUX:
            source.length()
            self._skip_module()
        elif code == _OLD_FUNCTION:  # name, engine, description if there is one, code
            for _ in range(2):
                source.skip_string()
            for _ in range(2 if source.length() else 1):
                source.skip_string()
        else:
            self._refuse(f"the mark {code}")

    def _aux(self) -> None:
        name, value = self._in.string(MAX_NAME), self._in.string(_MAX_VERSION_TEXT)
        if name == b"ctime" and value is not None and value.isdigit():
            self._made_ms = int(value) * 1000

    def _refuse(self, what: str) -> None:
        raise SourceRefused(
            "dump_unsupported",
            f"byte {self._in.offset}: {what} is none that this program knows: export the session instead, "
            "redis-cli --json HGETALL KEY >FILE",
        )

    # ------------------------------------------------------------------------------------------------- keys, values

    def _entry(self, kind: int) -> Iterator[Item]:
        key = self._in.string(MAX_NAME)
        if key is None:
            key = b""
        if kind == _STRING:
            yield from self._value(key, None, self._over(self._expiry_ms))
        elif kind == _HASH:
            yield from self._plain_hash(key)
        elif kind in _PACKED_HASHES:
            yield from self._packed_hash(key, kind)
        elif self._valkey and kind == _HASH_TIMED_EARLY:
            yield from self._valkey_hash(key)
        elif not self._valkey and kind in (_HASH_TIMED_EARLY, _HASH_TIMED):
            yield from self._timed_hash(key, early=kind == _HASH_TIMED_EARLY)
        elif not self._valkey and kind in (_PACKED_TIMED_EARLY, _PACKED_TIMED):
            yield from self._packed_timed_hash(key, early=kind == _PACKED_TIMED_EARLY)
        else:
            self._skip(kind)

    def _value(self, key: bytes, field: bytes | None, over: bool) -> Iterator[Item]:
        if self._wanted(self._database, key, field):
            yield Item(self._database, key, field, self._in.string(self._max_value), over)
        else:
            self._in.skip_string()

    def _plain_hash(self, key: bytes) -> Iterator[Item]:
        over = self._over(self._expiry_ms)
        for _ in range(self._in.length()):
            yield from self._field(key, over)

    def _field(self, key: bytes, over: bool) -> Iterator[Item]:
        name = self._in.string(MAX_NAME)
        if name is None:
            self._in.skip_string()
        else:
            yield from self._value(key, name, over)

    def _valkey_hash(self, key: bytes) -> Iterator[Item]:
        """Valkey 9: each field is followed by its time in ms, -1 for none."""
        for _ in range(self._in.length()):
            found = [*self._field(key, over=False)]
            expiry = int.from_bytes(self._in.take(8), "little", signed=True)
            over = self._over(self._expiry_ms) or self._over(None if expiry == -1 else expiry)
            yield from (item._replace(expired=over) for item in found)

    def _timed_hash(self, key: bytes, *, early: bool) -> Iterator[Item]:
        """Redis 7.4: each field comes behind its time, counted from the earliest of the hash plus 1, 0 for none."""
        first = 1 if early else int.from_bytes(self._in.take(8), "little")
        for _ in range(self._in.length()):
            expiry = self._in.length()
            over = self._over(self._expiry_ms) or self._over(expiry + first - 1 if expiry else None)
            yield from self._field(key, over)

    def _packed_timed_hash(self, key: bytes, *, early: bool) -> Iterator[Item]:
        if not early:
            self._in.skip(8)
        elements = self._unpacked(packed.listpack, 3)
        for name, value, time in zip(elements[::3], elements[1::3], elements[2::3], strict=True):
            expiry = int(time) if time.isdigit() else 0
            over = self._over(self._expiry_ms) or self._over(expiry or None)
            yield from self._unpacked_field(key, name, value, over)

    def _packed_hash(self, key: bytes, kind: int) -> Iterator[Item]:
        elements = self._unpacked(_PACKED_HASHES[kind], 2)
        over = self._over(self._expiry_ms)
        for name, value in zip(elements[::2], elements[1::2], strict=True):
            yield from self._unpacked_field(key, name, value, over)

    def _unpacked_field(self, key: bytes, name: bytes, value: bytes, over: bool) -> Iterator[Item]:
        if len(name) <= MAX_NAME and self._wanted(self._database, key, name):
            kept = value if len(value) <= self._max_value else None
            yield Item(self._database, key, name, kept, over)

    def _unpacked(self, unpack: Callable[[bytes], Iterator[bytes]], group: int) -> list[bytes]:
        start = self._in.offset
        data = self._in.string(_MAX_PACKED)
        if data is None:
            raise SourceRefused(
                "source_too_large", f"byte {start}: a packed hash of more than any real one has"
            )
        try:
            elements = [*unpack(data)]
        except packed.PackedError as error:
            raise SourceRefused("source_damaged", f"byte {start}, {error.at} in: {error}") from None
        if len(elements) % group:
            raise SourceRefused("source_damaged", f"byte {start}: a field without a value in a packed hash")
        return elements

    def _over(self, expiry_ms: int | None) -> bool:
        """Whether a time was over when the dump was made; one that has passed since then changes nothing."""
        return expiry_ms is not None and self._made_ms is not None and expiry_ms <= self._made_ms

    # ------------------------------------------------------------------------------------------ what is passed over

    def _skip(self, kind: int) -> None:
        source = self._in
        if kind in _ONE_STRING:
            source.skip_string()
        elif kind in (1, 2, 14):  # a list, a set, a list of ziplists
            self._skip_strings(1)
        elif kind == 18:  # a list of listpacks and long elements, each after its form
            for _ in range(source.length()):
                source.length()
                source.skip_string()
        elif kind == 3:  # a sorted set whose scores are text
            for _ in range(source.length()):
                source.skip_string()
                size = source.octet()
                source.skip(size if size < 253 else 0)  # three numbers that have no digits
        elif kind == 5:  # a sorted set whose scores are binary
            for _ in range(source.length()):
                source.skip_string()
                source.skip(8)
        elif kind == 7:
            source.length()
            self._skip_module()
        elif kind in _STREAMS:
            self._skip_stream(_STREAMS[kind])
        else:
            self._refuse(f"a value of kind {kind}")

    def _skip_strings(self, each: int) -> None:
        for _ in range(self._in.length()):
            for _ in range(each):
                self._in.skip_string()

    def _skip_stream(self, form: int) -> None:
        source = self._in
        self._skip_strings(2)  # listpacks by the id they begin with
        for _ in range(3 if form == 1 else 8):  # length and ids of the stream
            source.length()
        for _ in range(source.length()):  # groups
            source.skip_string()
            for _ in range(2 if form == 1 else 3):
                source.length()
            for _ in range(source.length()):  # messages that are not acknowledged: id, time, count
                source.skip(16 + 8)
                source.length()
            for _ in range(source.length()):  # consumers: name, times, ids
                source.skip_string()
                source.skip(16 if form == 3 else 8)
                source.skip(16 * source.length())

    def _skip_module(self) -> None:
        """Values of a module tell their kinds, so that those who do not know it can pass over them."""
        source = self._in
        while kind := source.length():
            if kind in (1, 2):
                source.length()
            elif kind in (3, 4):
                source.skip(4 * (kind - 2))
            elif kind == 5:
                source.skip_string()
            else:
                self._refuse(f"in a value of a module {kind}")


_LENGTHS_OF: Final = {_RESIZE: 2, _IDLE: 1, _SLOT: 3}
_ONE_STRING: Final = frozenset({10, 11, 12, 17, 20})
"""Packed lists, sets and sorted sets."""
_STREAMS: Final = {15: 1, 19: 2, 21: 3}
