"""How the vectors of one connection are checked: payloads, prekeys, the directory, causes, acks, bundles."""

from __future__ import annotations

import os
from typing import Any

from google.protobuf.message import Message

from tests.vector_runner.core import Format, attempt
from tests.vector_runner.nodes import address, expect_sent, optional_address, received
from waD.e2ee import curve
from waD.e2ee.curve import KeyPair
from waD.e2ee.x3dh import PreKeyBundle
from waD.link import acks, bundles, causes, devices, payload, prekeys, usync
from waD.link.credentials import Credentials, SignedPreKey
from waD.link.errors import RequestError
from waD.link.stanzas import big_endian
from waD.proto.payload_pb2 import ClientPayload, DeviceProps
from waD.wire.codec import decode
from waD.wire.jid import JID


def raw(text: str) -> bytes:
    return bytes.fromhex(text)


# client_payload.json


def fields_of(message: Message) -> dict[str, Any]:
    """A message as the vectors write it: what is set, enumerations as numbers, bytes as hex."""
    return {field.name: _field_value(value) for field, value in message.ListFields()}


def _field_value(value: Any) -> Any:
    if isinstance(value, Message):
        return fields_of(value)
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    if isinstance(value, str | bool | int | float):
        return value
    return [_field_value(item) for item in value]


def expect_payload(data: bytes, out: dict[str, Any]) -> ClientPayload:
    """Everything the vector lists has to be there; other clients send fields the vectors' own schema lacks."""
    message = ClientPayload.FromString(data)
    expect_fields(fields_of(message), out["fields"])
    if "device_props" in out:
        props = DeviceProps.FromString(message.devicePairingData.deviceProps)
        expect_fields(fields_of(props), out["device_props"])
    return message


def expect_fields(got: dict[str, Any], wanted: dict[str, Any]) -> None:
    for name, value in wanted.items():
        assert name in got, f"no field {name}"
        if isinstance(value, dict) and isinstance(got[name], dict):
            expect_fields(got[name], value)
        else:
            assert got[name] == value, f"{name} is {got[name]}, not {value}"


def profile_of(values: dict[str, Any]) -> payload.ClientProfile:
    first, second, third = values["version"]
    system, browser, version = values["browser"]
    return payload.ClientProfile(
        version=(first, second, third),
        browser=(system, browser, version),
        sync_full_history=values["sync_full_history"],
        country=values["country_code"],
        push_name=values.get("push_name") or "",
    )


def signed_prekey_of(values: dict[str, Any]) -> SignedPreKey:
    key = KeyPair(b"", raw(values["pub"]))
    return SignedPreKey(id=values["id"], key=key, signature=raw(values["signature"]))


def credentials_of(values: dict[str, Any]) -> Credentials:
    """Credentials with the public halves a vector gives; nothing private is needed to build stanzas."""
    return Credentials(
        noise=KeyPair(b"", b""),
        identity=KeyPair(b"", raw(values["identity_pub"])),
        registration_id=values["registration_id"],
        signed_prekeys=(signed_prekey_of(values["signed_prekey"]),),
        adv_secret=b"",
    )


def payload_registration(case: dict[str, Any]) -> None:
    values, out = case["in"], case["out"]
    credentials, profile = credentials_of(values), profile_of(values)
    assert payload.build_hash(profile.version).hex() == out["build_hash"]
    made = payload.registration(credentials, profile)
    assert made == payload.payload(credentials, profile)
    expect_payload(made, out)
    assert made.hex() == out["hex"]


def payload_login(case: dict[str, Any]) -> None:
    values, out = case["in"], case["out"]
    made = payload.login(
        address(values["jid"]),
        profile_of(values),
        login_counter=out["fields"].get("lc"),
        lid_migrated=out["fields"]["lidDbMigrated"],
    )
    expect_payload(made, out)
    assert made.hex() == out["hex"]


def payload_parse(case: dict[str, Any]) -> None:
    data = raw(case["in"]["hex"])
    message = expect_payload(data, case["out"])
    assert ClientPayload.FromString(message.SerializeToString()) == message
    if message.HasField("devicePairingData"):
        told = message.devicePairingData
        assert told.buildHash == payload.build_hash(
            (
                message.userAgent.appVersion.primary,
                message.userAgent.appVersion.secondary,
                message.userAgent.appVersion.tertiary,
            )
        )
        key = KeyPair(b"", told.eSkeyVal)
        assert SignedPreKey(id=1, key=key, signature=told.eSkeySig).signed_by(told.eIdent)


# signed_prekey.json


def prekey_be_int(case: dict[str, Any]) -> None:
    value, size, wanted = case["in"]["value"], case["in"]["bytes"], raw(case["out"]["hex"])
    assert big_endian(value, size) == wanted
    assert int.from_bytes(wanted, "big") == value


