"""An auth state with something of every kind, and archives of it."""

from __future__ import annotations

import base64
import io
import os
import tarfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from tests.e2ee.parties import Device
from tests.messaging.accounts import OWN_LID, OWN_PN, START_MS, paired_credentials
from waD.e2ee import groups
from waD.e2ee.curve import KeyPair
from waD.e2ee.syncd.lthash import lt_hash
from waD.e2ee.x3dh import LocalIdentity
from waD.link.credentials import Credentials
from waD.link.prekeys import draw_prekeys, uploaded
from waD.messaging import kinds
from waD.messaging.values import encode_identity, encode_text
from waD.store.canonical import canonical
from waD.store.model import SessionRow
from waD.transfer.archive import SessionContent, StoredItem
from waD.transfer.archive_writing import About, write_archive
from waD.transfer.sealing import Readable, Writable
from waD.transfer.state import AuthState

NOW = START_MS + 3_600_000
SESSION_ID = "6f1c2d3e-0000-4000-8000-00000000000a"
OTHER_ID = "6f1c2d3e-0000-4000-8000-00000000000b"
BOB = "200000000000002_1.0"
CAROL = "15550000003.0"
GROUP = "120363000000000001@g.us"
OWN_KEY = f"{GROUP}|{OWN_LID.user}_1.{OWN_LID.device}"
PEER_KEY = f"{GROUP}|{BOB}"
VERSION = 41
ABOUT = About(NOW, "waD 1.2.3", 2)

Items = dict[tuple[str, str], bytes]


@dataclass
class Sample:
    """A state, and the devices behind its sessions."""

    state: AuthState
    me: Device
    bob: Device
    carol: Device
    phone: KeyPair

    def with_items(self, changes: Mapping[tuple[str, str], bytes | None]) -> AuthState:
        """The state with some items replaced, added or (None) gone."""
        items = dict(self.state.items)
        for key, value in changes.items():
            if value is None:
                del items[key]
            else:
                items[key] = value
        return AuthState(self.state.creds, items)

    def with_creds(self, **changes: Any) -> AuthState:
        return AuthState(self.state.creds.change(**changes), self.state.items)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def a_sample(seed: int = 1) -> Sample:
    phone = KeyPair.generate(os.urandom)
    creds = paired_credentials(phone).change(next_prekey_id=6, server_has_prekeys=True)
    me, bob, carol = Device("me", seed), Device("bob", seed + 1), Device("carol", seed + 2)
    me.local = LocalIdentity(creds.identity, creds.registration_id)
    bob.receive(me, me.send(bob, b"hello"))
    me.receive(bob, bob.send(me, b"hello back"))
    late = bob.send(me, b"late")
    me.receive(bob, bob.send(me, b"overtakes"))
    bob.stored["late"] = late[1]
    me.send(carol, b"not answered yet")
    return Sample(AuthState(creds, _items(creds, me, bob, carol, phone)), me, bob, carol, phone)


def _items(creds: Credentials, me: Device, bob: Device, carol: Device, phone: KeyPair) -> Items:
    items: Items = {
        (kinds.SESSION, BOB): me.stored["bob"],
        (kinds.SESSION, CAROL): me.stored["carol"],
        (kinds.IDENTITY, BOB): encode_identity(bob.local.identity.public),
        (kinds.IDENTITY, CAROL): encode_identity(carol.local.identity.public),
        (kinds.IDENTITY, f"{OWN_LID.user}_1.0"): encode_identity(phone.public),
        (kinds.SENDER_KEY, OWN_KEY): groups.create(os.urandom).serialize(),
        (kinds.SENDER_KEY, PEER_KEY): _peer_key(),
        (kinds.SENDER_KEY_MEMORY, GROUP): canonical(["200000000000002:1@lid", "200000000000002@lid"]),
        (kinds.LID_OF_PN, "15550000002"): encode_text("200000000000002"),
        (kinds.PN_OF_LID, "200000000000002"): encode_text("15550000002"),
        (kinds.LID_OF_PN, OWN_PN.user): encode_text(OWN_LID.user),
        (kinds.PN_OF_LID, OWN_LID.user): encode_text(OWN_PN.user),
        (kinds.DEVICES, "200000000000002@lid"): canonical({"devices": []}),
        (kinds.RETRY, "a|b|c"): canonical({"asked": 1}),
        (kinds.IDENTITY_CHANGE, BOB): encode_text("told"),
        (kinds.NUMBER_ALIAS, "5511999999999"): encode_text("551199999999"),
        (kinds.TRUSTED_CONTACT, "200000000000002@lid"): canonical(
            {"token": b64(b"token"), "ts": 1_700_000_000, "sent": None}
        ),
        **_app_state(),
    }
    for prekey in draw_prekeys(1, 5, (), os.urandom):
        items[kinds.PREKEY, str(prekey.id)] = (uploaded(prekey) if prekey.id < 4 else prekey).serialize()
    return items


