"""How the vectors of the end-to-end room are checked: curve, derivations, sessions, groups, conversions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import xeddsa

from tests.vector_runner.core import Format
from waD.e2ee import adv, curve, groups, messages, padding, ratchet, session, skipped, x3dh
from waD.e2ee.errors import SignalError
from waD.e2ee.interop import golang, node, protobuf
from waD.e2ee.kdf import hkdf, hmac_sha256
from waD.e2ee.record import SessionRecord
from waD.proto import signal_pb2

GROUP_ORDER = 2**252 + 27742317777372353535851937790883648493


def raw(text: str) -> bytes:
    return bytes.fromhex(text)


def key32(text: str) -> bytes:
    return curve.parse_key(raw(text))


def pair(private: str) -> curve.KeyPair:
    return curve.KeyPair.from_private(raw(private))


def refused(action: Callable[[], object]) -> str:
    """The code of the SignalError an action raises."""
    try:
        result = action()
    except SignalError as error:
        return error.code
    raise AssertionError(f"accepted: {result!r}")


# xeddsa.json


def xeddsa_keypair(case: dict[str, Any]) -> None:
    made = pair(case["private_raw"])
    assert made.private == raw(case["private_clamped"])
    assert made == pair(case["private_clamped"])
    assert made.public == raw(case["public32"])
    assert curve.serialize_key(made.public) == raw(case["public33"])
    assert curve.parse_key(raw(case["public33"])) == made.public


def xeddsa_ecdh(case: dict[str, Any]) -> None:
    assert curve.agree(raw(case["private"]), key32(case["public33"])) == raw(case["shared"])


def xeddsa_ecdh_reject(case: dict[str, Any]) -> None:
    try:
        curve.agree(raw(case["private"]), key32(case["public33"]))
    except curve.CurveError:
        return
    raise AssertionError("accepted a low-order key")


def xeddsa_signature(case: dict[str, Any]) -> None:
    public, message = raw(case["public32"]), raw(case["message"])
    assert curve.verify(public, message, raw(case["signature"]))
    nonce = raw(case["random64"]) if "random64" in case else bytes(64)
    ours = curve.sign(raw(case["private"]), message, lambda _: nonce)
    assert curve.verify(public, message, ours)
    if "random64" in case:
        assert ours == raw(case["signature"])


def xeddsa_sign_deterministic(case: dict[str, Any]) -> None:
    """Our nonces are random, so the equation of the signature is checked with the vector's own nonce."""
    xeddsa_signature(case)
    scalar = curve.clamp(raw(case["private"]))
    signature = raw(case["signature"])
    nonce = int.from_bytes(hashlib.sha512(scalar + raw(case["message"])).digest(), "little") % GROUP_ORDER
    public = xeddsa.priv_to_ed25519_pub(scalar)
    challenge = hashlib.sha512(signature[:32] + public + raw(case["message"])).digest()
    s = nonce + int.from_bytes(challenge, "little") * int.from_bytes(scalar, "little")
    half = bytearray((s % GROUP_ORDER).to_bytes(32, "little"))
    half[31] |= public[31] & 0x80
    assert signature[32:] == bytes(half)


def xeddsa_verify(case: dict[str, Any]) -> None:
    verdict = curve.verify(raw(case["public32"]), raw(case["message"]), raw(case["signature"]))
    assert verdict is case["expect"]


def xeddsa_signed_prekey(case: dict[str, Any]) -> None:
    verdict = curve.verify(key32(case["identity33"]), raw(case["signed_prekey33"]), raw(case["signature"]))
    assert verdict is case["expect"]


# kdf.json


def kdf_hkdf(case: dict[str, Any]) -> None:
    info = case["info"].encode()
    assert hkdf(raw(case["ikm"]), raw(case["salt"]), info, case["length"]) == raw(case["okm"])


