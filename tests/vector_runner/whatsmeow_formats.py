"""Checks of whatsmeow_sqlite.json: a database of whatsmeow is imported, and its conversations go on."""

from __future__ import annotations

import base64
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.vector_runner.core import Format
from waD.e2ee import curve, groups, padding, session, x3dh
from waD.e2ee.address import SignalAddress
from waD.e2ee.errors import SignalError
from waD.e2ee.groups import SenderKeyRecord
from waD.e2ee.interop import node
from waD.e2ee.interop.common import decode_bytes, read_bytes
from waD.e2ee.record import SessionRecord
from waD.link.prekeys import OneTimePreKey
from waD.messaging import kinds
from waD.messaging.records import sender_key_name
from waD.messaging.values import decode_identity, decode_text
from waD.proto import e2e_pb2
from waD.transfer.state import AuthState
from waD.transfer.whatsmeow import import_device
from waD.wire.jid import JID

QUIET_MS = 61_000


def raw(text: str) -> bytes:
    return bytes.fromhex(text)


def address(text: str) -> SignalAddress:
    jid = JID.parse(text)
    return SignalAddress(jid.user, jid.signal_domain, jid.device)


@dataclass
class Imported:
    """The imported device: every step reads its items from their stored form and stores them again."""

    state: AuthState
    items: dict[tuple[str, str], bytes]

    @property
    def local(self) -> x3dh.LocalIdentity:
        return self.state.creds.local_identity()

    def record(self, who: SignalAddress) -> SessionRecord | None:
        stored = self.items.get((kinds.SESSION, who.text))
        return None if stored is None else SessionRecord.parse(stored)

    def prekey(self, key_id: int) -> curve.KeyPair | None:
        stored = self.items.get((kinds.PREKEY, str(key_id)))
        return None if stored is None else OneTimePreKey.parse(key_id, stored).key

    def signed_prekey(self, key_id: int) -> curve.KeyPair | None:
        found = self.state.creds.find_signed_prekey(key_id)
        return None if found is None else found.key

    def decrypt(self, step: dict[str, Any]) -> bytes:
        who = address(step["from"])
        done = session.decrypt(
            self.record(who),
            self.local,
            step["type"],
            raw(step["ciphertext"]),
            self.prekey,
            self.signed_prekey,
            lambda: curve.KeyPair.from_private(bytes([7]) * 32),
        )
        self.items[kinds.SESSION, who.text] = done.record.serialize()
        if done.consumed_prekey is not None:
            del self.items[kinds.PREKEY, str(done.consumed_prekey)]
        return done.plaintext

    def encrypt(self, step: dict[str, Any]) -> bytes:
        who = address(step["to"])
        record = self.record(who)
        assert record is not None
        made = session.encrypt(record, self.local, raw(step["plaintext"]))
        assert made.kind == step["type"]
        self.items[kinds.SESSION, who.text] = made.record.serialize()
        return made.data

    def sender_key(self, step: dict[str, Any], author: str) -> tuple[str, SenderKeyRecord]:
        name = sender_key_name(JID.parse(step["group"]), address(step[author]))
        return name, SenderKeyRecord.parse(self.items[kinds.SENDER_KEY, name])

    def decrypt_group(self, step: dict[str, Any]) -> bytes:
        name, record = self.sender_key(step, "author")
        after, plaintext = groups.decrypt(record, raw(step["ciphertext"]))
        self.items[kinds.SENDER_KEY, name] = after.serialize()
        return plaintext

    def encrypt_group(self, step: dict[str, Any]) -> bytes:
        name, record = self.sender_key(step, "me")
        after, data = groups.encrypt(record, raw(step["plaintext"]), lambda count: bytes(count))
        self.items[kinds.SENDER_KEY, name] = after.serialize()
        return data


@dataclass
class Peer:
    """A device on Baileys, by the files of its directory."""

    files: dict[str, Any]

    def loaded(self, name: str) -> Any:
        text = self.files.get(name)
        return None if text is None else json.loads(text)

    def pair(self, value: dict[str, Any]) -> curve.KeyPair:
        return curve.KeyPair.from_private(read_bytes(value["private"], curve.KEY_LENGTH, "private key"))

    def decrypt(self, sender: SignalAddress, kind: str, data: bytes) -> bytes:
        creds = self.loaded("creds.json")
        local = x3dh.LocalIdentity(self.pair(creds["signedIdentityKey"]), creds["registrationId"])
        stored = self.files.get(f"session-{sender.text}.json")
        signed = creds["signedPreKey"]

        def prekey(key_id: int) -> curve.KeyPair | None:
            value = self.loaded(f"pre-key-{key_id}.json")
            return None if value is None else self.pair(value)

        return session.decrypt(
            None if stored is None else node.import_session(stored, local).record,
            local,
            "pkmsg" if kind == "pkmsg" else "msg",
            data,
            prekey,
            {signed["keyId"]: self.pair(signed["keyPair"])}.get,
            lambda: curve.KeyPair.from_private(bytes([9]) * 32),
        ).plaintext

    def decrypt_group(self, group: str, sender: SignalAddress, data: bytes) -> bytes:
        name = f"sender-key-{group}--{sender.text.replace('.', '--')}.json"
        record = node.import_sender_key(decode_bytes(self.loaded(name), "sender key")).record
        return groups.decrypt(record, data)[1]


