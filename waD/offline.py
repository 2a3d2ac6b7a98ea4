"""The store without a daemon: `python -m waD.offline` answers the control protocol to the one client that started it.

It has the store's lock or leases meanwhile, connects to nobody, and ends when its client hangs up. So whatever a
client can ask a daemon about stored sessions it can ask without one, in the same words.

Exit status: 0 after the client has hung up, 2 for a configuration that cannot be used, 3 when another process uses
the store, 1 for everything else.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NoReturn

import click
import trio

from waD import __version__
from waD.config import ConfigErrors, Settings, load
from waD.control.api import ControlError
from waD.control.hangup import wait_hangup
from waD.control.server import ControlServer
from waD.control.settings import ControlSettings, Limits
from waD.control.types import CheckReport, ConfigList, DaemonInfo, ReloadResult
from waD.daemon import CLOCK, STORE_PARTS
from waD.events.log import EventLog
from waD.session.doors import Doors
from waD.session.holders import own_holder
from waD.session.manager import Manager
from waD.session.network import NetworkDoors
from waD.session.retention import store_settings
from waD.session.version import VersionSource
from waD.store.errors import SessionLeased, StoreError, StoreLocked
from waD.store.store import Store, open_store

EXIT_FAILED: Final = 1
EXIT_REFUSED: Final = 2
EXIT_IN_USE: Final = 3
DRAIN_S: Final = 3600.0
"""What was begun is finished, also when whoever asked for it has gone."""


class NoDaemon:
    """Stands where the daemon's own methods are asked for. Implements `waD.control.api.Daemon`."""

    async def info(self) -> DaemonInfo:
        """See `Daemon.info`."""
        self._refuse()

    async def config(self) -> ConfigList:
        """See `Daemon.config`."""
        self._refuse()

    async def check(self) -> CheckReport:
        """See `Daemon.check`."""
        self._refuse()

    async def reload(self) -> ReloadResult:
        """See `Daemon.reload`."""
        self._refuse()

    def stop(self) -> None:
        """It ends when its client hangs up."""

    def _refuse(self) -> NoReturn:
        raise ControlError("refused", "no daemon runs; this is only its store")


class OneClient(trio.abc.Listener[trio.SocketStream]):
    """A listener for a client that is connected already."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream: trio.SocketStream | None = stream

    async def accept(self) -> trio.SocketStream:
        """Give the client; nobody comes after it."""
        stream, self._stream = self._stream, None
        if stream is None:
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        assert stream is not None
        return stream

    async def aclose(self) -> None:
        """Let nobody in any more."""
        await trio.lowlevel.checkpoint()


async def serve(settings: Settings, environ: Mapping[str, str], client: socket.socket) -> None:
    """Answer one client until it hangs up.

    Raises:
        StoreError: the store cannot be used.
    """
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(client))
    watched = trio.socket.from_stdlib_socket(client.dup())
    async with open_store(
        store_settings(settings, environ.get("CREDENTIALS_DIRECTORY")), STORE_PARTS
    ) as store:
        manager = compose(store, settings)
        server = ControlServer(manager, NoDaemon(), ControlSettings(limits=Limits(drain=DRAIN_S)))
        async with trio.open_nursery() as nursery:
            await nursery.start(manager.run)
            await nursery.start(server.serve, [OneClient(stream)])
            await wait_hangup(watched)
            watched.close()
            server.stop()
            await manager.stop()


def compose(store: Store, settings: Settings) -> Manager:
    """All sessions of a store, asleep."""
    versions = VersionSource()

    def doors(name: str) -> Doors:
        return NetworkDoors(lambda: settings.session(name), CLOCK, versions=versions)

    manager = Manager(
        store, EventLog(store), lambda: settings, doors, CLOCK, own_holder(), program=f"waD {__version__}"
    )
    manager.roster.asleep = True
    return manager


@click.command()
@click.option("--fd", type=int, required=True, help="A connected Unix stream socket that was inherited.")
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), help="Read FILE.")
@click.option("--create", is_flag=True, help="Make the database if there is none.")
def main(fd: int, config: Path | None, *, create: bool) -> None:
    """Answer the control protocol on a socket, from the store alone. For wactl, which starts it."""
    os.umask(0o077)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    try:
        settings = load(config, os.environ)
    except ConfigErrors as errors:
        _end(str(errors), EXIT_REFUSED)
    path = settings.store.path
    if settings.store.url is None and not create and not path.exists():
        _end(f"there is no database at {path}", EXIT_FAILED)
    try:
        trio.run(serve, settings, os.environ, socket.socket(fileno=fd))
    except (StoreLocked, SessionLeased) as error:
        _end(str(error), EXIT_IN_USE)
    except StoreError as error:
        _end(str(error), EXIT_FAILED)


def _end(message: str, status: int) -> NoReturn:
    click.echo(message, err=True)
    sys.exit(status)


if __name__ == "__main__":
    main(prog_name="python -m waD.offline")
