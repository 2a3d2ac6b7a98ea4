"""Notifications: each acked once, and what they mean for keys and identities."""

from __future__ import annotations

import os

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.messaging.accounts import OWN_LID, OWN_PN
from tests.messaging.inbound_helpers import (
    ANN_LID,
    ANN_PN,
    BOB_LID,
    Peer,
    Receiver,
    T,
    answer,
    hostile,
    introduce,
    of_kind,
    our_bundle,
    receiving,
    shapes,
)
from waD.e2ee import groups
from waD.e2ee.address import SignalAddress
from waD.link import acks
from waD.messaging import kinds
from waD.messaging.appstate.stored import Head
from waD.messaging.context import Context
from waD.messaging.devices import Devices
from waD.messaging.notifications import Notifications
from waD.messaging.reaction import (
    CheckDigest,
    FetchDevices,
    Reaction,
    RefreshSession,
    SyncAppState,
    TopUpPreKeys,
)
from waD.store.unit import Unit
from waD.wire.jid import SERVER, STATUS
from waD.wire.node import Node, Value


class Lists(Devices):
    """Device lists that only note which notifications they get."""

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx)
        self.seen: list[Node] = []

    async def apply_notification(self, stanza: Node, unit: Unit) -> Reaction:
        self.seen.append(stanza)
        reaction = Reaction()
        reaction.add(acks.ack(stanza))
        return reaction


class Receiving(Receiver):
    """Takes notifications beside messages."""

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx)
        self.lists = Lists(ctx)
        self.notifications = Notifications(ctx, self.lists)

    async def handle(self, stanza: Node, unit: Unit) -> Reaction:
        if stanza.tag == "message":
            return await self.inbound.message(stanza, unit)
        return await self.notifications.notification(stanza, unit)


@pytest.fixture
def receiver(ctx: Context) -> Receiving:
    return Receiving(ctx)


def note(kind: str | None, *children: Node, source: Value = ANN_LID, **attrs: Value) -> Node:
    fields: dict[str, Value] = {"id": "N1", "from": source, "t": str(T)} | attrs
    return Node("notification", fields | ({"type": kind} if kind else {}), list(children))


async def test_the_server_has_newer_collections(receiver: Receiving, ctx: Context) -> None:
    unit = ctx.state.unit()
    for name in ("regular", "regular_low", "regular_high"):
        unit.put(kinds.APP_STATE_VERSION, name, Head(version=5, hash=bytes(128), macs={}).serialize())
    unit.put(kinds.APP_STATE_VERSION, "critical_block", b"[]")
    await ctx.state.commit(unit)
    told = [
        Node("collection", attrs)
        for attrs in (
            {"name": "regular", "version": "5"},
            {"name": "regular_low", "version": "6"},
            {"name": "regular_high"},
            {"name": "critical_block", "version": "1"},
            {"name": "critical_unblock_low", "version": "1"},
            {"name": "unknown", "version": "1"},
            {},
        )
    ]
    reaction = await receiver.take(note("server_sync", *told, source=SERVER))
    assert shapes(reaction.answers) == [("ack", "server_sync")]
    assert reaction.work == [
        SyncAppState(("critical_block", "critical_unblock_low", "regular_high", "regular_low"))
    ]
    for stanza in (note("server_sync", *told), note("server_sync", told[0], source=SERVER)):
        assert (await receiver.take(stanza)).work == []


@pytest.mark.parametrize("kind", ["w:growth", "picture", "psa", None, "registration", "account_sync"])
async def test_what_needs_nothing_is_acked(receiver: Receiving, kind: str | None) -> None:
    node = note(kind, Node("x"), participant=BOB_LID)
    reaction = await receiver.take(node)
    wanted = {"class": "notification", "id": "N1", "to": ANN_LID, "participant": BOB_LID}
    assert [one.attrs for one in reaction.answers] == [wanted | ({"type": kind} if kind else {})]
    assert reaction.work == []
    assert await receiver.events() == []


