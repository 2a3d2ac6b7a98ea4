"""Keyed items: what they become, what is repaired, and what is left out with a word about it."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tests.transfer.whatsmeow.databases import BOB, CAROL, GROUP, JID, NOW_MS, Database, random
from waD.e2ee.curve import KeyPair, serialize_key
from waD.e2ee.groups import SenderKeyRecord
from waD.e2ee.limits import MAX_PREKEY_ID
from waD.e2ee.record import SessionRecord
from waD.e2ee.syncd.lthash import lt_hash
from waD.link.prekeys import OneTimePreKey
from waD.messaging import kinds
from waD.messaging.values import decode_identity, decode_text
from waD.transfer.state import AuthState
from waD.transfer.whatsmeow import rows

BOB_NATIVE = "110000000000002_1.3"
BOB_PN = "5511910000002:3"


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def session(state: AuthState, address: str = BOB_NATIVE) -> SessionRecord:
    return SessionRecord.parse(state.items[kinds.SESSION, address])


def sender_key(state: AuthState, author: str = BOB_NATIVE) -> SenderKeyRecord:
    return SenderKeyRecord.parse(state.items[kinds.SENDER_KEY, f"{GROUP}|{author}"])


# Prekeys


def test_prekeys_know_whether_they_were_uploaded(database: Database) -> None:
    database.run("UPDATE whatsmeow_pre_keys SET uploaded = false WHERE key_id > 40")
    stored = database.state().of(kinds.PREKEY)
    keys = {int(key): OneTimePreKey.parse(int(key), value) for key, value in stored.items()}
    assert {number for number, key in keys.items() if key.state == "new"} == set(range(41, 51))
    assert all(KeyPair.from_private(key.key.private) == key.key for key in keys.values())


@pytest.mark.parametrize(
    ("highest", "following"),
    [(50, 1075), (MAX_PREKEY_ID - 1025, MAX_PREKEY_ID), (MAX_PREKEY_ID - 1024, 1), (MAX_PREKEY_ID, 1025)],
)
def test_the_next_prekey_leaves_a_gap(database: Database, highest: int, following: int) -> None:
    """The old program counts from what is left, so that ids above may have been used (chapter 08 §4.4)."""
    database.run(
        "DELETE FROM whatsmeow_pre_keys WHERE key_id < 50",
        f"UPDATE whatsmeow_pre_keys SET key_id = {highest} WHERE key_id = 50",
    )
    assert database.state().creds.next_prekey_id == following


def test_without_prekeys_the_next_login_uploads(database: Database) -> None:
    database.run("DELETE FROM whatsmeow_pre_keys")
    creds = database.state().creds
    assert (creds.next_prekey_id, creds.server_has_prekeys) == (1025, False)


@pytest.mark.parametrize("change", ["key = x'00'", "key = 'text'", "key_id = 0", "key_id = 'x'"])
def test_a_bad_prekey_is_left_out(database: Database, change: str) -> None:
    database.run(f"UPDATE whatsmeow_pre_keys SET {change} WHERE key_id = 9")
    state, report = database.load()
    assert state is not None
    assert "item_unreadable" in [note.code for note in report.warnings]
    assert len(state.of(kinds.PREKEY)) == 47


# Sessions


def test_a_previous_counter_that_underflowed_is_none(database: Database) -> None:
    record = database.session(BOB)
    record["SessionState"]["PreviousCounter"] = 0xFFFFFFFF
    database.put_session(BOB, record)
    current = session(database.state()).current
    assert current is not None
    assert current.previous_counter == 0


def test_records_may_be_stored_as_text(database: Database) -> None:
    before = database.state()
    database.run("UPDATE whatsmeow_sessions SET session = CAST(session AS TEXT)")
    assert database.state() == before


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"7",
        b'"text"',
        b"[" * 100_000,
        b'{"SessionState":' + b"[" * 5000 + b"]" * 5000 + b"}",
        b"\xff\xfe",
        b" " * ((1 << 25) + 1),
        None,
        5,
    ],
    ids=lambda document: str(document)[:20],
)
def test_a_session_that_is_no_record_is_left_out(database: Database, document: Any) -> None:
    database.run(("UPDATE whatsmeow_sessions SET session = ? WHERE their_id = ?", (document, BOB)))
    state, report = database.load()
    assert state is not None
    assert {note.code for note in report.warnings} & {"item_unreadable", "session_invalid"}
    assert (kinds.SESSION, BOB_NATIVE) not in state.items
    assert len(state.of(kinds.SESSION)) == 2


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("RootKey", "AAAA"),
        ("SessionVersion", 2),
        ("PendingKeyExchange", {}),
        ("SenderChain", None),
        ("ReceiverChains", [1]),
        ("RemoteIdentityPublic", "not base64"),
        ("LocalRegistrationID", 1),
        ("LocalIdentityPublic", b64(serialize_key(KeyPair.generate(random("other")).public))),
    ],
)
def test_a_session_that_cannot_be_ours_is_left_out(database: Database, field: str, value: Any) -> None:
    record = database.session(BOB)
    record["SessionState"][field] = value
    database.put_session(BOB, record)
    state, report = database.load()
    assert state is not None
    assert "session_invalid" in [note.code for note in report.warnings]
    assert (kinds.SESSION, BOB_NATIVE) not in state.items


def test_a_bad_previous_state_costs_only_itself(database: Database) -> None:
    record = database.session(BOB)
    record["PreviousStates"] = [{"RootKey": 1}]
    database.put_session(BOB, record)
    assert "session_invalid" in database.codes()
    assert session(database.state()).current is not None


def test_addresses_this_program_does_not_know_are_told(database: Database) -> None:
    record = database.session(BOB)
    for address in ("110000000000002_13:3", "110000000000002_1:300", "no-colon", ":1", "a b:1"):
        database.put_session(address, record)
    state, report = database.load()
    assert state is not None
    assert [note.code for note in report.warnings].count("unknown_item") == 5
    assert len(state.of(kinds.SESSION)) == 3


def test_hosted_devices_keep_their_domain(database: Database) -> None:
    database.put_session("110000000000002_129:99", database.session(BOB))
    assert (kinds.SESSION, "110000000000002_129.99") in database.state().items


# Two addresses of one device


def test_a_session_under_the_phone_number_moves_to_the_lid(database: Database) -> None:
    before = session(database.state())
    database.run(("UPDATE whatsmeow_sessions SET their_id = ? WHERE their_id = ?", (BOB_PN, BOB)))
    state = database.state()
    assert session(state) == before
    assert (kinds.SESSION, "5511910000002.3") not in state.items


def test_the_open_session_of_the_lid_stays_open(database: Database) -> None:
    other = database.session(BOB)
    other["SessionState"]["SenderBaseKey"] = b64(serialize_key(KeyPair.generate(random("base")).public))
    database.put_session(BOB_PN, other)
    before = database.session(BOB)["SessionState"]
    record = session(database.state())
    assert record.current is not None
    assert b64(serialize_key(record.current.base_key)) == before["SenderBaseKey"]
    assert [b64(serialize_key(state.base_key)) for state in record.archived] == [
        other["SessionState"]["SenderBaseKey"]
    ]


def test_identities_and_sender_keys_move_too(database: Database) -> None:
    before = database.state()
    database.run(
        ("UPDATE whatsmeow_identity_keys SET their_id = ? WHERE their_id = ?", (BOB_PN, BOB)),
        ("UPDATE whatsmeow_sender_keys SET sender_id = ? WHERE sender_id = ?", (BOB_PN, BOB)),
    )
    assert database.state() == before


# Identities


def test_a_session_of_a_replaced_identity_is_archived(database: Database) -> None:
    key = KeyPair.generate(random("new")).public
    database.run(("UPDATE whatsmeow_identity_keys SET identity = ? WHERE their_id = ?", (key, BOB)))
    state, report = database.load()
    assert state is not None
    assert [note.item for note in report.warnings if note.code == "identity_mismatch"] == [
        f"session/{BOB_NATIVE}"
    ]
    record = session(state)
    assert record.current is None
    assert len(record.archived) == 1
    assert decode_identity(state.items[kinds.IDENTITY, BOB_NATIVE]) == key


def test_our_phone_has_the_key_of_the_account(database: Database) -> None:
    key = KeyPair.generate(random("new")).public
    phone = "110000000000001_1:0"
    database.run(("UPDATE whatsmeow_identity_keys SET identity = ? WHERE their_id = ?", (key, phone)))
    state, report = database.load()
    assert state is not None
    assert "primary_identity_mismatch" in [note.code for note in report.warnings]
    assert decode_identity(state.items[kinds.IDENTITY, "110000000000001_1.0"]) == state.creds.account_key
    assert session(state, "110000000000001_1.0").current is not None


def test_an_identity_of_a_wrong_length_is_left_out(database: Database) -> None:
    database.run(("UPDATE whatsmeow_identity_keys SET identity = x'05' WHERE their_id = ?", (CAROL,)))
    assert "item_unreadable" in database.codes()
    assert len(database.state().of(kinds.IDENTITY)) == 2


# Sender keys


def stored_sender_key(database: Database, author: str) -> dict[str, Any]:
    query = f"SELECT sender_key FROM whatsmeow_sender_keys WHERE sender_id = '{author}'"
    found: dict[str, Any] = json.loads(database.value(query))
    return found


def put_sender_key(database: Database, chat: str, author: str, record: Any) -> None:
    text = record if isinstance(record, bytes) else json.dumps(record).encode()
    database.run(
        ("INSERT OR REPLACE INTO whatsmeow_sender_keys VALUES (?, ?, ?, ?)", (JID, chat, author, text))
    )


def test_thirty_two_zero_bytes_are_no_private_key(database: Database) -> None:
    record = stored_sender_key(database, BOB)
    record["SenderKeyStates"][0]["SigningKeyPrivate"] = b64(bytes(32))
    put_sender_key(database, GROUP, BOB, record)
    assert sender_key(database.state()).states[0].private is None


def test_skipped_keys_of_peers_are_kept(database: Database) -> None:
    stored = stored_sender_key(database, BOB)["SenderKeyStates"][0]["Keys"]
    assert stored
    assert len(sender_key(database.state()).states[0].seeds) > 32 * len(stored)


def test_our_own_key_must_be_able_to_sign(database: Database) -> None:
    own = "110000000000001_1:17"
    assert sender_key(database.state(), "110000000000001_1.17").states[0].private is not None
    record = stored_sender_key(database, own)
    record["SenderKeyStates"][0]["SigningKeyPrivate"] = b64(bytes(32))
    put_sender_key(database, GROUP, own, record)
    assert database.codes() == ["sender_key_invalid"]
    assert (kinds.SENDER_KEY, f"{GROUP}|110000000000001_1.17") not in database.state().items


@pytest.mark.parametrize(
    ("chat", "author", "record", "code"),
    [
        (GROUP, "x", b"{}", "unknown_item"),
        ("5511910000002@s.whatsapp.net", BOB, b"{}", "unknown_item"),
        ("", BOB, b"{}", "unknown_item"),
        (GROUP, BOB, b"{}", "item_unreadable"),
        (GROUP, BOB, b'{"SenderKeyStates":[]}', "sender_key_invalid"),
        (GROUP, BOB, b'{"SenderKeyStates":[{"KeyID":-1}]}', "sender_key_invalid"),
    ],
)
def test_a_bad_sender_key_is_left_out(
    database: Database, chat: str, author: str, record: bytes, code: str
) -> None:
    put_sender_key(database, chat, author, record)
    assert code in database.codes()


def test_status_has_sender_keys_as_groups_have(database: Database) -> None:
    put_sender_key(database, "status@broadcast", BOB, stored_sender_key(database, BOB))
    assert (kinds.SENDER_KEY, f"status@broadcast|{BOB_NATIVE}") in database.state().items


def test_everybody_gets_our_sender_key_again(database: Database) -> None:
    assert database.state().of(kinds.SENDER_KEY_MEMORY) == {}


# App state


def put_key(
    database: Database, key_id: bytes, time: Any, data: bytes = bytes(32), print_: bytes = b""
) -> None:
    database.run(
        (
            "INSERT INTO whatsmeow_app_state_sync_keys VALUES (?, ?, ?, ?, ?)",
            (JID, key_id, data, time, print_),
        )
    )


def test_a_key_of_the_app_state(database: Database) -> None:
    document = json.loads(database.state().items[kinds.APP_STATE_KEY, "0000abcdef01"])
    assert document["fingerprint"] == {"rawId": 9, "currentIndex": 1, "deviceIndexes": [0, 1]}


def test_the_newest_key_is_the_one_in_use(database: Database) -> None:
    put_key(database, b"\x01old", 5)
    assert database.state().creds.app_state_key_id == bytes.fromhex("0000abcdef01")
    put_key(database, b"\x00new", 1_900_000_000_000)
    state = database.state()
    assert state.creds.app_state_key_id == b"\x00new"
    assert json.loads(state.items[kinds.APP_STATE_KEY, b"\x00new".hex()])["fingerprint"] is None


@pytest.mark.parametrize(
    ("key_id", "time", "data", "print_"),
    [
        (b"", 1, bytes(32), b""),
        (bytes(65), 1, bytes(32), b""),
        (b"id", -1, bytes(32), b""),
        (b"id", "x", bytes(32), b""),
        (b"id", 1, bytes(31), b""),
        (b"id", 1, bytes(32), b"\xff"),
    ],
)
def test_a_bad_key_is_left_out(
    database: Database, key_id: bytes, time: Any, data: bytes, print_: bytes
) -> None:
    put_key(database, key_id, time, data, print_)
    assert database.codes() == ["item_unreadable"]
    assert len(database.state().of(kinds.APP_STATE_KEY)) == 1


def put_collection(database: Database, name: str, macs: dict[tuple[int, bytes], bytes], digest: Any) -> None:
    database.run(
        ("INSERT INTO whatsmeow_app_state_version VALUES (?, ?, 8, ?)", (JID, name, digest)),
        *(
            (
                "INSERT INTO whatsmeow_app_state_mutation_macs VALUES (?, ?, ?, ?, ?)",
                (JID, name, version, index, value),
            )
            for (version, index), value in macs.items()
        ),
    )


INDEX, OTHER, FIRST, SECOND, THIRD = (bytes([number]) * 32 for number in range(1, 6))
MACS = {(9, INDEX): FIRST, (10, INDEX): SECOND, (7, OTHER): THIRD}


def test_the_latest_entry_of_an_index_counts(database: Database) -> None:
    put_collection(database, "regular", MACS, lt_hash([SECOND, THIRD]))
    state, report = database.load()
    assert state is not None
    assert [note.code for note in report.notes] == ["not_taken"]
    document = json.loads(state.items[kinds.APP_STATE_VERSION, "regular"])
    assert document["version"] == 8
    assert document["hash"] == b64(lt_hash([THIRD, SECOND]))
    assert document["macs"] == {b64(INDEX): b64(SECOND), b64(OTHER): b64(THIRD)}


def test_a_collection_that_does_not_fit_its_hash_starts_again(database: Database) -> None:
    put_collection(database, "regular", MACS, lt_hash([FIRST, THIRD]))
    assert database.codes() == ["app_state_hash_mismatch"]
    document = json.loads(database.state().items[kinds.APP_STATE_VERSION, "regular"])
    assert document == {"version": 0, "hash": b64(bytes(128)), "macs": {}}


@pytest.mark.parametrize(
    ("name", "digest", "code"),
    [
        ("regular", b"short", "item_unreadable"),
        ("regular", None, "item_unreadable"),
        ("x", b"", "unknown_item"),
    ],
)
def test_a_bad_collection_is_left_out(database: Database, name: str, digest: Any, code: str) -> None:
    database.run("DROP TABLE whatsmeow_app_state_version")
    database.run("CREATE TABLE whatsmeow_app_state_version (jid, name, version, hash)")
    put_collection(database, name, {}, digest)
    assert database.codes() == [code]
    assert database.state().of(kinds.APP_STATE_VERSION) == {}


# LID map, tokens, what is left


def test_only_people_who_occur_are_taken_from_the_shared_map(database: Database) -> None:
    database.run("INSERT INTO whatsmeow_lid_map VALUES ('220000000000009', '5511990000009')")
    pairs = {pn: decode_text(lid) for pn, lid in database.state().of(kinds.LID_OF_PN).items()}
    assert pairs == {"5511910000001": "110000000000001", "5511910000002": "110000000000002"}
    everybody = database.state(all_mappings=True)
    assert decode_text(everybody.items[kinds.LID_OF_PN, "5511990000009"]) == "220000000000009"
    assert decode_text(everybody.items[kinds.PN_OF_LID, "220000000000009"]) == "5511990000009"


@pytest.mark.parametrize(
    "statement",
    [
        ("INSERT INTO whatsmeow_contacts (our_jid, their_jid) VALUES (?, '5511990000009@s.whatsapp.net')"),
        ("INSERT INTO whatsmeow_chat_settings (our_jid, chat_jid) VALUES (?, '220000000000009@lid')"),
        ("INSERT INTO whatsmeow_privacy_tokens VALUES (?, '5511990000009@s.whatsapp.net', x'01', 1, NULL)"),
    ],
)
def test_people_may_occur_anywhere(database: Database, statement: str) -> None:
    database.run(
        "INSERT INTO whatsmeow_lid_map VALUES ('220000000000009', '5511990000009')", (statement, (JID,))
    )
    assert (kinds.LID_OF_PN, "5511990000009") in database.state().items


def test_the_own_pair_is_always_there_and_wins(database: Database) -> None:
    database.run("DELETE FROM whatsmeow_lid_map")
    assert decode_text(database.state().items[kinds.LID_OF_PN, "5511910000001"]) == "110000000000001"
    database.run("INSERT INTO whatsmeow_lid_map VALUES ('220000000000009', '5511910000001')")
    assert database.codes() == ["lid_map_conflict"]
    assert decode_text(database.state().items[kinds.LID_OF_PN, "5511910000001"]) == "110000000000001"


def test_a_pair_that_is_not_two_numbers_is_left_out(database: Database) -> None:
    database.run("UPDATE whatsmeow_lid_map SET lid = 'a@b' WHERE pn = '5511910000002'")
    assert database.codes() == ["item_unreadable"]


def test_tokens_are_filed_under_the_person(database: Database) -> None:
    database.run(
        *(
            ("INSERT INTO whatsmeow_privacy_tokens VALUES (?, ?, ?, ?, ?)", (JID, *row))
            for row in (
                ("5511910000002@s.whatsapp.net", b"newer", 20, 15),
                ("110000000000002@lid", b"older", 10, None),
                ("5511977777777@s.whatsapp.net", b"other", 5, None),
                ("5511966666666@s.whatsapp.net", b"", 5, None),
                ("nobody", b"x", 5, None),
            )
        )
    )
    state, report = database.load()
    assert state is not None
    tokens = {key: json.loads(value) for key, value in state.of(kinds.TRUSTED_CONTACT).items()}
    assert tokens == {
        "110000000000002@lid": {"token": b64(b"newer"), "ts": 20, "sent": 15},
        "5511977777777@s.whatsapp.net": {"token": b64(b"other"), "ts": 5, "sent": None},
    }
    assert [note.code for note in report.warnings] == ["not_taken", "item_unreadable", "unknown_item"]


def test_what_is_not_taken_is_counted(database: Database) -> None:
    database.run(
        ("INSERT INTO whatsmeow_retry_buffer VALUES (?, 'c', 'i', 'f', x'00', 1)", (JID,)),
        ("INSERT INTO whatsmeow_event_buffer VALUES (?, zeroblob(32), x'00', 1, 1)", (JID,)),
        ("INSERT INTO whatsmeow_chat_settings (our_jid, chat_jid) VALUES (?, 'c@g.us')", (JID,)),
    )
    _, report = database.load()
    told = {note.item: note.detail.split(" ")[0] for note in report.warnings}
    assert told == {
        "whatsmeow_contacts": "4",
        "whatsmeow_chat_settings": "1",
        "whatsmeow_event_buffer": "1",
        "whatsmeow_retry_buffer": "1",
    }


def put_secrets(database: Database, *rows: tuple[Any, ...]) -> None:
    statement = "INSERT INTO whatsmeow_message_secrets VALUES (?, ?, ?, ?, ?)"
    database.run(*((statement, (JID, *row)) for row in rows))


def test_secrets_of_messages(database: Database) -> None:
    pn, lid, group = "5511910000002@s.whatsapp.net", "110000000000002@lid", "120363000000000901@g.us"
    database.run("DELETE FROM whatsmeow_message_secrets")
    before = len(database.state().secrets)
    put_secrets(
        database,
        (pn, pn, "A1", b"1" * 32),
        (lid, lid, "A1", b"2" * 32),  # the same message under its other address, written later
        (group, pn, "A2", b"3" * 32),
        ("5511977777777@s.whatsapp.net", "5511977777777:4@s.whatsapp.net", "A3", b"4" * 32),
    )
    found = {(row.chat, row.sender, row.message_id): row for row in database.state().secrets}
    other = "5511977777777@s.whatsapp.net"
    assert before == 0
    assert {key: row.secret[:1] for key, row in found.items()} == {
        (lid, lid, "A1"): b"2",
        (group, lid, "A2"): b"3",
        (other, other, "A3"): b"4",
    }
    assert [found[group, lid, "A2"].wire_sender, found[other, other, "A3"].wire_sender] == [pn, other]
    assert {(row.message_ts, row.expires_at) for row in found.values()} == {
        (NOW_MS, NOW_MS + 90 * 86_400_000)
    }


def test_secrets_that_cannot_be_used(database: Database) -> None:
    database.run("DELETE FROM whatsmeow_message_secrets")
    good = "5511910000002@s.whatsapp.net"
    put_secrets(
        database,
        ("nowhere", good, "A1", b"1" * 32),
        (good, "", "A2", b"1" * 32),
        (good, good, "A3", b"1" * 31),
        (good, good, "A4", "1" * 32),
        (good, good, "", b"1" * 32),
        (good, good, "x" * 256, b"1" * 32),
        (good, good, "a\x00b", b"1" * 32),
        (good, good, b"A5", b"1" * 32),
        (good, good, "A6", b"1" * 32),
    )
    state, report = database.load()
    assert state is not None
    assert [row.message_id for row in state.secrets] == ["A6"]
    told = sorted(note.code for note in report.warnings if note.item.startswith("message-secret"))
    assert told == ["item_unreadable"] * 6 + ["unknown_item"] * 2
    assert "1" * 31 not in repr(report.notes)


def test_of_too_many_secrets_the_newest_are_taken(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.run("DELETE FROM whatsmeow_message_secrets")
    monkeypatch.setattr(rows, "MAX_SECRETS", 2)
    chat = "5511910000002@s.whatsapp.net"
    put_secrets(database, *((chat, chat, f"A{number}", b"1" * 32) for number in range(5)))
    state, report = database.load()
    assert state is not None
    assert {row.message_id for row in state.secrets} == {"A3", "A4"}
    (note,) = [note for note in report.warnings if note.item == "message-secret"]
    assert (note.code, note.detail.split(" ")[0]) == ("not_taken", "3")


def test_nothing_secret_is_shown(database: Database) -> None:
    state = database.state()
    assert "AuthState" in repr(state)
    assert b64(state.creds.adv_secret) not in repr(state)