def prekey_sign(case: dict[str, Any]) -> None:
    identity = KeyPair.from_private(raw(case["in"]["identity_priv"]))
    public, message = raw(case["in"]["prekey_pub"]), raw(case["out"]["message"])
    assert curve.serialize_key(public) == message
    theirs = SignedPreKey(id=1, key=KeyPair(b"", public), signature=raw(case["out"]["signature_example"]))
    assert theirs.signed_by(identity.public)
    ours = SignedPreKey.make(1, identity, os.urandom)
    assert curve.verify(identity.public, curve.serialize_key(ours.key.public), ours.signature)
    assert not curve.verify(identity.public, ours.key.public, ours.signature)


def prekey_verify(case: dict[str, Any]) -> None:
    values = case["in"]
    key = SignedPreKey(id=1, key=KeyPair(b"", raw(values["prekey_pub"])), signature=raw(values["signature"]))
    assert key.signed_by(raw(values["identity_pub"])) is case["out"]["valid"]


def prekey_upload(case: dict[str, Any]) -> None:
    values, out = case["in"], case["out"]
    lot = [prekeys.OneTimePreKey(key["id"], KeyPair(b"", raw(key["pub"]))) for key in values["prekeys"]]
    node = prekeys.upload_node(credentials_of(values), lot)
    node.attrs["id"] = out["node"]["attrs"]["id"]
    expect_sent(node, out["node"])
    assert decode(raw(out["encoded"])) == node
    drawn = list(prekeys.draw_prekeys(lot[0].id, len(lot), (), os.urandom))
    assert [key.id for key in drawn] == [key.id for key in lot]
    assert prekeys.next_id(lot[-1].id) == out["next_prekey_id"] == out["first_unuploaded_prekey_id"]


def prekey_digest(case: dict[str, Any]) -> None:
    values = case["in"]
    made = prekeys.digest_of(
        raw(values["identity_pub"]),
        raw(values["signed_prekey_pub"]),
        raw(values["signed_prekey_signature"]),
        [raw(key) for key in values["prekey_pubs"]],
    )
    assert made.hex() == case["out"]["sha1"]


def prekey_rotate(case: dict[str, Any]) -> None:
    wanted = case["out"]["node"]
    node = prekeys.rotate_node(signed_prekey_of(case["in"]["signed_prekey"]))
    node.attrs["id"] = wanted["attrs"]["id"]
    expect_sent(node, wanted)


def prekey_fetch_answer(case: dict[str, Any]) -> None:
    """Parsing, then the verdict about the signature; a companion's missing statement is not these vectors' matter."""
    reply, out = received(case["in"]["node"]), case["out"]
    listed = reply.child("list")
    asked = [] if listed is None else [jid for user in listed.children("user") if (jid := user.jid("jid"))]
    parsed = attempt(lambda: bundles.parse_answer(reply, asked), RequestError)
    if isinstance(parsed, RequestError):
        assert parsed.code == out["error_code"]
        return
    if "error_code" in out:
        assert [(item.error, item.code) for item in parsed] == [("refused", out["error_code"])] * len(asked)
        assert asked
        return
    checked = [bundles.check_all([item], {})[0] for item in parsed]
    assert len(parsed) == len(out["users"])
    for item, verdict, wanted in zip(parsed, checked, out["users"], strict=True):
        assert item.jid == address(wanted["jid"])
        assert item.bundle == fetched_bundle(wanted)
        assert verdict.error == (None if wanted["signature_valid"] else "bad_signature")
        assert verdict.bundle == (item.bundle if wanted["signature_valid"] else None)


def fetched_bundle(values: dict[str, Any]) -> PreKeyBundle:
    signed, one_time = values["signed_prekey"], values["prekey"]
    return PreKeyBundle(
        values["registration_id"],
        raw(values["identity_pub"]),
        signed["id"],
        raw(signed["pub"]),
        raw(signed["signature"]),
        None if one_time is None else one_time["id"],
        None if one_time is None else raw(one_time["pub"]),
    )


# usync.json


def usync_query(case: dict[str, Any]) -> None:
    request = case["request"]
    protocols = request["protocols"]
    node = usync.request_node(
        "sid-1",
        protocols,
        [user_query(user) for user in request["users"]],
        context=request.get("context", "interactive"),
        mode=request.get("mode", "query"),
    )
    node.attrs["id"] = "1"
    expect_sent(node, case["sent"])
    answer = attempt(lambda: usync.parse_answer(received(case["reply"]), protocols), RequestError)
    if isinstance(answer, RequestError):
        assert (answer.code, answer.text) == (case["error"]["code"], case["error"]["message"])
        return
    if "error" in case:
        expect_one_failure(answer, case["error"])
        return
    # Answers without an address are kept for numbers that are not registered (chapter 06 §1.2); the vectors skip them.
    users = [user for user in answer.users if user.jid is not None]
    assert [user_result(user, protocols) for user in users] == [
        {name: known(name, value) for name, value in user.items()} for user in case["result"]
    ]