def kdf_x3dh(case: dict[str, Any]) -> None:
    a, e = pair(case["initiator_identity_priv"]), pair(case["initiator_base_priv"])
    b, s = pair(case["responder_identity_priv"]), pair(case["responder_signed_prekey_priv"])
    one_time = case.get("responder_one_time_priv")
    ours = [(a.private, s.public), (e.private, b.public), (e.private, s.public)]
    theirs = [(s.private, a.public), (b.private, e.public), (s.private, e.public)]
    if one_time is not None:
        ours.append((e.private, pair(one_time).public))
        theirs.append((pair(one_time).private, e.public))
    assert [curve.agree(*both).hex() for both in ours] == case["dh"]
    assert x3dh.derive(ours) == x3dh.derive(theirs) == (raw(case["root_key"]), raw(case["chain_key"]))


def kdf_root_step(case: dict[str, Any]) -> None:
    made = ratchet.root_step(
        raw(case["root_key"]), raw(case["our_ratchet_priv"]), key32(case["their_ratchet_pub"])
    )
    assert made == (raw(case["new_root_key"]), raw(case["new_chain_key"]))


def kdf_chain(case: dict[str, Any]) -> None:
    chain = raw(case["chain_key"])
    for step in case["steps"]:
        (seed,), chain = ratchet.advance(chain, 1)
        assert seed == raw(step["seed"])
        assert ratchet.message_keys(seed) == (
            raw(step["cipher_key"]),
            raw(step["mac_key"]),
            raw(step["iv"]),
        )
        assert chain == raw(step["next_chain_key"])


def kdf_sender_chain(case: dict[str, Any]) -> None:
    chain = raw(case["chain_key"])
    for step in case["steps"]:
        (seed,), chain = ratchet.advance(chain, 1)
        assert seed == raw(step["seed"])
        assert groups.message_keys(seed) == (raw(step["iv"]), raw(step["cipher_key"]))
        assert chain == raw(step["next_chain_key"])


def kdf_aes_cbc(case: dict[str, Any]) -> None:
    key, iv, plaintext = raw(case["key"]), raw(case["iv"]), raw(case["plaintext"])
    assert ratchet.aes_cbc_encrypt(key, iv, plaintext) == raw(case["ciphertext"])
    assert ratchet.aes_cbc_decrypt(key, iv, raw(case["ciphertext"])) == plaintext


def kdf_signal_message(case: dict[str, Any]) -> None:
    key, ciphertext = key32(case["ratchet_key"]), raw(case["ciphertext"])
    body = messages.encode_signal_body(key, case["counter"], case["previous_counter"], ciphertext)
    covered = raw(case["sender_identity"]) + raw(case["receiver_identity"]) + body
    mac = hmac_sha256(raw(case["mac_key"]), covered)[:8]
    assert body + mac == raw(case["serialized"])
    assert messages.parse_signal_message(body + mac) == messages.SignalMessage(
        key, case["counter"], case["previous_counter"], ciphertext, body, mac
    )


def kdf_prekey_message(case: dict[str, Any]) -> None:
    base, identity, inner = key32(case["base_key"]), key32(case["identity_key"]), raw(case["message"])
    numbers = case["registration_id"], case.get("prekey_id"), case["signed_prekey_id"]
    assert messages.encode_prekey_message(*numbers, base, identity, inner) == raw(case["serialized"])
    assert messages.parse_prekey_message(raw(case["serialized"])) == messages.PreKeyMessage(
        *numbers, base, identity, messages.parse_signal_message(inner)
    )


def kdf_distribution(case: dict[str, Any]) -> None:
    values = case["key_id"], case["iteration"], raw(case["chain_key"]), key32(case["signing_key"])
    assert messages.encode_distribution(*values) == raw(case["serialized"])
    assert messages.parse_distribution(raw(case["serialized"])) == messages.SenderKeyDistribution(*values)


