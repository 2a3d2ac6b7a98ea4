"""What all commands share: the state of an invocation, lazily loaded groups, common options, an example each."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from click.shell_completion import CompletionItem

from wactl.client import Client, candidates
from wactl.failure import usage
from wactl.render import Renderer, is_terminal

_F = TypeVar("_F", bound=Callable[..., Any])


class App:
    """One invocation of `wactl`.

    Attributes:
        out: the renderer.
        socket: the one named with --socket or WAD_SOCKET.
    """

    def __init__(self) -> None:
        self.out = Renderer()
        self.socket: Path | None = None

    @property
    def as_json(self) -> bool:
        """JSON was asked for."""
        return self.out.as_json

    def client(self) -> Client:
        """Connect to the daemon; raises Failure."""
        return Client.connect(candidates(self.socket))

    def confirm(self, question: str, *, yes: bool) -> None:
        """Ask before something is destroyed; raises Failure if nobody can be asked, click.Abort on a no."""
        if yes:
            return
        if not is_terminal(sys.stdin):
            raise usage(
                f"{question} There is no terminal to ask on: say --yes if you mean it. Nothing was done."
            )
        click.confirm(question, abort=True, err=True)

    def typed(self, question: str) -> str:
        """Ask for a word that is not given lightly; raises Failure if nobody can be asked."""
        if not is_terminal(sys.stdin):
            raise usage(f"{question}: there is no terminal to ask on, say --confirm. Nothing was done.")
        answer: str = click.prompt(question, default="", show_default=False, err=True)
        return answer


pass_app = click.make_pass_decorator(App)


def _want_json(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value and not context.resilient_parsing:
        context.ensure_object(App).out.as_json = True


def _use_socket(context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    if value is None:
        return
    context.meta[SOCKET_META] = value
    if not context.resilient_parsing:
        context.ensure_object(App).socket = Path(value)


SOCKET_META: Final = "wactl.socket"


def common_options() -> list[click.Parameter]:
    """`--json` and `--socket`, which are taken before and after the command's name."""
    return [
        click.Option(
            ["--json"],
            is_flag=True,
            expose_value=False,
            callback=_want_json,
            help="Write JSON; streams one document a line, errors as an object on stderr.",
        ),
        click.Option(
            ["--socket"],
            metavar="PATH",
            expose_value=False,
            callback=_use_socket,
            help="The daemon's control socket; else WAD_SOCKET, else the user's, else the system's.",
        ),
    ]


class Command(click.Command):
    """A command with the common options and an example in its help."""

    def __init__(self, name: str | None, *, example: str = "", **settings: Any) -> None:
        settings["params"] = [*settings.get("params", []), *common_options()]
        super().__init__(name, **settings)
        self.example = example

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - as click calls it
        """Write the example."""
        write_example(self.example, formatter)


def write_example(example: str, formatter: click.HelpFormatter) -> None:
    """Write an example, one line as it stands for each of its lines."""
    with formatter.section("Example"):
        for line in example.splitlines():
            formatter.write(f"{' ' * formatter.current_indent}{line}\n")


def command(
    name: str, *, example: str, cls: type[Command] = Command, **settings: Any
) -> Callable[[Callable[..., Any]], Command]:
    """Make a command of a function; its first argument is the App."""

    def make(function: Callable[..., Any]) -> Command:
        settings.setdefault("no_args_is_help", False)
        made = click.command(name, cls=cls, example=example, **settings)(pass_app(function))
        assert isinstance(made, Command)
        return made

    return make


class LazyGroup(click.Group):
    """A group that imports a command when it is used.

    Args:
        table: by name: `module:attribute` and a short help.
        example: for the help.
    """

    def __init__(
        self,
        name: str | None,
        *,
        table: Mapping[str, tuple[str, str]],
        example: str = "",
        **settings: Any,
    ) -> None:
        settings["params"] = [*settings.get("params", []), *common_options()]
        super().__init__(name, **settings)
        self.table = table
        self.example = example

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - as click calls it
        """The names, in the table's order."""
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - as click calls it
        """Import a command."""
        row = self.table.get(cmd_name)
        if row is None:
            return None
        module, _, attribute = row[0].partition(":")
        found: click.Command = getattr(importlib.import_module(module), attribute)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - as click calls it
        """Write the names and short helps without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, row[1]) for name, row in self.table.items()])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - as click calls it
        """Write the example."""
        write_example(self.example, formatter)


class DefaultGroup(LazyGroup):
    """A group in which one command's name may be left out.

    Args:
        name: of the group.
        default: the command that is meant when no other is named.
        **settings: as for `LazyGroup`.
    """

    def __init__(self, name: str, *, default: str, **settings: Any) -> None:
        super().__init__(name, **settings)
        self.default = default

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put in the name that was left out."""
        if args and not _names_command(args, self.table):
            args = [self.default, *args]
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Names of sessions as well, for the command that need not be named."""
        own = super().shell_complete(ctx, incomplete)
        if incomplete.startswith("-"):
            return own
        names = complete_name(ctx, self.params[0], incomplete)
        return [*own, *(CompletionItem(name) for name in names)]


def _names_command(args: Sequence[str], table: Mapping[str, object]) -> bool:
    """Whether the first word behind common options is a command of the group, or a help is asked for."""
    words = iter(args)
    for word in words:
        if word == "--socket":
            next(words, None)
        elif word != "--json" and not word.startswith("--socket="):
            return word in table or word in ("-h", "--help")
    return False


def complete_name(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Names of sessions that the daemon knows, for a shell."""
    from wactl.completing import session_names

    chosen = context.meta.get(SOCKET_META) or os.environ.get("WAD_SOCKET")
    return session_names(Path(chosen) if chosen else None, incomplete)


def session_argument(*, required: bool = True) -> Callable[[_F], _F]:
    """The argument NAME, completed with the names the daemon knows."""
    return click.argument(
        "name", metavar="NAME" if required else "[NAME]", required=required, shell_complete=complete_name
    )
