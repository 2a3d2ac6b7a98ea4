from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.e2ee.parties import seeded
from waD.e2ee.curve import serialize_key, verify
from waD.link.credentials import SignedPreKey, new_credentials
from waD.link.payload import DEFAULT_VERSION, ClientProfile, build_hash, login, payload, registration
from waD.proto.payload_pb2 import ClientPayload, DeviceProps
from waD.wire.jid import JID, LID, PN

CREDENTIALS = new_credentials(seeded(50))
ME = JID("15550000001", PN, 17)
PAIRED = CREDENTIALS.change(account=b"\x0a\x00", me_pn=ME, me_lid=JID("100000000000001", LID, 17))
BASELINE = ClientProfile()


def registered_as(profile: ClientProfile) -> tuple[ClientPayload, DeviceProps]:
    message = ClientPayload.FromString(registration(CREDENTIALS, profile))
    return message, DeviceProps.FromString(message.devicePairingData.deviceProps)


def test_the_payload_follows_the_credentials() -> None:
    assert payload(CREDENTIALS, BASELINE) == registration(CREDENTIALS, BASELINE)
    made = payload(PAIRED.change(login_counter=4), BASELINE)
    assert made == login(ME, BASELINE, login_counter=4, lid_migrated=True)


def test_a_half_paired_identity_registers() -> None:
    """An address without the account's statement is no device; a login with it would be refused."""
    for half in (CREDENTIALS.change(me_pn=ME), CREDENTIALS.change(account=b"\x0a\x00")):
        assert ClientPayload.FromString(payload(half, BASELINE)).HasField("devicePairingData")


def test_registration_and_login_tell_themselves_apart() -> None:
    """By exactly one of the fields 1 and 19 (chapter 02 §2)."""
    first = ClientPayload.FromString(registration(CREDENTIALS, BASELINE))
    then = ClientPayload.FromString(payload(PAIRED, BASELINE))
    assert (first.HasField("devicePairingData"), first.HasField("username")) == (True, False)
    assert (then.HasField("devicePairingData"), then.HasField("username")) == (False, True)


def test_zeros_are_written() -> None:
    """Peers rely on fields that are set to nothing being on the wire (chapter 02 §2)."""
    message, props = registered_as(BASELINE)
    for name in ("passive", "pull", "connectType", "connectReason"):
        assert message.HasField(name)
    assert message.HasField("webInfo")
    assert message.webInfo.HasField("webSubPlatform")
    assert message.userAgent.HasField("releaseChannel")
    assert props.HasField("requireFullSync")
    assert props.historySyncConfig.HasField("supportGroupHistory")
    plain = ClientPayload.FromString(login(ME, BASELINE))
    assert plain.HasField("lidDbMigrated")
    assert not plain.lidDbMigrated


def test_a_registration() -> None:
    message, props = registered_as(BASELINE)
    told = message.devicePairingData
    assert (message.passive, message.pull, message.connectType, message.connectReason) == (False, False, 1, 1)
    assert told.eRegid == CREDENTIALS.registration_id.to_bytes(4, "big")
    assert (told.eKeytype, told.eIdent) == (b"\x05", CREDENTIALS.identity.public)
    assert (told.eSkeyId, told.eSkeyVal) == (b"\x00\x00\x01", CREDENTIALS.signed_prekey.key.public)
    assert verify(CREDENTIALS.identity.public, serialize_key(told.eSkeyVal), told.eSkeySig)
    assert told.buildHash == build_hash(DEFAULT_VERSION)
    assert (props.os, props.platformType, props.requireFullSync) == ("Mac OS", DeviceProps.DESKTOP, False)
    assert (props.version.primary, props.version.secondary, props.version.tertiary) == (10, 15, 7)
    assert props.historySyncConfig.storageQuotaMb == 10240


def test_no_secret_leaves_with_a_payload() -> None:
    secrets = (
        CREDENTIALS.noise.private,
        CREDENTIALS.identity.private,
        CREDENTIALS.signed_prekey.key.private,
        CREDENTIALS.adv_secret,
    )
    for made in (registration(CREDENTIALS, BASELINE), payload(PAIRED, BASELINE)):
        assert not any(secret in made for secret in secrets)


def test_a_login() -> None:
    message = ClientPayload.FromString(payload(PAIRED.change(login_counter=3), BASELINE))
    assert (message.username, message.device) == (15550000001, 17)
    assert (message.passive, message.pull, message.lidDbMigrated, message.lc) == (True, True, True, 3)
    assert not message.HasField("pushName")


def test_the_first_login_counts_zero() -> None:
    message = ClientPayload.FromString(payload(PAIRED, BASELINE))
    assert message.HasField("lc")
    assert message.lc == 0


def test_a_login_without_device_or_counter() -> None:
    message = ClientPayload.FromString(login(ME.bare, BASELINE))
    assert not message.HasField("device")
    assert not message.HasField("lc")


