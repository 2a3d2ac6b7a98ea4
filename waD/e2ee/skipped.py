"""Keys of messages that have not arrived, packed into one immutable byte string per chain.

A chain keeps up to 2000 of them and changes with every message, so they are kept in one piece: entries of counter
(4 bytes), time stored in ms (8 bytes) and key material, big-endian, counters ascending.
A *seed* is the 32-byte message seed (pairwise and sender keys); a *triple* is cipher key, MAC key and IV,
which is all that an import from some clients can give (chapter 08 §5.3).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

HEAD: Final = 12
SEED_ENTRY: Final = HEAD + 32
TRIPLE_ENTRY: Final = HEAD + 80
TIME_STEP_MS: Final = 24 * 3600 * 1000
"""Times are kept to the day: keys of one day are then written with one time, and 30 days are at least 29."""


def stamp(now_ms: int) -> int:
    """The time to keep for keys skipped now, in ms; 0 means unknown and stays so."""
    return now_ms - now_ms % TIME_STEP_MS


def append(packed: bytes, first: int, keys: Sequence[bytes], time_ms: int) -> bytes:
    """Add the keys of `first`, `first` + 1, …; `first` must be above every counter in `packed`."""
    time = time_ms.to_bytes(8, "big")
    parts = [packed]
    for counter, key in enumerate(keys, first):
        parts += (counter.to_bytes(4, "big"), time, key)
    return b"".join(parts)


def pack(entries: Iterable[tuple[int, int, bytes]]) -> bytes:
    """Pack (counter, time, key) entries in any order; of several with one counter the last wins."""
    latest = {counter: (time, key) for counter, time, key in entries}
    return b"".join(
        counter.to_bytes(4, "big") + time.to_bytes(8, "big") + key
        for counter, (time, key) in sorted(latest.items())
    )


def unpack(packed: bytes, width: int) -> Iterator[tuple[int, int, bytes]]:
    """Yield (counter, time, key) for entries of `width` bytes, ascending."""
    for start in range(0, len(packed), width):
        yield (
            int.from_bytes(packed[start : start + 4], "big"),
            int.from_bytes(packed[start + 4 : start + HEAD], "big"),
            packed[start + HEAD : start + width],
        )


def take(packed: bytes, width: int, counter: int) -> tuple[bytes, bytes] | None:
    """Return the key of `counter` and the packed rest, or None when it is not there."""
    start = _find(packed, width, counter)
    if start is None:
        return None
    return packed[start + HEAD : start + width], packed[:start] + packed[start + width :]


def drop_lowest(packed: bytes, width: int, count: int) -> bytes:
    """Return `packed` without its `count` lowest counters."""
    return packed[count * width :]


def drop_older(packed: bytes, width: int, limit_ms: int) -> bytes:
    """Return `packed` without the entries stored before `limit_ms`; entries of unknown time (0) stay."""
    limit = limit_ms.to_bytes(8, "big")
    unknown = bytes(8)
    kept = []
    for start in range(0, len(packed), width):
        time = packed[start + 4 : start + HEAD]
        if time >= limit or time == unknown:
            kept.append(packed[start : start + width])
    return b"".join(kept) if len(kept) * width != len(packed) else packed


def oldest(packed: bytes, width: int) -> int:
    """Return the earliest known time in ms, 0 when there is none."""
    times = {packed[start + 4 : start + HEAD] for start in range(0, len(packed), width)}
    times.discard(bytes(8))
    return int.from_bytes(min(times), "big") if times else 0


def is_well_formed(packed: bytes, width: int, below: int) -> bool:
    """Say whether the entries are whole and the highest counter is below `below`."""
    if not packed:
        return True
    last = len(packed) - width
    return len(packed) % width == 0 and int.from_bytes(packed[last : last + 4], "big") < below


def _find(packed: bytes, width: int, counter: int) -> int | None:
    wanted = counter.to_bytes(4, "big")
    low, high = 0, len(packed) // width
    while low < high:
        middle = (low + high) // 2
        start = middle * width
        found = packed[start : start + 4]
        if found == wanted:
            return start
        if found < wanted:
            low = middle + 1
        else:
            high = middle
    return None
