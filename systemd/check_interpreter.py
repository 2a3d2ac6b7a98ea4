"""Refuses a Python that the service could not run with: run by the interpreter that `make install` is about to use.

The unit has ProtectHome=yes, so an interpreter below a home directory does not exist for the daemon.
"""

from __future__ import annotations

import os
import sys
from typing import Final

LEAST: Final = (3, 11)
HIDDEN: Final = ("/home/", "/root/", "/run/user/")
"""What ProtectHome= takes away."""


def complaint(executable: str, version: tuple[int, int]) -> str | None:
    """Say what is wrong with an interpreter, None when it will do.

    Args:
        executable: its path with every symbolic link followed.
        version: major and minor.
    """
    if version < LEAST:
        return f"{executable} is Python {version[0]}.{version[1]}; waD needs {LEAST[0]}.{LEAST[1]} or newer"
    if executable.startswith(HIDDEN):
        return (
            f"{executable} lies in a home directory, which the service cannot see; name another interpreter, "
            f"for example: make install PYTHON=/usr/bin/python3"
        )
    return None


if __name__ == "__main__":
    base: str = getattr(sys, "_base_executable", None) or sys.executable
    sys.exit(complaint(os.path.realpath(base), sys.version_info[:2]))
