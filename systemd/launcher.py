"""Writes the program that starts an entry point: `launcher.py /usr/lib/waD/bin/python wactl`.

pip would write the path of the staging directory into its own. Isolated (-I), because neither the caller's directory
nor PYTHON* variables have any business in a program that root runs.
"""

from __future__ import annotations

import sys
from typing import Final

MODULES: Final = {"waD": "waD.daemon", "wactl": "wactl.main"}
MAX_FIRST_LINE: Final = 127
"""Bytes that every kernel reads of a first line."""


def launcher(interpreter: str, program: str) -> str:
    """Make the text of a launcher.

    Raises:
        ValueError: the interpreter's path does not fit into a first line.
    """
    first = f"#!{interpreter} -I"
    if len(first.encode()) > MAX_FIRST_LINE or " " in interpreter:
        raise ValueError(f"{interpreter!r} is too long or holds a space: choose another PREFIX")
    return f"{first}\nimport sys\n\nfrom {MODULES[program]} import main\n\nsys.exit(main())\n"


if __name__ == "__main__":
    sys.stdout.write(launcher(sys.argv[1], sys.argv[2]))
