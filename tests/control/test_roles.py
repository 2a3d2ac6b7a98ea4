"""Who may do what."""

from __future__ import annotations

import grp
import os
import pwd
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.control.client import Client, Refused, serving
from waD.control.methods import METHODS
from waD.control.peers import Peer, RoleTable, UnknownAccount, peer_of
from waD.control.settings import ControlSettings, Limits, Roles
from waD.control.types import ROLE_RANK, Role

ME = os.geteuid()
ROLES = Roles(admin=("4001",), operator=("4002", "@5002"), observer=("4003", "@5003"))
ADMIN, OPERATOR, OBSERVER = (Peer(1, uid, frozenset()) for uid in (4001, 4002, 4003))
STRANGER = Peer(1, 4004, frozenset({4004}))
ARGUMENTS: dict[str, dict[str, Any]] = {
    "session": {"name": "alerts"},
    "message.send": {"session": "alerts", "to": "15550000002", "text": "x"},
    "message.wait": {"session": "alerts", "messageId": "A"},
    "message.list": {"session": "alerts"},
    "message.read": {"session": "alerts", "chat": "15550000002", "ids": ["A"]},
    "outbox.list": {"session": "alerts"},
    "outbox.release": {"session": "alerts", "all": True},
    "outbox.cancel": {"session": "alerts", "ids": ["A"]},
    "events.unsubscribe": {"subscription": 1},
    "auth.backup": {"name": "alerts", "recipients": ["age1x"]},
    "auth.fetch": {"id": "0" * 32},
    "auth.discard": {"id": "0" * 32},
    "auth.upload": {"data": "AAAA"},
    "auth.restore": {"id": "0" * 32},
    "auth.seals": {"name": "alerts"},
    "auth.restore_seal": {"name": "alerts", "epoch": 1, "version": 1},
    "auth.unretire": {"name": "alerts"},
    "auth.compare": {"id": "0" * 32, "name": "alerts"},
    "auth.verify": {"name": "alerts"},
    "repair.list": {"name": "alerts"},
    "repair.run": {"name": "alerts", "action": "drop-damaged"},
    "storage": {"name": "alerts"},
    "message.purge": {"session": "alerts", "before": 1},
}


def arguments(method: str) -> dict[str, Any]:
    if method in ("session.list", "storage.keys"):
        return {}
    return ARGUMENTS.get(method) or ARGUMENTS.get(method.split(".")[0], {})


@pytest.mark.parametrize(
    ("peer", "role"),
    [
        (Peer(1, 0, frozenset()), "admin"),
        (Peer(1, 700, frozenset()), "admin"),
        (ADMIN, "admin"),
        (OPERATOR, "operator"),
        (OBSERVER, "observer"),
        (Peer(1, 9, frozenset({8, 5003})), "observer"),
        (Peer(1, 9, frozenset({5003, 5002})), "operator"),
        (Peer(1, 4003, frozenset({5002})), "operator"),
        (Peer(1, 5002, frozenset()), None),
        (Peer(1, 9, frozenset({4001, 0})), None),
        (STRANGER, None),
    ],
)
def test_the_highest_role_counts(peer: Peer, role: Role | None) -> None:
    assert RoleTable.resolve(ROLES, owner=700).role_of(peer) == role


def test_somebody_listed_twice_has_the_higher_role() -> None:
    table = RoleTable.resolve(Roles(admin=("7",), observer=("7",)), owner=700)
    assert table.role_of(Peer(1, 7, frozenset())) == "admin"


def test_names_are_looked_up() -> None:
    table = RoleTable.resolve(Roles(operator=("root", "@" + grp.getgrgid(0).gr_name)), owner=700)
    assert (table.users, table.groups) == ({pwd.getpwnam("root").pw_uid: "operator"}, {0: "operator"})


@pytest.mark.parametrize("entry", ["nosuchuser-x", "@nosuchgroup-x", "", "@", "-1"])
def test_a_name_nobody_has_is_refused_with_its_setting(entry: str) -> None:
    with pytest.raises(UnknownAccount, match=r"\[control.roles\] operator"):
        RoleTable.resolve(Roles(operator=(entry,)))


