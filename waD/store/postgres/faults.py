"""What an error of PostgreSQL means for us: try again, refuse one job, or give up and say why."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import psycopg

from waD.store.errors import StorageUnavailable, StoreDamaged, StoreError, StoreForbidden

Meaning: TypeAlias = Literal["lost", "conflict", "refused", "lasting"]

_CONFLICT: Final = frozenset({"40001", "40P01", "40003"})
_PASSING: Final = frozenset({"25006", "26000", "53300", "55P03", "57P01", "57P02", "57P03", "57P05", "25P03"})
"""Read-only (a primary that became a standby), a prepared statement that is not there any more, too many connections,
a lock that is held, shut down, starting, idle."""
_REFUSED: Final = frozenset({"22", "23", "54", "WA"})
"""Classes: data, integrity, limits of the server, and the refusals of our own triggers."""
_ADVICE: Final = {
    "53100": "the disk of the server is full: make room there",
    "53200": "the server is out of memory",
    "53300": "the server has no connection left for us: raise max_connections, or lower store.connections",
    "25006": "it is read-only: look whether it is a standby, or default_transaction_read_only is set",
    "42501": "the role lacks a permission: see the manual for those it needs",
    "42P01": "a table is missing: restore the database from a backup",
    "55P03": "a row is locked by somebody else: look into pg_stat_activity for a transaction that does not end",
    "57014": "a statement was cancelled: raise the statement_timeout of the role, or remove it",
    "58030": "the server has an input/output error: look at its disk and its log",
}
_LASTING: Final = (
    "authentication failed",
    "no password supplied",
    "pg_hba.conf",
    "does not exist",
    "could not translate host name",
    "certificate",
    "not supported by this",
    "invalid",
)
"""Words in the text of a failed connection, which has no code, that waiting does not help against."""


class RefusedError(Exception):
    """The database does not take what one job wants to write; the others are sound."""


class Silent(psycopg.OperationalError):
    """The server did not answer in time, or the store is being closed; the connection is not usable any more."""


def meaning(error: psycopg.Error) -> Meaning:
    """What is to be done about an error."""
    code = error.sqlstate
    if code is None:
        if isinstance(error, psycopg.ProgrammingError) and "cannot adapt" in str(error):
            return "refused"  # it did not even get to the server
        # Without a code it did not come from the server: the connection broke, or was never made.
        return "lost" if isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError)) else "lasting"
    if code in _CONFLICT:
        return "conflict"
    if code in _PASSING or code.startswith("08"):
        return "lost"
    if code[:2] in _REFUSED or code in {"0A000", "21000"}:
        return "refused"
    return "lasting"


def hopeless(error: psycopg.Error) -> bool:
    """Whether a connection that could not be made at the start will not be there in a while either."""
    text = str(error)
    return error.sqlstate is None and any(word in text for word in _LASTING)


def told(place: object, error: psycopg.Error) -> StoreError:
    """The store's word for an error that is given up on."""
    code = error.sqlstate or ""
    text = "; ".join(line.strip() for line in (error.diag.message_primary or str(error)).strip().splitlines())
    if code.startswith("XX00") and code != "XX000":
        return StoreDamaged(f"{place} is damaged ({text}): stop the daemons, and restore a backup")
    advice = _ADVICE.get(code, "look whether the server runs, and into its log")
    message = f"{place} cannot be used ({text}); {advice}"
    if code == "42501" or hopeless(error):
        return StoreForbidden(message)
    return StorageUnavailable(message)
