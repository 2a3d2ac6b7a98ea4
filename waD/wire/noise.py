"""The Noise handshake, both sides (chapter 01 §3).

Each side is a small machine over frame bodies: XX for the client; XX, IK and XXfallback for the server. Every
check is fatal: after an error the object has no use and the connection is closed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from waD.e2ee.curve import KEY_LENGTH, KeyPair
from waD.proto.handshake_pb2 import HandshakeMessage
from waD.wire.certs import Chain, verify_chain
from waD.wire.errors import NoiseError
from waD.wire.frames import INTRO, MAX_HANDSHAKE_FRAME
from waD.wire.symmetric import SymmetricState
from waD.wire.transport import Transport

__all__ = ["IK", "XX", "XX_FALLBACK", "ClientHandshake", "ServerHandshake", "Transport"]

XX: Final = b"Noise_XX_25519_AESGCM_SHA256"
IK: Final = b"Noise_IK_25519_AESGCM_SHA256"
XX_FALLBACK: Final = b"Noise_XXfallback_25519_AESGCM_SHA256"

_CLASSICAL: Final = (HandshakeMessage.HANDSHAKE_PQ_MODE_UNKNOWN, HandshakeMessage.WA_CLASSICAL)
_PQ_MODE_FIELD: Final = HandshakeMessage.ClientHello.PQMODE_FIELD_NUMBER

_T = TypeVar("_T")


class ClientHandshake:
    """The client's side of XX: `hello()`, then `finish()` with the server's answer.

    Args:
        static: the account's permanent noise key pair.
        ephemeral: fresh pair of this connection.
        payload: serialised ClientPayload; leaves only after the server has proved who it is.
        root_key: public key of the root to trust, 32 bytes.
        now: unix seconds, for the validity of the certificates.
    """

    def __init__(
        self, static: KeyPair, ephemeral: KeyPair, payload: bytes, root_key: bytes, now: int
    ) -> None:
        self._static = static
        self._ephemeral = ephemeral
        self._payload = payload
        self._root_key = root_key
        self._now = now
        self._state = SymmetricState(XX, INTRO)
        self._state.mix_hash(ephemeral.public)
        self._chain: Chain | None = None
        self._transport: Transport | None = None

    def hello(self) -> bytes:
        """The body of the first frame."""
        hello = HandshakeMessage.ClientHello(ephemeral=self._ephemeral.public)
        return HandshakeMessage(clientHello=hello).SerializeToString()

    def finish(self, server_hello: bytes) -> bytes:
        """Check the server's hello and certificate; returns the body of the frame that ends the handshake.

        Raises:
            CertificateError: the server is not authentic.
            NoiseError: anything else is wrong with the hello.
        """
        message = _parse(server_hello)
        hello = message.serverHello
        _need(message.HasField("serverHello"), "the server's first frame is no server hello")
        _need(
            len(hello.ephemeral) == KEY_LENGTH, f"the server's ephemeral key is not {KEY_LENGTH} bytes long"
        )
        _need(hello.HasField("static") and hello.HasField("payload"), "the server hello is incomplete")
        state = self._state
        state.mix_hash(hello.ephemeral)
        state.mix_dh(self._ephemeral.private, hello.ephemeral)
        static = _read_static(state, hello.static)
        state.mix_dh(self._ephemeral.private, static)
        chain = verify_chain(state.decrypt_and_hash(hello.payload), static, self._root_key, self._now)
        own_static = state.encrypt_and_hash(self._static.public)
        state.mix_dh(self._static.private, hello.ephemeral)
        payload = state.encrypt_and_hash(self._payload)
        self._chain = chain
        self._transport = Transport(*state.split())
        finish = HandshakeMessage.ClientFinish(static=own_static, payload=payload)
        return HandshakeMessage(clientFinish=finish).SerializeToString()

    @property
    def transport(self) -> Transport:
        """The client's end of the channel, after `finish`."""
        return _done(self._transport)

    @property
    def server_static(self) -> bytes:
        """The server's certified key, 32 bytes, after `finish`."""
        return _done(self._chain).leaf.key

    @property
    def chain_der(self) -> bytes:
        """The server's serialised CertChain as received, after `finish`."""
        return _done(self._chain).raw


