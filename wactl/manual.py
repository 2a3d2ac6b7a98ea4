"""Makes the manual pages of section 1 from the commands' definitions: `python -m wactl.manual man/`."""

from __future__ import annotations

import inspect
import re
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

import click

from wactl.base import LazyGroup, common_options
from wactl.cli import COMMANDS, cli
from waD.control import types as t

MARK: Final = r'.\" Made by "python -m wactl.manual man"; change the commands, not this file.'

EXITS: Final[Mapping[int, str]] = {
    t.EXIT_OK: "done",
    t.EXIT_REFUSED: "refused or failed, by WhatsApp or by the daemon",
    t.EXIT_USAGE: "wrong usage; nothing was done",
    t.EXIT_UNREACHABLE: "the daemon cannot be reached",
    t.EXIT_STATE: "no such session, or not in the state for this",
    t.EXIT_TIMEOUT: "timed out waiting; nothing is undone",
    t.EXIT_DAMAGED: "verification found damage",
    t.EXIT_NOT_PERMITTED: "not permitted",
    t.EXIT_INTERRUPTED: "interrupted",
}

_SOCKET: Final = ("WAD_SOCKET", "The daemon's control socket, where --socket does not name one.")
_RUNTIME: Final = (
    "RUNTIME_DIRECTORY, XDG_RUNTIME_DIR",
    "Where the socket of a service or of a user's own daemon is looked for; then at /run/waD/control.sock.",
)
_COLOUR: Final = ("NO_COLOR", "When not empty, nothing is coloured.")
_SANDBOX: Final = ("WAD_SANDBOX_URL", "The sandbox, where --url does not name one.")

_OTHER_PAGES: Final = re.compile(r"\b([A-Za-z_][\w.-]*)\(([1-8])\)")
_OWN_COMMANDS: Final = re.compile(r"\bwactl ([a-z][a-z-]*)")
_DAEMON_PAGES: Final = (("waD", "8"), ("waD.toml", "5"), ("waD-control", "7"))


def pages() -> dict[str, str]:
    """Every page by its file's name."""
    return {"wactl.1": _overview()} | {f"wactl-{name}.1": _page(name) for name in COMMANDS}


def write(directory: Path) -> None:
    """Write every page, and delete those of commands that are gone."""
    wanted = pages()
    for name, text in wanted.items():
        (directory / name).write_text(text)
    for path in directory.glob("wactl-*.1"):
        if path.name not in wanted and path.read_text().startswith(MARK):
            path.unlink()


def _overview() -> str:
    lines = [
        *_head("wactl", "control the waD daemon"),
        r"\fBwactl\fP [\fB\-\-json\fP] [\fB\-\-socket\fP\ \fIPATH\fP] \fICOMMAND\fP \fR...\fP",
        ".br",
        r"\fBwactl\fP \fB\-\-version\fP | \fB\-\-help\fP",
        ".SH DESCRIPTION",
        *_prose(
            "wactl talks to waD(8), the daemon that runs WhatsApp sessions. Each command has a manual page of its "
            "own.\n\n"
            "Answers go to standard output, everything else to standard error. With --json answers are JSON whose "
            "members stay; what is written for people may change. Remote text is written without control "
            "characters.\n\n"
            "Commands that destroy something ask on a terminal, and need --yes without one."
        ),
        ".SS Commands",
        *(
            line
            for name, (_, short) in COMMANDS.items()
            for line in _item(f"wactl-{name}", short, section="1")
        ),
        ".SH OPTIONS",
        *_options(common_options()),
        *_item("--version", "Show the version and exit."),
        *_help(),
        *_exits(EXITS),
        ".PP",
        *_prose("wactl-check(1) and wactl-ready(1) have exit statuses of their own."),
        *_examples([cli.example]),
        *_environment([_SOCKET, _RUNTIME, _COLOUR, _SANDBOX]),
        *_see_also([(f"wactl-{name}", "1") for name in COMMANDS]),
    ]
    return "\n".join(lines) + "\n"


