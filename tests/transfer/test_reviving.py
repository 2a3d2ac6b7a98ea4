"""The rules of a restore, row by row: what goes, what only receives, what is never used again, and what is refused."""

from __future__ import annotations

import json
import os

import pytest

from tests.messaging.accounts import OWN_LID, OWN_PN
from tests.transfer.samples import (
    BOB,
    CAROL,
    GROUP,
    NOW,
    OWN_KEY,
    PEER_KEY,
    SESSION_ID,
    Sample,
    a_sample,
)
from waD.e2ee import groups, session
from waD.e2ee.curve import KeyPair
from waD.e2ee.errors import SignalError
from waD.e2ee.record import SessionRecord
from waD.link.credentials import SignedPreKey
from waD.link.prekeys import OneTimePreKey
from waD.messaging import kinds
from waD.messaging.values import encode_identity, encode_text
from waD.store.canonical import canonical
from waD.store.model import OutboxRow
from waD.transfer import reviving
from waD.transfer.archive import Manifest, ManifestSession
from waD.transfer.plans import (
    Plan,
    RestoreRefused,
    Target,
    check_target,
    compare,
    done,
    is_exact,
    next_epoch,
    plan,
)
from waD.transfer.reviving import Revival, continued, revive
from waD.transfer.state import AuthState, Report
from waD.transfer.verify import verify


@pytest.fixture
def sample() -> Sample:
    return a_sample()


def revived(state: AuthState, mode: reviving.Mode = "drop", **more: object) -> Revival:
    return revive(state, NOW, os.urandom, mode, **more)  # type: ignore[arg-type]


def state_of(revival: Revival) -> AuthState:
    return AuthState(revival.creds, revival.items)


# ------------------------------------------------------------------------------------------------- one row each


def test_what_a_restored_state_is_made_of(sample: Sample) -> None:
    revival = revived(sample.state)
    gone = {kinds.SESSION, kinds.SENDER_KEY_MEMORY, kinds.DEVICES, kinds.RETRY}
    kept = {key for key in sample.state.items if key[0] not in gone and key != (kinds.SENDER_KEY, OWN_KEY)}
    assert set(revival.items) == kept
    for key in kept:
        if key[0] != kinds.PREKEY:
            assert revival.items[key] == sample.state.items[key]
    assert (revival.dropped, revival.receive_only, revival.sender_keys, revival.damaged) == (2, 0, 1, 0)
    assert (revival.stale_prekeys, revival.peers, revival.exact) == (5, 2, False)


@pytest.mark.parametrize("mode", ["drop", "receive-only"])
def test_what_is_restored_is_sound(sample: Sample, mode: reviving.Mode) -> None:
    assert verify(state_of(revived(sample.state, mode)), NOW).notes == []
    twice = revived(state_of(revived(sample.state, mode)), mode)
    assert verify(state_of(twice), NOW).notes == []


def test_what_never_changes(sample: Sample) -> None:
    before, after = sample.state.creds, revived(sample.state).creds
    for field in (
        "noise",
        "identity",
        "registration_id",
        "account",
        "adv_secret",
        "me_pn",
        "me_lid",
        "nct_salt",
    ):
        assert getattr(after, field) == getattr(before, field)


def test_receive_only_sessions_decrypt_and_do_not_send(sample: Sample) -> None:
    on_its_way = sample.bob.send(sample.me, b"sent after the backup")
    revival = revived(sample.state, "receive-only")
    assert (revival.receive_only, revival.dropped) == (2, 0)
    kept = SessionRecord.parse(revival.items[kinds.SESSION, BOB])
    with pytest.raises(SignalError) as refused:
        session.encrypt(kept, sample.me.local, b"on the old chain")
    assert refused.value.code == "no_session"
    sample.me.keep("bob", kept)
    assert sample.me.receive(sample.bob, on_its_way) == b"sent after the backup"
    assert sample.me.receive(sample.bob, ("msg", sample.bob.stored["late"])) == b"late"


