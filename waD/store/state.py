"""A running session's view of its own state: cached reads, one commit per unit, a fencing token in each."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import trio

from waD.store.ahead import Ahead, gather
from waD.store.engine import CommitUnit, CopyRows, ResetAuth, RestoreAuth, Restored
from waD.store.errors import StoreError
from waD.store.model import MessageRow, OutboxRow, SecretRow, SessionRow
from waD.store.sql import message_secrets
from waD.store.sql.moving import secret_values
from waD.store.unit import Committed, ItemKey, ItemValue, KeepSecret, Record, Unit

if TYPE_CHECKING:
    from waD.store.store import Store

T = TypeVar("T")

CACHED_ITEMS: Final = 512
"""Items kept decoded for one session; a busy one talks to fewer devices at a time."""
MAX_REMEMBERED: Final = CACHED_ITEMS // 2
"""Items of one unit that enter the cache at the most; a unit with more changes only what is there."""
UNCACHED: Final = frozenset({"app-state-entries"})
"""Kinds of items that come in crowds and are read once: they never drive out what is in use."""
MAX_ROWS: Final = 1000


class SessionState:
    """Reads and writes one session's state, as its one owner.

    Attributes:
        row: the session's row as it was when the session was attached or last committed by us.
        lock: whoever builds a unit holds it from the first read to the commit; no request to the network is awaited
            while it is held (chapter 03 §8.3 S4).
    """

    def __init__(
        self, store: Store, row: SessionRow, creds: bytes | None, fault: StoreError | None = None
    ) -> None:
        self._store = store
        self._engine = store.engine
        self.row = row
        self._creds = creds
        self._fault = fault
        self._epoch = row.auth_epoch
        self._owned_until = float("inf")
        self._cache: OrderedDict[ItemKey, ItemValue | None] = OrderedDict()
        self._commits = 0
        self._ahead: Ahead | None = None
        self.lock = trio.Lock()

    @property
    def session_id(self) -> str:
        """The connectionId."""
        return self.row.id

    @property
    def creds(self) -> bytes | None:
        """The credentials document as last committed; None before the first.

        Raises:
            StoreError: the auth state was damaged, or could not be decrypted, when the session was attached.
        """
        if self._fault is not None:
            raise self._fault
        return self._creds

    @property
    def owned(self) -> bool:
        """Whether the lease has surely not run out, by this machine's clock; nothing may be sent otherwise."""
        return trio.current_time() < self._owned_until

    def renewed(self, until: float) -> None:
        """The lease lasts until then, on trio's clock; counted from before it was asked for."""
        self._owned_until = until

    def unit(self) -> Unit:
        """An empty unit of work."""
        return Unit()

    async def commit(self, unit: Unit) -> Committed:
        """Make a unit durable, then visible.

        Raises:
            LeaseLost: the session has another owner: send nothing any more.
            StoreError: nothing was committed; what the unit touched is forgotten and will be read anew.
        """
        if unit.empty:
            return Committed(self.row.auth_version, [])
        try:
            committed: Committed = await self._store.write(
                CommitUnit(self.session_id, self.row.lease_token, unit, self._epoch)
            )
        except BaseException:
            for key in unit.items:
                self._cache.pop(key, None)
            raise
        finally:
            self._ahead = None
        self._commits += 1
        # A crowd of new items, such as prekeys for upload, must not drive out what is in use.
        crowd = len(unit.items) > MAX_REMEMBERED
        for item, value in unit.items.items():
            if not crowd or item in self._cache:
                self._remember(item, value)
        if unit.creds is not None:
            self._creds = unit.creds
        return committed

    async def reset_auth(self, creds: bytes, items: Mapping[ItemKey, bytes] | None = None) -> int:
        """Seal the auth state and begin a new one; returns the sealed version (chapter 08 §6.7).

        Args:
            creds: credentials document.
            items: what the new one begins with; nothing by default.

        Raises:
            LeaseLost: the session has another owner.
        """
        job = ResetAuth(self.session_id, self.row.lease_token, creds, items or {})
        sealed: int = await self._store.write(job)
        self._cache.clear()
        self._ahead = None
        self._commits += 1
        self._epoch += 1
        self._creds, self._fault = creds, None
        return sealed

    async def restore_auth(
        self,
        creds: bytes,
        items: Mapping[ItemKey, bytes],
        changes: Mapping[str, Any],
        event: tuple[str, Mapping[str, Any]],
        *,
        least_epoch: int = 0,
        archive: bytes | None = None,
        locked: bool = False,
        texts: Mapping[str, bytes] | None = None,
    ) -> Restored:
        """Seal the auth state and put another one in its place (chapter 08 §7.5).

        Args:
            creds: credentials document.
            items: all items there shall be.
            changes: columns of the session's row.
            event: type and data of what is announced.
            least_epoch: the new epoch is at least this one.
            archive: SHA-256 of an archive that goes on exactly, which it may once.
            locked: also where the state in place cannot be decrypted; it is kept as it is.
            texts: of messages that failed since their key was gone, by message id.

        Raises:
            LeaseLost: the session has another owner.
            StoreError: nothing was changed.
        """
        job = RestoreAuth(
            self.session_id,
            self.row.lease_token,
            creds,
            items,
            changes,
            *event,
            least_epoch=least_epoch,
            archive=archive,
            locked=locked,
            texts=texts or {},
        )
        done: Restored = await self._store.write(job)
        self._cache.clear()
        self._ahead = None
        self._commits += 1
        self._creds, self._fault, self._epoch = creds, None, done.epoch
        return done

    async def merge_secrets(self, rows: Sequence[SecretRow]) -> None:
        """Add secrets of messages from elsewhere; of two for one message the newer one stays.

        Raises:
            LeaseLost: the session has another owner.
            StoreError: none was added.
        """
        values = [secret_values(row) for row in rows]
        await self._store.write(
            CopyRows(self.session_id, self.row.lease_token, message_secrets.TABLE, values)
        )

    async def reload(self) -> None:
        """Read anew what is kept in memory: the state is read from the other representation now.

        Raises:
            StoreError: that one cannot be used either.
        """
        creds = await self._store.read(self._engine.checked_creds, self.session_id)
        self._cache.clear()
        self._ahead = None
        self._commits += 1
        self._creds, self._fault = creds, None

    async def read_ahead(
        self, unit: Unit, items: Mapping[str, Collection[str]], message_ids: Collection[str] = ()
    ) -> None:
        """Read at once what a unit is going to ask for; it finds it in memory until anything is committed.

        The unit's own changes win as ever, and what was not read ahead is read when it is asked for. The caller holds
        `lock` from before this to the commit.

        Args:
            unit: which.
            items: keys by kind.
            message_ids: of the history.
        """
        ahead = self._ahead_of(unit) or Ahead(unit)
        missing: dict[str, list[str]] = {}
        for kind, keys in items.items():
            for key in keys:
                if (kind, key) in self._cache:
                    ahead.items[kind, key] = self._cache[kind, key]
                elif (kind, key) not in ahead.items:
                    missing.setdefault(kind, []).append(key)
        wanted = [name for name in message_ids if name not in ahead.messages]
        commits = self._commits
        if missing or wanted:
            ahead.add(await self._store.read(gather, self._engine, self.session_id, missing, wanted))
        self._ahead = ahead if commits == self._commits else None

    def _ahead_of(self, unit: Unit | None) -> Ahead | None:
        ahead = self._ahead
        return ahead if ahead is not None and ahead.unit is unit else None

    async def item(self, kind: str, key: str, unit: Unit | None = None) -> bytes | None:
        """One item in its stored form, with the unit's own changes."""
        value = await self._value(kind, key, unit)
        return value if value is None or isinstance(value, bytes) else value.serialize()

    async def record(
        self, kind: str, key: str, parse: Callable[[bytes], T], unit: Unit | None = None
    ) -> T | None:
        """One item decoded; the decoded object stays in the cache.

        Raises:
            whatever `parse` raises for a damaged item.
        """
        value = await self._value(kind, key, unit)
        if not isinstance(value, bytes):
            return cast("T | None", value)
        decoded = parse(value)
        own = unit is not None and (kind, key) in unit.items
        if own or not hasattr(decoded, "serialize"):
            return decoded
        if self._cache.get((kind, key)) is value:
            self._remember((kind, key), cast("Record", decoded))
        ahead = self._ahead_of(unit)
        if ahead is not None and ahead.items.get((kind, key)) is value:
            ahead.items[kind, key] = cast("Record", decoded)
        return decoded

    async def items(self, kind: str, keys: Sequence[str], unit: Unit | None = None) -> dict[str, bytes]:
        """The named items that exist, in their stored form."""
        missing = [key for key in keys if not self._known((kind, key), unit)]
        if missing:
            await self._load(kind, missing)
        values = {key: await self.item(kind, key, unit) for key in keys}
        return {key: value for key, value in values.items() if value is not None}

    async def all_items(self, kind: str, keys: Sequence[str] | None = None) -> Mapping[str, bytes]:
        """All committed items of a kind, or those named; not cached."""
        return await self._store.read(self._engine.items, self.session_id, kind, keys)

    async def item_keys(self, kind: str, prefix: str, unit: Unit | None = None) -> list[str]:
        """Keys of a kind that begin with a text, with the unit's own changes, in order."""
        found = set(await self._store.read(self._engine.item_keys, self.session_id, kind, prefix))
        for (own_kind, key), value in () if unit is None else unit.items.items():
            if own_kind == kind and key.startswith(prefix):
                (found.discard if value is None else found.add)(key)
        return sorted(found)

    def _known(self, item: ItemKey, unit: Unit | None) -> bool:
        return item in self._cache or (unit is not None and item in unit.items)

    async def _value(self, kind: str, key: str, unit: Unit | None) -> ItemValue | None:
        item = (kind, key)
        if unit is not None and item in unit.items:
            return unit.items[item]
        ahead = self._ahead_of(unit)
        if ahead is not None and item in ahead.items:
            return ahead.items[item]
        if item in self._cache:
            self._cache.move_to_end(item)
            return self._cache[item]
        return (await self._load(kind, [key])).get(key)

    async def _load(self, kind: str, keys: Sequence[str]) -> Mapping[str, bytes]:
        """Read from the database. What a commit overtook is not remembered: it may be the state before it."""
        commits = self._commits
        found = await self._store.read(self._engine.items, self.session_id, kind, keys)
        if commits == self._commits:
            for key in keys:
                if (kind, key) not in self._cache:
                    self._remember((kind, key), found.get(key))
        return found

    def _remember(self, item: ItemKey, value: ItemValue | None) -> None:
        if item[0] in UNCACHED:
            return
        self._cache[item] = value
        self._cache.move_to_end(item)
        while len(self._cache) > CACHED_ITEMS:
            self._cache.popitem(last=False)

    async def outbox(
        self, states: Sequence[str] = ("queued", "sending"), limit: int = MAX_ROWS
    ) -> list[OutboxRow]:
        """Messages on their way, oldest first."""
        return await self._store.read(self._engine.outbox, self.session_id, states, limit)

    async def outbox_by_ref(self, client_ref: str) -> OutboxRow | None:
        """The row of an idempotency key."""
        return await self._store.outbox_row(self.session_id, client_ref=client_ref)

    async def outbox_by_message_id(self, message_id: str) -> OutboxRow | None:
        """The row of a message id."""
        return await self._store.outbox_row(self.session_id, message_id=message_id)

    async def plaintext(self, chats: Sequence[str], message_id: str) -> bytes | None:
        """What we sent under that id in one of these spellings of a chat."""
        found = dict(await self._store.read(self._engine.plaintext, self.session_id, message_id))
        return next((found[chat] for chat in chats if chat in found), None)

    async def message_secret(
        self, chats: Collection[str], senders: Collection[str], message_id: str, unit: Unit | None = None
    ) -> SecretRow | None:
        """The secret of a message, with the unit's own changes; chat and author in all their spellings.

        Of several, which only several spellings can have, the newest.
        """
        where = (self.session_id, [*chats], [*senders], message_id)
        found = await self._store.read(self._engine.message_secrets, *where)
        for step in () if unit is None else unit.steps:
            if isinstance(step, KeepSecret) and step.row.message_id == message_id:
                found += [step.row] if step.row.chat in chats and step.row.sender in senders else []
        return max(found, key=lambda row: row.message_ts, default=None)

    async def find_message(
        self, message_id: str, chat: str | None = None, unit: Unit | None = None
    ) -> list[MessageRow]:
        """Messages of that id, in one chat or all, as they were last committed; `unit` has them if it read ahead."""
        ahead = self._ahead_of(unit)
        found = None if ahead is None else ahead.messages.get(message_id)
        if found is None:
            found = await self._store.message(self.session_id, message_id)
        return [row for row in found if chat is None or row.chat == chat]

    async def journal_seen(self, chat: str, sender: str, message_id: str) -> list[bytes]:
        """Hashes of the ciphertexts already handled under that key."""
        return await self._store.read(self._engine.journal_seen, self.session_id, chat, sender, message_id)

    async def journal_ciphers(self, hashes: Sequence[bytes]) -> set[bytes]:
        """Which of these ciphertexts were handled before."""
        return await self._store.read(self._engine.journal_ciphers, self.session_id, hashes)
