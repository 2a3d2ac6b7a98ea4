"""`wactl storage`: how the sessions' auth states are stored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar, get_args

import click

from wactl.base import App, LazyGroup, command, complete_name
from wactl.client import Client
from wactl.failure import usage
from wactl.keys import ask_keys, run_rewrap, show_keys
from wactl.steps import Each, chosen, run_backfill, run_each
from wactl.text import ago, clean, moment
from waD.control import types as t

_F = TypeVar("_F", bound=Callable[..., Any])

_MODULE: Final = "wactl.commands.storage"
DAY_S: Final = 86_400

storage = LazyGroup(
    "storage",
    table={
        "status": (f"{_MODULE}:status", "Show phase, versions, checks and encryption."),
        "dual-write": (f"{_MODULE}:dual_write", "Begin a snapshot beside key-value rows."),
        "backfill": (f"{_MODULE}:backfill", "Fill the snapshot, and compare."),
        "verify": (f"{_MODULE}:verify", "Compare and verify what is stored."),
        "promote": (f"{_MODULE}:promote", "Read the snapshot only."),
        "cutover": (f"{_MODULE}:cutover", "Write the snapshot only."),
        "rollback": (f"{_MODULE}:rollback", "Go back to an earlier phase."),
        "retire-legacy": (f"{_MODULE}:retire_legacy", "Delete the key-value rows for good."),
        "encrypt": (f"{_MODULE}:encrypt", "Encrypt what is stored in the clear."),
        "rewrap": (f"{_MODULE}:rewrap", "Use another key of the operator's."),
    },
    help="Move auth states from key-value rows, as a Node service keeps them, to the snapshot, and back.\n\n"
    "The phases: legacy_only, dual_write (both are written), backfilled (the snapshot is complete), snapshot_primary "
    "(only it is read), cut_over (only it is written), legacy_retired (the rows are deleted). Each step demands what "
    "makes it safe, says what it found, and changes nothing when something is missing: exit status 1, or 6 when there "
    "is damage or a difference.",
    example="wactl storage status\nwactl storage cutover alerts --dry-run",
)


def which(*, every: bool = True) -> Callable[[_F], _F]:
    """The argument NAME, and `--all`."""

    def decorate(function: _F) -> _F:
        argument = click.argument(
            "name", metavar="[NAME]", required=False, default=None, shell_complete=complete_name
        )
        if not every:
            return argument(function)
        return argument(
            click.option(
                "--all", "everything", is_flag=True, help="Every session that is in the phase for it."
            )(function)
        )

    return decorate


dry_run = click.option("--dry-run", is_flag=True, help="Say what would be done, and change nothing.")
assent = click.option("--yes", is_flag=True, help="Do not ask.")


@command(
    "status",
    example="wactl storage status alerts --log\nwactl storage status --json | jq '.sessions[] | .phase'",
)
@which(every=False)
@click.option("--log", is_flag=True, help="Also show the changes of the phase, and who wanted each.")
def status(app: App, name: str | None, *, log: bool) -> None:
    """Show how a session's auth state is stored, or an overview of all.

    LAG is how many commits the key-value rows are behind the snapshot. FALLBACKS counts items that were found only in
    the rows although the snapshot is complete: each is an error. The overview ends with the keys of the operator's, and
    who needs them, retired sessions and sealed copies too: one that nothing needs may be deleted.
    """
    if log and name is None:
        raise usage("--log is of one session: name it")
    with app.client() as client:
        names = chosen(client, name, everything=name is None)
        found = [client.ask("storage.status", t.StorageStatus, t.SessionParams(name=one)) for one in names]
        keys = ask_keys(client) if name is None else None
        changes = _changes(client, name) if log else []
    if app.as_json:
        more: dict[str, Any] = {} if keys is None else {"keys": keys.keys}
        return app.out.document({"sessions": found, **more, **({"log": changes} if log else {})})
    if name is not None:
        _describe(app, found[0])
        if log:
            _show_log(app, changes)
    elif found:
        heads = ("NAME", "PHASE", "LAG", "FALLBACKS", "ITEMS", "SEALED", "VERIFIED", "BACKUP", "KEY")
        app.out.table(heads, [_cells(one) for one in found])
    else:
        app.out.note("no sessions")
    if keys is not None:
        show_keys(app, keys)
    return None


def _changes(client: Client, name: str | None) -> list[t.PhaseChange]:
    params = t.StorageLogParams(name=name or "", limit=t.MAX_PAGE)
    return client.ask("storage.log", t.StorageLog, params).changes


def _show_log(app: App, changes: Sequence[t.PhaseChange]) -> None:
    if not changes:
        return app.out.note("its phase was never changed")
    app.out.line()
    rows = [(moment(one.at), one.was, one.phase, one.actor) for one in changes]
    app.out.table(("WHEN", "FROM", "TO", "BY"), rows)
    return None


def _cells(one: t.StorageStatus) -> Sequence[str]:
    return (
        one.name,
        one.phase,
        str(one.lag),
        str(one.fallback_hits),
        str(one.items),
        moment(one.sealed_at),
        moment(one.verified_at) + ("" if one.verified_ok is not False else " (failed)"),
        moment(one.backup_at),
        (one.kek or "-") + ("" if one.kek_here else " (not here)"),
    )


def _describe(app: App, one: t.StorageStatus) -> None:
    app.out.line(f"{clean(one.name)}  {one.phase} since {ago(one.phase_since)}")
    verified = "never" if one.verified_at is None else f"level {one.verified_level}, {ago(one.verified_at)}"
    rows = f"{one.legacy_rows}, of version {one.legacy_version}" + (f", {one.lag} behind" if one.lag else "")
    app.out.fields(
        [
            ("version", f"{one.version}, epoch {one.epoch}"),
            ("items", str(one.items)),
            ("key-value rows", rows if one.legacy_rows else "none"),
            ("bytes", str(one.bytes)),
            ("restarts", str(one.restarts)),
            ("fallbacks", str(one.fallback_hits)),
            ("last seal", ago(one.sealed_at)),
            ("last verify", verified + ("" if one.verified_ok is not False else ", failed")),
            ("last backup", ago(one.backup_at)),
            ("encrypted", _encryption(one)),
            (
                "sealed copies",
                ", ".join(f"{n} under {clean(kek)}" for kek, n in sorted(one.seal_keks.items())),
            ),
            ("connection id", clean(one.connection_id)),
        ]
    )


def _encryption(one: t.StorageStatus) -> str:
    if not one.encrypted:
        return "no"
    return f"with the key {clean(one.kek or '')}{'' if one.kek_here else ', which is not here'}"


@command("dual-write", example="wactl storage dual-write alerts --dry-run\nwactl storage dual-write alerts")
@which()
@dry_run
def dual_write(app: App, name: str | None, *, everything: bool, dry_run: bool) -> int:
    """Begin a snapshot beside the key-value rows, and write both from now on; seals the state first.

    Demands a state that verifies, room on the disk, and a database that loses no commit.
    """
    return run_each(app, _each(name, everything), "storage.dual_write", _plain(dry_run))


@command("backfill", example="wactl storage backfill alerts\nwactl storage backfill --all --batch 2000")
@which()
@click.option(
    "--batch",
    type=click.IntRange(1, 10_000),
    default=500,
    show_default=True,
    metavar="N",
    help="Items that are copied at once.",
)
@dry_run
def backfill(app: App, name: str | None, *, everything: bool, batch: int, dry_run: bool) -> int:
    """Copy into the snapshot what only the key-value rows have, while the session goes on; then compare everything.

    Can be interrupted, and called again to go on. When both are equal the session is in the phase backfilled.
    """
    return run_backfill(app, _each(name, everything), batch, dry_run=dry_run)


@command(
    "verify",
    example="wactl storage verify alerts\nwactl storage verify --all --json | jq '.results[] | .outcome'",
)
@which()
@dry_run
def verify(app: App, name: str | None, *, everything: bool, dry_run: bool) -> int:
    """Compare snapshot and key-value rows in both directions, recompute the checksum, and verify all keys.

    Exit status 6 when something differs or is damaged. The result is recorded, but for --dry-run.
    """
    return run_each(app, _each(name, everything), "storage.verify", _plain(dry_run))


@command(
    "promote", example="wactl storage promote alerts\nwactl storage promote alerts --min-age 2 --dry-run"
)
@which()
@click.option(
    "--min-age",
    type=click.FloatRange(0, 10_000),
    default=24.0,
    show_default=True,
    metavar="HOURS",
    help="How long the session must have been in the phase backfilled.",
)
@dry_run
def promote(app: App, name: str | None, *, everything: bool, min_age: float, dry_run: bool) -> int:
    """Read the snapshot only; the key-value rows are still written.

    Demands the age and one restart in the phase backfilled, no fallback to the rows, and that verify finds nothing.
    """

    def params(one: str) -> t.PromoteParams:
        return t.PromoteParams(name=one, min_age=min_age * 3600, dry_run=dry_run)

    return run_each(app, _each(name, everything), "storage.promote", params)


@command("cutover", example="wactl storage cutover alerts --dry-run\nwactl storage cutover alerts --yes")
@which()
@dry_run
@assent
def cutover(app: App, name: str | None, *, everything: bool, dry_run: bool, yes: bool) -> int:
    """Write the snapshot only; the key-value rows are stale from then on. Seals the state first.

    Demands seven days and two restarts in the phase snapshot_primary, that verify finds nothing, a backup of the last
    day, no error of the store in the phase, and no alert within a day. Asks on a terminal, needs --yes without one.
    """
    each = _each(name, everything)
    _ask(app, f"Stop writing the key-value rows of {_named(each)}?", dry_run=dry_run, yes=yes)
    return run_each(app, each, "storage.cutover", _plain(dry_run))


@command(
    "rollback",
    example="wactl storage rollback alerts --yes\nwactl storage rollback alerts --to legacy_only --yes",
)
@which()
@click.option(
    "--to",
    type=click.Choice(get_args(t.RollbackPhase)),
    default=None,
    help="How far; without it one step.",
)
@dry_run
@assent
def rollback(
    app: App, name: str | None, *, everything: bool, to: t.RollbackPhase | None, dry_run: bool, yes: bool
) -> int:
    """Go back to an earlier phase; nothing that was sent or received since is lost.

    From cut_over all key-value rows are written anew and compared; for that the session is disconnected, and connected
    again if it was wanted up. Asks on a terminal, needs --yes without one.
    """
    each = _each(name, everything)
    _ask(app, f"Go back with {_named(each)} to {to or 'the phase before'}?", dry_run=dry_run, yes=yes)

    def params(one: str) -> t.RollbackParams:
        return t.RollbackParams(name=one, to=to, dry_run=dry_run)

    return run_each(app, each, "storage.rollback", params)


@command(
    "retire-legacy",
    example="wactl storage retire-legacy alerts --dry-run\nwactl storage retire-legacy alerts --confirm alerts",
)
@click.argument("name", metavar="NAME", shell_complete=complete_name)
@click.option(
    "--confirm", metavar="NAME", default=None, help="The session's name once more; else it is asked for."
)
@dry_run
def retire_legacy(app: App, name: str, *, confirm: str | None, dry_run: bool) -> int:
    """Delete the key-value rows for good. Seals the state first.

    Demands 14 days in the phase cut_over, a state that verifies, and a backup of the last day. The session's name must
    be typed on a terminal, or given with --confirm.
    """
    if confirm is None and not dry_run:
        confirm = app.typed(f"Type {clean(name)} to delete its key-value rows for good")
    if confirm != name and not dry_run:
        raise usage(f"{confirm!r} is not the name of the session; nothing was done")

    def params(one: str) -> t.RetireParams:
        return t.RetireParams(name=one, confirm=confirm or name, dry_run=dry_run)

    return run_each(app, Each(name, everything=False), "storage.retire_legacy", params)


@command("encrypt", example="wactl storage encrypt alerts\nwactl storage encrypt --all --yes")
@which()
@dry_run
@assent
def encrypt(app: App, name: str | None, *, everything: bool, dry_run: bool, yes: bool) -> int:
    """Encrypt a state that is stored in the clear, with its sealed copies and waiting messages.

    It gets a key of its own, wrapped with the one of store.kek in waD.toml(5). Without that key the account is lost
    unless there is a backup, so keep a copy of it elsewhere. Key-value rows stay in the clear until retire-legacy, and
    free pages of the database may hold older text for a while. Asks on a terminal, needs --yes without one.
    """
    each = _each(name, everything)
    question = (
        f"Encrypt {_named(each)}? Whoever loses the key then loses the account, unless there is a backup."
    )
    _ask(app, question, dry_run=dry_run, yes=yes)
    return run_each(app, each, "storage.encrypt", _plain(dry_run))


@command("rewrap", example="wactl storage rewrap --all\nwactl storage rewrap alerts --kek 2026")
@which()
@click.option("--kek", metavar="ID", default=None, help="Which key; without it the one of store.kek.")
@dry_run
def rewrap(app: App, name: str | None, *, everything: bool, kek: str | None, dry_run: bool) -> int:
    """Wrap the sessions' own keys with another key of the operator's, sealed copies included.

    The new key must be beside the old one, as FILE.ID, and the daemon started again. With --all those of removed and
    moved sessions are wrapped as well, since they can be brought back. It says how many there were, and which keys
    nothing needs any more: those may be deleted.
    """

    def params(one: str) -> t.RewrapParams:
        return t.RewrapParams(name=one, kek=kek, dry_run=dry_run)

    return run_rewrap(app, _each(name, everything), params)


def _each(name: str | None, everything: bool) -> Each:
    if (name is None) != everything:
        raise usage("name a session, or say --all")
    return Each(name, everything=everything)


def _plain(dry_run: bool) -> Callable[[str], t.StorageParams]:
    return lambda name: t.StorageParams(name=name, dry_run=dry_run)


def _named(each: Each) -> str:
    return "every session" if each.name is None else clean(each.name)


def _ask(app: App, question: str, *, dry_run: bool, yes: bool) -> None:
    if not dry_run:
        app.confirm(question, yes=yes)