def _page(name: str) -> str:
    command = _found(cli, name)
    commands = {f"wactl {name}": command}
    if isinstance(command, click.Group):
        commands = {
            f"wactl {name} {sub}": _found(command, sub) for sub in command.list_commands(_context(command))
        }
    lines = [*_head(f"wactl-{name}", _summary(name))]
    for index, (words, one) in enumerate(commands.items()):
        lines += [*([".br"] if index else []), *_synopsis(words, one)]
    lines += [".SH DESCRIPTION", *_prose(inspect.cleandoc(command.help or ""))]
    shared = _shared(commands.values())
    if isinstance(command, click.Group):
        lines += _subcommands(commands, {_meaning(option) for option in shared})
    lines += [".SH OPTIONS", *_options([*shared, *common_options()]), *_help()]
    lines += _exits(getattr(command, "exits", EXITS))
    examples = [getattr(one, "example", "") for one in commands.values()]
    lines += _examples([*([command.example] if isinstance(command, LazyGroup) else []), *examples])
    lines += _environment([_SANDBOX, _COLOUR] if name == "sandbox" else [_SOCKET, _RUNTIME, _COLOUR])
    lines += _see_also(_related(name, [command, *commands.values()]))
    return "\n".join(lines) + "\n"


def _found(group: click.Group, name: str) -> click.Command:
    found = group.get_command(_context(group), name)
    assert found is not None
    return found


def _context(command: click.Command) -> click.Context:
    return click.Context(command)


def _summary(name: str) -> str:
    short = COMMANDS[name][1].removesuffix(".")
    return short[:1].lower() + short[1:]


# Parts of a page.


def _head(title: str, summary: str) -> Iterator[str]:
    yield MARK
    yield f'.TH {title} 1 "" waD "waD manual"'
    yield ".SH NAME"
    yield rf"{_escape(title)} \- {_escape(summary)}"
    yield ".SH SYNOPSIS"


def _synopsis(words: str, command: click.Command) -> Iterator[str]:
    yield rf"\fB{_escape(words)}\fP"
    for option in _own(command):
        text = _spelled(option).replace(" ", r"\ ")
        again = r"\ ..." if option.multiple else ""
        yield f"{text}{again}" if option.required else f"[{text}]{again}"
    yield from (_argument(one) for one in command.params if isinstance(one, click.Argument))


def _shared(commands: Collection[click.Command]) -> list[click.Option]:
    """The options that most commands of a page have; all of a single one."""
    found = {_meaning(option): option for command in commands for option in _own(command)}
    counts = Counter(_meaning(option) for command in commands for option in _own(command))
    return [option for meaning, option in found.items() if counts[meaning] * 2 > len(commands)]


def _meaning(option: click.Option) -> tuple[str | None, str | None]:
    """What makes two options of a page the same: another text is another meaning."""
    return option.name, option.help


def _subcommands(
    commands: Mapping[str, click.Command], elsewhere: Collection[tuple[str | None, str | None]]
) -> Iterator[str]:
    yield ".SH COMMANDS"
    for words, command in commands.items():
        arguments = [_argument(one) for one in command.params if isinstance(one, click.Argument)]
        yield f'.SS "{" ".join([_escape(words), *arguments])}"'
        yield from _prose(inspect.cleandoc(command.help or ""))
        yield from _options(option for option in _own(command) if _meaning(option) not in elsewhere)


def _own(command: click.Command) -> list[click.Option]:
    """The options that not every command has."""
    common = {option.name for option in common_options()}
    return [one for one in command.params if isinstance(one, click.Option) and one.name not in common]


def _options(options: Iterable[click.Parameter]) -> Iterator[str]:
    for option in options:
        assert isinstance(option, click.Option)
        yield ".TP"
        yield _spelled(option)
        yield _escape(option.help or "")
        if option.show_default and option.default is not None:
            yield f"Default: {_escape(_default(option))}."
        if option.multiple:
            yield "May be given several times."


def _default(option: click.Option) -> str:
    default = option.default
    return f"{default:g}" if isinstance(default, float) else str(default)


