"""Session records: what is remembered about one peer device (chapter 03 §8.1, chapter 08 §1.4).

Everything here is immutable. A step builds new chains and states around the parts that did not change, so a
failed step leaves nothing behind and a successful one copies little. Public keys have 32 bytes.

Stored form: the JSON document of `waD.e2ee.documents`. The form of earlier versions, a format-version byte and a
msgpack array of the fields in order, is still read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Final, TypeAlias

import msgspec
from msgspec import Meta, Struct

from waD.e2ee import documents, skipped
from waD.e2ee.curve import fingerprint
from waD.e2ee.documents import (
    FORMAT_VERSION,
    Key,
    Milliseconds,
    PendingDocument,
    PreKeyId,
    ReceiverChainDocument,
    ReprItems,
    Secret,
    SenderChainDocument,
    SessionDocument,
    StateDocument,
    UInt32,
    with_type,
    without_type,
)
from waD.e2ee.errors import malformed
from waD.e2ee.limits import (
    MAX_ARCHIVED_SESSIONS,
    MAX_COUNTER,
    MAX_OPEN_RECEIVER_CHAINS,
    MAX_RECEIVER_CHAINS,
    MAX_RECORD_SIZE,
    MAX_SKIPPED_KEYS,
    SKIPPED_KEY_LIFETIME_MS,
)

SeedEntries: TypeAlias = Annotated[bytes, Meta(max_length=MAX_SKIPPED_KEYS * skipped.SEED_ENTRY)]
TripleEntries: TypeAlias = Annotated[bytes, Meta(max_length=MAX_SKIPPED_KEYS * skipped.TRIPLE_ENTRY)]


class SenderChain(Secret, frozen=True, gc=False, array_like=True):
    """Our ratchet key pair and sending chain; `next` is the counter of the next message."""

    public: Key
    private: Key
    next: UInt32
    key: Key

    def _facts(self) -> ReprItems:
        return [("ratchet", fingerprint(self.public)), ("next", self.next)]


class ReceiverChain(Secret, frozen=True, gc=False, array_like=True):
    """A receiving chain of the peer's ratchet key; `key` None means closed: only skipped keys are left."""

    ratchet: Key
    next: UInt32
    key: Key | None
    seeds: SeedEntries = b""
    triples: TripleEntries = b""

    def _facts(self) -> ReprItems:
        return [("ratchet", fingerprint(self.ratchet)), ("next", self.next), ("skipped", self.skipped_count)]

    @property
    def skipped_count(self) -> int:
        """How many skipped keys the chain holds."""
        return len(self.seeds) // skipped.SEED_ENTRY + len(self.triples) // skipped.TRIPLE_ENTRY


class PendingPreKey(Struct, frozen=True, gc=False, array_like=True):
    """What every message repeats until the peer has answered; `prekey_id` None: no one-time prekey."""

    prekey_id: PreKeyId | None
    signed_prekey_id: UInt32
    base_key: Key


class SessionState(Secret, frozen=True, gc=False, array_like=True):
    """One session. Receiving chains stand oldest first; times are in ms, 0 unknown.

    `own_base`: we made the base key, None when an import could not tell. `closed_ms` None: never archived.
    `stale`: restored from a backup, the sending chain must not be used (chapter 08 §7.5).
    """

    local_identity: Key
    remote_identity: Key
    local_registration_id: UInt32
    remote_registration_id: UInt32
    root_key: Key
    previous_counter: UInt32
    sender: SenderChain
    receivers: Annotated[tuple[ReceiverChain, ...], Meta(max_length=MAX_RECEIVER_CHAINS)]
    pending: PendingPreKey | None
    base_key: Key
    own_base: bool | None
    created_ms: Milliseconds = 0
    used_ms: Milliseconds = 0
    closed_ms: Milliseconds | None = None
    stale: bool = False

    def _facts(self) -> ReprItems:
        return [
            ("base", fingerprint(self.base_key)),
            ("remote", fingerprint(self.remote_identity)),
            ("sender", self.sender),
            ("receivers", len(self.receivers)),
            ("pending", self.pending is not None),
        ]

    @property
    def skipped_count(self) -> int:
        """How many skipped keys all chains hold together."""
        return sum(chain.skipped_count for chain in self.receivers)


