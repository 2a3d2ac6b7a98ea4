"""ClientPayload: what the client says about itself inside the handshake (chapter 02 §2)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from waD.link.credentials import Credentials
from waD.link.stanzas import big_endian
from waD.proto import payload_pb2
from waD.proto.payload_pb2 import ClientPayload, DeviceProps
from waD.wire.jid import JID

DEFAULT_VERSION: Final = (2, 3000, 1045649367)
"""The build pinned when this was written; an operator or a refresh replaces it (chapter 02 §2.3)."""
DEVICE_PROPS_VERSION: Final = (10, 15, 7)
STORAGE_QUOTA_MB: Final = 10240
KEY_TYPE: Final = b"\x05"

_UserAgent = ClientPayload.UserAgent
_WebInfo = ClientPayload.WebInfo
_DESKTOP: Final = "Desktop"
_FULL_HISTORY_PLATFORMS: Final = {"Mac OS": _WebInfo.DARWIN, "Windows": _WebInfo.WIN32}
_QR_TYPES: Final = {"Chrome": "1", "Edge": "2", "Firefox": "3", "IE": "4", "Opera": "5", "Safari": "6"}
_ELECTRON: Final = "7"
_UWP: Final = "8"
_OTHER_WEB: Final = "9"


@dataclass(frozen=True, slots=True)
class ClientProfile:
    """What this client calls itself.

    Attributes:
        version: the three numbers of the web client's version.
        browser: operating system as shown on the phone, browser name, its version.
        sync_full_history: whether to ask the phone for the whole history at pairing.
        country: two letters.
        push_name: sent along only when not empty; servers for tests select accounts by it.
    """

    version: tuple[int, int, int] = DEFAULT_VERSION
    browser: tuple[str, str, str] = ("Mac OS", _DESKTOP, "14.4.1")
    sync_full_history: bool = False
    country: str = "US"
    push_name: str = ""

    @property
    def is_android(self) -> bool:
        """Whether the browser name selects the Android platform."""
        return "android" in self.browser[1].lower()

    @property
    def qr_type(self) -> str:
        """The last field of the QR string (chapter 02 §3.2)."""
        system, name, _ = self.browser
        if name == _DESKTOP:
            return _UWP if system == "Windows" else _ELECTRON
        return _QR_TYPES.get(name, _OTHER_WEB)


def payload(credentials: Credentials, profile: ClientProfile) -> bytes:
    """The payload these credentials call for: login when registered, else registration."""
    if not credentials.registered:
        return registration(credentials, profile)
    assert credentials.me_pn is not None
    return login(credentials.me_pn, profile, login_counter=credentials.login_counter, lid_migrated=True)


def login(
    me: JID, profile: ClientProfile, *, login_counter: int | None = None, lid_migrated: bool = False
) -> bytes:
    """Serialise the payload of a login; without device number for a bare address (chapter 02 §2.4)."""
    message = _common(profile)
    message.username = int(me.user)
    message.passive = True
    message.pull = True
    message.lidDbMigrated = lid_migrated
    if me.device:
        message.device = me.device
    if login_counter is not None:
        message.lc = login_counter
    return message.SerializeToString()


def registration(credentials: Credentials, profile: ClientProfile) -> bytes:
    """Serialise the payload that asks to be linked (chapter 02 §2.1)."""
    message = _common(profile)
    message.passive = False
    message.pull = False
    signed = credentials.signed_prekey
    message.devicePairingData.CopyFrom(
        ClientPayload.DevicePairingRegistrationData(
            eRegid=big_endian(credentials.registration_id, 4),
            eKeytype=KEY_TYPE,
            eIdent=credentials.identity.public,
            eSkeyId=big_endian(signed.id, 3),
            eSkeyVal=signed.key.public,
            eSkeySig=signed.signature,
            buildHash=build_hash(profile.version),
            deviceProps=_device_props(profile),
        )
    )
    return message.SerializeToString()


def build_hash(version: tuple[int, int, int]) -> bytes:
    """MD5 of the dotted version, 16 bytes (chapter 02 §2.3)."""
    text = ".".join(map(str, version))
    return hashlib.md5(text.encode(), usedforsecurity=False).digest()


def _common(profile: ClientProfile) -> ClientPayload:
    message = ClientPayload(
        userAgent=_UserAgent(
            platform=_UserAgent.ANDROID if profile.is_android else _UserAgent.WEB,
            appVersion=_UserAgent.AppVersion(
                primary=profile.version[0], secondary=profile.version[1], tertiary=profile.version[2]
            ),
            mcc="000",
            mnc="000",
            osVersion="0.1",
            device=_DESKTOP,
            osBuildNumber="0.1",
            releaseChannel=_UserAgent.RELEASE,
            localeLanguageIso6391="en",
            localeCountryIso31661Alpha2=profile.country,
        ),
        connectType=ClientPayload.WIFI_UNKNOWN,
        connectReason=ClientPayload.USER_ACTIVATED,
    )
    if not profile.is_android:
        message.webInfo.webSubPlatform = _sub_platform(profile)
    if profile.push_name:
        message.pushName = profile.push_name
    return message


def _sub_platform(profile: ClientProfile) -> payload_pb2.ClientPayload.WebInfo.WebSubPlatform.ValueType:
    system, name, _ = profile.browser
    if profile.sync_full_history and name == _DESKTOP:
        return _FULL_HISTORY_PLATFORMS.get(system, _WebInfo.WEB_BROWSER)
    return _WebInfo.WEB_BROWSER


def _device_props(profile: ClientProfile) -> bytes:
    primary, secondary, tertiary = DEVICE_PROPS_VERSION
    return DeviceProps(
        os=profile.browser[0],
        version=DeviceProps.AppVersion(primary=primary, secondary=secondary, tertiary=tertiary),
        platformType=_platform_type(profile),
        requireFullSync=profile.sync_full_history,
        historySyncConfig=DeviceProps.HistorySyncConfig(
            storageQuotaMb=STORAGE_QUOTA_MB,
            inlineInitialPayloadInE2EeMsg=True,
            supportCallLogHistory=False,
            supportBotUserAgentChatHistory=True,
            supportCagReactionsAndPolls=True,
            supportBizHostedMsg=True,
            supportRecentSyncChunkMessageCountTuning=True,
            supportHostedGroupMsg=True,
            supportFbidBotChatHistory=True,
            supportMessageAssociation=True,
            supportGroupHistory=False,
        ),
    ).SerializeToString()


def _platform_type(profile: ClientProfile) -> payload_pb2.DeviceProps.PlatformType.ValueType:
    name = profile.browser[1].upper()
    if name == "ANDROID":
        return DeviceProps.ANDROID_PHONE
    if name in DeviceProps.PlatformType.keys():  # noqa: SIM118 - an enum wrapper, not a mapping
        return DeviceProps.PlatformType.Value(name)
    return DeviceProps.CHROME
