# ruff: noqa: RUF009 - the functions called here make dataclass fields
"""Every option, declared once. All else is made of these fields: validation, defaults, `etc/waD.toml`, the manual.

An attribute that ends in `_s` holds seconds, whatever unit the file uses; its key lacks the ending. The first line
of a class's docstring introduces the section in the manual.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, TypeAlias, get_args

from waD.config.causes import Action
from waD.config.databases import DatabaseUrl
from waD.config.kinds import Choice, Duration, Number, Switch, Whole
from waD.config.option import Derived, derived_path, duration, option, optional, secret
from waD.config.places import socket_file, store_file
from waD.config.strings import Command, File, Mode, PublicKey, Text, Texts, Url, Version

LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]
LogFormat: TypeAlias = Literal["auto", "human", "json", "journal"]
Device: TypeAlias = Literal["Desktop", "Chrome", "Edge", "Firefox", "IE", "Opera", "Safari"]
Tristate: TypeAlias = Literal["auto", "on", "off"]
AfterMax: TypeAlias = Literal["probe", "fail"]

ACCOUNT_NAME: Final = r"[A-Za-z_][A-Za-z0-9_.-]{0,31}\$?"
_PEERS: Final = Texts(
    rf"@?(?:{ACCOUNT_NAME}|[0-9]{{1,10}})",
    'a list of users and groups, by name or number, such as ["alice", "@waD"]',
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Daemon:
    """The process as a whole."""

    stop_timeout_s: float = duration(
        Duration("s", 0, 600),
        20,
        "How long a stop waits for work in flight; a second signal ends it at once.",
    )
    restore_concurrency: int = option(
        Whole(1, 1000), 10, "How many sessions may be logging in at the same time, at the start and later."
    )
    restore_spread_s: float = duration(
        Duration("s", 0, 600), 2, "At the start each session waits a random part of this before it connects."
    )
    log_level: LogLevel = option(
        Choice[LogLevel](get_args(LogLevel)),
        "info",
        "The least severity that is logged; the environment variable WAD_LOG_LEVEL overrides it.",
    )
    log_format: LogFormat = option(
        Choice[LogFormat](get_args(LogFormat)),
        "auto",
        "How log lines look; auto is journal when systemd reads the standard error, and human otherwise.",
        reload=False,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """Where everything durable is kept."""

    path: Path = derived_path(
        File(),
        Derived(
            store_file,
            "$STATE_DIRECTORY/waD.db, else $XDG_STATE_HOME/waD/waD.db, else ~/.local/state/waD/waD.db",
            "/var/lib/waD/waD.db",
        ),
        "The database file; its directory must belong to the daemon's user. Not used with url.",
    )
    url: str | None = secret(
        DatabaseUrl(),
        "A database on a PostgreSQL server, which several daemons may share, instead of a file. Better than a password "
        "in it is password_file.",
        example='"postgresql://waD@db.example.net/waD?sslmode=verify-full"',
        reload=False,
    )
    password_file: Path | None = optional(
        File(),
        "Its first line is the password for the server. It is read at every connection. When absent, the systemd "
        "credential wad-postgres-password; without one, the URL or what libpq finds.",
        example='"/etc/waD/postgres.password"',
        reload=False,
    )
    connections: int = option(
        Whole(1, 100), 4, "Connections to the server for reading; one more writes.", reload=False
    )
    unsafe_durability: bool = option(
        Switch(),
        False,
        "Whether to run on a server that may lose what it has confirmed, as waD --unsafe-durability does; a lost "
        "commit can cost an account its login.",
        reload=False,
    )
    encrypt: Tristate = option(
        Choice[Tristate](get_args(Tristate)),
        "auto",
        "Whether keys and waiting messages of new auth states are encrypted; auto is on for a database file, and "
        "elsewhere where there is a key.",
        reload=False,
    )
    kek_file: Path | None = optional(
        File(),
        "The key that the sessions' own keys are wrapped with, 32 bytes or their base64; FILE.NAME are others. When "
        "absent, the systemd credential wad-kek; without one, a file beside the database, which is made.",
        example='"/etc/waD/kek"',
        reload=False,
    )
    kek: str = option(
        Text(r"[A-Za-z0-9_-]{1,64}", "a name of 1 to 64 letters, digits, - or _"),
        "main",
        "Which key wraps new ones: main is the one in the file itself.",
        reload=False,
    )
    legacy: Tristate = option(
        Choice[Tristate](get_args(Tristate)),
        "auto",
        "Whether new sessions keep key-value rows, as a Node service reads them, beside the snapshot; auto is off for "
        "a database file, which nobody else reads.",
        reload=False,
    )
    # Longer than a daemon that stands still in a transaction can hold up the others (5 s).
    lease_s: float = duration(
        Duration("s", 10, 600),
        30,
        "Where several daemons use one database: after so long without a sign of a daemon, another one takes its "
        "sessions over.",
        reload=False,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """The connection to WhatsApp, and what this device calls itself there. Changes apply to new connections."""

    url: str | None = optional(
        Url(("wss", "ws")),
        "Another server than WhatsApp's own, such as a sandbox.",
        example='"ws://127.0.0.1:8080/ws/chat"',
    )
    root_key: bytes | None = optional(
        PublicKey(),
        "The public key that must have signed the certificate of the server at url; WhatsApp's own when absent.",
        example='"' + "A" * 43 + '="',
    )
    ca_file: Path | None = optional(
        File(),
        "Certificate authorities in PEM form that are trusted for TLS beside those of the system, also at media hosts.",
        example='"/etc/waD/ca.pem"',
    )
    proxy: str | None = secret(
        Url(("http",), user=True),
        "An HTTP proxy that understands CONNECT; with a password in it, the file must not be readable by others.",
        example='"http://proxy.example.net:3128"',
        per_session=True,
    )
    connect_timeout_s: float = duration(
        Duration("s", 1, 600), 60, "From the dial until WhatsApp has accepted the login.", per_session=True
    )
    dial_timeout_s: float = duration(
        Duration("s", 1, 600),
        20,
        "Of it: for the name, TCP, TLS and the websocket upgrade.",
        per_session=True,
    )
    hello_timeout_s: float = duration(
        Duration("s", 1, 600), 20, "Of it: for the server's part of the Noise handshake.", per_session=True
    )
    query_timeout_s: float = duration(
        Duration("s", 1, 600), 60, "For the answer to a request.", per_session=True
    )
    ack_timeout_s: float = duration(
        Duration("s", 1, 600),
        60,
        "For the server's acknowledgement of a message; afterwards the connection counts as deaf.",
        per_session=True,
    )
    keepalive_s: float = duration(Duration("s", 1, 600), 25, "Between pings, on average.", per_session=True)
    keepalive_jitter_s: float = duration(
        Duration("s", 0, 60), 5, "The random part of it, to both sides.", per_session=True
    )
    os_name: str = option(
        Text(r"[^\x00-\x1f]{1,64}", "a name of 1 to 64 characters"),
        "Mac OS",
        "What the phone's list of linked devices shows; used when a session is paired.",
        per_session=True,
    )
    device: Device = option(
        Choice[Device](get_args(Device)),
        "Desktop",
        "The kind of client that the phone shows; used when a session is paired.",
        per_session=True,
    )
    country: str = option(
        Text("[A-Z]{2}", "two capital letters"),
        "US",
        "The country of the client's language.",
        per_session=True,
    )
    push_name: str | None = optional(
        Text(r"[^\x00-\x1f]{1,100}", "a name of 1 to 100 characters"),
        "The name that is announced at login; only with url, because test servers select accounts by it.",
        example='"Alerts"',
        per_session=True,
    )
    online_on_connect: bool = option(
        Switch(),
        True,
        "Whether the account appears online while connected; the phone then shows fewer notifications.",
        per_session=True,
    )
    full_history: bool = option(
        Switch(),
        False,
        "Whether the phone is asked for its whole history when a session is paired.",
        per_session=True,
    )
    version: tuple[int, int, int] | None = optional(
        Version(),
        "The web client's version to announce; when absent the built-in one, or a newer one of WhatsApp's after 405.",
        example='"2.3000.1045649367"',
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconnect:
    """What happens after a connection ended: delays, counters, and single causes in [reconnect.on].

    Attributes:
        on: cause id to action, for the rows of the disconnect table that the files change.
    """

    base_s: float = duration(
        Duration("ms", 1, 600_000), 1000, "The first delay; each attempt multiplies it.", per_session=True
    )
    multiplier: float = option(Number(1, 10), 2.0, "By how much the delay grows.", per_session=True)
    max_s: float = duration(Duration("s", 1, 86_400), 30, "The longest delay.", per_session=True)
    jitter_s: float = duration(
        Duration("ms", 0, 60_000),
        1000,
        "A random part up to this is added before the limit.",
        per_session=True,
    )
    attempts: int = option(
        Whole(1, 1000),
        10,
        "After this many in a row without a stable connection it gives up.",
        per_session=True,
    )
    stable_after_s: float = duration(
        Duration("s", 1, 3600), 30, "A connection open for this long resets the counters.", per_session=True
    )
    slow_base_s: float = duration(
        Duration("s", 1, 3600),
        30,
        "The first delay after causes that call for patience, such as a rate limit.",
        per_session=True,
    )
    slow_max_s: float = duration(
        Duration("s", 1, 86_400), 900, "The longest delay after such causes.", per_session=True
    )
    after_max: AfterMax = option(
        Choice[AfterMax](get_args(AfterMax)),
        "probe",
        "After the last attempt, when WhatsApp was never reached: probe tries on at long intervals, fail does not.",
        per_session=True,
    )
    probe_interval_s: float = duration(Duration("min", 1, 1440), 15, "Between such probes.", per_session=True)
    pair_rounds: int = option(
        Whole(1, 3),
        1,
        "How many rounds of QR codes are shown before a session waits for the operator.",
        per_session=True,
    )
    undo_days: float = duration(
        Duration("d", 1, 3650, bare=True),
        30,
        "For how many days credentials that were cleared can be restored.",
        per_session=True,
    )
    on: Mapping[str, Action] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """When a connection counts as unhealthy or dead."""

    ping_interval_s: float = duration(
        Duration("s", 5, 3600),
        60,
        "At least one ping in this time, even when frames arrive.",
        per_session=True,
    )
    quiet_s: float = duration(
        Duration("s", 0, 3600),
        15,
        "A ping is skipped when a frame arrived less than this ago.",
        per_session=True,
    )
    pong_late_s: float = duration(
        Duration("s", 1, 600),
        5,
        "Without any frame for this long after a ping the session is unhealthy and a second ping follows.",
        per_session=True,
    )
    dead_after_s: float = duration(
        Duration("s", 1, 600),
        20,
        "Without any frame for this long after the first unanswered ping the connection is replaced.",
        per_session=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Alerts:
    """When somebody is told, and how."""

    reconnects: int = option(
        Whole(1, 1000),
        3,
        "More reconnects than this within reconnect_window raise an alert.",
        per_session=True,
    )
    reconnect_window_s: float = duration(
        Duration("s", 10, 86_400), 300, "The time in which reconnects are counted.", per_session=True
    )
    clock_skew_s: float = duration(
        Duration("s", 1, 86_400), 60, "A clock that differs from WhatsApp's by more raises an alert."
    )
    backup_age_s: float = duration(
        Duration("h", 0, 8760),
        26,
        "A session that was backed up once, and not for so long since, is a warning of wactl check; 0 is for never.",
        per_session=True,
    )
    command: tuple[str, ...] = option(
        Command(),
        (),
        "A program to run for each alert, without a shell; the alert is JSON on its standard input.",
    )
    command_timeout_s: float = duration(Duration("s", 1, 3600), 30, "The command is killed after this time.")
    command_concurrency: int = option(Whole(1, 64), 2, "How many of these commands may run at the same time.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Events:
    """How long the durable event log is kept. The first limit reached counts."""

    days: float = duration(Duration("d", 1, 36_500, bare=True), 30, "Events older than this are dropped.")
    rows: int = option(Whole(1000, 1_000_000_000), 1_000_000, "The newest events that are kept per session.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outbox:
    """Sending."""

    keep_days: float = duration(
        Duration("d", 1, 36_500, bare=True), 30, "For how many days finished entries are kept."
    )
    rate: float = option(
        Number(0, 1000), 20.0, "The most messages per second and session; 0 sets no limit.", per_session=True
    )
    new_conversation_interval_s: float = duration(
        Duration("s", 0, 86_400),
        10,
        "The least time between first messages to people who never wrote; 0 sets no limit.",
        per_session=True,
    )
    text_limit: int = option(
        Whole(1, 65_536), 65_536, "Texts with more characters are refused, never cut.", per_session=True
    )
    expire_s: float = duration(
        Duration("s", 0, 31_536_000),
        0,
        "A message that could not be sent for this long expires; 0 keeps it until it can be sent.",
        per_session=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Messages:
    """Receiving."""

    retry_delay_s: float = duration(
        Duration("ms", 0, 60_000),
        250,
        "Between requests to send undecryptable messages again, while online.",
        per_session=True,
    )
    retries: int = option(
        Whole(1, 5),
        5,
        "How often one message is asked for again before the phone is asked.",
        per_session=True,
    )
    read_receipts: bool = option(
        Switch(),
        True,
        "Whether marking as read tells the sender; otherwise only the account's own devices, where WhatsApp allows it.",
        per_session=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """Who may do what over the control socket. Root and the daemon's own user are always admin."""

    admin: tuple[str, ...] = option(_PEERS, (), "May do everything.")
    operator: tuple[str, ...] = option(
        _PEERS, (), "May connect, pair, send and read, but not delete, restore or change the daemon."
    )
    observer: tuple[str, ...] = option(_PEERS, (), "May read states and events.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """The Unix socket that wactl uses."""

    path: Path = derived_path(
        File(),
        Derived(
            socket_file,
            "$RUNTIME_DIRECTORY/control.sock, else $XDG_RUNTIME_DIR/waD/control.sock, else /run/waD/control.sock",
            "/run/waD/control.sock",
        ),
        "The socket; a socket passed by systemd takes precedence.",
    )
    group: str | None = optional(
        Text(rf"{ACCOUNT_NAME}|[0-9]{{1,10}}", "the name or number of a group"),
        "The group that the socket file is given to; the daemon must be a member of it.",
        example='"waD"',
        reload=False,
    )
    mode: int = option(Mode(), 0o660, "The permissions of the socket file.", reload=False)
    max_clients: int = option(
        Whole(1, 4096), 128, "How many clients may be connected; administrators are let in beyond it."
    )
    max_clients_per_user: int = option(Whole(1, 4096), 32, "How many of them may be one user's.")
    max_requests: int = option(
        Whole(1, 1024), 32, "How many requests of one client may be in work; further ones wait."
    )
    max_subscriptions: int = option(Whole(1, 256), 16, "How many event subscriptions one client may have.")
    write_timeout_s: float = duration(
        Duration("s", 1, 3600), 60, "A client that takes nothing of an answer for this long is dropped."
    )
    roles: Roles = field(default_factory=Roles)
