"""`wactl policy show`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import click

from wactl.base import App, LazyGroup, command, complete_name
from wactl.text import clean, duration
from waD.control import types as t

policy = LazyGroup(
    "policy",
    table={"show": ("wactl.commands.policy:show", "Show the disconnect table in force.")},
    help="Show what happens when a connection ends, by cause.",
    example="wactl policy show",
)

_UNTIL: Final = {"open": "until open", "stable": "", "never": "until reset"}


@command(
    "show",
    example="wactl policy show --session alerts\n"
    "wactl policy show --json | jq -r '.rows[] | select(.origin != \"default\").cause'",
)
@click.option(
    "--session",
    metavar="NAME",
    shell_complete=complete_name,
    help="With the settings of this session, which need not exist.",
)
def show(app: App, session: str | None) -> None:
    """Show the disconnect table in force: what is done on each cause, and where that was set.

    CODE is the number of the disconnect reason. LIMIT is how often the action is taken, and which one follows then.
    ORIGIN is "default", or the file and line that changed the row; a row marked "fixed" cannot be changed. A "!" marks
    what clears the credentials, which are sealed first.
    """
    with app.client() as client:
        answer = client.call("policy.show", t.PolicyParams(session=session))
        if app.as_json:
            return app.out.document(answer)
        table = client.decode(answer, t.PolicyTable)
    app.out.table(
        ("CAUSE", "CODE", "ACTION", "LIMIT", "ORIGIN", "MEANING"), [_cells(row) for row in table.rows]
    )
    return None


def _cells(row: t.PolicyRow) -> Sequence[str]:
    return (
        row.cause,
        "-" if row.code is None else str(row.code),
        clean(row.action) + ("!" if row.clears_auth else ""),
        _limit(row.limit),
        "fixed" if row.fixed else row.origin,
        row.meaning,
    )


def _limit(limit: t.PolicyLimit | None) -> str:
    if limit is None:
        return "-"
    within = "" if limit.within is None else f" in {duration(round(limit.within))}"
    until = _UNTIL.get(limit.until, "")
    return f"{limit.times}x{within}, then {limit.then}" + (f" ({until})" if until else "")
