"""What the work on auth states raises, as refusals of the control protocol."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from waD.control.api import ControlError, bad_param
from waD.control.types import NoteView, Symbol, Verdict
from waD.session.orders import Busy
from waD.session.refusals import translated, wrong_state
from waD.session.spool import NoSuchFile, SpoolFull
from waD.session.undo import NothingToUndo
from waD.transfer.archive import ArchiveError
from waD.transfer.backup import BackupRefused
from waD.transfer.plans import RestoreRefused
from waD.transfer.state import Note, Report

_BACKUP_SYMBOLS: dict[str, Symbol] = {
    "no_such_session": "no_such_session",
    "not_paired": "wrong_state",
    "store_damaged": "damaged",
}


@contextmanager
def auth_refusals(session: str = "") -> Iterator[None]:
    """Turn what is raised below into refusals of the control protocol, the store's errors included."""
    with translated(session):
        try:
            yield
        except NoSuchFile as error:
            raise bad_param("id", str(error)) from None
        except SpoolFull as error:
            raise ControlError("refused", str(error)) from None
        except (Busy, NothingToUndo) as error:
            raise wrong_state(session, "", str(error)) from None
        except BackupRefused as error:
            symbol = _BACKUP_SYMBOLS.get(error.code, "refused")
            raise ControlError(symbol, str(error), {"name": error.session}) from None
        except RestoreRefused as error:
            raise ControlError("refused", str(error), {"code": error.code}) from None
        except ArchiveError as error:
            raise archive_refusal(error) from None
        except OSError as error:
            text = f"a temporary file cannot be kept: {error.strerror or error}"
            raise ControlError("storage_unavailable", text) from None


def archive_refusal(error: ArchiveError) -> ControlError:
    """What an archive that is not to be used means: damage, or that it cannot be looked into here."""
    if error.code == "recipient_invalid":
        return bad_param("recipients", error.detail)
    symbol: Symbol = "refused" if error.cannot_check else "damaged"
    return ControlError(symbol, f"the archive is not to be used: {error}", {"code": error.code})


def verdict(
    level: int,
    report: Report,
    *,
    counts: dict[str, int] | None = None,
    versions: dict[str, int] | None = None,
) -> Verdict:
    """What a report says, for clients."""
    return Verdict(
        level=level,
        ok=report.ok,
        errors=[_note(note) for note in report.errors],
        warnings=[_note(note) for note in report.warnings],
        counts=counts or {},
        versions=versions or {},
    )


def _note(note: Note) -> NoteView:
    return NoteView(code=note.code, item=note.item, detail=note.detail)
