"""The handshake on both sides, and the channel after it (chapter 01 §3)."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wire.resuming_client import ResumingClient
from waD.e2ee.curve import KeyPair
from waD.proto.handshake_pb2 import HandshakeMessage
from waD.wire.certs import issue_chain
from waD.wire.errors import CertificateError, NoiseError
from waD.wire.frames import INTRO, MAX_HANDSHAKE_FRAME, MAX_PLAINTEXT
from waD.wire.noise import IK, XX, XX_FALLBACK, ClientHandshake, ServerHandshake
from waD.wire.symmetric import SymmetricState
from waD.wire.transport import MAX_COUNTER, Transport

RANDOM = random.Random(11).randbytes
NOW = 1_800_000_000
PAYLOAD = b"client payload"
LOW_ORDER = [
    bytes(32),
    b"\x01" + bytes(31),
    bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
]


def pair() -> KeyPair:
    return KeyPair.generate(RANDOM)


ROOT, INTERMEDIATE, SERVER, CLIENT = pair(), pair(), pair(), pair()
CHAIN = issue_chain(SERVER.public, ROOT, INTERMEDIATE, NOW - 1, NOW + 1, RANDOM)


def xx_client(root: bytes = ROOT.public, now: int = NOW) -> ClientHandshake:
    return ClientHandshake(CLIENT, pair(), PAYLOAD, root, now)


def ik_client(known: bytes = SERVER.public) -> ResumingClient:
    return ResumingClient(CLIENT, pair(), PAYLOAD, ROOT.public, NOW, known)


def new_server(chain: bytes = CHAIN, allow_ik: bool = True) -> ServerHandshake:
    return ServerHandshake(SERVER, pair, chain, allow_ik)


def shake(client: ClientHandshake, server: ServerHandshake) -> None:
    last = client.finish(server.hello(client.hello()))
    if server.needs_finish:
        server.finish(last)


def expect_channel(client: ClientHandshake, server: ServerHandshake) -> None:
    assert server.client_static == CLIENT.public
    assert server.payload == PAYLOAD
    assert client.server_static == SERVER.public
    assert client.chain_der == CHAIN
    for number in range(3):
        up, down = f"up {number}".encode(), f"down {number}".encode()
        assert server.transport.decrypt(client.transport.encrypt(up)) == up
        assert client.transport.decrypt(server.transport.encrypt(down)) == down


# The three patterns


def test_xx() -> None:
    client, server = xx_client(), new_server()
    shake(client, server)
    expect_channel(client, server)


def test_xx_takes_a_finish_and_ik_does_not() -> None:
    server = new_server()
    server.hello(xx_client().hello())
    assert server.needs_finish
    server = new_server()
    server.hello(ik_client().hello())
    assert not server.needs_finish


def test_ik() -> None:
    client, server = ik_client(), new_server()
    shake(client, server)
    expect_channel(client, server)


def server_hello(body: bytes) -> HandshakeMessage.ServerHello:
    return HandshakeMessage.FromString(body).serverHello


def test_fallback_when_the_client_knows_another_key() -> None:
    client, server = ik_client(known=pair().public), new_server()
    answer = server.hello(client.hello())
    assert server_hello(answer).HasField("static")
    assert server.needs_finish
    with pytest.raises(NoiseError, match="not finished"):
        _ = server.client_static
    server.finish(client.finish(answer))
    expect_channel(client, server)


def test_fallback_when_resuming_is_not_allowed() -> None:
    client, server = ik_client(), new_server(allow_ik=False)
    shake(client, server)
    expect_channel(client, server)


@pytest.mark.parametrize("damage", ["static", "payload", "no payload", "no bytes"])
def test_fallback_when_the_resuming_fields_are_damaged(damage: str) -> None:
    client, server = ik_client(), new_server()
    message = HandshakeMessage.FromString(client.hello())
    hello = message.clientHello
    if damage == "no payload":
        hello.ClearField("payload")
    elif damage == "no bytes":
        hello.static = b""
    else:
        value = getattr(hello, damage)
        setattr(hello, damage, value[:-1] + bytes((value[-1] ^ 1,)))
    answer = server.hello(message.SerializeToString())
    server.finish(client.finish(answer))
    expect_channel(client, server)


def test_an_answer_to_ik_is_never_plain_xx() -> None:
    ephemeral = pair()
    client = ClientHandshake(CLIENT, ephemeral, PAYLOAD, ROOT.public, NOW)
    answer = new_server(allow_ik=False).hello(
        ResumingClient(CLIENT, ephemeral, PAYLOAD, ROOT.public, NOW, SERVER.public).hello()
    )
    with pytest.raises(NoiseError) as caught:
        client.finish(answer)
    assert caught.value.code == "bad_tag"


def test_protocol_names_and_prologue() -> None:
    assert SymmetricState(XX, b"").k == XX + bytes(4)
    assert SymmetricState(IK, b"").k == IK + bytes(4)
    assert len(XX_FALLBACK) == 36
    assert XX_FALLBACK not in SymmetricState(XX_FALLBACK, b"").k
    assert SymmetricState(XX, INTRO).h != SymmetricState(XX, b"WA\x06\x02").h


# The client's checks


def good_server_hello() -> tuple[ClientHandshake, HandshakeMessage]:
    client = xx_client()
    return client, HandshakeMessage.FromString(new_server().hello(client.hello()))


def client_refuses(client: ClientHandshake, message: HandshakeMessage | bytes) -> NoiseError:
    body = message if isinstance(message, bytes) else message.SerializeToString()
    with pytest.raises(NoiseError) as caught:
        client.finish(body)
    for name in ("transport", "server_static", "chain_der"):
        with pytest.raises(NoiseError, match="not finished"):
            getattr(client, name)
    return caught.value


@pytest.mark.parametrize("field_name", ["ephemeral", "static", "payload"])
def test_the_client_needs_every_field(field_name: str) -> None:
    client, message = good_server_hello()
    message.serverHello.ClearField(field_name)
    assert client_refuses(client, message).code == "bad_hello"


@pytest.mark.parametrize("length", [0, 31, 33])
def test_the_server_ephemeral_has_32_bytes(length: int) -> None:
    client, message = good_server_hello()
    message.serverHello.ephemeral = (message.serverHello.ephemeral + b"\x00")[:length]
    assert client_refuses(client, message).code == "bad_hello"


@pytest.mark.parametrize("field_name", ["ephemeral", "static", "payload"])
@pytest.mark.parametrize("at", [0, -1])
def test_the_client_notices_one_bit(field_name: str, at: int) -> None:
    client, message = good_server_hello()
    value = bytearray(getattr(message.serverHello, field_name))
    value[at] ^= 1
    setattr(message.serverHello, field_name, bytes(value))
    assert client_refuses(client, message).code == "bad_tag"


@pytest.mark.parametrize("field_name", ["static", "payload"])
@pytest.mark.parametrize("length", [0, 15])
def test_fields_shorter_than_their_tag(field_name: str, length: int) -> None:
    client, message = good_server_hello()
    setattr(message.serverHello, field_name, bytes(length))
    assert client_refuses(client, message).code == "bad_tag"


@pytest.mark.parametrize("key", LOW_ORDER)
def test_the_client_refuses_an_ephemeral_of_low_order(key: bytes) -> None:
    client, message = good_server_hello()
    message.serverHello.ephemeral = key
    assert client_refuses(client, message).code == "bad_key"


def hello_with_static(client: ClientHandshake, static: bytes) -> HandshakeMessage:
    """A server hello whose encrypted static is whatever we like, correctly encrypted."""
    ephemeral, client_ephemeral = pair(), client._ephemeral
    state = SymmetricState(XX, INTRO)
    state.mix_hash(client_ephemeral.public)
    state.mix_hash(ephemeral.public)
    state.mix_dh(ephemeral.private, client_ephemeral.public)
    sealed = state.encrypt_and_hash(static)
    hello = HandshakeMessage.ServerHello(ephemeral=ephemeral.public, static=sealed, payload=bytes(16))
    return HandshakeMessage(serverHello=hello)


@pytest.mark.parametrize("static", [b"", bytes(31), bytes(33)])
def test_the_server_static_has_32_bytes(static: bytes) -> None:
    client = xx_client()
    assert client_refuses(client, hello_with_static(client, static)).code == "bad_hello"


@pytest.mark.parametrize("static", LOW_ORDER)
def test_the_client_refuses_a_static_of_low_order(static: bytes) -> None:
    client = xx_client()
    assert client_refuses(client, hello_with_static(client, static)).code == "bad_key"


def test_the_client_verifies_the_chain_before_it_shows_itself() -> None:
    for client in (xx_client(root=pair().public), xx_client(now=NOW + 2)):
        error = client_refuses(client, new_server().hello(client.hello()))
        assert isinstance(error, CertificateError)
    other = issue_chain(pair().public, ROOT, INTERMEDIATE, NOW - 1, NOW + 1, RANDOM)
    client = xx_client()
    error = client_refuses(client, new_server(other).hello(client.hello()))
    assert error.code == "key_mismatch"


@pytest.mark.parametrize("body", [b"", b"\xff", b"\x1a\xff\xff\xff\xff\x0f", bytes(MAX_HANDSHAKE_FRAME + 1)])
def test_the_client_refuses_what_is_no_server_hello(body: bytes) -> None:
    client = xx_client()
    assert client_refuses(client, body).code == "bad_hello"
    assert client_refuses(client, client.hello()).code == "bad_hello"


def test_the_client_sends_nothing_of_itself_in_the_hello() -> None:
    client = xx_client()
    message = HandshakeMessage.FromString(client.hello())
    assert [descriptor.name for descriptor, _ in message.clientHello.ListFields()] == ["ephemeral"]


def test_the_client_ignores_fields_of_newer_handshakes() -> None:
    client, server = xx_client(), new_server()
    message = HandshakeMessage.FromString(server.hello(client.hello()))
    message.serverHello.extendedStatic = b"x"
    message.serverHello.paddingBytes = bytes(10)
    server.finish(client.finish(message.SerializeToString()))
    expect_channel(client, server)


# The server's checks


def server_refuses_hello(message: HandshakeMessage | bytes) -> str:
    server = new_server()
    with pytest.raises(NoiseError) as caught:
        server.hello(message if isinstance(message, bytes) else message.SerializeToString())
    assert server.needs_finish
    for name in ("transport", "client_static", "payload"):
        with pytest.raises(NoiseError, match="not finished"):
            getattr(server, name)
    return caught.value.code


@pytest.mark.parametrize("length", [0, 31, 33])
def test_the_client_ephemeral_has_32_bytes(length: int) -> None:
    message = HandshakeMessage(clientHello=HandshakeMessage.ClientHello(ephemeral=b"\x09" * length))
    assert server_refuses_hello(message) == "bad_hello"
    message = HandshakeMessage.FromString(ik_client().hello())
    message.clientHello.ephemeral = b"\x09" * length
    assert server_refuses_hello(message) == "bad_hello"


@pytest.mark.parametrize("key", LOW_ORDER)
def test_the_server_refuses_an_ephemeral_of_low_order(key: bytes) -> None:
    for client in (xx_client(), ik_client()):
        message = HandshakeMessage.FromString(client.hello())
        message.clientHello.ephemeral = key
        assert server_refuses_hello(message) == "bad_key"


@pytest.mark.parametrize("body", [b"", b"\xff", b"\x12\x00", b"\x1a\x00", bytes(MAX_HANDSHAKE_FRAME + 1)])
def test_the_server_refuses_what_is_no_client_hello(body: bytes) -> None:
    assert server_refuses_hello(body) == "bad_hello"


@pytest.mark.parametrize("mode", range(1, 12))
def test_the_server_refuses_post_quantum_modes_also_unknown_ones(mode: int) -> None:
    ephemeral = HandshakeMessage.ClientHello(ephemeral=pair().public).SerializeToString()
    hello = ephemeral + bytes((9 << 3, mode))
    body = b"\x12" + bytes((len(hello),)) + hello
    if mode == HandshakeMessage.WA_CLASSICAL:
        assert new_server().hello(body)
    else:
        assert server_refuses_hello(body) == "bad_hello"


def test_the_server_ignores_unknown_fields() -> None:
    client, server = xx_client(), new_server()
    hello = client.hello()[2:] + b"\xa2\x06\x01x"
    server.finish(client.finish(server.hello(b"\x12" + bytes((len(hello),)) + hello)))
    expect_channel(client, server)


@pytest.mark.parametrize("field_name", ["static", "payload"])
@pytest.mark.parametrize("change", ["clear", "flip", "short"])
def test_the_server_refuses_a_damaged_finish(field_name: str, change: str) -> None:
    client, server = xx_client(), new_server()
    message = HandshakeMessage.FromString(client.finish(server.hello(client.hello())))
    value = getattr(message.clientFinish, field_name)
    if change == "clear":
        message.clientFinish.ClearField(field_name)
    else:
        new = bytes((value[0] ^ 1,)) + value[1:] if change == "flip" else value[:15]
        setattr(message.clientFinish, field_name, new)
    with pytest.raises(NoiseError) as caught:
        server.finish(message.SerializeToString())
    assert caught.value.code == ("bad_hello" if change == "clear" else "bad_tag")
    assert server.needs_finish


def test_the_server_refuses_a_finish_out_of_turn() -> None:
    client, server = xx_client(), new_server()
    finish = client.finish(server.hello(client.hello()))
    with pytest.raises(NoiseError, match="out of turn"):
        new_server().finish(finish)
    server.finish(finish)
    with pytest.raises(NoiseError, match="out of turn"):
        server.finish(finish)
    resumed = new_server()
    resumed.hello(ik_client().hello())
    with pytest.raises(NoiseError, match="out of turn"):
        resumed.finish(finish)


def test_the_finish_proves_the_static_key() -> None:
    """Someone who knows the client's public key only cannot finish."""
    impostor = ClientHandshake(KeyPair(pair().private, CLIENT.public), pair(), PAYLOAD, ROOT.public, NOW)
    server = new_server()
    with pytest.raises(NoiseError) as caught:
        server.finish(impostor.finish(server.hello(impostor.hello())))
    assert caught.value.code == "bad_tag"


