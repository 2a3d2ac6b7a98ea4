"""Bounds of the end-to-end layer (chapter 03 §0, chapter 08 §1.4), each with what it costs to move it."""

from __future__ import annotations

from typing import Final

MAX_FORWARD_JUMP: Final = 2000
"""Keys a receiver derives to reach a counter. Peers use the same; a lower value loses messages after long
gaps, a higher one lets one forged message buy more hashing before its MAC is checked."""

MAX_SEND_GAP: Final = 1999
"""Unsent counters a sender may leave on a chain: one common peer accepts one step less than the others."""

MAX_SKIPPED_KEYS: Final = 2000
"""Skipped keys kept per session state and per sender-key state, oldest out first. One honest jump fits; an
authenticated peer that jumps on every chain cannot grow the record beyond this."""

SKIPPED_KEY_LIFETIME_MS: Final = 30 * 24 * 3600 * 1000
"""Skipped keys older than this go at the next write: twice the life of the server's offline queue."""

MAX_OPEN_RECEIVER_CHAINS: Final = 5
"""Newest receiving chains that may still derive. Older ones are closed and kept only for skipped keys."""

MAX_RECEIVER_CHAINS: Final = 40
"""All receiving chains of a state, closed ones included."""

MAX_ARCHIVED_SESSIONS: Final = 40
"""Archived sessions per address. Each one costs an agreement when a message fits none of them."""

MAX_SENDER_KEY_STATES: Final = 5
"""Sender-key states per (group, sender device), newest first."""

MAX_PREKEY_ID: Final = 0xFFFFFF
"""Prekey ids travel in three bytes; 0 means none."""

MAX_REGISTRATION_ID: Final = 16380
"""The largest registration id we make; any 32-bit value is read."""

MAX_SENDER_KEY_ID: Final = 0x7FFFFFFF
"""The largest sender-key id we make (31 bits); any 32-bit value is read."""

MAX_UINT32: Final = 0xFFFFFFFF
MAX_COUNTER: Final = MAX_UINT32 - 1
"""The last usable counter: the position after it must still fit 32 bits."""

MAX_MESSAGE_SIZE: Final = 1 << 24
"""Bytes of one encrypted message: no transport frame carries more (chapter 01 §2.3)."""

MAX_WIRE_FIELDS: Final = 16
"""Protobuf fields read from one message; the layouts have at most eight."""

MAX_RECORD_SIZE: Final = 1 << 24
"""Bytes of one stored record. 41 states full of skipped keys stay below 12 MiB."""

MAX_FOREIGN_RECORD_SIZE: Final = 1 << 25
"""Bytes of one foreign record at import: some clients never prune theirs."""

MAX_ADV_BLOB_SIZE: Final = 4096
"""Bytes of a signed device identity or key-index list; real ones stay below 500."""

MAX_KEY_INDEXES: Final = 1024
"""Valid indexes read from one key-index list; an account has four companions at a time."""
