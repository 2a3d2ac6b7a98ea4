"""What `wactl doctor` asks the daemon: everything is looked at, nothing is changed."""

from __future__ import annotations

import os
import stat
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, get_args

import trio

from waD.config import Settings
from waD.control.api import ControlError
from waD.control.types import NEXT_STEP, CheckReport, Finding, Level, SessionView
from waD.events.log import EventLog
from waD.session.keyring import key_findings
from waD.session.stillness import HINT, standing_still
from waD.store.errors import StoreDamaged, StoreError
from waD.store.store import Store

DAMAGED: Final = "damaged"
"""Fact of a finding: what is stored is not what was written. A disk that is full or stands still is no damage."""
LOW_SPACE: Final = 100 * 1024 * 1024
LAG: Final = 10_000
"""Entries of the event log; a subscriber farther behind has stopped reading, or will lose events one day."""
MANY_QUEUED: Final = 1000
FAILURES_WORTH_A_WORD: Final = 5
FAILURE_SHARE: Final = 0.02
"""Undecryptable messages among those received that are not normal any more."""
_UNDER_WAY: Final = frozenset({"connecting", "pairing", "backoff"})
_LEVELS: Final[tuple[Level, ...]] = get_args(Level)


async def check_up(
    store: Store,
    log: EventLog,
    views: Callable[[], Awaitable[Sequence[SessionView]]],
    settings: Settings,
    socket: Path,
    symptoms: Callable[[], Awaitable[Sequence[Finding]]] | None = None,
) -> CheckReport:
    """Look at everything; a store that fails meanwhile is a finding as well.

    Args:
        store: quick-checked on a connection of its own.
        log: whose subscribers are looked at.
        views: shows all sessions; may raise ControlError.
        settings: in force.
        socket: where the control socket is.
        symptoms: looks at the auth states; may raise as `views` does.
    """
    database = settings.store.path if settings.store.url is None else store.name
    findings = [*await _store(store, database)]
    findings += await trio.to_thread.run_sync(lambda: [*_files(settings, socket)])
    try:
        for view in await views():
            findings += _session(view, settings)
            findings += [_outbox(view), *_move(view)]
        findings += [] if symptoms is None else await symptoms()
        findings += await key_findings(store)
        findings += _subscribers(log, await log.newest())
    except (ControlError, StoreError) as error:
        findings.append(_unreadable(database, error))
    worst = max((finding.level for finding in findings), key=_LEVELS.index)
    return CheckReport(level=worst, findings=findings)


def _finding(check: str, level: Level, subject: object, message: str, hint: str = "", **data: Any) -> Finding:
    return Finding(check=check, level=level, subject=str(subject), message=message, hint=hint, data=data)


# The store.


async def _store(store: Store, path: Path | str) -> list[Finding]:
    try:
        complaints = await store.integrity_check(quick=True)
    except StoreError as error:
        return [_unreadable(path, error)]
    found = [_space(path)]
    if complaints:
        hint = "stop the daemon, keep a copy of the file, and restore a backup"
        text = f"the database is damaged: {complaints[0]}"
        facts = {"complaints": complaints[:20], DAMAGED: True}
        found.append(_finding("store", "critical", path, text, hint, **facts))
    if (wrong := standing_still(store)) is not None:
        stuck = round(store.write_stuck_s)
        found.append(_finding("store", "critical", path, wrong, HINT, stuckSeconds=stuck))
    return found


def _unreadable(path: Path | str, error: ControlError | StoreError) -> Finding:
    """A store that refuses to be read: damage is another matter than a disk that does not work now."""
    damaged = isinstance(error, StoreDamaged) or (
        isinstance(error, ControlError) and error.symbol == "damaged"
    )
    if damaged:
        hint = "stop the daemon, keep a copy of the file, and restore a backup"
        return _finding("store", "critical", path, str(error), hint, **{DAMAGED: True})
    return _finding("store", "critical", path, str(error), "check the disk under it, and its free space")


def _space(path: Path | str) -> Finding:
    if isinstance(path, str):  # on a server, which looks after its own disk
        return _finding("store", "ok", path, "the database answers")
    try:
        free, size = os.statvfs(path), path.stat().st_size
    except OSError as error:
        return _finding("store", "critical", path, f"it cannot be looked at: {error.strerror}")
    left = free.f_bavail * free.f_frsize
    if left < LOW_SPACE:
        text = f"only {left // 1_048_576} MiB are free on its disk"
        return _finding("store", "warning", path, text, "make room", freeBytes=left, bytes=size)
    return _finding("store", "ok", path, "the database answers", freeBytes=left, bytes=size)


# Files.


def _files(settings: Settings, socket: Path) -> Iterator[Finding]:
    database = settings.store.path
    for path in (database, *(database.with_name(database.name + tail) for tail in ("-wal", "-shm"))):
        yield from _mode(path, 0o077, "critical", "others may read or change the keys in it", "chmod 600")
    yield from _mode(database.parent, 0o022, "critical", "others may replace what is in it", "chmod go-w")
    yield from _mode(socket, 0o007, "warning", "every user of this machine may connect", "chmod o=")
    for path in settings.files:
        yield from _mode(path, 0o022, "critical", "others may change the settings", "chmod go-w")


