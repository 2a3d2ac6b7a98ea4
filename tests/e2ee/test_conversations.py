"""Random conversations over a network that loses, reorders and repeats, between devices that keep restarting.

Whatever is delivered arrives exactly once, nothing decrypts twice, no key is used for two messages. Devices
keep serialised records only, so every step is a restart as well.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.e2ee.parties import Device, Letter, flip
from waD.e2ee import groups, messages, session
from waD.e2ee.errors import SignalError

OVERTAKEN_MOST = 4
"""Letters of one direction that may overtake another one: its chain must stay among the newest five."""

Step = tuple[str, int, int]
"""What happens, and two free choices."""

EVENTS = [
    "send",
    "send",
    "send",
    "deliver",
    "deliver",
    "deliver",
    "repeat",
    "lose",
    "crash",
    "forge",
    "reset",
    "archive",
]
STEPS = st.lists(
    st.tuples(st.sampled_from(EVENTS), st.integers(0, 999), st.integers(0, 999)), min_size=25, max_size=70
)


@dataclass
class Envelope:
    """A letter on its way, and the plaintext it must give."""

    sender: Device
    receiver: Device
    letter: Letter
    plaintext: bytes
    overtaken: int = 0


@dataclass
class Network:
    """The post between devices, and what has happened to each letter."""

    devices: list[Device]
    under_way: list[Envelope] = field(default_factory=list)
    arrived: list[Envelope] = field(default_factory=list)
    used_keys: set[tuple[bytes, int]] = field(default_factory=set)
    sent: int = 0

    def pair(self, first: int, second: int) -> tuple[Device, Device]:
        sender = self.devices[first % len(self.devices)]
        others = [device for device in self.devices if device is not sender]
        return sender, others[second % len(others)]

    def send(self, first: int, second: int) -> None:
        sender, receiver = self.pair(first, second)
        self.sent += 1
        plaintext = b"letter %d from %s" % (self.sent, sender.name.encode())
        letter = sender.send(receiver, plaintext)
        inner = inner_message(letter)
        assert (inner.ratchet_key, inner.counter) not in self.used_keys
        self.used_keys.add((inner.ratchet_key, inner.counter))
        self.under_way.append(Envelope(sender, receiver, letter, plaintext))

    def deliver(self, choice: int, _: int = 0) -> None:
        if not self.under_way:
            return
        ripe = [envelope for envelope in self.under_way if envelope.overtaken >= OVERTAKEN_MOST]
        envelope = ripe[0] if ripe else self.under_way[choice % len(self.under_way)]
        index = self.under_way.index(envelope)
        del self.under_way[index]
        assert envelope.receiver.receive(envelope.sender, envelope.letter) == envelope.plaintext
        assert envelope.receiver.refuse(envelope.sender, envelope.letter).code == "duplicate"
        self.arrived.append(envelope)
        for other in self.under_way[:index]:
            if other.sender is envelope.sender and other.receiver is envelope.receiver:
                other.overtaken += 1

    def repeat(self, choice: int, _: int) -> None:
        """Deliver an old letter again; one whose chain is gone cannot be told from a forgery."""
        if self.arrived:
            envelope = self.arrived[choice % len(self.arrived)]
            error = envelope.receiver.refuse(envelope.sender, envelope.letter)
            assert error.code in {"duplicate", "bad_mac"}

    def lose(self, choice: int, _: int) -> None:
        if self.under_way:
            del self.under_way[choice % len(self.under_way)]

    def crash(self, choice: int, _: int) -> None:
        """A device decrypts, and dies before it has stored anything."""
        if self.under_way:
            envelope = self.under_way[choice % len(self.under_way)]
            assert envelope.receiver.open(envelope.sender, envelope.letter).plaintext == envelope.plaintext

    def forge(self, choice: int, position: int) -> None:
        if self.under_way:
            envelope = self.under_way[choice % len(self.under_way)]
            kind, data = envelope.letter
            try:
                done = envelope.receiver.open(envelope.sender, (kind, flip(data, position % len(data))))
            except SignalError:
                return
            # Outer numbers of a known session are not covered by anything; the message itself is.
            assert kind == "pkmsg"
            assert done.plaintext == envelope.plaintext

    def reset(self, first: int, second: int) -> None:
        """A device fetches a bundle although it has a session: both may do so at once."""
        sender, receiver = self.pair(first, second)
        sender.initiate(receiver)

    def archive(self, first: int, second: int) -> None:
        owner, peer = self.pair(first, second)
        record = owner.record(peer.name)
        if record is not None:
            owner.keep(peer.name, session.archive_current(record, owner.now))

    def run(self, steps: list[Step]) -> None:
        for event, first, second in steps:
            getattr(self, event)(first, second)
        while self.under_way:
            self.deliver(self.sent * 7)


def inner_message(letter: Letter) -> messages.SignalMessage:
    kind, data = letter
    if kind == "pkmsg":
        return messages.parse_prekey_message(data).message
    return messages.parse_signal_message(data)


@given(STEPS)
@settings(max_examples=120)
def test_two_devices(steps: list[Step]) -> None:
    Network([Device("alice", 1), Device("bob", 2)]).run(steps)


@given(STEPS)
@settings(max_examples=80)
def test_three_devices(steps: list[Step]) -> None:
    Network([Device("alice", 1), Device("bob", 2), Device("carol", 3)]).run(steps)


@pytest.mark.parametrize("seed", range(6))
def test_long_conversations(seed: int) -> None:
    random = Random(seed)
    network = Network([Device(name, seed * 10 + number) for number, name in enumerate(("a", "b", "c"))])
    usual = [event for event in EVENTS if event not in {"reset", "archive"}]
    steps = [(random.choice(usual), random.randrange(999), random.randrange(999)) for _ in range(800)]
    for position in random.sample(range(len(steps)), 20):
        steps[position] = ("reset", random.randrange(999), random.randrange(999))
    network.run(steps)
    assert len(network.arrived) > 100
    assert sum(envelope.overtaken for envelope in network.arrived) > 20


@given(st.lists(st.sampled_from(["a", "b", "both"]), min_size=1, max_size=25))
@settings(max_examples=60)
def test_simultaneous_initiation_heals(rounds: list[str]) -> None:
    """Crossing first flights, then any order of talking: nothing is lost on a network that keeps order."""
    alice, bob = Device("alice", 1), Device("bob", 2)
    crossing = alice.send(bob, b"from alice"), bob.send(alice, b"from bob")
    assert bob.receive(alice, crossing[0]) == b"from alice"
    assert alice.receive(bob, crossing[1]) == b"from bob"
    for number, who in enumerate(rounds):
        text = b"%d" % number
        letters = []
        if who != "b":
            letters.append((alice, bob, alice.send(bob, text)))
        if who != "a":
            letters.append((bob, alice, bob.send(alice, text)))
        for sender, receiver, letter in letters:
            assert letter[0] == "msg"
            assert receiver.receive(sender, letter) == text
    assert len(alice.existing("bob").archived) == len(bob.existing("alice").archived) == 1


@given(st.permutations(range(12)), st.lists(st.integers(0, 11), max_size=10))
@settings(max_examples=60)
def test_one_flight_in_any_order(order: list[int], repeated: list[int]) -> None:
    alice, bob = Device("alice", 1), Device("bob", 2)
    flight = [alice.send(bob, bytes([number])) for number in range(12)]
    for number in order:
        assert bob.receive(alice, flight[number]) == bytes([number])
    for number in repeated:
        assert bob.refuse(alice, flight[number]).code == "duplicate"
    assert bob.existing("alice").archived == ()
    state = bob.existing("alice").current
    assert state is not None
    assert state.skipped_count == 0


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["send", "join", "deliver", "repeat", "rotate", "again"]), st.integers(0, 999)
        ),
        max_size=60,
    )
)
@settings(max_examples=80)
def test_a_group(steps: list[tuple[str, int]]) -> None:
    """One sender, members that join at any time; a member reads what was sent after it joined, each once."""
    random = Device("sender", 5).random
    own = groups.create(random)
    members: list[tuple[bytes, dict[int, bytes]]] = []
    distributions: list[bytes] = []
    sent = 0
    for event, choice in steps:
        if event == "send":
            text = b"%d" % sent
            after, data = groups.encrypt(own, text, random)
            own = groups.SenderKeyRecord.parse(after.serialize())
            for _, inbox in members:
                inbox[sent] = data
            sent += 1
        elif event == "rotate":
            own = groups.create(random)
            distributions.append(groups.distribution(own))
            members = [
                (groups.process_distribution(parse(stored), distributions[-1]).serialize(), inbox)
                for stored, inbox in members
                if len(inbox) < 3
            ]
        elif event == "join":
            distributions.append(groups.distribution(own))
            members.append((groups.process_distribution(None, distributions[-1]).serialize(), {}))
        elif members:
            position = choice % len(members)
            members[position] = member_step(event, choice, *members[position])


def parse(stored: bytes) -> groups.SenderKeyRecord:
    return groups.SenderKeyRecord.parse(stored)


def member_step(
    event: str, choice: int, stored: bytes, inbox: dict[int, bytes]
) -> tuple[bytes, dict[int, bytes]]:
    """Deliver one waiting message, check that it was the only time, or see the current key once more."""
    record = parse(stored)
    if event == "again":
        newest = record.states[0]
        data = messages.encode_distribution(newest.key_id, 0, newest.chain_key, newest.public)
        assert groups.process_distribution(record, data) is record
        return stored, inbox
    if not inbox:
        return stored, inbox
    number = sorted(inbox)[choice % len(inbox)]
    try:
        after, plaintext = groups.decrypt(record, inbox[number])
    except SignalError as error:
        # Only a key that was pushed out by five later ones may be missing.
        assert error.code == "no_sender_key_state"  # noqa: PT017
        return stored, {key: value for key, value in inbox.items() if key != number}
    assert plaintext == b"%d" % number
    try:
        groups.decrypt(after, inbox[number])
    except SignalError as error:
        assert error.code == "duplicate"  # noqa: PT017
    else:
        raise AssertionError("decrypted twice")
    if event == "deliver":
        del inbox[number]
        return after.serialize(), inbox
    return stored, inbox
