"""storage, and messages purge."""

from __future__ import annotations

import os
import pty
import pwd
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.e2e.daemon import ALICE, BOB, running
from tests.wactl.conftest import Run, Spawn, documents, error_of
from tests.wactl.fake import PATIENCE_S, Connection, FakeDaemon, refusal, view
from tests.wactl.test_surface import complete
from tests.wactl.test_with_daemon import Wactl
from waD.control import types as t
from waD.sandbox import run_sandbox

AT = 1_767_225_600_000
STATUS = t.StorageStatus(
    name="alerts", connection_id="c", phase="backfilled", phase_since=AT, epoch=2, version=40, legacy_version=40,
    lag=0, items=12, legacy_rows=13, bytes=900, restarts=1, sealed_at=AT, verified_at=AT, verified_level=3,
    verified_ok=True, encrypted=True, kek="main",
)  # fmt: skip
CUT = msgspec.structs.replace(
    STATUS, name="jobs", phase="cut_over", version=50, lag=10, fallback_hits=2, verified_ok=False, kek=None,
    encrypted=False, backup_at=AT,
)  # fmt: skip
OK = t.CheckView(check="age", ok=True, detail="in backfilled for 2 days, and 24 hours are demanded")
BAD = t.CheckView(check="restarts", ok=False, detail="0 restarts in this phase, and 1 demanded")
DONE = t.StorageResult(
    name="alerts", connection_id="c", outcome="done", was="backfilled", phase="snapshot_primary", checks=[OK]
)
REFUSED = msgspec.structs.replace(DONE, outcome="refused", phase="backfilled", checks=[OK, BAD])
DAMAGED = msgspec.structs.replace(REFUSED, outcome="damaged")
KEYS = t.KeyList(
    keys=[
        t.KeyView(id="2026", here=True, wraps_new=True, sessions=["alerts"], retired=["old"], seals=9),
        t.KeyView(id="gone", here=False, wraps_new=False, seals=2),
        t.KeyView(id="main", here=True, wraps_new=False),
    ],
    users=[
        t.KeyUser(name="alerts", connection_id="c1", retired=False, kek="2026", seal_keks={"2026": 9}),
        t.KeyUser(name="old", connection_id="c2", retired=True, kek="2026", seal_keks={"gone": 2}),
    ],
)
TWO = t.SessionList(sessions=[view(name="alerts"), view(name="jobs")])

STEPS: list[tuple[str, str, list[str], dict[str, Any]]] = [
    ("dual-write", "storage.dual_write", [], {}),
    ("verify", "storage.verify", [], {}),
    ("promote", "storage.promote", ["--min-age", "2"], {"minAge": 7200.0}),
    ("promote", "storage.promote", [], {"minAge": 86400.0}),
    ("cutover", "storage.cutover", ["--yes"], {}),
    ("rollback", "storage.rollback", ["--yes"], {"to": None}),
    ("rollback", "storage.rollback", ["--yes", "--to", "legacy_only"], {"to": "legacy_only"}),
    ("encrypt", "storage.encrypt", ["--yes"], {}),
    ("rewrap", "storage.rewrap", [], {"kek": None}),
    ("rewrap", "storage.rewrap", ["--kek", "2026"], {"kek": "2026"}),
]
ASKING = ["cutover", "rollback", "encrypt"]


def by_name(**answers: Any) -> Callable[[Connection, dict[str, Any]], None]:
    """Answers that depend on the session."""

    def handle(connection: Connection, request: dict[str, Any]) -> None:
        connection.answer(request, answers[request["params"]["name"]])

    return handle


