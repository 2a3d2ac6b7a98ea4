"""Every method: what it hands to the sessions, what it answers, and how it says no."""

from __future__ import annotations

import os
from typing import Any

import msgspec
import pytest

from tests.control.client import Client, Refused, Running
from tests.control.fakes import view
from waD.control import types as t
from waD.control.api import ControlError
from waD.control.methods import METHODS

NAME = {"name": "alerts"}

FILE = "0123456789abcdef" * 2
CALLS: list[tuple[str, dict[str, Any], str | None, Any]] = [
    ("session.connect", NAME, "connect", "alerts"),
    ("session.disconnect", NAME, "disconnect", "alerts"),
    ("session.logout", NAME, "logout", "alerts"),
    ("session.remove", NAME, "remove", "alerts"),
    ("session.hold", NAME, "hold", "alerts"),
    ("session.release", NAME, "release", "alerts"),
    ("session.reset", NAME, "reset", "alerts"),
    ("session.undo", NAME, "undo", "alerts"),
    ("session.list", {}, "list", None),
    ("session.status", NAME, "status", "alerts"),
    ("session.qr", NAME, "qr", "alerts"),
    (
        "message.send",
        {"session": "alerts", "to": "+1 (555) 000-0002", "text": "hi @x", "mentions": ["+1 555 000 0003"]},
        "send",
        t.SendRequest(session="alerts", to="15550000002", text="hi @x", mentions=["15550000003"]),
    ),
    (
        "message.wait",
        {"session": "alerts", "messageId": "3EB0A1", "state": "read", "timeout": 5},
        "wait",
        ("3EB0A1", "read"),
    ),
    (
        "message.list",
        {"session": "alerts", "chat": "+15550000002", "before": 9, "limit": 3},
        "messages",
        ("15550000002", 9, 3),
    ),
    ("message.list", {"session": "alerts"}, "messages", (None, None, t.DEFAULT_PAGE)),
    (
        "message.read",
        {"session": "alerts", "chat": "1555@g.us", "ids": ["A", "B"]},
        "mark_read",
        ("1555@g.us", ["A", "B"]),
    ),
    ("outbox.list", {"session": "alerts"}, "outbox", (t.UNFINISHED, t.DEFAULT_PAGE)),
    (
        "outbox.list",
        {"session": "alerts", "states": ["held", "failed"], "limit": 7},
        "outbox",
        (("held", "failed"), 7),
    ),
    ("outbox.release", {"session": "alerts", "ids": ["A", "B"]}, "release_held", ["A", "B"]),
    ("outbox.release", {"session": "alerts", "all": True}, "release_held", None),
    ("outbox.cancel", {"session": "alerts", "ids": ["A"]}, "cancel_unsent", ["A"]),
    ("outbox.cancel", {"session": "alerts", "all": True}, "cancel_unsent", None),
    (
        "events.list",
        {"since": 0, "types": ["message:new"], "session": "alerts", "limit": 2},
        "events",
        (0, ("message:new",), "alerts", 2),
    ),
    ("events.subscribe", {"since": 0, "follow": False}, "subscribe", (0, (), None, False)),
    ("storage.status", NAME, "storage.status", "alerts"),
    (
        "storage.dual_write",
        {**NAME, "dryRun": True},
        "storage.dual_write",
        t.StorageParams(name="alerts", dry_run=True),
    ),
    (
        "storage.backfill",
        {**NAME, "batch": 9, "batches": 1},
        "storage.backfill",
        t.BackfillParams(name="alerts", batch=9, batches=1),
    ),
    ("storage.verify", NAME, "storage.verify", t.StorageParams(name="alerts")),
    (
        "storage.promote",
        {**NAME, "minAge": 5},
        "storage.promote",
        t.PromoteParams(name="alerts", min_age=5),
    ),
    ("storage.cutover", NAME, "storage.cutover", t.StorageParams(name="alerts")),
    (
        "storage.rollback",
        {**NAME, "to": "legacy_only"},
        "storage.rollback",
        t.RollbackParams(name="alerts", to="legacy_only"),
    ),
    (
        "storage.retire_legacy",
        {**NAME, "confirm": "alerts"},
        "storage.retire_legacy",
        t.RetireParams(name="alerts", confirm="alerts"),
    ),
    ("storage.encrypt", NAME, "storage.encrypt", t.StorageParams(name="alerts")),
    ("storage.rewrap", {**NAME, "kek": "new"}, "storage.rewrap", t.RewrapParams(name="alerts", kek="new")),
    ("storage.keys", {}, "storage.keys", None),
    ("storage.log", {**NAME, "limit": 5}, "storage.log", t.StorageLogParams(name="alerts", limit=5)),
    (
        "message.purge",
        {"session": "alerts", "chat": "+1 555 000 0002", "before": 5},
        "purge",
        t.PurgeParams(session="alerts", chat="15550000002", before=5),
    ),
    (
        "auth.backup",
        {**NAME, "recipients": ["age1x", "age1y"], "history": True},
        "auth.backup",
        t.BackupParams(name="alerts", recipients=["age1x", "age1y"], history=True),
    ),
    (
        "auth.backup",
        {**NAME, "passphrase": "tell nobody", "final": True},
        "auth.backup",
        t.BackupParams(name="alerts", passphrase="tell nobody", final=True),
    ),
    ("auth.fetch", {"id": FILE, "offset": 7}, "auth.fetch", (FILE, 7)),
    ("auth.discard", {"id": FILE}, "auth.discard", (FILE, False)),
    ("auth.discard", {"id": FILE, "kept": True}, "auth.discard", (FILE, True)),
    ("auth.upload", {"data": "AAEC"}, "auth.upload", (None, bytes([0, 1, 2]))),
    ("auth.upload", {"id": FILE, "data": ""}, "auth.upload", (FILE, b"")),
    (
        "auth.restore",
        {"id": FILE, "mode": "receive-only", "rollbackAnyway": True},
        "auth.restore",
        t.RestoreParams(id=FILE, mode="receive-only", rollback_anyway=True),
    ),
    ("auth.seals", NAME, "auth.seals", "alerts"),
    (
        "auth.restore_seal",
        {**NAME, "epoch": 1, "version": 812, "mode": "receive-only"},
        "auth.restore_seal",
        t.SealRestoreParams(name="alerts", epoch=1, version=812, mode="receive-only"),
    ),
    ("auth.unretire", NAME, "unretire", "alerts"),
    ("auth.compare", {**NAME, "id": FILE}, "auth.compare", t.CompareParams(id=FILE, name="alerts")),
    ("auth.verify", NAME, "auth.verify", ("alerts", 3)),
    ("repair.list", NAME, "repair.list", "alerts"),
    (
        "repair.run",
        {**NAME, "action": "drop-session", "target": "+1 555 000 0002"},
        "repair.run",
        t.RepairParams(name="alerts", action="drop-session", target="15550000002"),
    ),
    (
        "repair.run",
        {**NAME, "action": "reset-sender-key", "target": "120363000000000001@g.us"},
        "repair.run",
        t.RepairParams(name="alerts", action="reset-sender-key", target="120363000000000001@g.us"),
    ),
    (
        "repair.run",
        {**NAME, "action": "upload-prekeys"},
        "repair.run",
        t.RepairParams(name="alerts", action="upload-prekeys"),
    ),
    ("policy.show", {}, "policy", None),
    ("policy.show", {"session": "alerts"}, "policy", "alerts"),
    ("config.show", {}, None, None),
    ("daemon.check", {}, None, None),
    ("daemon.ping", {}, None, None),
    ("daemon.info", {}, None, None),
    ("daemon.reload", {}, None, None),
    ("daemon.stop", {}, None, None),
]


