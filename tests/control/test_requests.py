"""Lines that are not requests, and lines that nearly are: each has its answer, and the connection lives on."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.control.client import Client, Running, request
from waD.control.framing import TOO_LONG, LineBuffer
from waD.control.requests import Malformed, Request, error_line, parse_request
from waD.control.types import MAX_LINE

PING = '"method":"daemon.ping"'

MALFORMED: list[tuple[bytes, str, Any]] = [
    (b"hello", "parse_error", None),
    (b'{"jsonrpc":"2.0","id":1', "parse_error", None),
    (b"{} {}", "parse_error", None),
    (b'{"jsonrpc":"2.0","id":1,"method":"\xff\xfe"}', "parse_error", None),
    (b"\x00\x01\x02", "parse_error", None),
    (b"[" * 50_000, "parse_error", None),
    (b"9" * 5_000, "parse_error", None),
    (b"\xef\xbb\xbf{}", "parse_error", None),
    (b"[]", "invalid_request", None),
    (b'[{"jsonrpc":"2.0","id":1,"method":"daemon.ping"}]', "invalid_request", None),
    (b"7", "invalid_request", None),
    (b"{}", "invalid_request", None),
    (b'{"id":4,"method":"daemon.ping"}', "invalid_request", 4),
    (b'{"jsonrpc":"1.0","id":4,"method":"daemon.ping"}', "invalid_request", 4),
    (b'{"jsonrpc":"2.0","id":4,"method":7}', "invalid_request", 4),
    (b'{"jsonrpc":"2.0","id":4,"result":{}}', "invalid_request", 4),
    (b'{"jsonrpc":"2.0","method":"daemon.ping"}', "invalid_request", None),
    (b'{"jsonrpc":"2.0","id":null,"method":"daemon.ping"}', "invalid_request", None),
    (b'{"jsonrpc":"2.0","id":true,"method":"daemon.ping"}', "invalid_request", None),
    (b'{"jsonrpc":"2.0","id":1.5,"method":"daemon.ping"}', "invalid_request", None),
    (b'{"jsonrpc":"2.0","id":[1],"method":"daemon.ping"}', "invalid_request", None),
    (b'{"jsonrpc":"2.0","id":123456789012345678901,"method":"daemon.ping"}', "invalid_request", None),
    (b'{"jsonrpc":"2.0","id":"' + b"x" * 129 + b'","method":"daemon.ping"}', "invalid_request", None),
    (b'{"jsonrpc":"2.0","id":4,"method":"daemon.ping","params":[1]}', "invalid_request", 4),
    (b'{"jsonrpc":"2.0","id":4,"method":"daemon.ping","params":null}', "invalid_request", 4),
    (b'{"jsonrpc":"2.0","id":4,"method":"daemon.ping","param":{}}', "invalid_request", 4),
    (b'{"jsonrpc":"2.0","id":4,"method":"daemon.explode"}', "unknown_method", 4),
    (b'{"jsonrpc":"2.0","id":"","method":""}', "unknown_method", ""),
]


@pytest.mark.parametrize(("line", "symbol", "request_id"), MALFORMED)
async def test_a_malformed_line_is_answered_and_the_next_one_served(
    client: Client, line: bytes, symbol: str, request_id: Any
) -> None:
    await client.raw(line + b"\n")
    answer = await client.read()
    assert answer is not None
    assert (answer["error"]["data"]["symbol"], answer["id"]) == (symbol, request_id)
    assert len(answer["error"]["message"]) < 400
    assert (await client.call("daemon.ping"))["version"] == "9.9"


async def test_an_overlong_line_is_answered_at_once_and_the_next_one_served(client: Client) -> None:
    await client.raw(b"x" * (MAX_LINE + 2))
    answer = await client.read()
    assert answer is not None
    assert answer["error"]["data"] == {"symbol": "invalid_request", "limit": MAX_LINE}
    await client.raw(b"y" * MAX_LINE + b"\n")
    await client.call("daemon.ping")


async def test_the_longest_line_is_served(running: Running, client: Client) -> None:
    head = b'{"jsonrpc":"2.0","id":"long","method":"session.list","params":{}'
    await client.raw(head + b" " * (MAX_LINE - len(head) - 1) + b"}\n")
    assert "result" in await client.answer("long")


async def test_blank_lines_and_carriage_returns_are_nothing(client: Client) -> None:
    await client.raw(b"\n\r\n  \n" + request("a", "daemon.ping")[:-1] + b"\r\n")
    document = await client.read()
    assert document is not None
    assert (document["id"], "result" in document) == ("a", True)


async def test_requests_in_pieces_and_in_heaps(client: Client) -> None:
    for byte in request("slow", "daemon.ping"):
        await client.raw(bytes([byte]))
    assert "result" in await client.answer("slow")
    await client.raw(b"".join(request(number, "daemon.ping") for number in range(200)))
    seen = [await client.read() for _ in range(200)]
    assert sorted(document["id"] for document in seen if document) == list(range(200))


async def test_a_last_line_without_a_newline_is_served(client: Client) -> None:
    await client.raw(request("last", "daemon.ping")[:-1])
    await client.stream.send_eof()
    assert "result" in await client.answer("last")
    assert await client.read() is None


# ------------------------------------------------------------------------------------------------- sans-IO


@given(st.binary(max_size=200))
def test_no_bytes_whatever_raise_anything_else(line: bytes) -> None:
    try:
        assert isinstance(parse_request(line), Request)
    except Malformed as malformed:
        error_line(malformed.id, malformed.error)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.fixed_dictionaries(
        {},
        optional={"jsonrpc": st.just("2.0") | JSON, "id": JSON, "method": st.text() | JSON, "params": JSON},
    )
)
def test_an_envelope_of_anything_is_a_request_or_answerable(document: dict[str, Any]) -> None:
    try:
        parsed = parse_request(msgspec.json.encode(document))
    except Malformed as malformed:
        line = error_line(malformed.id, malformed.error)
        assert msgspec.json.decode(line)["id"] in (None, document.get("id"))
    else:
        assert (parsed.id, parsed.method) == (document["id"], document["method"])


@pytest.mark.parametrize("escape", [r"\ud800", r"\udc00", r"\ud800x", r"\udc00\ud800", r"\u0000"])
def test_half_a_character_never_breaks_the_answer(escape: str) -> None:
    line = f'{{"jsonrpc":"2.0","id":"{escape}","method":"{escape}","params":[]}}'
    with pytest.raises(Malformed) as malformed:
        parse_request(line.encode())
    error_line(malformed.value.id, malformed.value.error)


@given(
    st.lists(st.text(alphabet="ab \r", max_size=12).map(str.encode), max_size=8),
    st.lists(st.integers(1, 9), min_size=1),
)
def test_lines_come_out_the_same_however_the_bytes_arrive(lines: list[bytes], sizes: list[int]) -> None:
    data = b"".join(line + b"\n" for line in lines)
    limit = 6
    buffer, got = LineBuffer(limit), []
    at, turn = 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        buffer.feed(data[at : at + size])
        at, turn = at + size, turn + 1
        while (line := buffer.next()) is not None:
            got.append(line)
    bare = [line.removesuffix(b"\r") for line in lines]
    # A line of blanks beyond the limit may have been complained of before its end was seen.
    expected = [TOO_LONG if len(line) > limit else line for line in bare if line.strip()]
    assert [line for line in got if line != TOO_LONG] == [line for line in expected if line != TOO_LONG]
    assert got.count(TOO_LONG) >= expected.count(TOO_LONG)
    assert buffer.rest() is None


def test_an_endless_line_takes_no_memory() -> None:
    buffer = LineBuffer(10)
    outcomes = []
    for _ in range(1000):
        buffer.feed(b"x" * 100)
        outcomes.append(buffer.next())
    assert outcomes == [TOO_LONG] + [None] * 999
    buffer.feed(b"\nok\n")
    assert buffer.next() == b"ok"


def test_a_request_shows_no_content() -> None:
    parsed = parse_request(request("my id", "message.send", {"text": "secret"}))
    assert "secret" not in repr(parsed)
    assert "my id" not in repr(parsed)
