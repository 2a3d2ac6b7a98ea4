"""Whatever the server or anybody behind it writes: it is answered once, and nothing breaks."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.messaging.outbound_helpers import World, bob, make_world
from waD.messaging.reaction import AnswerRetry, FetchDevices
from waD.store.store import StoreSettings, open_store
from waD.wire.jid import JID
from waD.wire.node import Node

PEER = bob((0, 4))
USERS = [PEER.pn.user, PEER.lid.user, "15550000001", "100000000000001", "", "a b", "x.y", "0", "9" * 64, "ü"]
SERVERS = [
    "s.whatsapp.net",
    "lid",
    "hosted",
    "hosted.lid",
    "g.us",
    "broadcast",
    "newsletter",
    "bot",
    "nowhere",
]
ADDRESSES = st.builds(
    JID, st.sampled_from(USERS), st.sampled_from(SERVERS), st.sampled_from([0, 1, 4, 7, 99, 300, 65535])
)
TEXTS = st.sampled_from(
    ["", "0", "1", "2", "4", "5", "-1", "x", "true", "400", "406", "463", "503", "2:AAAAAAAA", "9" * 30, "ID"]
)
VALUES = st.one_of(ADDRESSES, TEXTS)
ATTRS = st.dictionaries(
    st.sampled_from(
        ["id", "from", "participant", "recipient", "type", "t", "error", "phash", "count", "hash", "ts", "jid",
         "key-index", "lid", "category", "refresh_lid", "device_hash", "device_lid_hash", "dhash"]
    ),
    VALUES,
    max_size=8,
)  # fmt: skip
TAGS = st.sampled_from(
    ["retry", "keys", "registration", "identity", "type", "skey", "key", "id", "value", "signature", "add",
     "remove", "update", "device", "devices", "key-index-list", "device-identity", "list", "item"]
)  # fmt: skip
NODES = st.recursive(
    st.builds(Node, TAGS, ATTRS, st.one_of(st.none(), st.binary(max_size=70))),
    lambda inner: st.builds(Node, TAGS, ATTRS, st.lists(inner, max_size=4)),
    max_leaves=8,
)
STANZAS = st.builds(
    Node, st.sampled_from(["ack", "receipt", "notification"]), ATTRS, st.lists(NODES, max_size=4)
)


async def one(world: World, message_id: str, stanza: Node) -> None:
    if stanza.attrs.get("id") == "ID":
        stanza.attrs["id"] = message_id
    handlers: dict[str, Any] = {
        "ack": world.outbound.acked,
        "receipt": world.retries.asked,
        "notification": world.devices.apply_notification,
    }
    reaction = await world.lane(handlers[stanza.tag], stanza)
    answered = bool(stanza.attrs.get("id")) and bool(stanza.attrs.get("from"))
    assert len(reaction.answers) == (stanza.tag != "ack" and answered)
    for work in reaction.work:
        match work:
            case AnswerRetry():
                await world.retries.answer(work, world.server)
            case FetchDevices(users):
                await world.devices.refresh(users, world.server)
            case _:
                raise AssertionError(work)


async def play(stanzas: list[Node], directory: Path) -> None:
    async with open_store(StoreSettings(path=directory / "waD.db")) as store:
        world = await make_world(store)
        peer = world.server.add(bob((0, 4)))
        async with world.pumping():
            message_id = await world.sent("one", peer.pn)
        for stanza in stanzas:
            await one(world, message_id, stanza)
        # A person whose devices were taken away, by whoever may say so, is asked for again.
        world.server.acks = lambda node: {}
        async with world.pumping():
            await world.sent("two", peer.pn)
        assert peer.texts()[-1] == "two"


@settings(
    max_examples=60, suppress_health_check=[*settings().suppress_health_check, HealthCheck.data_too_large]
)
@given(st.lists(STANZAS, min_size=5, max_size=25))
def test_hostile_stanzas(stanzas: list[Node]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        trio.run(play, stanzas, Path(directory))
