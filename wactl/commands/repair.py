"""`wactl repair`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, get_args

import click

from wactl.base import App, command, session_argument
from wactl.client import COMMAND_S
from wactl.failure import usage
from wactl.text import clean
from waD.control import types as t

_SHOWN: Final = 5
"""Reasons of one repair that are shown."""


@command(
    "repair",
    example="wactl repair alerts\nwactl repair alerts upload-prekeys\n"
    "wactl repair alerts drop-session +15550000002 --yes\n"
    "wactl repair alerts --list --json | jq -r '.advice[].action'",
)
@session_argument()
@click.argument("action", metavar="[ACTION]", required=False, type=click.Choice(get_args(t.RepairAction)))
@click.argument("target", metavar="[TARGET]", required=False)
@click.option("--list", "listing", is_flag=True, help="Only tell what is advised and what could be done.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def repair(app: App, name: str, action: t.RepairAction | None, target: str | None, **said: bool) -> None:
    """Repair an auth state as far as that needs no new pairing; without an ACTION tell what is advised.

    What is advised comes of a verification, against WhatsApp as well when the session is connected. Each ACTION seals
    the state first, and a session that runs goes on:

    drop-damaged removes every item that cannot be read or does not fit, and puts the prekey counter right.

    drop-session PEER forgets the sessions with a peer's devices; the next message, either way, makes new ones.

    upload-prekeys makes new one-time prekeys and uploads them.

    rotate-signed-prekey replaces the signed prekey; the two before it stay usable.

    reset-sender-key GROUP forgets the own sender key of a group; the next message distributes a new one.

    refresh-devices PEER asks for a peer's device list anew.

    resync [COLLECTION] fetches a collection of the app state anew, or all of them.

    upload-prekeys, rotate-signed-prekey, refresh-devices and resync ask WhatsApp: the session must be connected, else
    the exit status is 4. A PEER is a number or an address, a GROUP an address; collections are critical_block,
    critical_unblock_low, regular_high, regular and regular_low. What removes something asks on a terminal, and needs
    --yes without one.
    """
    if action is None:
        return _list(app, name)
    if said["listing"]:
        raise usage("--list tells what could be done; it takes no action")
    _check_target(action, target)
    params = t.RepairParams(name=name, action=action, target=target)
    if t.REPAIRS[action].drops:
        what = " ".join(filter(None, (action, target)))
        app.confirm(f"Repair {clean(name)} by {clean(what)}? The state is sealed first.", yes=said["yes"])
    with app.client() as client:
        answer = client.call("repair.run", params, timeout=COMMAND_S)
        if app.as_json:
            return app.out.document(answer)
        done = client.decode(answer, t.RepairResult)
    for item in done.items:
        app.out.note(f"removed: {clean(item)}" if item != "creds" else "put right: the prekey counter")
    if done.backup:
        app.out.note(f"backup of the state before it: {clean(done.backup)}")
    app.out.line(f"{clean(done.name)}  {_outcome(done)}")
    return None


def _check_target(action: t.RepairAction, target: str | None) -> None:
    kind = t.REPAIRS[action]
    if kind.needs_target and target is None:
        raise usage(f"{action} takes a {kind.target}")
    if target is not None and not kind.target:
        raise usage(f"{action} takes no target")


def _outcome(done: t.RepairResult) -> str:
    if done.backup is None:
        return "nothing to repair; nothing was changed"
    counted = {
        "upload-prekeys": f"{done.count} prekeys uploaded",
        "rotate-signed-prekey": "signed prekey replaced",
        "refresh-devices": f"{done.count} devices listed",
        "drop-session": f"{done.count} sessions dropped",
        "resync": f"app state fetched anew, {done.count} entries",
    }
    return counted.get(done.action, f"{done.count} items repaired")


def _list(app: App, name: str) -> None:
    with app.client() as client:
        answer = client.call("repair.list", t.SessionParams(name=name), timeout=COMMAND_S)
        if app.as_json:
            return app.out.document(answer)
        found = client.decode(answer, t.RepairList)
    for line in _lines(found):
        app.out.line(line)
    return None


def _lines(found: t.RepairList) -> Iterator[str]:
    name = clean(found.name)
    said = "advised, after" if found.advice or found.beyond else "nothing is to be repaired, after"
    yield f"{name}: {said} a look at level {found.level}"
    for one in found.advice:
        words = " ".join(filter(None, ("wactl repair", name, one.action, one.target)))
        yield f"  {clean(words)}" + ("" if one.possible else "  (not possible now)")
        for note in one.reasons[:_SHOWN]:
            yield f"      {_sentence(note)}"
        if one.count > _SHOWN:
            yield f"      and {one.count - _SHOWN} more"
    if found.beyond:
        yield "no repair helps against this; restore a backup, or pair again:"
        yield from (f"      {_sentence(note)}" for note in found.beyond)
    yield "could be done:"
    for choice in found.choices:
        words = f"{choice.action} {choice.target}".strip()
        needs = " (needs a connection)" if choice.connected and not choice.possible else ""
        yield f"  {words:<24} {clean(choice.meaning)}{needs}"


def _sentence(note: t.NoteView) -> str:
    about = f" {note.item}" if note.item else ""
    return clean(f"{note.code}{about}" + (f": {note.detail}" if note.detail else ""))
