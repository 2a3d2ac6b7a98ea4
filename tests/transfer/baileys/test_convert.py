from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.transfer.baileys import samples
from waD.e2ee import adv, curve
from waD.e2ee.curve import KeyPair
from waD.e2ee.groups import SenderKeyRecord
from waD.e2ee.limits import MAX_PREKEY_ID
from waD.e2ee.record import SessionRecord
from waD.link.credentials import Credentials
from waD.link.prekeys import OneTimePreKey
from waD.messaging import kinds
from waD.messaging.values import decode_identity, decode_text
from waD.proto import adv_pb2
from waD.transfer.baileys import BaileysItems, convert
from waD.transfer.baileys.signal_items import next_prekey_id
from waD.transfer.state import AuthState, Report
from waD.transfer.verify import verify

GROUP = "120363000000000041@g.us"
ME_LID, ME_PN = "100000000000041", "5511900000041"
BOB_LID, BOB_PN = "100000000000042", "5511900000042"
CAROL_LID, CAROL_PN = "100000000000043", "5511900000043"


def fixed_random(seed: int = 1) -> Any:
    return lambda count: bytes((seed + n) % 256 for n in range(count))


def full(tmp_path: Path, name: str = samples.FULL) -> BaileysItems:
    path = tmp_path / name
    path.mkdir()
    return samples.read(path, samples.files(name))


def with_items(source: BaileysItems, items: Mapping[tuple[str, str], Any], **changes: Any) -> BaileysItems:
    """The same with other items: None removes one."""
    merged = {name: value for name, value in (dict(source.items) | dict(items)).items() if value is not None}
    fields: dict[str, Any] = {
        "creds": source.creds,
        "times": source.times,
        "keeps_deleted": source.keeps_deleted,
    }
    return BaileysItems(items=merged, **(fields | changes))


def found(report: Report) -> list[tuple[str, str]]:
    return [(note.code, note.item) for note in report.notes]


def texts(state: AuthState, kind: str) -> dict[str, str]:
    return {key: decode_text(document) for key, document in state.of(kind).items()}


def session(state: AuthState, address: str) -> SessionRecord:
    return SessionRecord.parse(state.items[kinds.SESSION, address])


# Credentials


def refused(source: BaileysItems) -> list[str]:
    state, report = convert(source, samples.NOW_MS)
    assert state is None
    assert not report.ok
    return [note.code for note in report.errors]


def test_what_the_credentials_become() -> None:
    state, report = samples.converted(
        samples.only(me={"id": "5511900000041:12@s.whatsapp.net", "name": "Ana", "verifiedName": "Shop"})
    )
    creds = state.creds
    assert (creds.push_name, creds.business_name, creds.platform) == ("Ana", "Shop", "smba")
    assert (creds.me_lid, creds.props_hash) == (None, "abcd")
    assert creds.app_state_key_id == base64.b64decode("AAD/777/")
    assert (creds.registered, creds.server_has_prekeys, creds.login_counter) == (True, True, 1)
    assert 0 < creds.last_rotation_ms < samples.NOW_MS
    assert [note.item for note in report.warnings] == [
        "creds/processedHistoryMessages",
        "creds/accountSettings,lastAccountSyncTimestamp,additionalData",
    ]
    assert Credentials.parse(creds.serialize()) == creds


def test_every_spelling_of_bytes_gives_the_same_credentials() -> None:
    plain = samples.only()
    wanted = samples.converted(plain)[0].creds
    for encode in (samples.as_numbers, samples.as_indexes, samples.as_binary):
        fields = encode(plain.creds)
        if encode is samples.as_binary:
            fields |= {name: value for name, value in samples.creds().items() if isinstance(value, int)}
            fields["signedPreKey"]["keyId"] = 1
        assert samples.converted(BaileysItems(fields, {}))[0].creds == wanted
    nested = {
        name: json.dumps(value) if isinstance(value, dict) else value
        for name, value in samples.creds().items()
    }
    assert samples.converted(BaileysItems(nested, {}))[0].creds == wanted


