"""Frames and the intro (chapter 01 §2)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waD.wire.errors import FrameError
from waD.wire.frames import (
    INTRO,
    MAX_FRAME,
    MAX_HANDSHAKE_FRAME,
    MAX_PLAINTEXT,
    MAX_PREAMBLE,
    MAX_ROUTING_INFO,
    FrameReader,
    IntroReader,
    edge_preamble,
    frame,
)


def chunks(data: bytes, sizes: list[int]) -> list[bytes]:
    """Cut data into pieces of these sizes, the rest in one."""
    pieces, at = [], 0
    for size in sizes:
        pieces.append(data[at : at + size])
        at += size
    return [*pieces, data[at:]]


def test_constants() -> None:
    assert bytes.fromhex("57410603") == INTRO
    assert MAX_PLAINTEXT == 16_777_199
    assert MAX_HANDSHAKE_FRAME == 65_536


def test_frame() -> None:
    assert frame(b"") == b"\x00\x00\x00"
    assert frame(b"x" * 0x010203)[:4] == b"\x01\x02\x03x"
    assert len(frame(bytes(MAX_FRAME))) == 3 + MAX_FRAME
    with pytest.raises(FrameError) as caught:
        frame(bytes(MAX_FRAME + 1))
    assert caught.value.code == "too_long"


@given(st.lists(st.binary(max_size=400), max_size=8), st.lists(st.integers(0, 300), max_size=12))
def test_any_cut_of_the_stream_gives_the_same_frames(bodies: list[bytes], sizes: list[int]) -> None:
    reader, got = FrameReader(), []
    for piece in chunks(b"".join(map(frame, bodies)), sizes):
        got += reader.feed(piece)
    assert got == bodies
    assert reader.pending == 0


def test_byte_by_byte() -> None:
    reader, got = FrameReader(), []
    for byte in frame(b"one") + frame(b"") + frame(b"three"):
        got += reader.feed(bytes((byte,)))
    assert got == [b"one", b"", b"three"]


def test_bodies_are_bytes_of_their_own() -> None:
    (body,) = FrameReader().feed(frame(b"body"))
    assert type(body) is bytes


def test_a_partial_frame_waits() -> None:
    reader = FrameReader()
    assert reader.feed(frame(b"whole") + b"\x00\x00\x05par") == [b"whole"]
    assert reader.pending == 6
    assert reader.feed(b"t") == []
    assert reader.feed(b"!" + frame(b"next")) == [b"part!", b"next"]


def test_an_announced_length_is_not_allocated() -> None:
    reader = FrameReader()
    assert reader.feed(b"\xff\xff\xff") == []
    assert reader.feed(b"x" * 10) == []
    assert reader.pending == 13


@given(st.binary(max_size=500), st.lists(st.integers(0, 50), max_size=12), st.integers(0, 400))
def test_any_stream_is_frames_or_a_frame_error(data: bytes, sizes: list[int], maximum: int) -> None:
    reader = FrameReader(maximum)
    try:
        bodies = [body for piece in chunks(data, sizes) for body in reader.feed(piece)]
    except FrameError:
        return
    assert all(len(body) <= maximum for body in bodies)
    assert b"".join(map(frame, bodies)) == data[: len(data) - reader.pending]


def test_the_maximum_holds_as_soon_as_the_length_is_known_and_can_be_raised() -> None:
    reader = FrameReader(MAX_HANDSHAKE_FRAME)
    assert len(reader.feed(frame(bytes(MAX_HANDSHAKE_FRAME)))[0]) == MAX_HANDSHAKE_FRAME
    length = (MAX_HANDSHAKE_FRAME + 1).to_bytes(3, "big")
    with pytest.raises(FrameError):
        FrameReader(MAX_HANDSHAKE_FRAME).feed(length)
    reader.maximum = MAX_FRAME
    assert reader.feed(length) == []


# What a client sends first


def read_intro(data: bytes, sizes: list[int]) -> tuple[bytes | None, bytes | None]:
    reader, rest = IntroReader(), None
    for piece in chunks(data, sizes):
        if rest is None:
            rest = reader.feed(piece)
        else:
            rest += piece
    return rest, reader.routing_info


@given(
    st.one_of(st.none(), st.binary(max_size=600)),
    st.binary(max_size=100),
    st.lists(st.integers(0, 40), max_size=20),
)
def test_intro_with_and_without_preamble(routing: bytes | None, rest: bytes, sizes: list[int]) -> None:
    preamble = b"" if routing is None else edge_preamble(routing)
    assert read_intro(preamble + INTRO + rest, sizes) == (rest, routing)


def test_preamble_layout() -> None:
    assert edge_preamble(b"abc") == bytes.fromhex("454400010000036162 63".replace(" ", ""))
    assert edge_preamble(bytes(0x0102))[:7] == bytes.fromhex("45440001000102")
    assert len(edge_preamble(bytes(MAX_ROUTING_INFO))) == 7 + MAX_ROUTING_INFO
    with pytest.raises(FrameError):
        edge_preamble(bytes(MAX_ROUTING_INFO + 1))


def test_a_server_takes_a_preamble_of_its_limit_and_no_more() -> None:
    head = b"ED\x00\x01"
    routing = bytes(MAX_PREAMBLE)
    assert read_intro(head + b"\x00\xff\xff" + routing + INTRO, []) == (b"", routing)
    with pytest.raises(FrameError) as caught:
        IntroReader().feed(head + b"\x01\x00\x00")
    assert caught.value.code == "too_long"


@pytest.mark.parametrize(
    "data",
    [
        b"G",
        b"WB",
        b"WA\x05",
        b"WA\x06\x02",
        b"WA\x06\x04",
        b"EA",
        b"ED\x00\x02",
        b"\x00",
        b"GET / HTTP/1.1",
        b"ED\x00\x01\x00\x00\x01xWX",
        b"ED\x00\x01\x00\x00\x01xED\x00\x01",
    ],
)
def test_other_first_bytes_are_refused_at_once(data: bytes) -> None:
    with pytest.raises(FrameError) as caught:
        IntroReader().feed(data)
    assert caught.value.code == "bad_intro"
    with pytest.raises(FrameError):
        read_intro(data, [1] * len(data))


@pytest.mark.parametrize(
    "data", [b"", b"W", b"WA\x06", b"E", b"ED\x00\x01\x00", b"ED\x00\x01\x00\x00\x05abc"]
)
def test_a_beginning_waits_for_more(data: bytes) -> None:
    assert IntroReader().feed(data) is None


@given(st.binary(max_size=60), st.lists(st.integers(0, 10), max_size=10))
def test_any_first_bytes_are_an_intro_or_a_frame_error(data: bytes, sizes: list[int]) -> None:
    for start in (b"", b"ED\x00\x01", b"ED\x00\x01\x00\x00", b"WA"):
        try:
            read_intro(start + data, sizes)
        except FrameError:
            continue
