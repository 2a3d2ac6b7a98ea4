"""An auth state outside of any store, and what is said about it (chapter 08 §1, §7.6)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from waD.link.credentials import Credentials
from waD.store.model import SecretRow

MESSAGE_SECRET: Final = "message-secret"  # noqa: S105 - what they are called
"""What secrets of messages are called where items are counted; they are none."""
Severity: TypeAlias = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Note:
    """One thing that was found. `code` is stable; `item` names what it is about; `detail` holds no secret."""

    severity: Severity
    code: str
    item: str = ""
    detail: str = ""

    def __str__(self) -> str:
        about = f" {self.item}" if self.item else ""
        return f"{self.code}{about}" + (f": {self.detail}" if self.detail else "")


@dataclass(slots=True)
class Report:
    """What was found, in order; an error means that the state must not be used."""

    notes: list[Note] = field(default_factory=list)

    def error(self, code: str, item: str = "", detail: str = "") -> None:
        """Note something that forbids the use of the state."""
        self.notes.append(Note("error", code, item, detail))

    def warn(self, code: str, item: str = "", detail: str = "") -> None:
        """Note something that was dropped or ought to be known."""
        self.notes.append(Note("warning", code, item, detail))

    def _of(self, severity: Severity) -> Iterator[Note]:
        return (note for note in self.notes if note.severity == severity)

    @property
    def errors(self) -> list[Note]:
        """What forbids the use of the state."""
        return [*self._of("error")]

    @property
    def warnings(self) -> list[Note]:
        """Everything else."""
        return [*self._of("warning")]

    @property
    def ok(self) -> bool:
        """Whether there is no error."""
        return not self.errors


@dataclass(frozen=True, slots=True)
class AuthState:
    """Credentials and items of one linked device, in the forms of the store.

    Attributes:
        creds: credentials.
        items: documents by kind (`waD.messaging.kinds`) and key.
        secrets: of messages, of a state that comes from another program.
    """

    creds: Credentials
    items: Mapping[tuple[str, str], bytes]
    secrets: tuple[SecretRow, ...] = ()

    def __repr__(self) -> str:
        return f"AuthState({len(self.items)} items)"

    def of(self, kind: str) -> dict[str, bytes]:
        """All items of one kind by key."""
        return {key: value for (found, key), value in self.items.items() if found == kind}

    def counts(self) -> dict[str, int]:
        """How many items there are of each kind."""
        found: dict[str, int] = {}
        for kind, _ in self.items:
            found[kind] = found.get(kind, 0) + 1
        return dict(sorted(found.items()))
