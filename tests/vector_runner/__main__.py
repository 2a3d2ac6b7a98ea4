"""Command line of the vector runner."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from tests.vector_runner.core import EXIT_USAGE, run_directory


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("usage: python -m tests.vector_runner DIR", file=sys.stderr)
        return EXIT_USAGE
    logging.getLogger("waD").addHandler(logging.NullHandler())  # the report is all that is printed
    return run_directory(Path(arguments[0]), sys.stdout, sys.stderr)


sys.exit(main(sys.argv[1:]))
