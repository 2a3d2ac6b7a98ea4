"""How vectors of auth states are checked: directories of Baileys are imported, used, exported, imported again."""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.vector_runner.core import Format
from waD.e2ee import curve, groups, messages, session
from waD.e2ee.address import SignalAddress
from waD.e2ee.curve import KeyPair
from waD.e2ee.errors import SignalError
from waD.link.credentials import Credentials
from waD.link.prekeys import OneTimePreKey
from waD.messaging import kinds
from waD.messaging.records import sender_key_name
from waD.messaging.values import decode_text
from waD.proto import adv_pb2
from waD.transfer.baileys import convert, read_directory
from waD.transfer.baileys.export import write_directory
from waD.transfer.state import AuthState, Report
from waD.transfer.verify import verify
from waD.wire.jid import JID

NOW_MS = 1_763_100_000_000


def raw(text: str) -> bytes:
    return bytes.fromhex(text)


def write_files(directory: Path, files: Mapping[str, str]) -> None:
    for name, content in files.items():
        (directory / name).write_text(content)


def imported(files: Mapping[str, str]) -> tuple[AuthState | None, Report]:
    with tempfile.TemporaryDirectory() as path:
        write_files(Path(path), files)
        return convert(read_directory(Path(path), now_ms=NOW_MS, stopped=True), NOW_MS)


def imported_state(files: Mapping[str, str]) -> AuthState:
    state, report = imported(files)
    assert state is not None, [str(note) for note in report.notes]
    return state


def as_companion(files: Mapping[str, str]) -> dict[str, str]:
    """A peer may be a phone, which no import would take for a linked device; nothing else depends on its number."""
    creds = json.loads(files["creds.json"])
    user, _, server = creds["me"]["id"].partition("@")
    if ":" not in user:
        creds["me"]["id"] = f"{user}:1@{server}"
    return dict(files) | {"creds.json": json.dumps(creds)}


class Device:
    """A device that lives on an imported state; every step stores what it changed, as bytes."""

    def __init__(self, state: AuthState, seed: str) -> None:
        self.creds = state.creds
        self.items = dict(state.items)
        self._draws = 0
        self._seed = seed

    def random(self, count: int) -> bytes:
        self._draws += 1
        return (f"{self._seed} {self._draws} ".encode() * count)[:count]

    def address(self, jid: JID) -> str:
        """By LID whenever the map knows it."""
        lid = self.items.get((kinds.LID_OF_PN, jid.user)) if jid.is_pn else None
        if lid is not None:
            return SignalAddress(decode_text(lid), 1, jid.device).text
        return SignalAddress(jid.user, jid.signal_domain, jid.device).text

    def record(self, address: str) -> session.SessionRecord | None:
        stored = self.items.get((kinds.SESSION, address))
        return None if stored is None else session.SessionRecord.parse(stored)

    def prekey(self, key_id: int) -> KeyPair | None:
        stored = self.items.get((kinds.PREKEY, str(key_id)))
        return None if stored is None else OneTimePreKey.parse(key_id, stored).key

    def signed_prekey(self, key_id: int) -> KeyPair | None:
        found = self.creds.find_signed_prekey(key_id)
        return None if found is None else found.key

    def decrypt(self, sender: JID, kind: str, ciphertext: bytes) -> bytes:
        address = self.address(sender)
        done = session.decrypt(
            self.record(address),
            self.creds.local_identity(),
            kind,
            ciphertext,
            self.prekey,
            self.signed_prekey,
            lambda: KeyPair.generate(self.random),
            NOW_MS,
        )
        if done.consumed_prekey is not None:
            del self.items[kinds.PREKEY, str(done.consumed_prekey)]
        self.items[kinds.SESSION, address] = done.record.serialize()
        return done.plaintext

    def encrypt(self, to: JID, plaintext: bytes) -> session.Encrypted:
        address = self.address(to)
        record = self.record(address)
        assert record is not None
        made = session.encrypt(record, self.creds.local_identity(), plaintext, NOW_MS)
        self.items[kinds.SESSION, address] = made.record.serialize()
        return made

    def sender_key(self, group: JID, author: JID) -> tuple[str, groups.SenderKeyRecord]:
        name = sender_key_name(group, SignalAddress.parse(self.address(author)))
        return name, groups.SenderKeyRecord.parse(self.items[kinds.SENDER_KEY, name])

    def decrypt_group(self, group: JID, author: JID, ciphertext: bytes) -> bytes:
        name, record = self.sender_key(group, author)
        record, plaintext = groups.decrypt(record, ciphertext, NOW_MS)
        self.items[kinds.SENDER_KEY, name] = record.serialize()
        return plaintext

    def encrypt_group(self, group: JID, me: JID, plaintext: bytes) -> bytes:
        name, record = self.sender_key(group, me)
        record, ciphertext = groups.encrypt(record, plaintext, self.random)
        self.items[kinds.SENDER_KEY, name] = record.serialize()
        return ciphertext


