"""What the rooms below raise, as refusals of the control protocol."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from waD.control.api import ControlError, no_such_session
from waD.session.orders import Abandoned
from waD.store.errors import CursorExpired, LeaseLost, SessionLeased, SessionUnknown, StoreDamaged, StoreError


@contextmanager
def translated(session: str = "") -> Iterator[None]:
    """Turn what the store raises into refusals of the control protocol."""
    try:
        yield
    except CursorExpired as error:
        raise ControlError("cursor_expired", str(error), {"oldest": error.oldest}) from None
    except SessionUnknown:
        raise no_such_session(session) from None
    except Abandoned as error:
        raise ControlError("shutting_down", str(error)) from None
    except SessionLeased as error:
        raise ControlError("lease_held", str(error), {"name": session, "holder": error.holder}) from None
    except LeaseLost as error:
        raise ControlError("lease_held", str(error), {"name": session}) from None
    except StoreDamaged as error:
        raise ControlError("damaged", str(error), {"name": session} if session else None) from None
    except StoreError as error:
        raise ControlError("storage_unavailable", str(error)) from None


def wrong_state(name: str, state: str, why: str) -> ControlError:
    """The session is not in a state for what was asked."""
    return ControlError("wrong_state", f"session {name!r}: {why}", {"state": state, "name": name})


def not_paired(session: str, state: str) -> ControlError:
    """The session has no account yet."""
    return ControlError(
        "wrong_state",
        f"session {session!r} is not paired: wactl connect {session} and scan the QR code",
        {"state": state, "name": session},
    )
