"""Repairing an auth state without a new pairing (chapter 08 §7.6, chapter 02 §6).

The state is sealed first. What changes it is one unit under the state's lock, so that a session that runs goes on; what
asks WhatsApp goes over the session's own connection.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, TypeVar

import trio

from waD.control.api import ControlError, bad_param
from waD.control.types import (
    REPAIRS,
    Finding,
    NoteView,
    RepairAction,
    RepairAdvice,
    RepairChoice,
    RepairList,
    RepairParams,
    RepairResult,
)
from waD.e2ee.syncd.patches import COLLECTIONS
from waD.events import model as events
from waD.link.credentials import CredentialsError
from waD.link.errors import Disconnected, MalformedReply, RequestError, RequestTimeout
from waD.messaging import kinds
from waD.messaging.appstate.syncing import ResyncFailed
from waD.messaging.recipients import canonical
from waD.messaging.values import ValueDamaged
from waD.session import repairs
from waD.session.doors import Login
from waD.session.refusals import not_paired, translated, wrong_state
from waD.session.repairs import Advice
from waD.session.roster import Entry, Roster
from waD.session.symptoms import symptoms
from waD.session.verifying import LIVE, STORE, verify_session
from waD.session.views import sealed_as
from waD.session.vitals import Clock
from waD.store.model import SessionRow
from waD.store.store import Store
from waD.store.unit import ItemKey, Unit
from waD.transfer.state import AuthState, Note, Report
from waD.transfer.verify import read_credentials
from waD.wire.errors import JIDError
from waD.wire.jid import JID, LID, PN

T = TypeVar("T")

ANSWER_S: Final = 90.0
"""For everything that one repair asks of WhatsApp; a client waits a little longer."""
MAX_REASONS: Final = 20
"""Findings that are told of each repair."""
RECREATED: Final = "recreated|"
"""Notes by address that a session was made anew a short while ago, which keeps it from being made again."""


class RepairKeeper:
    """Implements `waD.control.api.Repair`.

    Args:
        store: the open store.
        roster: the sessions that are attached.
        clock: time and chance.
    """

    def __init__(self, store: Store, roster: Roster, clock: Clock) -> None:
        self._store = store
        self._roster = roster
        self._clock = clock
        self._limiter = trio.CapacityLimiter(1)

    async def list(self, name: str) -> RepairList:
        """See `Repair.list`."""
        row = await self._roster.row(name)
        entry = self._roster.entries.get(row.id)
        supervisor = None if entry is None else entry.supervisor
        connected = supervisor is not None and supervisor.vitals.login is not None
        level = LIVE if connected else STORE
        with repair_refusals(row):
            report, _, _ = await verify_session(
                self._store, row, supervisor, level, self._clock.unix_ms(), self._limiter
            )
        advice, beyond = repairs.advise(report.notes)
        return RepairList(
            name=row.name,
            connection_id=row.id,
            level=level,
            advice=[_advice(one, connected=connected) for one in advice],
            beyond=_notes(beyond),
            choices=[
                RepairChoice(
                    action=action,
                    target=kind.target,
                    meaning=kind.meaning,
                    connected=kind.connected,
                    possible=_possible(action, connected=connected),
                )
                for action, kind in REPAIRS.items()
            ],
        )

    async def symptoms(self) -> Sequence[Finding]:
        """Signs of what a repair would help against, cheap to see; raises StoreError."""
        supervisors = [entry.supervisor for entry in self._roster.entries.values()]
        return await symptoms(self._store, supervisors, self._clock.unix_ms())

    async def run(self, order: RepairParams) -> RepairResult:
        """See `Repair.run`."""
        self._roster.refuse_when_stopping()
        row, entry = await self._roster.find(order.name)
        supervisor = entry.supervisor
        if not supervisor.paired:
            raise not_paired(row.name, supervisor.vitals.status)
        with repair_refusals(row, supervisor.vitals.status):
            repair = Repair(self._store, self._clock, self._limiter, row, entry, order.action)
            return await repair.run(order.target or "")


class Repair:
    """One repair of one session; `run` it once.

    Args:
        store: the open store.
        clock: time and chance.
        limiter: of worker threads for verifications.
        row: the session's row.
        entry: the session.
        action: what to do.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        limiter: trio.CapacityLimiter,
        row: SessionRow,
        entry: Entry,
        action: RepairAction,
    ) -> None:
        self._store = store
        self._clock = clock
        self._limiter = limiter
        self._row = row
        self._entry = entry
        self._state = entry.supervisor.state
        self._messaging = entry.supervisor.messaging
        self._context = self._messaging.context
        self._action = action

    async def run(self, target: str) -> RepairResult:
        """Do it; `target` is empty for an action without one."""
        match self._action:
            case "drop-damaged":
                return await self._drop_damaged()
            case "drop-session":
                return await self._drop_session(self._person(target))
            case "reset-sender-key":
                return await self._reset_sender_key(_group(target))
            case "refresh-devices":
                return await self._refresh_devices(self._person(target))
            case "upload-prekeys":
                return await self._upload_prekeys()
            case "rotate-signed-prekey":
                return await self._rotate_signed_prekey()
            case "resync":
                return await self._resync(_collections(target))

    # Damaged items.

    async def _drop_damaged(self) -> RepairResult:
        """What is judged beforehand, which takes a while, is only dropped if nothing has changed it since."""
        judged = await self._judge()
        async with self._state.lock:
            gone = repairs.unchanged(judged, await self._stored(judged)) if judged else []
            unit = self._state.unit()
            for item in gone:
                unit.delete(*item)
                if (group := repairs.group_of_own(self._context.account.creds, item)) is not None:
                    unit.delete(kinds.SENDER_KEY_MEMORY, group)
            mended = await self._mend_counter(unit, gone)
            items = ["/".join(item) for item in gone] + mended
            return await self._commit(unit, items)

    async def _judge(self) -> dict[ItemKey, bytes]:
        """The damaged items and what they hold."""
        whole = await trio.to_thread.run_sync(
            self._store.engine.auth_state, self._row.id, limiter=self._limiter
        )
        report = Report()
        creds = None if whole.creds is None else read_credentials(whole.creds, report)
        if creds is None:
            raise _beyond(self._row, str(report.errors[0]) if report.errors else "there are no credentials")
        state = AuthState(creds, {item: document for item, (_, document) in whole.items.items()})
        found = await trio.to_thread.run_sync(
            repairs.damaged, state, self._clock.unix_ms(), limiter=self._limiter
        )
        return {item: state.items[item] for item in found}

    async def _stored(self, items: Collection[ItemKey]) -> dict[ItemKey, bytes]:
        """What the database holds now: what is kept in memory may be sound."""
        now: dict[ItemKey, bytes] = {}
        for kind in {kind for kind, _ in items}:
            keys = [key for found, key in items if found == kind]
            documents = await self._store.read(self._store.engine.items, self._row.id, kind, keys)
            now |= {(kind, key): document for key, document in documents.items()}
        return now

    async def _mend_counter(self, unit: Unit, gone: Collection[ItemKey]) -> list[str]:
        """No id is given out twice: the counter goes behind the last prekey there is."""
        dropped = {key for kind, key in gone if kind == kinds.PREKEY}
        left = {*await self._state.item_keys(kinds.PREKEY, "")} - dropped
        number = repairs.counter_ahead(self._context.account.creds, left)
        if number is None:
            return []
        self._context.account.change_in(unit, lambda now: now.change(next_prekey_id=number))
        return ["creds"]

    # Sessions, sender keys, device lists.

    def _person(self, text: str) -> JID:
        try:
            jid = JID.parse(text if "@" in text else f"{text}@{PN}")
        except JIDError:
            raise bad_param("target", "neither a phone number nor an address") from None
        if not jid.is_user:
            raise bad_param("target", f"an address on {jid.server!r} is not that of a person")
        return jid.account

    async def _drop_session(self, person: JID) -> RepairResult:
        async with self._state.lock:
            unit = self._state.unit()
            known = await canonical(self._context, person, unit)
            items: list[str] = []
            for form in {person, *await self._context.addresses.spellings(known, unit)}:
                if form.is_lid:
                    await self._context.records.adopt(form.user, unit)
                for key in await self._session_keys(form, unit):
                    unit.delete(kinds.SESSION, key)
                    unit.delete(kinds.RETRY, RECREATED + key)
                    items.append(f"{kinds.SESSION}/{key}")
            return await self._commit(unit, sorted(items), str(known))

    async def _session_keys(self, person: JID, unit: Unit | None = None) -> list[str]:
        """Keys of the sessions with all devices of a person under one of its addresses, hosted ones included."""
        owner = f"{person.user}@{LID if person.is_lid else PN}"
        found = await self._state.item_keys(kinds.SESSION, person.user, unit)
        return [key for key in found if repairs.person_of(key) == owner]

    async def _reset_sender_key(self, group: JID) -> RepairResult:
        async with self._state.lock:
            unit = self._state.unit()
            own = repairs.own_addresses(self._context.account.creds)
            wanted = [(kinds.SENDER_KEY, f"{group}|{address}") for address in sorted(own)]
            wanted.append((kinds.SENDER_KEY_MEMORY, str(group)))
            items = [item for item in wanted if await self._state.item(*item, unit) is not None]
            for item in items:
                unit.delete(*item)
            return await self._commit(unit, ["/".join(item) for item in items], str(group))

    async def _refresh_devices(self, person: JID) -> RepairResult:
        """The list is dropped before it is asked for: an answer that says "as before" would not do."""
        login = self._login()
        devices = self._messaging.devices
        async with self._state.lock:
            sealed = await self._seal()
            unit = self._state.unit()
            known = await canonical(self._context, person, unit)
            await devices.invalidate(unit, known)
            await self._state.commit(unit)
        await self._ask(lambda: login.refresh_devices(person))
        record = await devices.record(person)
        return await self._tell(0 if record is None else len(record.devices), sealed, str(known))

    # Own prekeys.

    async def _upload_prekeys(self) -> RepairResult:
        login = self._login()
        async with self._state.lock:
            sealed = await self._seal()
        return await self._tell(await self._ask(login.upload_prekeys), sealed)

    async def _rotate_signed_prekey(self) -> RepairResult:
        login = self._login()
        async with self._state.lock:
            sealed = await self._seal()
        await self._ask(login.rotate_signed_prekey)
        return await self._tell(1, sealed)

    # App state.

    async def _resync(self, names: Sequence[str]) -> RepairResult:
        login = self._login()
        async with self._state.lock:
            sealed = await self._seal()
        count = await self._ask(lambda: login.resync(names))
        return await self._tell(count, sealed, names[0] if len(names) == 1 else None)

    def _login(self) -> Login:
        """The connection."""
        vitals = self._entry.supervisor.vitals
        if vitals.login is None:
            why = f"it is not connected, so WhatsApp cannot be asked: wactl connect {self._row.name}"
            raise wrong_state(self._row.name, vitals.status, why)
        return vitals.login

    async def _ask(self, work: Callable[[], Awaitable[T]]) -> T:
        with trio.move_on_after(ANSWER_S):
            return await work()
        raise ControlError("timeout", f"WhatsApp has not answered all of it within {ANSWER_S:g} s; try again")

    # What all have in common.

    async def _seal(self) -> int:
        return await self._store.seal(self._row.id, "manual")

    async def _commit(self, unit: Unit, items: list[str], target: str | None = None) -> RepairResult:
        """Seal, then commit with the event; nothing at all where there is nothing to repair."""
        if not items:
            return self._result(0, target=target)
        sealed = await self._seal()
        unit.event(*events.auth_repaired(self._action, target, len(items), sealed))
        await self._state.commit(unit)
        return self._result(len(items), items, target, sealed)

    async def _tell(self, count: int, sealed: int, target: str | None = None) -> RepairResult:
        """Record what was done over the connection, whose steps were durable already."""
        kind, data = events.auth_repaired(self._action, target, count, sealed)
        await self._store.append_event(self._row.id, kind, data)
        return self._result(count, target=target, sealed=sealed)

    def _result(
        self, count: int, items: Collection[str] = (), target: str | None = None, sealed: int | None = None
    ) -> RepairResult:
        return RepairResult(
            name=self._row.name,
            connection_id=self._row.id,
            action=self._action,
            target=target,
            count=count,
            items=[*items],
            backup=None if sealed is None else sealed_as(sealed),
        )


