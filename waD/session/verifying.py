"""Whether a session's stored auth state would work: the four levels of chapter 08 §7.6."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import trio

from waD.events import model as events
from waD.link.credentials import Credentials
from waD.link.devices import DeviceAnswer
from waD.link.digest import DigestUnknown, ServerKeys
from waD.link.errors import Disconnected, MalformedReply, RequestError, RequestTimeout
from waD.link.prekeys import OneTimePreKey, PreKeyRecordError
from waD.messaging import kinds
from waD.session.supervisor import Supervisor
from waD.store.engine import Comparison, WholeState
from waD.store.errors import KekUnavailable, StoreDamaged
from waD.store.model import SealInfo, SessionRow
from waD.store.seals import DAY_MS
from waD.store.store import Store
from waD.transfer.state import AuthState, Note, Report
from waD.transfer.verify import read_credentials, verify
from waD.wire.jid import JID

STORE: Final = 3
LIVE: Final = 4
LEAST_PREKEYS: Final = 5
SIGNED_PREKEY_DAYS: Final = 30
SEAL_DAYS: Final = 2
BACKUP_HOURS: Final = 26
HOUR_MS: Final = 3_600_000

Found = tuple[Report, dict[str, int], dict[str, int]]


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """What level 3 looks at.

    Attributes:
        row: the session's row.
        comparison: of the two representations.
        seals: newest first.
        backup_ms: when the newest backup was made, None if there is none.
        now_ms: Unix milliseconds.
    """

    row: SessionRow
    comparison: Comparison
    seals: list[SealInfo]
    backup_ms: int | None
    now_ms: int


async def verify_session(
    store: Store,
    row: SessionRow,
    supervisor: Supervisor | None,
    level: int,
    now_ms: int,
    limiter: trio.CapacityLimiter,
) -> Found:
    """Verify one session; returns the report, counts of items, and versions.

    Raises:
        StoreError: the store cannot be read.
    """
    report = Report()
    versions = {"epoch": row.auth_epoch, "version": row.auth_version}
    try:
        whole = await trio.to_thread.run_sync(store.engine.auth_state, row.id, limiter=limiter)
    except StoreDamaged as damage:
        report.error("store_damaged", "", str(damage))
        return report, {}, versions
    except KekUnavailable as fault:
        report.error("kek_unavailable", "", str(fault))
        return report, {}, versions
    state = _state(whole, report)
    if state is None:
        return report, {}, versions
    report.notes += await _deep(state, now_ms, level, limiter)
    if level >= STORE:
        check_store(await _facts(store, row, now_ms), state, report)
    if level >= LIVE and supervisor is not None:
        await _check_live(supervisor, state, report)
    return report, state.counts(), versions


async def _deep(state: AuthState, now_ms: int, level: int, limiter: trio.CapacityLimiter) -> list[Note]:
    def work() -> list[Note]:
        return verify(state, now_ms, min(level, 2)).notes

    return await trio.to_thread.run_sync(work, limiter=limiter)


def _state(whole: WholeState, report: Report) -> AuthState | None:
    if whole.creds is None:
        report.error("not_paired", "creds", "the store holds no credentials")
        return None
    creds = read_credentials(whole.creds, report)
    if creds is None:
        return None
    return AuthState(creds, {name: document for name, (_, document) in whole.items.items()})


# Level 3.


async def _facts(store: Store, row: SessionRow, now_ms: int) -> StoreFacts:
    comparison = await store.read(store.engine.compare, row.id)
    backup = await store.last_event(row.id, events.AUTH_BACKUP)
    return StoreFacts(
        row, comparison, await store.seals(row.id), None if backup is None else backup.time, now_ms
    )


def check_store(facts: StoreFacts, state: AuthState, report: Report) -> None:
    """What only the store knows: both representations, ages, the stock of keys; pure."""
    compared = facts.comparison
    for code, found in (
        ("legacy_missing_in_snapshot", {} if compared.phase == "dual_write" else compared.missing),
        ("legacy_different", compared.different),
        ("legacy_rows_missing", compared.extra),
    ):
        for kind, count in sorted(found.items()):
            report.error(code, kind, f"{count} items")
    _check_ages(facts, state.creds, report)
    prekeys = _prekeys(state)
    usable = sum(key.state != "stale" for key in prekeys)
    if usable < LEAST_PREKEYS:
        report.warn("prekeys_low", kinds.PREKEY, f"{usable} one-time prekeys are left here")


def _check_ages(facts: StoreFacts, creds: Credentials, report: Report) -> None:
    now = facts.now_ms
    signed = max(creds.signed_prekey.created_ms, creds.last_rotation_ms)
    if signed and now - signed > SIGNED_PREKEY_DAYS * DAY_MS:
        report.warn(
            "signed_prekey_old", "creds", f"it is {(now - signed) // DAY_MS} days old; it is renewed at login"
        )
    newest = next((seal for seal in facts.seals if seal.epoch == facts.row.auth_epoch), None)
    moved_on = newest is not None and newest.version < facts.row.auth_version
    if newest is not None and moved_on and facts.row.desired_state == "up":
        age = now - newest.sealed_at
        if age > SEAL_DAYS * DAY_MS:
            report.warn("seal_old", "", f"the newest sealed copy is {age // HOUR_MS} hours old")
    if facts.backup_ms is None:
        report.warn("no_backup", "", f"there is no backup: wactl backup-auth {facts.row.name}")
    elif now - facts.backup_ms > BACKUP_HOURS * HOUR_MS:
        report.warn("backup_old", "", f"the newest backup is {(now - facts.backup_ms) // HOUR_MS} hours old")


def _prekeys(state: AuthState) -> list[OneTimePreKey]:
    found = []
    for key, document in state.of(kinds.PREKEY).items():
        try:
            found.append(OneTimePreKey.parse(int(key), document))
        except (PreKeyRecordError, ValueError):
            continue
    return found


# Level 4.


async def _check_live(supervisor: Supervisor, state: AuthState, report: Report) -> None:
    me = state.creds.me_pn
    try:
        judge_live(await supervisor.ask_keys(state.creds, _prekeys(state)), report)
        if me is not None:
            judge_devices(await supervisor.ask_devices(me), me, state.creds.me_lid, report)
    except (DigestUnknown, RequestError, RequestTimeout, Disconnected, MalformedReply) as failure:
        report.warn("live_unknown", "", str(failure))


def judge_devices(answer: DeviceAnswer, me: JID, lid: JID | None, report: Report) -> None:
    """What WhatsApp says about the devices of the account; pure."""
    if answer.devices is None:
        report.warn("live_unknown", "", f"WhatsApp does not list the account's devices: {answer.error}")
        return
    if all(device.id != me.device for device in answer.devices.devices):
        text = "WhatsApp does not list this device among the account's: nobody writes to it"
        report.error("live_device_missing", "creds", text)
    if answer.lid is not None and lid is not None and answer.lid != lid.account:
        report.error("live_lid_mismatch", "creds", "WhatsApp has another LID for this account")


def judge_live(keys: ServerKeys | None, report: Report) -> None:
    """What WhatsApp says about this device's keys; pure."""
    if keys is None:
        report.error("live_no_bundle", "", "WhatsApp has no keys of this device: wactl repair uploads them")
        return
    if not keys.identity or not keys.registration:
        report.error(
            "live_identity_mismatch",
            "creds",
            "WhatsApp knows another identity or registration id for this device",
        )
    if not keys.signed_prekey:
        report.warn(
            "live_signed_prekey_mismatch",
            "creds",
            "WhatsApp has another signed prekey: wactl repair rotates it",
        )
    if keys.missing:
        report.warn(
            "live_prekeys_missing",
            kinds.PREKEY,
            f"{keys.missing} of {keys.listed} are not stored here: wactl repair",
        )
    elif keys.hash_equal is False and keys.identity and keys.signed_prekey:
        report.warn(
            "live_hash_mismatch", kinds.PREKEY, "WhatsApp's hash over the keys is another one: wactl repair"
        )
    if keys.listed < LEAST_PREKEYS:
        report.warn("live_prekeys_low", kinds.PREKEY, f"WhatsApp has {keys.listed} left")