def test_the_status_of_one(daemon: FakeDaemon, run: Run) -> None:
    daemon.script["storage.status"] = STATUS
    result = run("storage", "status", "alerts")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].startswith("alerts  backfilled since 2026-01-01 00:00:00 (")
    shown = dict(line.strip().split("  ", 1) for line in lines[1:])
    shown = {name: value.strip() for name, value in shown.items()}
    assert shown["version"] == "40, epoch 2"
    assert shown["key-value rows"] == "13, of version 40"
    assert shown["encrypted"] == "with the key main"
    assert shown["last verify"].startswith("level 3, ")
    assert shown["last backup"] == "never"
    assert daemon.params("storage.status") == {"name": "alerts"}
    daemon.script["storage.status"] = msgspec.structs.replace(CUT, verified_at=None, verified_ok=None)
    lines = run("storage", "status", "jobs").stdout.splitlines()
    shown = {name: value.strip() for name, value in (line.strip().split("  ", 1) for line in lines[1:])}
    assert shown["key-value rows"] == "13, of version 40, 10 behind"
    assert (shown["encrypted"], shown["last verify"], shown["fallbacks"]) == ("no", "never", "2")


def test_the_status_of_all(daemon: FakeDaemon, run: Run) -> None:
    daemon.script["session.list"] = TWO
    daemon.script["storage.status"] = by_name(alerts=STATUS, jobs=CUT)
    daemon.script["storage.keys"] = KEYS
    result = run("storage", "status")
    lines = result.stdout.splitlines()
    assert [line.split()[:5] for line in lines[:3]] == [
        ["NAME", "PHASE", "LAG", "FALLBACKS", "ITEMS"],
        ["alerts", "backfilled", "0", "0", "12"],
        ["jobs", "cut_over", "10", "2", "12"],
    ]
    assert "(failed)" in lines[2]
    assert [" ".join(line.split()) for line in lines[3:]] == [
        "",
        "KEY SESSIONS SEALED NEEDED BY",
        "2026 wraps new keys 2 9 alerts, old (retired)",
        "gone IS NOT HERE 0 2",
        "main is here 0 0 nothing: it may be deleted",
    ]
    (document,) = documents(run("storage", "status", "--json").stdout)
    assert document == {
        "sessions": [msgspec.to_builtins(STATUS), msgspec.to_builtins(CUT)],
        "keys": [msgspec.to_builtins(key) for key in KEYS.keys],
    }
    daemon.script["storage.keys"] = t.KeyList(keys=[], users=[], lost="the key file is gone")
    result = run("storage", "status")
    assert (len(result.stdout.splitlines()), result.stderr) == (3, "the key file is gone\n")


def test_a_rewrap_of_all_reaches_retired_sessions_and_says_how_many(daemon: FakeDaemon, run: Run) -> None:
    done = msgspec.structs.replace(DONE, checks=[], was="cut_over", phase="cut_over")
    daemon.script["storage.keys"] = KEYS
    daemon.script["storage.rewrap"] = by_name(
        alerts=msgspec.structs.replace(done, rewrapped=t.Rewrap(sessions=1, seals=9)),
        old=msgspec.structs.replace(
            done,
            name="old",
            retired=True,
            rewrapped=t.Rewrap(sessions=1, seals=0, left=2),
            notes=["two stay"],
        ),
    )
    result = run("storage", "rewrap", "--all", "--kek", "2026")
    assert (result.exit_code, result.stdout.splitlines()) == (
        0,
        ["alerts  cut_over: done", "old (retired)  cut_over: done"],
    )
    assert result.stderr.splitlines() == [
        "note: two stay",
        "wrapped anew: the keys of 2 sessions, 1 of them retired, and of 9 sealed copies",
        "nothing needs the key main any more: it may be deleted",
    ]
    assert daemon.params("storage.rewrap") == {"name": "old", "kek": "2026", "dryRun": False}
    (document,) = documents(run("storage", "rewrap", "--all", "--json").stdout)
    assert [one["rewrapped"]["sessions"] for one in document["results"]] == [1, 1]
    assert [key["id"] for key in document["keys"]] == ["2026", "gone", "main"]


