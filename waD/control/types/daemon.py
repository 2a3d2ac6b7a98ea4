"""The daemon itself: what runs, its settings, its check-up."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from waD.control.types.base import Answer
from waD.control.types.words import Role


class OptionView(Answer, frozen=True, kw_only=True):
    """One option in force.

    Attributes:
        key: its full name, such as `reconnect.base` or `sessions.alerts.reconnect.base`.
        value: as TOML; passwords are masked, `none` when there is no value.
        origin: `default`, or `FILE:LINE`.
    """

    key: str
    value: str
    origin: str


class ConfigList(Answer, frozen=True, kw_only=True):
    """Answer of `config.show`: every option, the files they were read from, and what was odd in them."""

    options: list[OptionView]
    files: list[str] = []
    warnings: list[str] = []


Level: TypeAlias = Literal["ok", "warning", "critical"]


class Finding(Answer, frozen=True, kw_only=True):
    """One thing that was looked at.

    Attributes:
        check: what: `store`, `permissions`, `session`, `health`, `clock`, `decryption`, `app_state`, `outbox`, `move`
            or `events`.
        level: how it is.
        subject: the session, file or subscriber.
        message: one sentence.
        hint: what to do; empty when all is well.
        data: the facts, by check.
    """

    check: str
    level: Level
    subject: str
    message: str
    hint: str = ""
    data: dict[str, Any] = {}


class CheckReport(Answer, frozen=True, kw_only=True):
    """Answer of `daemon.check`: everything that was looked at, and the worst level among it."""

    level: Level
    findings: list[Finding]


class Pong(Answer, frozen=True, kw_only=True):
    """Answer of `daemon.ping`: who answers, and as what it sees the caller."""

    pid: int
    version: str
    protocol: int
    role: Role


class SubscriberView(Answer, frozen=True, kw_only=True):
    """Somebody who reads the event log.

    Attributes:
        name: `client`, or the part of the daemon that reads.
        cursor: the last event handed over, or passed over because it was not asked for.
        event_lag: how many entries of the log come after it.
    """

    name: str
    cursor: int
    event_lag: int


class DaemonInfo(Answer, frozen=True, kw_only=True):
    """Answer of `daemon.info`.

    Attributes:
        store: which store, without credentials.
        states: number of sessions in each state.
        event_lag: how far the slowest subscriber is behind the log.
        store_stuck_seconds: for how long the store's present transaction has been running; normally 0.
    """

    pid: int
    version: str
    protocol: int
    started_at: int
    socket: str = ""
    config: str | None = None
    store: str = ""
    sessions: int = 0
    states: dict[str, int] = {}
    last_cursor: int = 0
    python: str = ""
    platform: str = ""
    event_lag: int = 0
    subscribers: list[SubscriberView] = []
    store_stuck_seconds: int = 0


class ReloadResult(Answer, frozen=True, kw_only=True):
    """Answer of `daemon.reload`: keys now in force, and keys that need a restart."""

    applied: list[str] = []
    restart_needed: list[str] = []
