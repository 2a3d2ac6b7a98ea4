"""`wactl config show`, `check` and `init`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import click

from wactl import child
from wactl.base import App, LazyGroup, command
from wactl.failure import Failure
from wactl.text import clean
from waD.control import types as t

FILE_MODE: Final = 0o640
DIRECTORY_MODE: Final = 0o750
STDOUT: Final = Path("-")

_DEFAULT_PLACE: Final = (
    "import os; from waD.config.places import config_file; print(config_file(os.environ, os.geteuid()))"
)

config = LazyGroup(
    "config",
    table={
        "show": ("wactl.commands.config:show", "Show the settings in force."),
        "check": ("wactl.commands.config:check", "Check the files, without a daemon."),
        "init": ("wactl.commands.config:init", "Write a file with every option, commented out."),
    },
    help="Show, check or write settings; the options are in waD.toml(5).",
    example="wactl config check && wactl daemon reload",
)


@command(
    "show",
    example="wactl config show --origin\n"
    "wactl config show --json | jq -r '.options[] | select(.origin != \"default\").key'",
)
@click.option("--origin", is_flag=True, help="Say where each value comes from: FILE:LINE, or default.")
def show(app: App, *, origin: bool) -> None:
    """Show every option that the running daemon has in force, as TOML; passwords are masked."""
    with app.client() as client:
        answer = client.call("config.show")
        if app.as_json:
            return app.out.document(answer)
        found = client.decode(answer, t.ConfigList)
    for one in found.options:
        app.out.line(clean(f"{one.key} = {one.value}" + (f"  # {one.origin}" if origin else "")))
    for warning in found.warnings:
        app.out.note(f"warning: {clean(warning)}")
    return None


@command("check", example="wactl config check --config ./waD.toml")
@click.option(
    "--config",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Check FILE and conf.d beside it, instead of the default place.",
)
def check(app: App, file: Path | None) -> int:
    """Read the settings as a starting daemon would, and tell every fault with file, line and key.

    Needs no daemon and changes nothing. Exit status 1 if there is a fault.
    """
    done = child.run("-m", "waD", "--check-config", *(() if file is None else (f"--config={file}",)))
    valid = done.status == 0
    if app.as_json:
        app.out.document(
            {
                "valid": valid,
                "message": done.out.strip(),
                "warnings": done.errors if valid else [],
                "faults": [] if valid else done.errors,
            }
        )
    else:
        for line in done.errors:
            app.out.note(clean(f"warning: {line}" if valid else line))
        if valid:
            app.out.line(clean(done.out.strip()))
    return t.EXIT_OK if valid else t.EXIT_REFUSED


@command("init", example="wactl config init --output ./waD.toml\nwactl config init --output - | less")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    metavar="FILE",
    help='Write FILE instead of the default place; "-" is standard output.',
)
def init(app: App, output: Path | None) -> None:
    """Write a file with every option, its meaning and its default, all commented out.

    Without --output it goes where the daemon of the same user looks for it. A file that exists is never touched. The
    new one has mode 0640, and the group of its directory if root writes it.
    """
    text = _of_the_daemon("-m", "waD.config", "init")
    if output == STDOUT:
        return app.out.document({"text": text}) if app.as_json else app.out.line(text.removesuffix("\n"))
    file = output or Path(_of_the_daemon("-c", _DEFAULT_PLACE).removesuffix("\n"))
    write_new(file, text.encode())
    if app.as_json:
        return app.out.document({"file": str(file)})
    app.out.line(clean(str(file)))
    return app.out.note("edit it, then: wactl config check && wactl daemon reload")


def _of_the_daemon(*words: str) -> str:
    done = child.run(*words)
    if done.status:
        raise Failure("refused", "; ".join(done.errors) or f"exit status {done.status}", t.EXIT_REFUSED)
    return done.out


def write_new(file: Path, data: bytes) -> None:
    """Write a file that is not there yet, whole or not at all; raises Failure."""
    try:
        file.parent.mkdir(DIRECTORY_MODE, parents=True, exist_ok=True)
        descriptor = _create(file)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                if os.geteuid() == 0:
                    os.fchown(descriptor, -1, file.parent.stat().st_gid)
                os.fchmod(descriptor, FILE_MODE)
                stream.write(data)
        except BaseException:
            file.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise Failure(
            "output", f"cannot write {file}: {error.strerror}", t.EXIT_REFUSED, data={"file": str(file)}
        ) from None


def _create(file: Path) -> int:
    try:
        return os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
    except FileExistsError:
        raise Failure(
            "output",
            f"{file} exists; nothing was written. Name another file with --output, or compare: "
            f"wactl config init --output - | diff {file} -",
            t.EXIT_REFUSED,
            data={"file": str(file)},
        ) from None
