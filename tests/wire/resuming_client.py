"""A client that resumes with IK, to test the responder; ours always does XX (chapter 01 §3.7)."""

from __future__ import annotations

from waD.e2ee.curve import KeyPair
from waD.proto.handshake_pb2 import HandshakeMessage
from waD.wire.certs import verify_chain
from waD.wire.frames import INTRO
from waD.wire.noise import IK, XX_FALLBACK, ClientHandshake
from waD.wire.symmetric import SymmetricState
from waD.wire.transport import Transport


class ResumingClient(ClientHandshake):
    """IK with XXfallback; `finish` returns no bytes when the server resumed."""

    def __init__(
        self,
        static: KeyPair,
        ephemeral: KeyPair,
        payload: bytes,
        root_key: bytes,
        now: int,
        known_server: bytes,
    ) -> None:
        super().__init__(static, ephemeral, payload, root_key, now)
        self._known_server = known_server
        self._state = SymmetricState(IK, INTRO)
        self._state.mix_hash(known_server)
        self._state.mix_hash(ephemeral.public)

    def hello(self) -> bytes:
        state = self._state
        state.mix_dh(self._ephemeral.private, self._known_server)
        static = state.encrypt_and_hash(self._static.public)
        state.mix_dh(self._static.private, self._known_server)
        payload = state.encrypt_and_hash(self._payload)
        hello = HandshakeMessage.ClientHello(ephemeral=self._ephemeral.public, static=static, payload=payload)
        return HandshakeMessage(clientHello=hello).SerializeToString()

    def finish(self, server_hello: bytes) -> bytes:
        hello = HandshakeMessage.FromString(server_hello).serverHello
        if hello.HasField("static"):
            self._state = SymmetricState(XX_FALLBACK, INTRO)
            self._state.mix_hash(self._ephemeral.public)
            return super().finish(server_hello)
        state = self._state
        state.mix_hash(hello.ephemeral)
        state.mix_dh(self._ephemeral.private, hello.ephemeral)
        state.mix_dh(self._static.private, hello.ephemeral)
        raw = state.decrypt_and_hash(hello.payload)
        self._chain = verify_chain(raw, self._known_server, self._root_key, self._now)
        self._transport = Transport(*state.split())
        return b""
