"""What makes this program one linked device of one account (chapter 08 §1.1, chapter 02 §1).

One document per session, in canonical JSON: keys sorted, no blanks, bytes in base64 with padding. Public keys have
32 bytes. Nothing here is changed in place: a change is a new object, and the caller makes it durable before acting
on it.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable
from typing import Any, Final, Protocol

import msgspec

from waD.e2ee import adv, curve
from waD.e2ee.curve import KeyPair
from waD.e2ee.limits import MAX_PREKEY_ID, MAX_REGISTRATION_ID
from waD.e2ee.x3dh import LocalIdentity
from waD.proto import adv_pb2
from waD.wire.errors import JIDError
from waD.wire.frames import MAX_ROUTING_INFO
from waD.wire.jid import JID

FORMAT_VERSION: Final = 1
ADV_SECRET_LENGTH: Final = 32
MAX_SIGNED_PREKEYS: Final = 3
"""The current signed prekey and two before it (chapter 02 §6.4)."""
MAX_CREDENTIALS_SIZE: Final = 64 * 1024
FIRST_SIGNED_PREKEY_ID: Final = 1

_NUMBER: Final = re.compile(r"[0-9]{1,19}", re.ASCII)
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
"""Half a character: JSON can spell it, UTF-8 cannot."""


class CredentialsError(ValueError):
    """A stored credentials document is damaged or of an unknown version; the message names the field."""


class _Secret(msgspec.Struct, frozen=True):
    """A struct whose fields never appear in a repr."""

    def __rich_repr__(self) -> list[Any]:
        return []


class SignedPreKey(_Secret, frozen=True, kw_only=True):
    """A signed prekey: id 1…16777215, key pair, 64-byte signature by the identity, time of making in ms."""

    id: int
    key: KeyPair
    signature: bytes
    created_ms: int = 0

    def __repr__(self) -> str:
        return f"SignedPreKey(id={self.id}, {curve.fingerprint(self.key.public)})"

    @classmethod
    def make(
        cls, key_id: int, identity: KeyPair, random: Callable[[int], bytes], created_ms: int = 0
    ) -> SignedPreKey:
        """Draw a pair and sign its public half, with the type byte, as chapter 02 §1 says."""
        key = KeyPair.generate(random)
        signature = curve.sign(identity.private, curve.serialize_key(key.public), random)
        return cls(id=key_id, key=key, signature=signature, created_ms=created_ms)

    def signed_by(self, identity: bytes) -> bool:
        """Say whether the 32-byte identity key signed this prekey."""
        return curve.verify(identity, curve.serialize_key(self.key.public), self.signature)


class Credentials(_Secret, frozen=True, kw_only=True):
    """The device credentials of a session.

    Attributes:
        noise: static key pair of the Noise handshake; never changes.
        identity: Signal identity key pair; never changes.
        registration_id: 1…16380 when made here, any 32 bits when imported.
        signed_prekeys: the current one first, then up to two before it.
        adv_secret: 32 bytes; shown in the QR code, replaced on every `pair-device`.
        account: serialised ADVSignedDeviceIdentity with all four fields, or None while unpaired.
        me_pn, me_lid: own device addresses, with device; None while unpaired (LID: or unknown).
        push_name, business_name, platform: texts, empty when unknown.
        next_prekey_id: id of the next one-time prekey to make.
        server_has_prekeys: whether an upload was ever answered since pairing.
        rotation_candidate: the next signed prekey, stored before the server hears of it; None between rotations.
        last_rotation_ms: when the current signed prekey became current, Unix ms; 0 before the first rotation.
        login_counter: successful logins since pairing; 0 means that the next login is the first.
        routing_info: what the server gave for the next connection, at most 4096 bytes.
        lid_migrated: whether the account's chats are addressed by LID.
        props_hash, props_refresh_id, props_abprops: what identifies the server properties fetched last.
        companion_enc_static: kept for export only (chapter 02 §5.1).
        nct_salt: salt for privacy tokens, or None.
        app_state_key_id: id of the app-state key in use, or None.
    """

    noise: KeyPair
    identity: KeyPair
    registration_id: int
    signed_prekeys: tuple[SignedPreKey, ...]
    adv_secret: bytes
    account: bytes | None = None
    me_pn: JID | None = None
    me_lid: JID | None = None
    push_name: str = ""
    business_name: str = ""
    platform: str = ""
    next_prekey_id: int = 1
    server_has_prekeys: bool = False
    rotation_candidate: SignedPreKey | None = None
    last_rotation_ms: int = 0
    login_counter: int = 0
    routing_info: bytes | None = None
    lid_migrated: bool = False
    props_hash: str = ""
    props_refresh_id: str = ""
    props_abprops: str = ""
    companion_enc_static: str = ""
    nct_salt: bytes | None = None
    app_state_key_id: bytes | None = None

    def __repr__(self) -> str:
        state = "registered" if self.registered else "unregistered"
        return f"Credentials({state}, noise={curve.fingerprint(self.noise.public)})"

    @property
    def registered(self) -> bool:
        """Whether an account accepted this device."""
        return self.account is not None and self.me_pn is not None

    @property
    def signed_prekey(self) -> SignedPreKey:
        """The current signed prekey."""
        return self.signed_prekeys[0]

    def find_signed_prekey(self, key_id: int) -> SignedPreKey | None:
        """The signed prekey of that id: current, previous, or one the server may have taken already."""
        staged = () if self.rotation_candidate is None else (self.rotation_candidate,)
        return next((key for key in (*self.signed_prekeys, *staged) if key.id == key_id), None)

    @property
    def account_key(self) -> bytes | None:
        """The 32-byte identity key of the account's phone (device 0), known since pairing."""
        if self.account is None:
            return None
        return adv_pb2.ADVSignedDeviceIdentity.FromString(self.account).accountSignatureKey or None

    def local_identity(self) -> LocalIdentity:
        """Who this device is in every Signal session."""
        return LocalIdentity(self.identity, self.registration_id)

    def change(self, **changes: Any) -> Credentials:
        """A copy with some fields replaced."""
        return msgspec.structs.replace(self, **changes)

    def with_new_signed_prekey(self, key: SignedPreKey, now_ms: int) -> Credentials:
        """A copy in which `key` is current; the two before it stay (chapter 02 §6.4)."""
        keys = (key, *self.signed_prekeys)[:MAX_SIGNED_PREKEYS]
        return self.change(signed_prekeys=keys, last_rotation_ms=now_ms, rotation_candidate=None)

    def repaired(self, random: Callable[[int], bytes]) -> Credentials:
        """Check an unregistered identity on load: a badly signed prekey is replaced (chapter 02 §1)."""
        if self.registered or self.signed_prekey.signed_by(self.identity.public):
            return self
        fresh = SignedPreKey.make(FIRST_SIGNED_PREKEY_ID, self.identity, random)
        return self.change(signed_prekeys=(fresh,))

    def serialize(self) -> bytes:
        """The canonical JSON document; holds private keys.

        Raises:
            CredentialsError: it would be too large to be read again.
        """
        fields = {name: _plain(getattr(self, name)) for name in self.__struct_fields__}
        fields["v"] = FORMAT_VERSION
        document = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        _check_size(document)
        return document

    @classmethod
    def parse(cls, data: bytes) -> Credentials:
        """Read a document written by `serialize`; checks lengths and that public keys fit private ones.

        Raises:
            CredentialsError: naming the field, never its value.
        """
        return _parse(data)