def kdf_sender_key_message(case: dict[str, Any]) -> None:
    body = messages.encode_sender_key_body(case["key_id"], case["iteration"], raw(case["ciphertext"]))
    signature = raw(case["npm_signature"])
    assert body == raw(case["body"])
    assert curve.verify(key32(case["signing_key"]), body, signature)
    assert messages.parse_sender_key_message(body + signature) == messages.SenderKeyMessage(
        case["key_id"], case["iteration"], raw(case["ciphertext"]), body, signature
    )


# x3dh_sessions.json


@dataclass
class Party:
    """One party of a conversation, with its records as serialised bytes: every step restarts it."""

    local: x3dh.LocalIdentity
    signed_prekeys: dict[int, curve.KeyPair]
    prekeys: dict[int, curve.KeyPair]
    records: dict[str, bytes] = field(default_factory=dict)

    @classmethod
    def from_case(cls, values: dict[str, Any]) -> Party:
        identity = pair(values["identity_priv"])
        assert curve.serialize_key(identity.public) == raw(values["identity_pub"])
        return cls(
            x3dh.LocalIdentity(identity, values["registration_id"]),
            {key["id"]: pair(key["priv"]) for key in values["signed_prekeys"]},
            {key["id"]: pair(key["priv"]) for key in values["prekeys"]},
        )

    def record(self, peer: str) -> SessionRecord | None:
        stored = self.records.get(peer)
        return None if stored is None else SessionRecord.parse(stored)

    def existing(self, peer: str) -> SessionRecord:
        record = self.record(peer)
        assert record is not None
        return record

    def keep(self, peer: str, record: SessionRecord) -> None:
        self.records[peer] = record.serialize()
        assert SessionRecord.parse(self.records[peer]) == record


def conversation(case: dict[str, Any]) -> None:
    parties = {name: Party.from_case(values) for name, values in case["parties"].items()}
    for number, step in enumerate(case["steps"]):
        try:
            CONVERSATION_STEPS[step["op"]](parties[step["party"]], step)
        except Exception as error:
            raise AssertionError(f"step {number} {step['op']} {step.get('note', '')}: {error!r}") from error


def init_outgoing(party: Party, step: dict[str, Any]) -> None:
    peer, values = step["peer"], step["bundle"]
    prekey = values["prekey"]
    bundle = x3dh.PreKeyBundle(
        values["registration_id"],
        key32(values["identity"]),
        values["signed_prekey"]["id"],
        key32(values["signed_prekey"]["pub"]),
        raw(values["signed_prekey"]["signature"]),
        None if prekey is None else prekey["id"],
        None if prekey is None else key32(prekey["pub"]),
    )
    assert step["expect"] == {"ok": True}
    base, first = pair(step["base_priv"]), pair(step["ratchet_priv"])
    party.keep(peer, session.process_bundle(party.record(peer), party.local, bundle, base, first, 1))


def session_encrypt(party: Party, step: dict[str, Any]) -> None:
    made = session.encrypt(party.existing(step["peer"]), party.local, raw(step["plaintext"]), 1)
    party.keep(step["peer"], made.record)
    assert (made.kind, made.data.hex()) == (step["expect"]["type"], step["expect"]["ciphertext"])


def session_decrypt(party: Party, step: dict[str, Any]) -> None:
    peer, expect = step["peer"], step["expect"]
    draws = []

    def draw() -> curve.KeyPair:
        draws.append(step["new_ratchet_priv"])
        return pair(step["new_ratchet_priv"])

    def attempt() -> session.Decrypted:
        return session.decrypt(
            party.record(peer),
            party.local,
            step["type"],
            raw(step["ciphertext"]),
            party.prekeys.get,
            party.signed_prekeys.get,
            draw,
            1,
        )

    if "error" in expect:
        before = party.records.get(peer)
        assert refused(attempt) == expect["error"]
        assert party.records.get(peer) == before
        assert not draws
        return
    done = attempt()
    assert done.plaintext == raw(expect["plaintext"])
    assert done.consumed_prekey == expect["consumed_prekey"]
    if done.consumed_prekey is not None:
        del party.prekeys[done.consumed_prekey]
    party.keep(peer, done.record)


