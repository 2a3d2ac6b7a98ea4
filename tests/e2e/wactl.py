"""`wactl` as a process beside a daemon under test, and keys for backups."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pyrage
import trio

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 60.0


class Keys:
    """An identity in a file, and the recipient that belongs to it."""

    def __init__(self, directory: Path, name: str = "backup.key") -> None:
        identity = pyrage.x25519.Identity.generate()
        self.recipient = str(identity.to_public())
        self.file = directory / name
        self.file.write_text(f"# made for a test\n{identity}\n")
        self.file.chmod(0o600)


class Wactl:
    """Runs command lines in one environment."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = dict(environment)

    async def __call__(
        self, *words: str, status: int = 0, stdin: bytes = b""
    ) -> subprocess.CompletedProcess[bytes]:
        """Run one to its end; it must end with this status."""
        with trio.fail_after(PATIENCE_S):
            done = await trio.run_process(
                [sys.executable, "-m", "wactl", *words],
                stdin=stdin,
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                env=self.environment,
                cwd=ROOT,
            )
        assert done.returncode == status, (words, done)
        assert b"Traceback" not in done.stderr, done.stderr.decode()
        return done

    async def document(self, *words: str, status: int = 0) -> Any:
        """Run one with --json; its one document."""
        done = await self(*words, "--json", status=status)
        (line,) = done.stdout.splitlines()
        return msgspec.json.decode(line)

    async def refusal(self, *words: str, status: int) -> str:
        """Run one that is refused, with nothing on standard output; what it says."""
        done = await self(*words, status=status)
        assert done.stdout == b""
        return done.stderr.decode()
