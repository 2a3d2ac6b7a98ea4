"""The daemon: builds the rooms, runs them in one nursery, and stops them in order.

Exit status: 0 after an orderly stop, 2 when the start was refused for a reason that only a person can mend (the
configuration, the store, a socket in use), 1 for everything else.
"""

from __future__ import annotations

import logging
import os
import platform
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import click
import trio

from waD import __version__, logs
from waD.config import ConfigErrors, Settings, diff, in_force, load
from waD.config import Control as ControlSection
from waD.control.api import ControlError
from waD.control.peers import RoleTable, UnknownAccount
from waD.control.server import ControlServer
from waD.control.settings import ControlSettings, Limits, Roles
from waD.control.sockets import (
    SocketError,
    UnixListener,
    activated_descriptors,
    adopt_socket,
    bind_socket,
)
from waD.control.types import (
    PROTOCOL_VERSION,
    CheckReport,
    ConfigList,
    DaemonInfo,
    OptionView,
    ReloadResult,
    SubscriberView,
)
from waD.events.log import EventLog
from waD.session.alerts import run_alert_commands
from waD.session.checkup import check_up
from waD.session.doors import Doors
from waD.session.holders import own_holder
from waD.session.manager import Manager
from waD.session.network import NetworkDoors
from waD.session.retention import run_retention, store_settings
from waD.session.snapshots import run_snapshots, seal_at_end
from waD.session.stillness import StillnessWatch, standing_still
from waD.session.version import VersionSource
from waD.session.vitals import Clock
from waD.store.codec import Codec, deferred
from waD.store.errors import StorageUnavailable, StoreError
from waD.store.store import Parts, Store, open_store
from waD.systemd import Notifier
from waD.transfer.upgrade import upgrade_item

EXIT_FAILED: Final = 1
EXIT_REFUSED: Final = 2
STATUS_EVERY_S: Final = 10.0
"""How often `systemctl status` hears how many sessions are open."""
PATIENCE_S: Final = 30.0
"""How much longer than now the service manager is asked to wait while the store is being opened."""
ANSWER_S: Final = 10.0
"""How long store and control socket may take to answer before the watchdog goes hungry."""
SEAL_S: Final = 5.0
"""For sealing the sessions' keys at the end."""
PING: Final = b'{"jsonrpc":"2.0","id":1,"method":"daemon.ping"}\n'
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


def _legacy_codec() -> Codec:
    from waD.transfer.legacy.codec import LegacyCodec  # it brings the importers with it

    return LegacyCodec()


STORE_PARTS: Final = Parts(codec=deferred(_legacy_codec), upgrade=upgrade_item)
CLOCK: Final = Clock(unix_ms=unix_ms, jitter=random.random, random=os.urandom)


