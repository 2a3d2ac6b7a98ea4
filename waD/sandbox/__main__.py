"""`python -m waD.sandbox run`: a sandbox in the foreground."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import click
import msgspec
import trio

from waD.sandbox.environment import Settings
from waD.sandbox.errors import SandboxError
from waD.sandbox.sandbox import LOOPBACK, Sandbox, run_sandbox

DEFAULT_PORT = 8080


@click.group()
def main() -> None:
    """A WhatsApp server with simulated phones, for trying and testing without a phone."""


@main.command()
@click.option("--host", default=LOOPBACK, show_default=True, help="Address to listen on.")
@click.option(
    "--port", default=DEFAULT_PORT, show_default=True, type=click.IntRange(0, 65535), help="0: any."
)
@click.option("--tls", is_flag=True, help="Serve wss and https with a certificate of its own authority.")
@click.option("--state", type=click.Path(file_okay=False, path_type=Path), help="Keep everything in DIR.")
@click.option("--seed", type=int, help="Deterministic keys and ids, for tests only.")
@click.option(
    "--chat-state-ttl", type=float, default=30.0, show_default=True, help="Seconds a typing notice lives."
)
@click.option("--snapshots", is_flag=True, help="Give snapshots of the app state as files; needs --tls.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON line at the start.")
def run(
    host: str,
    port: int,
    *,
    tls: bool,
    state: Path | None,
    seed: int | None,
    chat_state_ttl: float,
    snapshots: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Run until SIGINT or SIGTERM.

    Example: python -m waD.sandbox run --port 0 --state /tmp/sandbox
    """
    if snapshots and not tls:
        raise click.UsageError("--snapshots needs --tls: clients fetch files over https only")
    settings = Settings(chat_state_ttl_s=chat_state_ttl, app_state_snapshots=snapshots)

    async def serve() -> None:
        async with run_sandbox(
            port, host=host, tls=tls, state=state, seed=seed, settings=settings
        ) as sandbox:
            if not quiet:
                _announce(sandbox, as_json=as_json)
            with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                async for _ in signals:
                    return

    try:
        trio.run(serve)
    except* (SandboxError, OSError) as errors:
        for error in errors.exceptions:
            click.echo(f"sandbox: {error}", err=True)
        sys.exit(1)


def _announce(sandbox: Sandbox, *, as_json: bool) -> None:
    facts = {
        "url": sandbox.url,
        "adminUrl": sandbox.admin_url,
        "rootKey": sandbox.root_key.hex(),
        "caFile": str(sandbox.ca_file) if sandbox.ca_file else None,
    }
    if as_json:
        click.echo(msgspec.json.encode(facts))
    else:
        click.echo(f"sandbox   {facts['url']}\nadmin     {facts['adminUrl']}\nroot key  {facts['rootKey']}")
        if sandbox.ca_file:
            click.echo(f"CA file   {sandbox.ca_file}")
    sys.stdout.flush()


if __name__ == "__main__":
    main(prog_name="python -m waD.sandbox")
