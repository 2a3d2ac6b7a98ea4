"""The database of a daemon fails under traffic, in every way there is (chapter 08 §0 R1, R6, §6.4).

Nothing is acknowledged that is not durable, nothing is lost or comes twice, no key is used twice; the session goes on
by itself, or stops, says why, and goes on when it is told to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias, cast

import psycopg
import pytest
import trio

from tests.e2e.daemon import ALICE, BOB
from tests.e2e.in_process import Machine, machine, sandbox_beside
from tests.soak.inside import NAME
from tests.store.cutting import Act, Proxy, proxy_to
from tests.store.postgres_server import Server, binaries, running_server
from waD.control.api import ControlError
from waD.control.types import SendRequest
from waD.sandbox import Sandbox
from waD.store.errors import StoreError
from waD.store.postgres.engine import PostgresEngine
from waD.store.postgres.settings import PostgresSettings

PAUSE_S: Final = 0.02
"""Between two messages of one writer."""
SETTLE_S: Final = 90.0
BETWEEN: Final = 10
"""Messages that arrive before, between and after what happens to the database."""
PATIENT_S: Final = 60.0
IMPATIENT_S: Final = 1.0
"""How long a database is waited for where it comes back in time, and where it does not."""
MORE: Final = "[reconnect]\nbase = 50\njitter = 50\nstable_after = 1\n[daemon]\nrestore_spread = 0"
RAISE: Final = (
    "CREATE FUNCTION trouble() RETURNS trigger LANGUAGE plpgsql AS "
    "$$BEGIN RAISE EXCEPTION 'says the test' USING ERRCODE = '{}'; END$$; "
    "CREATE TRIGGER trouble BEFORE INSERT ON whatsapp_messages FOR EACH ROW EXECUTE FUNCTION trouble()"
)

pytestmark = pytest.mark.skipif(binaries() is None, reason="there are no PostgreSQL binaries on this machine")


@pytest.fixture
def server() -> Iterator[Server]:
    with running_server() as started:
        yield started


@dataclass
class Town:
    """A daemon whose database is behind a proxy, and two people who write to each other.

    Attributes:
        sent: texts by who sent them.
        acked: ids that the server had an ack for and that were not yet looked for in the database.
        checked: how many were there.
    """

    server: Server
    database: str
    proxy: Proxy
    sandbox: Sandbox
    machine: Machine
    sent: dict[str, list[str]] = field(default_factory=lambda: {ALICE: [], BOB: []})
    acked: list[str] = field(default_factory=list)
    checked: int = 0
    writing: bool = True
    most_waiting: int = 0

    def admin(self, sql: str, **settings: str) -> list[tuple[Any, ...]]:
        return self.server.admin(sql, self.database, **settings)

    # What is watched all the time.

    def watch_acks(self) -> None:
        """From now on, every ack of a message is held against the database at once, or as soon as it is there."""
        queue = self.sandbox.device(ALICE).queue
        find = queue.acked

        def acked(tag: str, message_id: str, *more: Any) -> Any:
            if tag == "message":
                self.acked.append(message_id)
                with suppress(psycopg.OperationalError):
                    self.check_acks()
            return find(tag, message_id, *more)

        queue.acked = acked  # type: ignore[method-assign]

    def check_acks(self) -> None:
        """What was acknowledged is durable; raises psycopg.OperationalError where that cannot be seen now."""
        found = {row[0] for row in self.admin("SELECT message_id FROM whatsapp_messages")}
        assert found >= set(self.acked), "acknowledged, and not durable"
        self.checked += len(self.acked)
        self.acked.clear()

    async def watch_memory(self) -> None:
        while True:
            self.most_waiting = max(self.most_waiting, self.machine.store._writer._tickets.qsize())
            await trio.sleep(0.01)

    # Those who write.

    async def bob_writes(self) -> None:
        while self.writing:
            text = f"to alice {len(self.sent[BOB])}"
            self.sent[BOB].append(text)
            await self.sandbox.phone(BOB).send(ALICE, text)
            await trio.sleep(PAUSE_S)

    async def alice_writes(self) -> None:
        """A script that repeats its order, under the same key, until it is answered."""
        while self.writing:
            text = f"to bob {len(self.sent[ALICE])}"
            self.sent[ALICE].append(text)
            request = SendRequest(session=NAME, to=BOB, text=text, idempotency_key=text)
            while True:
                with suppress(ControlError, StoreError):
                    await self.machine.manager.send(request)
                    break
                await trio.sleep(PAUSE_S)
            await trio.sleep(PAUSE_S)

    # Waiting.

    def told(self) -> Counter[str]:
        """What reached Alice's log; empty while that cannot be read."""
        with suppress(psycopg.OperationalError):
            rows = self.admin("SELECT payload->>'body' FROM wa_events WHERE kind = 'message:new'")
            return Counter(row[0] for row in rows)
        return Counter()

    def heard(self) -> Counter[str]:
        """What reached Bob."""
        messages = self.sandbox.phone(BOB).messages()
        return Counter(str(message.text) for message in messages if not message.from_me)

    async def more(self) -> None:
        """Let some messages through in both directions."""
        told, heard = self.told().total() + BETWEEN, self.heard().total() + BETWEEN
        await self.until(lambda: self.told().total() >= told and self.heard().total() >= heard)

    async def until(self, condition: Callable[[], bool]) -> None:
        with trio.move_on_after(SETTLE_S):
            while not condition():  # noqa: ASYNC110 - of another process, and of threads
                await trio.sleep(0.05)
            return
        raise AssertionError(
            f"not in time: {self.state}, told {self.told().total()}, heard {self.heard().total()}"
        )

    async def until_connected(self) -> None:
        """As an operator who tries until it works."""
        with trio.fail_after(SETTLE_S):
            while self.state != "open":
                with suppress(ControlError, StoreError):
                    await self.machine.manager.connect(NAME)
                await trio.sleep(0.2)

    @property
    def state(self) -> str:
        return self.machine.supervisor(NAME).vitals.status

    async def judge(self) -> None:
        """When everything has arrived: once each, no key twice, everything durable, the auth state sound."""
        self.writing = False
        await self.until(
            lambda: (
                self.told().total() >= len(self.sent[BOB]) and self.heard().total() >= len(self.sent[ALICE])
            )
        )
        assert self.told() == Counter(self.sent[BOB])
        assert self.heard() == Counter(self.sent[ALICE])
        await self.until(lambda: not len(self.sandbox.device(ALICE).queue))
        self.check_acks()
        assert self.checked >= len(self.sent[BOB])
        assert self.sandbox.core.world.keys.report()["reused"] == []
        view = await self.machine.status()
        assert (
            await self.machine.store.read(self.machine.store.engine.checked_creds, view.connection_id)
            is not None
        )


