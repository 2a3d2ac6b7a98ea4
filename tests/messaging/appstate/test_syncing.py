"""Fetching the collections: first sync, news, pages, keys that come late, faults and their bounds."""

from __future__ import annotations

import os

import pytest
import trio
from msgspec import structs
from trio.testing import MockClock

from tests.link.requester import refusal
from tests.messaging.appstate.cloud import KEY, OTHER, T_MS, Client, Cloud
from tests.messaging.appstate.conftest import Running, settled
from waD.e2ee.syncd.patches import COLLECTIONS, CollectionState, SyncdPatch
from waD.link.infos import Dirty
from waD.messaging import kinds
from waD.messaging.appstate.stored import Head, decode_part, index_text
from waD.messaging.appstate.syncing import ResyncFailed
from waD.messaging.context import Context
from waD.messaging.reaction import SyncAppState
from waD.proto.appstate_pb2 import SyncActionData, SyncActionValue
from waD.wire.node import Node


def spoil(cloud: Cloud, name: str, version: int, **fields: bytes) -> None:
    """Change a stored patch."""
    patch = SyncdPatch.FromString(cloud.shelves[name].patches[version - 1])
    for field, value in fields.items():
        setattr(patch, field, value)
    cloud.shelves[name].patches[version - 1] = patch.SerializeToString()


async def test_the_first_sync_asks_for_all_at_once(
    client: Client, cloud: Cloud, running: Running, clock: MockClock
) -> None:
    cloud.rename("Ann's phone")
    cloud.pin("a@s.whatsapp.net")
    cloud.pin("b@s.whatsapp.net")
    cloud.contacts(40)
    async with running():
        assert cloud.asked == [dict.fromkeys(COLLECTIONS, 0)]
        assert set(cloud.wants_snapshot[0].values()) == {"true"}
        for name in ("critical_block", "regular_low", "critical_unblock_low"):
            assert await client.agrees(name)
        assert client.ctx.account.creds.push_name == "Ann's phone"
        assert client.ctx.state.row.name == "alerts"
        assert client.renamed == ["Ann's phone"]
    row = await client.ctx.state._store.session(client.ctx.state.session_id)
    assert row is not None
    assert row.push_name == "Ann's phone"


async def test_the_next_login_asks_from_where_it_stands(
    client: Client, cloud: Cloud, running: Running, clock: MockClock
) -> None:
    cloud.pin("a@s.whatsapp.net")
    async with running():
        pass
    before = await client.items()
    async with running():
        assert cloud.asked[1] == {**dict.fromkeys(COLLECTIONS, 0), "regular_low": 1}
        assert cloud.wants_snapshot[1]["regular_low"] == "false"
        assert len(cloud.asked) == 2
    assert await client.items() == before


async def test_what_an_entry_holds(client: Client, cloud: Cloud, running: Running, clock: MockClock) -> None:
    cloud.pin("a@s.whatsapp.net")
    async with running():
        pass
    ((index, sealed),) = cloud.shelves["regular_low"].entries.items()
    document = (await client.items())[kinds.APP_STATE_ENTRIES, f"regular_low|1|{index[0]:02x}"]
    entry = decode_part(document)[index_text(index)]
    assert (entry.mac, entry.key) == (sealed.record.value.blob[-32:], KEY.hex())
    assert entry.data is not None
    data = SyncActionData.FromString(entry.data)
    assert data.index == b'["pin_v1","a@s.whatsapp.net"]'
    assert (data.version, data.value.pinAction.pinned, data.value.timestamp) == (5, True, T_MS)


async def test_changes_and_removals(client: Client, cloud: Cloud, running: Running, clock: MockClock) -> None:
    cloud.pin("a@s.whatsapp.net")
    cloud.pin("b@s.whatsapp.net")
    async with running():
        cloud.pin("a@s.whatsapp.net")
        cloud.write("regular_low", cloud.sealed(["pin_v1", "b@s.whatsapp.net"], remove=True))
        client.app_state.news(SyncAppState(("regular_low",)))
        await settled(client)
        assert cloud.asked[1:] == [{"regular_low": 2}]
        assert await client.agrees("regular_low")
        assert len(cloud.shelves["regular_low"].entries) == 1
        # The last entry goes: nothing is left but the head.
        cloud.write("regular_low", cloud.sealed(["pin_v1", "a@s.whatsapp.net"], remove=True))
        client.app_state.news(SyncAppState(("regular_low",)))
        await settled(client)
        assert await client.agrees("regular_low")
    assert not [item for item in await client.items() if item[0] == kinds.APP_STATE_ENTRIES]