def _mode(path: Path, forbidden: int, level: Level, problem: str, remedy: str) -> Iterator[Finding]:
    try:
        found = path.stat()
    except FileNotFoundError:
        return
    except OSError as error:
        yield _finding("permissions", "warning", path, f"it cannot be looked at: {error.strerror}")
        return
    mode = stat.S_IMODE(found.st_mode)
    facts: dict[str, Any] = {"mode": f"{mode:04o}", "uid": found.st_uid}
    if found.st_uid not in (0, os.getuid()):
        text = f"it belongs to user {found.st_uid}, who may change it"
        yield _finding("permissions", "warning", path, text, f"chown {os.getuid()} {path}", **facts)
    elif mode & forbidden:
        text = f"its permissions are {mode:04o}: {problem}"
        yield _finding("permissions", level, path, text, f"{remedy} {path}", **facts)
    else:
        yield _finding("permissions", "ok", path, f"its permissions are {mode:04o}", **facts)


# Sessions.


def _session(view: SessionView, settings: Settings) -> Iterator[Finding]:
    yield _state(view)
    if view.healthy is not None:
        yield _health(view)
    if view.clock_offset_ms is not None:
        yield _clock(view, settings)
    yield _decryption(view)


def _state(view: SessionView) -> Finding:
    wanted = view.desired == "up" and not view.held
    level: Level = "ok"
    if wanted and view.state != "open":
        level = "warning" if view.state in _UNDER_WAY else "critical"
    elif wanted and not view.ready:
        level = "warning"
    last = view.last_disconnect
    why = "" if last is None else f"; the last connection ended with {last.cause}: {last.message}"
    text = f"it is {view.state}" + (", held" if view.held else "" if wanted else ", as wanted")
    hint = view.hint or NEXT_STEP[view.state].format(name=view.name)
    facts: dict[str, Any] = {
        "state": view.state,
        "desired": view.desired,
        "held": view.held,
        "paired": view.paired,
    }
    return _finding("session", level, view.name, text + why, "" if level == "ok" else hint, **facts)


def _health(view: SessionView) -> Finding:
    facts: dict[str, Any] = {"pingMs": view.ping_ms, "unacked": view.unacked, "unanswered": view.unanswered}
    if view.healthy:
        ping = "" if view.ping_ms is None else f" within {view.ping_ms} ms"
        return _finding("health", "ok", view.name, f"its connection answers{ping}", **facts)
    hint = "it is replaced by itself if that goes on; check the network"
    return _finding("health", "warning", view.name, "its connection does not answer pings", hint, **facts)


def _clock(view: SessionView, settings: Settings) -> Finding:
    offset_ms = view.clock_offset_ms or 0
    text = f"this machine's clock differs from WhatsApp's by {offset_ms / 1000:+.1f} s"
    off = abs(offset_ms) > settings.session(view.name).alerts.clock_skew_s * 1000
    hint = "set the clock, for example by NTP" if off else ""
    return _finding("clock", "warning" if off else "ok", view.name, text, hint, offsetMs=offset_ms)


def _decryption(view: SessionView) -> Finding:
    failures, received = view.decrypt_failures, view.messages_received
    many = failures >= FAILURES_WORTH_A_WORD and failures > FAILURE_SHARE * (received + failures)
    hint = "see message:new events of kind undecryptable; their senders are asked again by themselves"
    text = f"{failures} failures to decrypt, {received} messages received"
    level: Level = "warning" if many else "ok"
    facts: dict[str, Any] = {"decryptFailures": failures, "messagesReceived": received}
    return _finding("decryption", level, view.name, text, hint if many else "", **facts)


def _outbox(view: SessionView) -> Finding:
    held = view.held_messages
    facts: dict[str, Any] = {"queued": view.queued, "held": held}
    if held:
        text = f"{held} messages are held since the credentials were replaced"
        hint = f"wactl outbox list {view.name}; then wactl outbox release, or cancel, {view.name}"
        return _finding("outbox", "warning", view.name, text, hint, **facts)
    if view.queued >= MANY_QUEUED:
        text = f"{view.queued} messages wait to be sent"
        return _finding("outbox", "warning", view.name, text, view.hint or "see outbox.rate", **facts)
    return _finding("outbox", "ok", view.name, f"{view.queued} messages wait to be sent", **facts)


def _move(view: SessionView) -> Iterator[Finding]:
    if (move := view.move) is None:
        return
    way = f"from {move.store}" if move.into else f"to {move.store}"
    where = "; it can run nowhere until then" if move.given_up and not move.into else ""
    text = f"a move of it {way} has begun and not ended{where}"
    hint = f"stop the daemon, then: {move.command}; or give the move up with the same command and --abort"
    facts = {"store": move.store, "into": move.into, "givenUp": move.given_up}
    yield _finding("move", "warning", view.name, text, hint, **facts)


# Subscribers.


def _subscribers(log: EventLog, newest: int) -> Iterator[Finding]:
    for reader in log.readers:
        lag = newest - reader.cursor
        text = f"it is {lag} entries behind the event log"
        hint = (
            "it reads too slowly or not at all; entries past their time are lost to it" if lag > LAG else ""
        )
        facts: dict[str, Any] = {"cursor": reader.cursor, "eventLag": lag}
        yield _finding("events", "warning" if lag > LAG else "ok", reader.name, text, hint, **facts)