class ServerHandshake:
    """The server's side: `hello()` with the client's first frame, then `finish()` if `needs_finish`.

    A client that wants to resume (IK) and cannot is answered with XXfallback (chapter 01 §3.8).

    Args:
        static: the server's permanent key pair.
        ephemeral_factory: makes the fresh pair of this connection.
        cert_chain: serialised CertChain for `static`.
        allow_ik: whether to resume at all; without, every resuming client falls back.
    """

    def __init__(
        self,
        static: KeyPair,
        ephemeral_factory: Callable[[], KeyPair],
        cert_chain: bytes,
        allow_ik: bool = True,
    ) -> None:
        self._static = static
        self._ephemeral = ephemeral_factory()
        self._cert_chain = cert_chain
        self._allow_ik = allow_ik
        self._state: SymmetricState | None = None
        self._client_static: bytes | None = None
        self._payload: bytes | None = None
        self._transport: Transport | None = None

    def hello(self, body: bytes) -> bytes:
        """Take the client's hello; returns the body of the answer.

        Raises:
            NoiseError: this is no hello to answer; close without sending anything.
        """
        message = _parse(body)
        hello = message.clientHello
        _need(message.HasField("clientHello"), "the client's first frame is no client hello")
        _need(
            len(hello.ephemeral) == KEY_LENGTH, f"the client's ephemeral key is not {KEY_LENGTH} bytes long"
        )
        _need(_is_classical(hello), "the client wants a post-quantum handshake")
        if not hello.HasField("static"):
            return self._answer_xx(XX, hello.ephemeral)
        if self._allow_ik:
            try:
                return self._answer_ik(hello)
            except NoiseError:
                # The client knows another key of ours, or is no client at all: fallback tells the two apart.
                self._client_static = self._payload = None
        return self._answer_xx(XX_FALLBACK, hello.ephemeral)

    @property
    def needs_finish(self) -> bool:
        """Whether the client has one more handshake frame to send."""
        return self._transport is None

    def finish(self, body: bytes) -> None:
        """Take the client's last handshake frame.

        Raises:
            NoiseError: the client is not the owner of the key it names, or this is no client finish.
        """
        message = _parse(body)
        finish = message.clientFinish
        _need(message.HasField("clientFinish"), "the client's second frame is no client finish")
        _need(finish.HasField("static") and finish.HasField("payload"), "the client finish is incomplete")
        _need(self._state is not None and self._transport is None, "a client finish out of turn")
        state = _done(self._state)
        client_static = _read_static(state, finish.static)
        state.mix_dh(self._ephemeral.private, client_static)
        self._payload = state.decrypt_and_hash(finish.payload)
        self._client_static = client_static
        self._end(state)

    @property
    def client_static(self) -> bytes:
        """The client's noise public key, 32 bytes, proved to be its own; is it the registered one?"""
        return _done(self._client_static)

    @property
    def payload(self) -> bytes:
        """The serialised ClientPayload. After IK it may be a replay until a transport frame arrives."""
        return _done(self._payload)

    @property
    def transport(self) -> Transport:
        """The server's end of the channel, when the handshake is complete."""
        return _done(self._transport)

    def _answer_xx(self, name: bytes, client_ephemeral: bytes) -> bytes:
        state = SymmetricState(name, INTRO)
        state.mix_hash(client_ephemeral)
        state.mix_hash(self._ephemeral.public)
        state.mix_dh(self._ephemeral.private, client_ephemeral)
        static = state.encrypt_and_hash(self._static.public)
        state.mix_dh(self._static.private, client_ephemeral)
        payload = state.encrypt_and_hash(self._cert_chain)
        self._state = state
        hello = HandshakeMessage.ServerHello(ephemeral=self._ephemeral.public, static=static, payload=payload)
        return HandshakeMessage(serverHello=hello).SerializeToString()

    def _answer_ik(self, client: HandshakeMessage.ClientHello) -> bytes:
        state = SymmetricState(IK, INTRO)
        state.mix_hash(self._static.public)
        state.mix_hash(client.ephemeral)
        state.mix_dh(self._static.private, client.ephemeral)
        self._client_static = _read_static(state, client.static)
        state.mix_dh(self._static.private, self._client_static)
        self._payload = state.decrypt_and_hash(client.payload)
        state.mix_hash(self._ephemeral.public)
        state.mix_dh(self._ephemeral.private, client.ephemeral)
        state.mix_dh(self._ephemeral.private, self._client_static)
        payload = state.encrypt_and_hash(self._cert_chain)
        self._end(state)
        hello = HandshakeMessage.ServerHello(ephemeral=self._ephemeral.public, payload=payload)
        return HandshakeMessage(serverHello=hello).SerializeToString()

    def _end(self, state: SymmetricState) -> None:
        receive_key, send_key = state.split()
        self._transport = Transport(send_key, receive_key)


def _parse(body: bytes) -> HandshakeMessage:
    _need(len(body) <= MAX_HANDSHAKE_FRAME, f"a handshake frame of {len(body)} bytes")
    try:
        return HandshakeMessage.FromString(body)
    except DecodeError:
        raise NoiseError("bad_hello", "a handshake frame is not protobuf") from None


def _need(condition: bool, otherwise: str) -> None:
    if not condition:
        raise NoiseError("bad_hello", otherwise)


def _read_static(state: SymmetricState, ciphertext: bytes) -> bytes:
    static = state.decrypt_and_hash(ciphertext)
    _need(len(static) == KEY_LENGTH, f"a static key is not {KEY_LENGTH} bytes long")
    return static


def _is_classical(hello: HandshakeMessage.ClientHello) -> bool:
    """Whether the mode is absent or classical; a number the enum does not know is an unknown field."""
    fields = UnknownFieldSet(hello)
    unknown = any(fields[index].field_number == _PQ_MODE_FIELD for index in range(len(fields)))
    return not unknown and hello.pqMode in _CLASSICAL


def _done(value: _T | None) -> _T:
    if value is None:
        raise NoiseError("not_finished", "the handshake is not finished")
    return value
