"""When collections of the app state are fetched, and what is done about what comes (chapter 05 §4.3, §4.11, §4.12).

One task of a connection fetches them; whoever learns that there is something new only says so. Every page of an answer
is one unit of work.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Final, NoReturn

import trio
from msgspec import Struct, structs

from waD.crashpoints import crashpoint
from waD.e2ee.syncd.errors import MissingKeys, SyncdError
from waD.e2ee.syncd.patches import COLLECTIONS
from waD.link.errors import Disconnected, MalformedReply, RequestError, RequestTimeout
from waD.link.infos import Dirty
from waD.link.stanzas import Requester
from waD.link.startup import clean_dirty
from waD.messaging import kinds
from waD.messaging.appstate import conclusions, effects, wire
from waD.messaging.appstate.asking import KeyRequests
from waD.messaging.appstate.conclusions import FATAL_CODES, MISMATCH, Next
from waD.messaging.appstate.keys import AppStateKeys
from waD.messaging.appstate.late import Late
from waD.messaging.appstate.page import BlobError, Fetch, HashMismatch, Page
from waD.messaging.appstate.stored import START, Damaged, Head
from waD.messaging.appstate.table import count, forget_others
from waD.messaging.context import Context
from waD.messaging.reaction import SyncAppState
from waD.store.errors import StoreError

FIRST_KEYS_S: Final = 10.0
"""How long a fresh pairing waits for its first key (chapter 02 §5.2)."""
ROUNDS: Final = 500
LOOP_S: Final = 300.0
"""Bounds of one run of requests; what is left is fetched a little later (chapter 05 §4.3)."""
DAMAGED: Final = "stored-damaged"
UNAVAILABLE: Final = "unavailable"
MISSING_KEY: Final = "missing-key"
ABSENT: Final = wire.Answer(refusal=RequestError(500, "the server left it out"))
"""Of a collection that the server did not answer about: a refusal that may pass (chapter 05 §4.3)."""

_log = logging.getLogger(__name__)


class ResyncFailed(Exception):  # noqa: N818 - what is the case
    """A collection that was to be fetched anew is not complete; the text says why."""


class Way(Struct, frozen=True):
    """How WhatsApp is asked.

    Attributes:
        connection: logged in.
        fetch: gets files.
    """

    connection: Requester
    fetch: Fetch


class AppState:
    """The app state of one session, across its connections.

    Args:
        context: whose.
        keys: its keys.
        requests: asks other devices of the account for keys.
    """

    def __init__(self, context: Context, keys: AppStateKeys, requests: KeyRequests) -> None:
        self._context = context
        self._state = context.state
        self._keys = keys
        self._requests = requests
        self._due: set[str] = set()
        self._late: dict[str, Late] = {}
        self._dirty: Dirty | None = None
        self._unblock = False
        self._wake = trio.Event()
        self._keys_came = trio.Event()
        self._turn = trio.Lock()

    # What others know; none of these waits.

    def news(self, work: SyncAppState) -> None:
        """The server has something, or keys came."""
        if work.keys:
            self._keys_came.set()
            self._unblock = True
        self._want(work.names)

    def dirty(self, told: Dirty) -> None:
        """The server wants everything to be fetched again."""
        self._dirty = told
        self._want(COLLECTIONS)

    def _want(self, names: Iterable[str]) -> None:
        for name in names:
            if name in COLLECTIONS:
                self._due.add(name)
        self._wake.set()

    # Tasks.

    async def run(
        self, way: Way, offline_done: trio.Event, renamed: Callable[[], Awaitable[None]]
    ) -> NoReturn:
        """Keep the collections up to date over a connection until cancelled.

        Args:
            way: a connection that is logged in.
            offline_done: set when the backlog is through, which may bring keys.
            renamed: called when the account has got another push name.

        Raises:
            Disconnected: the connection ended.
            StoreError: something could not be made durable.
        """
        await offline_done.wait()
        if not await self._keys.any():
            with trio.move_on_after(FIRST_KEYS_S):
                await self._keys_came.wait()
        self._want(COLLECTIONS)
        told = self._context.account.creds.push_name
        while True:
            self._wake = trio.Event()
            if self._context.account.creds.push_name != told:
                told = self._context.account.creds.push_name
                await renamed()
            if await self._ready():
                await self._run_once(way)
            elif not await self._cleaned(way.connection):
                with trio.move_on_at(min((one.at for one in self._late.values()), default=float("inf"))):
                    await self._wake.wait()

    async def resync(self, names: Sequence[str], way: Way) -> int:
        """Fetch collections anew; what they have stays until it is replaced.

        Returns:
            How many entries they have now.

        Raises:
            ResyncFailed: not all of them are complete; what is missing is tried again as usual.
            Disconnected: the connection ended.
            StoreError: something could not be made durable.
        """
        async with self._turn:
            for name in names:
                await self._commit_head(name, conclusions.by_hand(await self._head(name)))
                self._late.pop(name, None)
            self._want(names)
            await self._sync(names, way)
            await self._ask_for_keys(way.connection)
            return sum([await self._complete(name) for name in names])

    async def _complete(self, name: str) -> int:
        """The number of entries, if nothing is missing."""
        head = await self._head(name)
        late = self._late.get(name)
        if head.disabled:
            raise ResyncFailed(f"{name} is broken at the server ({head.disabled}) and is left alone now")
        if head.blocked:
            raise ResyncFailed(f"{name} waits for {len(head.blocked)} keys, which the phone was asked for")
        if late is not None or name in self._due:
            raise ResyncFailed(
                f"{name}: {'it is not complete' if late is None else late.why}; it goes on later"
            )
        return await count(self._state, name, head)

    async def _ready(self) -> bool:
        """Whether there is something to be fetched now."""
        if self._unblock:
            self._unblock = False
            for name in COLLECTIONS:
                await self._unblock_one(name, await self._head(name))
        now = trio.current_time()
        self._due |= {name for name, late in self._late.items() if late.at <= now}
        return bool(self._due)

    async def _unblock_one(self, name: str, head: Head) -> None:
        """Keys came that a collection may have waited for, or was left alone without."""
        if head.disabled == MISSING_KEY:
            await self._commit_head(name, structs.replace(head, disabled=""))
        if head.blocked or head.disabled == MISSING_KEY:
            self._want([name])

    async def _run_once(self, way: Way) -> None:
        try:
            async with self._turn:
                await self._sync([name for name in COLLECTIONS if name in self._due], way)
                await self._ask_for_keys(way.connection)
        except (Disconnected, StoreError):
            raise
        except Exception:  # a fault of ours here must not take the connection along
            _log.exception("the app state could not be fetched; it is tried again later")
            for name in [*self._due]:
                self._put_off(name, "an internal error")

    async def _cleaned(self, connection: Requester) -> bool:
        """Tell the server, when everything is fetched that it wanted to be; says whether there was a reason to."""
        if self._dirty is None or self._late or self._due:
            return False
        dirty, self._dirty = self._dirty, None
        try:
            await clean_dirty(connection, dirty)
        except (RequestError, RequestTimeout) as refusal:
            _log.warning("the app state is fetched, which the server did not take note of: %s", refusal)
        return True

    # One run of requests.

    async def _sync(self, names: Sequence[str], way: Way) -> None:
        """Ask until nothing more is there at once; whoever calls has the turn."""
        deadline = trio.current_time() + LOOP_S
        left = [*names]
        for _ in range(ROUNDS):
            if not left:
                return
            left = await self._round(left, way)
            if trio.current_time() > deadline:
                break
        for name in left:
            self._put_off(name, "there is very much of it")

    async def _round(self, names: Sequence[str], way: Way) -> list[str]:
        """One request; returns the collections to ask for again at once."""
        heads = {name: head for name in names if not (head := await self._head(name)).disabled}
        self._due.difference_update(set(names) - heads.keys())
        if not heads:
            return []
        versions = {name: head.version for name, head in heads.items()}
        try:
            answers = wire.parse(await way.connection.request(wire.request(versions)), heads)
        except RequestError as refusal:
            return await self._refused(heads, refusal, way)
        except (RequestTimeout, MalformedReply) as failure:
            for name in heads:
                self._put_off(name, str(failure))
            return []
        return [
            name
            for name, head in heads.items()
            if await self._take(name, head, answers.get(name, ABSENT), way.fetch)
        ]

    async def _refused(self, heads: Mapping[str, Head], refusal: RequestError, way: Way) -> list[str]:
        """The server refused all at once; one of them may be the reason."""
        again: list[str] = []
        if refusal.code not in FATAL_CODES:
            for name in heads:
                self._put_off(name, str(refusal), refusal.backoff)
        elif len(heads) == 1:
            ((name, head),) = heads.items()
            if await self._fail(name, head, f"refused-{refusal.code}"):
                again.append(name)
        else:
            for name in heads:
                again += await self._round([name], way)
        return again

    async def _take(self, name: str, head: Head, answer: wire.Answer, fetch: Fetch) -> bool:
        """Take what came of one collection; says whether to ask for more at once."""
        now = self._context.now_ms()
        page = await Page.open(self._state, name, head, await self._keys.all(), fetch, now)
        try:
            await page.apply(answer)
        except MissingKeys as missing:
            return await self._wait(name, page, [one.hex() for one in missing.key_ids])
        except BlobError as gone:
            return await self._without_blob(name, page, gone)
        except SyncdError as fault:
            code = MISMATCH if isinstance(fault, HashMismatch) else fault.code
            _log.warning("the app state %s: %s", name, fault)
            return await self._end(name, page, conclusions.failed(page.head, code, now))
        except Damaged:
            _log.error("stored entries of the app state %s are damaged", name)
            return await self._fail(name, head, DAMAGED)
        if answer.refusal is not None and not answer.patches:
            return await self._refused_one(name, page, answer.refusal)
        if answer.more and page.head.version == head.version:
            self._put_off(name, "the server says that there is more, and sends nothing")
            return False
        return await self._end(name, page, conclusions.advanced(page.head, more=answer.more))

    async def _refused_one(self, name: str, page: Page, refusal: RequestError) -> bool:
        """The server has nothing of this collection for us, now or ever; after two days that is the same."""
        now, late = self._context.now_ms(), self._late.get(name)
        if refusal.code in FATAL_CODES or (late is not None and late.hopeless(now)):
            self._late.pop(name, None)
            return await self._end(name, page, conclusions.failed(page.head, f"refused-{refusal.code}", now))
        self._put_off(name, str(refusal), refusal.backoff)
        return False

    async def _wait(self, name: str, page: Page, missing: list[str]) -> bool:
        """Keys are missing: wait for them, unless nobody has one (chapter 05 §4.13)."""
        if await self._keys.hopeless(missing):
            failed = conclusions.failed(page.head, MISSING_KEY, self._context.now_ms())
            return await self._end(name, page, failed)
        return await self._end(name, page, conclusions.blocked(page.head, missing))

    async def _without_blob(self, name: str, page: Page, gone: BlobError) -> bool:
        """A file is not to be had: a patch without its file ends the collection, a snapshot is offered anew."""
        _log.warning("a file of the app state %s could not be fetched: %s", name, gone)
        if gone.permanent and page.head.version:
            failed = conclusions.failed(page.head, UNAVAILABLE, self._context.now_ms())
            return await self._end(name, page, failed)
        if page.head != page.before:
            await self._commit(name, page, Next(page.head))
        self._put_off(name, str(gone))
        return False

    async def _fail(self, name: str, head: Head, code: str) -> bool:
        """Something is wrong with the collection as a whole."""
        ended = conclusions.failed(head, code, self._context.now_ms())
        await self._commit_head(name, ended.head)
        self._finish(name, ended)
        return ended.again

    async def _end(self, name: str, page: Page, ended: Next) -> bool:
        """Make a page durable, with everything that follows from it."""
        if ended.head != page.before:
            await self._commit(name, page, ended)
        self._finish(name, ended)
        return ended.again

    async def _commit(self, name: str, page: Page, ended: Next) -> None:
        async with self._state.lock:
            unit = self._state.unit()
            if ended.head.table == page.head.table:
                page.write(unit)
            complete = page.head.leftover and not ended.head.leftover
            if complete or page.before.table != page.head.table:
                await forget_others(self._state, unit, name, (ended.head.table, ended.head.kept))
            await effects.apply(unit, page.acting, self._context.account, self._keys)
            unit.put(kinds.APP_STATE_VERSION, name, ended.head)
            crashpoint("appstate.before_commit")
            await self._state.commit(unit)
        crashpoint("appstate.after_commit")

    def _finish(self, name: str, ended: Next) -> None:
        if not ended.again:
            self._due.discard(name)
            self._late.pop(name, None)
        if ended.head.disabled:
            _log.error(
                "the app state %s is broken (%s) and is left alone: see wactl repair",
                name,
                ended.head.disabled,
            )

    def _put_off(self, name: str, why: str, least_s: float | None = None) -> None:
        """Try a collection again later, ever more rarely."""
        late = self._late.setdefault(name, Late(self._context.now_ms()))
        late.fail(trio.current_time(), why, least_s)
        self._due.discard(name)
        _log.info("the app state %s is fetched later: %s", name, why)

    # The store, and keys.

    async def _head(self, name: str) -> Head:
        """Where a collection stands; one that cannot be read is begun anew."""
        try:
            return await self._state.record(kinds.APP_STATE_VERSION, name, Head.parse) or START
        except Damaged:
            _log.error("what is stored of the app state %s is damaged; it is fetched anew", name)
            return structs.replace(START, leftover=True)

    async def _commit_head(self, name: str, head: Head) -> None:
        async with self._state.lock:
            unit = self._state.unit()
            unit.put(kinds.APP_STATE_VERSION, name, head)
            await self._state.commit(unit)

    async def _ask_for_keys(self, connection: Requester) -> None:
        """Ask for the keys that collections wait for; what fails is tried again with the next occasion."""
        missing = {key for name in COLLECTIONS for key in (await self._head(name)).blocked}
        if missing:
            await self._requests.send(missing, connection)
