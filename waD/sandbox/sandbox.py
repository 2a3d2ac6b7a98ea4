"""A running sandbox: listeners, the core, and handles for tests that need no HTTP."""

from __future__ import annotations

import ssl
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import trio

from waD.sandbox.accounts import Device
from waD.sandbox.admin import Admin
from waD.sandbox.connection import ClientConnection
from waD.sandbox.core import Core
from waD.sandbox.environment import Environment, Settings, seeded
from waD.sandbox.errors import SandboxError
from waD.sandbox.faults import Fault
from waD.sandbox.handles import PhoneHandle
from waD.sandbox.httpd import CHAT_PATH, HttpServer
from waD.sandbox.identity import ServerIdentity, make_tls_files, new_identity
from waD.sandbox.media_files import MediaFiles
from waD.sandbox.media_host import MediaHost
from waD.sandbox.persistence import SqliteJournal
from waD.sandbox.restore import restore
from waD.sandbox.websocket import Websocket

LOOPBACK: Final = "127.0.0.1"
WAIT_S: Final = 30.0
BACKLOG: Final = 256
MEDIA_DIRECTORY: Final = "media"


class Sandbox:
    """What `run_sandbox` gives: addresses, phones, faults.

    Attributes:
        core: the server without input and output.
        port: the TCP port, 0 when there is no listener.
        ca_file: certificate authority to trust, with TLS only.
    """

    def __init__(
        self, core: Core, identity: ServerIdentity, journal: SqliteJournal | None, host: str, directory: Path
    ) -> None:
        self.core = core
        self.host = host
        self.port = 0
        self.ca_file: Path | None = None
        self._identity = identity
        self._journal = journal
        self._changed = trio.Event()
        core.world.on_settled = self._on_settled
        files = MediaFiles(directory / MEDIA_DIRECTORY)
        files.sweep({record.digest for record in core.media.records()})
        media = MediaHost(
            core.media,
            files,
            core.world.faults,
            base=lambda: f"https://{core.world.settings.media_host}",
            limit=lambda: core.world.settings.media_max_bytes,
            flush=self.flush,
        )
        self._http = HttpServer(Admin(self).answer, media, self._serve_client, self._gate)

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"{'wss' if self.ca_file else 'ws'}://{self.host}:{self.port}{CHAT_PATH}"

    @property
    def admin_url(self) -> str:
        """Base of the admin API."""
        return f"{'https' if self.ca_file else 'http'}://{self.host}:{self.port}"

    @property
    def root_key(self) -> bytes:
        """The Noise root public key to trust, 32 bytes."""
        return self._identity.root_key

    def phone(self, number: str | None = None, name: str | None = None) -> PhoneHandle:
        """The phone with a number or push name, made when it is new; without either, a new anonymous one."""
        return PhoneHandle(self, self.core.phones.create(name, number))

    def device(self, number: str, device_id: int | None = None) -> Device:
        """A companion of an account; the newest one without an id. Raises SandboxError(404)."""
        account = self.core.phones.by_number(number).account
        companions = account.companions
        for device in reversed(companions):
            if device_id in (None, device.id):
                return device
        raise SandboxError(f"{number} has no such companion", 404)

    def fault(self, kind: str, target: str | None = None, **details: object) -> Fault:
        """Order a fault; the details are the fields of `Fault`."""
        return self.core.apply(msgspec.convert({"kind": kind, "target": target, **details}, type=Fault))

    async def wait(self, condition: Callable[[], bool], timeout_s: float = WAIT_S) -> None:
        """Wait until a condition about the core holds; raises trio.TooSlowError."""
        with trio.fail_after(timeout_s):
            while not condition():
                await self._changed.wait()

    async def serve_stream(self, stream: trio.abc.Stream) -> None:
        """Serve one connection, HTTP or websocket; returns when it is over."""
        await self._http.serve(stream)

    async def flush(self) -> None:
        """Make everything durable that has happened."""
        if self._journal is not None:
            await self._journal.flush()

    async def _serve_client(self, websocket: Websocket) -> None:
        await ClientConnection(self.core, self._identity, websocket, self.flush).serve()

    def _gate(self) -> int | None:
        fault = self.core.world.faults.take("http")
        if fault is None:
            return None
        return 0 if fault.never else fault.code

    def _on_settled(self) -> None:
        event, self._changed = self._changed, trio.Event()
        event.set()


@asynccontextmanager
async def run_sandbox(
    port: int | None = 0,
    *,
    host: str = LOOPBACK,
    tls: bool = False,
    state: Path | None = None,
    seed: int | None = None,
    settings: Settings | None = None,
    environment: Environment | None = None,
) -> AsyncIterator[Sandbox]:
    """Run a sandbox for the life of the block.

    Args:
        port: TCP port, 0 for any free one, None for no listener (then `serve_stream` brings the clients).
        host: address to listen on; loopback unless somebody really wants something else.
        tls: serve `wss` and `https` with a certificate of an authority of its own.
        state: directory that keeps everything; without it everything is in memory.
        seed: makes keys and ids deterministic. For tests only.
        settings: knobs.
        environment: clock and randomness.

    Raises:
        SandboxError: the state cannot be used.
        OSError: the port cannot be used.
    """
    environment = environment or Environment()
    if seed is not None:
        environment.random = seeded(seed)
    with ExitStack() as stack:
        journal = SqliteJournal(state) if state is not None else None
        if journal is not None:
            stack.callback(journal.close)
        identity = _identity(journal, environment)
        core = Core(environment, settings, journal)
        if journal is not None:
            restore(core, journal)
        directory = state or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="waD-")))
        sandbox = Sandbox(core, identity, journal, host, directory)
        await sandbox.flush()
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            if port is not None:
                await _listen(nursery, sandbox, port, directory if tls else None)
            try:
                yield sandbox
            except Exception as error:  # the block's own failure: passed on below, not inside a group
                failure = error
            finally:
                nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure


def trio_clock(start_s: int) -> Callable[[], int]:
    """A clock that follows trio's, for tests with a simulated one; `start_s` is unix seconds."""
    began = trio.current_time()
    return lambda: int((start_s + trio.current_time() - began) * 1000)


async def _listen(nursery: trio.Nursery, sandbox: Sandbox, port: int, tls: Path | None) -> None:
    listeners = await trio.open_tcp_listeners(port, host=sandbox.host, backlog=BACKLOG)
    sandbox.port = listeners[0].socket.getsockname()[1]
    settings = sandbox.core.world.settings
    sandbox.core.world.settings = msgspec.structs.replace(
        settings, media_host=f"{sandbox.host}:{sandbox.port}"
    )
    if tls is None:
        nursery.start_soon(partial(trio.serve_listeners, sandbox.serve_stream, listeners))
        return
    ca_file, cert_file, key_file = await trio.to_thread.run_sync(make_tls_files, tls)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert_file, key_file)
    sandbox.ca_file = ca_file
    secured = [trio.SSLListener(one, context, https_compatible=True) for one in listeners]
    nursery.start_soon(partial(trio.serve_listeners, sandbox.serve_stream, secured))


def _identity(journal: SqliteJournal | None, environment: Environment) -> ServerIdentity:
    stored = journal.rows("identity") if journal is not None else []
    if stored:
        return msgspec.msgpack.decode(stored[0][1], type=ServerIdentity)
    identity = new_identity(environment.random, environment.clock() // 1000)
    if journal is not None:
        journal.put("identity", "server", msgspec.msgpack.encode(identity))
    return identity