def test_errors_and_reprs_hold_no_secrets() -> None:
    client, server = xx_client(), new_server()
    shake(client, server)
    for thing in (client, server, client.transport, SymmetricState(XX, INTRO)):
        text = repr(thing)
        assert CLIENT.private.hex() not in text
        assert "private" not in text
    assert repr(client.transport) == "Transport(sent=0, received=0)"


# Fuzz


@settings(max_examples=150)
@given(st.binary(max_size=200))
def test_any_bytes_are_refused_with_the_noise_error(body: bytes) -> None:
    client, server = xx_client(), new_server()
    client_refuses(client, body)
    for handshake in (body, b"\x12" + bytes((min(len(body), 127),)) + body[:127]):
        try:
            server.hello(handshake)
        except NoiseError:
            continue
    server = new_server()
    server.hello(xx_client().hello())
    with pytest.raises(NoiseError):
        server.finish(body)


@settings(max_examples=60)
@given(st.data())
def test_any_damage_is_refused_with_the_noise_error(data: st.DataObject) -> None:
    client, server = xx_client(), new_server()
    answer = bytearray(server.hello(client.hello()))
    finish = bytearray(client.finish(bytes(answer)))
    for body in (answer, finish):
        body[data.draw(st.integers(0, len(body) - 1))] ^= data.draw(st.integers(1, 255))
    client_refuses(xx_client(), bytes(answer))
    with pytest.raises(NoiseError):
        server.finish(bytes(finish))


