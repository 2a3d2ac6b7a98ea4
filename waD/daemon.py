"""The daemon: builds the rooms, runs them in one nursery, and stops them in order.

Exit status: 0 after an orderly stop, 2 when the start was refused for a reason that only a person can mend (the
configuration, the store, a socket in use), 1 for everything else.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import platform
import random
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import click
import trio

from waD import logs
from waD.config import ConfigErrors, Settings, diff, load
from waD.config import Control as ControlSection
from waD.control.api import ControlError
from waD.control.peers import UnknownAccount
from waD.control.server import ControlServer
from waD.control.settings import ControlSettings, Limits, Roles
from waD.control.sockets import (
    SocketError,
    UnixListener,
    activated_descriptors,
    adopt_socket,
    bind_socket,
)
from waD.control.types import PROTOCOL_VERSION, DaemonInfo, ReloadResult
from waD.events.log import EventLog
from waD.session.alerts import run_alert_commands
from waD.session.doors import Doors
from waD.session.manager import Manager
from waD.session.network import NetworkDoors
from waD.session.retention import run_retention
from waD.session.vitals import Clock
from waD.store.errors import StorageUnavailable, StoreError
from waD.store.store import Store, StoreSettings, open_store
from waD.systemd import Notifier

EXIT_FAILED: Final = 1
EXIT_REFUSED: Final = 2
STATUS_EVERY_S: Final = 10.0
"""How often `systemctl status` hears how many sessions are open."""
SERVER_STOP_S: Final = 6.0
"""A little longer than the control server takes to let its clients go."""
PRIVATE_DIRECTORY: Final = 0o700
SERVICE_DIRECTORY: Final = 0o750

_log = logging.getLogger(__name__)


class Refused(Exception):  # noqa: N818 - what happened to the start
    """The daemon cannot start, and will not without a person's help."""


def unix_ms() -> int:
    """The time of day in Unix milliseconds."""
    return time.time_ns() // 1_000_000


CLOCK: Final = Clock(unix_ms=unix_ms, jitter=random.random, random=os.urandom)


def version() -> str:
    """The version of the installed program."""
    try:
        return importlib.metadata.version("wactl")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


class Application:
    """One daemon; `run` it once. Implements `waD.control.api.Daemon`.

    Args:
        settings: as read at the start.
        config: the file that was named, for reloads; None for the default place.
        environ: the process environment.
    """

    def __init__(self, settings: Settings, config: Path | None, environ: Mapping[str, str]) -> None:
        self._settings = settings
        self._config = config
        self._environ = environ
        self._notifier = Notifier.from_environment(environ)
        self._stop = trio.Event()
        self._started_ms = unix_ms()
        self._store: Store | None = None
        self._manager: Manager | None = None
        self._server: ControlServer | None = None

    async def run(self) -> None:
        """Run until a signal or `daemon.stop` asks for the end.

        Raises:
            Refused: the start is refused.
            StoreError: the store failed in a way that may pass.
        """
        for warning in self._settings.warnings:
            _log.warning("%s", warning)
        _warn_of_foreign_server(self._settings)
        async with open_store(_store_settings(self._settings)) as store:
            log = EventLog(store)
            manager = Manager(store, log, lambda: self._settings, self._doors, CLOCK, _holder())
            server = ControlServer(manager, self, control_settings(self._settings), version=version())
            self._store, self._manager, self._server = store, manager, server
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch_signals)
                await nursery.start(manager.run)
                served = trio.Event()
                await nursery.start(_serve, server, self._listeners(), served)
                nursery.start_soon(run_retention, store, unix_ms)
                nursery.start_soon(run_alert_commands, log, lambda: self._settings.alerts)
                nursery.start_soon(self._tell_service_manager)
                _log.info("ready: %s", self._settings.store.path)
                await self._stop.wait()
                await self._shut_down(manager, server, served)
                nursery.cancel_scope.cancel()
        self._notifier.close()

    async def _shut_down(self, manager: Manager, server: ControlServer, served: trio.Event) -> None:
        """The sessions first, so that subscribers still see their last events."""
        _log.info("stopping")
        self._notifier.stopping("closing the sessions")
        await manager.stop()
        server.stop()
        with trio.move_on_after(SERVER_STOP_S):
            await served.wait()

    def _doors(self, name: str) -> Doors:
        return NetworkDoors(lambda: self._settings.session(name), CLOCK)

    def _listeners(self) -> Sequence[UnixListener]:
        control = self._settings.control
        try:
            if descriptors := activated_descriptors(self._environ):
                return [adopt_socket(fd) for fd in descriptors]
            users = control.path.parent.parent == Path(self._environ.get("XDG_RUNTIME_DIR") or "-")
            mode = PRIVATE_DIRECTORY if users else SERVICE_DIRECTORY
            return [bind_socket(control.path, group=control.group, mode=control.mode, directory_mode=mode)]
        except SocketError as error:
            raise Refused(str(error)) from error

    # What the service manager hears.

    async def _tell_service_manager(self) -> None:
        self._notifier.ready(await self._summary())
        every_s = STATUS_EVERY_S
        if self._notifier.watchdog_s is not None:
            every_s = min(every_s, self._notifier.watchdog_s / 3)
        while True:
            await trio.sleep(every_s)
            self._notifier.status(await self._summary())
            if await self._answers():
                self._notifier.alive()

    async def _summary(self) -> str:
        try:
            states = await self._states()
        except StoreError as error:
            return f"the store does not answer: {error}"
        total = sum(states.values())
        rest = ", ".join(f"{count} {state}" for state, count in sorted(states.items()) if state != "open")
        return f"{states['open']} of {total} sessions open" + (f" ({rest})" if rest else "")

    async def _states(self) -> Counter[str]:
        assert self._store is not None
        return Counter(row.current_status for row in await self._store.sessions())

    async def _answers(self) -> bool:
        """Whether the store answers; that the loop turns is shown by this being asked."""
        assert self._store is not None
        try:
            await self._store.last_cursor()
        except StoreError:
            _log.exception("the store does not answer; the watchdog is not fed")
            return False
        return True

    # Signals.

    async def _watch_signals(self) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as received:
            async for number in received:
                if number == signal.SIGHUP:
                    await self._reload_on_signal()
                elif self._stop.is_set():
                    _log.warning("a second signal: ending at once")
                    logs.flush()
                    os._exit(EXIT_FAILED)
                else:
                    self.stop()

    async def _reload_on_signal(self) -> None:
        self._notifier.reloading()
        try:
            await self.reload()
        except ControlError as refused:
            _log.error("the configuration stays as it was:\n%s", refused.message)
        self._notifier.ready(await self._summary())

    # The control protocol's daemon.

    async def info(self) -> DaemonInfo:
        """What runs here."""
        assert self._store is not None
        states = await self._states()
        return DaemonInfo(
            pid=os.getpid(),
            version=version(),
            protocol=PROTOCOL_VERSION,
            started_at=self._started_ms,
            socket=str(self._settings.control.path),
            config=", ".join(map(str, self._settings.files)) or None,
            store=f"sqlite:{self._settings.store.path}",
            sessions=sum(states.values()),
            states=dict(states),
            last_cursor=await self._store.last_cursor(),
            python=platform.python_version(),
            platform=platform.platform(),
        )

    async def reload(self) -> ReloadResult:
        """Read the files again; all of it or nothing comes into force.

        Raises:
            ControlError: `refused`, with every fault.
        """
        try:
            new = await trio.to_thread.run_sync(load, self._config, self._environ)
            assert self._server is not None
            self._server.reconfigure(control_settings(new))
        except (ConfigErrors, UnknownAccount) as error:
            raise ControlError("refused", str(error)) from None
        applied, restart = diff(self._settings, new)
        self._settings = new
        logs.set_level(new.daemon.log_level, self._environ)
        _log.info("configuration read again: %s", ", ".join(applied) or "nothing changed")
        if restart:
            _log.warning("these changes need a restart: %s", ", ".join(restart))
        return ReloadResult(applied=applied, restart_needed=restart)

    def stop(self) -> None:
        """Ask for an orderly stop."""
        self._stop.set()


