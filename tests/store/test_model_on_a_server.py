"""PostgreSQL against the same model in memory: a crash is a connection that ends between any two statements."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from psycopg import RawCursor

from tests.store.postgres_server import Server, binaries
from tests.store.test_model import StoreMachine, run
from waD.store.codec import Codec
from waD.store.engine import Engine, Job
from waD.store.phases import Phase
from waD.store.postgres.engine import PostgresEngine
from waD.store.postgres.settings import PostgresSettings
from waD.store.vault import Vault

EXAMPLES = int(os.environ.get("WAD_MODEL_EXAMPLES", "3"))

pytestmark = pytest.mark.skipif(binaries() is None, reason="there are no PostgreSQL binaries on this machine")


class Killed(BaseException):
    """The process ends here; nothing of it may catch this."""


class PostgresBackend:
    """A database of its own on a server."""

    def __init__(self, server: Server) -> None:
        self._settings = PostgresSettings(url=server.url(server.database()), wait_s=5)

    def open(self, vault: Vault | None, codec: Codec | None, phase: Phase) -> Engine:
        return PostgresEngine(self._settings, codec=codec, vault=vault, new_phase=phase)

    def close(self) -> None:
        """The server goes with all its databases."""

    def crash(self, engine: Any, jobs: Sequence[Job], after: int) -> bool:
        """Says whether the commit was through."""
        count = itertools.count()
        execute = RawCursor.execute

        def counted(cursor: RawCursor[Any], *statement: Any, **options: Any) -> Any:
            if next(count) == after:
                cursor.connection.close()
                raise Killed
            return execute(cursor, *statement, **options)

        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(RawCursor, "execute", counted)
                engine.write(jobs)
        except Killed:
            return False
        finally:
            engine.close()
        return True


@pytest.mark.parametrize("encrypted", [True, False], ids=["encrypted", "clear"])
@pytest.mark.parametrize("legacy", [False, True], ids=["alone", "dual"])
def test_the_store_does_what_the_model_does(server: Server, encrypted: bool, legacy: bool) -> None:
    def backend() -> PostgresBackend:
        return PostgresBackend(server)

    made: Callable[[], PostgresBackend] = backend
    attributes = {"encrypted": encrypted, "legacy": legacy, "backend": staticmethod(made)}
    run(type("Machine", (StoreMachine,), attributes), EXAMPLES)