class Application:
    """One daemon; `run` it once. Implements `waD.control.api.Daemon`.

    Args:
        settings: as read at the start.
        config: the file that was named, for reloads; None for the default place.
        environ: the process environment.
        unsafe_durability: whether a database that may lose commits will do.
    """

    def __init__(
        self,
        settings: Settings,
        config: Path | None,
        environ: Mapping[str, str],
        *,
        unsafe_durability: bool = False,
    ) -> None:
        self._settings = settings
        self._config = config
        self._environ = environ
        self._unsafe_durability = unsafe_durability
        self._notifier = Notifier.from_environment(environ)
        self._stop = trio.Event()
        self._versions = VersionSource()
        self._started_ms = unix_ms()
        self._loading = trio.Lock()
        self._store: Store | None = None
        self._log: EventLog | None = None
        self._manager: Manager | None = None
        self._server: ControlServer | None = None
        self._address = str(settings.control.path)

    async def run(self) -> None:
        """Run until a signal or `daemon.stop` asks for the end.

        Raises:
            Refused, UnknownAccount: the start is refused; nothing was changed.
            StoreError: the store cannot be used.
        """
        for warning in self._settings.warnings:
            _log.warning("%s", warning)
        _warn_of_foreign_server(self._settings)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_signals)
            async with AsyncExitStack() as stack:
                store = await self._open_store(stack)
                manager, server = self._compose(store)
                # Before any session connects: a daemon that nobody can talk to must not run one.
                listeners = self._listeners()
                for listener in listeners:
                    stack.push_async_callback(listener.aclose)
                if not self._stop.is_set():
                    await self._run_rooms(store, manager, server, listeners)
            nursery.cancel_scope.cancel()
        self._notifier.close()

    async def _open_store(self, stack: AsyncExitStack) -> Store:
        """Open it for the life of the stack; a migration may take its time."""
        settings = store_settings(
            self._settings,
            self._environ.get("CREDENTIALS_DIRECTORY"),
            unsafe_durability=self._unsafe_durability,
        )
        async with trio.open_nursery() as meanwhile:
            meanwhile.start_soon(self._ask_for_time)
            store = await stack.enter_async_context(open_store(settings, STORE_PARTS))
            meanwhile.cancel_scope.cancel()
        return store

    async def _ask_for_time(self) -> None:
        while True:
            await trio.sleep(PATIENCE_S / 3)
            self._notifier.extend(PATIENCE_S)
            self._notifier.status("opening the store")

    def _compose(self, store: Store) -> tuple[Manager, ControlServer]:
        log = EventLog(store)
        manager = Manager(
            store,
            log,
            lambda: self._settings,
            self._doors,
            CLOCK,
            own_holder(),
            logs.session_context,
            f"waD {__version__}",
        )
        server = ControlServer(manager, self, control_settings(self._settings))
        self._store, self._log, self._manager, self._server = store, log, manager, server
        return manager, server

    async def _run_rooms(
        self, store: Store, manager: Manager, server: ControlServer, listeners: Sequence[UnixListener]
    ) -> None:
        """Everything, until the end is asked for and done."""
        self._address = listeners[0].address
        served = trio.Event()
        async with trio.open_nursery() as nursery:
            await nursery.start(manager.run)
            await nursery.start(_serve, server, listeners, served)
            nursery.start_soon(run_retention, store, unix_ms)
            nursery.start_soon(run_snapshots, store, lambda: self._settings, unix_ms)
            assert self._log is not None
            nursery.start_soon(run_alert_commands, self._log, lambda: self._settings.alerts)
            watch = StillnessWatch(store, lambda: self._settings.alerts, unix_ms)
            nursery.start_soon(watch.run)
            nursery.start_soon(self._tell_service_manager)
            _log.info("ready: %s", store.name)
            await self._stop.wait()
            await self._shut_down(store, manager, server, served)
            nursery.cancel_scope.cancel()

    async def _shut_down(
        self, store: Store, manager: Manager, server: ControlServer, served: trio.Event
    ) -> None:
        """The sessions first, so that subscribers still see their last events."""
        _log.info("stopping")
        self._notifier.stopping("closing the sessions")
        await manager.stop()
        with trio.move_on_after(SEAL_S):
            await seal_at_end(store)
        server.stop()
        with trio.move_on_after(SERVER_STOP_S):
            await served.wait()

    def _doors(self, name: str) -> Doors:
        return NetworkDoors(lambda: self._settings.session(name), CLOCK, versions=self._versions)

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
            if self._notifier.watchdog_s is not None and await self._is_alive():
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

    async def _is_alive(self) -> bool:
        """Whether store and control socket answer; that the loop turns is shown by this being asked."""
        assert self._store is not None
        with trio.move_on_after(ANSWER_S):
            try:
                await self._store.last_cursor()
                if standing_still(self._store) is not None:
                    _log.error("a transaction stands still; the watchdog is not fed")
                    return False
                return self._stop.is_set() or await answers(self._address)
            except StoreError as error:
                _log.error("the store does not answer; the watchdog is not fed: %s", error)
                return False
        _log.error("nothing answered within %g s; the watchdog is not fed", ANSWER_S)
        return False

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
        if self._server is None:
            _log.warning("not read again: the daemon is just starting")
            return
        self._notifier.reloading()
        try:
            await self.reload()
        except ControlError as refused:
            _log.error("the configuration stays as it was:\n%s", refused.message)
        finally:
            self._notifier.ready(await self._summary())

    # The control protocol's daemon.

    async def info(self) -> DaemonInfo:
        """What runs here."""
        assert self._store is not None
        assert self._log is not None
        states = await self._states()
        last = await self._store.last_cursor()
        readers = [
            SubscriberView(name=reader.name, cursor=reader.cursor, event_lag=max(0, last - reader.cursor))
            for reader in self._log.readers
        ]
        return DaemonInfo(
            pid=os.getpid(),
            version=__version__,
            protocol=PROTOCOL_VERSION,
            started_at=self._started_ms,
            socket=self._address,
            config=", ".join(map(str, self._settings.files)) or None,
            store=self._store.name,
            sessions=sum(states.values()),
            states=dict(states),
            last_cursor=last,
            python=platform.python_version(),
            platform=platform.platform(),
            event_lag=max((reader.event_lag for reader in readers), default=0),
            subscribers=readers,
            store_stuck_seconds=int(self._store.write_stuck_s),
        )

    async def config(self) -> ConfigList:
        """Every option in force; passwords are masked."""
        settings = self._settings
        return ConfigList(
            options=[OptionView(key=one.key, value=one.value, origin=one.origin) for one in settings.show()],
            files=[str(path) for path in settings.files],
            warnings=[str(warning) for warning in settings.warnings],
        )

    async def check(self) -> CheckReport:
        """Look at everything, change nothing."""
        assert self._store is not None
        assert self._log is not None
        assert self._manager is not None
        views, symptoms = self._manager.list, self._manager.repair.symptoms
        address = Path(self._address)
        return await check_up(self._store, self._log, views, self._settings, address, symptoms)

    async def reload(self) -> ReloadResult:
        """Read the files again; all of it or nothing comes into force.

        Raises:
            ControlError: `refused`, with every fault.
        """
        assert self._manager is not None
        assert self._server is not None
        async with self._loading:
            try:
                new = await trio.to_thread.run_sync(load, self._config, self._environ)
                self._server.reconfigure(control_settings(new))
            except (ConfigErrors, UnknownAccount) as error:
                raise ControlError("refused", str(error)) from None
            applied, restart = diff(self._settings, new)
            new = self._settings = in_force(self._settings, new)
        self._manager.reloaded()
        if "network.url" in applied:
            _warn_of_foreign_server(new)
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
    return Limits(
        connections=control.max_clients,
        connections_per_uid=control.max_clients_per_user,
        requests=control.max_requests,
        subscriptions=control.max_subscriptions,
        write_timeout=control.write_timeout_s,
    )


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
@click.option(
    "--unsafe-durability",
    is_flag=True,
    help="Run on a database server that may lose what it has confirmed, which can cost an account its login.",
)
@click.option("--check-config", is_flag=True, help="Check the configuration, say what is wrong, and exit.")
@click.version_option(__version__, prog_name="waD")
def main(config: Path | None, unsafe_durability: bool, check_config: bool) -> None:
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
        _check_accounts(settings)
        files = ", ".join(map(str, settings.files)) or "no file, only defaults"
        click.echo(f"the configuration is valid ({files})")
        return
    logs.set_up(level=settings.daemon.log_level, log_format=settings.daemon.log_format, environ=os.environ)
    try:
        sys.exit(run(settings, config, unsafe_durability=unsafe_durability))
    finally:
        logs.tear_down()


def _check_accounts(settings: Settings) -> None:
    """What only this machine can tell about a configuration."""
    for warning in settings.warnings:
        click.echo(str(warning), err=True)
    try:
        RoleTable.resolve(control_settings(settings).roles)
    except UnknownAccount as error:
        click.echo(str(error), err=True)
        sys.exit(EXIT_REFUSED)


async def answers(address: str) -> bool:
    """Whether a control server answers a ping at a socket, with whatever."""
    try:
        async with await trio.open_unix_socket(address) as stream:
            await stream.send_all(PING)
            return bool(await stream.receive_some(1))
    except (OSError, trio.BrokenResourceError) as error:
        _log.error("the control socket %s does not answer: %s", address, error)
        return False


def run(settings: Settings, config: Path | None, *, unsafe_durability: bool = False) -> int:
    """Run a daemon to its end; returns the exit status."""
    try:
        trio.run(Application(settings, config, os.environ, unsafe_durability=unsafe_durability).run)
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