def test_the_kernel_vouches_for_the_peer() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        peer = peer_of(ours)
    assert (peer.pid, peer.uid) == (os.getpid(), os.geteuid())
    assert peer.groups == {os.getegid(), *os.getgroups()}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("peer", [ADMIN, OPERATOR, OBSERVER], ids=["admin", "operator", "observer"])
async def test_each_method_asks_for_its_role(tmp_path: Path, method: str, peer: Peer) -> None:
    async with serving(tmp_path, ControlSettings(ROLES)) as running:
        running.peer = peer
        async with running.client() as client:
            role = (await client.call("daemon.ping"))["role"]
            needs = METHODS[method].needs
            if method == "events.unsubscribe":
                await client.call("events.subscribe")
            if ROLE_RANK[role] >= ROLE_RANK[needs]:
                await client.call(method, **arguments(method))
                return
            with pytest.raises(Refused) as refused:
                await client.call(method, **arguments(method))
            assert (refused.value.code, refused.value.data["needs"]) == (-32001, needs)
            assert running.sessions.calls == []


def test_nothing_that_changes_anything_is_for_observers() -> None:
    assert {
        row.name for row in METHODS.values() if row.kind == "command" and row.needs == "observer"
    } == set()


@pytest.mark.parametrize("method", [*METHODS, "daemon.explode"])
async def test_a_stranger_is_told_why_and_let_go(tmp_path: Path, method: str) -> None:
    async with serving(tmp_path, ControlSettings(ROLES)) as running:
        running.peer = STRANGER
        async with running.client() as client:
            with pytest.raises(Refused, match=r"control\.roles") as refused:
                await client.call(method, **arguments(method))
            assert refused.value.symbol == "not_permitted"
            assert await client.read() is None
        assert running.sessions.calls == []


@pytest.mark.parametrize("line", [b"garbage\n", b"garbage", b"", b"[]\n", b"x" * (1 << 21)])
async def test_a_stranger_who_talks_nonsense_gets_no_further(tmp_path: Path, line: bytes) -> None:
    async with serving(tmp_path, ControlSettings(ROLES)) as running:
        running.peer = STRANGER
        async with running.client() as client:
            try:
                await client.raw(line)
                await client.stream.send_eof()
            except Exception:  # it was cut off in the middle of its megabytes
                assert len(line) > 1 << 20
            answer = await client.read()
            if answer is not None:
                assert answer["error"]["data"]["symbol"] in ("parse_error", "invalid_request")
            assert await client.read() is None


async def test_a_stranger_who_says_nothing_is_let_go(tmp_path: Path, autojump_clock: Any) -> None:
    async with serving(tmp_path, ControlSettings(ROLES)) as running:
        running.peer = STRANGER
        async with running.client() as client:
            assert await client.read() is None


async def test_observers_see_that_there_is_a_code_but_not_the_code(tmp_path: Path) -> None:
    async with serving(tmp_path, ControlSettings(ROLES)) as running:
        running.sessions.log.append("connection:qr", qr="2@secret")
        for peer, data in ((OBSERVER, {}), (OPERATOR, {"qr": "2@secret"})):
            running.peer = peer
            async with running.client() as client:
                assert (await client.call("events.list"))["events"][0]["data"] == data
                await client.call("events.subscribe", since=0)
                assert (await client.notice())["params"]["event"]["data"] == data


async def _role(client: Client) -> str:
    role: str = (await client.call("daemon.ping"))["role"]
    return role


async def test_new_roles_are_in_force_at_once(tmp_path: Path) -> None:
    async with serving(tmp_path, ControlSettings(ROLES)) as running:
        running.peer = OPERATOR
        async with running.client() as operator:
            running.peer = OBSERVER
            async with running.client() as observer:
                assert (await _role(operator), await _role(observer)) == ("operator", "observer")
                with pytest.raises(UnknownAccount):
                    running.server.reconfigure(ControlSettings(Roles(admin=("nosuchuser-x",))))
                assert (await _role(operator), await _role(observer)) == ("operator", "observer")
                running.server.reconfigure(ControlSettings(Roles(observer=("4002",)), Limits()))
                assert await _role(operator) == "observer"
                assert await observer.read() is None