@pytest.mark.parametrize("node", [note("devices", Node("add")), note("account_sync", Node("devices"))])
async def test_device_lists_have_a_keeper(receiver: Receiving, node: Node) -> None:
    assert shapes((await receiver.take(node)).answers) == [("ack", node.attrs["type"])]
    assert receiver.lists.seen == [node]


@pytest.mark.parametrize(("child", "work"), [("count", TopUpPreKeys()), ("digest", CheckDigest())])
async def test_own_keys(receiver: Receiving, child: str, work: object) -> None:
    reaction = await receiver.take(note("encrypt", Node(child, {"value": "3"}), source="s.whatsapp.net"))
    assert reaction.work == [work]
    assert shapes(reaction.answers) == [("ack", "encrypt")]


async def test_the_own_name(receiver: Receiving, ctx: Context) -> None:
    await receiver.take(note("account_sync", source=BOB_LID, pushname="Mallory"))
    assert ctx.account.creds.push_name == "Alerts"
    await receiver.take(note("account_sync", source=OWN_PN.account, pushname="New\x00 Name"))
    assert ctx.account.creds.push_name == "New Name"


class TestIdentity:
    @pytest.fixture
    async def ann(self, ctx: Context, receiver: Receiving) -> Peer:
        """A contact whose phone we talk with."""
        peer = Peer(ANN_LID)
        await introduce(ctx, peer)
        await receiver.take(peer.text("hello"))
        await answer(ctx, peer)
        await receiver.events()
        return peer

    def changed(self, source: Value = ANN_LID, **attrs: Value) -> Node:
        return note("encrypt", Node("identity"), source=source, **attrs)

    async def session_keys(self, ctx: Context) -> dict[str, bool]:
        """Address of each record, and whether it has a current session."""
        found = {}
        for key in await ctx.state.all_items(kinds.SESSION):
            record = await ctx.records.session(SignalAddress.parse(key))
            assert record is not None
            found[key] = record.current is not None
        return found

    async def test_sessions_are_archived_and_the_event_comes_once(
        self, receiver: Receiving, ann: Peer, ctx: Context
    ) -> None:
        companion = Peer(ANN_LID.with_device(4))
        await introduce(ctx, companion)
        await receiver.take(companion.text("x"))
        await receiver.events()
        late = ann.text("sent before")
        reaction = await receiver.take(self.changed())
        assert [one.attrs for one in reaction.answers] == [
            {"class": "notification", "id": "N1", "to": ANN_LID}
        ]
        assert reaction.work == [RefreshSession(ANN_LID)]
        assert set((await self.session_keys(ctx)).values()) == {False}
        await receiver.take(self.changed())
        events = await receiver.events()
        assert [(event.type, event.data) for event in events] == [
            ("identity:changed", {"user": str(ANN_LID), "implicit": False})
        ]
        assert shapes((await receiver.take(late)).answers) == [("receipt", None)]

    async def test_the_proof_is_not_a_second_change(
        self, receiver: Receiving, ann: Peer, ctx: Context
    ) -> None:
        await receiver.take(self.changed())
        fresh = Peer(ANN_LID)
        fresh.sent = 50
        fresh.start(await our_bundle(ctx, 5000))
        await receiver.take(fresh.text("new phone"))
        events = [event for event in await receiver.events() if event.type == "identity:changed"]
        assert len(events) == 1
        address = await ctx.addresses.signal_address(ANN_LID)
        assert await ctx.records.identity(address) == fresh.local.identity.public

    async def test_what_a_companion_showed_is_told_once(
        self, receiver: Receiving, ann: Peer, ctx: Context
    ) -> None:
        """First its companions sign by another account key, then the server says so, then the phone proves it."""
        fresh = Peer(ANN_LID)
        fresh.sent = 50
        companions = [Peer(ANN_LID.with_device(number), fresh.local.identity) for number in (3, 4)]
        await introduce(ctx, *companions)
        await receiver.take(ann.text("the old phone"))
        for companion in companions:
            await receiver.take(companion.text("x"))
        await receiver.take(self.changed())
        fresh.start(await our_bundle(ctx, 5000))
        await receiver.take(fresh.text("the new phone"))
        events = [event for event in await receiver.events() if event.type == "identity:changed"]
        assert [event.data for event in events] == [{"user": str(ANN_LID), "implicit": True}]

    async def test_a_notification_after_the_proof(self, receiver: Receiving, ann: Peer, ctx: Context) -> None:
        fresh = Peer(ANN_LID)
        fresh.sent = 50
        fresh.start(await our_bundle(ctx, 5000))
        await receiver.take(fresh.text("new phone"))
        reaction = await receiver.take(self.changed())
        assert reaction.work == []
        events = [event for event in await receiver.events() if event.type == "identity:changed"]
        assert [event.data["implicit"] for event in events] == [True]
        assert (await self.session_keys(ctx))[f"{ANN_LID.user}_1.0"]
        await receiver.take(self.changed(t=str(T + 60)))
        assert len(await receiver.events()) == 1

    async def test_by_number_with_the_lid_beside(self, receiver: Receiving, ann: Peer, ctx: Context) -> None:
        reaction = await receiver.take(self.changed(ANN_PN, lid=ANN_LID))
        assert len(of_kind(reaction.work, RefreshSession)) == 1
        assert set((await self.session_keys(ctx)).values()) == {False}
        (event,) = await receiver.events()
        assert event.data["user"] == str(ANN_LID)

    async def test_device_list_and_status_key_go(self, receiver: Receiving, ann: Peer, ctx: Context) -> None:
        async with ctx.state.lock:
            unit = ctx.state.unit()
            unit.put(kinds.DEVICES, str(ANN_LID), b'"list"')
            own = SignalAddress(OWN_LID.user, 1, OWN_LID.device)
            ctx.records.put_sender_key(unit, STATUS, own, groups.create(os.urandom))
            await ctx.state.commit(unit)
        await receiver.take(self.changed())
        assert await ctx.state.all_items(kinds.DEVICES) == {}
        assert await ctx.state.all_items(kinds.SENDER_KEY) == {}

    @pytest.mark.parametrize(
        "source",
        [OWN_LID, OWN_PN.account, ANN_LID.with_device(4), "garbage", "s.whatsapp.net", "1_1@lid", BOB_LID],
    )
    async def test_who_is_not_meant(
        self, receiver: Receiving, ann: Peer, ctx: Context, source: Value
    ) -> None:
        reaction = await receiver.take(self.changed(source))
        assert [one.tag for one in reaction.answers] == ["ack"]
        assert reaction.work == []
        assert await receiver.events() == []
        assert all((await self.session_keys(ctx)).values())

    async def test_a_conflicting_lid_asks_the_server(
        self, receiver: Receiving, ann: Peer, ctx: Context
    ) -> None:
        await receiver.take(self.changed(ANN_PN, lid=ANN_LID))
        reaction = await receiver.take(self.changed(ANN_PN, lid=BOB_LID))
        assert FetchDevices((ANN_PN,)) in reaction.work


@settings(max_examples=25)
@given(st.lists(hostile("notification"), min_size=1, max_size=30))
def test_no_notification_is_too_much(nodes: list[Node]) -> None:
    async def scenario() -> None:
        async with receiving() as plain:
            receiver = Receiving(plain.ctx)
            receiver.notifications = Notifications(plain.ctx, Devices(plain.ctx))
            for node in nodes:
                answers = (await receiver.take(node)).answers
                answerable = bool(node.attrs.get("id")) and bool(node.attrs.get("from"))
                assert [one.tag for one in answers] == ["ack"] * answerable

    trio.run(scenario)