@asynccontextmanager
async def town(directory: Path, server: Server, wait_s: float) -> AsyncIterator[Town]:
    """Two people in mid-conversation."""
    database = server.database()
    async with sandbox_beside(None) as sandbox:
        with proxy_to(server.port) as proxy:
            url = f"{server.url(database, port=proxy.port)}?sslmode=disable&gssencmode=disable"
            engine = await trio.to_thread.run_sync(PostgresEngine, PostgresSettings(url=url, wait_s=wait_s))
            async with machine(directory, sandbox, None, more=MORE, engine=engine) as made:
                await made.pair(sandbox.phone(ALICE))
                found = Town(server, database, proxy, sandbox, made)
                found.watch_acks()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(found.bob_writes)
                    nursery.start_soon(found.alice_writes)
                    nursery.start_soon(found.watch_memory)
                    await found.more()
                    yield found
                    nursery.cancel_scope.cancel()


# What the session does not notice but by waiting.

Trouble: TypeAlias = Callable[[Town], Awaitable[None]]


async def gone_for_seconds(town: Town) -> None:
    for seconds in (0.2, 3.0):
        town.proxy.refuse()
        await trio.sleep(seconds)
        town.proxy.clear()
        await town.more()


async def silent_for_seconds(town: Town) -> None:
    town.proxy.black_hole()
    await trio.sleep(2)
    town.proxy.clear()
    town.proxy.cut()


def cut(act: Act) -> Trouble:
    async def cut_commits(town: Town) -> None:
        for match in (b"COMMIT", b"BEGIN", b"COMMIT"):
            done = town.proxy.done
            town.proxy.order(act, match, times=3)
            await town.until(lambda: town.proxy.done >= done + 3)  # noqa: B023 - it is awaited here
            await town.more()

    return cut_commits


async def killed_backends(town: Town) -> None:
    for _ in range(6):
        town.admin(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{town.database}' "
                   "AND pid <> pg_backend_pid()")  # fmt: skip
        await trio.sleep(0.2)