def load(case: dict[str, Any]) -> AuthState:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "whatsmeow.db"
        path.write_bytes(base64.b64decode(case["sqlite_base64"]))
        now_ms = path.stat().st_mtime_ns // 1_000_000 + QUIET_MS
        state, report = import_device(str(path), stopped=True, now_ms=now_ms)
    assert state is not None, report.notes
    assert not [note for note in report.notes if note.code != "not_taken"], report.notes
    return state


def check_contents(state: AuthState, expect: dict[str, Any]) -> None:
    creds = state.creds
    assert (str(creds.me_pn), str(creds.me_lid)) == (expect["me"]["id"], expect["me"]["lid"])
    assert (creds.business_name, creds.platform) == (expect["business_name"], expect["platform"])
    assert creds.identity.public.hex() == expect["identity_pub"]
    assert creds.adv_secret.hex() == expect["adv_secret"]
    assert creds.registration_id == expect["registration_id"]
    signed = expect["signed_prekey"]
    assert creds.signed_prekey.id == signed["id"]
    assert creds.signed_prekey.key.public.hex() == signed["pub"]
    assert creds.signed_prekey.signature.hex() == signed["signature"]
    prekeys = {
        int(key): OneTimePreKey.parse(int(key), value) for key, value in state.of(kinds.PREKEY).items()
    }
    left = set(expect["uploaded_prekey_ids"]) - set(expect["consumed_prekey_ids"])
    assert {number for number, key in prekeys.items() if key.state == "uploaded"} == left
    assert creds.server_has_prekeys
    assert creds.next_prekey_id > max(expect["uploaded_prekey_ids"])
    key = expect["app_state_key"]
    document = json.loads(state.items[kinds.APP_STATE_KEY, key["key_id"]])
    assert base64.b64decode(document["data"]).hex() == key["key_data"]
    assert document["ts"] == key["timestamp_ms"]
    assert creds.app_state_key_id == raw(key["key_id"])
    mapped = {pn: decode_text(lid) for pn, lid in state.of(kinds.LID_OF_PN).items()}
    assert mapped == expect["lid_map"]
    assert {decode_text(pn): lid for lid, pn in state.of(kinds.PN_OF_LID).items()} == mapped
    phone = SignalAddress(JID.parse(expect["me"]["lid"]).user, 1, 0)
    assert decode_identity(state.items[kinds.IDENTITY, phone.text]) == creds.account_key


def whatsmeow(case: dict[str, Any]) -> None:
    state = load(case)
    check_contents(state, case["expect"])
    imported = Imported(state, dict(state.items))
    peers = {name: Peer(peer["files"]) for name, peer in case["peers"].items()}
    for number, step in enumerate(case["expect"]["steps"]):
        try:
            run_step(imported, peers, step)
        except Exception as error:
            raise AssertionError(f"step {number} {step['op']}: {error!r}") from error


def run_step(imported: Imported, peers: dict[str, Peer], step: dict[str, Any]) -> None:
    operation = step["op"]
    if operation == "decrypt":
        assert imported.decrypt(step).hex() == step["plaintext"]
    elif operation == "decrypt_fails":
        before = dict(imported.items)
        try:
            imported.decrypt(step)
        except SignalError:
            assert imported.items == before
        else:
            raise AssertionError(f"decrypted what must fail: {step['reason']}")
    elif operation == "decrypt_group":
        message = e2e_pb2.Message.FromString(padding.unpad(imported.decrypt_group(step)))
        assert message.conversation == step["plaintext_message"]
    elif operation == "encrypt":
        data = imported.encrypt(step)
        seen = peers[step["peer"]].decrypt(address(step["from_as_peer_sees"]), step["type"], data)
        assert seen.hex() == step["plaintext"]
    else:
        assert operation == "encrypt_group"
        data = imported.encrypt_group(step)
        seen = peers[step["peer"]].decrypt_group(step["group"], address(step["me"]), data)
        assert seen.hex() == step["plaintext"]


FORMATS: dict[str, Format] = {"whatsmeow_sqlite": {None: whatsmeow}}
