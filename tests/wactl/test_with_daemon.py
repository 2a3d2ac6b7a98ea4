"""`wactl` as processes against a real daemon and a real sandbox."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import trio

from tests.e2e.daemon import ALICE, BOB, WAIT_S, Daemon, running
from tests.wactl.codes import blocks, expected, from_terminal
from tests.wactl.conftest import ROOT, documents
from waD.sandbox import Sandbox, run_sandbox


class Wactl:
    def __init__(self, daemon: Daemon, sandbox: Sandbox) -> None:
        self.environment = daemon.environment | {"WAD_SANDBOX_URL": sandbox.admin_url, "TZ": "UTC"}

    async def __call__(
        self, *words: str, stdin: bytes = b"", exit_status: int = 0
    ) -> subprocess.CompletedProcess[bytes]:
        with trio.fail_after(WAIT_S):
            done = await trio.run_process(
                [sys.executable, "-m", "wactl", *words],
                stdin=stdin,
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                env=self.environment,
                cwd=ROOT,
            )
        assert done.returncode == exit_status, (words, done)
        assert b"Traceback" not in done.stderr
        return done

    async def document(self, *words: str, exit_status: int = 0) -> Any:
        (found,) = documents((await self(*words, "--json", exit_status=exit_status)).stdout)
        return found

    async def start(self, *words: str) -> trio.Process:
        return await trio.lowlevel.open_process(
            [sys.executable, "-m", "wactl", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=self.environment,
            cwd=ROOT,
        )


class Lines:
    """Lines of a process, as they come."""

    def __init__(self, process: trio.Process) -> None:
        assert process.stdout is not None
        self._stream = process.stdout
        self._buffer = b""

    async def next(self) -> str:
        with trio.fail_after(WAIT_S):
            while b"\n" not in self._buffer:
                data = await self._stream.receive_some(65_536)
                assert data, "the process has ended"
                self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode()


async def pair(wactl: Wactl, number: str = ALICE) -> list[dict[str, Any]]:
    """Link a session as an operator does; returns what `connect` told."""
    process = await wactl.start("connect", "alerts", "--json")
    lines, told = Lines(process), []
    while not told or told[-1]["event"] != "open":
        told.append(msgspec.json.decode(await lines.next()))
        if told[-1]["event"] == "qr":
            code = (await wactl("qr", "alerts", "--raw", "--once")).stdout
            assert code.decode().strip() == told[-1]["qr"]
            await wactl("sandbox", "scan", number, "-", stdin=code)
    with trio.fail_after(WAIT_S):
        assert await process.wait() == 0
    return told


async def test_links_sends_and_receives(tmp_path: Path) -> None:
    async with run_sandbox() as sandbox, running(tmp_path, sandbox) as daemon:
        wactl = Wactl(daemon, sandbox)
        await wactl("status", "alerts", exit_status=4)
        told = await pair(wactl)
        states = [one["state"] for one in told if one["event"] == "state"]
        assert states[-4:] == ["connecting", "pairing", "connecting", "open"]
        assert told[-1]["session"]["paired"] is True
        assert (await wactl.document("status", "alerts"))["state"] == "open"
        text = (await wactl("status", "alerts")).stdout.decode()
        assert text.startswith("alerts  open")
        assert f"+{ALICE}" in text
        await wactl("qr", "alerts", exit_status=4)

        await wactl(
            "sandbox", "phone", BOB, "--name", "Bob", "--auto-read", "--auto-reply", "you said {text}"
        )
        sent = await wactl.document("send", "alerts", f"+{BOB}", "disk full", "--wait", "read")
        assert sent["state"] == "read"
        await daemon.event("message:new", body="you said disk full")
        piped = await wactl("send", "alerts", BOB, "-", "--wait", "delivered", stdin="größer\n".encode())
        assert piped.stdout.strip()
        again = ("send", "alerts", BOB, "once", "--idempotency-key", "k")
        assert (await wactl(*again)).stdout == (await wactl(*again)).stdout
        await wactl("send", "alerts", "+15559999999", "nobody", "--wait", "sent", exit_status=1)
        await wactl("send", "alerts", BOB, "-", stdin=b"caf\xe9", exit_status=2)

        await wactl("sandbox", "send", BOB, ALICE, "to be \x1b[31mread")
        arrived = await daemon.event("message:new", body="to be \x1b[31mread")
        ids = [arrived["data"]["messageId"]]
        assert (await wactl.document("read", "alerts", BOB, *ids))["marked"] == 1
        shown = (await wactl("messages", "alerts", "--chat", BOB)).stdout.decode()
        assert "to be [31mread" in shown
        assert "größer" in shown
        seen = await wactl.document("sandbox", "messages", BOB)
        assert [one["text"] for one in seen if not one["fromMe"]] == ["disk full", "größer", "once"]

        events = documents((await wactl("tail-events", "--no-follow", "--json")).stdout)
        cursors = [one["cursor"] for one in events]
        assert cursors == sorted(set(cursors))
        assert {"connection:status", "connection:qr", "message:new", "message:status"} <= {
            one["type"] for one in events
        }
        assert (await wactl.document("list"))["sessions"][0]["name"] == "alerts"
        assert (await wactl.document("info"))["lastCursor"] >= cursors[-1]
        assert await wactl.document("sandbox", "complaints") == []


async def test_tail_goes_on_over_a_killed_daemon(tmp_path: Path) -> None:
    async with run_sandbox() as sandbox, running(tmp_path, sandbox) as daemon:
        wactl = Wactl(daemon, sandbox)
        await pair(wactl)
        process = await wactl.start("tail-events", "--since", "0", "--json", "--type", "message:new")
        lines = Lines(process)
        heard = []
        for number, end in enumerate((daemon.kill, daemon.stop, None)):
            await wactl("sandbox", "send", BOB, ALICE, f"before {number}")
            heard.append(msgspec.json.decode(await lines.next()))
            if end is not None:
                await end()
                await wactl("sandbox", "send", BOB, ALICE, f"while away {number}")
                await daemon.start()
                heard.append(msgspec.json.decode(await lines.next()))
        assert [one["data"]["body"] for one in heard] == [
            "before 0",
            "while away 0",
            "before 1",
            "while away 1",
            "before 2",
        ]
        process.send_signal(signal.SIGINT)
        with trio.fail_after(WAIT_S):
            assert await process.wait() == 130
        await process.stdout.aclose() if process.stdout else None


async def test_logs_out_removes_and_comes_again(tmp_path: Path) -> None:
    async with run_sandbox() as sandbox, running(tmp_path, sandbox) as daemon:
        wactl = Wactl(daemon, sandbox)
        first = (await pair(wactl))[-1]["session"]["connectionId"]
        await wactl("logout", "alerts", exit_status=2)
        assert (await wactl.document("status", "alerts"))["paired"] is True
        done = await wactl.document("logout", "alerts", "--yes")
        assert done["unlinked"] is True
        assert done["session"]["paired"] is False
        assert (await wactl.document("remove", "alerts", "--yes"))["connectionId"] == first
        assert (await wactl.document("list"))["sessions"] == []
        again = await wactl("connect", "alerts", "--timeout", "2", exit_status=5)
        (drawn,) = blocks(again.stdout.decode())
        code = await daemon.call("session.qr", name="alerts")
        assert from_terminal(drawn, colour=False) == expected(code["code"]["qr"])
        assert (await wactl.document("status", "alerts"))["connectionId"] == first
        assert (await wactl.document("disconnect", "alerts"))["state"] == "stopped"
        assert "applied" in await wactl.document("daemon", "reload")
        await wactl("daemon", "stop")
        assert await daemon.ended() == 0
        await wactl("ping", "--socket", str(daemon.socket), exit_status=3)