async def no_power(town: Town) -> None:
    for _ in range(3):
        town.server.kill()
        await trio.sleep(0.2)
        await trio.to_thread.run_sync(town.server.start)
        town.check_acks()
        await town.more()


async def slow_commits(town: Town) -> None:
    town.proxy.order("delay", times=8, seconds=1.0)
    done = town.proxy.done
    await town.until(lambda: town.proxy.done >= done + 8)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param(gone_for_seconds, id="gone for seconds"),
        pytest.param(silent_for_seconds, id="silent for seconds"),
        pytest.param(cut("cut before"), id="cut before commit"),
        pytest.param(cut("cut meanwhile"), id="cut in the middle of commit"),
        pytest.param(cut("cut after"), id="cut after commit"),
        pytest.param(killed_backends, id="killed backends"),
        pytest.param(no_power, id="killed server"),
        pytest.param(slow_commits, id="a second a commit"),
    ],
)
async def test_the_session_pauses_and_goes_on(tmp_path: Path, server: Server, trouble: Trouble) -> None:
    async with town(tmp_path, server, PATIENT_S) as there:
        connections = len(there.machine.dials.begun)
        await trouble(there)
        await there.more()
        assert there.state == "open"
        assert len(there.machine.dials.begun) == connections, "the connection to WhatsApp outlives it"
        await there.judge()
        assert await there.machine.events("storage:write_failed", "alert:raised") == []
        assert there.most_waiting < 64


# What stops it: it says why, and goes on where it was when an operator says so.


async def gone_for_minutes(town: Town) -> Callable[[], None]:
    town.proxy.refuse()
    return town.proxy.clear


async def gone_in_a_commit(town: Town) -> Callable[[], None]:
    """And nobody can tell what became of it, until it is read again."""
    town.proxy.order("cut after")
    town.proxy.order("cut before", b"FOR UPDATE", times=100_000)
    town.proxy.order("cut before", b"wa_writers", times=100_000)
    return town.proxy.clear


async def silent_for_minutes(town: Town) -> Callable[[], None]:
    town.proxy.black_hole()

    def over() -> None:
        town.proxy.clear()
        town.proxy.cut()

    return over


async def read_only(town: Town) -> Callable[[], None]:
    town.server.admin(f"ALTER DATABASE {town.database} SET default_transaction_read_only = on")
    town.proxy.cut()

    def over() -> None:
        town.server.admin(
            f"ALTER DATABASE {town.database} RESET default_transaction_read_only",
            default_transaction_read_only="off",
        )
        town.proxy.cut()

    return over


def failing(code: str) -> Callable[[Town], Awaitable[Callable[[], None]]]:
    async def fail(town: Town) -> Callable[[], None]:
        town.admin(RAISE.format(code))
        return lambda: cast("None", town.admin("DROP FUNCTION trouble() CASCADE"))

    return fail


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        pytest.param(gone_for_minutes, "cannot be used", id="gone for minutes"),
        pytest.param(gone_in_a_commit, "cannot be used", id="gone in the middle of a commit"),
        pytest.param(silent_for_minutes, "no answer", id="silent for minutes"),
        pytest.param(read_only, "read-only", id="read-only"),
        pytest.param(failing("53100"), "make room", id="a full disk"),
        pytest.param(failing("58030"), "input/output", id="a broken disk"),
        pytest.param(failing("42501"), "permission", id="a right that is gone"),
    ],
)
async def test_the_session_stops_loudly(
    tmp_path: Path,
    server: Server,
    caplog: pytest.LogCaptureFixture,
    trouble: Callable[[Town], Awaitable[Callable[[], None]]],
    said: str,
) -> None:
    async with town(tmp_path, server, IMPATIENT_S) as there:
        over = await trouble(there)
        await there.until(lambda: there.state == "failed")
        assert there.sandbox.device(ALICE).link is None
        connections = len(there.machine.dials.begun)
        waiting = len(there.sandbox.device(ALICE).queue)
        await there.until(lambda: len(there.sandbox.device(ALICE).queue) > waiting + BETWEEN)
        assert len(there.machine.dials.begun) == connections, "it waits for its operator"
        assert there.most_waiting < 64
        over()
        there.check_acks()
        await there.until_connected()
        await there.more()
        await there.judge()
    told = [record.getMessage() for record in caplog.records if record.levelname == "CRITICAL"]
    assert any(said in line for line in told), told
