"""wactl policy show."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest

from tests.wactl.conftest import Run, documents, error_of
from tests.wactl.fake import FakeDaemon, refusal
from waD.control import types as t
from waD.session.table import ROWS

ROW = t.PolicyRow(
    cause="stream_500",
    section="stream",
    code=500,
    action="backoff",
    default_action="backoff",
    clears_auth=True,
    limit=t.PolicyLimit(times=3, then="repair", within=600.0, until="open"),
    meaning="internal server error",
)
CHANGED = t.PolicyRow(
    cause="http",
    section="transport",
    code=None,
    action="hold",
    default_action="slow",
    origin="/etc/waD/waD.toml:12",
    meaning="an HTTP status",
)
FIXED = t.PolicyRow(
    cause="lease_lost",
    section="local",
    code=None,
    action="stop",
    default_action="stop",
    fixed=True,
    meaning="taken",
)
TABLE = t.PolicyTable(session=None, rows=[ROW, CHANGED, FIXED])


def test_the_table_for_people(daemon: FakeDaemon, run: Run) -> None:
    daemon.script["policy.show"] = TABLE
    result = run("policy", "show")
    assert (result.exit_code, result.stderr) == (0, "")
    head, first, second, third = result.stdout.splitlines()
    assert head.split() == ["CAUSE", "CODE", "ACTION", "LIMIT", "ORIGIN", "MEANING"]
    columns = [head.index(word) for word in head.split()] + [None]
    cells = [[line[start:end].strip() for start, end in pairwise(columns)] for line in (first, second, third)]
    assert cells == [
        [
            "stream_500",
            "500",
            "backoff!",
            "3x in 10 min, then repair (until open)",
            "default",
            "internal server error",
        ],
        ["http", "-", "hold", "-", "/etc/waD/waD.toml:12", "an HTTP status"],
        ["lease_lost", "-", "stop", "-", "fixed", "taken"],
    ]
    assert daemon.params("policy.show") == {"session": None}


@pytest.mark.parametrize(
    ("limit", "text"),
    [
        (t.PolicyLimit(times=1, then="hold", until="never"), "1x, then hold (until reset)"),
        (t.PolicyLimit(times=5, then="close"), "5x, then close  "),
        (t.PolicyLimit(times=2, then="new-word", within=90.0), "2x in 1 min 30 s, then new-word  "),
    ],
)
def test_limits(daemon: FakeDaemon, run: Run, limit: t.PolicyLimit, text: str) -> None:
    row = msgspec.structs.replace(ROW, limit=limit)
    daemon.script["policy.show"] = t.PolicyTable(session=None, rows=[row])
    assert text in run("policy", "show").stdout


def test_for_a_session_and_as_json(daemon: FakeDaemon, run: Run) -> None:
    daemon.script["policy.show"] = msgspec.structs.replace(TABLE, session="alerts")
    result = run("policy", "show", "--session", "alerts", "--json")
    (document,) = documents(result.stdout)
    assert document["session"] == "alerts"
    assert document["rows"][1]["origin"] == "/etc/waD/waD.toml:12"
    assert document["rows"][0]["limit"] == {"times": 3, "then": "repair", "within": 600.0, "until": "open"}
    assert daemon.params("policy.show") == {"session": "alerts"}


def test_remote_text_is_harmless(daemon: FakeDaemon, run: Run) -> None:
    row = msgspec.structs.replace(ROW, meaning="\x1b[31mred", origin="/x\x1b]0;y")
    daemon.script["policy.show"] = t.PolicyTable(session=None, rows=[row])
    assert "\x1b" not in run("policy", "show").stdout


def test_a_refusal(daemon: FakeDaemon, run: Run) -> None:
    daemon.script["policy.show"] = refusal("not_permitted", "no", needs="observer")
    result = run("policy", "show", "--json")
    assert result.exit_code == 7
    assert error_of(result)["data"] == {"needs": "observer"}


def test_every_real_row_fits(daemon: FakeDaemon, run: Run) -> None:
    rows = [
        t.PolicyRow(
            cause=row.id, section=row.section, code=row.code, action=row.action, default_action=row.action,
            meaning=row.meaning,
        )
        for row in ROWS.values()
    ]  # fmt: skip
    daemon.script["policy.show"] = t.PolicyTable(session=None, rows=rows)
    lines = run("policy", "show").stdout.splitlines()[1:]
    assert [line.split()[0] for line in lines] == list(ROWS)