# The channel


@dataclass
class Channel:
    key: bytes = field(default_factory=lambda: RANDOM(32))

    def ends(self) -> tuple[Transport, Transport]:
        other = bytes(reversed(self.key))
        return Transport(self.key, other), Transport(other, self.key)


@given(st.lists(st.binary(max_size=100), max_size=10))
def test_frames_arrive_in_order(plaintexts: list[bytes]) -> None:
    sender, receiver = Channel().ends()
    assert [receiver.decrypt(body) for body in map(sender.encrypt, plaintexts)] == plaintexts


def test_the_same_plaintext_is_never_the_same_frame() -> None:
    sender, _ = Channel().ends()
    assert len({sender.encrypt(b"same") for _ in range(20)}) == 20


def refused_frame(receiver: Transport, body: bytes) -> str:
    with pytest.raises(NoiseError) as caught:
        receiver.decrypt(body)
    return caught.value.code


def test_replayed_swapped_lost_damaged_and_short_frames() -> None:
    sender, receiver = Channel().ends()
    first, second, third = sender.encrypt(b"1"), sender.encrypt(b"2"), sender.encrypt(b"3")
    assert receiver.decrypt(first) == b"1"
    assert refused_frame(receiver, first) == "bad_tag"
    assert receiver.decrypt(third) == b"3"
    sender, receiver = Channel().ends()
    body = sender.encrypt(b"1")
    assert refused_frame(receiver, body[:-1] + bytes((body[-1] ^ 1,))) == "bad_tag"
    assert refused_frame(receiver, second) == "bad_tag"
    for length in range(16):
        assert refused_frame(receiver, bytes(length)) == "bad_tag"


