"""How the vectors of pairing are checked: the code, the phone's proof and our answer, what a phone signs."""

from __future__ import annotations

import os
from typing import Any

from tests.vector_runner.core import Format, attempt
from tests.vector_runner.nodes import expect_sent, optional_address, received
from waD.e2ee import adv, curve
from waD.e2ee.curve import KeyPair
from waD.link import causes, qr, stanzas
from waD.link.errors import PairingRefused
from waD.link.pair_success import Paired, verify
from waD.link.payload import ClientProfile
from waD.proto import adv_pb2
from waD.sandbox.errors import SandboxError
from waD.sandbox.qr import parse_qr
from waD.wire.node import Node


def raw(text: str) -> bytes:
    return bytes.fromhex(text)


def profile_of(browser: list[str]) -> ClientProfile:
    system, name, *version = browser
    return ClientProfile(browser=(system, name, version[0] if version else ""))


def qr_build(case: dict[str, Any]) -> None:
    values, out = case["in"], case["out"]
    kind = profile_of(values["browser"]).qr_type
    assert kind == out["client_type"]
    assert code_text(values, values["ref"]) == out["qr"]


def code_text(values: dict[str, Any], ref: str) -> str:
    keys = raw(values["noise_pub"]), raw(values["identity_pub"]), raw(values["adv_secret"])
    return qr.qr_text(ref, *keys, profile_of(values["browser"]).qr_type)


def qr_parse(case: dict[str, Any]) -> None:
    out = case["out"]
    found = attempt(lambda: parse_qr(case["in"]["qr"]), SandboxError)
    assert isinstance(found, SandboxError) == ("error" in out), found
    if isinstance(found, SandboxError):
        return
    assert (found.ref, found.client_type) == (out["ref"], out["client_type"])
    assert found.noise_key == raw(out["noise_pub"])
    assert found.identity == raw(out["identity_pub"])
    assert found.adv_secret == raw(out["adv_secret"])


def pair_device(case: dict[str, Any]) -> None:
    values, out = case["in"], case["out"]
    node = received(values["node"])
    expect_sent(stanzas.result(node), out["reply"])
    offer = node.child("pair-device")
    assert offer is not None
    round_ = qr.QrRound(qr.parse_refs(offer), now=0.0)
    shown = [code_text(values, round_.ref)]
    while round_.advance(round_.deadline):
        shown.append(code_text(values, round_.ref))
    assert shown == out["qrs"]
    assert causes.CODES["qr_exhausted"] == out["end_status"]


def pair_success(case: dict[str, Any]) -> None:
    values, out = case["in"], case["out"]
    identity = KeyPair.from_private(raw(values["identity_priv"]))
    assert identity.public == raw(values["identity_pub"])
    node, secret = received(values["node"]), raw(values["adv_secret"])
    paired = attempt(lambda: verify(node, secret, identity, os.urandom), PairingRefused)
    assert isinstance(paired, PairingRefused) == ("error" in out), paired
    if isinstance(paired, PairingRefused):
        assert (paired.code, paired.text) == (out["error"]["code"], out["error"]["text"])
        return
    expect_facts(paired, out)
    expect_proofs(paired, identity, secret, out)
    expect_answer(paired.answer, identity, out)


def expect_facts(paired: Paired, out: dict[str, Any]) -> None:
    assert (paired.jid, paired.lid) == (optional_address(out["jid"]), optional_address(out["lid"]))
    assert (paired.business_name, paired.platform) == (out["business_name"] or "", out["platform"] or "")
    assert (paired.raw_id, paired.timestamp) == (out["raw_id"], out["timestamp"])
    assert (paired.key_index, paired.hosted) == (out["key_index"], out["hosted"])
    assert paired.account_key == raw(out["account_signature_key"])


