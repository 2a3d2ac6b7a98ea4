"""RDB files byte by byte, for what no server at hand writes; files of real servers are in test_redis_dumps."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from waD.transfer.sources import packed, rdb, rdb_input
from waD.transfer.sources.crc64 import Crc64
from waD.transfer.sources.errors import SourceRefused
from waD.transfer.sources.rdb import Item, read_rdb

MADE_MS = 1_700_000_000_000
LIMIT = 1000


def crc(data: bytes) -> int:
    checksum = Crc64()
    checksum.update(data)
    return checksum.value


def text(data: bytes) -> bytes:
    return bytes((len(data),)) + data if len(data) < 64 else b"\x80" + struct.pack(">I", len(data)) + data


def dump(*parts: bytes, magic: bytes = b"REDIS0012", made: bool = True) -> bytes:
    aux = b"\xfa" + text(b"ctime") + text(b"%d" % (MADE_MS // 1000)) if made else b""
    data = magic + aux + b"".join(parts) + b"\xff"
    return data + struct.pack("<Q", crc(data))


def read(data: bytes, size: int = 1 << 18) -> list[Item]:
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    return [*read_rdb(pieces, lambda *_: True, max_value=LIMIT)]


def refused(data: bytes) -> SourceRefused:
    with pytest.raises(SourceRefused) as refusal:
        read(data)
    return refusal.value


def test_the_checksum() -> None:
    """The value that Redis' own test of its CRC expects."""
    assert crc(b"123456789") == 0xE9C6D914C4B8D9CA
    whole = Crc64()
    for piece in (b"1", b"", b"23456", b"789"):
        whole.update(piece)
    assert whole.value == 0xE9C6D914C4B8D9CA


@given(st.binary(max_size=100), st.integers(0, 100))
def test_the_checksum_of_pieces(data: bytes, at: int) -> None:
    pieces = Crc64()
    pieces.update(data[:at])
    pieces.update(data[at:])
    assert pieces.value == crc(data)


@pytest.mark.parametrize(
    ("form", "value"),
    [
        (b"\x03abc", b"abc"),
        (b"\x40\x03abc", b"abc"),
        (b"\x80\0\0\0\x03abc", b"abc"),
        (b"\x81\0\0\0\0\0\0\0\x03abc", b"abc"),
        (b"\xc0\xff", b"-1"),
        (b"\xc1\x00\x80", b"-32768"),
        (b"\xc2\x15\xcd\x5b\x07", b"123456789"),
        (b"\xc3\x04\x03\x02abc", b"abc"),
        (b"\xc3\x05\x0a\x00a\xe0\x00\x00", b"a" * 10),
        (b"\xc3\x06\x06\x02abc\x20\x02", b"abcabc"),
    ],
)
@pytest.mark.parametrize("size", [1, 3, 1 << 18])
def test_strings(form: bytes, value: bytes, size: int) -> None:
    (item,) = read(dump(b"\x00" + text(b"k") + form), size)
    assert item == Item(0, b"k", None, value, expired=False)


def listpack(*elements: bytes) -> bytes:
    body = b"".join(bytes((0x80 | len(one),)) + one + bytes((len(one) + 1,)) for one in elements)
    return struct.pack("<IH", len(body) + 7, len(elements)) + body + b"\xff"


def ziplist(*forms: bytes) -> bytes:
    """Each element stands behind the length of the one before, in one byte or in five."""
    body = b"".join((b"\xfe\0\0\0\0" if number == 2 else b"\0") + form for number, form in enumerate(forms))
    return struct.pack("<IIH", len(body) + 11, 0, len(forms)) + body + b"\xff"


HASHES = {
    "zipmap": b"\x09" + text(b"h") + text(b"\x02\x01f\x03\x02one\0\0\xfe\x01\0\0\0g\xfe\x03\0\0\0\0two\xff"),
    "ziplist": b"\x0d" + text(b"h") + text(ziplist(b"\x01f", b"\x40\x03one", b"\x80\0\0\0\x01g", b"\xf8")),
    "table": b"\x04" + text(b"h") + b"\x02" + text(b"f") + text(b"one") + text(b"g") + text(b"two"),
    "listpack": b"\x10" + text(b"h") + text(listpack(b"f", b"one", b"g", b"two")),
    "times before 7.4": b"\x16" + text(b"h") + b"\x02"
    + b"".join(b"\x00" + text(field) + text(value) for field, value in ((b"f", b"one"), (b"g", b"two"))),
    "packed times before 7.4": b"\x17" + text(b"h") + text(listpack(b"f", b"one", b"0", b"g", b"two", b"0")),
}  # fmt: skip