def test_the_two_directions_have_their_own_keys_and_counters() -> None:
    left, right = Channel().ends()
    body = left.encrypt(b"to the right")
    assert refused_frame(left, body) == "bad_tag"
    assert right.decrypt(body) == b"to the right"
    assert repr(right) == "Transport(sent=0, received=1)"


def test_an_empty_plaintext_is_a_frame_of_sixteen_bytes() -> None:
    sender, receiver = Channel().ends()
    body = sender.encrypt(b"")
    assert len(body) == 16
    assert receiver.decrypt(body) == b""


def test_the_last_counter_is_never_used() -> None:
    sender, receiver = Channel().ends()
    sender._sent = receiver._received = MAX_COUNTER - 1
    assert MAX_COUNTER == 2**32 - 1
    assert receiver.decrypt(sender.encrypt(b"last")) == b"last"
    for use in (sender.encrypt, receiver.decrypt):
        for _ in range(2):
            with pytest.raises(NoiseError) as caught:
                use(bytes(16))
            assert caught.value.code == "counter"


def test_a_plaintext_too_long_for_a_frame_spends_no_counter() -> None:
    sender, receiver = Channel().ends()
    with pytest.raises(NoiseError) as caught:
        sender.encrypt(bytes(MAX_PLAINTEXT + 1))
    assert caught.value.code == "too_long"
    assert receiver.decrypt(sender.encrypt(b"next")) == b"next"