class SessionRecord(Struct, frozen=True, gc=False, array_like=True):
    """All sessions with one device: the current one, and archived ones from newest to oldest.

    `oldest_skipped_ms` is a lower bound of the time of any skipped key, 0 when there is none.
    """

    current: SessionState | None
    archived: Annotated[tuple[SessionState, ...], Meta(max_length=MAX_ARCHIVED_SESSIONS)] = ()
    oldest_skipped_ms: Milliseconds = 0

    def serialize(self) -> bytes:
        """Return the stored form."""
        current = None if self.current is None else _state_document(self.current)
        archived = [_state_document(state) for state in self.archived]
        return documents.encode(SessionDocument(current, archived, FORMAT_VERSION))

    @classmethod
    def parse(cls, data: bytes) -> SessionRecord:
        """Read the stored form; raises SignalError(malformed) on anything else."""
        if data[:1] == _EARLIER:
            return _parse_earlier(data)
        document = documents.decode(_decoder, data, "session record")
        current = None if document.cur is None else state_of(document.cur)
        archived = tuple(state_of(state) for state in document.prev)
        return cls(current, archived, oldest_time((document.cur, *document.prev)))

    def states(self) -> Iterator[SessionState]:
        """Yield the current state, then the archived ones, newest first."""
        if self.current is not None:
            yield self.current
        yield from self.archived

    @property
    def has_usable_session(self) -> bool:
        """Whether there is a session to send on without a new bundle."""
        return self.current is not None and not self.current.stale


_decoder: Final = msgspec.json.Decoder(SessionDocument)
_EARLIER: Final = b"\x01"
_decode_earlier: Final = msgspec.msgpack.Decoder(SessionRecord).decode


def _state_document(state: SessionState) -> StateDocument:
    sender, pending = state.sender, state.pending
    return StateDocument(
        bk=with_type(state.base_key),
        lid=with_type(state.local_identity),
        lreg=state.local_registration_id,
        own=state.own_base,
        pc=state.previous_counter,
        pp=None if pending is None else _pending_document(pending),
        rc=[_receiver_document(chain) for chain in state.receivers],
        rid=with_type(state.remote_identity),
        rk=state.root_key,
        rreg=state.remote_registration_id,
        sc=SenderChainDocument(sender.next, sender.key, sender.private, with_type(sender.public)),
        stale=state.stale,
        t0=state.created_ms,
        tc=state.closed_ms,
        tu=state.used_ms,
    )


def _pending_document(pending: PendingPreKey) -> PendingDocument:
    return PendingDocument(bk=with_type(pending.base_key), id=pending.prekey_id, sid=pending.signed_prekey_id)


def _receiver_document(chain: ReceiverChain) -> ReceiverChainDocument:
    keys, times = documents.list_keys(chain.seeds, chain.triples)
    return ReceiverChainDocument(i=chain.next, k=chain.key, mk=keys, mt=times, pub=with_type(chain.ratchet))


def state_of(document: StateDocument) -> SessionState:
    """A stored session; raises SignalError(malformed)."""
    sender, pending = document.sc, document.pp
    state = SessionState(
        without_type(document.lid),
        without_type(document.rid),
        document.lreg,
        document.rreg,
        document.rk,
        document.pc,
        SenderChain(without_type(sender.pub), sender.priv, sender.i, sender.k),
        tuple([_receiver_of(chain) for chain in document.rc]),
        None if pending is None else PendingPreKey(pending.id, pending.sid, without_type(pending.bk)),
        without_type(document.bk),
        document.own,
        document.t0,
        document.tu,
        document.tc,
        document.stale,
    )
    if sum(len(chain.mk) for chain in document.rc) > MAX_SKIPPED_KEYS:
        raise malformed(f"more than {MAX_SKIPPED_KEYS} skipped keys in a session")
    return state


def _receiver_of(document: ReceiverChainDocument) -> ReceiverChain:
    seeds, triples = documents.pack_keys(document.mk, document.mt, document.i)
    return ReceiverChain(without_type(document.pub), document.i, document.k, seeds, triples)


def oldest_time(states: Iterable[StateDocument | None]) -> int:
    """The earliest known time of any skipped key in ms, 0 when there is none."""
    times = [
        time
        for state in states
        if state is not None
        for chain in state.rc
        if chain.mt is not None
        for time, _ in chain.mt
        if time
    ]
    return min(times, default=0)