def _peer_key() -> bytes:
    theirs = groups.create(os.urandom)
    ours = groups.process_distribution(None, groups.distribution(theirs))
    letters = []
    for text in (b"one", b"two", b"three"):
        theirs, letter = groups.encrypt(theirs, text, os.urandom)
        letters.append(letter)
    ours, _ = groups.decrypt(ours, letters[2], NOW)
    return ours.serialize()


def _app_state() -> Items:
    macs = {os.urandom(32): os.urandom(32) for _ in range(3)}
    version = {
        "version": 7,
        "hash": b64(lt_hash(macs.values())),
        "macs": {b64(index): b64(value) for index, value in macs.items()},
    }
    fingerprint = {"rawId": 1, "currentIndex": 2, "deviceIndexes": [0, 1]}
    key = {"data": b64(os.urandom(32)), "fingerprint": fingerprint, "ts": START_MS}
    return {
        (kinds.APP_STATE_VERSION, "regular"): canonical(version),
        (kinds.APP_STATE_KEY, "0001a2b3c4d5"): canonical(key),
    }


# ------------------------------------------------------------------------------------------------------ archives


def a_row(session_id: str = SESSION_ID, name: str = "alerts", **columns: Any) -> SessionRow:
    return SessionRow(
        id=session_id,
        name=name,
        me_pn=str(OWN_PN),
        me_lid=str(OWN_LID),
        push_name="Alerts",
        auth_epoch=2,
        auth_version=VERSION,
        lease_token=9,
        lease_holder="host/1",
        lease_expires_at=NOW,
        **columns,
    )


def content_of(state: AuthState, row: SessionRow | None = None, **more: Any) -> SessionContent:
    items = [
        StoredItem(kind, key, index % (VERSION + 1), document)
        for index, ((kind, key), document) in enumerate(sorted(state.items.items()))
    ]
    return SessionContent(row or a_row(), state.creds.serialize(), 3, items, **more)


def archive_of(
    contents: SessionContent | Iterable[SessionContent],
    spool: Path,
    about: About = ABOUT,
    *,
    compress: bool = False,
    seal: Callable[[Readable, Writable], None] | None = None,
) -> bytes:
    out = io.BytesIO()
    listed = [contents] if isinstance(contents, SessionContent) else contents
    write_archive(out, listed, about, spool, seal=seal, compress=compress)
    return out.getvalue()


@dataclass
class Taken:
    """An archive taken apart, to be put together wrongly."""

    members: dict[str, bytes] = field(default_factory=dict)

    @classmethod
    def apart(cls, archive: bytes) -> Taken:
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            return cls({info.name: tar.extractfile(info).read() for info in tar})  # type: ignore[union-attr]

    def together(self, *, sums: bool = True) -> bytes:
        """A tar of the members in their order; `sums` renews SHA256SUMS, which stands last."""
        if sums:
            self.members.pop("SHA256SUMS", None)
            lines = [f"{sha256(data).hexdigest()}  {name}\n" for name, data in self.members.items()]
            self.members["SHA256SUMS"] = "".join(lines).encode()
        return raw_tar([(tarfile.TarInfo(name), data) for name, data in self.members.items()])


def raw_tar(members: Iterable[tuple[tarfile.TarInfo, bytes]], format_: int = tarfile.USTAR_FORMAT) -> bytes:
    parts = []
    for info, data in members:
        info.size = len(data)
        parts += [info.tobuf(format_), data, bytes(-len(data) % 512)]
    return b"".join((*parts, bytes(1024)))
