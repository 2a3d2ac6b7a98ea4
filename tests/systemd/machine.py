"""A private systemd: PID 1 of namespaces of its own, on a throw-away overlay of this machine's root.

Files, processes, cgroups, host name and services of this machine stay untouched; the network is shared, for loopback.

    python -m tests.systemd.machine [LAYER] -- COMMAND [ARG...]

runs a command inside, LAYER being a directory (of `make install DESTDIR=LAYER`) that lies over the root.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

SCRIPT: Final = Path(__file__).with_name("machine.sh")
INIT: Final = Path("/lib/systemd/systemd")
TOOLS: Final = ("unshare", "nsenter", "pivot_root", "chroot", "systemctl", "systemd-sysusers", "journalctl")
BOOT_S: Final = 60.0
COMMAND_S: Final = 60.0
CANNOT: Final = 77
ENVIRONMENT: Final = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
}


class Impossible(Exception):  # noqa: N818 - what is the case
    """This machine cannot run a private systemd; the message says why."""


class CommandError(AssertionError):
    """A command inside failed; the message has its output."""


class Machine:
    """A booted private systemd.

    Attributes:
        root: its root directory, as seen from outside.
    """

    def __init__(self, pid: int) -> None:
        self.root = Path(f"/proc/{pid}/root")
        self._enter = ["nsenter", "-t", str(pid), "-m", "-p", "-u", "-i", "-C", "-r", "-w", "--"]

    def path(self, inside: str) -> Path:
        """A file inside, as seen from outside."""
        return self.root / inside.lstrip("/")

    def run(self, *command: str, timeout_s: float = COMMAND_S, check: bool = True) -> str:
        """Run a command inside, as root; returns its output.

        Raises:
            CommandError: by its exit status, if that is checked, or by its time.
        """
        status, output = self.status(*command, timeout_s=timeout_s)
        if check and status:
            journal = self.status("journalctl", "--no-pager", "--no-hostname", "--lines=40")[1]
            raise CommandError(f"{' '.join(command)}: exit status {status}\n{output}\n{journal}")
        return output

    def status(self, *command: str, timeout_s: float = COMMAND_S) -> tuple[int, str]:
        """Run a command inside; returns exit status and output, standard error included."""
        try:
            done = subprocess.run(
                [*self._enter, *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=ENVIRONMENT,
                timeout=timeout_s,
                text=True,
            )
        except subprocess.TimeoutExpired as late:
            raise CommandError(f"{' '.join(command)}: not done in {timeout_s} s\n{late.output}") from None
        return done.returncode, done.stdout

    def properties(self, unit: str, *names: str) -> dict[str, str]:
        """Properties of a unit."""
        output = self.run("systemctl", "show", "--property", ",".join(names), unit)
        return dict(line.split("=", 1) for line in output.splitlines() if "=" in line)

    def journal(self, *options: str) -> str:
        """The journal since the boot."""
        return self.run("journalctl", "--no-pager", "--quiet", *options)

    def write(self, inside: str, text: str, mode: int = 0o644) -> None:
        """Write a file, and make the directories it needs."""
        path = self.path(inside)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)


@contextmanager
def booted(layer: Path) -> Iterator[Machine]:
    """A private systemd for the life of the block.

    Args:
        layer: a directory whose files lie over this machine's own.

    Raises:
        Impossible: this machine cannot do it.
        CommandError: systemd started and did not come up.
    """
    _check()
    with TemporaryDirectory(prefix="waD-machine-") as base, Path(base + ".log").open("w+") as log:
        Path(log.name).unlink()
        outer = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", str(SCRIPT), "outer", base, str(layer)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield _wait(outer, log.fileno())
        finally:
            _end(outer)


def _check() -> None:
    if os.geteuid() != 0:
        raise Impossible("a private systemd needs root")
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if not INIT.exists():
        missing.append(str(INIT))
    if missing:
        raise Impossible(f"a private systemd needs {', '.join(missing)}")


def _wait(outer: subprocess.Popen[bytes], log: int) -> Machine:
    deadline = time.monotonic() + BOOT_S
    while time.monotonic() < deadline:
        if (status := outer.poll()) is not None:
            said = _text(log)
            raise (
                Impossible(said.splitlines()[-1] if said else "no reason given")
                if status in (1, CANNOT)
                else (CommandError(f"systemd ended with status {status}:\n{said}"))
            )
        if (pid := _first_process(outer.pid)) is not None:
            machine = Machine(pid)
            if machine.status("systemctl", "is-active", "waD-test.target")[0] == 0:
                return machine
        time.sleep(0.05)
    raise CommandError(f"systemd is not up after {BOOT_S} s:\n{_text(log)}")


def _text(log: int) -> str:
    return os.pread(log, 100_000, 0).decode(errors="replace").strip()


def _first_process(outer: int) -> int | None:
    """The process that is number 1 inside, once it is systemd."""
    for child in _children(outer):
        for grandchild in _children(child):
            if _read(Path(f"/proc/{grandchild}/comm")).strip() == "systemd":
                return grandchild
    return None


def _children(pid: int) -> list[int]:
    return [int(word) for word in _read(Path(f"/proc/{pid}/task/{pid}/children")).split()]


def _read(file: Path) -> str:
    """A file of a process, empty when that has ended."""
    try:
        return file.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _end(outer: subprocess.Popen[bytes]) -> None:
    """End it from the inside: with its first process all others die, and the outer script tidies up."""
    for child in _children(outer.pid):
        for first in _children(child):
            with suppress(ProcessLookupError):
                os.kill(first, 9)
    try:
        outer.wait(COMMAND_S)
    except subprocess.TimeoutExpired:
        outer.kill()
        outer.wait()


def main(arguments: Sequence[str]) -> int:
    """Run a command in a private systemd."""
    split = arguments.index("--")
    with TemporaryDirectory() as nothing, booted(Path((*arguments[:split], nothing)[0])) as machine:
        status, output = machine.status(*arguments[split + 1 :])
        sys.stdout.write(output)
        if status:
            sys.stderr.write(machine.journal("--no-hostname"))
        return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