def assert_state(party: Party, step: dict[str, Any]) -> None:
    record, expect = party.existing(step["peer"]), step["state"]
    state = record.current
    assert state is not None
    assert curve.serialize_key(state.base_key).hex() == expect["base_key"]
    assert curve.serialize_key(state.remote_identity).hex() == expect["remote_identity"]
    assert state.root_key.hex() == expect["root_key"]
    assert (state.pending is not None) is expect["pending_prekey"]
    assert state.previous_counter == expect["previous_counter"]
    assert len(record.archived) == expect["archived"]
    sending = expect["sending"]
    assert curve.serialize_key(state.sender.public).hex() == sending["ratchet_pub"]
    assert (state.sender.next, state.sender.key.hex()) == (sending["next_counter"], sending["chain_key"])
    if receiving := expect.get("receiving"):
        chain = state.receivers[-1]
        assert curve.serialize_key(chain.ratchet).hex() == receiving["ratchet_pub"]
        assert chain.next == receiving["next_counter"]
        assert chain.key is not None
        assert chain.key.hex() == receiving["chain_key"]
        stored = skipped.unpack(chain.seeds, skipped.SEED_ENTRY)
        assert [counter for counter, _, _ in stored] == receiving["skipped"]


def session_advance(party: Party, step: dict[str, Any]) -> None:
    record = party.existing(step["peer"])
    for _ in range(step["count"]):
        record = session.encrypt(record, party.local, b"", 1).record
    party.keep(step["peer"], record)


def assert_skipped(party: Party, step: dict[str, Any]) -> None:
    state = party.existing(step["peer"]).current
    assert state is not None
    assert state.receivers[-1].skipped_count == step["count"]


CONVERSATION_STEPS: dict[str, Callable[[Party, dict[str, Any]], None]] = {
    "init_outgoing": init_outgoing,
    "encrypt": session_encrypt,
    "decrypt": session_decrypt,
    "assert_state": assert_state,
    "advance_sender": session_advance,
    "assert_skipped": assert_skipped,
}


# sender_keys.json


def sender_key_story(case: dict[str, Any]) -> None:
    records: dict[tuple[str, str, str], bytes] = {}
    for number, step in enumerate(case["steps"]):
        name = (step["party"], step["group"], step["sender"])
        stored = records.get(name)
        record = None if stored is None else groups.SenderKeyRecord.parse(stored)
        try:
            after = SENDER_KEY_STEPS[step["op"]](record, step)
        except Exception as error:
            raise AssertionError(f"step {number} {step['op']} {step.get('note', '')}: {error!r}") from error
        if after is not None:
            records[name] = after.serialize()


def sender_create(
    record: groups.SenderKeyRecord | None, step: dict[str, Any]
) -> groups.SenderKeyRecord | None:
    draws = [step["key_id"].to_bytes(4, "big"), raw(step["chain_key"]), raw(step["signing_priv"])]
    made = groups.create(lambda _: draws.pop(0))
    assert groups.distribution(made).hex() == step["expect"]["skdm"]
    return made


def sender_process(
    record: groups.SenderKeyRecord | None, step: dict[str, Any]
) -> groups.SenderKeyRecord | None:
    assert step["expect"] == {"ok": True}
    return groups.process_distribution(record, raw(step["skdm"]))


def sender_distribution(
    record: groups.SenderKeyRecord | None, step: dict[str, Any]
) -> groups.SenderKeyRecord | None:
    assert record is not None
    assert groups.distribution(record).hex() == step["expect"]["skdm"]
    return None


def sender_encrypt(
    record: groups.SenderKeyRecord | None, step: dict[str, Any]
) -> groups.SenderKeyRecord | None:
    assert record is not None
    after, data = groups.encrypt(record, raw(step["plaintext"]), lambda count: bytes(count))
    assert data[:-64].hex() == step["expect"]["body"]
    public = record.states[0].public
    assert curve.verify(public, data[:-64], data[-64:])
    assert curve.verify(public, data[:-64], raw(step["expect"]["npm_signature"]))
    return after