@pytest.mark.parametrize("name", HASHES)
def test_hashes(name: str) -> None:
    found = {item.field: item.value for item in read(dump(HASHES[name]))}
    assert found == {b"f": b"one", b"g": b"7" if name == "ziplist" else b"two"}


def test_numbers_in_packed_lists() -> None:
    numbers = (b"\x7f\x01", b"\xdf\xff\x02", b"\xd0\x00\x02", b"\xf1\xff\x7f\x03", b"\xf2\xff\xff\xff\x04",
               b"\xf3\0\0\0\x80\x05", b"\xf4" + b"\xff" * 8 + b"\x09")  # fmt: skip
    body = b"".join(numbers)
    data = struct.pack("<IH", len(body) + 7, len(numbers)) + body + b"\xff"
    expected = [127, -1, -4096, 32767, -1, -(1 << 31), -1]
    assert [*packed.listpack(data)] == [b"%d" % number for number in expected]
    forms = (b"\xc0\xff\x7f", b"\xd0\0\0\0\x80", b"\xe0" + b"\xff" * 8, b"\xf0\xff\xff\xff", b"\xfe\x80")
    expected = [32767, -(1 << 31), -1, -1, -128, 0, 12]
    assert [*packed.ziplist(ziplist(*forms, b"\xf1", b"\xfd"))] == [b"%d" % number for number in expected]


