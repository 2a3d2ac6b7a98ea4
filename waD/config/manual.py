"""`man/waD.toml.5`: the manual page, from the declarations."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from waD.config.causes import ACTIONS, FAILURE, FIXED_CAUSES, LOCAL, NEVER_REPAIR, PAIRING, STREAM, TRANSPORT
from waD.config.option import Derived, Option
from waD.config.schema import CAUSES, SECTIONS, SESSION_TABLES, Section
from waD.config.template import sample

_HEAD: Final = r""".\" Made by "python -m waD.session.manual"; change the declarations, not this file.
.TH waD.toml 5 "" waD "waD manual"
.SH NAME
waD.toml \- settings of the waD daemon
.SH SYNOPSIS
.I /etc/waD/waD.toml
.br
.I /etc/waD/conf.d/*.toml
.br
.I $XDG_CONFIG_HOME/waD/waD.toml
.SH DESCRIPTION
The daemon reads one file in TOML format and then, in the order of their names, the files
.I *.toml
in the directory
.I conf.d
beside it. Later files override earlier ones key by key. Every option has a default; a missing file means that
all defaults are in force, unless the file was named on the command line.
.PP
A service reads the directory that systemd passes in
.BR $CONFIGURATION_DIRECTORY .
Otherwise root reads
.IR /etc/waD/waD.toml ,
and other users read
.I $XDG_CONFIG_HOME/waD/waD.toml
.RI ( ~/.config
when the variable is not set), or the file in
.I /etc/waD
if they have none of their own.
.PP
All faults are reported at once, each with file, line and key. A daemon does not start with a fault in its settings;
a reload with a fault changes nothing.
.PP
Durations are numbers of the unit that the option names, or strings of numbers with the units
.BR ms ", " s ", " min ", " h ", " d " and " w ,
such as \(dq1h 30min\(dq.
.PP
Options marked
.I restart
need a restart of the daemon. All others are put in force by a reload; those that concern a connection apply to
the next one. Options marked
.I session
may be set for single sessions, see below.
"""

_CAUSES: Final = r"""Gives single rows of the disconnect table another action, as in
.PP
.RS
.nf
[reconnect.on]
replaced = \(dqhold\(dq
.fi
.RE
"""

_ACTIONS: Final[dict[str, str]] = {
    "restart": "connect again at once; more than three times in a minute become backoff.",
    "backoff": "wait as [reconnect] says, then connect; gives up after attempts.",
    "slow": "raise an alert and wait from slow_base to slow_max; gives up after attempts.",
    "wait": "raise an alert and wait as long as WhatsApp said, 24 hours if it said nothing.",
    "repair": "back up the credentials, clear them, and show a new QR code. Messages and events stay.",
    "hold": "raise an alert, keep the credentials, and do nothing until the operator connects.",
    "stop": "stop, without an alert.",
}

_SESSIONS: Final = r""".SH "SINGLE SESSIONS"
Options marked
.I session
may be set in tables named after a session and a section:
.PP
.RS
.nf
[sessions.alerts.reconnect]
attempts = 20
.PP
[sessions.alerts.network]
proxy = \(dqhttp://proxy.example.net:3128\(dq
.fi
.RE
.PP
"""

_TAIL: Final = r""".SH ENVIRONMENT
.TP
.B CONFIGURATION_DIRECTORY
directory of the files, set by systemd for a unit with ConfigurationDirectory=.
.TP
.BR STATE_DIRECTORY ", " RUNTIME_DIRECTORY
directories of the database and of the socket by default, set by systemd likewise.
.TP
.BR XDG_CONFIG_HOME ", " XDG_STATE_HOME ", " XDG_RUNTIME_DIR
the same for a user's own daemon.
.TP
.B WAD_LOG_LEVEL
overrides
.BR daemon.log_level .
.SH "SEE ALSO"
.BR waD (8),
.BR wactl (1),
.BR waD-control (7)
"""


class CauseRow(NamedTuple):
    """A row of the disconnect table as the page shows it.

    Attributes:
        id: name of the cause.
        action: what is done, in words.
        meaning: what happened, in words.
    """

    id: str
    action: str
    meaning: str


def manual(rows: Sequence[CauseRow] = ()) -> str:
    """Return the whole page in the man macros.

    Args:
        rows: the disconnect table, for the section on `reconnect.on`; it is the session's, which is a floor above.
    """
    lines = [_HEAD.rstrip("\n")]
    for section in SECTIONS:
        lines += _section(section)
        if section.name == CAUSES:
            lines += _table(rows)
    lines += [_SESSIONS.rstrip("\n"), f"Sections: {_words(sorted(SESSION_TABLES))}.", _TAIL.rstrip("\n")]
    return "\n".join(lines) + "\n"


def _section(section: Section) -> Iterator[str]:
    yield f'.SH "[{section.name}]"'
    if section.name == CAUSES:
        yield from _causes()
        return
    yield _escape(section.doc)
    for option in section.options:
        yield from _option(option)


def _option(option: Option) -> Iterator[str]:
    spec = option.spec
    yield ".TP"
    yield f".BR {_escape(option.name)}" + _marks(option)
    yield _escape(spec.doc)
    kind = _escape(option.kind.summary())
    yield f"{kind[:1].upper()}{kind[1:]}."
    if isinstance(spec.default, Derived):
        yield f"Default: {_escape(spec.default.text)}."
    elif spec.default is None:
        yield f"No default; for example {_escape(sample(option))}."
    else:
        yield f"Default: {_escape(option.default_text())}."


def _marks(option: Option) -> str:
    words = [
        word
        for word, true in (("restart", not option.spec.reload), ("session", option.spec.per_session))
        if true
    ]
    return f' " ({", ".join(words)})"' if words else ""


def _causes() -> Iterator[str]:
    yield _CAUSES.rstrip("\n")
    yield ".PP"
    yield "The actions are:"
    for action in ACTIONS:
        yield ".TP"
        yield f".B {action}"
        yield _escape(_ACTIONS[action])
    yield ".TP"
    yield ".B default"
    yield "what the table says, also where an earlier file says otherwise."
    yield ".TP"
    yield ".B recover\\-once"
    yield "for"
    yield ".B replaced"
    yield "only: the name of what its row does, one attempt and then hold."
    yield ".PP"
    yield "The causes are, by where they arise:"
    for title, causes in (
        ("transport", TRANSPORT),
        ("end of the stream", STREAM),
        ("failure at login", FAILURE),
        ("pairing", PAIRING),
        ("this program", LOCAL),
    ):
        yield ".TP"
        yield f".I {title}"
        yield f"{_words(causes)}."
    yield ".PP"
    yield f"{_words(FIXED_CAUSES)} cannot be changed."
    yield ".B repair"
    yield "is refused for causes that say nothing about the credentials:"
    yield f"{_words(sorted(NEVER_REPAIR))}."


def _table(rows: Sequence[CauseRow]) -> Iterator[str]:
    if rows:
        yield ".PP"
        yield "What happens unless the settings say otherwise:"
    for row in rows:
        yield ".TP"
        yield f'.BR {_escape(row.id)} " ({_escape(row.action)})"'
        yield f"{_escape(row.meaning)}."


def _words(words: list[str] | tuple[str, ...]) -> str:
    return ", ".join(rf"\fB{_escape(word)}\fP" for word in words)


def _escape(text: str) -> str:
    """Text that the macros leave alone: minus signs, quotes, dots and quotes at the start of a line."""
    text = text.replace("\\", r"\(rs").replace("-", r"\-").replace('"', r"\(dq")
    text = text.replace("~", r"\(ti").replace("^", r"\(ha")
    return re.sub(r"^([.'])", r"\\&\1", text)
