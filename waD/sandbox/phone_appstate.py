"""The app state as the phone of an account keeps it: a client of the server like any other (chapter 05 §5.3).

It goes through the same requests as a companion and refuses whatever is not right in every detail. What it refuses is
in the phone's failures.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from waD.e2ee.syncd import mutations, patches
from waD.e2ee.syncd.errors import MissingKeys, SyncdError
from waD.e2ee.syncd.keys import KEY_LENGTH, MutationKeys, active_key_id, epoch_of
from waD.e2ee.syncd.mutations import Mutation, Operation, index_json
from waD.e2ee.syncd.patches import COLLECTIONS, EMPTY_STATE, Applied
from waD.proto.appstate_pb2 import SyncActionValue, SyncdPatch, SyncdSnapshotRecovery
from waD.proto.e2e_pb2 import Message, SyncdMutation
from waD.sandbox.accounts import PHONE
from waD.sandbox.appstate_keys import MAX_ASKED, AppKey, following_id, key_request, key_share
from waD.sandbox.errors import SandboxError
from waD.sandbox.snapshots import mutations_of
from waD.wire.jid import SERVER
from waD.wire.node import Node, Value

if TYPE_CHECKING:
    from waD.sandbox.accounts import Device
    from waD.sandbox.phone import Network, Phone
    from waD.sandbox.world import World

SENTINEL: Final = ("regular_low", "sentinel", 3)
"""Collection, name and version of the action that ends the use of keys (chapter 05 §4.14)."""


LAST_EPOCH: Final = 0x7FFFFFFF
"""Of a key that can still be told to expire: that field has 32 bits with a sign."""
MAX_KEYS: Final = 10_000
"""Keys of one account, those of its companions included."""


class Replica:
    """One collection. `refused` says why it stands still for good, `missing` which keys it waits for."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.state = EMPTY_STATE
        self.entries: dict[bytes, Mutation] = {}
        self.refused: str | None = None
        self.missing: tuple[bytes, ...] = ()

    @property
    def value_macs(self) -> dict[bytes, bytes]:
        """What the hash is made of, by index MAC."""
        return {index_mac: one.value_mac for index_mac, one in self.entries.items()}

    def store(self, applied: Applied) -> None:
        """Do what a patch that was accepted changes."""
        for one in applied.removes:
            self.entries.pop(one.index_mac, None)
        self.entries.update({one.index_mac: one for one in applied.sets})
        self.state = applied.state

    def under(self, index: bytes) -> list[Mutation]:
        """Entries with an index, one for each key it is filed under."""
        return [one for one in self.entries.values() if one.index == index]


