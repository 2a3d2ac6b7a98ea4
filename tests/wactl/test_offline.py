"""The store without a daemon, by way of a process that answers as one."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from wactl.failure import Failure
from wactl.offline import StoreClient, daemon_or_store
from waD.control import types as t
from waD.store.store import StoreSettings, open_store


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "waD.toml"
    path.write_text(f"[store]\npath = '{tmp_path}/state/waD.db'\n")
    return path


async def make_store(config: Path, *names: str) -> None:
    async with open_store(StoreSettings(path=config.parent / "state" / "waD.db")) as store:
        for name in names:
            await store.create_session(name)
            row = await store.session(name)
            assert row is not None
            await store.update_session(row.id, desired_state="up")


@pytest.fixture
def client(config: Path) -> Iterator[StoreClient]:
    trio.run(make_store, config, "alerts", "shop")
    with StoreClient.start(config) as opened:
        assert isinstance(opened, StoreClient)
        yield opened


def test_it_answers_as_a_daemon_does_and_connects_nobody(client: StoreClient) -> None:
    listed = client.ask("session.list", t.SessionList).sessions
    assert [(one.name, one.state, one.desired) for one in listed] == [
        ("alerts", "new", "up"),
        ("shop", "new", "up"),
    ]
    found = client.ask("auth.verify", t.VerifyResult, t.VerifyParams(name="alerts"))
    assert [note.code for note in found.verdict.errors] == ["not_paired"]
    assert client.ask("session.status", t.SessionView, t.SessionParams(name="alerts")).state == "new"


@pytest.mark.parametrize("method", ["daemon.info", "daemon.check", "daemon.reload", "config.show"])
def test_there_is_no_daemon_to_ask(client: StoreClient, method: str) -> None:
    with pytest.raises(Failure, match="no daemon runs"):
        client.call(method)


def test_the_store_is_free_again_when_the_client_has_hung_up(client: StoreClient, config: Path) -> None:
    with pytest.raises(Failure, match="stop that process") as refused:
        StoreClient.start(config)
    assert refused.value.exit == t.EXIT_UNREACHABLE
    client.close()
    with StoreClient.start(config) as again:
        assert len(again.ask("session.list", t.SessionList).sessions) == 2


def test_the_process_is_killed(client: StoreClient) -> None:
    pid = client.ask("daemon.ping", t.Pong).pid
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(Failure, match="what has the store is gone"):
        client.ask("session.list", t.SessionList)


def test_a_database_is_made_only_when_that_is_wanted(config: Path) -> None:
    with pytest.raises(Failure, match="there is no database") as refused:
        daemon_or_store(None, config, offline=False)
    assert refused.value.exit == t.EXIT_REFUSED
    assert not (config.parent / "state").exists()
    with daemon_or_store(None, config, offline=False, create=True) as made:
        assert made.ask("session.list", t.SessionList).sessions == []
    path = config.parent / "state" / "waD.db"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_socket_that_was_named_is_not_replaced_by_a_store(config: Path) -> None:
    with pytest.raises(Failure, match="no daemon at") as refused:
        daemon_or_store(config.parent / "no.sock", None, offline=False)
    assert refused.value.exit == t.EXIT_UNREACHABLE
