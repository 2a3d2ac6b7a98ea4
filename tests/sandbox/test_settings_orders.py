"""The app state of a phone by admin API: what a change says, and what is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import trio

from tests.sandbox.core_client import CoreClient
from tests.sandbox.test_messages import ALICE, BOB
from waD.sandbox import Sandbox, run_sandbox
from waD.sandbox.admin import Admin
from waD.sandbox.httpd import HttpRequest

HERE = f"/admin/phones/{ALICE}"


class Api:
    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self._admin = Admin(sandbox)

    async def __call__(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        data = b"" if body is None else msgspec.json.encode(body)
        answer = await self._admin.answer(HttpRequest(method, path, {}, data))
        return answer.status, msgspec.to_builtins(answer.payload)


@pytest.fixture
async def api(nursery: trio.Nursery) -> AsyncIterator[Api]:
    async with run_sandbox(port=None, seed=3) as sandbox:
        sandbox.phone(ALICE, "Alice")
        sandbox.phone(BOB, "Bob")
        yield Api(sandbox)


async def test_everything_a_change_may_say(api: Api) -> None:
    sent = await api.sandbox.phone(BOB).send(ALICE, "star me")
    order = {
        "pushName": "Alice of the API",
        "contact": {"other": BOB, "fullName": "Bob the Builder"},
        "chat": BOB,
        "mutedUntilMs": -1,
        "pinned": True,
        "read": False,
        "star": sent.id,
    }
    status, told = await api("POST", f"{HERE}/settings", order)
    assert status == 200
    assert told == {
        "pushName": "Alice of the API",
        "contacts": {BOB: {"fullName": "Bob the Builder", "firstName": "Bob"}},
        "chats": {
            BOB: {
                "mutedUntilMs": -1,
                "pinned": True,
                "archived": False,
                "markedUnread": True,
                "starred": [sent.id],
            }
        },
    }
    assert await api("GET", f"{HERE}/settings") == (200, told)
    undo = {"contact": {"other": BOB}, "chat": BOB, "mutedUntilMs": None, "archived": True, "unstar": sent.id}
    _, told = await api("POST", f"{HERE}/settings", undo)
    assert told["contacts"] == {}
    chat = told["chats"][BOB]
    assert (chat["mutedUntilMs"], chat["pinned"], chat["archived"], chat["starred"]) == (
        None,
        False,
        True,
        [],
    )
    phone = api.sandbox.phone(ALICE)
    assert (phone.contacts, phone.chats[BOB].archived) == ({}, True)


@pytest.mark.parametrize(
    ("order", "status", "reason"),
    [
        ({"pushName": ""}, 400, "not empty"),
        ({"contact": {"other": BOB}}, 404, "no contact entry"),
        ({"chat": "15550000009", "pinned": True}, 404, "no phone"),
        ({"chat": BOB, "star": "nope"}, 404, "no message nope"),
        ({"colour": 1}, 400, "colour"),
    ],
)
async def test_refusals_are_named(api: Api, order: Any, status: int, reason: str) -> None:
    got, told = await api("POST", f"{HERE}/settings", order)
    assert got == status
    assert reason in told["error"]


async def test_a_name_is_changed_by_app_state(api: Api) -> None:
    await api("POST", HERE, {"name": "Alice the Other"})
    _, told = await api("GET", f"{HERE}/settings")
    _, phone = await api("GET", HERE)
    assert told["pushName"] == phone["name"] == "Alice the Other"
    assert phone["appState"]["critical_block"] == 2


async def test_keys_are_shared_again(api: Api) -> None:
    assert (await api("POST", f"{HERE}/share-keys"))[0] == 404
    phone = api.sandbox.phone(ALICE).phone
    client = CoreClient(api.sandbox.core)
    client.start(phone)
    before = len(api.sandbox.device(ALICE).queue)
    assert await api("POST", f"{HERE}/share-keys", {"device": 99}) == (
        404,
        {"error": f"{ALICE} has no companion 99"},
    )
    assert (await api("POST", f"{HERE}/share-keys", {"device": api.sandbox.device(ALICE).id}))[0] == 200
    assert len(api.sandbox.device(ALICE).queue) == before + 1