LONG = b"x" * 200
OTHERS = {
    "list": b"\x01" + text(b"k") + b"\x02" + text(b"a") + text(LONG),
    "set": b"\x02" + text(b"k") + b"\x01" + text(LONG),
    "old sorted set": b"\x03" + text(b"k") + b"\x04"
    + b"".join(text(b"a") + score for score in (b"\x031.5", b"\xfd", b"\xfe", b"\xff")),
    "sorted set": b"\x05" + text(b"k") + b"\x01" + text(b"a") + bytes(8),
    "module": b"\x07" + text(b"k") + b"\x81" + b"m" * 8
    + b"\x01\x05\x02\x40\xff\x03abcd\x04abcdefgh\x05" + text(b"x") + b"\0",
    "packed": b"".join(bytes((kind,)) + text(b"k") + text(LONG) for kind in (10, 11, 12, 17, 20)),
    "lists of lists": b"\x0e" + text(b"k") + b"\x01" + text(LONG) + b"\x12" + text(b"k") + b"\x01\x02" + text(LONG),
    "old function": b"\xf6" + text(b"f") + text(b"LUA") + b"\x01" + text(b"what it does") + text(b"code"),
    "old function without words": b"\xf6" + text(b"f") + text(b"LUA") + b"\x00" + text(b"code"),
    "module aux": b"\xf7\x81" + b"m" * 8 + b"\x02\x02\x05" + text(b"x") + b"\0",
    "idle": b"\xf8\x40\xff\x00" + text(b"seen") + text(b"1") + b"\xf9\x05\x00" + text(b"seen") + text(b"1"),
    "slot": b"\xf4\x01\x02\x03",
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_passed_over(name: str) -> None:
    last = b"\x00" + text(b"last") + text(b"1")
    found = read(dump(OTHERS[name], b"\xfe\x03\xfb\x01\x00", last))
    assert found[-1] == Item(3, b"last", None, b"1", expired=False)
    assert {item.key for item in found[:-1]} <= {b"seen"}


def test_times() -> None:
    def entry(mark: bytes) -> bytes:
        return mark + b"\x00" + text(b"k") + text(b"v")

    def expired(mark: bytes, **how: bool) -> bool:
        (item,) = read(dump(entry(mark), **how))  # type: ignore[arg-type]
        return item.expired

    before, after = MADE_MS - 1, MADE_MS + 1
    assert expired(b"\xfc" + struct.pack("<Q", before))
    assert expired(b"\xfc" + struct.pack("<Q", MADE_MS))
    assert not expired(b"\xfc" + struct.pack("<Q", after))
    assert expired(b"\xfd" + struct.pack("<I", MADE_MS // 1000))
    assert not expired(b"")
    # Without the time of the dump nothing can be over.
    assert not expired(b"\xfc" + struct.pack("<Q", 1), made=False)
    first, second = read(dump(entry(b"\xfc" + struct.pack("<Q", before)), entry(b"")))
    assert (first.expired, second.expired) == (True, False)


def test_times_of_fields() -> None:
    early, late = MADE_MS - 5, MADE_MS + 5
    fields = (
        b"\x00"
        + text(b"a")
        + text(b"1")
        + b"\x01"
        + text(b"b")
        + text(b"2")
        + b"\x0b"
        + text(b"c")
        + text(b"3")
    )
    redis = b"\x18" + text(b"h") + struct.pack("<Q", early) + b"\x03" + fields
    packs = (
        b"\x19"
        + text(b"h")
        + struct.pack("<Q", early)
        + text(listpack(b"a", b"1", b"0", b"b", b"2", b"%d" % early, b"c", b"3", b"%d" % late))
    )
    valkey = (
        b"\x16"
        + text(b"h")
        + b"\x03"
        + b"".join(
            text(name) + text(value) + struct.pack("<q", time)
            for name, value, time in ((b"a", b"1", -1), (b"b", b"2", early), (b"c", b"3", late))
        )
    )
    for part, magic in ((redis, b"REDIS0012"), (packs, b"REDIS0012"), (valkey, b"VALKEY080")):
        found = {item.field: (item.value, item.expired) for item in read(dump(part, magic=magic))}
        assert found == {b"a": (b"1", False), b"b": (b"2", True), b"c": (b"3", False)}


@pytest.mark.parametrize("magic", [b"REDIS0001", b"REDIS0004", b"REDIS0006", b"REDIS0013", b"VALKEY080"])
def test_versions(magic: bytes) -> None:
    entry = b"\x00" + text(b"k") + text(b"v")
    data = magic + entry + b"\xff"
    if magic <= b"REDIS0004":
        assert read(data)[0].value == b"v"  # no checksum then
        return
    assert read(dump(entry, magic=magic))[0].value == b"v"
    assert read(data + bytes(8))[0].value == b"v"  # zero says that it was switched off
    assert refused(data + bytes(7) + b"\x01").code == "source_damaged"


@pytest.mark.parametrize("magic", [b"REDIS0000", b"REDIS0014", b"REDIS0080", b"VALKEY011", b"VALKEY100"])
def test_versions_that_are_not_known(magic: bytes) -> None:
    refusal = refused(dump(magic=magic))
    assert (refusal.code, "version" in refusal.detail) == ("dump_unsupported", True)


@pytest.mark.parametrize(
    "part",
    [
        b"\x06" + text(b"k") + bytes(20),
        b"\x1a" + text(b"k") + bytes(20),
        b"\x7f" + text(b"k"),
        b"\xf0",
        b"\xf3\x01",
        b"\x07" + text(b"k") + b"\x01\x06",
    ],
)
def test_what_is_not_known(part: bytes) -> None:
    refusal = refused(dump(part))
    assert (refusal.code, "byte" in refusal.detail) == ("dump_unsupported", True)


@pytest.mark.parametrize(
    "part",
    [
        b"\x00" + text(b"k") + b"\x82abc",
        b"\x00" + text(b"k") + b"\xc5abc",
        b"\x04" + text(b"k") + b"\xc0\x05",
        b"\x00" + text(b"k") + b"\xc3\x03\x05\x02abc"[:8],
        b"\x00" + text(b"k") + b"\xc3\x03\x06\x00a\x20",
        b"\x00" + text(b"k") + b"\xc3\x02\x03\x20\x00",
        b"\x00" + text(b"k") + b"\xc3\x04\x02\x02abc",
        b"\x10" + text(b"h") + text(listpack(b"odd")),
        b"\x10" + text(b"h") + text(listpack(b"a", b"b")[:-1]),
        b"\x10" + text(b"h") + text(listpack(b"a", b"b") + b"x"),
        b"\x10" + text(b"h") + text(struct.pack("<IH", 9, 1) + b"\xf8\x01\xff"),
        b"\x10" + text(b"h") + text(struct.pack("<IH", 9, 1) + b"\xbf\x01\xff"),
        b"\x0d" + text(b"h") + text(struct.pack("<IIH", 13, 0, 1) + b"\x00\xff\xff"),
        b"\x0d" + text(b"h") + text(struct.pack("<IIH", 16, 0, 1) + b"\x00\x80\xff\xff\xff\xff"),
        b"\x09" + text(b"h") + text(b"\x01\xfd\xff"),
        b"\x00" + text(b"k") + text(b"v") + b"\xff" + bytes(8) + b"more",
    ],
)
def test_damage(part: bytes) -> None:
    refusal = refused(dump(part))
    assert (refusal.code, "byte" in refusal.detail) == ("source_damaged", True)


def test_every_length_it_may_be_cut_to() -> None:
    data = dump(*HASHES.values(), *OTHERS.values())
    for size in range(len(data)):
        refusal = refused(data[:size])
        assert (refusal.code, "byte" in refusal.detail) == ("source_damaged", True)
    assert read(data, 1) == read(data)


def test_values_larger_than_any_item_are_not_made() -> None:
    """A file of some bytes that says it expands to gigabytes."""
    bomb = b"\x00" + text(b"k") + b"\xc3\x05" + b"\x81" + struct.pack(">Q", 1 << 40) + b"\x00a\xe0\xff\x00"
    large = b"\x00" + text(b"l") + text(b"x" * (LIMIT + 1))
    field = b"\x04" + text(b"h") + b"\x01" + text(b"y" * 5000) + text(b"v")
    found = read(dump(bomb, large, field))
    assert [(item.key, item.value) for item in found] == [(b"k", None), (b"l", None)]
    assert refused(dump(b"\x00" + text(b"k") + b"\xc3\x81" + struct.pack(">Q", 1 << 40) + b"\x01a")).code == (
        "source_damaged"
    )


def test_packed_hashes_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rdb, "_MAX_PACKED", 5)
    assert refused(dump(HASHES["listpack"])).code == "source_too_large"


def test_compressed_strings_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rdb_input, "_MAX_COMPRESSED", 2)
    (item,) = read(dump(b"\x00" + text(b"k") + b"\xc3\x04\x03\x02abc"))
    assert item.value is None


def test_what_is_not_wanted_is_not_read() -> None:
    broken = b"\x00" + text(b"k") + b"\xc3\x02\x03\x20\x00"
    data = dump(broken, b"\x04" + text(b"h") + b"\x02" + text(b"f") + text(b"1") + text(b"g") + text(b"2"))
    asked: list[tuple[int, bytes, bytes | None]] = []

    def wanted(database: int, key: bytes, field: bytes | None) -> bool:
        asked.append((database, key, field))
        return field == b"g"

    found = [*read_rdb([data], wanted, max_value=LIMIT)]
    assert found == [Item(0, b"h", b"g", b"2", expired=False)]
    assert asked == [(0, b"k", None), (0, b"h", b"f"), (0, b"h", b"g")]


@given(st.binary(max_size=200), st.sampled_from([b"REDIS0011", b"VALKEY080"]))
@settings(max_examples=500)
def test_any_bytes(data: bytes, magic: bytes) -> None:
    """Nonsense behind the beginning of a dump ends in a refusal, in the end by the checksum."""
    try:
        read(magic + data)
    except SourceRefused as refusal:
        assert refusal.code in ("source_damaged", "dump_unsupported", "source_too_large")  # noqa: PT017
    else:
        assert data[-8:] in (bytes(8), struct.pack("<Q", crc(magic + data[:-8])))


@given(st.binary(max_size=100), st.sampled_from([packed.listpack, packed.ziplist, packed.zipmap]))
def test_any_packed_bytes(data: bytes, unpack: object) -> None:
    def elements(content: bytes) -> Iterator[bytes]:
        yield from unpack(content)  # type: ignore[operator]

    for content in (data, struct.pack("<I", len(data) + 4) + data):
        try:
            assert sum(map(len, elements(content))) <= 20 * len(content)
        except packed.PackedError as error:
            assert 0 <= error.at <= len(content)  # noqa: PT017
