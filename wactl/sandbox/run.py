"""`wactl sandbox run`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from wactl.base import App, command
from wactl.child import command_line


@command(
    "run", example="wactl sandbox run --port 8080 --state /tmp/sandbox\nwactl sandbox run --port 0 --json"
)
@click.option("--host", metavar="ADDRESS", help="Address to listen on; loopback unless said otherwise.")
@click.option(
    "--port", type=click.IntRange(0, 65535), metavar="N", help="TCP port, else 8080; 0 takes a free one."
)
@click.option(
    "--tls", is_flag=True, help="Serve wss and https with a certificate of an authority of its own."
)
@click.option(
    "--state", type=click.Path(file_okay=False, path_type=Path), metavar="DIR", help="Keep all in DIR."
)
@click.option("--seed", type=int, metavar="N", help="Deterministic keys and ids, for tests only.")
@click.option("--chat-state-ttl", type=float, metavar="SECONDS", help="How long a typing notice lives.")
@click.option("--snapshots", is_flag=True, help="Give snapshots of the app state as files; needs --tls.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
def run(
    app: App,
    *,
    host: str | None,
    port: int | None,
    tls: bool,
    state: Path | None,
    seed: int | None,
    chat_state_ttl: float | None,
    snapshots: bool,
    quiet: bool,
) -> None:
    """Run a sandbox until SIGINT or SIGTERM.

    Prints its address and its root key: url and root_key of [network] in waD.toml(5). With --json one line with url,
    adminUrl, rootKey and caFile.
    """
    values = {
        "--host": host,
        "--port": port,
        "--state": state,
        "--seed": seed,
        "--chat-state-ttl": chat_state_ttl,
    }
    flags = {"--tls": tls, "--snapshots": snapshots, "--quiet": quiet, "--json": app.as_json}
    words = [f"{name}={value}" for name, value in values.items() if value is not None]
    words += [name for name, given in flags.items() if given]
    # In this process's place, so that signals and the exit status are the sandbox's own.
    os.execv(sys.executable, command_line("-m", "waD.sandbox", "run", *words))  # noqa: S606
