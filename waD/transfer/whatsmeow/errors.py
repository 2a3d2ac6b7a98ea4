"""Why a database of whatsmeow was not read."""

from __future__ import annotations

from typing import Literal, TypeAlias

SourceCode: TypeAlias = Literal[
    "device_unknown",
    "devices_several",
    "driver_missing",
    "not_sqlite",
    "not_whatsmeow",
    "schema_too_new",
    "source_busy",
    "source_changed",
    "source_damaged",
    "source_missing",
    "source_running",
    "source_too_large",
    "source_unreachable",
]
"""`source_running`: nobody said that the old program is stopped, or it seems to run. `source_changed`: it changed
while it was read."""


class SourceRefused(Exception):  # noqa: N818 - what is the case
    """A source cannot be imported, and nothing was taken; `code` is stable, the text says what to do.

    Attributes:
        code: what is the case.
        choices: addresses of the devices there are, for `device_unknown` and `devices_several`; no text repeats them.
    """

    def __init__(self, code: SourceCode, detail: str, choices: tuple[str, ...] = ()) -> None:
        super().__init__(f"{code}: {detail}")
        self.code: SourceCode = code
        self.detail = detail
        self.choices = choices
