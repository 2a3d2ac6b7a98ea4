"""Who holds a lease: `host/pid/boot-id/uuid` (chapter 08 §6.4)."""

from __future__ import annotations

import os
import socket
import uuid
from pathlib import Path
from typing import Final

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


def own_holder() -> str:
    """This process; another one each time it is started."""
    return f"{socket.gethostname()}/{os.getpid()}/{_boot_id()}/{uuid.uuid4()}"


def is_gone(holder: str) -> bool:
    """Whether a holder was a process of this boot of this machine, and is no more; False when that is not known."""
    parts = holder.split("/")
    if len(parts) != 4 or not parts[1].isdigit():
        return False
    host, pid, boot_id, _ = parts
    if host != socket.gethostname() or not boot_id or boot_id != _boot_id():
        return False
    if int(pid) == os.getpid():
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return False


def _boot_id() -> str:
    """This boot, as seen from this namespace of processes: in another one the same number is another process."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
        return f"{_BOOT_ID.read_text().strip()}.{''.join(filter(str.isdigit, namespace))}"
    except OSError:
        return ""
