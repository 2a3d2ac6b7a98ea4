"""`wactl restore-auth`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal

import click
import msgspec

from wactl import archives
from wactl.base import App, command, complete_name
from wactl.client import COMMAND_S, Client
from wactl.failure import usage
from wactl.offline import daemon_or_store
from wactl.sessions import show_state
from wactl.stored import offline_options
from wactl.text import ago, clean, moment
from wactl.unsealing import hand_over, secret_words
from waD.control import types as t

RESTORE_S: Final = 3600.0
_PATH: Final = click.Path(path_type=Path)
_SEAL: Final = re.compile(r"([0-9]{1,9})\.([0-9]{1,15})", re.ASCII)
_MODES: Final = ("drop", "receive-only")


class EpochVersion(click.ParamType[tuple[int, int]]):
    """Names a sealed copy: two whole numbers with a dot between them."""

    name = "seal"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """Epoch and version."""
        if isinstance(value, tuple):
            return value
        found = _SEAL.fullmatch(value)
        if found is None:
            self.fail(
                f"{value!r} names no sealed copy; wactl restore-auth NAME --seals shows them", param, ctx
            )
        return int(found[1]), int(found[2])


@command(
    "restore-auth",
    example="wactl restore-auth --dry-run --identity-file backup.key alerts-20260101T030000Z-v41.wadbackup.age\n"
    "wactl restore-auth --identity-file backup.key alerts-20260101T030000Z-v41.wadbackup.age\n"
    "wactl restore-auth --unretire alerts\n"
    "wactl restore-auth alerts --seals\n"
    "wactl restore-auth alerts --seal 1.812 --dry-run",
)
@click.argument("file", type=_PATH, metavar="[FILE|NAME]", required=False)
@click.option("--name", metavar="NAME", help="The session here; that of the backup if not given.")
@click.option("--session", "source", metavar="NAME", help="Which one, of a backup with several.")
@click.option(
    "--sessions",
    "mode",
    type=click.Choice(_MODES),
    default=_MODES[0],
    show_default=True,
    help="What becomes of conversations: given up, or kept to decrypt what is on its way.",
)
@click.option("--identity-file", type=_PATH, metavar="FILE", help="Secret keys as age-keygen writes them.")
@click.option(
    "--passphrase-file", type=_PATH, metavar="FILE", help="The passphrase, as the one line of FILE."
)
@click.option("--spool-dir", type=_PATH, metavar="DIR", help="Unpack in DIR, else in TMPDIR.")
@click.option("--rollback-anyway", is_flag=True, help="Replace a state that is newer than the backup.")
@click.option(
    "--replace-unreadable",
    is_flag=True,
    help="Replace a state whose key is not here although nothing tells whose it is.",
)
@click.option("--with-history", is_flag=True, help="Also add the messages of the backup.")
@click.option("--dry-run", is_flag=True, help="Say what would happen; change nothing.")
@click.option(
    "--unretire",
    metavar="NAME",
    shell_complete=complete_name,
    help="No FILE: bring back a session that backup-auth --final retired, or a move whose other store is lost.",
)
@click.option("--seals", is_flag=True, help="Of the session NAME: list the sealed copies in the store.")
@click.option(
    "--seal",
    type=EpochVersion(),
    metavar="EPOCH.VERSION",
    help="Of the session NAME: put this sealed copy back.",
)
@offline_options
@click.option("--yes", is_flag=True, help="Do not ask.")
def restore_auth(
    app: App,
    file: Path | None,
    *,
    name: str | None,
    source: str | None,
    mode: Literal["drop", "receive-only"],
    identity_file: Path | None,
    passphrase_file: Path | None,
    spool_dir: Path | None,
    rollback_anyway: bool,
    replace_unreadable: bool,
    with_history: bool,
    dry_run: bool,
    unretire: str | None,
    seals: bool,
    seal: tuple[int, int] | None,
    offline: bool,
    config: Path | None,
    yes: bool,
) -> None:
    """Put the auth state of a backup, or a sealed copy of it, in place; the session is left down.

    The backup is checked first, and what is in place is sealed. A backup is a state of the past: every conversation
    makes a new key exchange before it sends, keys that may have been used are not used again, and messages on their
    way out are held. Only one that was made with --final goes on exactly, once. Nothing is changed if the backup is
    damaged, if what is in place is newer, or if it belongs to another linked device. A state whose key is lost is
    replaced by a backup of the same device, and kept for that key.

    The store itself keeps sealed copies: of every six hours, of the end of the daemon, and from before each reset,
    repair, removal, restore and change of the storage. --seals lists those of a session, --seal puts one back: an old
    state like a backup, unless nothing was stored since.

    Tells what would happen and asks on a terminal, needs --yes without one. A passphrase is asked for on the terminal.
    Without a daemon the store is changed directly, and kept from a daemon meanwhile.
    """
    if (file is None) == (unretire is None) or (seals and seal is not None):
        raise usage(
            "name a backup FILE, or a session: --unretire NAME, NAME --seals, NAME --seal EPOCH.VERSION"
        )
    if unretire is not None:
        if seals or seal is not None:
            raise usage("--unretire puts back what was cleared last; --seal takes the session as NAME")
        return _unretire(app, unretire, config, offline=offline, yes=yes)
    assert file is not None
    if seals or seal is not None:
        if name or source or identity_file or passphrase_file or spool_dir or with_history:
            raise usage("a sealed copy goes back into its own session, and needs no key of yours")
        with daemon_or_store(app.socket, config, offline=offline) as client:
            if seal is None:
                return _list_seals(app, client, str(file))
            wish = t.SealRestoreParams(
                name=str(file),
                epoch=seal[0],
                version=seal[1],
                mode=mode,
                rollback_anyway=rollback_anyway,
                replace_unreadable=replace_unreadable,
                dry_run=True,
            )
            return _restore(app, client, "auth.restore_seal", wish, dry_run=dry_run, yes=yes)
    secrets = secret_words(identity_file, passphrase_file, spool_dir)
    digest = archives.sha256_of(file)
    with daemon_or_store(app.socket, config, offline=offline, create=not dry_run) as client:
        order = t.RestoreParams(
            id=hand_over(client, file, secrets),
            sha256=digest,
            source=source,
            name=name,
            mode=mode,
            rollback_anyway=rollback_anyway,
            replace_unreadable=replace_unreadable,
            history=with_history,
            dry_run=True,
        )
        try:
            return _restore(app, client, "auth.restore", order, dry_run=dry_run, yes=yes)
        finally:
            _forget(client, order.id)


def _list_seals(app: App, client: Client, name: str) -> None:
    answer = client.call("auth.seals", t.SessionParams(name=name))
    if app.as_json:
        return app.out.document(answer)
    found = client.decode(answer, t.SealList)
    if not found.seals:
        return app.out.note(f"session {clean(found.name)} has no sealed copies")
    heads = ("SEAL", "REASON", "SEALED", "ITEMS", "")
    app.out.table(
        heads,
        [
            (f"{one.epoch}.{one.version}", one.reason, moment(one.sealed_at), str(one.items),
             "as it is now" if one.current else "")
            for one in found.seals
        ],
    )  # fmt: skip
    return None


def _restore(
    app: App,
    client: Client,
    method: str,
    order: t.RestoreParams | t.SealRestoreParams,
    *,
    dry_run: bool,
    yes: bool,
) -> None:
    """Tell what would happen, ask, and do it."""
    answer = client.call(method, order, timeout=RESTORE_S)
    if dry_run and app.as_json:
        return app.out.document(answer)
    planned = client.decode(answer, t.RestoreResult)
    for line in _findings(planned):
        app.out.note(line)
    for line in planned.plan:
        (app.out.line if dry_run else app.out.note)(clean(line))
    if dry_run:
        return None
    app.confirm(f"Restore session {clean(planned.name)}?", yes=yes)
    answer = client.call(method, msgspec.structs.replace(order, dry_run=False), timeout=RESTORE_S)
    if app.as_json:
        return app.out.document(answer)
    done = client.decode(answer, t.RestoreResult)
    for line in _consequences(done):
        app.out.note(line)
    app.out.line(f"{clean(done.name)}  restored")
    app.out.note(f"next: wactl connect {clean(done.name)}")
    return None


def _findings(planned: t.RestoreResult) -> Iterator[str]:
    for note in planned.verdict.warnings:
        yield clean(f"warning: {note.code}{' ' if note.item else ''}{note.item}: {note.detail}")


def _consequences(done: t.RestoreResult) -> Iterator[str]:
    if done.backup:
        yield f"backup of what was in place: {clean(done.backup)}"
    if done.held:
        yield f"messages on their way out that are held: {done.held}; wactl outbox list {clean(done.name)}"
    if done.lost:
        yield f"messages on their way out that failed, since the key of their text is not here: {done.lost}"
    if done.messages:
        yield f"messages of the history: {done.messages}"


def _forget(client: Client, file_id: str) -> None:
    """The upload is not needed any more; it would go by itself after a while."""
    client.ask("auth.discard", t.Done, t.DiscardParams(id=file_id), timeout=COMMAND_S)


def _unretire(app: App, name: str, config: Path | None, *, offline: bool, yes: bool) -> None:
    app.confirm(f"Bring back the session {clean(name)}, although it may go on elsewhere?", yes=yes)
    with daemon_or_store(app.socket, config, offline=offline) as client:
        answer = client.call("auth.unretire", t.SessionParams(name=name), timeout=RESTORE_S)
        if app.as_json:
            return app.out.document(answer)
        done = client.decode(answer, t.UndoResult)
    app.out.note(f"restored: {clean(done.restored)}, sealed {ago(done.sealed_at)}")
    show_state(app.out, done.session)
    return None