def test_the_group_key_of_a_peer_goes_on_and_the_own_one_does_not(sample: Sample) -> None:
    revival = revived(sample.state)
    assert (kinds.SENDER_KEY, PEER_KEY) in revival.items
    assert (kinds.SENDER_KEY, OWN_KEY) not in revival.items
    for own in (f"{GROUP}|{OWN_PN.user}.{OWN_PN.device}", f"{GROUP}|{OWN_LID.user}_129.{OWN_LID.device}"):
        key = groups.create(os.urandom).serialize()
        assert (kinds.SENDER_KEY, own) not in revived(sample.with_items({(kinds.SENDER_KEY, own): key})).items
    other = f"{GROUP}|{OWN_LID.user}_1.9"  # another device of the account
    key = groups.create(os.urandom).serialize()
    assert (kinds.SENDER_KEY, other) in revived(sample.with_items({(kinds.SENDER_KEY, other): key})).items


def test_prekeys_are_kept_and_never_offered_again(sample: Sample) -> None:
    revival = revived(sample.state, backup_ms=NOW - 5)
    for key, document in sample.state.of(kinds.PREKEY).items():
        before, after = (
            OneTimePreKey.parse(int(key), document),
            OneTimePreKey.parse(int(key), revival.items[kinds.PREKEY, key]),
        )
        assert (after.key, after.state) == (before.key, "stale")
    assert revival.creds.next_prekey_id == 10_006
    assert not revival.creds.server_has_prekeys
    assert json.loads(revival.items[kinds.RESTORE_POINT, "last"]) == {"at": NOW, "backup": NOW - 5}


def test_the_signed_prekey_is_rotated_at_once(sample: Sample) -> None:
    creds = sample.state.creds
    after = revived(sample.state).creds
    candidate = after.rotation_candidate
    assert candidate is not None
    assert (candidate.id, candidate.signed_by(creds.identity.public)) == (17, True)
    assert after.signed_prekey.created_ms == after.last_rotation_ms == 0
    assert after.find_signed_prekey(1) is not None


def test_ids_go_round() -> None:
    state = a_sample().with_creds(next_prekey_id=16_777_215)
    assert revived(state).creds.next_prekey_id == 10_000
    creds = state.creds
    last = SignedPreKey.make(16_777_215, creds.identity, os.urandom)
    candidate = revived(AuthState(creds.change(signed_prekeys=(last,)), {})).creds.rotation_candidate
    assert candidate is not None
    assert candidate.id == 16


def test_damaged_items_are_dropped_and_counted(sample: Sample) -> None:
    broken = {(kinds.SESSION, BOB): b"{}", (kinds.PREKEY, "1"): b"{}", (kinds.PREKEY, "odd"): b"{}"}
    revival = revived(sample.with_items(broken), "receive-only")
    assert (revival.damaged, revival.receive_only, revival.stale_prekeys) == (3, 1, 4)
    assert not set(broken) & set(revival.items)
    assert revived(sample.with_items(broken), "drop").dropped == 2


def test_unknown_items_stay(sample: Sample) -> None:
    assert revived(sample.with_items({("x-new", "k"): b"[]"})).items["x-new", "k"] == b"[]"


def test_the_outbox_waits() -> None:
    row = OutboxRow(
        client_ref="r", chat="c", message_id="m", payload={}, stanza=b"old", state="sending", attempts=2
    )
    assert (reviving.held(row).state, reviving.held(row).stanza, reviving.held(row).message_id) == (
        "held",
        None,
        "m",
    )
    for state in ("sent", "failed", "cancelled", "expired", "held"):
        other = OutboxRow(client_ref="r", chat="c", message_id="m", payload={}, state=state)  # type: ignore[arg-type]
        assert reviving.held(other) == other


def test_columns(sample: Sample) -> None:
    assert reviving.columns(sample.state.creds) == {
        "me_pn": str(OWN_PN), "me_lid": str(OWN_LID), "push_name": "Alerts",
        "business_name": None, "platform": "iphone",
    }  # fmt: skip


# ---------------------------------------------------------------------------------------- beside the state in place


