"""The operator's keys: which are here, who needs them, and wrapping sessions' keys with another one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from wactl.base import App
from wactl.client import COMMAND_S, Client
from wactl.steps import Each, run
from wactl.text import clean
from waD.control import types as t

HEADS: Final = ("KEY", "", "SESSIONS", "SEALED", "NEEDED BY")
MAX_NAMED: Final = 8
"""Sessions that a line names."""


def ask_keys(client: Client) -> t.KeyList:
    """Keys and who needs them; raises Failure."""
    return client.ask("storage.keys", t.KeyList, timeout=COMMAND_S)


def show_keys(app: App, found: t.KeyList) -> None:
    """A table of them, if there are any."""
    if found.keys:
        app.out.line()
        app.out.table(HEADS, [_cells(key) for key in found.keys])
    if found.lost:
        app.out.note(clean(found.lost))


def _cells(key: t.KeyView) -> Sequence[str]:
    state = "wraps new keys" if key.wraps_new else "is here" if key.here else "IS NOT HERE"
    named = [*key.sessions, *(f"{name} (retired)" for name in key.retired)]
    shown = ", ".join([*named[:MAX_NAMED], *(["…"] if len(named) > MAX_NAMED else [])])
    idle = "nothing yet" if key.wraps_new else "nothing: it may be deleted"
    return key.id, state, str(len(named)), str(key.seals), shown or ("" if key.seals else idle)


def run_rewrap(app: App, each: Each, params: Callable[[str], t.RewrapParams]) -> int:
    """Wrap keys anew, those of retired sessions too, and tell how many and which key is idle; the exit status."""

    def work(client: Client, name: str) -> t.StorageResult:
        return client.ask("storage.rewrap", t.StorageResult, params(name), timeout=COMMAND_S)

    def more(client: Client, results: list[t.StorageResult]) -> dict[str, Any]:
        if all(one.rewrapped is None for one in results):
            return {}
        found = ask_keys(client)
        for line in _summary(results, found):
            app.out.note(line)
        return {"keys": found.keys}

    return run(app, each, work, _users, more)


def _users(client: Client, each: Each) -> list[str]:
    """Of all sessions the retired ones are among them."""
    if not each.everything:
        assert each.name is not None
        return [each.name]
    return [user.name for user in ask_keys(client).users]


def _summary(results: list[t.StorageResult], found: t.KeyList) -> Iterator[str]:
    done = [one.rewrapped for one in results if one.rewrapped is not None]
    if any(one.sessions or one.seals for one in done):
        retired = sum(one.rewrapped.sessions for one in results if one.retired and one.rewrapped is not None)
        sessions, seals = sum(one.sessions for one in done), sum(one.seals for one in done)
        also = f", {retired} of them retired" if retired else ""
        yield f"wrapped anew: the keys of {sessions} sessions{also}, and of {seals} sealed copies"
    for key in found.keys:
        if key.wraps_new or not key.here:
            continue
        if key.sessions or key.retired or key.seals:
            yield f"the key {clean(key.id)} is still needed; see wactl storage status"
        else:
            yield f"nothing needs the key {clean(key.id)} any more: it may be deleted"
