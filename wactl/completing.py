"""Names for shell completion: quickly or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from wactl.client import Client, candidates
from wactl.failure import Failure
from waD.control import types as t

PATIENCE_S: Final = 0.2


def session_names(socket: Path | None, incomplete: str) -> list[str]:
    """Names of sessions that begin like this; none if the daemon does not say within the patience."""
    try:
        with Client.connect(candidates(socket), timeout=PATIENCE_S) as client:
            listed = client.ask("session.list", t.SessionList, timeout=PATIENCE_S)
    except (Failure, OSError):
        return []
    return [view.name for view in listed.sessions if view.name.startswith(incomplete)]