def expect_proofs(paired: Paired, identity: KeyPair, secret: bytes, out: dict[str, Any]) -> None:
    """What is signed and authenticated, byte by byte; signatures differ from run to run."""
    signed = adv.parse_signed_identity(paired.account)
    account_message = raw(out["account_message"])
    hosted_prefix = adv.HOSTED_ACCOUNT_PREFIX if paired.hosted else adv.ACCOUNT_PREFIX
    assert hosted_prefix + signed.details + identity.public == account_message
    assert signed.accountSignature == raw(out["account_signature"])
    assert curve.verify(paired.account_key, account_message, signed.accountSignature)
    device_message = raw(out["device_message"])
    assert adv.DEVICE_PREFIX + signed.details + identity.public + paired.account_key == device_message
    assert curve.verify(identity.public, device_message, signed.deviceSignature)
    assert curve.verify(identity.public, device_message, raw(out["device_signature_example"]))
    signed.ClearField("deviceSignature")
    covered = signed.SerializeToString()
    hosted_account = out["hmac_message"].startswith(adv.HOSTED_ACCOUNT_PREFIX.hex())
    prefix = adv.HOSTED_ACCOUNT_PREFIX if hosted_account else b""
    assert prefix + covered == raw(out["hmac_message"])
    assert adv.account_hmac(secret, covered, hosted=hosted_account) == raw(out["hmac"])


def expect_answer(answer: Node, identity: KeyPair, out: dict[str, Any]) -> None:
    """The same as the example up to the signature in the blob, which is ours."""
    example = received(out["reply_example"])
    ours, theirs = blob_of(answer), blob_of(example)
    assert ours.attrs == theirs.attrs
    made = adv_pb2.ADVSignedDeviceIdentity.FromString(ours.data)
    wanted = adv_pb2.ADVSignedDeviceIdentity.FromString(theirs.data)
    for signed in (made, wanted):
        assert curve.verify(identity.public, raw(out["device_message"]), signed.deviceSignature)
    made.deviceSignature = wanted.deviceSignature
    assert made.SerializeToString() == theirs.data
    ours.content = theirs.data
    expect_sent(answer, out["reply_example"])


def blob_of(answer: Node) -> Node:
    sign = answer.child("pair-device-sign")
    blob = None if sign is None else sign.child("device-identity")
    assert blob is not None
    return blob


def phone_identity(case: dict[str, Any]) -> None:
    values, out = case["in"], case["out"]
    phone, companion = primary(values), raw(values["companion_identity_pub"])
    secret, hosted = raw(values["adv_secret"]), values["hosted"]
    numbers = values["raw_id"], values["key_index"], values["timestamp"]
    ours = adv.make_device_identity(phone, companion, *numbers, secret, os.urandom, hosted=hosted)
    for blob in (ours, raw(out["device_identity_example"])):
        outer = adv_pb2.ADVSignedDeviceIdentityHMAC.FromString(blob)
        assert (outer.accountType == adv_pb2.HOSTED) is hosted
        assert adv.verify_account_hmac(secret, outer.details, outer.hmac, hosted=hosted)
        signed = adv.parse_signed_identity(outer.details)
        assert signed.details == raw(out["details"])
        assert signed.accountSignatureKey == phone.public
        assert curve.verify(phone.public, raw(out["account_message"]), signed.accountSignature)
        assert adv.verify_account_signature(
            phone.public, signed.details, companion, signed.accountSignature, hosted=hosted
        )
    assert curve.verify(phone.public, raw(out["account_message"]), raw(out["account_signature_example"]))


def primary(values: dict[str, Any]) -> KeyPair:
    phone = KeyPair.from_private(raw(values["primary_priv"]))
    assert phone.public == raw(values["primary_pub"])
    return phone


def phone_key_index_list(case: dict[str, Any]) -> None:
    values, out = case["in"], case["out"]
    phone = primary(values)
    hosted = values.get("hosted", False)
    ours = adv.make_key_index_list(
        phone,
        values["raw_id"],
        values["timestamp"],
        values["current_index"],
        values["valid_indexes"],
        os.urandom,
        hosted=hosted,
    )
    for blob in (ours, raw(out["signed_example"])):
        signed = adv_pb2.ADVSignedKeyIndexList.FromString(blob)
        assert signed.details == raw(out["details"])
        assert curve.verify(phone.public, raw(out["message"]), signed.accountSignature)
        found = adv.verify_key_index_list(blob, phone.public)
        assert (found.raw_id, found.timestamp) == (values["raw_id"], values["timestamp"])
        assert found.valid_indexes == frozenset(values["valid_indexes"])
        assert (found.current_index, found.verified) == (values["current_index"], True)


FORMATS: dict[str, Format] = {
    "adv_pairing": {
        "qr_build": qr_build,
        "qr_parse": qr_parse,
        "pair_success": pair_success,
        "pair_device": pair_device,
        "phone_identity": phone_identity,
        "key_index_list": phone_key_index_list,
    },
}
