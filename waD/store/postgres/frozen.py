"""Transactions of processes that stand still, and what they have locked (chapter 08 §6.4).

The server ends a transaction whose client says nothing for a while (`idle_in_transaction_session_timeout`), but not
between statements that travel together: its watch is not set there, however long nothing comes. A daemon that is
stopped just then would keep every other one on the same database from writing.
"""

from __future__ import annotations

import logging
from typing import Final

import psycopg

from waD.store.postgres.link import IDLE_MS, Link

LOCKED: Final = "55P03"
"""SQLSTATE: a lock was waited for in vain."""
_END_FROZEN: Final = (
    "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
    "AND usename = current_user AND application_name = current_setting('application_name') "
    "AND pid <> pg_backend_pid() AND wait_event = 'ClientRead' AND xact_start IS NOT NULL "
    f"AND greatest(query_start, state_change) < clock_timestamp() - interval '{IDLE_MS} ms'"
)
"""Those whose process has sent nothing for as long. The role must be the same, or the server does not let us."""

_log = logging.getLogger(__name__)


def end_frozen(link: Link) -> None:
    """End transactions of other daemons that stand still; where that is not possible, nothing.

    Raises:
        psycopg.OperationalError: the connection is lost.
    """
    try:
        found = link.execute(_END_FROZEN).fetchall()
    except psycopg.OperationalError:
        raise
    except psycopg.Error as error:
        _log.warning("transactions that stand still could not be looked for: %s", error)
        return
    for pid, _ in found:
        _log.warning("the transaction of server process %d stood still in front of ours and was ended", pid)
