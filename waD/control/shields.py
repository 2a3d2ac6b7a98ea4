"""Commands in progress: they outlive the client that gave them, but not the daemon."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import trio


class Shields:
    """All commands that run now, of all clients."""

    def __init__(self) -> None:
        self._scopes: set[trio.CancelScope] = set()
        self._lifted = False

    @contextmanager
    def protect(self) -> Iterator[None]:
        """Keep the body from being cancelled until `lift` is called."""
        scope = trio.CancelScope(shield=not self._lifted)
        self._scopes.add(scope)
        try:
            with scope:
                yield
        finally:
            self._scopes.discard(scope)

    def lift(self) -> None:
        """Protect nothing any more: whatever was cancelled around a body now reaches it."""
        self._lifted = True
        for scope in self._scopes:
            scope.shield = False
