"""App state between a phone, its companions and the server (chapter 05 §4, §5.3)."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sandbox.app_state_client import AppStateClient
from tests.sandbox.core_client import CoreClient, new_core
from tests.sandbox.test_faults import order
from tests.sandbox.test_messages import ALICE, BOB
from waD.e2ee.syncd import patches
from waD.e2ee.syncd.errors import MissingKeys, SyncdError
from waD.e2ee.syncd.keys import MutationKeys, key_id
from waD.e2ee.syncd.patches import EMPTY_STATE
from waD.proto.appstate_pb2 import ExternalBlobReference, SyncActionValue, SyncdMutations, SyncdPatch
from waD.proto.e2e_pb2 import Message
from waD.sandbox.core import Core
from waD.sandbox.environment import Settings
from waD.sandbox.errors import SandboxError
from waD.sandbox.faults import Fault
from waD.sandbox.persistence import SqliteJournal
from waD.sandbox.phone_settings import ChatSettings, Contact
from waD.sandbox.restore import restore
from waD.sandbox.snapshots import snapshot_of

UNTIL_MS = 1_900_000_000_000
COMPLETE = tuple(patches.COLLECTIONS)


class Shelf:
    """Files in memory, by the hash that their reference has."""

    def __init__(self) -> None:
        self.files: dict[bytes, bytes] = {}

    def store(self, data: bytes) -> ExternalBlobReference:
        digest = hashlib.sha256(data).digest()
        self.files[digest] = data
        return ExternalBlobReference(mediaKey=b"k", directPath="/v", fileSha256=digest, fileEncSha256=digest)

    def load(self, reference: ExternalBlobReference) -> bytes:
        if reference.fileSha256 not in self.files:
            raise SandboxError("the file is gone", 404)
        return self.files[reference.fileSha256]


class Account:
    """Alice with companions that have taken their keys, and Bob to talk about."""

    def __init__(self, companions: int = 1, settings: Settings | None = None) -> None:
        self.core, self.time = new_core(settings)
        self.shelf = Shelf()
        self.phone = self.core.phones.create("Alice", ALICE)
        self.bob = self.core.phones.create("Bob", BOB)
        self.clients: list[AppStateClient] = []
        for number in range(companions):
            self.add(number)

    @property
    def client(self) -> AppStateClient:
        return self.clients[0]

    def add(self, number: int) -> AppStateClient:
        client = AppStateClient(CoreClient(self.core, seed=30 + number), self.shelf.load)
        client.client.pair(self.phone)
        client.client.log_in(upload=True, drain=False)
        self.clients.append(client)
        client.read()
        return client

    def server(self, name: str) -> list[SyncdPatch]:
        return [SyncdPatch.FromString(one) for one in self.phone.account.record.patches.get(name, [])]

    def failures(self) -> list[str]:
        return [one["reason"].partition(":")[0] for one in self.phone.failures]


def muted(until_ms: int = UNTIL_MS) -> SyncActionValue:
    value = SyncActionValue(timestamp=1)
    value.muteAction.muted, value.muteAction.muteEndTimestamp = True, until_ms
    return value


def test_a_new_account_has_a_name_and_settings() -> None:
    account = Account()
    for name in COMPLETE:
        account.client.sync(name)
    versions = {name: one.state.version for name, one in account.client.collections.items()}
    assert versions == account.phone.app_state.versions()
    assert (versions["critical_block"], versions["regular_low"], versions["regular"]) == (1, 1, 0)
    critical = account.client.collections["critical_block"].values
    assert critical[("setting_pushName",)].pushNameSetting.name == "Alice"
    assert critical[("setting_locale",)].localeSetting.locale == "en_US"
    assert not any(one.mismatches for one in account.client.collections.values())


def test_orders_to_the_phone_reach_companions() -> None:
    account = Account()
    sent = account.bob.send_text(account.phone.account, "star me")
    account.core.settle()
    told = account.phone.settings
    bob = account.bob.account
    told.set_push_name("Alice the Second")
    told.set_contact(bob, "Bob the Builder")
    told.mute(bob, UNTIL_MS)
    told.pin(bob)
    told.mark_read(bob, read=False)
    told.star(bob, sent.id)
    account.core.settle()
    notes = [node for node in account.client.client.pump() if node.tag == "notification"]
    synced = [node.children()[0].attrs for node in notes if node.attrs["type"] == "server_sync"]
    assert synced[0] == {"name": "critical_block", "version": "2"}
    assert len(synced) == 6
    for name in COMPLETE:
        account.client.sync(name)
    high = account.client.collections["regular_high"].values
    low = account.client.collections["regular_low"].values
    lid = str(bob.lid_jid)
    assert high[("mute", lid)].muteAction.muteEndTimestamp == UNTIL_MS
    assert high[("star", lid, sent.id, "0", "0")].starAction.starred
    assert low[("pin_v1", lid)].pinAction.pinned
    unread = low[("markChatAsRead", lid)].markChatAsReadAction
    assert [one.key.id for one in unread.messageRange.messages] == [sent.id]
    contacts = account.client.collections["critical_unblock_low"].values
    assert contacts[("contact", str(bob.pn_jid))].contactAction.firstName == "Bob"
    assert account.phone.account.record.name == "Alice the Second"
    assert told.contacts == {BOB: Contact("Bob the Builder", "Bob")}
    assert told.chat(bob) == ChatSettings(UNTIL_MS, True, False, True, [sent.id])
    assert told.view()["chats"][BOB]["mutedUntilMs"] == UNTIL_MS


def test_what_is_undone_is_gone() -> None:
    account = Account()
    told, bob = account.phone.settings, account.bob.account
    told.set_contact(bob, "Bob")
    told.remove_contact(bob)
    told.mute(bob)
    assert told.chat(bob).muted_until_ms == -1
    told.mute(bob, None)
    told.pin(bob)
    told.archive(bob)
    assert told.contacts == {}
    assert told.chat(bob) == ChatSettings(None, False, True)
    with pytest.raises(SandboxError, match="no contact entry"):
        told.remove_contact(bob)
    with pytest.raises(SandboxError, match="no message nope"):
        told.star(bob, "nope")
    with pytest.raises(SandboxError, match="not empty"):
        told.set_push_name("")
    with pytest.raises(SandboxError, match="no collection 'irregular'"):
        account.phone.app_state.set("irregular", ["x"], 1, muted())


def test_the_phone_takes_what_a_companion_uploads() -> None:
    account = Account(companions=2)
    name = SyncActionValue(timestamp=5)
    name.pushNameSetting.name = "Alice of the desk"
    account.client.sync("critical_block")
    assert account.client.set("critical_block", ["setting_pushName"], name).attrs["version"] == "2"
    account.client.set("regular_high", ["mute", str(account.bob.account.pn_jid)], muted())
    assert account.phone.account.record.name == "Alice of the desk"
    assert account.phone.settings.push_name == "Alice of the desk"
    assert account.phone.settings.chat(account.bob.account).muted_until_ms == UNTIL_MS
    sibling = [node for node in account.clients[1].client.pump() if node.tag == "notification"]
    assert [node.children()[0].text("name") for node in sibling] == ["critical_block", "regular_high"]
    assert not [node for node in account.client.client.pump() if node.tag == "notification"]
    assert account.failures() == []


def test_stars_are_found_in_the_wrong_collection() -> None:
    account = Account()
    star = SyncActionValue(timestamp=5)
    star.starAction.starred = True
    account.client.sync("regular_low")
    account.client.set("regular_low", ["star", str(account.bob.account.lid_jid), "M1", "0", "0"], star)
    assert account.phone.settings.chat(account.bob.account).starred == ["M1"]


@pytest.mark.parametrize("part", ["patchMac", "snapshotMac"])
def test_the_phone_refuses_a_patch_that_is_not_authentic(part: str) -> None:
    account = Account()
    built = account.client.build("regular_high", (["mute", "x@lid"], muted()))
    setattr(built.patch, part, bytes(32))
    assert account.client.request("regular_high", built.patch).attrs["version"] == "1"
    assert account.failures() == ["patch-mac"]
    with pytest.raises(SandboxError, match="stands still: patch-mac"):
        account.phone.settings.mute(account.bob.account)
    account.phone.settings.pin(account.bob.account)


def test_the_phone_notes_a_hash_that_is_not_its_own_and_goes_on() -> None:
    account = Account()
    account.client.set("regular_high", ["mute", "x@lid"], muted())
    account.client.collections["regular_high"].entries.clear()
    account.client.set("regular_high", ["mute", "x@lid"], muted(5))
    assert account.failures() == ["snapshot-mac"]
    assert account.phone.settings.chats["x@lid"].muted_until_ms == 5


def test_uploads_for_an_old_version_lose_and_see_what_won() -> None:
    account = Account(companions=2)
    one, two = account.clients
    one.set("regular_high", ["mute", "a@lid"], muted())
    conflict = two.set("regular_high", ["mute", "b@lid"], muted())
    error = conflict.child("error")
    assert error is not None
    assert error.attrs["code"] == "409"
    two.apply("regular_high", conflict)
    assert two.set("regular_high", ["mute", "b@lid"], muted()).attrs["version"] == "2"
    assert account.phone.settings.chats.keys() == {"a@lid", "b@lid"}


def test_a_key_of_a_companion_is_asked_for_and_taken() -> None:
    account = Account()
    data, fresh = bytes(range(32)), key_id(account.phone.account.companions[0].id, 2)
    account.client.keys[fresh] = MutationKeys.expand(data)
    account.client.set("regular_high", ["mute", "x@lid"], muted())
    (asked,) = account.client.read()
    assert [one.keyId for one in asked.protocolMessage.appStateSyncKeyRequest.keyIds] == [fresh]
    assert account.phone.settings.chats == {}
    with pytest.raises(SandboxError, match="waits for keys"):
        account.phone.settings.mute(account.bob.account)
    account.client.read()
    last = key_id(1, 0x7FFFFFFF)
    for name, answer in ((fresh, b""), (fresh, data[:31]), (last, data), (b"short", data), (fresh, data)):
        share = Message.AppStateSyncKeyShare()
        key = share.keys.add()
        key.keyId.keyId, key.keyData.keyData = name, answer
        assert account.phone.settings.chats == {}
        account.phone.app_state.accept(share)
    assert account.phone.settings.chats["x@lid"].muted_until_ms == UNTIL_MS
    account.phone.settings.mute(account.bob.account)
    assert account.server("regular_high")[-1].keyId.id == fresh


def test_a_removed_device_cannot_read_on() -> None:
    account = Account(companions=2)
    gone, stays = account.clients
    account.phone.settings.mute(account.bob.account)
    stays.read()
    account.core.pairing.remove(account.phone.account.companions[0])
    account.core.settle()
    (share,) = stays.read()
    assert [one.keyId.keyId for one in share.protocolMessage.appStateSyncKeyShare.keys] == [key_id(0, 2)]
    account.phone.settings.mute(account.bob.account, 7)
    account.core.settle()
    for name in COMPLETE:
        stays.sync(name)
    low, high = (stays.collections[name].values for name in ("regular_low", "regular_high"))
    assert low[("sentinel",)].keyExpiration.expiredKeyEpoch == 1
    assert [value.muteAction.muteEndTimestamp for value in high.values()] == [7]
    assert len(stays.collections["regular_high"].entries) == 1
    last = account.server("regular_high")[-1]
    with pytest.raises(MissingKeys):
        patches.apply_patch(
            "regular_high", patches.CollectionState(1, bytes(128)), last, last.mutations, gone.keys, {}
        )
    late = account.add(9)
    assert late.keys.keys() == {key_id(0, 1), key_id(0, 2)}
    assert len(account.phone.keys.record.app_keys) == 2


def test_a_new_identity_starts_anew() -> None:
    account = Account()
    account.phone.settings.mute(account.bob.account)
    account.core.pairing.remove(account.phone.account.companions[0])
    account.core.phones.change_identity(account.phone)
    account.core.settle()
    assert account.phone.app_state.versions()["regular_high"] == 0
    again = account.add(5)
    again.sync("critical_block")
    assert again.collections["critical_block"].values[("setting_pushName",)].pushNameSetting.name == "Alice"


class TestFaults:
    def test_a_withheld_key_comes_when_it_is_shared_later(self) -> None:
        account = Account(companions=0)
        order(account, "withhold-key")
        client = account.add(0)
        assert client.keys == {}
        with pytest.raises(MissingKeys):
            client.sync("critical_block")
        account.phone.app_state.share(account.phone.account.companions[0])
        account.core.settle()
        account.client.read()
        client.sync("critical_block")
        assert client.collections["critical_block"].state.version == 1

    def test_a_withheld_key_is_one_the_phone_does_not_have(self) -> None:
        account = Account()
        companion = account.phone.account.companions[0]
        order(account, "withhold-key")
        for known in (False, True):
            account.phone.app_state.share(companion, [key_id(0, 1)])
            account.core.settle()
            (answer,) = account.client.read()
            (one,) = answer.protocolMessage.appStateSyncKeyShare.keys
            assert one.HasField("keyData") == known

    @pytest.mark.parametrize("mode", ["patch-mac", "value-mac", "index-mac", "version"])
    def test_a_bad_patch_is_bad_in_one_way_and_once(self, mode: str) -> None:
        account = Account()
        order(account, "bad-patch", mode=mode, collection="critical_block")
        account.client.sync("regular_low")
        with pytest.raises(SyncdError) as caught:
            account.client.sync("critical_block")
        assert caught.value.code == mode
        account.client.sync("critical_block")
        assert account.client.collections["critical_block"].state.version == 1

    def test_a_bad_snapshot_mac_is_in_an_authentic_patch(self) -> None:
        account = Account()
        order(account, "bad-patch", mode="snapshot-mac")
        account.client.sync("critical_block")
        assert account.client.collections["critical_block"].mismatches == 1
        assert account.failures() == []

    def test_conflicts_come_in_storms(self) -> None:
        account = Account()
        order(account, "sync-error", code=409, count=2)
        for _ in range(2):
            conflict = account.client.set("regular_high", ["mute", "x@lid"], muted())
            assert conflict.attrs["type"] == "error"
            assert conflict.child("patches") is None
        assert account.client.set("regular_high", ["mute", "x@lid"], muted()).attrs["version"] == "1"

    def test_other_errors_hit_their_collection(self) -> None:
        account = Account()
        order(account, "sync-error", code=500, collection="regular")
        assert account.client.request("regular_low").text("type") is None
        error = account.client.request("regular").child("error")
        assert error is not None
        assert error.attrs["code"] == "500"

    def test_a_mode_is_needed(self) -> None:
        account = Account(companions=0)
        with pytest.raises(SandboxError, match="patch-mac, snapshot-mac"):
            account.core.apply(Fault("bad-patch"))
        with pytest.raises(SandboxError, match="needs a code"):
            account.core.apply(Fault("sync-error"))


def test_pages_are_as_long_as_they_are_set() -> None:
    account = Account(settings=Settings(app_state_page=2))
    for until in range(1, 6):
        account.phone.settings.mute(account.bob.account, until)
    assert account.client.sync("regular_high") == 3
    assert account.client.collections["regular_high"].state.version == 5


class TestSnapshots:
    def test_off_by_default_and_only_for_those_who_ask(self) -> None:
        account = Account()
        account.core.app_state.blobs = account.shelf
        assert account.client.request("critical_block", snapshot=True).child("snapshot") is None
        account = Account(settings=Settings(app_state_snapshots=True))
        account.core.app_state.blobs = account.shelf
        assert account.client.request("critical_block").child("snapshot") is None
        assert account.client.request("regular", snapshot=True).attrs == {"name": "regular"}

    def test_a_snapshot_comes_with_the_patches_after_it(self) -> None:
        account = Account(settings=Settings(app_state_snapshots=True))
        account.core.app_state.blobs = account.shelf
        for until in range(1, 5):
            account.phone.settings.mute(account.bob.account, until)
        reply = account.client.request("regular_high", snapshot=True)
        assert [child.tag for child in reply.children()] == ["snapshot", "patches"]
        assert account.client.sync("regular_high", snapshot=True) == 1
        collection = account.client.collections["regular_high"]
        assert (collection.state.version, collection.mismatches, len(collection.entries)) == (4, 0, 1)

    def test_mutations_in_a_file_count(self) -> None:
        account = Account(settings=Settings(app_state_snapshots=True))
        account.core.app_state.blobs = account.shelf
        in_file(account)
        account.phone.settings.mute(account.bob.account)
        assert account.phone.settings.chats.keys() == {"x@lid", BOB}
        account.client.collections["regular_high"].state = EMPTY_STATE
        account.client.sync("regular_high", snapshot=True)
        assert len(account.client.collections["regular_high"].entries) == 2

    def test_a_file_that_is_gone_stops_the_phone_and_gives_no_snapshot(self) -> None:
        account = Account(settings=Settings(app_state_snapshots=True))
        in_file(account)
        assert account.failures() == ["the file is not on the media host"]
        account.core.app_state.blobs = Shelf()
        assert account.client.request("regular_high", snapshot=True).child("snapshot") is None


def in_file(account: Account) -> None:
    """A companion uploads a patch whose mutation is in a file."""
    built = account.client.build("regular_high", (["mute", "x@lid"], muted()))
    data = SyncdMutations(mutations=built.patch.mutations).SerializeToString()
    built.patch.ClearField("mutations")
    built.patch.externalMutations.CopyFrom(account.shelf.store(data))
    assert account.client.request("regular_high", built.patch).attrs["version"] == "1"


CHATS = [f"{number}@lid" for number in range(4)]
changes = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.sampled_from(CHATS), st.integers(1, 9)),
        st.tuples(st.just("remove"), st.sampled_from(CHATS), st.just(0)),
        st.tuples(st.just("rotate"), st.just(""), st.just(0)),
    ),
    max_size=12,
)


@settings(max_examples=40, deadline=None)
@given(changes)
def test_any_history_is_the_same_from_patches_from_a_snapshot_and_to_its_writer(
    history: list[tuple[str, str, int]],
) -> None:
    core, _ = new_core()
    phone = core.phones.create("Alice", ALICE)
    wanted: dict[tuple[str, ...], int] = {}
    for what, chat, until in history:
        if what == "set":
            phone.app_state.set("regular_high", ["mute", chat], 2, muted(until))
            wanted[("mute", chat)] = until
        elif what == "rotate":
            phone.keys.record.app_keys[-1].device_indexes = [0, 99]
            phone.app_state.renew_key()
        elif ("mute", chat) in wanted:
            phone.app_state.remove("regular_high", ["mute", chat])
            del wanted[("mute", chat)]
    keys = {one.id: MutationKeys.expand(one.data) for one in phone.keys.record.app_keys}
    listed = [SyncdPatch.FromString(one) for one in phone.account.record.patches.get("regular_high", [])]
    state, macs = EMPTY_STATE, dict[bytes, bytes]()
    for patch in listed:
        applied = patches.apply_patch("regular_high", state, patch, patch.mutations, keys, macs)
        assert not applied.mac_mismatch
        macs = {
            index: mac
            for index, mac in macs.items()
            if index not in {one.index_mac for one in applied.removes}
        }
        macs |= {one.index_mac: one.value_mac for one in applied.sets}
        state = applied.state
    told = {
        one.parts: one.value.muteAction.muteEndTimestamp
        for one in phone.app_state.entries("mute")
        if one.value
    }
    assert told == wanted
    assert len(macs) == len(wanted)
    if listed:
        whole = patches.apply_snapshot("regular_high", snapshot_of(listed, Shelf().load), keys)
        assert whole.state == state
        assert {one.index_mac: one.value_mac for one in whole.sets} == macs
    assert phone.failures == []


async def test_a_restarted_phone_reads_it_all_again(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path)
    core = Core(journal=journal)
    phone = core.phones.create("Alice", ALICE)
    bob = core.phones.create("Bob", BOB)
    phone.settings.mute(bob.account, 5)
    phone.keys.record.app_keys[-1].device_indexes = [0, 99]
    phone.app_state.renew_key()
    phone.settings.mute(bob.account, 6)
    phone.account.record.name = "Newer by presence"
    core.world.save_account(phone.account)
    await journal.flush()
    again = Core(journal=journal)
    restore(again, journal)
    found = again.phones.by_number(ALICE)
    assert found.app_state.versions() == phone.app_state.versions()
    assert found.settings.view() == phone.settings.view()
    assert found.account.record.name == "Newer by presence"
    found.settings.mute(again.phones.by_number(BOB).account, None)
    assert found.failures == []
    journal.close()
