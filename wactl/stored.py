"""What commands about stored auth states have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from wactl.client import COMMAND_S, Client
from waD.control import types as t

_F = TypeVar("_F", bound=Callable[..., Any])


def offline_options(function: _F) -> _F:
    """The options --offline and --config."""
    config = click.option(
        "--config",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Use the store of the waD.toml FILE, without a daemon.",
    )
    offline = click.option("--offline", is_flag=True, help="Use the store itself, without a daemon.")
    return offline(config(function))


def paired_names(client: Client) -> list[str]:
    """The sessions that are paired; raises Failure."""
    listed = client.ask("session.list", t.SessionList, timeout=COMMAND_S)
    return [session.name for session in listed.sessions if session.paired and session.desired != "retired"]


def worst(statuses: Sequence[int]) -> int:
    """The exit status of several: damage counts more than anything else that went wrong."""
    failed = [status for status in statuses if status != t.EXIT_OK]
    if t.EXIT_DAMAGED in failed:
        return t.EXIT_DAMAGED
    return failed[0] if failed else t.EXIT_OK
