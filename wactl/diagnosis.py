"""What can be looked at on this machine without the daemon's help: socket, settings, files, clock. Changes nothing."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import struct
import subprocess
import time
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from wactl import child
from wactl.database import look_at_database
from wactl.endpoint import WHATSAPP, Endpoint
from wactl.failure import Failure
from waD.control.types import Finding, Level

CONNECT_S: Final = 5.0
TIMEDATECTL_S: Final = 3.0
EARLIEST: Final = int(Path(__file__).stat().st_mtime)
"""This program was installed then, so it is later."""

FRAGMENTS: Final = "conf.d"
_DAY_S: Final = 86_400
_CREDENTIALS: Final = struct.Struct("3i")


def finding(check: str, level: Level, subject: object, message: str, hint: str = "", **data: Any) -> Finding:
    """A finding of ours."""
    return Finding(check=check, level=level, subject=str(subject), message=message, hint=hint, data=data)


# The control socket.


def look_at_socket(paths: Sequence[Path]) -> tuple[Path | None, list[Finding]]:
    """Look for the socket that clients use: the first one that is there; returns it if somebody listens."""
    for path in paths:
        try:
            found = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            return None, [_closed(path, error)]
        return _existing(path, found)
    where = " or ".join(map(str, paths))
    hint = "start the daemon: systemctl start waD; or name its socket with --socket or WAD_SOCKET"
    return None, [finding("socket", "critical", where, "there is none", hint)]


def _existing(path: Path, found: os.stat_result) -> tuple[Path | None, list[Finding]]:
    if not stat.S_ISSOCK(found.st_mode):
        hint = "name the control socket with --socket or WAD_SOCKET"
        return None, [finding("socket", "critical", path, "it is not a socket", hint)]
    try:
        pid, uid = _listener(path)
    except (OSError, ValueError) as error:
        return None, [_closed(path, error)]
    who = f"process {pid} ({_command(pid)}) of user {uid}"
    facts: dict[str, Any] = {"mode": f"{stat.S_IMODE(found.st_mode):04o}", "pid": pid, "uid": uid}
    if uid not in (0, found.st_uid, os.getuid()):
        hint = "end that process if it is not the daemon, and start the daemon"
        text = f"{who} listens, but the socket belongs to user {found.st_uid}"
        return path, [finding("socket", "warning", path, text, hint, **facts)]
    if found.st_mode & 0o007:
        text = f"its permissions are {facts['mode']}: every user of this machine may connect"
        return path, [finding("socket", "warning", path, text, "see mode and group of [control]", **facts)]
    return path, [finding("socket", "ok", path, f"{who} listens", **facts)]


def _closed(path: Path, error: OSError | ValueError) -> Finding:
    if isinstance(error, PermissionError):
        hint = f"join its group (see ls -l {path}), then log in again"
        return finding("socket", "critical", path, "you may not use it", hint)
    if isinstance(error, ConnectionRefusedError):
        hint = "start the daemon: systemctl start waD; if it does not stay up: journalctl -u waD"
        return finding("socket", "critical", path, "nobody listens: the daemon has ended", hint)
    reason = getattr(error, "strerror", None) or str(error)
    hint = "see whether the daemon hangs: systemctl status waD"
    return finding("socket", "critical", path, f"no connection: {reason}", hint)


def _listener(path: Path) -> tuple[int, int]:
    """Process and user that listen at a socket."""
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(CONNECT_S)
        stream.connect(str(path))
        data = stream.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(data)
    return pid, uid


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
    except OSError:
        return "unknown"


# The settings and the files they name.


def main_file(files: Sequence[str]) -> Path | None:
    """The file that a daemon was started with, None if that cannot be told from what it has read."""
    first = Path(files[0]) if files else None
    return None if first is None or first.parent.name == FRAGMENTS else first


def look_at_config(file: Path | None) -> list[Finding]:
    """Read the settings as a starting daemon would.

    Args:
        file: the daemon's file, None for the default place.
    """
    if file is not None and not os.access(file, os.R_OK):
        return [finding("config", "ok", file, "not looked at: you may not read it")]
    named = () if file is None else (f"--config={file}",)
    again = "wactl config check" + "".join(f" {word}" for word in named)
    hint = f"correct it; {again} tells whether that was all"
    try:
        checked = child.run("-m", "waD", "--check-config", *named)
    except Failure as failure:
        hint = "install waD anew, with this wactl's Python"
        return [finding("config", "warning", "settings", failure.message, hint)]
    if checked.status:
        return [finding("config", "critical", *_place(line), hint) for line in checked.errors]
    odd = [finding("config", "warning", *_place(line), "see waD.toml(5)") for line in checked.errors]
    return [*odd, finding("config", "ok", "settings", checked.out.strip())]


def read_options() -> dict[str, str]:
    """The options of the files in the default place as TOML, none if there is a fault in them."""
    try:
        shown = child.run("-m", "waD.config", "show")
    except Failure:
        return {}
    return dict(line.partition(" = ")[::2] for line in shown.out.splitlines()) if not shown.status else {}


def _place(line: str) -> tuple[str, str]:
    """A message's file and line, and the rest."""
    place, _, text = line.partition(": ")
    return (place, text) if text else ("settings", line)