def user_query(values: dict[str, Any]) -> usync.UserQuery:
    known_names = {
        "jid", "phone", "lid", "username", "pin", "type", "persona_id", "device_hash", "ts",
    }  # fmt: skip
    assert values.keys() <= known_names, f"unknown fields of a user: {values.keys() - known_names}"
    phone = values.get("phone")
    return usync.UserQuery(
        jid=optional_address(values.get("jid")),
        phone=None if phone is None else phone.removeprefix("+"),
        lid=optional_address(values.get("lid")),
        device_hash=values.get("device_hash"),
        ts=values.get("ts"),
        username=values.get("username"),
        pin=values.get("pin"),
        contact_type=values.get("type"),
        persona_id=values.get("persona_id"),
    )


def expect_one_failure(answer: usync.UsyncAnswer, error: dict[str, Any]) -> None:
    """The package fails the whole call; ours keeps everything that was answered beside the failure."""
    failures = [*answer.errors.values(), *(e for user in answer.users for e in user.errors.values())]
    assert [(failure.code, failure.text) for failure in failures] == [(error["code"], error["message"])]


def known(name: str, value: Any) -> Any:
    """A value of a vector in our terms: what is absent is None, numbers that are none are absent."""
    return address(value) if name in ("id", "lid") and value is not None else without_nan(value)


def without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_nan(item) for name, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return None if value == "NaN" else value


def user_result(user: usync.UserAnswer, protocols: list[str]) -> dict[str, Any]:
    """Our answer in the shape of the vectors."""
    found: dict[str, Any] = {"id": user.jid}
    if user.on_whatsapp is not None:
        found["contact"] = user.on_whatsapp
    if user.devices is not None:
        found["devices"] = devices_result(user.devices)
    if user.lid is not None:
        found["lid"] = user.lid
    if user.status is not None:
        found["status"] = {"status": user.status.text, "setAt": user.status.set_at}
    if user.disappearing_s is not None:
        found["disappearing_mode"] = {"duration": user.disappearing_s, "setAt": user.disappearing_set_at}
    if user.username is not None:
        found["username"] = user.username
    assert found.keys() <= {*protocols, "id"}
    return found


def devices_result(answer: usync.DevicesAnswer) -> dict[str, Any]:
    listed = [{"id": item.id, "keyIndex": item.key_index, "isHosted": item.hosted} for item in answer.devices]
    found: dict[str, Any] = {"deviceList": listed}
    if answer.key_index_list is not None:
        found["keyIndex"] = {"timestamp": answer.ts, "signedKeyIndex": {"hex": answer.key_index_list.hex()}}
        if answer.expected_ts is not None:
            found["keyIndex"]["expectedTimestamp"] = answer.expected_ts
    return found


# disconnect_causes.json


REFUSED_CODES = {"f_other": None, "stream_ack": None, "stream_xml": None, "stream_other": None}
"""Causes without a number: the package makes one up (500) that would clear auth state (chapter 02 §8.2)."""


def cause_stanza(case: dict[str, Any]) -> None:
    """Recognition only: one cause, ranked as a stanza, with the peers' number wherever it is one that was sent."""
    node = received(case["in"]["node"])
    found = causes.from_stanza(node)
    assert found is not None, "not recognised"
    assert found.stanza == node
    assert found.id != "unknown"
    wanted_rank = causes.Rank.STREAM_END if node.tag == "xmlstreamend" else causes.Rank.STANZA
    assert found.rank == wanted_rank
    status = case["out"]["baileys"]["status"]
    told = node.int("reason" if node.tag == "failure" else "code")
    conflict = node.child("conflict")
    if told is None and found.id in REFUSED_CODES:
        assert found.code is None
    elif told is None and conflict is not None and conflict.attrs.get("type") != "replaced":
        # 440 would say that another connection took over; a conflict of another kind says nothing of the sort.
        assert (found.id, found.code) == ("unlinked_other", None)
    else:
        assert found.code == status, f"{found.id} has the number {found.code}, not {status}"


def cause_transport(case: dict[str, Any]) -> None:
    """Every way a transport ends has a cause; none borrows a number that means loss of authorisation."""
    name = case["in"]["cause"]
    if name.startswith("http_"):
        found = causes.http_cause(int(name.removeprefix("http_")))
        assert found.code == causes.HTTP_CODE_BASE + int(name.removeprefix("http_"))
    else:
        found = causes.cause(name, "as the vector says")
        assert found.code == (causes.TLS_CODE if name == "tls" else case["out"]["baileys"]["status"])
    assert found.code not in (401, 403, 500)
    assert found.rank > causes.Rank.STANZA


