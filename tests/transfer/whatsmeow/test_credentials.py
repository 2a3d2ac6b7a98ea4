"""The row of a device: what it becomes, and what refuses it."""

from __future__ import annotations

import pytest

from tests.transfer.whatsmeow.databases import (
    JID,
    LID,
    NOW_MS,
    Database,
    add_device,
    public,
)
from waD.link.prekeys import DAY_MS, ROTATION_JITTER_MS, ROTATION_MS
from waD.transfer.verify import verify


def test_a_real_device_is_sound(database: Database) -> None:
    assert verify(database.state(), NOW_MS).notes == []


def test_the_device_is_itself(database: Database) -> None:
    creds = database.state().creds
    assert (str(creds.me_pn), str(creds.me_lid)) == (JID, LID)
    assert creds.registered
    assert creds.noise.public == public(database.value("SELECT noise_key FROM whatsmeow_device"))
    assert creds.account_key == database.value("SELECT adv_account_sig_key FROM whatsmeow_device")
    assert creds.login_counter > 0, "or the next login would be taken for the first"
    assert not creds.lid_migrated


def test_the_old_signed_prekey_is_rotated_after_a_day(database: Database) -> None:
    """Not at once: messages made with it are on their way (chapter 08 §4.4)."""
    creds = database.state().creds
    due = max(creds.last_rotation_ms, creds.signed_prekey.created_ms) + ROTATION_MS
    assert NOW_MS + DAY_MS <= due <= NOW_MS + DAY_MS + ROTATION_JITTER_MS


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ("jid = ''", "not_paired"),
        ("adv_details = x''", "not_paired"),
        ("jid = 'nobody'", "creds_unreadable"),
        ("jid = '1:2@msgr'", "creds_unreadable"),
        ("jid = 'letters:2@s.whatsapp.net'", "creds_unreadable"),
        ("lid = 'no address'", "creds_unreadable"),
        ("lid = '1:17@s.whatsapp.net'", "creds_unreadable"),
        ("noise_key = x'00'", "creds_unreadable"),
        ("identity_key = 5", "creds_unreadable"),
        ("identity_key = 'text of thirty-two characters ..'", "creds_unreadable"),
        ("identity_key = zeroblob(5000)", "creds_unreadable"),
        ("signed_pre_key_id = 0", "creds_unreadable"),
        ("signed_pre_key_id = 16777216", "creds_unreadable"),
        ("signed_pre_key_id = 'one'", "creds_unreadable"),
        ("registration_id = -1", "creds_unreadable"),
        ("adv_key = x'0011'", "creds_unreadable"),
        ("adv_account_sig = x''", "creds_unreadable"),
        ("adv_details = x'ffffffff'", "creds_unreadable"),
        ("signed_pre_key_sig = zeroblob(64)", "signed_prekey_signature_invalid"),
        ("signed_pre_key = randomblob(32)", "signed_prekey_signature_invalid"),
        ("adv_account_sig = zeroblob(64)", "account_signature_invalid"),
        ("adv_device_sig = zeroblob(64)", "device_signature_invalid"),
        ("identity_key = randomblob(32)", "account_signature_invalid"),
    ],
)
def test_what_refuses_a_device(database: Database, change: str, code: str) -> None:
    database.run(f"UPDATE whatsmeow_device SET {change}")
    state, report = database.load()
    assert state is None
    assert code in [note.code for note in report.errors]


def test_no_error_repeats_a_secret(database: Database) -> None:
    secret = "a secret in a wrong place, not 32."
    database.run(("UPDATE whatsmeow_device SET noise_key = ?", (secret,)))
    _, report = database.load()
    assert report.errors
    assert secret not in "".join(map(str, report.notes))


def test_a_hosted_account_signs_with_its_own_prefix(database: Database) -> None:
    jid = "5511920000001:4@s.whatsapp.net"
    add_device(database, jid, "", hosted=True)
    creds = database.state(jid=jid).creds
    assert (str(creds.me_pn), creds.me_lid) == (jid, None)


def test_a_plain_account_may_not_use_the_prefix_of_hosted_ones(database: Database) -> None:
    jid = "5511920000001:4@s.whatsapp.net"
    hosted = add_device(database, jid, "", hosted=True)
    plain = hosted["adv_details"].replace(b"\x20\x01", b"\x20\x00").replace(b"\x28\x01", b"\x28\x00")
    assert plain != hosted["adv_details"]
    database.run(("UPDATE whatsmeow_device SET adv_details = ? WHERE jid = ?", (plain, jid)))
    state, report = database.load(jid=jid)
    assert state is None
    assert "account_signature_invalid" in [note.code for note in report.errors]


def test_a_lid_without_a_device_gets_that_of_the_phone_number(database: Database) -> None:
    database.run("UPDATE whatsmeow_device SET lid = '110000000000001@lid'")
    assert str(database.state().creds.me_lid) == LID


def test_salt_and_lid_migration(database: Database) -> None:
    database.run(
        "UPDATE whatsmeow_device SET lid_migration_ts = 1790000000",
        ("INSERT INTO whatsmeow_nct_salt VALUES (?, x'0a0b')", (JID,)),
    )
    creds = database.state().creds
    assert creds.lid_migrated
    assert creds.nct_salt == b"\x0a\x0b"
