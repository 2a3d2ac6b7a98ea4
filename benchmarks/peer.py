"""Runs a script with Baileys and its libraries from npm, and reads the JSON it prints."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.interop import npm

PEERS = Path(__file__).parent / "peers"


def run(script: str, given: dict[str, Any]) -> Any:
    """Run `peers/SCRIPT` with `given` as JSON on its standard input."""
    modules = npm.install_baileys()
    done = subprocess.run(
        [npm.find_node().node, str(PEERS / script), str(modules)],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)