def _spelled(option: click.Option) -> str:
    names = [f"\\fB{_escape(name)}\\fP" for name in (*option.opts, *option.secondary_opts)]
    spelled = (" | " if option.secondary_opts else ", ").join(names)
    if option.is_flag:
        return spelled
    if isinstance(option.type, click.Choice):
        return spelled + " " + "|".join(rf"\fB{_escape(str(one))}\fP" for one in option.type.choices)
    return rf"{spelled} \fI{_escape(option.metavar or option.type.name.upper())}\fP"


def _argument(argument: click.Argument) -> str:
    text = argument.metavar or _plain_argument(argument)
    return re.sub(r"[A-Z]+", lambda word: rf"\fI{word[0]}\fP", _escape(text))


def _plain_argument(argument: click.Argument) -> str:
    if isinstance(argument.type, click.Choice):
        return "|".join(map(str, argument.type.choices))
    name = (argument.name or "").upper() + ("..." if argument.nargs == -1 else "")
    return name if argument.required else f"[{name}]"


def _help() -> Iterator[str]:
    yield ".TP"
    yield r"\fB\-h\fP, \fB\-\-help\fP"
    yield "Show a help and exit."


def _exits(exits: Mapping[int, str]) -> Iterator[str]:
    yield '.SH "EXIT STATUS"'
    for status, meaning in exits.items():
        yield from _item(str(status), f"{meaning[:1].upper()}{meaning[1:]}.")


def _examples(examples: Iterable[str]) -> Iterator[str]:
    yield ".SH EXAMPLES"
    yield ".RS 4"
    yield ".EX"
    seen = [line for example in examples for line in example.splitlines()]
    yield from (_escape(line) for line in dict.fromkeys(seen))
    yield ".EE"
    yield ".RE"


def _environment(variables: Iterable[tuple[str, str]]) -> Iterator[str]:
    yield ".SH ENVIRONMENT"
    for name, meaning in variables:
        yield from _item(name, meaning)


def _see_also(found: Iterable[tuple[str, str]]) -> Iterator[str]:
    every = dict.fromkeys([*found, *_DAEMON_PAGES])
    yield '.SH "SEE ALSO"'
    names = [f".BR {_escape(name)} ({section})" for name, section in every]
    yield from (f"{name}," for name in names[:-1])
    yield names[-1]


def _related(name: str, commands: Iterable[click.Command]) -> list[tuple[str, str]]:
    """The overview, and what the texts of a page mention."""
    text = "\n".join(
        f"{one.help}\n{getattr(one, 'example', '')}\n" + "\n".join(option.help or "" for option in _own(one))
        for one in commands
    )
    mentioned = {found for found in _OWN_COMMANDS.findall(text) if found in COMMANDS and found != name}
    others = [(page, section) for page, section in _OTHER_PAGES.findall(text)]
    return [("wactl", "1"), *((f"wactl-{one}", "1") for one in COMMANDS if one in mentioned), *others]


def _item(name: str, meaning: str, section: str = "") -> Iterator[str]:
    yield ".TP"
    yield f".BR {_escape(name)} ({section})" if section else f".B {_escape(name)}"
    yield _escape(meaning)


def _prose(text: str) -> Iterator[str]:
    """Paragraphs, with references to other pages set as such."""
    for index, paragraph in enumerate(text.split("\n\n")):
        if index:
            yield ".PP"
        flowing = _escape(" ".join(paragraph.split()))
        yield _OTHER_PAGES.sub(r"\\fB\1\\fP(\2)", flowing.replace(r"\-control(", r"-control("))


def _escape(text: str) -> str:
    """Text that the macros leave alone."""
    text = text.replace("\\", r"\(rs").replace("-", r"\-").replace('"', r"\(dq").replace("'", r"\(aq")
    text = text.replace("~", r"\(ti").replace("^", r"\(ha").replace("`", r"\(ga")
    return re.sub(r"^\.", r"\\&.", text)


if __name__ == "__main__":
    write(Path(sys.argv[1] if len(sys.argv) > 1 else "man"))