Peers = dict[str, Device]


def step_decrypt(device: Device, peers: Peers, step: dict[str, Any]) -> None:
    plaintext = device.decrypt(JID.parse(step["from"]), step["type"], raw(step["ciphertext"]))
    assert plaintext == raw(step["plaintext"])


def step_decrypt_fails(device: Device, peers: Peers, step: dict[str, Any]) -> None:
    before = dict(device.items)
    try:
        device.decrypt(JID.parse(step["from"]), step["type"], raw(step["ciphertext"]))
    except SignalError:
        assert device.items == before
        return
    raise AssertionError(f"decrypted: {step['reason']}")


def step_encrypt(device: Device, peers: Peers, step: dict[str, Any]) -> None:
    made = device.encrypt(JID.parse(step["to"]), raw(step["plaintext"]))
    assert made.kind == step.get("type", made.kind)
    if step.get("deterministic"):
        assert parsed(made.kind, made.data) == parsed(step["type"], raw(step["library_ciphertext"]))
    peer = peers[step["peer"]]
    assert peer.decrypt(JID.parse(step["from_as_peer_sees"]), made.kind, made.data) == raw(step["plaintext"])


def parsed(kind: str, data: bytes) -> object:
    """What a message says, whatever the order of its fields; its MAC covers the order of the inner ones."""
    return messages.parse_prekey_message(data) if kind == "pkmsg" else messages.parse_signal_message(data)


def step_decrypt_group(device: Device, peers: Peers, step: dict[str, Any]) -> None:
    group, author = JID.parse(step["group"]), JID.parse(step["author"])
    assert device.decrypt_group(group, author, raw(step["ciphertext"])) == raw(step["plaintext"])


def step_encrypt_group(device: Device, peers: Peers, step: dict[str, Any]) -> None:
    group, me = JID.parse(step["group"]), JID.parse(step["me"])
    data = device.encrypt_group(group, me, raw(step["plaintext"]))
    assert peers[step["peer"]].decrypt_group(group, me, data) == raw(step["plaintext"])


STEPS: dict[str, Callable[[Device, Peers, dict[str, Any]], None]] = {
    "decrypt": step_decrypt,
    "decrypt_fails": step_decrypt_fails,
    "encrypt": step_encrypt,
    "decrypt_group": step_decrypt_group,
    "encrypt_group": step_encrypt_group,
}


def run_steps(state: AuthState, case: dict[str, Any]) -> None:
    device = Device(state, case["name"])
    peers = {
        name: Device(imported_state(as_companion(values["files"])), f"{case['name']} {name}")
        for name, values in case["peers"].items()
    }
    for number, step in enumerate(case["expect"]["steps"]):
        try:
            STEPS[step["op"]](device, peers, step)
        except Exception as error:
            raise AssertionError(f"step {number} {step['op']} {step.get('note', '')}: {error!r}") from error


def check_creds(creds: Credentials, expect: dict[str, Any]) -> None:
    assert (creds.noise.public.hex(), creds.noise.private.hex()) == (
        expect["noise_pub"],
        expect["noise_priv"],
    )
    assert creds.identity.public.hex() == expect["identity_pub"]
    assert creds.identity.private.hex() == expect["identity_priv"]
    assert creds.registration_id == expect["registration_id"]
    signed, wanted = creds.signed_prekey, expect["signed_prekey"]
    assert (signed.id, signed.key.public.hex()) == (wanted["id"], wanted["pub"])
    assert (signed.key.private.hex(), signed.signature.hex()) == (wanted["priv"], wanted["signature"])
    assert creds.adv_secret.hex() == expect["adv_secret"]
    assert creds.next_prekey_id == expect["next_prekey_id"]
    assert creds.registered is expect["paired"]
    me = expect["me"]
    assert (str(creds.me_pn), creds.push_name) == (me["id"], me["name"])
    assert (None if creds.me_lid is None else str(creds.me_lid)) == me.get("lid")
    assert creds.platform == expect["platform"]
    account = adv_pb2.ADVSignedDeviceIdentity.FromString(creds.account or b"")
    assert expect["account"] == {
        "details": account.details.hex(),
        "account_signature_key": account.accountSignatureKey.hex(),
        "account_signature": account.accountSignature.hex(),
        "device_signature": account.deviceSignature.hex(),
    }
    if "routing_info" in expect:
        assert (creds.routing_info or b"").hex() == expect["routing_info"]


KINDS = {
    "pre-key": kinds.PREKEY,
    "session": kinds.SESSION,
    "sender-key": kinds.SENDER_KEY,
    "sender-key-memory": kinds.SENDER_KEY_MEMORY,
    "app-state-sync-key": kinds.APP_STATE_KEY,
    "app-state-sync-version": kinds.APP_STATE_VERSION,
}
"""Types of which every item becomes one of ours."""


