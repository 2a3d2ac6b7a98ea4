"""Why another program's store was not read, or a target not written."""

from __future__ import annotations

from typing import Literal, TypeAlias

SourceCode: TypeAlias = Literal[
    "device_unknown",
    "devices_several",
    "driver_missing",
    "dump_unsupported",
    "not_a_file",
    "not_baileys",
    "not_sqlite",
    "not_whatsmeow",
    "schema_too_new",
    "session_several",
    "session_unknown",
    "source_busy",
    "source_changed",
    "source_damaged",
    "source_encrypted",
    "source_missing",
    "source_running",
    "source_too_large",
    "source_unreachable",
    "table_missing",
    "target_not_empty",
    "target_unwritable",
]
"""`dump_unsupported`: a file of a form, or with something in it, that this program does not read; the text says what to
do. `source_running`: nobody said that the old program is stopped, or it seems to run. `source_changed`: it changed
while it was read. The two of a target are about exports."""


class SourceRefused(Exception):  # noqa: N818 - what is the case
    """A source cannot be read or a target not written, and nothing was done; the text says what to do.

    Attributes:
        code: stable.
        detail: one sentence without secrets.
        choices: names or addresses of the sessions or devices there are, where one must be named; no text repeats
            them.
    """

    def __init__(self, code: SourceCode, detail: str, choices: tuple[str, ...] = ()) -> None:
        super().__init__(f"{code}: {detail}")
        self.code: SourceCode = code
        self.detail = detail
        self.choices = choices