def test_what_is_in_place_knows_better(sample: Sample) -> None:
    newer = encode_identity(KeyPair.generate(os.urandom).public)
    token = {"token": "", "ts": 1_700_000_001, "sent": None}
    local = AuthState(
        sample.state.creds,
        {
            (kinds.IDENTITY, BOB): newer,
            (kinds.IDENTITY, CAROL): sample.state.items[kinds.IDENTITY, CAROL],
            (kinds.IDENTITY, "99.0"): newer,
            (kinds.TRUSTED_CONTACT, "200000000000002@lid"): canonical(token),
            (kinds.LID_OF_PN, "15550000002"): encode_text("2222"),
            (kinds.PN_OF_LID, "2222"): encode_text("15550000002"),
            (kinds.LID_OF_PN, "1777"): encode_text("7"),
            (kinds.PN_OF_LID, "7"): encode_text("1777"),
            (kinds.SESSION, BOB): sample.state.items[kinds.SESSION, BOB],
            (kinds.NUMBER_ALIAS, "1"): encode_text("2"),
        },
    )
    report = Report()
    revival = revived(sample.state, local=local, report=report, backup_ms=NOW)
    items = revival.items
    assert items[kinds.IDENTITY, BOB] == items[kinds.IDENTITY, "99.0"] == newer
    assert json.loads(items[kinds.TRUSTED_CONTACT, "200000000000002@lid"])["ts"] == 1_700_000_001
    assert items[kinds.NUMBER_ALIAS, "1"] == encode_text("2")
    assert (kinds.SESSION, BOB) not in items
    assert (kinds.PN_OF_LID, "200000000000002") not in items
    assert sorted(note.code for note in report.notes) == ["identity_conflict", "lid_map_conflict"]
    assert [note.severity for note in report.notes] == ["warning", "warning"]
    assert [note.code for note in verify(state_of(revival), NOW).notes] == []


def test_an_older_token_does_not_win(sample: Sample) -> None:
    key = (kinds.TRUSTED_CONTACT, "200000000000002@lid")
    for old in (b'{"ts":1}', b"{}", b"[]", b"no json", b'{"ts":"x"}'):
        local = AuthState(sample.state.creds, {key: old})
        assert revived(sample.state, local=local).items[key] == sample.state.items[key]


def test_keys_that_were_made_since_the_backup(sample: Sample) -> None:
    """The server hands out what was uploaded last: its private halves are in the state in place."""
    creds = sample.state.creds
    rotated = SignedPreKey.make(2, creds.identity, os.urandom, NOW)
    now_in_place = creds.change(
        signed_prekeys=(rotated, creds.signed_prekey), next_prekey_id=900, last_rotation_ms=NOW
    )
    made = OneTimePreKey(800, KeyPair.generate(os.urandom), "uploaded").serialize()
    local = AuthState(now_in_place, {(kinds.PREKEY, "800"): made, (kinds.PREKEY, "x"): b"{}"})
    revival = revived(sample.state, local=local)
    after = revival.creds
    assert after.next_prekey_id == 10_900
    assert [key.id for key in after.signed_prekeys] == [2, 1]
    assert after.rotation_candidate is not None
    assert after.rotation_candidate.id == 18
    assert OneTimePreKey.parse(800, revival.items[kinds.PREKEY, "800"]).state == "stale"
    assert (revival.stale_prekeys, (kinds.PREKEY, "x") in revival.items) == (6, False)
    assert verify(state_of(revival), NOW).notes == []


def test_keys_of_another_identity_are_of_no_use(sample: Sample) -> None:
    other = a_sample(9).state
    made = OneTimePreKey(800, KeyPair.generate(os.urandom)).serialize()
    revival = revived(sample.state, local=AuthState(other.creds, {(kinds.PREKEY, "800"): made}))
    assert (kinds.PREKEY, "800") not in revival.items
    assert [key.id for key in revival.creds.signed_prekeys] == [1]
    assert revival.creds.signed_prekey.key == sample.state.creds.signed_prekey.key
    assert revival.creds.next_prekey_id == 10_006


# --------------------------------------------------------------------------------------------------- exact, plans


