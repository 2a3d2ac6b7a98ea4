"""Makes docs/session-states.md and man/waD.toml.5 from the tables: `python -m waD.session.manual`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from waD.config.manual import CauseRow
from waD.config.manual import manual as settings_manual
from waD.session import states
from waD.session.table import ACTION_MEANINGS, LIMITS, ROWS, Row, Section

_ROOT: Final = Path(__file__).resolve().parents[2]
PAGE: Final = _ROOT / "docs" / "session-states.md"
SETTINGS_PAGE: Final = _ROOT / "man" / "waD.toml.5"

_INTRODUCTION: Final = """\
# States of a session, and what ends a connection

Made from the tables in `waD/session/states.py` and `waD/session/table.py` by `python -m waD.session.manual`; a test
compares. One task per session owns the transitions, and each is durable before anything follows from it.
"""

_RULES: Final = """\
The delay of `backoff` is min(base · multiplierⁿ + jitter, max) with the settings of `[reconnect]`, that of `slow`
likewise with `slow_base` and `slow_max`; each counts its attempts, and when `attempts` are used up the session is
`failed`. If WhatsApp was never reached, one attempt follows every `probe_interval` (`after_max = "probe"`). A
connection that was open for `stable_after` resets the counters and clears the last disconnect reason.
`[reconnect.on]` gives a cause another action; a limit does not apply then.

Without credentials `repair` is `close`, and `backoff` and `slow` end in `close` after 5 times. `hold` and `repair`
always raise a critical alert, `wait` a warning. More than `alerts.reconnects` reconnects within
`alerts.reconnect_window` raise one as well.
"""

_SECTIONS: Final[dict[Section, str]] = {
    "transport": "Transport",
    "stream": "End of the stream",
    "failure": "Refused at login",
    "pairing": "Pairing",
    "local": "Here",
}


def manual() -> str:
    """The whole page."""
    parts = [_INTRODUCTION, *_states(), *_actions(), *_causes()]
    return "\n".join(parts)


def _states() -> Iterator[str]:
    yield "## States\n"
    yield _table(("state", "meaning"), ((f"`{name}`", text) for name, text in states.MEANINGS.items()))
    yield "```mermaid\nstateDiagram-v2\n    [*] --> new"
    yield from (f"    {source} --> {target}" for source, target in states.TRANSITIONS)
    yield "```\n"
    ways = ((f"`{source}`", f"`{target}`", why) for (source, target), why in states.TRANSITIONS.items())
    yield _table(("from", "to", "by"), ways)


def _actions() -> Iterator[str]:
    yield "## Actions\n"
    yield _table(("action", "meaning"), ((f"`{name}`", text) for name, text in ACTION_MEANINGS.items()))
    yield _RULES


def _causes() -> Iterator[str]:
    yield "## Causes\n"
    for section, title in _SECTIONS.items():
        yield f"### {title}\n"
        rows = (_cells(row) for row in ROWS.values() if row.section == section)
        yield _table(("cause", "number", "what happened", "action", "alert", "what to do"), rows)


def _cells(row: Row) -> tuple[str, ...]:
    code = "" if row.code is None else str(row.code)
    alerts = ", ".join(f"{severity}{_occasion(n)}" for n, severity in row.alerts)
    return f"`{row.id}`", code, row.meaning, _action(row), alerts, row.hint.format(name="NAME")


def _occasion(number: int) -> str:
    return (
        ""
        if number == 1
        else f" from the {number}th on"
        if number > 3
        else f" the {('2nd', '3rd')[number - 2]} time"
    )


def _action(row: Row) -> str:
    text = f"`{row.action}`"
    if row.needs_newer_version:
        text += " if there is a newer client version"
    if row.fixed_s is not None:
        text += f" after {row.fixed_s:g} s"
    if row.base_s is not None:
        text += f" from {row.base_s:g} s"
    if row.quick_after_stable:
        text += "; after a stable connection at once"
    limit = LIMITS.get(row.group)
    if limit is not None:
        window = f" within {limit.within_s:g} s" if limit.within_s else ""
        text += f"; {limit.times}×{window}, then `{limit.then}`"
    if row.clears_auth:
        text += "; credentials are sealed and cleared"
    for other in row.codes:
        numbers = f"{other.low}" if other.low == other.high else f"{other.low}–{other.high}"
        text += f"; {numbers}: as `{other.row}`"
    return text


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def settings_page() -> str:
    """The manual page waD.toml(5), with the disconnect table."""
    return settings_manual([CauseRow(row.id, _plainly(_action(row)), row.meaning) for row in ROWS.values()])


def _plainly(text: str) -> str:
    """Without marks and in ASCII, as the man macros want it."""
    return text.replace("`", "").replace("×", " times").replace("–", " to ")


if __name__ == "__main__":
    PAGE.write_text(manual())
    SETTINGS_PAGE.write_text(settings_page())
