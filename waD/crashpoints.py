"""Named instants at which a test may kill the process.

The durability rules (chapter 03 §8) are claims about what survives a SIGKILL between any two steps. Each such
step carries a mark; a test names one in ``WAD_CRASH_AT`` (``name`` or ``name:n`` for its n-th passage) and the
process kills itself there, as hard as the kernel allows. Without the variable a mark costs one comparison.
"""

from __future__ import annotations

import os
import signal

_target, _, _passage = os.environ.get("WAD_CRASH_AT", "").partition(":")
_remaining = int(_passage) if _passage.isdigit() else 1


def crashpoint(name: str) -> None:
    """Kill this process with SIGKILL if the environment asked for it at ``name``."""
    if not _target or name != _target:
        return
    global _remaining
    _remaining -= 1
    if _remaining <= 0:
        os.kill(os.getpid(), signal.SIGKILL)