async def test_one_change_among_many_contacts_rewrites_little(
    client: Client, cloud: Cloud, running: Running, clock: MockClock
) -> None:
    cloud.contacts(2000)
    async with running():
        before = await client.items()
        cloud.contacts(1)
        client.app_state.news(SyncAppState(("critical_unblock_low",)))
        await settled(client)
        assert await client.agrees("critical_unblock_low")
    after = await client.items()
    changed = [item for item, document in after.items() if before.get(item) != document]
    assert len(changed) == 2
    assert sum(len(after[item]) for item in changed) < 8192
    assert len([item for item in after if item[0] == kinds.APP_STATE_ENTRIES]) <= 256
    assert not [item for item in client.ctx.state._cache if item[0] == kinds.APP_STATE_ENTRIES]


async def test_more_patches_than_fit_are_asked_for_at_once(
    client: Client, cloud: Cloud, running: Running, clock: MockClock
) -> None:
    for number in range(7):
        cloud.pin(f"{number}@s.whatsapp.net")
    cloud.page = 3
    async with running():
        assert [one.get("regular_low") for one in cloud.asked] == [0, 3, 6]
        assert await client.agrees("regular_low")


async def test_a_server_that_always_has_more_is_asked_later(
    client: Client, cloud: Cloud, running: Running, clock: MockClock
) -> None:
    cloud.hook = lambda name, version: Node("collection", {"name": name, "has_more_patches": "true"})
    async with running():
        await trio.sleep(10)
    # Alone or with others, in ever longer intervals.
    assert 3 <= len([one for one in cloud.asked if "regular" in one]) <= 5


# ------------------------------------------------------------------------------------------------------------- keys


async def test_a_fresh_pairing_waits_for_its_first_key(
    bare: Client, cloud: Cloud, running: Running, clock: MockClock
) -> None:
    cloud.pin("a@s.whatsapp.net")
    async with running():
        assert cloud.asked == []
        await bare.share(KEY)
        bare.app_state.news(SyncAppState((), keys=True))
        await settled(bare)
        assert len(cloud.asked) == 1
        assert await bare.agrees("regular_low")


async def test_without_a_key_it_asks_all_the_same(
    bare: Client, cloud: Cloud, running: Running, clock: MockClock
) -> None:
    cloud.pin("a@s.whatsapp.net")
    async with running():
        await trio.sleep(11)
        await settled(bare)
        assert len(cloud.asked) == 1
        assert (await bare.head("regular_low")).blocked == [KEY.hex()]


async def test_a_missing_key_blocks_one_collection_until_it_comes(
    client: Client, cloud: Cloud, running: Running, clock: MockClock
) -> None:
    cloud.pin("a@s.whatsapp.net")
    cloud.pin("b@s.whatsapp.net")
    cloud.write("regular_low", cloud.sealed(["pin_v1", "c"], key=OTHER), key=OTHER)
    cloud.pin("a@s.whatsapp.net", "regular")
    async with running():
        head = await client.head("regular_low")
        assert (head.version, head.blocked) == (2, [OTHER.hex()])
        assert await client.agrees("regular")
        await trio.sleep(60)
        await settled(client)
        assert len(cloud.asked) == 1
        await client.share(OTHER)
        client.app_state.news(SyncAppState((), keys=True))
        await settled(client)
        assert cloud.asked[1:] == [{"regular_low": 2}]
        assert await client.agrees("regular_low")
        assert (await client.head("regular_low")).blocked == []


# ------------------------------------------------------------------------------------------------------------ faults