@pytest.mark.parametrize(
    "creds",
    [None, 7, "text", [], {}, {"me": {}}, {"me": {"id": "55:1@s.whatsapp.net"}, "account": {}}],
)
def test_credentials_that_say_too_little(creds: Any) -> None:
    assert refused(BaileysItems(creds, {})) == [
        "not_paired" if isinstance(creds, dict) else "creds_unreadable"
    ]


@pytest.mark.parametrize(
    "me",
    [
        None, {}, {"id": "5511900000041@s.whatsapp.net"}, {"id": "100:3@lid"}, {"id": 5}, {"id": "x:1@g.us"}, "~",
        {"id": "a:1@b"},
    ],
)  # fmt: skip
def test_who_was_never_linked(me: Any) -> None:
    assert refused(samples.only(me=me)) == ["not_paired"]


def test_early_addresses_had_an_agent() -> None:
    state, _ = samples.converted(samples.only(me={"id": "5511900000041.0:12@s.whatsapp.net"}))
    assert str(state.creds.me_pn) == "5511900000041:12@s.whatsapp.net"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("noiseKey", None), ("noiseKey", {}), ("noiseKey", {"private": "AA=="}), ("signedIdentityKey", 5),
        ("signedPreKey", None), ("signedPreKey", {"keyId": 1}), ("registrationId", None), ("registrationId", 2**32),
        ("registrationId", -1), ("registrationId", True), ("nextPreKeyId", "7"), ("nextPreKeyId", -1),
        ("firstUnuploadedPreKeyId", [1]), ("account", {"details": "not base64!"}),
        ("account", {"details": {"type": 1}}),
    ],
)  # fmt: skip
def test_credentials_with_a_damaged_field(field: str, value: Any) -> None:
    assert refused(samples.only(**{field: value})) in (["creds_unreadable"], ["not_paired"])


def test_errors_name_fields_and_never_values() -> None:
    secret = samples.creds()["noiseKey"]["private"]["data"]
    for private in (secret[:-8], secret + "AAAA", f"!{secret}"):
        fields = samples.creds()
        fields["noiseKey"]["private"]["data"] = private
        _, report = convert(BaileysItems(fields, {}), samples.NOW_MS)
        assert "noiseKey.private" in str(report.errors[0])
        assert private not in repr(report)


def test_all_faults_of_keys_and_signatures_are_told_at_once() -> None:
    fields = samples.creds()
    fields["noiseKey"]["public"] = fields["signedIdentityKey"]["public"]
    fields["signedPreKey"]["keyPair"]["public"] = fields["signedIdentityKey"]["public"]
    fields["signedPreKey"]["signature"] = samples.buffer(bytes(64))
    fields["account"]["accountSignature"] = base64.b64encode(bytes(64)).decode()
    fields["account"]["deviceSignature"] = ""
    assert refused(BaileysItems(fields, {})) == [
        "noise_key_mismatch", "signed_prekey_mismatch", "signed_prekey_signature_invalid", "account_signature_invalid",
        "device_signature_invalid",
    ]  # fmt: skip


def test_the_account_key_is_found_where_stores_lost_it() -> None:
    wanted = samples.converted(samples.only())[0].creds.account
    for lost in (None, "", {"type": "Buffer", "data": []}):
        account = samples.creds()["account"] | {"accountSignatureKey": lost}
        state, _ = samples.converted(samples.only(account=account))
        assert state.creds.account == wanted
        assert refused(samples.only(account=account, signalIdentities=None))[0] == "account_signature_invalid"


def test_optional_fields_that_cannot_be_read_are_left_out() -> None:
    state, report = samples.converted(
        samples.only(
            routingInfo="%", myAppStateKeyId=[300], advSecretKey=None, platform=7, lastPropHash={},
            me=samples.creds()["me"] | {"lid": "what", "name": "\ud800x"}, processedHistoryMessages=None,
            accountSettings=None, additionalData=None, accountSyncCounter=0, lastAccountSyncTimestamp=None,
        )
    )  # fmt: skip
    assert (state.creds.routing_info, state.creds.app_state_key_id, state.creds.me_lid) == (None, None, None)
    assert (state.creds.push_name, state.creds.platform) == ("�x", "")
    assert {code for code, _ in found(report)} == {
        "creds_field_dropped",
        "adv_secret_missing",
        "own_lid_unreadable",
    }