def check_items(state: AuthState, expect: dict[str, Any]) -> None:
    there = expect["files_by_type_as_file_ids"]
    for name, kind in KINDS.items():
        assert len(state.of(kind)) == len(there.get(name, ())), name
    assert set(there.get("pre-key", ())) == state.of(kinds.PREKEY).keys()
    assert set(there.get("session", ())) == state.of(kinds.SESSION).keys()
    assert set(there.get("identity-key", ())) <= state.of(kinds.IDENTITY).keys()
    assert state.of(kinds.DEVICES) == {}
    first = expect["first_unuploaded_prekey_id"]
    for key_id, document in state.of(kinds.PREKEY).items():
        assert OneTimePreKey.parse(int(key_id), document).state == (
            "uploaded" if int(key_id) < first else "new"
        )


def check_lid_map(state: AuthState, pairs: dict[str, str]) -> None:
    assert {pn: decode_text(lid) for pn, lid in state.of(kinds.LID_OF_PN).items()} == pairs
    assert {decode_text(pn): lid for lid, pn in state.of(kinds.PN_OF_LID).items()} == pairs


def check_app_state(state: AuthState, expect: dict[str, Any]) -> None:
    key = json.loads(state.items[kinds.APP_STATE_KEY, expect["key_id"]])
    assert base64.b64decode(key["data"]).hex() == expect["key_data"]
    assert (key["fingerprint"], key["ts"]) == (expect["fingerprint"], expect["timestamp_ms"])
    for name, wanted in expect["versions"].items():
        found = json.loads(state.items[kinds.APP_STATE_VERSION, name])
        assert found["version"] == wanted["version"]
        assert base64.b64decode(found["hash"]).hex() == wanted["hash"]
        macs = {
            base64.b64decode(index).hex(): base64.b64decode(mac).hex() for index, mac in found["macs"].items()
        }
        assert macs == wanted["index_value_map"]


def check_own_sender_key(state: AuthState, expect: dict[str, Any]) -> None:
    own = state.creds.me_lid or state.creds.me_pn
    assert own is not None
    name = sender_key_name(JID.parse(expect["group"]), SignalAddress(own.user, own.signal_domain, own.device))
    newest = groups.SenderKeyRecord.parse(state.items[kinds.SENDER_KEY, name]).states[0]
    assert (newest.iteration, newest.seeds) == (expect["next_unused_iteration"], b"")
    assert newest.private is not None
    assert curve.KeyPair.from_private(newest.private).public == newest.public


CHECKS: dict[str, Callable[[AuthState, Any], None]] = {
    "lid_map": check_lid_map,
    "app_state": check_app_state,
    "own_sender_key": check_own_sender_key,
}


def check_state(state: AuthState, expect: dict[str, Any]) -> None:
    check_creds(state.creds, expect)
    check_items(state, expect)
    for name, check in CHECKS.items():
        if name in expect:
            check(state, expect[name])
    report = verify(state, NOW_MS)
    assert report.ok, [str(note) for note in report.errors]


def baileys_directory(case: dict[str, Any]) -> None:
    state, report = imported(case["files"])
    assert state is not None, [str(note) for note in report.notes]
    assert {note.code for note in report.warnings} <= {"creds_field_dropped"}
    check_state(state, case["expect"])
    run_steps(state, case)
    again = there_and_back(state)
    check_state(again, case["expect"])
    run_steps(again, case)


def there_and_back(state: AuthState) -> AuthState:
    """Export to a directory, and import that."""
    with tempfile.TemporaryDirectory() as path:
        exported = write_directory(state, Path(path))
        assert {note.code for note in exported.notes} <= {"prekey_states_lost"}
        again, report = convert(read_directory(Path(path), now_ms=NOW_MS, stopped=True), NOW_MS)
    assert again is not None, [str(note) for note in report.notes]
    assert [str(note) for note in report.notes] == []
    return again


def baileys_refused(case: dict[str, Any]) -> None:
    """An input with one fault: refused by its code, or imported without what is wrong with it."""
    state, report = imported(case["files"])
    if case["expect_error"] is not None:
        assert state is None
        assert report.errors[0].code == case["expect_error"]
        return
    assert state is not None, [str(note) for note in report.notes]
    assert [note.code for note in report.warnings] == [case["expect_warning"]]
    for kind, count in case.get("expect_dropped", {}).items():
        there = sum(name.startswith(f"{kind}-") for name in case["files"])
        assert len(state.of(KINDS[kind])) == there - count
    assert verify(state, NOW_MS).ok


FORMATS: dict[str, Format] = {"baileys_auth_dirs": {None: baileys_directory, "negative": baileys_refused}}