class CredentialStore(Protocol):
    """What is durable of a session's credentials; every method returns only when it is."""

    async def credentials(self) -> Credentials:
        """The current credentials."""
        ...

    async def change_credentials(self, change: Callable[[Credentials], Credentials]) -> Credentials:
        """Apply a pure change to the current credentials, store the result and return it."""
        ...


def new_credentials(random: Callable[[int], bytes], now_ms: int = 0) -> Credentials:
    """Make a fresh device identity (chapter 02 §1); commit it before the first connection uses it."""
    identity = KeyPair.generate(random)
    return Credentials(
        noise=KeyPair.generate(random),
        identity=identity,
        registration_id=int.from_bytes(random(8), "big") % MAX_REGISTRATION_ID + 1,
        signed_prekeys=(SignedPreKey.make(FIRST_SIGNED_PREKEY_ID, identity, random, now_ms),),
        adv_secret=random(ADV_SECRET_LENGTH),
    )


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, KeyPair):
        return {"priv": _plain(value.private), "pub": _plain(value.public)}
    if isinstance(value, SignedPreKey):
        return {name: _plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, JID) else value


class _Reader:
    """Takes typed values out of a decoded JSON object; every complaint names the field."""

    def __init__(self, fields: object, where: str = "") -> None:
        if not isinstance(fields, dict):
            raise CredentialsError(f"credentials {where or 'document'} is not an object")
        self._fields = fields
        self._where = where

    def _get(self, name: str, *types: type) -> Any:
        value = self._fields.get(name)
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise CredentialsError(f"credentials field {self._where}{name} is missing or of the wrong type")
        return value

    def text(self, name: str) -> str:
        value: str = self._get(name, str)
        if not value.isascii() and _SURROGATE.search(value):
            raise CredentialsError(f"credentials field {self._where}{name} is not text")
        return value

    def flag(self, name: str) -> bool:
        value: bool = self._get(name, bool)
        return value

    def number(self, name: str, low: int, high: int) -> int:
        value: int = self._get(name, int)
        if not low <= value <= high:
            raise CredentialsError(f"credentials field {self._where}{name} is outside {low}…{high}")
        return value

    def data(self, name: str, length: int) -> bytes:
        value = self.optional_data(name, length)
        if value is None or len(value) != length:
            raise CredentialsError(f"credentials field {self._where}{name} is not {length} bytes in base64")
        return value

    def optional_data(self, name: str, longest: int) -> bytes | None:
        value = self._get(name, str, type(None))
        if value is None:
            return None
        try:
            data = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            raise CredentialsError(f"credentials field {self._where}{name} is not base64") from None
        if len(data) > longest:
            raise CredentialsError(f"credentials field {self._where}{name} is longer than {longest} bytes")
        return data

    def own_address(self, name: str, *, lid: bool) -> JID | None:
        """A device address by LID, or by phone number: a login sends its digits."""
        value = self._get(name, str, type(None))
        if value is None:
            return None
        try:
            jid = JID.parse(value)
        except JIDError:
            raise CredentialsError(f"credentials field {self._where}{name} is not an address") from None
        if not (jid.is_lid if lid else jid.is_pn and _NUMBER.fullmatch(jid.user)):
            kind = "LID" if lid else "phone number"
            raise CredentialsError(f"credentials field {self._where}{name} is not an address by {kind}")
        return jid

    def inner(self, name: str) -> _Reader:
        return _Reader(self._fields.get(name), f"{self._where}{name}.")

    def pair(self, name: str) -> KeyPair:
        inner = self.inner(name)
        pair = KeyPair.from_private(inner.data("priv", curve.KEY_LENGTH))
        if pair.public != inner.data("pub", curve.KEY_LENGTH):
            raise CredentialsError(f"credentials field {self._where}{name}: the public key is not its own")
        return pair

    def signed_prekeys(self) -> tuple[SignedPreKey, ...]:
        listed: list[object] = self._get("signed_prekeys", list)
        if not 1 <= len(listed) <= MAX_SIGNED_PREKEYS:
            raise CredentialsError(f"credentials hold {len(listed)} signed prekeys")
        return tuple(
            _Reader(fields, f"signed_prekeys[{n}].").signed_prekey() for n, fields in enumerate(listed)
        )

    def signed_prekey(self) -> SignedPreKey:
        return SignedPreKey(
            id=self.number("id", 1, MAX_PREKEY_ID),
            key=self.pair("key"),
            signature=self.data("signature", curve.SIGNATURE_LENGTH),
            created_ms=self.number("created_ms", 0, 2**63),
        )

    def has(self, name: str) -> bool:
        return self._fields.get(name) is not None