def test_a_lid_without_device_gets_that_of_the_number() -> None:
    state, _ = samples.converted(samples.only(me=samples.creds()["me"] | {"lid": f"{ME_LID}@lid"}))
    assert str(state.creds.me_lid) == f"{ME_LID}:12@lid"


@pytest.mark.parametrize(
    ("prefix", "device_type"), [(b"\x06\x00", 0), (b"\x06\x05", 1), (b"\x06\x05", 0), (b"\x06\x00", 1)]
)
def test_hosted_accounts_sign_with_a_prefix_of_their_own(prefix: bytes, device_type: int) -> None:
    identity = samples.converted(samples.only())[0].creds.identity
    phone = KeyPair.generate(fixed_random())
    details = adv_pb2.ADVDeviceIdentity(
        rawId=1, timestamp=2, keyIndex=3, deviceType=device_type
    ).SerializeToString()  # type: ignore[arg-type]
    account = {
        "details": base64.b64encode(details).decode(),
        "accountSignatureKey": samples.buffer(phone.public),
        "accountSignature": samples.buffer(
            curve.sign(phone.private, prefix + details + identity.public, fixed_random())
        ),
        "deviceSignature": samples.buffer(
            adv.sign_device_signature(identity, details, phone.public, fixed_random())
        ),
    }
    source = samples.only(account=account)
    if (prefix == b"\x06\x05") == bool(device_type):
        assert samples.converted(source)[0].creds.account_key == phone.public
    else:
        assert refused(source) == ["account_signature_invalid"]


# Prekeys


def prekey(seed: int) -> dict[str, Any]:
    pair = KeyPair.generate(fixed_random(seed))
    return {"private": samples.buffer(pair.private), "public": samples.buffer(pair.public)}


def prekeys(source: BaileysItems) -> tuple[dict[int, str], int, Report]:
    state, report = samples.converted(source)
    read = {
        int(key): OneTimePreKey.parse(int(key), document) for key, document in state.of(kinds.PREKEY).items()
    }
    return {number: key.state for number, key in read.items()}, state.creds.next_prekey_id, report


def test_ids_below_the_counter_were_uploaded() -> None:
    source = with_items(
        samples.only(nextPreKeyId=7, firstUnuploadedPreKeyId=5),
        {("pre-key", str(n)): prekey(n) for n in (3, 4, 5, 6)},
    )
    assert prekeys(source)[:2] == ({3: "uploaded", 4: "uploaded", 5: "new", 6: "new"}, 7)


def test_counters_that_lag_behind_the_keys_are_moved_on() -> None:
    source = with_items(
        samples.only(nextPreKeyId=3, firstUnuploadedPreKeyId=3),
        {("pre-key", str(n)): prekey(n) for n in (2, 3, 9)},
    )
    assert prekeys(source)[:2] == ({2: "uploaded", 3: "new", 9: "new"}, 10)


def test_ids_go_round() -> None:
    last = MAX_PREKEY_ID
    items = {("pre-key", str(n)): prekey(n % 256) for n in (last - 1, last, 1, 2)}
    source = with_items(samples.only(nextPreKeyId=last + 2, firstUnuploadedPreKeyId=last), items)
    assert prekeys(source)[:2] == ({last - 1: "uploaded", last: "new", 1: "new", 2: "new"}, 3)
    assert verify(samples.converted(source)[0], samples.NOW_MS).ok


