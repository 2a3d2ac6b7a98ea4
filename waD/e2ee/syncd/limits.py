"""Bounds of the app state (chapter 05 §4.9), each with what it costs to move it."""

from __future__ import annotations

from typing import Final

MAX_PATCH_SIZE: Final = 2 * 1024 * 1024
"""Bytes of one patch in a stanza; more mutations than fit here travel in a file."""

MAX_FILE_SIZE: Final = 64 * 1024 * 1024
"""Bytes of a snapshot or of the mutations of a patch in a file."""

MAX_ENTRIES: Final = 200_000
"""Mutations of one patch or records of one snapshot. Each takes about 0.1 ms to check, so the most that can be
asked of us is some twenty seconds of a worker: more than a few hundred are nothing for an event loop. A phone may
write all its contacts in one patch, so thousands are normal."""

MAX_INDEX_SIZE: Final = 8 * 1024
"""Bytes of an index that we take apart; a longer one counts in the hash and means nothing to us."""

MAX_INDEX_PARTS: Final = 16
"""Elements of an index that we take apart. The longest known action has six."""