def sender_message(
    record: groups.SenderKeyRecord | None, step: dict[str, Any]
) -> groups.SenderKeyRecord | None:
    """A message of a peer with its own rule for iterations; the steps after it decrypt it."""
    body = raw(step["expect"]["body"])
    parsed = messages.parse_sender_key_message(body + raw(step["expect"]["npm_signature"]))
    assert messages.encode_sender_key_body(parsed.key_id, parsed.iteration, parsed.ciphertext) == body
    return None


def sender_decrypt(
    record: groups.SenderKeyRecord | None, step: dict[str, Any]
) -> groups.SenderKeyRecord | None:
    if "error" in step["expect"]:
        code = refused(lambda: groups.decrypt(record, raw(step["message"]), 1))
        assert code == step["expect"]["error"], code
        return None
    after, plaintext = groups.decrypt(record, raw(step["message"]), 1)
    assert plaintext.hex() == step["expect"]["plaintext"]
    return after


def sender_advance(
    record: groups.SenderKeyRecord | None, step: dict[str, Any]
) -> groups.SenderKeyRecord | None:
    assert record is not None
    for _ in range(step["count"]):
        record, _data = groups.encrypt(record, b"", lambda count: bytes(count))
    return record


SENDER_KEY_STEPS: dict[
    str, Callable[[groups.SenderKeyRecord | None, dict[str, Any]], groups.SenderKeyRecord | None]
] = {
    "create": sender_create,
    "process": sender_process,
    "distribution": sender_distribution,
    "encrypt": sender_encrypt,
    "message": sender_message,
    "decrypt": sender_decrypt,
    "advance_sender": sender_advance,
}


# padding.json


def padding_pad(case: dict[str, Any]) -> None:
    padded = padding.pad(raw(case["plaintext"]), case["random_byte"])
    assert padded == raw(case["padded"])
    assert padding.unpad(padded) == raw(case["plaintext"])


def padding_unpad(case: dict[str, Any]) -> None:
    try:
        plaintext = padding.unpad(raw(case["padded"])).hex()
    except padding.PaddingError:
        plaintext = None
    assert plaintext == case["expect"]


# key_index_list.json


def key_index_list(case: dict[str, Any]) -> None:
    devices = [(device["id"], device["key_index"]) for device in case["devices"]]
    try:
        listed = adv.verify_key_index_list(raw(case["key_index_list"]), raw(case["identity_key"]))
    except adv.AdvError:
        assert case["valid"] is False
        assert case["keep"] == [adv.PRIMARY_DEVICE]
        return
    assert case["valid"] is True
    assert listed.verified
    assert (listed.raw_id, listed.timestamp) == (case["raw_id"], case["timestamp"])
    assert (listed.current_index, sorted(listed.valid_indexes)) == (
        case["current_index"],
        case["valid_indexes"],
    )
    assert listed.keep(devices) == case["keep"]


# session_records.json


def convert_session(case: dict[str, Any]) -> None:
    local = x3dh.LocalIdentity(pair(case["local_identity_priv"]), case["local_registration_id"])
    from_node = node.import_session(case["libsignal_node"], local, prune=False).record
    from_protobuf = protobuf.import_session(raw(case["protobuf_record"]), prune=False).record
    from_go = golang.import_session(case["libsignal_go"], prune=False).record
    expected = signal_pb2.RecordStructure.FromString(raw(case["protobuf_record"]))
    for record in (from_node, from_protobuf, from_go):
        assert SessionRecord.parse(record.serialize()) == record
        assert signal_pb2.RecordStructure.FromString(protobuf.export_session(record)) == expected
        assert json.loads(golang.export_session(record)) == json.loads(case["libsignal_go"])
        run_converted(record, local, case)
    again = node.import_session(node.export_session(from_node).value, local, prune=False).record
    assert node_view(again) == node_view(from_node)
    run_converted(again, local, case)