def test_the_log_of_one(daemon: FakeDaemon, run: Run) -> None:
    change = t.PhaseChange(was="snapshot_primary", phase="cut_over", actor="alice (uid 1000)", at=AT)
    daemon.script["storage.status"] = STATUS
    daemon.script["storage.log"] = t.StorageLog(name="alerts", connection_id="c", changes=[change])
    lines = run("storage", "status", "alerts", "--log").stdout.splitlines()
    assert lines[-2].split() == ["WHEN", "FROM", "TO", "BY"]
    assert lines[-1].split("  ")[1:] == ["snapshot_primary", "cut_over", "alice (uid 1000)"]
    assert daemon.params("storage.log")["name"] == "alerts"
    (document,) = documents(run("storage", "status", "alerts", "--log", "--json").stdout)
    assert document["log"] == [msgspec.to_builtins(change)]
    daemon.script["storage.log"] = t.StorageLog(name="alerts", connection_id="c", changes=[])
    assert run("storage", "status", "alerts", "--log").stderr == "its phase was never changed\n"
    assert run("storage", "status", "--log").exit_code == 2


def test_no_sessions_have_no_status(daemon: FakeDaemon, run: Run) -> None:
    daemon.script["session.list"] = t.SessionList(sessions=[])
    daemon.script["storage.keys"] = t.KeyList(keys=[], users=[])
    assert run("storage", "status").stderr == "no sessions\n"
    assert documents(run("storage", "status", "--json").stdout) == [{"sessions": [], "keys": []}]
    assert run("storage", "verify", "--all").stderr == "no sessions\n"


@pytest.mark.parametrize(("step", "method", "words", "params"), STEPS)
def test_a_step(
    daemon: FakeDaemon, run: Run, step: str, method: str, words: list[str], params: dict[str, Any]
) -> None:
    daemon.script[method] = DONE
    result = run("storage", step, "alerts", *words)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == "alerts  backfilled → snapshot_primary: done"
    assert "ok    in backfilled for 2 days" in result.stdout
    assert daemon.params(method) == {"name": "alerts", "dryRun": False, **params}
    dry = [word for word in words if word != "--yes"]
    assert run("storage", step, "alerts", *dry, "--dry-run").exit_code == 0
    assert daemon.params(method)["dryRun"] is True


@pytest.mark.parametrize(("step", "method", "words", "params"), STEPS)
def test_what_is_refused_is_1_and_what_is_damaged_6_with_the_report(
    daemon: FakeDaemon, run: Run, step: str, method: str, words: list[str], params: dict[str, Any]
) -> None:
    del params
    for outcome, status in ((REFUSED, 1), (DAMAGED, 6)):
        daemon.script[method] = outcome
        result = run("storage", step, "alerts", *words)
        assert result.exit_code == status
        assert "FAIL  0 restarts in this phase" in result.stdout
        result = run("storage", step, "alerts", *words, "--json")
        assert result.exit_code == status
        assert documents(result.stdout) == [{"results": [msgspec.to_builtins(outcome)]}]
        assert result.stderr == ""


def test_errors_have_their_own_exits(daemon: FakeDaemon, run: Run) -> None:
    for symbol, status in (("wrong_state", 4), ("damaged", 6), ("not_permitted", 7), ("refused", 1)):
        daemon.script["storage.promote"] = refusal(symbol, "no, it is not")  # type: ignore[arg-type]
        result = run("storage", "promote", "alerts")
        assert (result.exit_code, result.stderr) == (status, "wactl: no, it is not\n")
        assert error_of(run("storage", "promote", "alerts", "--json"))["symbol"] == symbol


def test_all_leaves_out_those_in_other_phases_and_ends_with_the_worst(daemon: FakeDaemon, run: Run) -> None:
    daemon.script["session.list"] = TWO
    other = msgspec.structs.replace(DONE, name="jobs")
    daemon.script["storage.promote"] = by_name(alerts=refusal("wrong_state", "it is cut_over"), jobs=other)
    result = run("storage", "promote", "--all")
    assert (result.exit_code, result.stderr) == (0, "alerts: it is cut_over\n")
    assert "jobs  backfilled → snapshot_primary: done" in result.stdout
    (document,) = documents(run("storage", "promote", "--all", "--json").stdout)
    assert document["results"][0]["name"] == "alerts"
    assert document["results"][0]["error"]["symbol"] == "wrong_state"
    assert document["results"][1] == msgspec.to_builtins(other)
    for first, second, status in (
        (REFUSED, refusal("not_permitted", "no"), 7),
        (DAMAGED, refusal("not_permitted", "no"), 6),
        (REFUSED, other, 1),
        (DONE, refusal("damaged", "no"), 6),
    ):
        daemon.script["storage.promote"] = by_name(alerts=first, jobs=second)
        assert run("storage", "promote", "--all").exit_code == status


