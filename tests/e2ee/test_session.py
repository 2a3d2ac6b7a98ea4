"""Pairwise sessions, rule by rule."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from tests.e2ee.parties import DAY, NOW, SIGNED_PREKEY_ID, Device, Letter, acquainted, flip, new_pair, seeded
from waD.e2ee import curve, messages, ratchet, session
from waD.e2ee.errors import SignalError
from waD.e2ee.kdf import hmac_sha256
from waD.e2ee.limits import MAX_ARCHIVED_SESSIONS, MAX_COUNTER, MAX_FORWARD_JUMP, MAX_SEND_GAP
from waD.e2ee.record import SessionRecord, SessionState
from waD.e2ee.x3dh import LocalIdentity, PreKeyBundle


def current(device: Device, peer: str) -> SessionState:
    state = device.existing(peer).current
    assert state is not None
    return state


def rewrap(letter: Letter, **changes: object) -> Letter:
    """Rebuild a prekey message with other outer fields; the inner message stays."""
    outer = messages.parse_prekey_message(letter[1])
    fields = {
        "registration_id": outer.registration_id,
        "prekey_id": outer.prekey_id,
        "signed_prekey_id": outer.signed_prekey_id,
        "base_key": outer.base_key,
        "identity": outer.identity,
        "message": outer.message.body + outer.message.mac,
    }
    return "pkmsg", messages.encode_prekey_message(**(fields | changes))  # type: ignore[arg-type]


# Bundles.


def test_a_bundle_makes_a_pending_session() -> None:
    alice, bob = Device("alice", 1), Device("bob", 2)
    alice.initiate(bob)
    state = current(alice, "bob")
    assert state.own_base is True
    assert state.pending is not None
    assert (state.pending.prekey_id, state.pending.signed_prekey_id) == (1, SIGNED_PREKEY_ID)
    assert state.pending.base_key == state.base_key
    assert state.remote_registration_id == bob.local.registration_id
    assert state.local_registration_id == alice.local.registration_id
    assert [chain.ratchet for chain in state.receivers] == [bob.signed_prekey.public]
    assert (state.created_ms, state.used_ms, state.closed_ms) == (NOW, NOW, None)


def test_a_bundle_without_one_time_prekey() -> None:
    alice, bob = Device("alice", 1), Device("bob", 2, prekeys=0)
    letter = alice.send(bob, b"three agreements")
    assert messages.parse_prekey_message(letter[1]).prekey_id is None
    done = bob.open(alice, letter)
    assert (done.plaintext, done.consumed_prekey) == (b"three agreements", None)


def good_bundle() -> PreKeyBundle:
    return Device("bob", 2).bundle()


def process(bundle: PreKeyBundle, pinned: bytes | None = None) -> SessionRecord:
    local = LocalIdentity(new_pair(1), 1)
    return session.process_bundle(None, local, bundle, new_pair(3), new_pair(4), pinned=pinned)


@pytest.mark.parametrize(
    "changes",
    [
        {"identity": bytes(33)},
        {"signed_prekey": bytes(31)},
        {"signature": bytes(63)},
        {"prekey": b""},
        {"prekey": None},
        {"prekey_id": None},
        {"prekey_id": 0},
        {"prekey_id": 1 << 24},
        {"signed_prekey_id": 1 << 24},
        {"signed_prekey_id": -1},
        {"registration_id": 1 << 32},
        {"prekey": bytes(32)},
        {"prekey": b"\x01" + bytes(31)},
    ],
)
def test_malformed_bundles_are_refused(changes: dict[str, object]) -> None:
    process(good_bundle())
    with pytest.raises(SignalError) as caught:
        process(replace(good_bundle(), **changes))
    assert caught.value.code == "malformed"


def test_the_signature_of_the_signed_prekey_is_checked() -> None:
    bundle = good_bundle()
    bad = [
        replace(bundle, signature=flip(bundle.signature, 10)),
        replace(bundle, signature=bytes(64)),
        replace(bundle, signed_prekey=new_pair(9).public),
        replace(bundle, identity=new_pair(9).public),
        replace(bundle, identity=bytes(32)),
    ]
    for forged in bad:
        with pytest.raises(SignalError) as caught:
            process(forged)
        assert caught.value.code == "invalid_signature"
        assert caught.value.key_id == SIGNED_PREKEY_ID


def test_a_signature_over_the_32_byte_key_is_not_enough() -> None:
    bob = Device("bob", 2)
    signature = curve.sign(bob.local.identity.private, bob.signed_prekey.public, bob.random)
    with pytest.raises(SignalError, match="invalid_signature"):
        process(replace(bob.bundle(), signature=signature))


def test_a_pinned_identity_holds_bundles_of_another() -> None:
    bundle = good_bundle()
    assert process(bundle, pinned=bundle.identity).current is not None
    with pytest.raises(SignalError, match="untrusted_identity"):
        process(bundle, pinned=new_pair(9).public)


def test_a_new_bundle_archives_the_current_session() -> None:
    alice, bob = acquainted()
    before = current(alice, "bob")
    alice.now += 5
    alice.initiate(bob)
    record = alice.existing("bob")
    assert record.current is not None
    assert record.current.pending is not None
    (archived,) = record.archived
    assert archived == replace(before, closed_ms=NOW + 5, pending=None)


def test_archiving_clears_pending() -> None:
    alice, bob = Device("alice", 1), Device("bob", 2)
    alice.initiate(bob)
    alice.initiate(bob)
    (archived,) = alice.existing("bob").archived
    assert archived.pending is None


def test_the_archive_keeps_the_40_newest() -> None:
    alice, bob = Device("alice", 1), Device("bob", 2)
    bases: list[bytes] = []
    for _ in range(MAX_ARCHIVED_SESSIONS + 3):
        alice.initiate(bob)
        bases.insert(0, current(alice, "bob").base_key)
    record = alice.existing("bob")
    assert [state.base_key for state in record.states()] == bases[: MAX_ARCHIVED_SESSIONS + 1]


# First flight.


def test_a_flight_stays_prekey_messages_until_an_answer_decrypts() -> None:
    alice, bob = Device("alice", 1), Device("bob", 2)
    flight = [alice.send(bob, bytes([number])) for number in range(3)]
    assert [kind for kind, _ in flight] == ["pkmsg"] * 3
    assert len({messages.parse_prekey_message(data).base_key for _, data in flight}) == 1
    for number in (1, 0, 2):
        assert bob.receive(alice, flight[number]) == bytes([number])
    assert alice.receive(bob, bob.send(alice, b"answer")) == b"answer"
    assert alice.send(bob, b"next")[0] == "msg"


def test_the_one_time_prekey_is_consumed_once() -> None:
    alice, bob = Device("alice", 1), Device("bob", 2)
    first, second = alice.send(bob, b"1"), alice.send(bob, b"2")
    done = bob.open(alice, first)
    assert (done.established, done.promoted, done.consumed_prekey) == (True, False, 1)
    assert done.identity == alice.local.identity.public
    bob.receive(alice, first)
    assert 1 not in bob.prekeys
    again = bob.open(alice, second)
    assert (again.established, again.consumed_prekey, again.plaintext) == (False, None, b"2")


def test_a_responder_answers_with_msg_on_a_fresh_ratchet() -> None:
    alice, bob = Device("alice", 1), Device("bob", 2)
    bob.receive(alice, alice.send(bob, b"1"))
    state = current(bob, "alice")
    assert state.own_base is False
    assert state.pending is None
    assert state.sender.public != bob.signed_prekey.public
    assert bob.send(alice, b"2")[0] == "msg"


def test_redelivery_of_a_prekey_message_is_a_duplicate() -> None:
    alice, bob = Device("alice", 1), Device("bob", 2)
    letter = alice.send(bob, b"1")
    bob.receive(alice, letter)
    error = bob.refuse(alice, letter)
    assert (error.code, error.counter) == ("duplicate", 0)


def test_unknown_prekeys() -> None:
    alice, bob = Device("alice", 1), Device("bob", 2)
    letter = alice.send(bob, b"1")
    error = bob.refuse(alice, rewrap(letter, signed_prekey_id=9, prekey_id=99))
    assert (error.code, error.key_id) == ("invalid_signed_prekey_id", 9)
    error = bob.refuse(alice, rewrap(letter, prekey_id=99))
    assert (error.code, error.key_id) == ("invalid_prekey_id", 99)
    assert bob.receive(alice, letter) == b"1"


def test_forged_outer_fields_of_a_new_session_do_not_decrypt() -> None:
    alice, bob = Device("alice", 1), Device("bob", 2)
    letter = alice.send(bob, b"1")
    other = new_pair(9).public
    for forged in (
        rewrap(letter, identity=other),
        rewrap(letter, base_key=other),
        rewrap(letter, prekey_id=2),
        rewrap(letter, prekey_id=None),
    ):
        assert bob.refuse(alice, forged).code == "bad_mac"
    for key in (bytes(32), b"\x01" + bytes(31)):
        assert bob.refuse(alice, rewrap(letter, identity=key)).code == "malformed"
        assert bob.refuse(alice, rewrap(letter, base_key=key)).code == "malformed"
    assert bob.receive(alice, letter) == b"1"


def test_another_identity_on_a_known_base_key_is_malformed() -> None:
    alice, bob = Device("alice", 1), Device("bob", 2)
    first, second = alice.send(bob, b"1"), alice.send(bob, b"2")
    bob.receive(alice, first)
    assert bob.refuse(alice, rewrap(second, identity=new_pair(9).public)).code == "malformed"
    # The outer ids mean nothing any more once the session is known.
    assert bob.receive(alice, rewrap(second, prekey_id=77, signed_prekey_id=88)) == b"2"


def test_our_own_prekey_message_sent_back_is_not_taken_for_a_known_session() -> None:
    alice, bob = Device("alice", 1), Device("bob", 2)
    letter = alice.send(bob, b"1")
    assert alice.refuse(bob, letter).code == "bad_mac"
    assert alice.refuse(bob, rewrap(letter, signed_prekey_id=9)).code == "invalid_signed_prekey_id"


def test_a_pinned_identity_holds_messages_of_another() -> None:
    alice, bob = Device("alice", 1), Device("bob", 2)
    letter = alice.send(bob, b"1")
    other = new_pair(9).public
    with pytest.raises(SignalError, match="untrusted_identity"):
        bob.open(alice, letter, pinned=other)
    assert bob.open(alice, letter, pinned=alice.local.identity.public).plaintext == b"1"
    bob.receive(alice, letter)
    alice.receive(bob, bob.send(alice, b"2"))
    with pytest.raises(SignalError, match="untrusted_identity"):
        bob.open(alice, alice.send(bob, b"3"), pinned=other)


# Messages in a session.


def test_unknown_kinds_are_malformed() -> None:
    alice, bob = acquainted()
    letter = alice.send(bob, b"1")
    assert bob.refuse(alice, ("skmsg", letter[1])).code == "malformed"
    assert bob.refuse(alice, ("", letter[1])).code == "malformed"


def test_no_session() -> None:
    alice, bob = acquainted()
    letter = alice.send(bob, b"1")
    del bob.stored["alice"]
    assert bob.refuse(alice, letter).code == "no_session"
    bob.keep("alice", SessionRecord(None))
    assert bob.refuse(alice, letter).code == "no_session"
    with pytest.raises(SignalError, match="no_session"):
        session.encrypt(SessionRecord(None), bob.local, b"")


def test_a_forged_message_changes_nothing_and_draws_nothing() -> None:
    alice, bob = acquainted()
    bob.receive(alice, alice.send(bob, b"0"))
    alice.receive(bob, bob.send(alice, b"turn"))
    kind, data = alice.send(bob, b"genuine")
    for position in range(len(data)):
        error = bob.refuse(alice, (kind, flip(data, position)))
        assert error.code in {"bad_mac", "malformed", "too_far"}, position
    assert bob.refuse(alice, (kind, data[:-24] + data[-8:])).code == "malformed"
    assert bob.receive(alice, (kind, data)) == b"genuine"


def test_the_ratchet_key_is_drawn_once_per_turn() -> None:
    alice, bob = acquainted()
    drawn = bob.draws
    for number in range(3):
        bob.receive(alice, alice.send(bob, bytes([number])))
    assert bob.draws == drawn + 1


def test_previous_counter_is_the_last_one_sent_on_the_previous_chain() -> None:
    alice, bob = acquainted()
    for sent, expected in ((1, 0), (2, 1), (5, 4)):
        for _ in range(sent):
            bob.receive(alice, alice.send(bob, b"x"))
        alice.receive(bob, bob.send(alice, b"turn"))
        made = session.encrypt(alice.existing("bob"), alice.local, b"first of the next chain")
        parsed = messages.parse_signal_message(made.data)
        assert (parsed.counter, parsed.previous_counter) == (0, expected)


def test_a_nonsense_previous_counter_is_not_trusted() -> None:
    alice, bob = acquainted()
    state = replace(current(alice, "bob"), previous_counter=0xFFFFFFFF)
    _, data = ratchet.encrypt(state, b"as one peer writes it", NOW)
    assert bob.receive(alice, ("msg", data)) == b"as one peer writes it"


@pytest.mark.parametrize("skipped", [MAX_SEND_GAP, MAX_FORWARD_JUMP])
def test_the_longest_forward_jumps(skipped: int) -> None:
    alice, bob = acquainted()
    letters = [alice.send(bob, b"%d" % number) for number in range(skipped + 1)]
    assert bob.receive(alice, letters[-1]) == b"%d" % skipped
    assert current(bob, "alice").skipped_count == skipped
    for number in (0, 1000, skipped - 1):
        assert bob.receive(alice, letters[number]) == b"%d" % number
        assert bob.refuse(alice, letters[number]).code == "duplicate"


def test_too_far() -> None:
    alice, bob = acquainted()
    record = alice.existing("bob")
    assert record.current is not None
    sender = record.current.sender
    _, key = ratchet.advance(sender.key, MAX_FORWARD_JUMP + 1)
    jumped = replace(record.current, sender=replace(sender, next=sender.next + MAX_FORWARD_JUMP + 1, key=key))
    _, data = ratchet.encrypt(jumped, b"far", NOW)
    error = bob.refuse(alice, ("msg", data))
    assert (error.code, error.counter) == ("too_far", MAX_FORWARD_JUMP + 1)


def test_skipped_keys_are_evicted_lowest_first() -> None:
    alice, bob = acquainted()
    letters = [alice.send(bob, b"%d" % number) for number in range(2500)]
    bob.receive(alice, letters[1500])
    bob.receive(alice, letters[2499])
    assert current(bob, "alice").skipped_count == 2000
    assert bob.refuse(alice, letters[497]).code == "duplicate"
    assert bob.receive(alice, letters[498]) == b"498"
    assert bob.receive(alice, letters[2498]) == b"2498"


def test_an_exhausted_chain_does_not_wrap() -> None:
    alice, _ = acquainted()
    state = current(alice, "bob")
    last = replace(state, sender=replace(state.sender, next=MAX_COUNTER))
    made = session.encrypt(SessionRecord(last), alice.local, b"last")
    assert messages.parse_signal_message(made.data).counter == MAX_COUNTER
    with pytest.raises(SignalError) as caught:
        session.encrypt(SessionRecord.parse(made.record.serialize()), alice.local, b"one more")
    assert caught.value.code == "exhausted"


def test_late_messages_of_closed_chains() -> None:
    """A chain pushed out of the newest five still gives its skipped keys, and nothing else."""
    alice, bob = acquainted()
    lost, arrived = alice.send(bob, b"lost"), alice.send(bob, b"arrived")
    unsent = alice.send(bob, b"beyond what bob has seen of this chain")
    bob.receive(alice, arrived)
    for _ in range(6):
        alice.receive(bob, bob.send(alice, b"x"))
        bob.receive(alice, alice.send(bob, b"y"))
    chains = current(bob, "alice").receivers
    assert [chain.key is None for chain in chains] == [True] + [False] * 5
    assert bob.refuse(alice, unsent).code == "too_far"
    assert bob.receive(alice, lost) == b"lost"
    assert [chain.key is None for chain in current(bob, "alice").receivers] == [False] * 5
    # Its chain is gone: the key looks like a new ratchet key, and the MAC tells.
    assert bob.refuse(alice, lost).code == "bad_mac"


def test_authentic_bytes_with_wrong_block_padding_are_malformed() -> None:
    alice, bob = acquainted()
    state = current(alice, "bob")
    keys = ratchet.message_keys(hmac_sha256(state.sender.key, b"\x01"))
    ciphertext = ratchet.aes_cbc_encrypt(keys.cipher_key, keys.iv, bytes(15) + b"\x11")[:16]
    body = messages.encode_signal_body(state.sender.public, 0, 0, ciphertext)
    mac = ratchet._mac(keys.mac_key, state.local_identity, state.remote_identity, body)
    assert bob.refuse(alice, ("msg", body + mac)).code == "malformed"


# Several sessions.


def test_a_late_message_of_an_archived_session_promotes_it() -> None:
    alice, bob = acquainted()
    late = alice.send(bob, b"late")
    old = current(bob, "alice").base_key
    alice.initiate(bob)
    bob.receive(alice, alice.send(bob, b"new session"))
    assert [state.base_key == old for state in bob.existing("alice").states()] == [False, True]
    done = bob.open(alice, late)
    assert (done.plaintext, done.promoted, done.established) == (b"late", True, False)
    bob.receive(alice, late)
    promoted, archived = bob.existing("alice").states()
    assert (promoted.base_key, promoted.closed_ms) == (old, None)
    assert archived.closed_ms == NOW
    assert alice.receive(bob, bob.send(alice, b"on the old one")) == b"on the old one"


def test_a_prekey_message_of_an_archived_session_makes_it_current() -> None:
    alice, bob = Device("alice", 1), Device("bob", 2)
    first, second = alice.send(bob, b"1"), alice.send(bob, b"2")
    bob.receive(alice, first)
    alice.initiate(bob)
    bob.receive(alice, alice.send(bob, b"other session"))
    done = bob.open(alice, second)
    assert (done.plaintext, done.promoted, done.consumed_prekey) == (b"2", True, None)


def test_an_archived_session_of_a_replaced_identity_is_not_promoted() -> None:
    alice, bob = acquainted()
    late = alice.send(bob, b"sent before the reinstallation")
    fresh = Device("alice", 77)
    bob.receive(fresh, fresh.send(bob, b"new phone"))
    done = bob.open(alice, late)
    assert (done.plaintext, done.promoted) == (b"sent before the reinstallation", False)
    assert done.identity == alice.local.identity.public
    bob.receive(alice, late)
    record = bob.existing("alice")
    assert record.current is not None
    assert record.current.remote_identity == fresh.local.identity.public
    assert bob.refuse(alice, late).code == "duplicate"
    assert fresh.receive(bob, bob.send(fresh, b"to the new one")) == b"to the new one"


def test_archive_current() -> None:
    alice, bob = acquainted()
    late = bob.send(alice, b"late")
    archived = session.archive_current(alice.existing("bob"), NOW + 1)
    assert archived.current is None
    assert archived.archived[0].closed_ms == NOW + 1
    assert session.archive_current(archived) is archived
    with pytest.raises(SignalError, match="no_session"):
        session.encrypt(archived, alice.local, b"")
    alice.keep("bob", archived)
    assert alice.send(bob, b"by a new bundle")[0] == "pkmsg"
    assert alice.receive(bob, late) == b"late"


def test_the_most_telling_error_wins() -> None:
    """duplicate before bad_mac before anything else, whatever the order of the sessions."""
    alice, bob = acquainted()
    used = alice.send(bob, b"used")
    bob.receive(alice, used)
    alice.initiate(bob)
    bob.receive(alice, alice.send(bob, b"new"))
    assert bob.refuse(alice, used).code == "duplicate"
    kind, data = used
    body = messages.parse_signal_message(data)
    far = messages.encode_signal_body(body.ratchet_key, 5000, 0, body.ciphertext) + body.mac
    assert bob.refuse(alice, (kind, far)).code == "too_far"
    near = messages.encode_signal_body(body.ratchet_key, 7, 0, body.ciphertext) + body.mac
    assert bob.refuse(alice, (kind, near)).code == "bad_mac"


def test_a_bad_mac_tells_more_than_a_jump() -> None:
    """The archived session could check the MAC; the current one gave up before."""
    alice, bob = acquainted()
    letters = [alice.send(bob, b"so far") for _ in range(10)]
    for letter in letters:
        bob.receive(alice, letter)
    alice.initiate(bob)
    bob.receive(alice, alice.send(bob, b"new"))
    body = messages.parse_signal_message(letters[-1][1])
    forged = messages.encode_signal_body(body.ratchet_key, 2005, 0, body.ciphertext) + body.mac
    assert bob.refuse(alice, ("msg", forged)).code == "bad_mac"


def test_simultaneous_initiation() -> None:
    alice, bob = Device("alice", 1), Device("bob", 2)
    from_alice, from_bob = alice.send(bob, b"a"), bob.send(alice, b"b")
    assert bob.receive(alice, from_alice) == b"a"
    assert alice.receive(bob, from_bob) == b"b"
    for number in range(6):
        letter, answer = alice.send(bob, b"%d" % number), bob.send(alice, b"-%d" % number)
        assert bob.receive(alice, letter) == b"%d" % number
        assert alice.receive(bob, answer) == b"-%d" % number
    assert len(alice.existing("bob").archived) == len(bob.existing("alice").archived) == 1


# Stale, dead, merged.


def test_a_stale_session_reads_and_does_not_write() -> None:
    alice, bob = acquainted()
    same_chain = bob.send(alice, b"same chain")
    alice.keep("bob", session.mark_stale(alice.existing("bob")))
    with pytest.raises(SignalError, match="no_session"):
        session.encrypt(alice.existing("bob"), alice.local, b"")
    assert alice.receive(bob, same_chain) == b"same chain"
    assert current(alice, "bob").stale
    bob.receive(alice, alice.send(bob, b"by a new bundle"))
    assert alice.existing("bob").archived[0].stale


def test_a_dh_step_makes_a_stale_session_usable() -> None:
    alice, bob = acquainted()
    pending = alice.send(bob, b"sent before the restore")
    alice.keep("bob", session.mark_stale(alice.existing("bob")))
    bob.receive(alice, pending)
    assert alice.receive(bob, bob.send(alice, b"turn")) == b"turn"
    assert not current(alice, "bob").stale
    assert bob.receive(alice, alice.send(bob, b"again")) == b"again"


def test_sessions_of_another_identity_of_ours_are_dead() -> None:
    alice, bob = acquainted()
    letter, old = alice.send(bob, b"1"), bob.existing("alice")
    bob.local = LocalIdentity(new_pair(50), bob.local.registration_id)
    assert bob.refuse(alice, letter).code == "no_session"
    with pytest.raises(SignalError, match="no_session"):
        session.encrypt(old, bob.local, b"")
    assert session.drop_dead(old, bob.local.identity.public) is None
    bob.initiate(alice)
    mixed = bob.existing("alice")
    assert len(mixed.archived) == 1
    dropped = session.drop_dead(mixed, bob.local.identity.public)
    assert dropped == replace(mixed, archived=())
    only_archived = session.drop_dead(mixed, old_identity(old))
    assert only_archived is not None
    assert only_archived.current is None
    assert len(only_archived.archived) == 1


def old_identity(record: SessionRecord) -> bytes:
    assert record.current is not None
    return record.current.local_identity


def used(device: Device, peer: str, used_ms: int, seed: int) -> SessionState:
    """A session of the device that was used at a time."""
    return replace(current(device, peer), used_ms=used_ms, base_key=new_pair(seed).public)


def test_merging_keeps_everything_newest_first() -> None:
    alice, _ = acquainted()
    made = {
        name: used(alice, "bob", time, time) for name, time in zip("abcde", (50, 90, 10, 70, 30), strict=True)
    }
    lid = SessionRecord(made["a"], (made["b"], made["c"]), 200)
    pn = SessionRecord(made["d"], (made["e"],), 100)
    merged = session.merge(lid, pn)
    assert merged is not None
    assert merged.current == made["a"]
    assert [state.used_ms for state in merged.archived] == [90, 70, 30, 10]
    assert all(state.closed_ms is not None and state.pending is None for state in merged.archived)
    assert merged.oldest_skipped_ms == 100
    assert session.merge(lid, None) is lid
    assert session.merge(None, pn) is pn
    assert session.merge(None, None) is None


def test_merging_without_a_current_lid_session_keeps_the_pn_one() -> None:
    alice, _ = acquainted()
    first, second = used(alice, "bob", 5, 5), used(alice, "bob", 9, 9)
    merged = session.merge(SessionRecord(None, (second,)), SessionRecord(first))
    assert merged is not None
    assert merged.current == first
    assert [state.base_key for state in merged.archived] == [second.base_key]


def test_merging_two_copies_of_a_session_keeps_the_later_one() -> None:
    alice, _ = acquainted()
    old = used(alice, "bob", 5, 5)
    new = replace(old, used_ms=9, sender=replace(old.sender, next=7))
    for lid, pn in ((old, new), (new, old)):
        merged = session.merge(SessionRecord(lid), SessionRecord(pn))
        assert merged is not None
        assert merged.current == new
        assert merged.archived == ()
    merged = session.merge(SessionRecord(None, (old,)), SessionRecord(None, (new,)))
    assert merged is not None
    assert [state.used_ms for state in merged.archived] == [9]


def test_merging_respects_the_archive_limit() -> None:
    alice, _ = acquainted()
    states = tuple(used(alice, "bob", number, number) for number in range(1, 60))
    merged = session.merge(SessionRecord(states[0], states[1:30]), SessionRecord(None, states[30:]))
    assert merged is not None
    assert len(merged.archived) == MAX_ARCHIVED_SESSIONS
    assert merged.archived[0].used_ms == 59


def test_a_merged_record_decrypts_messages_of_both_addresses() -> None:
    alice, bob = acquainted()
    to_pn = alice.send(bob, b"to pn")
    pn = bob.stored.pop("alice")
    del alice.stored["bob"]
    bob.receive(alice, alice.send(bob, b"first to lid"))
    alice.receive(bob, bob.send(alice, b"answer"))
    to_lid = alice.send(bob, b"to lid")
    merged = session.merge(bob.existing("alice"), SessionRecord.parse(pn))
    assert merged is not None
    bob.keep("alice", merged)
    assert bob.receive(alice, to_pn) == b"to pn"
    assert bob.receive(alice, to_lid) == b"to lid"


def test_times_are_kept_without_a_clock() -> None:
    alice, bob = acquainted()
    alice.now = 0
    alice.send(bob, b"1")
    assert current(alice, "bob").used_ms == NOW
    alice.now = NOW + DAY
    alice.send(bob, b"2")
    assert current(alice, "bob").used_ms == NOW + DAY


def test_records_are_values() -> None:
    """A step on an old record gives the same result whatever happened to its successors."""
    alice, bob = acquainted()
    record = alice.existing("bob")
    stored = record.serialize()
    first = session.encrypt(record, alice.local, b"1", NOW)
    session.encrypt(first.record, alice.local, b"2", NOW)
    bob.receive(alice, ("msg", first.data))
    session.decrypt(
        record,
        alice.local,
        *bob.send(alice, b"3"),
        alice.prekeys.get,
        alice.find_signed_prekey,
        alice.draw,
        NOW,
    )
    assert record.serialize() == stored
    assert session.encrypt(record, alice.local, b"1", NOW).data == first.data


def test_seeded_devices_are_reproducible() -> None:
    assert seeded(1)(32) == seeded(1)(32)
    assert acquainted()[0].stored == acquainted()[0].stored
