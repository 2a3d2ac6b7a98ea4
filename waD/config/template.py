"""`etc/waD.toml`: every option with its default, as comments."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Final

from waD.config.option import Derived, Option
from waD.config.schema import CAUSES, SECTIONS, Section

WIDTH: Final = 100

_HEAD: Final = """\
Settings of the waD daemon. Every option is here with its default; take the # away to change one.
The files conf.d/*.toml beside this one are read after it, in the order of their names, and override single keys.
Durations are numbers of the unit given, or strings with units: "250ms", "25s", "15min", "1h 30min", "30d".
Check with: waD --check-config. Put in force with: systemctl reload waD; options marked "restart" need a restart.
The manual is waD.toml(5)."""

_CAUSES: Final = """\
Causes and what happens by default: waD.toml(5). Example:"""

_SESSIONS: Final = """\
Single sessions may differ from the sections network, reconnect, health, alerts, outbox and messages. Example:"""


def template() -> str:
    """Return the whole file."""
    lines = [*_comment(_HEAD)]
    for section in SECTIONS:
        lines += ["", *_section(section)]
    lines += [
        "",
        *_comment(_SESSIONS),
        "#[sessions.alerts.network]",
        '#proxy = "http://proxy.example.net:3128"',
        "#[sessions.alerts.reconnect]",
        "#attempts = 20",
        "#[sessions.alerts.reconnect.on]",
        '#replaced = "hold"',
    ]
    return "\n".join(lines) + "\n"


def _section(section: Section) -> Iterator[str]:
    yield from _comment(section.doc)
    yield f"[{section.name}]"
    if section.name == CAUSES:
        yield from _comment(_CAUSES)
        yield '#replaced = "hold"'
        return
    for option in section.options:
        yield ""
        yield from _option(option)


def _option(option: Option) -> Iterator[str]:
    spec = option.spec
    notes = [option.kind.summary()]
    if not spec.reload:
        notes.append("restart")
    yield from _comment(f"{spec.doc} ({'; '.join(notes)})")
    if isinstance(spec.default, Derived):
        yield from _comment(f"Default: {spec.default.text}")
    yield f"#{option.name} = {sample(option)}"


def sample(option: Option) -> str:
    """TOML text to show for an option: its default, or an example where the default is no fixed value."""
    spec = option.spec
    if isinstance(spec.default, Derived):
        return f'"{spec.default.sample}"'
    return spec.example or "" if spec.default is None else option.kind.toml(spec.default)


def _comment(text: str) -> Iterator[str]:
    for paragraph in text.splitlines():
        for line in textwrap.wrap(paragraph, WIDTH - 2, break_long_words=False, break_on_hyphens=False):
            yield f"# {line}"
