"""What the shared statements need of a connection; both drivers nearly fit already."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol


class Ms(int):
    """Unix milliseconds that go into a column of times."""

    __slots__ = ()


class Json(str):
    """JSON text that goes into a column of documents."""

    __slots__ = ()


def ms(value: int | None) -> Ms | None:
    """A time for its column."""
    return None if value is None else Ms(value)


def document(data: bytes) -> Json:
    """A document for its column."""
    return Json(data, "utf-8")


class Result(Protocol):
    """What a statement gave."""

    @property
    def rowcount(self) -> int:
        """Rows that were changed."""
        ...

    def fetchone(self) -> Any:
        """The next row as a tuple; None behind the last."""
        ...

    def fetchall(self) -> list[Any]:
        """All rows."""
        ...


class Database(Protocol):
    """A connection. Placeholders are `?`, times come and go as Unix milliseconds, documents come as text or bytes.

    Attributes:
        now: an expression for the present time, to be put into a column of times.
        later: the same, so many milliseconds later: a format with one `{}`.
        allow_purge: a statement that lets messages be deleted in this transaction.
        forbid_purge: one that ends that.
        seal_kek: an expression for the key that the `document` of a seal needs; NULL for one in the clear.
    """

    now: str
    later: str
    allow_purge: str
    forbid_purge: str
    seal_kek: str

    def execute(self, sql: str, params: Sequence[Any] = (), /) -> Result:
        """Run one statement."""
        ...

    def executemany(self, sql: str, params: Iterable[Sequence[Any]], /) -> object:
        """Run one statement for many rows."""
        ...

    def promise(self, sql: str, params: Sequence[Any] = (), /) -> Callable[[], Any]:
        """Run one statement, whose first row is asked for later."""
        ...

    def settle(self) -> None:
        """A connection may put off statements until the result of one is asked for; now it must not any more."""
        ...

    def discard(self) -> None:
        """What was put off since the savepoint need not be run: the savepoint is rolled back to."""
        ...
