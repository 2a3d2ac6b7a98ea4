"""A real Baileys client in a Node process, driven line by line."""

from __future__ import annotations

import json
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

DRIVER = Path(__file__).parent / "baileys" / "driver.mjs"
WAIT_S = 60.0
MAX_LINE = 1 << 22

Event = dict[str, Any]


class BaileysClient:
    """Commands go in, events come out; every event is kept in `events`, in order."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._tags = 0
        self._changed = trio.Event()
        self.events: list[Event] = []
        self.errors = b""

    async def command(self, do: str, **details: Any) -> Any:
        """Give a command and wait for its answer."""
        self._tags += 1
        tag = f"{do}-{self._tags}"
        assert self._process.stdin is not None
        await self._process.stdin.send_all(json.dumps({"do": do, "tag": tag, **details}).encode() + b"\n")
        answer = await self.wait(lambda event: event.get("tag") == tag)
        assert answer["event"] == "done", answer["error"]
        return answer["result"]

    async def wait(
        self, matches: Callable[[Event], bool], *, after: int = 0, timeout_s: float = WAIT_S
    ) -> Event:
        """The first event behind a position that matches."""
        try:
            with trio.fail_after(timeout_s):
                while True:
                    for event in self.events[after:]:
                        if matches(event):
                            return event
                    await self._changed.wait()
        except trio.TooSlowError:
            seen = "\n".join(json.dumps(event)[:400] for event in self.events[-40:])
            raise AssertionError(
                f"no such event; the last ones:\n{seen}\n{self.errors.decode()[-4000:]}"
            ) from None

    async def wait_for(self, kind: str, *, after: int = 0, **fields: Any) -> Event:
        """The first event of a kind with these fields."""
        return await self.wait(
            lambda event: event["event"] == kind and all(event.get(k) == v for k, v in fields.items()),
            after=after,
        )

    async def text(self, text: str, *, after: int = 0) -> Event:
        """The message event with this text."""
        return await self.wait_for("message", text=text, after=after)

    async def status(self, message_id: str, status: int) -> Event:
        """The event that raises a message to a status: 2 sent, 3 delivered, 4 read.

        Baileys merges an early receipt into the event about the message itself.
        """
        return await self.wait(
            lambda event: (
                event["event"] in ("update", "message")
                and event["key"]["id"] == message_id
                and (event["status"] or 0) >= status
            )
        )

    async def send(self, to: str, text: str, **options: Any) -> str:
        """Send a text; returns its id."""
        return str((await self.command("send", to=to, text=text, **options))["id"])

    @property
    def pid(self) -> int:
        """Of the Node process."""
        return self._process.pid

    @property
    def position(self) -> int:
        """How many events there are: pass it as `after` to wait for newer ones."""
        return len(self.events)

    @property
    def texts(self) -> list[str]:
        """Texts of all message events, in order."""
        return [event["text"] for event in self.events if event["event"] == "message" and event["text"]]

    @property
    def crashes(self) -> list[Event]:
        """Rejections nobody handled: bugs of the server or of Baileys."""
        return [event for event in self.events if event["event"] == "crash"]

    async def _read(self) -> None:
        assert self._process.stdout is not None
        buffer = bytearray()
        async for chunk in self._process.stdout:
            buffer += chunk
            assert len(buffer) < MAX_LINE
            *lines, rest = bytes(buffer).split(b"\n")
            buffer = bytearray(rest)
            self.events += [json.loads(line) for line in lines if line]
            event, self._changed = self._changed, trio.Event()
            event.set()

    async def _read_errors(self) -> None:
        assert self._process.stderr is not None
        async for chunk in self._process.stderr:
            self.errors = (self.errors + chunk)[-65_536:]


@asynccontextmanager
async def start_client(node: str, modules: Path, environment: dict[str, str]) -> AsyncIterator[BaileysClient]:
    """Run a driver for the life of the block."""
    async with trio.open_nursery() as nursery:
        process = await trio.lowlevel.open_process(
            [node, str(DRIVER), str(modules)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
        )
        client = BaileysClient(process)
        nursery.start_soon(client._read)
        nursery.start_soon(client._read_errors)
        failure: BaseException | None = None
        try:
            await client.wait_for("ready")
            yield client
        except Exception as error:
            failure = error
        finally:
            with trio.CancelScope(shield=True):
                process.kill()
                await process.wait()
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