@pytest.mark.parametrize(("method", "params", "called", "argument"), CALLS, ids=[call[0] for call in CALLS])
async def test_a_method_hands_on_its_parameters_and_answers_with_its_type(
    running: Running, client: Client, method: str, params: dict[str, Any], called: str | None, argument: Any
) -> None:
    result = await client.call(method, **params)
    msgspec.convert(result, METHODS[method].result)
    if called:
        assert (called, argument) in running.sessions.calls


def test_every_method_is_called_above() -> None:
    assert {call[0] for call in CALLS} | {"events.unsubscribe"} == METHODS.keys()


async def test_parameters_may_be_left_out(client: Client) -> None:
    await client.raw(b'{"jsonrpc":"2.0","id":"x","method":"session.list"}\n')
    assert [session["name"] for session in (await client.answer("x"))["result"]["sessions"]] == ["alerts"]


async def test_ping_says_who_answers_and_as_what_it_sees_the_caller(client: Client) -> None:
    pong = await client.call("daemon.ping")
    assert pong == {"pid": os.getpid(), "version": "9.9", "protocol": t.PROTOCOL_VERSION, "role": "admin"}


async def test_stop_reaches_the_daemon_and_is_answered(running: Running, client: Client) -> None:
    assert await client.call("daemon.stop") == {"done": True}
    assert running.daemon.stopped.is_set()