async def _serve(
    server: ControlServer,
    listeners: Sequence[UnixListener],
    served: trio.Event,
    *,
    task_status: trio.TaskStatus[object],
) -> None:
    await server.serve(listeners, task_status=task_status)
    served.set()


def control_settings(settings: Settings) -> ControlSettings:
    """The part that the control server takes."""
    control = settings.control
    return ControlSettings(roles=_roles(control), limits=_limits(control))


def _roles(control: ControlSection) -> Roles:
    return Roles(admin=control.roles.admin, operator=control.roles.operator, observer=control.roles.observer)


def _limits(control: ControlSection) -> Limits:
    return Limits(connections=control.max_clients, requests=control.max_requests)


def _store_settings(settings: Settings) -> StoreSettings:
    return StoreSettings(
        path=settings.store.path,
        event_days=round(settings.events.days),
        events_per_session=settings.events.rows,
    )


def _holder() -> str:
    """Who takes the leases."""
    return f"pid {os.getpid()} on {socket.gethostname()}"


def _warn_of_foreign_server(settings: Settings) -> None:
    if settings.network.url is not None:
        _log.warning(
            "network.url (%s) sends every session to %s instead of WhatsApp",
            settings.origin("network.url"),
            settings.network.url,
        )


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Read FILE instead of the default place; conf.d is looked for beside it.",
)
@click.option("--check-config", is_flag=True, help="Check the configuration, say what is wrong, and exit.")
@click.version_option(version(), prog_name="waD")
def main(config: Path | None, check_config: bool) -> None:
    """Hold WhatsApp sessions and keep them alive. wactl is how to talk to it.

    Example: waD --config /etc/waD/waD.toml
    """
    os.umask(0o077)
    try:
        settings = load(config, os.environ)
    except ConfigErrors as errors:
        click.echo(str(errors), err=True)
        sys.exit(EXIT_REFUSED)
    if check_config:
        files = ", ".join(map(str, settings.files)) or "no file, only defaults"
        click.echo(f"the configuration is valid ({files})")
        return
    logs.set_up(level=settings.daemon.log_level, log_format=settings.daemon.log_format, environ=os.environ)
    try:
        sys.exit(run(settings, config))
    finally:
        logs.tear_down()


def run(settings: Settings, config: Path | None) -> int:
    """Run a daemon to its end; returns the exit status."""
    try:
        trio.run(Application(settings, config, os.environ).run)
    except (Refused, UnknownAccount) as error:
        _log.critical("not started: %s", error)
        return EXIT_REFUSED
    except BaseExceptionGroup as group:
        return _ended_by(group)
    except StoreError as error:
        _log.critical("not started: %s", error)
        return EXIT_FAILED if isinstance(error, StorageUnavailable) else EXIT_REFUSED
    return 0


def _ended_by(group: BaseExceptionGroup[BaseException]) -> int:
    """Name what ended the nursery."""
    known, other = group.split((Refused, UnknownAccount, StoreError))
    if other is not None:
        _log.critical("ended by a fault of this program", exc_info=other)
        return EXIT_FAILED
    assert known is not None
    first: BaseException = known
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    _log.critical("not started: %s", first)
    return EXIT_FAILED if isinstance(first, StorageUnavailable) else EXIT_REFUSED


if __name__ == "__main__":
    main(prog_name="waD")