def node_view(record: SessionRecord) -> list[object]:
    """What a libsignal-node record can say about its sessions."""
    return [
        (state.root_key, state.sender, state.receivers, state.pending, state.base_key, state.own_base)
        for state in record.states()
    ]


def run_converted(record: SessionRecord, local: x3dh.LocalIdentity, case: dict[str, Any]) -> None:
    signed_prekeys = {case["signed_prekey"]["id"]: pair(case["signed_prekey"]["priv"])}
    for number, step in enumerate(case["steps"]):
        record = run_converted_step(record, local, step, signed_prekeys, bytes([number + 1]) * 32)


def run_converted_step(
    record: SessionRecord,
    local: x3dh.LocalIdentity,
    step: dict[str, Any],
    signed_prekeys: dict[int, curve.KeyPair],
    private: bytes,
) -> SessionRecord:
    if step["op"] == "encrypt":
        made = session.encrypt(record, local, raw(step["plaintext"]))
        assert made.kind == step.get("type", made.kind)
        if step.get("deterministic"):
            assert made.data.hex() == step["library_ciphertext"]
        return made.record
    assert step["op"] == "decrypt"
    done = session.decrypt(
        record,
        local,
        step["type"],
        raw(step["ciphertext"]),
        lambda _: None,
        signed_prekeys.get,
        lambda: curve.KeyPair.from_private(private),
    )
    assert done.plaintext.hex() == step["plaintext"]
    return done.record


def convert_sender_key(case: dict[str, Any]) -> None:
    from_node = node.import_sender_key(case["baileys_file"], prune=False).record
    from_protobuf = protobuf.import_sender_key(raw(case["protobuf_record"]), prune=False).record
    from_go = golang.import_sender_key(case["libsignal_go"], prune=False).record
    expected = signal_pb2.SenderKeyRecordStructure.FromString(raw(case["protobuf_record"]))
    for record in (from_node, from_protobuf, from_go):
        assert [state.private is not None for state in record.states] == [case["own"]]
        assert groups.SenderKeyRecord.parse(record.serialize()) == record
        exported = signal_pb2.SenderKeyRecordStructure.FromString(protobuf.export_sender_key(record))
        assert exported == expected
        assert json.loads(golang.export_sender_key(record)) == json.loads(case["libsignal_go"])
        assert node.import_sender_key(node.export_sender_key(record), prune=False).record == record
        for step in case["steps"]:
            assert step["op"] == "decrypt_group"
            record, plaintext = groups.decrypt(record, raw(step["ciphertext"]))
            assert plaintext.hex() == step["plaintext"]
        if case["own"]:
            _, data = groups.encrypt(record, b"next", lambda count: bytes(count))
            assert messages.parse_sender_key_message(data).iteration == record.states[0].iteration


FORMATS: dict[str, Format] = {
    "xeddsa": {
        "keypair": xeddsa_keypair,
        "ecdh": xeddsa_ecdh,
        "ecdh_reject": xeddsa_ecdh_reject,
        "sign_deterministic": xeddsa_sign_deterministic,
        "sign_randomised": xeddsa_signature,
        "verify": xeddsa_verify,
        "signed_prekey": xeddsa_signed_prekey,
    },
    "kdf": {
        "hkdf": kdf_hkdf,
        "x3dh": kdf_x3dh,
        "root_step": kdf_root_step,
        "chain": kdf_chain,
        "sender_chain": kdf_sender_chain,
        "aes_cbc": kdf_aes_cbc,
        "signal_message": kdf_signal_message,
        "prekey_message": kdf_prekey_message,
        "sender_key_distribution": kdf_distribution,
        "sender_key_message": kdf_sender_key_message,
    },
    "x3dh_sessions": {None: conversation},
    "sender_keys": {None: sender_key_story},
    "padding": {"pad": padding_pad, "unpad": padding_unpad},
    "key_index_list": {None: key_index_list},
    "session_records": {"session": convert_session, "sender_key": convert_sender_key},
}