def _parse(data: bytes) -> Credentials:
    _check_size(data)
    try:
        reader = _Reader(json.loads(data))
    except (ValueError, RecursionError):
        raise CredentialsError("the credentials document is not JSON") from None
    reader.number("v", FORMAT_VERSION, FORMAT_VERSION)
    account = reader.optional_data("account", 4096)
    if account is not None:
        _check_account(account)
    return Credentials(
        noise=reader.pair("noise"),
        identity=reader.pair("identity"),
        registration_id=reader.number("registration_id", 0, 0xFFFFFFFF),
        signed_prekeys=reader.signed_prekeys(),
        adv_secret=reader.data("adv_secret", ADV_SECRET_LENGTH),
        account=account,
        me_pn=reader.own_address("me_pn", lid=False),
        me_lid=reader.own_address("me_lid", lid=True),
        push_name=reader.text("push_name"),
        business_name=reader.text("business_name"),
        platform=reader.text("platform"),
        next_prekey_id=reader.number("next_prekey_id", 1, MAX_PREKEY_ID),
        server_has_prekeys=reader.flag("server_has_prekeys"),
        rotation_candidate=(
            reader.inner("rotation_candidate").signed_prekey() if reader.has("rotation_candidate") else None
        ),
        last_rotation_ms=reader.number("last_rotation_ms", 0, 2**63),
        login_counter=reader.number("login_counter", 0, 2**31 - 1),
        routing_info=reader.optional_data("routing_info", MAX_ROUTING_INFO),
        lid_migrated=reader.flag("lid_migrated"),
        props_hash=reader.text("props_hash"),
        props_refresh_id=reader.text("props_refresh_id"),
        props_abprops=reader.text("props_abprops"),
        companion_enc_static=reader.text("companion_enc_static"),
        nct_salt=reader.optional_data("nct_salt", 1024),
        app_state_key_id=reader.optional_data("app_state_key_id", 64),
    )


def _check_size(document: bytes) -> None:
    if len(document) > MAX_CREDENTIALS_SIZE:
        raise CredentialsError(
            f"a credentials document of {len(document)} bytes; {MAX_CREDENTIALS_SIZE} is the most"
        )


def _check_account(account: bytes) -> None:
    try:
        adv.parse_signed_identity(account)
    except adv.AdvError:
        raise CredentialsError("credentials field account is not a signed device identity") from None