def test_a_planned_move_goes_on(sample: Sample) -> None:
    revival = continued(sample.state)
    assert (revival.creds, revival.items, revival.exact) == (sample.state.creds, sample.state.items, True)
    assert [*done(revival, "drop").lines()] == [*plan(sample.state, exact=True).lines()]
    assert "exactly" in next(plan(sample.state, exact=True).lines())


@pytest.mark.parametrize("mode", ["drop", "receive-only"])
def test_a_plan_is_what_is_done(sample: Sample, mode: reviving.Mode) -> None:
    before = plan(sample.state, mode, held=3)
    assert before == done(revived(sample.state, mode), mode, held=3)
    assert before == Plan(False, mode, peers=2, sessions=2, sender_keys=1, prekeys=5, held=3)
    text = "\n".join(before.lines())
    assert ("peers that lose their session" in text) == (mode == "drop")
    assert text.count(": 2") == 2
    assert "held until you release them: 3" in text
    assert "cannot be read" not in text


def test_a_person_under_two_addresses_is_one_peer(sample: Sample) -> None:
    document = sample.state.items[kinds.SESSION, BOB]
    more = {
        (kinds.SESSION, key): document
        for key in ("15550000002.0", "200000000000002_1.3", f"{OWN_LID.user}_1.0", f"{OWN_PN.user}.3")
    }
    counted = plan(sample.with_items(more))
    assert (counted.peers, counted.sessions) == (2, 6)


def listed(**changes: object) -> ManifestSession:
    fields = {"epoch": 3, "version": 50, "identity_fp": "aabbccdd", **changes}
    return ManifestSession(
        id=SESSION_ID,
        name="alerts",
        phase="cut_over",
        item_counts={},
        checksum="",
        **fields,  # type: ignore[arg-type]
    )


def test_a_newer_state_is_not_overwritten() -> None:
    for epoch, version in ((3, 51), (4, 1)):
        target = Target("aabbccdd", epoch, version)
        with pytest.raises(RestoreRefused, match="--rollback-anyway") as refused:
            check_target(listed(), target)
        assert refused.value.code == "target_newer"
        check_target(listed(), target, rollback_anyway=True)
    for epoch, version in ((3, 50), (3, 49), (2, 9000)):
        check_target(listed(), Target("aabbccdd", epoch, version))


def test_another_identity_is_never_overwritten() -> None:
    for insist in (False, True):
        with pytest.raises(RestoreRefused) as refused:
            check_target(listed(), Target("00000000", 1, 1), rollback_anyway=insist)
        assert refused.value.code == "other_identity"
    check_target(listed(), Target(None, 9, 9))


def test_epochs_only_grow() -> None:
    assert next_epoch(None, listed()) == 4
    assert next_epoch(Target(None, 7, 1), listed()) == 8
    assert next_epoch(Target("aabbccdd", 1, 1), listed()) == 4


def test_exactly_once() -> None:
    def made(final: bool) -> Manifest:
        return Manifest(
            format="wad-backup",
            version=1,
            created_at="",
            program="",
            schema_version=2,
            final=final,
            sessions=[],
        )

    assert is_exact(made(True), "aa", [])
    assert not is_exact(made(True), "aa", ["aa"])
    assert not is_exact(made(False), "aa", [])


def test_comparing_an_archive_with_a_store() -> None:
    archived = {
        ("a", "same"): (1, b"1"),
        ("a", "old"): (1, b"1"),
        ("a", "new"): (9, b"1"),
        ("b", "mine"): (1, b"1"),
    }
    stored = {
        ("a", "same"): (5, b"1"),
        ("a", "old"): (2, b"2"),
        ("a", "new"): (2, b"2"),
        ("c", "theirs"): (1, b"1"),
    }
    found = compare(archived, stored, same_epoch=True)
    assert (found.kinds["a"].equal, found.kinds["a"].older, found.kinds["a"].newer) == (1, 1, 1)
    assert (found.kinds["b"].only_archive, found.kinds["c"].only_store, found.equal) == (1, 1, False)
    other = compare(archived, stored, same_epoch=False)
    assert (other.kinds["a"].different, other.kinds["a"].older) == (2, 0)
    assert compare(archived, archived, same_epoch=False).equal