@contextmanager
def repair_refusals(row: SessionRow, status: str = "") -> Iterator[None]:
    """Turn what is raised below into refusals of the control protocol."""
    with translated(row.name):
        try:
            yield
        except RequestError as refusal:
            raise ControlError("refused", f"WhatsApp: {refusal}", {"code": refusal.code}) from None
        except MalformedReply as odd:
            raise ControlError("refused", f"WhatsApp's answer cannot be read: {odd}") from None
        except ResyncFailed as incomplete:
            raise ControlError("refused", f"the app state is not complete: {incomplete}") from None
        except RequestTimeout as late:
            raise ControlError("timeout", f"{late}; try again") from None
        except Disconnected as gone:
            raise wrong_state(row.name, status, f"the connection ended meanwhile: {gone.cause.id}") from None
        except CredentialsError as damage:
            raise _beyond(row, str(damage)) from None
        except ValueDamaged:
            raise ControlError(
                "damaged",
                f"session {row.name!r} has damaged addresses: wactl repair {row.name} drop-damaged first",
                {"name": row.name},
            ) from None


def _beyond(row: SessionRow, why: str) -> ControlError:
    return ControlError(
        "damaged",
        f"session {row.name!r} cannot be repaired: {why}; restore a backup, or pair it again",
        {"name": row.name},
    )


def _group(text: str) -> JID:
    try:
        jid = JID.parse(text)
    except JIDError:
        raise bad_param("target", "not an address of a group") from None
    if not (jid.is_group or jid.is_broadcast):
        raise bad_param("target", "not an address of a group, such as 120363000000000001@g.us")
    return jid


def _collections(text: str) -> Sequence[str]:
    if text and text not in COLLECTIONS:
        raise bad_param("target", f"not a collection of the app state; there are {', '.join(COLLECTIONS)}")
    return (text,) if text else COLLECTIONS


def _possible(action: RepairAction, *, connected: bool) -> bool:
    return connected or not REPAIRS[action].connected


def _advice(one: Advice, *, connected: bool) -> RepairAdvice:
    return RepairAdvice(
        action=one.action,
        target=one.target,
        possible=_possible(one.action, connected=connected),
        count=len(one.notes),
        reasons=_notes(one.notes[:MAX_REASONS]),
    )


def _notes(notes: Collection[Note]) -> list[NoteView]:
    return [NoteView(code=note.code, item=note.item, detail=note.detail) for note in notes]
