"""`wactl completion`."""

from __future__ import annotations

import click
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

from wactl.base import App, command

SHELLS: dict[str, type[ShellComplete]] = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}
VARIABLE = "_WACTL_COMPLETE"


@command(
    "completion",
    example="wactl completion bash > ~/.local/share/bash-completion/completions/wactl\n"
    "wactl completion fish > ~/.config/fish/completions/wactl.fish",
)
@click.argument("shell", type=click.Choice(list(SHELLS)))
def completion(app: App, shell: str) -> None:
    """Print the script that makes a shell complete commands, options and names of sessions."""
    root = click.get_current_context().find_root().command
    made = SHELLS[shell](root, {}, "wactl", VARIABLE)
    # Not source(): it first runs the shell to ask its version, which need not be installed here.
    script = (made.source_template % made.source_vars()).strip()
    if app.as_json:
        app.out.document({"shell": shell, "script": script})
    else:
        app.out.line(script)