def _parse_earlier(data: bytes) -> SessionRecord:
    if len(data) > MAX_RECORD_SIZE:
        raise malformed(f"a session record of {len(data)} bytes")
    try:
        record = _decode_earlier(memoryview(data)[1:])
    except msgspec.DecodeError:
        raise malformed("a session record that does not follow its earlier format") from None
    for state in record.states():
        _check_skipped(state)
    return record


def expire_skipped(record: SessionRecord, now_ms: int) -> SessionRecord:
    """Drop skipped keys older than 30 days (chapter 03 §7.6); returns the same record when none is."""
    limit = now_ms - SKIPPED_KEY_LIFETIME_MS
    if not 0 < record.oldest_skipped_ms < limit:
        return record
    states = [_expire_state(state, limit) for state in record.states()]
    current = states.pop(0) if record.current is not None else None
    times = [
        time
        for state in (*states, *(() if current is None else (current,)))
        for chain in state.receivers
        for time in (
            skipped.oldest(chain.seeds, skipped.SEED_ENTRY),
            skipped.oldest(chain.triples, skipped.TRIPLE_ENTRY),
        )
        if time
    ]
    return SessionRecord(current, tuple(states), min(times, default=0))


def trim_chains(chains: tuple[ReceiverChain, ...]) -> tuple[ReceiverChain, ...]:
    """Apply the limits to receiving chains, oldest first.

    The newest five stay as they are. Older ones are closed and stay while they hold skipped keys, 40 in all;
    of more than 2000 skipped keys the oldest go.
    """
    kept = chains
    if len(chains) > MAX_OPEN_RECEIVER_CHAINS:
        old = tuple(
            _closed(chain) for chain in chains[:-MAX_OPEN_RECEIVER_CHAINS] if chain.seeds or chain.triples
        )
        kept = (old + chains[-MAX_OPEN_RECEIVER_CHAINS:])[-MAX_RECEIVER_CHAINS:]
    surplus = sum(chain.skipped_count for chain in kept) - MAX_SKIPPED_KEYS
    return _drop_surplus(kept, surplus) if surplus > 0 else kept


def _closed(chain: ReceiverChain) -> ReceiverChain:
    if chain.key is None:
        return chain
    return ReceiverChain(chain.ratchet, chain.next, None, chain.seeds, chain.triples)


def _drop_surplus(chains: tuple[ReceiverChain, ...], surplus: int) -> tuple[ReceiverChain, ...]:
    kept = []
    for chain in chains:
        triples = min(surplus, len(chain.triples) // skipped.TRIPLE_ENTRY)
        seeds = min(surplus - triples, len(chain.seeds) // skipped.SEED_ENTRY)
        surplus -= triples + seeds
        thinned = ReceiverChain(
            chain.ratchet,
            chain.next,
            chain.key,
            skipped.drop_lowest(chain.seeds, skipped.SEED_ENTRY, seeds),
            skipped.drop_lowest(chain.triples, skipped.TRIPLE_ENTRY, triples),
        )
        if thinned.key is not None or thinned.seeds or thinned.triples:
            kept.append(thinned)
    return tuple(kept)


def _expire_state(state: SessionState, limit_ms: int) -> SessionState:
    chains = tuple(
        ReceiverChain(
            chain.ratchet,
            chain.next,
            chain.key,
            skipped.drop_older(chain.seeds, skipped.SEED_ENTRY, limit_ms),
            skipped.drop_older(chain.triples, skipped.TRIPLE_ENTRY, limit_ms),
        )
        for chain in state.receivers
    )
    alive = tuple(chain for chain in chains if chain.key is not None or chain.seeds or chain.triples)
    return msgspec.structs.replace(state, receivers=alive)


def _check_skipped(state: SessionState) -> None:
    count = 0
    for chain in state.receivers:
        if chain.next > MAX_COUNTER + 1:
            raise malformed("a receiving chain beyond its last counter")
        if chain.seeds or chain.triples:
            count += chain.skipped_count
            if not (
                skipped.is_well_formed(chain.seeds, skipped.SEED_ENTRY, chain.next)
                and skipped.is_well_formed(chain.triples, skipped.TRIPLE_ENTRY, chain.next)
            ):
                raise malformed("skipped keys that do not belong to their chain")
    if count > MAX_SKIPPED_KEYS:
        raise malformed(f"more than {MAX_SKIPPED_KEYS} skipped keys in a session")
