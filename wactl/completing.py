"""Names for shell completion: quickly or not at all."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from wactl.client import Client, candidates
from wactl.failure import Failure
from waD.control import types as t

PATIENCE_S: Final = 0.2
"""For connecting and the answer together: a person is waiting at the prompt."""


def session_names(socket: Path | None, incomplete: str) -> list[str]:
    """Names of sessions that begin like this; none if the daemon does not say within the patience."""
    end = time.monotonic() + PATIENCE_S
    try:
        with Client.connect(candidates(socket), timeout=PATIENCE_S) as client:
            left = max(0.001, end - time.monotonic())
            listed = client.ask("session.list", t.SessionList, timeout=left)
    except (Failure, OSError):
        return []
    return [view.name for view in listed.sessions if view.name.startswith(incomplete)]