def test_the_push_name_goes_along_only_when_there_is_one() -> None:
    named = replace(BASELINE, push_name="Zoë ✓")
    for made in (registration(CREDENTIALS, named), payload(PAIRED, named)):
        assert ClientPayload.FromString(made).pushName == "Zoë ✓"


@pytest.mark.parametrize("version", [(2, 3000, 1043857760), (2, 2413, 51), (2, 3000, 0)])
def test_the_build_hash_is_of_the_dotted_version(version: tuple[int, int, int]) -> None:
    text = f"{version[0]}.{version[1]}.{version[2]}"
    assert build_hash(version) == hashlib.md5(text.encode()).digest()
    message, _ = registered_as(replace(BASELINE, version=version))
    app = message.userAgent.appVersion
    assert (app.primary, app.secondary, app.tertiary) == version
    assert message.devicePairingData.buildHash == build_hash(version)


@pytest.mark.parametrize(
    ("browser", "full", "sub_platform", "platform"),
    [
        (("Mac OS", "Desktop", "14"), False, 0, DeviceProps.DESKTOP),
        (("Mac OS", "Desktop", "14"), True, 3, DeviceProps.DESKTOP),
        (("Windows", "Desktop", "10"), True, 4, DeviceProps.DESKTOP),
        (("Windows", "Desktop", "10"), False, 0, DeviceProps.DESKTOP),
        (("Ubuntu", "Desktop", "22"), True, 0, DeviceProps.DESKTOP),
        (("Mac OS", "Chrome", "14"), True, 0, DeviceProps.CHROME),
        (("Ubuntu", "firefox", "22"), False, 0, DeviceProps.FIREFOX),
        (("waD", "Terminal", "1"), False, 0, DeviceProps.CHROME),
        (("waD", "", ""), False, 0, DeviceProps.CHROME),
    ],
)
def test_platforms(browser: tuple[str, str, str], full: bool, sub_platform: int, platform: int) -> None:
    message, props = registered_as(ClientProfile(browser=browser, sync_full_history=full))
    assert message.userAgent.platform == ClientPayload.UserAgent.WEB
    assert message.webInfo.webSubPlatform == sub_platform
    assert (props.os, props.platformType, props.requireFullSync) == (browser[0], platform, full)


@pytest.mark.parametrize("name", ["Android", "android 14"])
def test_android_has_no_web_info(name: str) -> None:
    message, props = registered_as(ClientProfile(browser=("14", name, "")))
    assert message.userAgent.platform == ClientPayload.UserAgent.ANDROID
    assert not message.HasField("webInfo")
    assert (props.platformType == DeviceProps.ANDROID_PHONE) is (name == "Android")


@pytest.mark.parametrize(
    ("browser", "kind"),
    [
        (("Mac OS", "Chrome", ""), "1"),
        (("Mac OS", "Edge", ""), "2"),
        (("Mac OS", "Firefox", ""), "3"),
        (("Mac OS", "IE", ""), "4"),
        (("Mac OS", "Opera", ""), "5"),
        (("Mac OS", "Safari", ""), "6"),
        (("Mac OS", "Desktop", ""), "7"),
        (("Windows", "Desktop", ""), "8"),
        (("Windows", "chrome", ""), "9"),
        (("Windows", "Terminal", ""), "9"),
    ],
)
def test_the_type_in_the_code(browser: tuple[str, str, str], kind: str) -> None:
    """Chapter 02 §3.2: the exact name counts, and 0 is never sent because phones refuse it."""
    assert ClientProfile(browser=browser).qr_type == kind


@given(
    st.integers(0, 0xFFFFFFFF),
    st.integers(1, 0xFFFFFF),
    st.tuples(st.integers(0, 99), st.integers(0, 9999), st.integers(0, 0xFFFFFFFF)),
    st.tuples(st.text(max_size=20), st.text(max_size=20), st.text(max_size=9)),
    st.booleans(),
)
def test_any_profile_makes_a_payload(
    registration_id: int,
    signed_id: int,
    version: tuple[int, int, int],
    browser: tuple[str, str, str],
    full: bool,
) -> None:
    old = CREDENTIALS.signed_prekey
    signed = SignedPreKey(id=signed_id, key=old.key, signature=old.signature)
    credentials = CREDENTIALS.change(registration_id=registration_id, signed_prekeys=(signed,))
    profile = ClientProfile(version=version, browser=browser, sync_full_history=full)
    message = ClientPayload.FromString(registration(credentials, profile))
    assert int.from_bytes(message.devicePairingData.eRegid, "big") == registration_id
    assert int.from_bytes(message.devicePairingData.eSkeyId, "big") == signed_id
    assert DeviceProps.FromString(message.devicePairingData.deviceProps).os == browser[0]
    assert profile.qr_type in set("123456789")
