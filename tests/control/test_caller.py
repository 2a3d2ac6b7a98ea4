"""Who asked for what a command does, as it is recorded."""

from __future__ import annotations

import os
import pwd
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.control.client import serving
from waD.control import types as t
from waD.control.caller import NOBODY, called_by, caller
from waD.control.peers import Peer
from waD.control.settings import ControlSettings, Roles

ME = os.geteuid()
NAMELESS = 4_001_001


async def test_a_user_by_name_and_number() -> None:
    assert await caller() == NOBODY
    with called_by(ME):
        assert await caller() == f"{pwd.getpwuid(ME).pw_name} (uid {ME})"
        with called_by(NAMELESS):
            assert await caller() == f"uid {NAMELESS}"
        assert str(ME) in await caller()
    assert await caller() == NOBODY


async def test_a_directory_that_does_not_answer_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    never = trio.Event()

    async def hang(*_: Any, **__: Any) -> None:
        await never.wait()

    monkeypatch.setattr("waD.control.caller.LOOKUP_S", 0.01)
    monkeypatch.setattr("trio.to_thread.run_sync", hang)
    with called_by(ME):
        assert await caller() == f"uid {ME}"


async def test_each_command_knows_its_own_peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when several of different users are at work at the same time."""
    asked: list[tuple[str, str]] = []
    settings = ControlSettings(Roles(admin=(str(NAMELESS), str(NAMELESS + 1))))
    async with serving(tmp_path, settings) as running:
        purge = running.sessions.purge

        async def note(order: t.PurgeParams) -> t.PurgeResult:
            before = await caller()
            done = await purge(order)
            asked.append((before, await caller()))
            return done

        monkeypatch.setattr(running.sessions, "purge", note)
        params: dict[str, Any] = {"session": "alerts", "before": 5}
        async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
            go = stack.enter_context(running.sessions.block("purge"))
            for count, uid in enumerate((NAMELESS, NAMELESS + 1), 1):
                running.peer = Peer(1, uid, frozenset())
                client = await stack.enter_async_context(running.client())
                nursery.start_soon(partial(client.call, "message.purge", **params))
                await running.sessions.entered("purge", count)
            go.set()
    assert sorted(asked) == [(f"uid {uid}", f"uid {uid}") for uid in (NAMELESS, NAMELESS + 1)]