class PhoneAppState:
    """All collections of one account, and the keys to them."""

    def __init__(self, world: World, network: Network, phone: Phone) -> None:
        self._world = world
        self._network = network
        self._phone = phone
        self._replicas: dict[str, Replica] = {}
        self._derived: dict[bytes, MutationKeys] = {}
        self._starting = False

    def start(self) -> None:
        """Begin with nothing: make the first key of a new account, fetch what there is, or write the first of it."""
        self._replicas = {name: Replica(name) for name in COLLECTIONS}
        self._derived = {}
        record = self._phone.keys.record
        if not record.app_keys:
            self._make_key(record.app_key)
        self._phone.keys.save()
        self._starting = True
        self.sync()
        self._starting = False
        if not self._replicas["critical_block"].state.version:
            self._phone.settings.begin()

    def versions(self) -> dict[str, int]:
        """How far each collection is."""
        return {name: replica.state.version for name, replica in self._replicas.items()}

    def entries(self, action: str) -> Iterator[Mutation]:
        """Entries of an action in whatever collection they are: one client files stars in the wrong one."""
        for replica in self._replicas.values():
            for one in replica.entries.values():
                if one.parts is not None and one.parts[0] == action:
                    yield one

    def set(self, collection: str, index: Sequence[str], version: int, value: SyncActionValue) -> None:
        """Set an entry; raises SandboxError."""
        self.change(collection, [(index, version, value)])

    def change(self, collection: str, entries: Sequence[tuple[Sequence[str], int, SyncActionValue]]) -> None:
        """Set entries (index, version of the action, value) in one patch; raises SandboxError.

        What an entry is filed under with an older key goes (chapter 05 §4.7), and before the new one comes: clients
        that take the last word about an index, whatever the key, would hear of its removal otherwise.
        """
        replica = self._ready(collection)
        key = self._active()
        sealed: list[SyncdMutation] = []
        for parts, version, value in entries:
            index = index_json(parts)
            sealed += [self._removal(one) for one in replica.under(index) if one.key_id != key]
            sealed.append(self._seal(key, Operation.SET, index, version, value))
        self._upload(replica, key, sealed)

    def remove(self, collection: str, index: Sequence[str]) -> None:
        """Remove an entry; raises SandboxError(404) when there is none."""
        replica = self._ready(collection)
        known = replica.under(index_json(index))
        if not known:
            raise SandboxError(f"there is no {index[0]} entry for that in {collection}", 404)
        self._upload(replica, self._active(), [self._removal(one) for one in known])

    def sync(self, names: Iterable[str] = COLLECTIONS) -> None:
        """Fetch and apply what is new, but for collections that stand still."""
        waiting = [name for name in names if self._replicas[name].refused is None]
        while waiting:
            asked = [Node("collection", self._asked(self._replicas[name])) for name in waiting]
            waiting = [more for reply in self._request(asked) if (more := self._take(reply)) is not None]

    def notified(self, stanza: Node) -> None:
        """The server says that collections have changed (chapter 05 §4.12)."""
        named = [one.text("name") or "" for one in stanza.children("collection")]
        self.sync([name for name in named if name in self._replicas])

    def share(self, companion: Device, asked: Sequence[bytes] | None = None) -> None:
        """Send all keys to a companion, or answer about those it asks for."""
        keys = self._phone.keys.record.app_keys
        if self._world.faults.take("withhold-key", companion) is not None:
            if asked is None:
                return
            keys = []
        self._phone.send_peer(companion, key_share(self._phone.account, keys, asked))

    def accept(self, share: Message.AppStateSyncKeyShare) -> None:
        """Take keys that a companion made or still has, and go on where they were missing (chapter 05 §4.13)."""
        keys = self._phone.keys.record.app_keys
        before = len(keys)
        for one in share.keys[:MAX_ASKED]:
            name, data = one.keyId.keyId, one.keyData.keyData
            if len(data) == KEY_LENGTH and self._may_be_new(name):
                indexes = self._phone.account.valid_indexes
                keys.append(AppKey(name, data, one.keyData.timestamp, indexes))
        if len(keys) == before:
            return
        self._phone.keys.save()
        self.sync([name for name, replica in self._replicas.items() if replica.missing])

    def renew_key(self) -> None:
        """Make, share and begin to use a new key if a device that had the newest is gone (chapter 05 §4.14)."""
        phone = self._phone
        if not phone.keys.record.online:
            return
        newest = next(key for key in phone.keys.record.app_keys if key.id == self._active())
        valid = phone.account.valid_indexes
        if set(newest.device_indexes) <= set(valid):
            if newest.device_indexes != valid:
                newest.device_indexes = valid
                phone.keys.save()
            return
        fresh = self._make_key()
        phone.keys.save()
        for companion in phone.account.companions:
            if companion.record.started:
                self._send(companion, key_share(phone.account, [fresh]))
        collection, action, version = SENTINEL
        value = SyncActionValue(timestamp=self._world.now_ms)
        value.keyExpiration.expiredKeyEpoch = epoch_of(newest.id) or 0
        try:
            self.set(collection, [action], version, value)
        except SandboxError as error:
            self._fail(collection, str(error))

    def recovery(self, collection: str) -> SyncdSnapshotRecovery | None:
        """All of a collection in the open, for a companion that has lost it (chapter 05 §4.11)."""
        replica = self._replicas.get(collection)
        if replica is None:
            return None
        found = SyncdSnapshotRecovery(collectionName=collection, collectionLthash=replica.state.hash)
        found.version.version = replica.state.version
        for one in replica.entries.values():
            record = found.mutationRecords.add(keyId=one.key_id, mac=one.value_mac)
            record.value.index, record.value.version = one.index, one.version
            if one.value is not None:
                record.value.value.CopyFrom(one.value)
        return found

    def reseal(self, collection: str, patch: SyncdPatch) -> None:
        """Sign a patch again, whatever its snapshot MAC is."""
        keys = self._keys().get(patch.keyId.id)
        if keys is None:
            return
        listed = mutations_of(patch, self._network.load)
        value_macs = [mutations.value_mac_of(one.record) for one in listed]
        version = patch.version.version
        patch.patchMac = patches.patch_mac(keys, patch.snapshotMac, value_macs, version, collection)

    def _may_be_new(self, name: bytes) -> bool:
        """Whether a key could be added under an id: there must be epochs left for keys after it."""
        keys = self._phone.keys.record.app_keys
        epoch = epoch_of(name)
        return (
            epoch is not None
            and epoch < LAST_EPOCH
            and len(keys) < MAX_KEYS
            and all(key.id != name for key in keys)
        )

    def _make_key(self, data: bytes = b"") -> AppKey:
        """A new key, or the one with some data."""
        keys = self._phone.keys.record.app_keys
        made = AppKey(
            following_id(keys),
            data or self._world.random(KEY_LENGTH),
            self._world.now_ms,
            self._phone.account.valid_indexes,
        )
        keys.append(made)
        return made

    def _keys(self) -> dict[bytes, MutationKeys]:
        for key in self._phone.keys.record.app_keys:
            if key.id not in self._derived:
                self._derived[key.id] = MutationKeys.expand(key.data)
        return self._derived

    def _active(self) -> bytes:
        """The key for uploads: a phone that lets one expire has made the next before."""
        name = active_key_id(key.id for key in self._phone.keys.record.app_keys)
        assert name is not None
        return name

    def _ready(self, collection: str) -> Replica:
        """A collection that can be changed, up to date."""
        if collection not in self._replicas:
            raise SandboxError(
                f"there is no collection {collection!r}; there are {', '.join(COLLECTIONS)}", 404
            )
        self.sync([collection])
        replica = self._replicas[collection]
        if replica.refused is not None:
            raise SandboxError(f"{collection} stands still: {replica.refused}", 409)
        if replica.missing:
            raise SandboxError(f"{collection} waits for keys", 409)
        return replica

    def _seal(
        self, key: bytes, operation: Operation, index: bytes, version: int, value: SyncActionValue
    ) -> SyncdMutation:
        iv = self._world.random(mutations.IV_LENGTH)
        return mutations.encode(key, self._keys()[key], operation, index, value, version, iv)

    def _removal(self, entry: Mutation) -> SyncdMutation:
        value = SyncActionValue(timestamp=self._world.now_ms)
        return self._seal(entry.key_id, Operation.REMOVE, entry.index, entry.version, value)

    def _upload(self, replica: Replica, key: bytes, sealed: list[SyncdMutation]) -> None:
        built = patches.build_patch(
            replica.name, replica.state, sealed, key, self._keys(), replica.value_macs
        )
        built.patch.deviceIndex = PHONE
        patch = Node("patch", content=built.patch.SerializeToString())
        (reply,) = self._request([Node("collection", self._asked(replica), [patch])])
        if reply.text("type") == "error" or reply.int("version") != built.applied.state.version:
            raise SandboxError(f"the server does not take a patch of {replica.name}", 500)
        self._store(replica, built.applied)

    def _asked(self, replica: Replica) -> dict[str, Value]:
        version = str(replica.state.version)
        return {"name": replica.name, "version": version, "return_snapshot": "false"}

    def _request(self, collections: list[Node]) -> list[Node]:
        attrs: dict[str, Value] = {
            "id": self._world.stanza_id(),
            "type": "set",
            "xmlns": "w:sync:app:state",
            "to": SERVER,
        }
        (answer,) = self._network.sync(
            self._phone.device, Node("iq", attrs, [Node("sync", content=collections)])
        )
        return answer.children("collection")

    def _take(self, reply: Node) -> str | None:
        """Apply the patches of a collection; returns its name when there are more to fetch."""
        replica = self._replicas[reply.text("name") or ""]
        replica.missing = ()
        listed = reply.child("patches")
        for node in listed.children("patch") if listed else ():
            try:
                self._apply(replica, node.data)
            except MissingKeys as missing:
                replica.missing = missing.key_ids
                for companion in self._phone.account.companions:
                    self._send(companion, key_request(missing.key_ids))
                return None
            except (SyncdError, SandboxError) as error:
                replica.refused = str(error)
                self._fail(f"{replica.name} {replica.state.version + 1}", str(error))
                return None
        return replica.name if "has_more_patches" in reply.attrs else None

    def _apply(self, replica: Replica, data: bytes) -> None:
        patch = patches.parse_patch(data)
        listed = mutations_of(patch, self._network.load)
        applied = patches.apply_patch(
            replica.name, replica.state, patch, listed, self._keys(), replica.value_macs
        )
        if applied.mac_mismatch:  # the patch is authentic, so its entries count (chapter 05 §4.9 row 14)
            self._fail(f"{replica.name} {applied.state.version}", "snapshot-mac: the hash is another one")
        self._store(replica, applied)

    def _store(self, replica: Replica, applied: Applied) -> None:
        replica.store(applied)
        if not self._starting:  # then it is history, and the account has moved on since
            self._phone.settings.changed(applied.mutations)

    def _send(self, companion: Device, message: Message) -> None:
        """Send a peer message if that can be done."""
        try:
            self._phone.send_peer(companion, message)
        except SandboxError as error:
            self._fail(companion.key, str(error))

    def _fail(self, what: str, reason: str) -> None:
        self._phone.failures.append({"id": what, "from": str(SERVER), "reason": reason})
