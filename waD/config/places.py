"""Where things are by default: files, state and socket, for a service and for a user without root."""

from __future__ import annotations

from collections.abc import Mapping
from os.path import exists, isdir
from pathlib import Path
from typing import Final

SYSTEM_FILE: Final = Path("/etc/waD/waD.toml")
FILE_NAME: Final = "waD.toml"
SOCKET_NAME: Final = "control.sock"
SYSTEM_DIRECTORY: Final = Path("/run/waD")


def _first(listed: str) -> Path:
    """The first directory of a list as systemd passes it."""
    return Path(listed.partition(":")[0])


def _home(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("HOME") or "/")


def _xdg(environ: Mapping[str, str], name: str, fallback: str) -> Path:
    """A base directory of the XDG specification, which ignores relative ones."""
    named = environ.get(name, "")
    return Path(named) if named.startswith("/") else _home(environ) / fallback


def config_file(environ: Mapping[str, str], euid: int) -> Path:
    """The file that is read when none is named; it need not exist.

    A service has `$CONFIGURATION_DIRECTORY` from systemd. Root reads `/etc/waD/waD.toml`. So do others, unless they
    have a file or a `conf.d` of their own in `$XDG_CONFIG_HOME/waD`, or there is none in `/etc/waD`.
    """
    if listed := environ.get("CONFIGURATION_DIRECTORY"):
        return _first(listed) / FILE_NAME
    if euid == 0:
        return SYSTEM_FILE
    own = _xdg(environ, "XDG_CONFIG_HOME", ".config") / "waD" / FILE_NAME
    # Unlike the methods of Path, these take a directory that may not be entered for a missing file.
    return own if exists(own) or isdir(fragments(own)) or not exists(SYSTEM_FILE) else SYSTEM_FILE


def fragments(file: Path) -> Path:
    """The directory whose `*.toml` are read after a file."""
    return file.parent / "conf.d"


def store_file(environ: Mapping[str, str], euid: int) -> Path:  # noqa: ARG001 - one signature for all defaults
    """The embedded database."""
    if listed := environ.get("STATE_DIRECTORY"):
        return _first(listed) / "waD.db"
    return _xdg(environ, "XDG_STATE_HOME", ".local/state") / "waD" / "waD.db"


def socket_file(environ: Mapping[str, str], euid: int) -> Path:  # noqa: ARG001 - one signature for all defaults
    """The control socket; the command line looks in the same places."""
    if (listed := environ.get("RUNTIME_DIRECTORY", "")).startswith("/"):
        return _first(listed) / SOCKET_NAME
    if (runtime := environ.get("XDG_RUNTIME_DIR", "")).startswith("/"):
        return Path(runtime) / "waD" / SOCKET_NAME
    return SYSTEM_DIRECTORY / SOCKET_NAME