def value(options: dict[str, str], key: str) -> Any:
    """An option's value out of its TOML, None if it has none."""
    try:
        return tomllib.loads(f"value = {options[key]}")["value"]
    except (KeyError, tomllib.TOMLDecodeError):
        return None


def endpoints(options: dict[str, str]) -> list[Endpoint]:
    """Where sessions connect to, each way once."""
    url = value(options, "network.url") or WHATSAPP
    ca_file = value(options, "network.ca_file")
    keys = ["network.proxy", *(key for key in options if _is_proxy(key))]
    ways = {Endpoint(url, value(options, key), ca_file): None for key in keys}
    return list(ways)


def _is_proxy(key: str) -> bool:
    return key.startswith("sessions.") and key.endswith(".network.proxy")


def look_at_store(options: dict[str, str], *, offline: bool) -> Iterator[Finding]:
    """Look at the database while no daemon does: at the way to its server, or at its file; nothing is opened."""
    url = value(options, "store.url")
    if isinstance(url, str):
        if not offline:
            yield from look_at_database(url)
        return
    path = value(options, "store.path")
    if not isinstance(path, str):
        return
    try:
        found = Path(path).stat()
    except FileNotFoundError:
        yield finding("store", "ok", path, "there is none yet; the daemon makes it")
        return
    except OSError as error:
        hint = "look as the daemon's user or as root"
        yield finding("store", "ok", path, f"it was not looked at: {error.strerror}", hint)
        return
    mode = f"{stat.S_IMODE(found.st_mode):04o}"
    if found.st_mode & 0o077:
        text = f"its permissions are {mode}: others may read or change the keys in it"
        yield finding("permissions", "critical", path, text, f"chmod 600 {path}", mode=mode)
    else:
        yield finding("permissions", "ok", path, f"its permissions are {mode}", mode=mode)


# The clock.


def look_at_clock(now: float | None = None) -> Finding:
    """Look whether the clock can be right, and whether something keeps it so."""
    now = time.time() if now is None else now
    shown = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    if now < EARLIEST - _DAY_S:
        text = f"it is {shown}, before this program was installed"
        return finding("clock", "critical", "this machine", text, "set the clock: timedatectl set-ntp true")
    if _synchronised() is False:
        text = f"it is {shown}, and nothing keeps the clock right"
        return finding(
            "clock", "warning", "this machine", text, "timedatectl set-ntp true, or run an NTP daemon"
        )
    return finding("clock", "ok", "this machine", f"it is {shown}")


def _synchronised() -> bool | None:
    """What systemd says, None if nobody knows."""
    program = shutil.which("timedatectl")
    if program is None:
        return None
    try:
        done = subprocess.run(  # noqa: S603 - the system's own program
            [program, "show", "--property=NTPSynchronized", "--value"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEDATECTL_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return {"yes": True, "no": False}.get(done.stdout.strip()) if done.returncode == 0 else None


def worst(findings: Iterable[Finding]) -> Level:
    """The worst level among findings."""
    levels = {one.level for one in findings}
    return "critical" if "critical" in levels else "warning" if "warning" in levels else "ok"
