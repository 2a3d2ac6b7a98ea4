"""The JSON documents that records are stored as (chapter 08 §1.4), field by field.

Canonical: keys sorted, no blanks, integers only, bytes in base64 with padding; public keys have 33 bytes. What memory
knows beyond that section is `mt`, the ages of skipped keys; it is left out while all of them are unknown.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, repeat
from operator import attrgetter, lt
from struct import Struct as Layout
from typing import Annotated, Final, Literal, TypeAlias, TypeVar, cast

import msgspec
from msgspec import Meta, Struct

from waD.e2ee import skipped
from waD.e2ee.curve import KEY_TYPE, SERIALIZED_KEY_LENGTH
from waD.e2ee.errors import malformed
from waD.e2ee.limits import (
    MAX_ARCHIVED_SESSIONS,
    MAX_COUNTER,
    MAX_PREKEY_ID,
    MAX_RECEIVER_CHAINS,
    MAX_RECORD_SIZE,
    MAX_SENDER_KEY_STATES,
    MAX_SKIPPED_KEYS,
    MAX_UINT32,
)

FORMAT_VERSION: Final = 1

Key: TypeAlias = Annotated[bytes, Meta(min_length=32, max_length=32)]
PublicKey: TypeAlias = Annotated[
    bytes, Meta(min_length=SERIALIZED_KEY_LENGTH, max_length=SERIALIZED_KEY_LENGTH)
]
Iv: TypeAlias = Annotated[bytes, Meta(min_length=16, max_length=16)]
UInt32: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_UINT32)]
Counter: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_COUNTER)]
Position: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_COUNTER + 1)]
PreKeyId: TypeAlias = Annotated[int, Meta(ge=1, le=MAX_PREKEY_ID)]
Milliseconds: TypeAlias = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Run: TypeAlias = tuple[Milliseconds, Annotated[int, Meta(ge=1, le=MAX_SKIPPED_KEYS)]]
"""A time in ms, and how many keys in a row have it."""

_T = TypeVar("_T", bound=Struct)
_TYPE: Final = bytes((KEY_TYPE,))
_seeds_of: Final = Layout(">I8x32s").iter_unpack
_times_of_seeds: Final = Layout(">4xQ32x").iter_unpack
_pack_seed: Final = Layout(">IQ32s").pack
_counter_of: Final = attrgetter("counter")
_mac_of: Final = attrgetter("mac")


ReprItems: TypeAlias = list[tuple[str, object]]


class Secret(Struct, frozen=True, gc=False):
    """A struct whose fields are never printed; subclasses say which facts are public."""

    def _facts(self) -> ReprItems:
        return []

    def __repr__(self) -> str:
        facts = ", ".join(f"{name}={value}" for name, value in self._facts())
        return f"{type(self).__name__}({facts})"

    def __rich_repr__(self) -> ReprItems:
        return self._facts()


class SkippedKey(Secret, frozen=True, gc=False, array_like=True, forbid_unknown_fields=True):
    """A skipped key: counter and seed, or counter, cipher key, MAC key and IV."""

    counter: Counter
    key: Key
    mac: Key = b""
    iv: Iv = b""


SkippedKeys: TypeAlias = Annotated[list[SkippedKey], Meta(max_length=MAX_SKIPPED_KEYS)]
Runs: TypeAlias = Annotated[list[Run], Meta(max_length=MAX_SKIPPED_KEYS)]


class SenderChainDocument(Secret, frozen=True, gc=False, forbid_unknown_fields=True):
    """A sending chain; `i` is the index of the next message."""

    i: Position
    k: Key
    priv: Key
    pub: PublicKey


class ReceiverChainDocument(
    Secret, frozen=True, gc=False, forbid_unknown_fields=True, omit_defaults=True, kw_only=True
):
    """A receiving chain; `k` None means closed."""

    i: Position
    k: Key | None
    mk: SkippedKeys
    mt: Runs | None = None
    pub: PublicKey


class PendingDocument(
    Secret, frozen=True, gc=False, forbid_unknown_fields=True, omit_defaults=True, kw_only=True
):
    """A pending prekey; no `id` means no one-time prekey."""

    bk: PublicKey
    id: PreKeyId | None = None
    sid: UInt32


class StateDocument(Secret, frozen=True, gc=False, forbid_unknown_fields=True):
    """One session."""

    bk: PublicKey
    lid: PublicKey
    lreg: UInt32
    own: bool | None
    pc: UInt32
    pp: PendingDocument | None
    rc: Annotated[list[ReceiverChainDocument], Meta(max_length=MAX_RECEIVER_CHAINS)]
    rid: PublicKey
    rk: Key
    rreg: UInt32
    sc: SenderChainDocument
    stale: bool
    t0: Milliseconds
    tc: Milliseconds | None
    tu: Milliseconds


class SessionDocument(Secret, frozen=True, gc=False, forbid_unknown_fields=True):
    """A session record."""

    cur: StateDocument | None
    prev: Annotated[list[StateDocument], Meta(max_length=MAX_ARCHIVED_SESSIONS)]
    v: Literal[1]


class SenderKeyStateDocument(
    Secret, frozen=True, gc=False, forbid_unknown_fields=True, omit_defaults=True, kw_only=True
):
    """One sender key."""

    ck: Key
    i: Position
    id: UInt32
    mk: SkippedKeys
    mt: Runs | None = None
    priv: Key | None
    pub: PublicKey


class SenderKeyDocument(Secret, frozen=True, gc=False, forbid_unknown_fields=True):
    """A sender-key record."""

    states: Annotated[list[SenderKeyStateDocument], Meta(max_length=MAX_SENDER_KEY_STATES)]
    v: Literal[1]


encode: Final = msgspec.json.Encoder().encode
"""Returns the text; every struct here declares its fields in the order of the alphabet."""


def decode(decoder: msgspec.json.Decoder[_T], data: bytes, what: str) -> _T:
    """Read a document; raises SignalError(malformed), whose text repeats nothing of it."""
    if len(data) > MAX_RECORD_SIZE:
        raise malformed(f"a {what} of {len(data)} bytes")
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise malformed(f"a {what} that does not follow its format") from None


def with_type(public: bytes) -> bytes:
    """A public key of 32 bytes in its stored form."""
    return _TYPE + public


def without_type(public: bytes) -> bytes:
    """A stored public key as its 32 bytes; raises SignalError(malformed)."""
    if public[0] != KEY_TYPE:
        raise malformed("a public key of an unknown type")
    return public[1:]


def list_keys(seeds: bytes, triples: bytes = b"") -> tuple[list[SkippedKey], list[Run] | None]:
    """Packed skipped keys as `mk` and `mt`, by counter."""
    if triples:
        return _list_mixed(seeds, triples)
    # Pairs are written like the struct they are read as, without its empty ends.
    entries = cast("list[SkippedKey]", list(_seeds_of(seeds)))
    return entries, _runs([time for (time,) in _times_of_seeds(seeds)])


def _list_mixed(seeds: bytes, triples: bytes) -> tuple[list[SkippedKey], list[Run] | None]:
    found: list[tuple[int, int, tuple[bytes, ...]]] = [
        (counter, time, (seed,)) for counter, time, seed in skipped.unpack(seeds, skipped.SEED_ENTRY)
    ]
    found += [
        (counter, time, (triple[:32], triple[32:64], triple[64:]))
        for counter, time, triple in skipped.unpack(triples, skipped.TRIPLE_ENTRY)
    ]
    found.sort(key=lambda entry: (entry[0], len(entry[2])))
    entries = cast("list[SkippedKey]", [(counter, *parts) for counter, _, parts in found])
    return entries, _runs([time for _, time, _ in found])


def _runs(times: Sequence[int]) -> list[Run] | None:
    if not any(times):
        return None
    return [(time, sum(1 for _ in run)) for time, run in groupby(times)]


def pack_keys(entries: Sequence[SkippedKey], runs: Sequence[Run] | None, below: int) -> tuple[bytes, bytes]:
    """`mk` and `mt` as packed seeds and packed triples.

    Raises:
        SignalError: malformed; keys are not in order, or not below the position of their chain, or the ages are not
            theirs.
    """
    if not entries:
        if runs:
            raise malformed("ages of skipped keys that are not there")
        return b"", b""
    counters = list(map(_counter_of, entries))
    if counters[-1] >= below or not all(map(lt, counters, counters[1:])):
        raise malformed("skipped keys that do not belong to their chain")
    times = _times(runs, len(entries))
    if not any(map(_mac_of, entries)):
        return b"".join(
            [_pack_seed(entry.counter, time, entry.key) for entry, time in zip(entries, times, strict=True)]
        ), b""
    return _pack_mixed(entries, times)


def _pack_mixed(entries: Sequence[SkippedKey], times: Sequence[int]) -> tuple[bytes, bytes]:
    seeds, triples = [], []
    for entry, time in zip(entries, times, strict=True):
        if not entry.mac:
            seeds.append((entry.counter, time, entry.key))
        elif not entry.iv:
            raise malformed("a skipped key that is neither a seed nor a triple")
        else:
            triples.append((entry.counter, time, entry.key + entry.mac + entry.iv))
    return skipped.pack(seeds), skipped.pack(triples)


def _times(runs: Sequence[Run] | None, count: int) -> list[int]:
    if runs is None:
        return [0] * count
    if sum(length for _, length in runs) != count:
        raise malformed("ages that do not belong to their skipped keys")
    return [time for time, length in runs for time in repeat(time, length)]
