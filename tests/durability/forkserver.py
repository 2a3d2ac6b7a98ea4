"""The process that `tests.durability.forking` forks daemons from.

Usage: python -m tests.durability.forkserver FD

Orders come over the socket FD, one JSON document a line: `{"fork": {arguments, environment, log}}` is answered with a
process id, `{"status": pid}` with the exit status of that process. When the socket ends, it ends, and its daemons too.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pkgutil
import signal
import socket
import sys
import traceback
from typing import Any, NoReturn

import waD
from waD import crashpoints
from waD.daemon import main as daemon


def _import_everything() -> None:
    for module in pkgutil.walk_packages(waD.__path__, "waD."):
        if not module.name.endswith("__main__") and ".sandbox" not in module.name:
            importlib.import_module(module.name)


def _become_daemon(arguments: list[str], environment: dict[str, str], log: str) -> NoReturn:
    status: Any = 1
    try:
        output = os.open(log, os.O_WRONLY | os.O_APPEND)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.environ.clear()
        os.environ.update(environment)
        importlib.reload(crashpoints)  # which reads the environment
        daemon(arguments, prog_name="waD")
    except SystemExit as ended:
        status = ended.code
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status if isinstance(status, int) else 0 if status is None else 1)


def _serve(channel: socket.socket) -> None:
    running: set[int] = set()
    try:
        with channel.makefile("rwb", buffering=0) as orders:
            for line in orders:
                order = json.loads(line)
                if "fork" in order:
                    answer = os.fork()
                    if not answer:
                        channel.close()
                        _become_daemon(**order["fork"])
                    running.add(answer)
                else:
                    _, status = os.waitpid(order["status"], 0)
                    running.discard(order["status"])
                    answer = os.waitstatus_to_exitcode(status)
                orders.write(f"{answer}\n".encode())
    finally:
        for pid in running:
            os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    _import_everything()
    gc.collect()
    gc.freeze()
    _serve(socket.socket(fileno=int(sys.argv[1])))
