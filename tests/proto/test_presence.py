"""The generated messages keep explicit presence, unknown fields and the numbers of the wire."""

from __future__ import annotations

import pytest
from google.protobuf.message import Message as ProtoMessage

from waD.proto import adv_pb2, appstate_pb2, e2e_pb2, handshake_pb2, history_pb2, payload_pb2, signal_pb2


def test_a_zero_that_was_set_is_on_the_wire() -> None:
    assert payload_pb2.ClientPayload(passive=False).SerializeToString() == b"\x18\x00"
    assert signal_pb2.SignalMessage(counter=0).SerializeToString() == b"\x10\x00"
    assert payload_pb2.ClientPayload().SerializeToString() == b""


@pytest.mark.parametrize(
    ("message", "field", "number"),
    [
        (e2e_pb2.Message, "conversation", 1),
        (e2e_pb2.Message, "extendedTextMessage", 6),
        (e2e_pb2.Message, "deviceSentMessage", 31),
        (e2e_pb2.Message, "messageContextInfo", 35),
        (e2e_pb2.Message, "pollResultSnapshotMessageV3", 115),
        (handshake_pb2.HandshakeMessage, "clientFinish", 4),
        (payload_pb2.ClientPayload, "devicePairingData", 19),
        (adv_pb2.ADVSignedDeviceIdentity, "deviceSignature", 4),
        (signal_pb2.PreKeySignalMessage, "signedPreKeyId", 6),
        (history_pb2.WebMessageInfo, "messageSecret", 49),
        (appstate_pb2.SyncdPatch, "mutations", 2),
    ],
)
def test_numbers_of_chapters_02_to_05(message: type[ProtoMessage], field: str, number: int) -> None:
    assert message.DESCRIPTOR.fields_by_name[field].number == number


def test_what_a_newer_client_adds_is_kept() -> None:
    newer = e2e_pb2.Message(conversation="hi").SerializeToString() + b"\xba\x3e\x03abc"
    assert e2e_pb2.Message.FromString(newer).SerializeToString() == newer


def test_an_unknown_enum_value_is_kept() -> None:
    raw = b"\x28\x7f"
    parsed = adv_pb2.ADVDeviceIdentity.FromString(raw)
    assert not parsed.HasField("deviceType")
    assert parsed.SerializeToString() == raw