async def test_a_forged_patch_has_the_collection_fetched_anew_twice_a_day(
    ctx: Context,
    client: Client,
    cloud: Cloud,
    running: Running,
    clock: MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    cloud.pin("a@s.whatsapp.net")
    cloud.pin("b@s.whatsapp.net")
    good = list(cloud.shelves["regular_low"].patches)
    async with running():
        cloud.rename("Ann")
        cloud.pin("c@s.whatsapp.net")
        spoil(cloud, "regular_low", 3, patchMac=bytes(32))
        client.app_state.news(SyncAppState(("regular_low", "critical_block")))
        await settled(client)
        assert [one["regular_low"] for one in cloud.asked if "regular_low" in one] == [0, 2, 0, 0]
        head = await client.head("regular_low")
        assert (head.disabled, len(head.resyncs)) == ("patch-mac", 2)
        assert "wactl repair" in caplog.text
        # It is left alone from now on, and the others go on.
        client.app_state.news(SyncAppState(COLLECTIONS))
        await settled(client)
        assert "regular_low" not in cloud.asked[-1]
        assert await client.agrees("critical_block")
        # An operator has it fetched anew, when the fault is mended.
        with pytest.raises(ResyncFailed, match="patch-mac"):
            await client.app_state.resync(["regular_low"], cloud.way)
        cloud.shelves["regular_low"].patches = good
        assert await client.app_state.resync(["regular_low"], cloud.way) == 2
    head = await client.head("regular_low")
    assert (head.version, head.disabled, head.resyncs, head.leftover) == (2, "", [], False)
    tables = {key.split("|")[1] for kind, key in await client.items() if kind == kinds.APP_STATE_ENTRIES}
    assert tables - {str(head.table)} == {"1"}  # of critical_block


async def test_what_is_good_of_a_page_stays_and_what_was_there_stays_until_replaced(
    client: Client, cloud: Cloud, running: Running, clock: MockClock
) -> None:
    cloud.pin("a@s.whatsapp.net")
    async with running():
        cloud.pin("b@s.whatsapp.net")
        cloud.hook = lambda name, version: (
            Node("collection", {"name": name, "type": "error"}, [Node("error", {"code": "500"})])
            if name == "regular_low" and version == 0
            else None
        )
        spoil(cloud, "regular_low", 2, snapshotMac=os.urandom(32))
        client.app_state.news(SyncAppState(("regular_low",)))
        await settled(client)
        head = await client.head("regular_low")
        assert (head.version, head.table, head.leftover) == (0, 0, True)
        assert [key for kind, key in await client.items() if kind == kinds.APP_STATE_ENTRIES]


async def test_attempts_that_fail_leave_nothing_behind_but_what_was_whole(
    client: Client, cloud: Cloud, running: Running, clock: MockClock
) -> None:
    async def tables() -> set[str]:
        return {key.split("|")[1] for kind, key in await client.items() if kind == kinds.APP_STATE_ENTRIES}

    cloud.pin("a@s.whatsapp.net")
    cloud.pin("b@s.whatsapp.net")
    async with running():
        assert await tables() == {"1"}
        cloud.pin("c@s.whatsapp.net")
        cloud.page = 1
        good = cloud.shelves["regular_low"].patches[2]
        spoil(cloud, "regular_low", 3, patchMac=bytes(32))
        for _ in range(3):
            with pytest.raises(ResyncFailed):
                await client.app_state.resync(["regular_low"], cloud.way)
            found = await tables()
            assert "1" in found
            assert len(found) <= 2
        cloud.shelves["regular_low"].patches[2] = good
        assert await client.app_state.resync(["regular_low"], cloud.way) == 3
        head = await client.head("regular_low")
        assert await tables() == {str(head.table)}
        assert (head.leftover, head.kept) == (False, 0)


async def test_another_hash_means_one_resync_then_a_flag(
    client: Client, cloud: Cloud, running: Running, clock: MockClock
) -> None:
    cloud.pin("a@s.whatsapp.net")
    async with running():
        # A writer whose table was wrong: its patches are authentic, but made for another hash.
        shelf = cloud.shelves["regular_low"]
        shelf.state = CollectionState(shelf.state.version, os.urandom(128))
        cloud.pin("b@s.whatsapp.net")
        client.app_state.news(SyncAppState(("regular_low",)))
        await settled(client)
        head = await client.head("regular_low")
        assert (head.version, head.mismatch, head.disabled, len(head.resyncs)) == (2, True, "", 1)
        cloud.pin("c@s.whatsapp.net")
        client.app_state.news(SyncAppState(("regular_low",)))
        await settled(client)
        assert (await client.head("regular_low")).version == 3
        assert [one["regular_low"] for one in cloud.asked if "regular_low" in one] == [0, 1, 0, 2]
    items = await client.items()
    assert len([1 for kind, _ in items if kind == kinds.APP_STATE_ENTRIES]) >= 1


async def test_a_flag_goes_with_the_fault(
    client: Client, cloud: Cloud, running: Running, clock: MockClock
) -> None:
    cloud.pin("a@s.whatsapp.net")
    async with running():
        head = await client.head("regular_low")
        async with client.ctx.state.lock:
            unit = client.ctx.state.unit()
            unit.put(kinds.APP_STATE_VERSION, "regular_low", structs.replace(head, hash=os.urandom(128)))
            await client.ctx.state.commit(unit)
        cloud.pin("b@s.whatsapp.net")
        client.app_state.news(SyncAppState(("regular_low",)))
        await settled(client)
        head = await client.head("regular_low")
        assert (head.mismatch, head.retried, len(head.resyncs)) == (False, False, 1)
        assert await client.agrees("regular_low")


async def test_damaged_entries_are_fetched_anew(
    client: Client, cloud: Cloud, running: Running, clock: MockClock
) -> None:
    cloud.pin("a@s.whatsapp.net")
    async with running():
        ((_, key),) = [item for item in await client.items() if item[0] == kinds.APP_STATE_ENTRIES]
        async with client.ctx.state.lock:
            unit = client.ctx.state.unit()
            unit.put(kinds.APP_STATE_ENTRIES, key, b"[]")
            await client.ctx.state.commit(unit)
        cloud.pin("a@s.whatsapp.net")
        client.app_state.news(SyncAppState(("regular_low",)))
        await settled(client)
        assert await client.agrees("regular_low")
        assert len((await client.head("regular_low")).resyncs) == 1


@pytest.mark.parametrize("code", [400, 404])
async def test_a_collection_that_the_server_does_not_have(
    client: Client, cloud: Cloud, running: Running, clock: MockClock, code: int
) -> None:
    refused = Node("collection", {"name": "regular", "type": "error"}, [Node("error", {"code": str(code)})])
    cloud.hook = lambda name, _: refused if name == "regular" else None
    async with running():
        assert (await client.head("regular")).disabled == f"refused-{code}"
        assert len(cloud.asked) == 3


async def test_a_refusal_for_now_is_followed_by_ever_longer_waits(
    client: Client, cloud: Cloud, running: Running, clock: MockClock
) -> None:
    cloud.pin("a@s.whatsapp.net")
    cloud.refuse = lambda node: refusal(503, backoff="30") if len(cloud.requester.sent) < 4 else None
    async with running():
        await trio.sleep(120)
        await settled(client)
        first, second, third, fourth = cloud.requester.times[:4]
        assert second - first >= 30
        assert await client.agrees("regular_low")
        assert [round(later - earlier) for earlier, later in ((first, second), (second, third), (third, fourth))] == [
            30, 30, 30,
        ]  # fmt: skip


async def test_a_request_that_is_fatal_for_one_of_them(
    client: Client, cloud: Cloud, running: Running, clock: MockClock
) -> None:
    cloud.pin("a@s.whatsapp.net")

    def refuse(node: Node) -> Node | None:
        sync = node.child("sync")
        return (
            refusal(400) if sync and any(one.text("name") == "regular" for one in sync.children()) else None
        )

    cloud.refuse = refuse
    async with running():
        assert await client.agrees("regular_low")
        assert (await client.head("regular")).disabled == "refused-400"
        await trio.sleep(60)
        await settled(client)
        assert len(cloud.asked) == 4


async def test_what_the_server_leaves_out_is_asked_for_again(
    client: Client, cloud: Cloud, running: Running, clock: MockClock
) -> None:
    other = Node("collection", {"name": "regular_x"})
    cloud.hook = lambda name, _: other if name == "regular" and len(cloud.asked) == 1 else None
    cloud.pin("a@s.whatsapp.net", "regular")
    async with running():
        await trio.sleep(2)
        await settled(client)
        assert cloud.asked[1:] == [{"regular": 0}]
        assert await client.agrees("regular")


async def test_a_collection_refused_for_two_days_counts_as_broken(
    client: Client, cloud: Cloud, running: Running, clock: MockClock
) -> None:
    refused = Node("collection", {"name": "regular", "type": "error"}, [Node("error", {"code": "500"})])
    cloud.hook = lambda name, _: refused if name == "regular" else None
    clock = [T_MS]
    client.ctx.now_ms._unix_ms = lambda: clock[0]
    async with running():
        clock[0] += 49 * 3600 * 1000
        await trio.sleep(20)
        await settled(client)
        assert len((await client.head("regular")).resyncs) == 1


# ------------------------------------------------------------------------------------------------- files, dirty, names


async def test_a_snapshot_and_the_patches_after_it(
    client: Client, cloud: Cloud, running: Running, clock: MockClock
) -> None:
    cloud.contacts(300)
    cloud.rename("Ann")
    cloud.snapshots = True
    async with running():
        assert await client.agrees("critical_unblock_low")
        assert client.ctx.account.creds.push_name == "Ann"
        cloud.contacts(3, external=True)
        client.app_state.news(SyncAppState(("critical_unblock_low",)))
        await settled(client)
        assert await client.agrees("critical_unblock_low")


async def test_a_snapshot_that_is_gone_is_asked_for_again(
    client: Client, cloud: Cloud, running: Running, clock: MockClock
) -> None:
    cloud.contacts(3)
    cloud.snapshots = True
    gone = cloud.snapshot("critical_unblock_low")
    cloud.files.clear()
    lost = Node(
        "collection", {"name": "critical_unblock_low"}, [Node("snapshot", {}, gone.SerializeToString())]
    )
    cloud.hook = lambda name, _: lost if name == "critical_unblock_low" and len(cloud.asked) == 1 else None
    async with running():
        await trio.sleep(2)
        await settled(client)
        assert await client.agrees("critical_unblock_low")
        assert (await client.head("critical_unblock_low")).resyncs == []


async def test_a_patch_whose_file_is_gone_ends_in_a_snapshot(
    client: Client, cloud: Cloud, running: Running, clock: MockClock
) -> None:
    cloud.contacts(3)
    async with running():
        cloud.contacts(5, external=True)
        cloud.files.clear()
        cloud.snapshots = True
        client.app_state.news(SyncAppState(("critical_unblock_low",)))
        await settled(client)
        assert await client.agrees("critical_unblock_low")
        assert len((await client.head("critical_unblock_low")).resyncs) == 1


async def test_a_snapshot_that_nobody_asked_for(
    client: Client, cloud: Cloud, running: Running, clock: MockClock
) -> None:
    cloud.contacts(3)
    async with running():
        cloud.contacts(4)
        pushed = Node(
            "collection",
            {"name": "critical_unblock_low"},
            [Node("snapshot", {}, cloud.snapshot("critical_unblock_low").SerializeToString())],
        )
        cloud.hook = lambda name, version: pushed if version == 1 else None
        client.app_state.news(SyncAppState(("critical_unblock_low",)))
        await settled(client)
        assert await client.agrees("critical_unblock_low")
        assert len((await client.head("critical_unblock_low")).resyncs) == 1


async def test_dirty_means_all_again_and_then_clean(
    client: Client, cloud: Cloud, running: Running, clock: MockClock
) -> None:
    async with running():
        client.app_state.dirty(Dirty("syncd_app_state", 1234))
        await settled(client)
        assert len(cloud.asked) == 2
        assert cloud.cleaned == ["1234"]


async def test_names_that_are_none(client: Client, cloud: Cloud, running: Running, clock: MockClock) -> None:
    cloud.rename("  \u202e ")
    value = SyncActionValue()
    value.pushNameSetting.name = "of a later version"
    cloud.write("critical_block", cloud.sealed(["setting_pushName"], value, version=2))
    cloud.write("critical_block", cloud.sealed(["setting_pushName"], remove=True))
    async with running():
        assert client.ctx.account.creds.push_name == "Alerts"
        assert client.renamed == []
        assert await client.agrees("critical_block")


async def test_a_sentinel_retires_keys(
    client: Client, cloud: Cloud, running: Running, clock: MockClock
) -> None:
    value = SyncActionValue()
    value.keyExpiration.expiredKeyEpoch = 7
    await client.share(OTHER)
    cloud.write("regular_low", cloud.sealed(["sentinel"], value, version=3))
    async with running():
        assert client.ctx.account.creds.app_state_key_id == OTHER
        assert await client.ctx.state.item(kinds.APP_STATE_EXPIRY, "epoch") == b'{"epoch":7}'


async def test_an_imported_collection_goes_on_from_its_version(
    client: Client, cloud: Cloud, running: Running, clock: MockClock
) -> None:
    for number in range(5):
        cloud.pin(f"{number}@s.whatsapp.net")
    shelf = cloud.shelves["regular_low"]
    macs = {index_text(index): mac for index, mac in shelf.macs.items()}
    imported = Head(version=5, hash=shelf.state.hash, macs=macs)
    async with client.ctx.state.lock:
        unit = client.ctx.state.unit()
        unit.put(kinds.APP_STATE_VERSION, "regular_low", imported.serialize())
        await client.ctx.state.commit(unit)
    async with running():
        assert cloud.asked[0]["regular_low"] == 5
        assert await client.head("regular_low") == imported  # as it came, until something changes
        assert await client.agrees("regular_low")
        cloud.pin("2@s.whatsapp.net")
        cloud.write("regular_low", cloud.sealed(["pin_v1", "3@s.whatsapp.net"], remove=True))
        client.app_state.news(SyncAppState(("regular_low",)))
        await settled(client)
        head = await client.head("regular_low")
        assert (head.version, head.macs, head.table) == (7, {}, 1)
        assert await client.agrees("regular_low")