async def test_qr_tells_the_code_or_why_there_is_none(running: Running, client: Client) -> None:
    assert (await client.call("session.qr", name="alerts"))["code"] is None
    code = t.QrView(session="alerts", qr="2@secret", number=1, of=6, expires_at=9)
    running.sessions.answers = {"qr": code, "status": view(state="pairing")}
    result = await client.call("session.qr", name="alerts")
    assert (result["code"]["qr"], result["session"]["state"]) == ("2@secret", "pairing")
    assert "secret" not in repr(code)


async def test_events_are_listed_from_a_cursor(running: Running, client: Client) -> None:
    for number in range(4):
        running.sessions.log.append(number=number)
    page = await client.call("events.list", since=1, limit=2)
    assert [event["cursor"] for event in page["events"]] == [2, 3]
    assert (page["oldest"], page["last"]) == (1, 4)


BAD_PARAMS: list[tuple[str, dict[str, Any], str | None]] = [
    ("session.status", {}, "name"),
    ("session.status", {"name": ""}, "name"),
    ("session.status", {"name": 5}, "name"),
    ("session.status", {"name": "x" * 65}, "name"),
    ("session.status", {"name": "alerts", "verbose": True}, "verbose"),
    ("session.list", {"all": True}, "all"),
    ("message.send", {"session": "alerts", "to": "house", "text": "x"}, "to"),
    ("message.send", {"session": "alerts", "to": "0555000000", "text": "x"}, "to"),
    ("message.send", {"session": "alerts", "to": "15550000002"}, "text"),
    ("message.send", {"session": "alerts", "to": "15550000002", "text": "x", "mentions": ["me"]}, "mentions"),
    ("message.send", {"session": "alerts", "to": "15550000002", "text": "x", "mentions": [""]}, "mentions"),
    (
        "message.send",
        {"session": "alerts", "to": "15550000002", "text": "x", "idempotencyKey": "k" * 129},
        "idempotencyKey",
    ),
    ("message.wait", {"session": "alerts", "messageId": "A", "state": "queued"}, "state"),
    ("message.wait", {"session": "alerts", "messageId": "A", "timeout": 0}, "timeout"),
    ("message.wait", {"session": "alerts", "messageId": "A", "timeout": 86_401}, "timeout"),
    ("message.list", {"session": "alerts", "limit": 501}, "limit"),
    ("message.list", {"session": "alerts", "before": -1}, "before"),
    ("message.list", {"session": "alerts", "chat": "nobody"}, "chat"),
    ("message.read", {"session": "alerts", "chat": "15550000002", "ids": []}, "ids"),
    ("message.read", {"session": "alerts", "chat": "15550000002", "ids": ["A"] * 257}, "ids"),
    ("auth.backup", NAME, "recipients"),
    ("auth.backup", {**NAME, "recipients": ["age1x"], "passphrase": "x"}, "recipients"),
    ("auth.backup", {**NAME, "recipients": ["age1x"] * 65}, "recipients"),
    ("auth.backup", {**NAME, "passphrase": ""}, "passphrase"),
    ("auth.fetch", {"id": "../../etc/passwd"}, "id"),
    ("auth.fetch", {"id": FILE, "offset": -1}, "offset"),
    ("auth.upload", {"data": "no base64"}, "data"),
    ("auth.upload", {"data": "A" * 4 * (t.MAX_PART // 3 + 1)}, "data"),
    ("auth.restore", {"id": FILE, "sha256": "zz"}, "sha256"),
    ("auth.restore", {"id": FILE, "mode": "keep"}, "mode"),
    ("auth.restore_seal", {**NAME, "epoch": -1, "version": 1}, "epoch"),
    ("auth.verify", {**NAME, "level": 0}, "level"),
    ("auth.verify", {**NAME, "level": 5}, "level"),
    ("repair.run", NAME, "action"),
    ("repair.run", {**NAME, "action": "magic"}, "action"),
    ("repair.run", {**NAME, "action": "drop-session"}, "target"),
    ("repair.run", {**NAME, "action": "drop-session", "target": "house"}, "target"),
    ("repair.run", {**NAME, "action": "upload-prekeys", "target": "15550000002"}, "target"),
    ("repair.run", {**NAME, "action": "reset-sender-key", "target": ""}, "target"),
    ("outbox.list", {"session": "alerts", "states": ["read"]}, "states"),
    ("outbox.list", {"session": "alerts", "limit": 501}, "limit"),
    ("outbox.release", {"session": "alerts"}, "ids"),
    ("outbox.release", {"session": "alerts", "ids": []}, "ids"),
    ("outbox.release", {"session": "alerts", "ids": ["A"], "all": True}, "ids"),
    ("outbox.cancel", {"session": "alerts"}, "ids"),
    ("outbox.cancel", {"session": "alerts", "ids": ["A"] * 257}, "ids"),
    ("events.list", {"since": 2**63}, "since"),
    ("events.subscribe", {"types": ["x"] * 65}, "types"),
    ("events.unsubscribe", {"subscription": 3}, "subscription"),
]


@pytest.mark.parametrize(("method", "params", "param"), BAD_PARAMS)
async def test_a_bad_parameter_is_named(
    running: Running, client: Client, method: str, params: dict[str, Any], param: str
) -> None:
    with pytest.raises(Refused) as refused:
        await client.call(method, **params)
    assert (refused.value.symbol, refused.value.code, refused.value.data["param"]) == (
        "bad_params",
        -32602,
        param,
    )
    assert running.sessions.calls == []


@pytest.mark.parametrize("method", ["session.disconnect", "session.status", "session.qr"])
async def test_a_session_nobody_has_is_named(client: Client, method: str) -> None:
    with pytest.raises(Refused, match="'nobody'") as refused:
        await client.call(method, name="nobody")
    assert (refused.value.symbol, refused.value.data["name"]) == ("no_such_session", "nobody")


@pytest.mark.parametrize("symbol", t.ERRORS)
async def test_every_refusal_of_the_sessions_reaches_the_caller(
    running: Running, client: Client, symbol: t.Symbol
) -> None:
    running.sessions.raises["connect"] = ControlError(symbol, "this and that", {"fact": 7})
    answer = await client.answer(await client.post("session.connect", name="alerts"))
    assert answer["error"] == {
        "code": t.ERRORS[symbol].code,
        "message": "this and that",
        "data": {"symbol": symbol, "fact": 7},
    }


async def test_a_refusal_inside_a_nursery_is_a_refusal(running: Running, client: Client) -> None:
    inner = ControlError("lease_held", "another process has it")
    running.sessions.raises["connect"] = ExceptionGroup("nursery", [ExceptionGroup("inner", [inner])])
    with pytest.raises(Refused, match="another process"):
        await client.call("session.connect", name="alerts")


def test_symbols_and_numbers_are_one_to_one() -> None:
    assert len(t.SYMBOL_OF_CODE) == len(t.ERRORS)
    assert {t.ERRORS[symbol].exit for symbol in t.ERRORS} <= {1, 2, 3, 4, 5, 6, 7}


async def test_wait_ends_at_its_time_out(running: Running, client: Client, autojump_clock: Any) -> None:
    with running.sessions.block("wait"), pytest.raises(Refused) as refused:
        await client.call("message.wait", session="alerts", messageId="3EB0A1", state="read", timeout=20)
    assert (refused.value.symbol, refused.value.data["messageId"]) == ("timeout", "3EB0A1")
    assert running.sessions.cancelled == ["wait"]