@pytest.mark.parametrize(
    "words", [["verify"], ["verify", "alerts", "--all"], ["cutover", "--yes"], ["backfill"]]
)
def test_which_session_must_be_said(daemon: FakeDaemon, run: Run, words: list[str]) -> None:
    result = run("storage", *words)
    assert (result.exit_code, result.stderr) == (2, "wactl: name a session, or say --all\n")
    assert daemon.requests == []


@pytest.mark.parametrize("step", ASKING)
def test_it_asks_first(daemon: FakeDaemon, run: Run, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("storage", step, "alerts").exit_code == 2
    monkeypatch.setattr("wactl.base.is_terminal", lambda _stream: True)
    declined = run("storage", step, "--all", stdin="n\n")
    assert declined.exit_code == 1
    assert "every session" in declined.stderr
    assert daemon.requests == []
    daemon.script[f"storage.{step}"] = DONE
    assert run("storage", step, "alerts", stdin="y\n").exit_code == 0


def test_encryption_says_what_is_at_stake(
    run: Run, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wactl.base.is_terminal", lambda _stream: True)
    daemon.script["storage.encrypt"] = msgspec.structs.replace(DONE, notes=["keep a copy of the key"])
    result = run("storage", "encrypt", "alerts", stdin="y\n")
    assert "loses the account" in result.stderr
    assert "note: keep a copy of the key" in result.stderr


def test_the_rows_are_deleted_only_with_the_name_typed(
    daemon: FakeDaemon, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("storage", "retire-legacy", "alerts").exit_code == 2
    assert run("storage", "retire-legacy", "alerts", "--confirm", "alert").exit_code == 2
    monkeypatch.setattr("wactl.base.is_terminal", lambda _stream: True)
    for typed in ("y\n", "\n", "Alerts\n"):
        assert run("storage", "retire-legacy", "alerts", stdin=typed).exit_code == 2
    assert daemon.requests == []
    daemon.script["storage.retire_legacy"] = DONE
    assert run("storage", "retire-legacy", "alerts", stdin="alerts\n").exit_code == 0
    assert run("storage", "retire-legacy", "alerts", "--confirm", "alerts").exit_code == 0
    assert daemon.params("storage.retire_legacy") == {"name": "alerts", "confirm": "alerts", "dryRun": False}


# Backfill.


def filling(total: int, batch: int) -> Callable[[Connection, dict[str, Any]], None]:
    """A daemon that copies a batch at each call."""
    left = total

    def handle(connection: Connection, request: dict[str, Any]) -> None:
        nonlocal left
        params = request["params"]
        result = msgspec.structs.replace(DONE, was="dual_write", phase="dual_write", checks=[])
        if params["dryRun"]:
            compared = t.ComparisonView(items=3, missing={"session": left} if left else {})
            connection.answer(
                request, msgspec.structs.replace(result, outcome="possible", comparison=compared)
            )
            return
        assert (params["batch"], params["batches"]) == (batch, 1)
        count = min(batch, left)
        left -= count
        progress = t.BackfillProgress(copied=count, remaining=left)
        ended = count < batch
        connection.answer(
            request,
            msgspec.structs.replace(
                result,
                outcome="done" if ended else "unfinished",
                phase="backfilled" if ended else "dual_write",
                progress=progress,
            ),
        )

    return handle


@pytest.mark.parametrize("total", [0, 1, 7, 8])
def test_a_backfill_goes_on_until_nothing_is_left(daemon: FakeDaemon, run: Run, total: int) -> None:
    daemon.script["storage.backfill"] = filling(total, 4)
    result = run("storage", "backfill", "alerts", "--batch", "4")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == "alerts  dual_write → backfilled: done"
    assert f"copied  {total}, left 0" in result.stdout
    assert daemon.methods().count("storage.backfill") == 1 + total // 4 + 1
    daemon.script["storage.backfill"] = filling(total, 4)
    (document,) = documents(run("storage", "backfill", "alerts", "--batch", "4", "--json").stdout)
    assert document["results"][0]["progress"] == {"copied": total, "remaining": 0}


def test_a_dry_backfill_only_counts(daemon: FakeDaemon, run: Run) -> None:
    daemon.script["storage.backfill"] = filling(7, 4)
    result = run("storage", "backfill", "alerts", "--batch", "4", "--dry-run")
    assert (result.exit_code, daemon.methods()) == (0, ["storage.backfill"])
    assert "3 items, 7 missing" in result.stdout
    assert "can be done" in result.stdout


def test_a_backfill_that_finds_a_difference_is_6(daemon: FakeDaemon, run: Run) -> None:
    def handle(connection: Connection, request: dict[str, Any]) -> None:
        ready = msgspec.structs.replace(DAMAGED, outcome="possible")
        connection.answer(request, ready if request["params"]["dryRun"] else DAMAGED)

    daemon.script["storage.backfill"] = handle
    assert run("storage", "backfill", "alerts").exit_code == 6


def test_on_a_terminal_there_is_a_bar(daemon: FakeDaemon, spawn: Spawn) -> None:
    daemon.script["storage.backfill"] = filling(8, 4)
    parent, child = pty.openpty()
    process = spawn("storage", "backfill", "alerts", "--batch", "4", stderr=child)
    assert process.wait(PATIENCE_S) == 0
    os.close(child)
    shown = b""
    while True:
        try:
            part = os.read(parent, 4096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
    os.close(parent)
    assert b"alerts" in shown
    assert b"100%" in shown


# Purge.


def test_a_purge_counts_asks_and_deletes(
    daemon: FakeDaemon, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def handle(connection: Connection, request: dict[str, Any]) -> None:
        dry = request["params"]["dryRun"]
        connection.answer(request, t.PurgeResult(session="alerts", found=912, deleted=0 if dry else 912))

    daemon.script["message.purge"] = handle
    order = {"session": "alerts", "chat": None, "before": 1_735_689_600_000, "dryRun": True}
    result = run("messages", "purge", "alerts", "--before", "2025-01-01", "--dry-run")
    assert (result.exit_code, result.stdout) == (0, "912 found\n")
    assert daemon.params("message.purge") == order
    assert run("messages", "purge", "alerts", "--before", "2025-01-01").exit_code == 2
    monkeypatch.setattr("wactl.base.is_terminal", lambda _stream: True)
    declined = run("messages", "purge", "alerts", "--before", "2025-01-01", stdin="n\n")
    assert declined.exit_code == 1
    assert "Delete 912 messages of alerts for good?" in declined.stderr
    assert all(request["params"]["dryRun"] for request in daemon.requests)
    done = run("messages", "purge", "alerts", "--before", "2025-01-01T00:00:00", stdin="y\n")
    assert (done.exit_code, done.stdout) == (0, "912 deleted\n")
    assert daemon.params("message.purge") == {**order, "dryRun": False}
    result = run("messages", "purge", "alerts", "--chat", "+15550000002", "--yes", "--json")
    assert documents(result.stdout) == [{"session": "alerts", "found": 912, "deleted": 912}]
    assert daemon.params("message.purge") == {
        "session": "alerts", "chat": "15550000002", "before": None, "dryRun": False,
    }  # fmt: skip


def test_a_purge_of_nothing_does_not_ask(daemon: FakeDaemon, run: Run) -> None:
    daemon.script["message.purge"] = t.PurgeResult(session="alerts", found=0, deleted=0)
    result = run("messages", "purge", "alerts", "--chat", "+15550000002")
    assert (result.exit_code, result.stdout, len(daemon.requests)) == (0, "0 deleted\n", 1)


@pytest.mark.parametrize("words", [[], ["--before", "yesterday"], ["--yes"]])
def test_a_purge_must_say_what(daemon: FakeDaemon, run: Run, words: list[str]) -> None:
    assert run("messages", "purge", "alerts", *words).exit_code == 2
    assert daemon.requests == []


def test_the_word_show_may_be_left_out(daemon: FakeDaemon, run: Run) -> None:
    daemon.script["message.list"] = t.MessageList(session="alerts", messages=[])
    for words in (
        ["alerts"], ["show", "alerts"], ["--json", "alerts"], ["--json", "show", "alerts"], ["alerts", "--json"],
        ["--limit", "3", "alerts"], ["--socket", str(daemon.path), "alerts"],
    ):  # fmt: skip
        assert run("messages", *words).exit_code == 0, words
        assert daemon.params("message.list")["session"] == "alerts"
    assert run("messages", "show", "purge").exit_code == 0
    assert daemon.params("message.list")["session"] == "purge"
    assert run("messages", "--json", "purge", "alerts").exit_code == 2
    assert daemon.methods().count("message.list") == 8


def test_completion(daemon: FakeDaemon) -> None:
    daemon.script["session.list"] = TWO
    assert complete(["storage"], "r") == ["rollback", "retire-legacy", "rewrap"]
    assert complete(["storage", "cutover"], "al") == ["alerts"]
    assert complete(["storage", "rollback", "--to"], "s") == ["snapshot_primary"]
    assert complete(["messages"], "") == ["show", "purge", "alerts", "jobs"]
    assert complete(["messages", "purge"], "j") == ["jobs"]
    assert complete(["messages", "show"], "j") == ["jobs"]


async def test_a_real_session_moves_and_its_history_is_purged(tmp_path: Path) -> None:
    more = '[store]\nlegacy = "on"\nencrypt = "off"\n'
    async with run_sandbox() as sandbox, running(tmp_path, sandbox, more=more) as daemon:
        wactl = Wactl(daemon, sandbox)
        await daemon.pair(sandbox)
        for text in ("one", "two"):
            await sandbox.phone(BOB).send(ALICE, text)
            await daemon.event("message:new", body=text)

        assert b"alerts  snapshot_primary since" in (await wactl("storage", "status", "alerts")).stdout
        assert b"FAIL" in (await wactl("storage", "cutover", "alerts", "--yes", exit_status=1)).stdout
        await wactl("storage", "dual-write", "alerts", exit_status=4)
        await wactl("storage", "rollback", "alerts", "--to", "legacy_only", exit_status=2)
        await wactl("storage", "rollback", "alerts", "--to", "legacy_only", "--yes")
        await wactl("storage", "dual-write", "--all")
        done = await wactl.document("storage", "backfill", "alerts", "--batch", "100")
        assert done["results"][0]["phase"] == "backfilled"
        assert done["results"][0]["progress"]["copied"] > 100
        await wactl("storage", "verify", "alerts")
        await wactl("storage", "promote", "alerts", "--min-age", "0", exit_status=1)
        refused = await wactl("storage", "encrypt", "alerts", "--yes", exit_status=1)
        assert b"there is no key" in refused.stdout
        await wactl("storage", "status", "nobody", exit_status=4)

        await wactl("messages", "purge", "alerts", "--before", "2099-01-01", exit_status=2)
        purged = await wactl.document("messages", "purge", "alerts", "--chat", BOB, "--yes")
        assert purged == {"session": "alerts", "found": 2, "deleted": 2}
        assert (await wactl("messages", "alerts")).stdout == b""
        (event,) = await daemon.events("messages:purged")
        assert event["data"]["count"] == 2

        me = f"{pwd.getpwuid(os.geteuid()).pw_name} (uid {os.geteuid()})"
        assert event["data"]["actor"] == me
        found = await wactl.document("storage", "status", "alerts", "--log")
        assert [(one["was"], one["phase"], one["actor"]) for one in found["log"]] == [
            ("dual_write", "backfilled", me),
            ("legacy_only", "dual_write", me),
            ("snapshot_primary", "legacy_only", me),
        ]
        assert {one["check"] for one in found["log"][1]["checks"]} == {"verified", "room", "durability"}
        assert me.encode() in (await wactl("storage", "status", "alerts", "--log")).stdout
