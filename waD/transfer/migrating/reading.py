"""Reading a session out of the store of another program; it is checked to level 2 (chapter 08 §2.9)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from waD.messaging import kinds
from waD.transfer import baileys, whatsmeow
from waD.transfer.baileys.dumps import Format
from waD.transfer.baileys.presets import PRESETS, Preset, Table
from waD.transfer.migrating.places import Place
from waD.transfer.state import MESSAGE_SECRET, AuthState, Note, Report
from waD.transfer.verify import ITEM_FAULTS, verify

EXAMPLES: Final = 5
"""How many things of one code are named to people."""
KEYS_MISSING: Final = "keys_missing"
_FORMS: Final[dict[str, Format]] = {"baileys-json": "json", "baileys-redis": "redis"}


@dataclass(frozen=True, slots=True)
class Choice:
    """Which session of a source, and how to read it.

    Attributes:
        stopped: somebody says that the old program does not run.
        jid: address of a device of whatsmeow.
        session: name of a session of a Baileys store.
        preset: name of the program that keeps the store.
        table: columns of a table of another name.
        keys: second place, with the keys, where the first has credentials alone.
        all_mappings: take LIDs of people too that occur nowhere else.
    """

    stopped: bool = False
    jid: str | None = None
    session: str | None = None
    preset: str | None = None
    table: Table | None = None
    keys: Place | None = None
    all_mappings: bool = False

    def baileys_preset(self) -> Preset | None:
        """What says which tables and columns are read; None: found out."""
        if self.table is not None:
            return Preset((self.table,))
        return None if self.preset is None else PRESETS[self.preset]


@dataclass(slots=True)
class Reading:
    """What came of a source; no state when the report has an error."""

    place: Place
    state: AuthState | None
    report: Report = field(default_factory=Report)


def read(place: Place, choice: Choice, now_ms: int) -> Reading:
    """Read, convert and verify one session; nothing is changed.

    Args:
        place: of another program.
        choice: which session, and how.
        now_ms: Unix milliseconds.

    Raises:
        baileys.SourceRefused, whatsmeow.SourceRefused: it was not read.
    """
    if place.scheme == "whatsmeow":
        state, report = whatsmeow.import_device(
            place.location,
            stopped=choice.stopped,
            now_ms=now_ms,
            jid=choice.jid,
            keys=None if choice.keys is None else choice.keys.location,
            all_mappings=choice.all_mappings,
        )
    else:
        state, report = baileys.convert(_baileys_items(place, choice, now_ms), now_ms)
    if state is not None:
        state = _checked(state, report, now_ms)
    return Reading(place, state if report.ok else None, report)


def _baileys_items(place: Place, choice: Choice, now_ms: int) -> baileys.BaileysItems:
    parts = [place] if choice.keys is None else [place, choice.keys]
    return baileys.combine([_baileys_part(part, choice, now_ms) for part in parts])


def _baileys_part(place: Place, choice: Choice, now_ms: int) -> baileys.BaileysItems:
    return baileys.read_source(
        place.location,
        now_ms=now_ms,
        stopped=choice.stopped,
        session=choice.session,
        preset=choice.baileys_preset(),
        form=_FORMS.get(place.scheme),
    )


def _checked(state: AuthState, report: Report, now_ms: int) -> AuthState:
    """Drop items that are faulty by themselves; everything else that is wrong is an error of the report."""
    items = dict(state.items)
    for note in verify(state, now_ms).notes:
        kind, _, key = note.item.partition("/")
        if note.code in ITEM_FAULTS and items.pop((kind, key), None) is not None:
            note = Note("warning", note.code, note.item, f"{note.detail}; it is left out")
        report.notes.append(note)
    if not any(kind in (kinds.PREKEY, kinds.SESSION) for kind, _ in items):
        report.error(
            KEYS_MISSING,
            "",
            "the credentials are there and not one key of a conversation: name the whole store, or with --keys the "
            "place where the keys are",
        )
    return AuthState(state.creds, items, state.secrets)


def summary(reading: Reading) -> dict[str, Any]:
    """What was found, for people and programs; holds no key."""
    state, report = reading.state, reading.report
    return {
        "ok": report.ok,
        "from": {"scheme": reading.place.scheme, "found": reading.place.found},
        "account": None if state is None else account(state),
        "counts": {} if state is None else _counted(state),
        **notes(report),
    }


def _counted(state: AuthState) -> dict[str, int]:
    secrets = {MESSAGE_SECRET: len(state.secrets)} if state.secrets else {}
    return state.counts() | secrets


def account(state: AuthState) -> dict[str, str | None]:
    """Whose session it is."""
    creds = state.creds
    return {
        "pn": None if creds.me_pn is None else str(creds.me_pn),
        "lid": None if creds.me_lid is None else str(creds.me_lid),
        "pushName": creds.push_name or None,
    }


def notes(report: Report) -> dict[str, Any]:
    """Errors and warnings, each code with how often it came and a few examples."""
    return {"errors": _grouped(report.errors), "warnings": _grouped(report.warnings)}


def _grouped(found: list[Note]) -> list[dict[str, Any]]:
    by_code: dict[str, list[Note]] = {}
    for note in found:
        by_code.setdefault(note.code, []).append(note)
    return [
        {
            "code": code,
            "count": len(same),
            "detail": same[0].detail,
            "items": [note.item for note in same[:EXAMPLES] if note.item],
        }
        for code, same in by_code.items()
    ]