# stanzas_in.json: what a connection makes of stanzas; messages and receipts are the messaging room's.


def stanza_ack(case: dict[str, Any]) -> None:
    values = case["input"]
    stanza = received(values["stanza"])
    answer = acks.ack(stanza, me=optional_address(values["me"]), error=values["error"])
    assert answer is not None
    expect_sent(answer, case["expect"]["stanza"])


def stanza_retry_keys(case: dict[str, Any]) -> None:
    expect = {**case["expect"], **case.get("chapter_expect", {})}
    found = bundles.parse_retry_keys(received(case["input"]["stanza"]))
    assert found == (None if expect["bundle"] is None else session_bundle(expect["bundle"]))


def session_bundle(values: dict[str, Any]) -> PreKeyBundle:
    """A bundle as the package holds it: keys with their type byte."""
    signed, one_time = values["signedPreKey"], values.get("preKey")
    return PreKeyBundle(
        values["registrationId"],
        curve.parse_key(raw(values["identityKey"]["hex"])),
        signed["keyId"],
        curve.parse_key(raw(signed["publicKey"]["hex"])),
        raw(signed["signature"]["hex"]),
        None if one_time is None else one_time["keyId"],
        None if one_time is None else curve.parse_key(raw(one_time["publicKey"]["hex"])),
    )


def stanza_prekey_bundle(case: dict[str, Any]) -> None:
    reply, expect = received(case["input"]["stanza"]), case["expect"]
    listed = reply.child("list")
    users = [] if listed is None else listed.children("user")
    asked = [jid for user in users if (jid := user.jid("jid")) is not None]
    found = bundles.parse_answer(reply, asked)
    if "error" in expect:
        # The package throws the whole batch away; the others' bundles are kept (chapter 04 §3.3).
        refused = [user.child("error") is not None for user in users]
        assert [item.error == "refused" for item in found] == refused
        assert [item.bundle is None for item in found] == refused
        assert any(refused)
        return
    assert [(item.jid, item.bundle) for item in found] == [
        (address(wanted["jid"]), session_bundle(wanted["session"])) for wanted in expect["sessions"]
    ]


def stanza_usync_devices(case: dict[str, Any]) -> None:
    values, expect = case["input"], case["expect"]
    answer = usync.parse_answer(received(values["stanza"]), devices.DEVICE_PROTOCOLS)
    if "error" in expect:
        # The package fails the whole query; only this user has no answer (chapter 04 §2.1).
        failed = [user for user in answer.users if "devices" in user.errors]
        assert [user.errors["devices"].text for user in failed] == [expect["error"]]
        assert failed[0].devices is None
        return
    wanted = [{name: known(name, value) for name, value in user.items()} for user in expect["list"]]
    assert [user_result(user, ["devices", "lid"]) for user in answer.users] == wanted
    me = address(values["my_jid"])
    own = [me, JID(values["my_lid"].partition("@")[0].partition(":")[0], "lid", me.device)]
    jids: list[JID] = []
    lids: list[tuple[JID, JID]] = []
    for user in answer.users:
        assert user.jid is not None
        listed = () if user.devices is None else user.devices.devices
        jids += devices.device_jids(user.jid, listed, own=own, without_phone=values["exclude_zero_devices"])
        if user.lid is not None:
            lids.append((user.jid, user.lid))
    assert jids == [plain_phone(address(text), case) for text in expect["device_jids"]]
    assert lids == [(address(pn), address(lid)) for pn, lid in expect["lids"]]


def plain_phone(jid: JID, case: dict[str, Any]) -> JID:
    """With the chapter's own word each device is mapped on its own: a phone is never on a hosted server."""
    return jid.account if "chapter_expect" in case and jid.device == 0 else jid


FORMATS: dict[str, Format] = {
    "client_payload": {
        "registration": payload_registration,
        "login": payload_login,
        "parse": payload_parse,
    },
    "signed_prekey": {
        "be_int": prekey_be_int,
        "sign": prekey_sign,
        "verify": prekey_verify,
        "upload": prekey_upload,
        "digest": prekey_digest,
        "rotate": prekey_rotate,
        "fetch_answer": prekey_fetch_answer,
    },
    "usync": {None: usync_query},
    "disconnect_causes": {"stanza": cause_stanza, "transport": cause_transport},
    "stanzas_in": {
        "ack": stanza_ack,
        "retry_keys": stanza_retry_keys,
        "prekey_bundle": stanza_prekey_bundle,
        "usync_devices": stanza_usync_devices,
    },
}
