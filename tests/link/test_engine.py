"""One connection without input and output: bytes and times in, events and bytes out."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.link.kit import (
    IDENTITY,
    NOW_S,
    Pair,
    error_of,
    iq,
    result_of,
    server_handshake,
    stream_error,
    success,
)
from waD.link import stanzas
from waD.link.causes import cause
from waD.link.engine import DEAF_AFTER, MAX_PAUSE_S, MAX_UNDECODABLE, EngineSettings
from waD.link.errors import Disconnected
from waD.link.events import Closing, Ended, Established, Event, Health, LoggedIn, Reply, Stanza, TimedOut
from waD.link.pending import MAX_ID
from waD.sandbox.identity import bad_chain
from waD.wire.errors import WireError
from waD.wire.frames import INTRO, MAX_HANDSHAKE_FRAME, FrameReader, IntroReader, frame
from waD.wire.jid import JID, SERVER
from waD.wire.node import Node
from waD.wire.transport import MAX_COUNTER

MESSAGE = Node("message", {"id": "3EB0", "from": JID("15550000002", "s.whatsapp.net"), "type": "text"})


def linked(**options: Any) -> Pair:
    pair = Pair(**options)
    assert pair.shake_hands() == [Established()]
    return pair


def logged_in(**options: Any) -> Pair:
    pair = linked(**options)
    (event,) = pair.deliver(success())
    assert isinstance(event, LoggedIn)
    return pair


def ended(events: list[Event]) -> Any:
    """The cause of the one end among the events."""
    (last,) = [event for event in events if isinstance(event, Ended)]
    assert events[-1] is last
    return last.cause


def ask(pair: Pair, xmlns: str = "abt", timeout_s: float | None = None) -> str:
    return pair.engine.request(stanzas.iq("get", xmlns), pair.now, timeout_s)


# Handshake.


def test_first_bytes_are_intro_and_hello() -> None:
    data = Pair().engine.data_to_send()
    assert data.startswith(INTRO)
    assert len(data) == len(INTRO) + 3 + int.from_bytes(data[4:7], "big")


def test_routing_information_goes_before_the_intro() -> None:
    data = Pair(routing_info=b"\x08\x02").engine.data_to_send()
    assert data.startswith(b"ED\x00\x01\x00\x00\x02\x08\x02" + INTRO)


def server_hello(pair: Pair) -> bytes:
    rest = IntroReader().feed(pair.engine.data_to_send())
    assert rest is not None
    (body,) = FrameReader().feed(rest)
    return frame(pair.server.hello(body))


def test_handshake() -> None:
    pair = Pair()
    assert not pair.engine.established
    assert pair.shake_hands() == [Established()]
    assert pair.engine.established
    assert pair.server.payload == b"payload"


def test_server_hello_in_pieces() -> None:
    pair = Pair()
    answer = server_hello(pair)
    events: list[Event] = []
    for offset in range(len(answer)):
        events += pair.feed(answer[offset : offset + 1])
    assert events == [Established()]


@pytest.mark.parametrize("mode", ["expired", "bad-certificate"])
def test_a_false_certificate_ends_before_our_payload_leaves(mode: str) -> None:
    pair = Pair()
    pair.server = server_handshake(bad_chain(IDENTITY, os.urandom, NOW_S, mode))
    found = ended(pair.feed(server_hello(pair)))
    assert (found.id, found.code, found.reached) == ("noise_fail", 496, False)
    assert "server authentication failed" in found.message
    assert pair.engine.data_to_send() == b""


@pytest.mark.parametrize("data", [frame(b"garbage"), frame(b""), b"\xff\xff\xff", frame(bytes(120))])
def test_garbage_instead_of_a_hello(data: bytes) -> None:
    found = ended(Pair().feed(data))
    assert (found.id, found.reached) == ("noise_fail", False)


def test_a_huge_hello_is_refused_at_its_length() -> None:
    length = (MAX_HANDSHAKE_FRAME + 1).to_bytes(3, "big")
    assert ended(Pair().feed(length)).id == "noise_fail"


def test_no_hello_in_time() -> None:
    pair = Pair()
    assert pair.engine.next_deadline() == pair.now + 20.0
    found = ended(pair.wait(20.0))
    assert (found.id, found.code, found.age_s, found.reached) == ("noise_timeout", 408, 20.0, False)


def test_nothing_can_be_sent_before_the_handshake() -> None:
    pair = Pair()
    with pytest.raises(Disconnected):
        pair.engine.send(MESSAGE, pair.now)
    with pytest.raises(Disconnected):
        ask(pair)


# Login.


def test_success_once() -> None:
    pair = logged_in()
    assert pair.deliver(success(t="5")) == []


def test_success_on_a_connection_for_pairing_is_ignored() -> None:
    pair = linked(registered=False)
    assert pair.deliver(success()) == []
    assert ended(answer_pings(pair, 61.0)).id == "login_timeout"


def test_neither_success_nor_failure() -> None:
    pair = linked(dialed_at=90.0)
    found = ended(answer_pings(pair, 60.0))
    assert (found.id, found.age_s, found.reached, found.was_open) == ("login_timeout", 60.0, True, False)


def test_pair_device_is_an_answer_too() -> None:
    pair = linked(registered=False)
    offer = iq("set", "md", Node("pair-device"), id="1")
    assert pair.deliver(offer) == [Stanza(offer)]
    assert not any(isinstance(event, Ended) for event in pair.wait(30.0))
    assert pair.engine.next_deadline() is not None


def test_pairing_stanzas_of_others_are_dropped() -> None:
    pair = linked(registered=False)
    offer = iq("set", "md", Node("pair-device"), id="1")
    offer.attrs["from"] = JID("15550000002", "s.whatsapp.net")
    assert pair.deliver(offer) == []


def test_failure_closes_in_grace() -> None:
    pair = linked()
    (event,) = pair.deliver(Node("failure", {"reason": "401"}))
    assert isinstance(event, Closing)
    assert (event.cause.id, event.cause.reached) == ("f401", True)
    assert pair.wait(4.9) == []
    assert ended(pair.wait(0.2)).id == "f401"
    assert pair.engine.next_deadline() is None


# Requests.


def test_request_and_reply() -> None:
    pair = logged_in()
    request_id = ask(pair)
    (sent,) = pair.sent()
    assert (sent.attrs["id"], sent.attrs["to"], request_id) == (request_id, SERVER, "1.2-1")
    reply = result_of(sent)
    assert pair.deliver(reply) == [Reply(request_id, reply)]
    assert pair.deliver(reply) == []


def test_an_error_is_a_reply_too() -> None:
    pair = logged_in()
    ask(pair)
    (event,) = pair.deliver(error_of(pair.sent()[0], 404, "item-not-found"))
    assert isinstance(event, Reply)


def test_answers_nobody_asked_for_are_ignored() -> None:
    pair = logged_in()
    assert pair.deliver(iq("result", id="9.9-9"), iq("result"), iq("result", id="x" * (MAX_ID + 1))) == []


def test_time_out_of_a_request_is_no_end() -> None:
    pair = logged_in()
    request_id = ask(pair, timeout_s=3.0)
    assert pair.engine.next_deadline() == pair.now + 3.0
    (event,) = pair.wait(3.0)
    assert event == TimedOut(request_id, "get abt", 3.0)
    assert pair.deliver(result_of(Node("iq", {"id": request_id}))) == []


def test_a_forgotten_request_does_not_time_out() -> None:
    pair = logged_in()
    pair.engine.forget(ask(pair, timeout_s=3.0))
    assert pair.wait(3.0) == []


def test_a_request_that_cannot_be_written_is_not_open() -> None:
    pair = logged_in()
    bad = stanzas.iq("get", "abt", Node("x" * 70_000, {}, b"x" * (1 << 24)))
    with pytest.raises(WireError):
        pair.engine.request(bad, pair.now)
    assert pair.sent() == []
    ask(pair)
    assert len(pair.sent()) == 1


def answer_pings(pair: Pair, seconds: float) -> list[Event]:
    """Time passes; the server answers pings and nothing else."""
    events: list[Event] = []
    until = pair.now + seconds
    while pair.now < until and not pair.engine.ended:
        events += pair.wait(1.0)
        for node in pair.sent():
            if node.attrs.get("xmlns") == "w:p":
                events += pair.deliver(result_of(node))
    return events


def test_deaf_when_pings_are_answered_but_requests_are_not() -> None:
    pair = logged_in()
    for _ in range(DEAF_AFTER):
        ask(pair)
    events = answer_pings(pair, 61.0)
    assert len([event for event in events if isinstance(event, TimedOut)]) == DEAF_AFTER
    found = ended(events)
    assert (found.id, found.code) == ("deaf", 408)


def test_one_answer_is_enough_to_hear() -> None:
    pair = logged_in()
    for _ in range(DEAF_AFTER - 1):
        ask(pair)
    events = answer_pings(pair, 61.0)
    ask(pair, "privacy")
    asked = next(node for node in pair.sent() if node.attrs.get("xmlns") == "privacy")
    pair.deliver(result_of(asked))
    ask(pair)
    events += answer_pings(pair, 61.0)
    assert len([event for event in events if isinstance(event, TimedOut)]) == DEAF_AFTER
    assert not any(isinstance(event, Ended) for event in events)


def test_short_time_outs_do_not_make_a_connection_deaf() -> None:
    pair = logged_in()
    for _ in range(5):
        ask(pair, timeout_s=1.0)
    assert not any(isinstance(event, Ended) for event in answer_pings(pair, 30.0))


def test_a_message_without_ack_makes_a_connection_deaf() -> None:
    pair = logged_in()
    pair.engine.send(MESSAGE, pair.now)
    assert ended(answer_pings(pair, 61.0)).id == "deaf"


def test_an_acked_message_does_not() -> None:
    pair = logged_in()
    pair.engine.send(MESSAGE, pair.now)
    ack = Node("ack", {"class": "message", "id": "3EB0", "from": JID("15550000002", "s.whatsapp.net")})
    assert pair.deliver(ack) == [Stanza(ack)]
    assert not any(isinstance(event, Ended) for event in answer_pings(pair, 61.0))


# What the server asks.


@pytest.mark.parametrize(
    "ping",
    [
        iq("get", "urn:xmpp:ping", id="77"),
        iq("get", "urn:xmpp:ping", Node("ping"), id="77", t="5"),
        iq("get", "w:p", Node("ping"), id="77"),
    ],
)
def test_pings_of_the_server_are_answered_with_their_id(ping: Node) -> None:
    pair = logged_in()
    assert pair.deliver(ping) == []
    assert pair.sent() == [Node("iq", {"to": SERVER, "type": "result", "id": "77"})]


def test_a_ping_without_id_is_answered_without() -> None:
    pair = logged_in()
    pair.deliver(iq("get", "urn:xmpp:ping"))
    assert pair.sent() == [Node("iq", {"to": SERVER, "type": "result"})]


def test_other_questions_get_501_and_orders_go_up() -> None:
    pair = logged_in()
    assert pair.deliver(iq("get", "news", id="5")) == []
    (answer,) = pair.sent()
    assert (answer.attrs["type"], answer.attrs["id"]) == ("error", "5")
    assert answer.children()[0].attrs["code"] == "501"
    order = iq("set", "news", id="6")
    assert pair.deliver(order) == [Stanza(order)]
    assert pair.sent() == []


# Frames.


def test_many_frames_in_one_chunk_come_in_order() -> None:
    pair = logged_in()
    nodes = [Node("notification", {"id": str(n), "from": SERVER}) for n in range(50)]
    assert pair.deliver(*nodes) == [Stanza(node) for node in nodes]


def test_a_frame_that_is_not_authentic_ends_the_connection() -> None:
    pair = logged_in()
    sealed = bytearray(pair.seal(MESSAGE))
    sealed[-1] ^= 1
    found = ended(pair.feed(bytes(sealed)))
    assert (found.id, found.code, found.reached) == ("frame", 428, True)


def test_a_repeated_frame_ends_the_connection() -> None:
    pair = logged_in()
    sealed = pair.seal(MESSAGE)
    assert len(pair.feed(sealed)) == 1
    assert ended(pair.feed(sealed)).id == "frame"


def test_undecodable_nodes_are_dropped_up_to_a_number() -> None:
    pair = logged_in()
    for count in range(1, MAX_UNDECODABLE + 1):
        assert pair.feed(frame(pair.transport.encrypt(b"\x00\xf8"))) == []
        assert pair.engine.undecodable == count
    assert pair.deliver(MESSAGE) == [Stanza(MESSAGE)]
    assert ended(pair.feed(frame(pair.transport.encrypt(b"\x00\xf8")))).id == "frame"


def test_used_up_counters_end_the_connection() -> None:
    pair = logged_in()
    transport: Any = pair.engine._transport
    transport._sent = MAX_COUNTER
    with pytest.raises(Disconnected) as caught:
        pair.engine.send(MESSAGE, pair.now)
    assert caught.value.cause.id == "counter"
    assert pair.engine.next_deadline() == float("-inf")
    assert ended(pair.engine.tick(pair.now)).id == "counter"


def test_nothing_happens_after_the_end() -> None:
    pair = logged_in()
    ended(pair.engine.end_of_stream(pair.now))
    assert pair.feed(pair.seal(MESSAGE)) == []
    assert pair.engine.end_of_stream(pair.now) == []
    assert pair.engine.fail(cause("stop", "x"), pair.now) == []
    assert pair.wait(1000.0) == []
    assert pair.engine.data_to_send() == b""
    with pytest.raises(Disconnected):
        pair.engine.send(MESSAGE, pair.now)


# The end.


@pytest.mark.parametrize(
    ("registered", "shake", "cause_id"),
    [(True, False, "eof"), (True, True, "eof"), (False, True, "pair_socket_lost"), (False, False, "eof")],
)
def test_a_closed_socket(registered: bool, shake: bool, cause_id: str) -> None:
    pair = linked(registered=registered) if shake else Pair(registered=registered)
    found = ended(pair.engine.end_of_stream(pair.now))
    assert (found.id, found.code, found.reached) == (cause_id, 428, shake)


def test_end_of_stream_while_pairing_is_a_lost_pairing() -> None:
    pair = linked(registered=False)
    pair.deliver(Node("xmlstreamend"))
    assert ended(pair.engine.end_of_stream(pair.now)).id == "pair_socket_lost"


def test_stanzas_before_the_reason_are_handled_those_after_are_not() -> None:
    pair = logged_in()
    after = Node("notification", {"id": "2", "from": SERVER})
    first, closing = pair.deliver(MESSAGE, stream_error(503), after, Node("xmlstreamend"))
    assert first == Stanza(MESSAGE)
    assert isinstance(closing, Closing)
    with pytest.raises(Disconnected) as caught:
        pair.engine.send(MESSAGE, pair.now)
    assert (caught.value.cause.id, caught.value.cause.reached) == ("stream_503", True)
    assert ended(pair.engine.end_of_stream(pair.now)).id == "stream_503"


def test_end_of_stream_gives_way_to_the_error_that_follows() -> None:
    pair = logged_in()
    (closing,) = pair.deliver(Node("xmlstreamend"), stream_error(515))
    assert isinstance(closing, Closing)
    assert closing.cause.id == "stream_end"
    assert ended(pair.engine.end_of_stream(pair.now)).id == "restart"


def test_our_stop_wins_over_what_the_server_said() -> None:
    pair = logged_in()
    pair.deliver(stream_error(503))
    assert ended(pair.engine.fail(cause("stop", "operator"), pair.now)).id == "stop"


def test_a_local_deadline_does_not_win() -> None:
    pair = logged_in()
    pair.deliver(stream_error(503))
    assert ended(pair.engine.fail(cause("dead_socket", "x"), pair.now)).id == "stream_503"


def test_what_is_known_about_the_connection_goes_along() -> None:
    pair = logged_in()
    pair.engine.mark_open()
    pair.now += 12.5
    (closing,) = pair.deliver(stream_error(503))
    assert isinstance(closing, Closing)
    assert (closing.cause.age_s, closing.cause.was_open, closing.cause.reached) == (12.5, True, True)


@pytest.mark.parametrize("last", [None, Node("xmlstreamend"), stream_error(503), stream_error(515)])
def test_after_the_pairing_reply_every_end_is_a_restart(last: Node | None) -> None:
    pair = linked(registered=False)
    pair.engine.expect_restart()
    if last is not None:
        pair.deliver(last)
    found = ended(pair.engine.end_of_stream(pair.now))
    assert (found.id, found.code) == ("restart", 515)


def test_but_not_a_stop() -> None:
    pair = linked(registered=False)
    pair.engine.expect_restart()
    assert ended(pair.engine.fail(cause("stop", "operator"), pair.now)).id == "stop"


# Keepalive and pauses.


def test_pings_have_no_child_and_answers_are_not_shown() -> None:
    pair = logged_in()
    pair.wait(25.0)
    (ping,) = pair.sent()
    assert (ping.attrs["xmlns"], ping.attrs["type"], ping.attrs["to"]) == ("w:p", "get", SERVER)
    assert ping.content is None
    pair.now += 0.25
    assert pair.deliver(result_of(ping)) == []
    assert pair.engine.latency_s == 0.25


def test_dead_socket() -> None:
    pair = logged_in()
    events = pair.wait(100.0)
    assert events[0] == Health(False)
    found = ended(events)
    assert (found.id, found.code, found.age_s) == ("dead_socket", 408, 45.0)
    assert len([n for n in pair.sent() if n.tag == "iq"]) == 0


def test_health_comes_back_with_any_frame() -> None:
    pair = logged_in()
    assert pair.wait(31.0) == [Health(False)]
    assert not pair.engine.healthy
    events = pair.deliver(MESSAGE)
    assert events == [Health(True), Stanza(MESSAGE)]


def test_keepalive_runs_while_pairing() -> None:
    pair = linked(registered=False)
    pair.deliver(iq("set", "md", Node("pair-device"), id="1"))
    assert ended(pair.wait(100.0)).id == "dead_socket"


def test_a_pause_stops_all_clocks_but_its_own() -> None:
    pair = logged_in()
    request_id = ask(pair)
    pair.engine.pause(pair.now)
    pair.engine.pause(pair.now + 1.0)
    assert pair.wait(59.0) == []
    pair.engine.resume(pair.now)
    pair.engine.resume(pair.now + 5.0)
    events = answer_pings(pair, 59.0)
    assert events == []
    events = answer_pings(pair, 2.0)
    assert [e.request_id for e in events if isinstance(e, TimedOut)] == [request_id]


def test_nobody_takes_stanzas_for_too_long() -> None:
    pair = logged_in()
    pair.engine.pause(pair.now)
    assert ended(pair.wait(MAX_PAUSE_S)).id == "deaf"


def test_the_watch_over_sent_messages_has_a_limit() -> None:
    pair = logged_in(settings=EngineSettings(ack_timeout_s=1.0))
    for number in range(5000):
        pair.engine.send(Node("message", {"id": str(number), "to": SERVER}), pair.now)
    assert ended(pair.wait(2.0)).message.startswith("4096 sent messages")


@settings(max_examples=60)
@given(st.lists(st.binary(max_size=60), max_size=12), st.booleans())
def test_any_bytes_end_in_one_cause_and_never_in_an_exception(chunks: list[bytes], shake: bool) -> None:
    pair = linked() if shake else Pair()
    ends: list[Event] = []
    for chunk in chunks:
        ends += pair.feed(chunk)
        ends += pair.wait(1.0)
    ends += pair.engine.end_of_stream(pair.now)
    assert len([event for event in ends if isinstance(event, Ended)]) == 1


@settings(max_examples=60)
@given(st.lists(st.binary(min_size=1, max_size=80), max_size=10))
def test_any_authentic_plaintext_is_survived(plaintexts: list[bytes]) -> None:
    pair = logged_in()
    for plaintext in plaintexts:
        pair.feed(frame(pair.transport.encrypt(plaintext)))
    assert pair.engine.undecodable <= MAX_UNDECODABLE
    assert pair.deliver(MESSAGE)[-1] == Stanza(MESSAGE)
