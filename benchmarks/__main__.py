"""`python -m benchmarks [NAME…]`: run the named benchmarks, or all; one JSON document each, also under build/bench."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

NAMES = ("codec", "e2ee", "receive", "idle", "cli", "restore", "store")
RESULTS = Path(__file__).parent.parent / "build" / "bench"


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        print(
            f"benchmarks: no such benchmark: {', '.join(unknown)} (there are: {', '.join(NAMES)})",
            file=sys.stderr,
        )
        return 2
    RESULTS.mkdir(parents=True, exist_ok=True)
    for name in names or NAMES:
        result = importlib.import_module(f"benchmarks.{name}").run()
        text = json.dumps({"benchmark": name, **result}, indent=2)
        (RESULTS / f"{name}.json").write_text(text + "\n")
        print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