@given(st.integers(1, MAX_PREKEY_ID), st.lists(st.integers(1, MAX_PREKEY_ID), max_size=5))
def test_the_next_id_is_never_one_that_exists(stated: int, used: list[int]) -> None:
    after = next_prekey_id(stated, used)
    assert 1 <= after <= MAX_PREKEY_ID
    assert after not in [number for number in used if (number - stated) % MAX_PREKEY_ID < MAX_PREKEY_ID // 2]


def test_a_store_that_never_deletes_may_hold_used_keys() -> None:
    items = {("pre-key", str(n)): prekey(n) for n in (3, 4, 5)}
    source = with_items(samples.only(nextPreKeyId=6, firstUnuploadedPreKeyId=5), items, keeps_deleted=True)
    assert prekeys(source)[0] == {3: "stale", 4: "stale", 5: "new"}


def test_prekeys_that_cannot_be_used_are_dropped() -> None:
    items = {
        ("pre-key", "0"): prekey(1),
        ("pre-key", "16777216"): prekey(1),
        ("pre-key", "1"): prekey(1) | {"public": prekey(2)["public"]},
        ("pre-key", "2"): {"private": "AA==", "public": prekey(2)["public"]},
        ("pre-key", "3"): "text",
        ("pre-key", "4"): {},
        ("pre-key", "5"): prekey(5),
    }
    states, _, report = prekeys(with_items(samples.only(), items))
    assert states == {5: "uploaded"}
    unreadable = {item for code, item in found(report) if code == "item_unreadable"}
    assert unreadable == {f"pre-key/{n}" for n in (0, 16777216, 2, 3, 4)}
    assert ("pre-key_mismatch", "pre-key/1") not in found(report)
    assert ("pre_key_mismatch", "pre-key/1") in found(report)


# Sessions and addresses


def test_numbers_with_a_known_lid_move_to_it(tmp_path: Path) -> None:
    source = full(tmp_path)
    record = source.items["session", f"{BOB_LID}_1.0"]
    moved = with_items(source, {("session", f"{BOB_LID}_1.0"): None, ("session", f"{BOB_PN}.0"): record})
    assert dict(samples.converted(moved)[0].items) == dict(samples.converted(source)[0].items)


def test_both_addresses_are_merged(tmp_path: Path) -> None:
    """The LID's open session stays open, that of the number is archived (§10)."""
    source = full(tmp_path)
    other = source.items["session", f"{CAROL_LID}_1.3"]
    state, _ = samples.converted(with_items(source, {("session", f"{BOB_PN}.0"): other}))
    before = session(samples.converted(source)[0], f"{BOB_LID}_1.0")
    merged = session(state, f"{BOB_LID}_1.0")
    assert merged.current == before.current
    assert len(merged.archived) == len(before.archived) + 1
    assert (kinds.SESSION, f"{BOB_PN}.0") not in state.items


def test_early_versions_wrote_lids_like_numbers(tmp_path: Path) -> None:
    """6.x: the own LID and every LID that is known get their domain."""
    source = full(tmp_path)
    early: dict[tuple[str, str], Any] = {
        ("session", f"{BOB_LID}_1.0"): None,
        ("identity-key", f"{BOB_LID}_1.0"): None,
    }
    early["session", f"{BOB_LID}.0"] = source.items["session", f"{BOB_LID}_1.0"]
    early["identity-key", f"{BOB_LID}.0"] = source.items["identity-key", f"{BOB_LID}_1.0"]
    key = samples.read(tmp_path, samples.files(samples.GROUPS)).items
    sender_key = key["sender-key", "120363000000000051@g.us::100000000000052_1::5"]
    early["sender-key", f"{GROUP}::{ME_LID}::7"] = sender_key
    state, report = samples.converted(with_items(source, early))
    assert state.of(kinds.SESSION) == samples.converted(source)[0].of(kinds.SESSION)
    assert state.of(kinds.IDENTITY) == samples.converted(source)[0].of(kinds.IDENTITY)
    assert f"{GROUP}|{ME_LID}_1.7" in state.of(kinds.SENDER_KEY)
    assert {code for code, _ in found(report)} == {"creds_field_dropped"}


def test_sessions_without_stored_identity_bring_their_own(tmp_path: Path) -> None:
    source = full(tmp_path, samples.OLD)
    state, _ = samples.converted(source)
    record = session(state, "5511900000062.4")
    assert record.current is not None
    assert decode_identity(state.items[kinds.IDENTITY, "5511900000062.4"]) == record.current.remote_identity


def test_a_session_of_a_replaced_identity_is_archived(tmp_path: Path) -> None:
    source = full(tmp_path)
    other = source.items["identity-key", f"{CAROL_LID}_1.3"]
    state, report = samples.converted(with_items(source, {("identity-key", f"{BOB_LID}_1.0"): other}))
    assert session(state, f"{BOB_LID}_1.0").current is None
    assert ("identity_mismatch", f"session/{BOB_LID}_1.0") in found(report)


def test_the_own_phones_identity_is_that_of_the_account(tmp_path: Path) -> None:
    source = full(tmp_path)
    other = source.items["identity-key", f"{CAROL_LID}_1.3"]
    state, _ = samples.converted(with_items(source, {("identity-key", f"{ME_PN}.0"): other}))
    assert decode_identity(state.items[kinds.IDENTITY, f"{ME_LID}_1.0"]) == state.creds.account_key


@pytest.mark.parametrize("address", [f"{ME_LID}_1.0", f"{ME_PN}.0", f"{ME_LID}.0"])
def test_a_store_that_never_deletes_hides_the_own_phones_session(tmp_path: Path, address: str) -> None:
    source = full(tmp_path)
    record = source.items["session", f"{BOB_LID}_1.0"]
    added = with_items(source, {("session", address): record})
    assert (kinds.SESSION, f"{ME_LID}_1.0") in samples.converted(added)[0].items
    state, report = samples.converted(with_items(added, {}, keeps_deleted=True))
    assert (kinds.SESSION, f"{ME_LID}_1.0") not in state.items
    assert ("session_skipped", f"session/{address}") in found(report)


def test_several_open_sessions_leave_the_one_used_last(tmp_path: Path) -> None:
    source = full(tmp_path, "archived-and-open")
    (name,) = [name for name in source.items if name[0] == "session"]
    record: Any = deepcopy(source.items[name])
    for number, entry in enumerate(record["_sessions"].values()):
        entry["indexInfo"] |= {"closed": -1, "used": 1000 + number}
    state, report = samples.converted(with_items(source, {name: record}))
    made = session(state, name[1])
    assert made.current is not None
    assert (made.current.used_ms, [item.used_ms for item in made.archived]) == (1001, [1000])
    assert ("item_reduced", "/".join(name)) in found(report)


@pytest.mark.parametrize(
    "value", [{}, {"_sessions": []}, "text", [], {"_sessions": {"AA==": {}}}, 7, {"_sessions": {}}]
)
def test_sessions_that_cannot_be_read_are_dropped(tmp_path: Path, value: Any) -> None:
    state, report = samples.converted(with_items(full(tmp_path), {("session", "55.0"): value}))
    assert (kinds.SESSION, "55.0") not in state.items
    (code,) = [code for code, item in found(report) if item == "session/55.0"]
    assert code in ("item_unreadable", "session_invalid")


def test_one_bad_state_of_a_session_is_dropped_alone(tmp_path: Path) -> None:
    source = full(tmp_path, "archived-and-open")
    (name,) = [name for name in source.items if name[0] == "session"]
    record: Any = deepcopy(source.items[name])
    next(iter(record["_sessions"].values()))["currentRatchet"]["rootKey"] = "AA=="
    state, report = samples.converted(with_items(source, {name: record}))
    assert len([*session(state, name[1]).states()]) == 1
    assert ("session_invalid", "/".join(name)) in found(report)


# Sender keys


def test_sender_keys_in_every_layout(tmp_path: Path) -> None:
    source = full(tmp_path, samples.GROUPS)
    name = ("sender-key", "120363000000000051@g.us::100000000000052_1::5")
    key = ("sender-key", "120363000000000051@g.us|100000000000052_1.5")
    wanted = samples.converted(source)[0].items[key]
    inner = base64.b64decode(source.items[name]["data"])  # type: ignore[index]
    listed = json.loads(inner)
    for value in (
        listed, json.dumps(listed), inner.decode(), {"type": "Buffer", "data": [*inner]},
        samples.as_indexes(samples.buffer(inner)),
        json.dumps(json.dumps(listed)), samples.as_binary(samples.buffer(inner)),
    ):  # fmt: skip
        assert samples.converted(with_items(source, {name: value}))[0].items[key] == wanted


def test_own_sender_keys_that_cannot_sign_are_dropped(tmp_path: Path) -> None:
    source = full(tmp_path, samples.GROUPS)
    others = source.items["sender-key", "120363000000000051@g.us::100000000000052_1::5"]
    own = ("sender-key", "120363000000000051@g.us::100000000000051_1::2")
    state, report = samples.converted(with_items(source, {own: others}))
    assert len(state.of(kinds.SENDER_KEY)) == 1
    assert [code for code, _ in found(report)] == ["sender_key_invalid"]


def test_own_sender_keys_lose_the_keys_nobody_sent_with(tmp_path: Path) -> None:
    state, _ = samples.converted(full(tmp_path, samples.GROUPS))
    records = {key: SenderKeyRecord.parse(value) for key, value in state.of(kinds.SENDER_KEY).items()}
    own = {key: [bool(item.seeds) for item in record.states] for key, record in records.items()}
    assert own == {
        "120363000000000051@g.us|100000000000051_1.2": [False],
        "120363000000000051@g.us|100000000000052_1.5": [True],
    }


@pytest.mark.parametrize("value", [{}, [], "text", [{}], {"type": "Buffer", "data": "e30="}, 5])
def test_sender_keys_that_cannot_be_read_are_dropped(tmp_path: Path, value: Any) -> None:
    name = f"{GROUP}::55::1"
    state, report = samples.converted(with_items(full(tmp_path), {("sender-key", name): value}))
    assert state.of(kinds.SENDER_KEY) == {}
    (code,) = [code for code, item in found(report) if item == f"sender-key/{name}"]
    assert code in ("item_unreadable", "sender_key_invalid")


# LID map


def lid_map(
    items: dict[str, Any], times: dict[str, int] | None = None, **creds: Any
) -> tuple[dict[str, str], Report]:
    source = BaileysItems(
        samples.only(**creds).creds,
        {("lid-mapping", name): value for name, value in items.items()},
        {("lid-mapping", name): time for name, time in (times or {}).items()},
    )
    state, report = samples.converted(source)
    there = texts(state, kinds.LID_OF_PN)
    assert texts(state, kinds.PN_OF_LID) == {lid: pn for pn, lid in there.items()}
    return there, report


def conflicts(report: Report) -> list[str]:
    return [item for code, item in found(report) if code == "lid_map_conflict"]


OWN = {ME_PN: ME_LID}


def test_the_map_has_the_own_pair_and_both_directions() -> None:
    there, report = lid_map({"55": "100", "200_reverse": "66", "100_reverse": "55", "77": 300})
    assert (there, conflicts(report)) == (OWN | {"55": "100", "66": "200", "77": "300"}, [])


def test_of_two_contradicting_entries_the_newer_file_counts() -> None:
    for times, winner in (({"55": 1, "66": 2}, "66"), ({"55": 2, "66": 1}, "55")):
        there, report = lid_map({"55": "100", "66": "100"}, times)
        assert there == OWN | {winner: "100"}
        assert conflicts(report) == [f"lid-mapping/{winner}"]


def test_reverse_entries_only_fill_gaps() -> None:
    there, report = lid_map({"55": "100", "100_reverse": "66", "200_reverse": "55"}, {"100_reverse": 9})
    assert there == OWN | {"55": "100"}
    assert sorted(conflicts(report)) == ["lid-mapping/100_reverse", "lid-mapping/200_reverse"]


def test_nobody_has_our_lid_or_number() -> None:
    there, report = lid_map({"55": ME_LID, ME_PN: "100"})
    assert there == OWN
    assert conflicts(report)


def test_entries_that_are_no_users() -> None:
    there, report = lid_map({"55": "x", "66": {}, "77": "1@lid", "88": ""})
    assert there == OWN
    assert len([code for code, _ in found(report) if code == "item_unreadable"]) == 4


# App state, tokens, memory


def document(state: AuthState, kind: str, key: str) -> Any:
    return json.loads(state.items[kind, key])


def test_a_collection_that_does_not_fit_its_hash_starts_again(tmp_path: Path) -> None:
    source = full(tmp_path)
    name = ("app-state-sync-version", "regular_high")
    value: Any = deepcopy(source.items[name])
    value["indexValueMap"].popitem()
    state, report = samples.converted(with_items(source, {name: value}))
    assert document(state, kinds.APP_STATE_VERSION, name[1]) == {
        "version": 0, "hash": base64.b64encode(bytes(128)).decode(), "macs": {},
    }  # fmt: skip
    assert ("app_state_hash_mismatch", "/".join(name)) in found(report)


def test_early_collections_lack_fields() -> None:
    items = {("app-state-sync-version", "regular"): {"hash": None}}
    state, _ = samples.converted(with_items(samples.only(), items))
    assert document(state, kinds.APP_STATE_VERSION, "regular")["version"] == 0


@pytest.mark.parametrize(
    "value",
    [
        7,
        {"version": -1},
        {"hash": "AA=="},
        {"indexValueMap": 5},
        {"indexValueMap": {"AA==": {}}},
        {"version": "3"},
    ],
)
def test_collections_that_cannot_be_read(value: Any) -> None:
    state, report = samples.converted(
        with_items(samples.only(), {("app-state-sync-version", "regular"): value})
    )
    assert state.of(kinds.APP_STATE_VERSION) == {}
    assert ("item_unreadable", "app-state-sync-version/regular") in found(report)


@pytest.mark.parametrize(
    "time", ["1763000000123", 1763000000123, {"low": 2059876475, "high": 410, "unsigned": False}, None]
)
def test_app_state_keys(time: Any) -> None:
    data = samples.buffer(bytes(32))
    items = {("app-state-sync-key", "AAD/777/"): {"keyData": data, "timestamp": time}}
    state, _ = samples.converted(with_items(samples.only(), items))
    stored = document(state, kinds.APP_STATE_KEY, "0000ffefbeff")
    assert (stored["fingerprint"], base64.b64decode(stored["data"])) == (None, bytes(32))
    high_and_low = (410 << 32) + 2059876475
    assert stored["ts"] == (0 if time is None else high_and_low if isinstance(time, dict) else 1763000000123)


def test_app_state_keys_of_the_fourth_version() -> None:
    inside = [
        {"keyId": {"keyId": "AAD/777/"}, "keyData": {"keyData": samples.buffer(bytes(32)), "timestamp": "5"}},
        "damaged",
        {"keyId": 5},
    ]
    state, _ = samples.converted(samples.only(appStateSyncKeys=inside))
    assert state.of(kinds.APP_STATE_KEY).keys() == {"0000ffefbeff"}


@pytest.mark.parametrize(
    "value", [{}, {"keyData": "AA=="}, 7, {"keyData": base64.b64encode(bytes(32)).decode(), "fingerprint": 3}]
)
def test_app_state_keys_that_cannot_be_read(value: Any) -> None:
    state, report = samples.converted(with_items(samples.only(), {("app-state-sync-key", "AAD/777/"): value}))
    assert state.of(kinds.APP_STATE_KEY) == {}
    assert ("item_unreadable", "app-state-sync-key/AAD/777/") in found(report)


def token(text: bytes, **more: Any) -> dict[str, Any]:
    return {"token": samples.buffer(text), **more}


def test_tokens_are_filed_under_the_lid_and_the_newer_counts(tmp_path: Path) -> None:
    items = {
        ("tctoken", f"{BOB_LID}@lid"): token(b"old", timestamp="5", senderTimestamp=9),
        ("tctoken", f"{BOB_PN}@s.whatsapp.net"): token(b"new", timestamp=6),
        ("tctoken", "77@s.whatsapp.net"): token(b"", senderTimestamp=9),
        ("tctoken", "88@s.whatsapp.net"): token(b"number", timestamp="7", senderTimestamp=8),
        ("tctoken", "99@lid"): {"token": 7},
        ("tctoken", "98@lid"): token(b"x" * 2000),
        ("tctoken", "97@lid"): token(b"x", timestamp=-1),
    }
    state, report = samples.converted(with_items(full(tmp_path), items))
    stored = {key: json.loads(value) for key, value in state.of(kinds.TRUSTED_CONTACT).items()}
    assert {
        key: (base64.b64decode(value["token"]), value["ts"], value["sent"]) for key, value in stored.items()
    } == {
        f"{BOB_LID}@lid": (b"new", 6, None),
        "88@s.whatsapp.net": (b"number", 7, 8),
    }
    unreadable = [item for code, item in found(report) if code == "item_unreadable"]
    assert unreadable == ["tctoken/99@lid", "tctoken/98@lid", "tctoken/97@lid"]


def test_memory_holds_devices(tmp_path: Path) -> None:
    memory = {"55:1@s.whatsapp.net": True, "44@lid": True, "x": True, "33@lid": False, f"{GROUP}": True}
    items = {("sender-key-memory", GROUP): memory, ("sender-key-memory", "1@g.us"): []}
    state, report = samples.converted(with_items(full(tmp_path), items))
    assert document(state, kinds.SENDER_KEY_MEMORY, GROUP) == ["44@lid", "55:1@s.whatsapp.net"]
    assert ("item_unreadable", "sender-key-memory/1@g.us") in found(report)


def test_device_lists_are_fetched_anew(tmp_path: Path) -> None:
    assert samples.converted(full(tmp_path))[0].of(kinds.DEVICES) == {}


# Everything


@pytest.mark.parametrize("name", samples.ALL)
def test_what_comes_out_is_sound(tmp_path: Path, name: str) -> None:
    state, _ = samples.converted(full(tmp_path, name))
    report = verify(state, samples.NOW_MS)
    assert [note.code for note in report.notes] == (["own_pair_missing"] if name == samples.OLD else [])
    for document in state.items.values():
        json.loads(document)


SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)
    | st.sampled_from(["AA==", "Buffer", "1.0"])
)  # fmt: skip
FIELDS = st.sampled_from(["type", "data", "0", "1", "_sessions", "private", "public", "token", "low", "high"])
JUNK = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner, max_size=3),
    max_leaves=6,
)


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    if isinstance(value, dict):
        for name, item in value.items():
            found += _paths(item, (*path, name))
    elif isinstance(value, list) and len(value) < 20:
        for index, item in enumerate(value):
            found += _paths(item, (*path, index))
    return found


def _damage(value: Any, path: tuple[Any, ...], junk: Any) -> Any:
    if not path:
        return junk
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = _damage(value[path[0]], path[1:], junk)
    return copy


@pytest.mark.parametrize("name", [samples.FULL, samples.GROUPS])
@settings(max_examples=150, deadline=None)
@given(data=st.data(), junk=JUNK)
def test_no_damage_does_more_than_drop_or_refuse(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: Any, junk: Any
) -> None:
    source = samples.read(tmp_path_factory.mktemp("auth"), samples.files(name))
    everything: dict[Any, Any] = {None: source.creds} | dict(source.items)
    victim = data.draw(st.sampled_from(sorted(everything, key=str)))
    path = data.draw(st.sampled_from(_paths(everything[victim])))
    everything[victim] = _damage(everything[victim], path, junk)
    creds = everything.pop(None)
    state, report = convert(BaileysItems(creds, everything), samples.NOW_MS)
    assert (state is None) == bool(report.errors)
    if state is not None:
        assert Credentials.parse(state.creds.serialize()) == state.creds
        assert [str(note) for note in verify(state, samples.NOW_MS).errors] == []
