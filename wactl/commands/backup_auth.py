"""`wactl backup-auth`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from wactl import archives
from wactl.base import App, command, complete_name
from wactl.client import COMMAND_S, Client
from wactl.failure import Failure, usage
from wactl.offline import daemon_or_store
from wactl.passphrases import new_passphrase
from wactl.render import is_terminal
from wactl.stored import offline_options, paired_names, worst
from wactl.text import clean
from waD.control import types as t
from waD.transfer.retention import PolicyError, parse_name, parse_policy, superfluous

BACKUP_S: Final = 6 * 3600.0
"""For one archive: a history may have gigabytes."""
_PIPE: Final = Path("-")
_PATH: Final = click.Path(path_type=Path)


class Order(msgspec.Struct, frozen=True):
    """What is wanted.

    Attributes:
        wish: parameters for each session but the name.
        output: a directory, a file, or - for standard output.
        keep: policy for the directory, None to remove nothing.
    """

    wish: t.BackupParams
    output: Path
    keep: str | None


@command(
    "backup-auth",
    example="wactl backup-auth --all --recipient age1... -o /var/backups/waD --keep 7d4w6m\n"
    "wactl backup-auth alerts --passphrase-file secret -o alerts.wadbackup.age\n"
    "wactl backup-auth alerts --recipient age1... -o - | ssh vault 'cat >alerts.wadbackup.age'\n"
    "wactl backup-auth alerts --final --recipient age1... -o .",
)
@click.argument("name", metavar="[NAME]", required=False, shell_complete=complete_name)
@click.option("--all", "every", is_flag=True, help="Back up every session that is paired, each into a file.")
@click.option(
    "--recipient",
    "recipients",
    multiple=True,
    metavar="KEY",
    help="A public key, age1..., whose owner may read it; may be repeated.",
)
@click.option(
    "--passphrase-file", type=_PATH, metavar="FILE", help="The passphrase, as the one line of FILE."
)
@click.option(
    "-o",
    "--output",
    type=_PATH,
    default=Path(),
    metavar="DIR|FILE|-",
    help="A directory, else a file that ends in .age, or - for a pipe; the working directory if not given.",
)
@click.option(
    "--keep",
    metavar="POLICY",
    help="Then remove the session's older backups in DIR, all but the newest of each of so many days, weeks, months: "
    "7d4w6m.",
)
@click.option("--final", is_flag=True, help="For a move: retire the session here, for good.")
@click.option("--with-outbox", is_flag=True, help="With messages that are on their way out.")
@click.option("--with-history", is_flag=True, help="With stored messages and events.")
@click.option("--compress", is_flag=True, help="With gzip.")
@offline_options
@click.option("--yes", is_flag=True, help="Do not ask before --final.")
@click.option("--quiet", is_flag=True, help="Print nothing unless something is wrong.")
def backup_auth(
    app: App,
    name: str | None,
    *,
    every: bool,
    recipients: tuple[str, ...],
    passphrase_file: Path | None,
    output: Path,
    keep: str | None,
    final: bool,
    with_outbox: bool,
    with_history: bool,
    compress: bool,
    offline: bool,
    config: Path | None,
    yes: bool,
    quiet: bool,
) -> int:
    """Back up the auth state of a session, encrypted, while it runs; what is written is read again and verified.

    A backup saves the link to the phone, not the conversations: restore-auth makes the best of it. With public keys
    the machine can make backups and not read them; a passphrase is asked for on the terminal, or read from a file of
    mode 0400 or 0600. Without a daemon the store is opened directly, and kept from a daemon meanwhile.

    The exit status is 6 if the verification found damage: the file is kept, and does not count as a backup. With --all
    one session's failure does not keep the others from being backed up, and the exit status is the worst one.
    """
    _check_usage(
        name, every=every, final=final, output=output, keep=keep, recipients=recipients, file=passphrase_file
    )
    if final:
        app.confirm(f"Retire the session {clean(name or '')} here, to go on elsewhere?", yes=yes)
    wish = t.BackupParams(
        name=name or "-",
        recipients=list(recipients),
        passphrase=None if recipients else new_passphrase(passphrase_file),
        outbox=with_outbox,
        history=with_history,
        compress=compress,
        final=final,
    )
    order = Order(wish, output, keep)
    statuses = [t.EXIT_OK]
    with daemon_or_store(app.socket, config, offline=offline) as client:
        for one in paired_names(client) if every else [name or ""]:
            try:
                document, status = _back_up(client, one, order)
            except Failure as failure:
                if not every:
                    raise
                app.out.failure(_of(one, failure))
                statuses.append(failure.exit)
                continue
            statuses.append(status)
            _show(app, document, status, quiet=quiet or output == _PIPE)
    return worst(statuses)


def _check_usage(
    name: str | None,
    *,
    every: bool,
    final: bool,
    output: Path,
    keep: str | None,
    recipients: Sequence[str],
    file: Path | None,
) -> None:
    if (name is None) != every:
        raise usage("name one session, or say --all for every session that is paired")
    if recipients and file is not None:
        raise usage("--recipient and --passphrase-file exclude each other")
    if every and final:
        raise usage("--final is for one session")
    if output == _PIPE and is_terminal(sys.stdout):
        raise usage("standard output is a terminal: -o - is for a pipe")
    if not output.is_dir():
        if every or keep is not None:
            raise usage(f"there is no directory {output}")
        if output != _PIPE and output.suffix != archives.SUFFIX:
            raise usage(f"{output} is no directory, and a file must end in {archives.SUFFIX}")
    if keep is not None:
        try:
            parse_policy(keep)
        except PolicyError as error:
            raise usage(f"--keep: {error}") from None


def _back_up(client: Client, name: str, order: Order) -> tuple[dict[str, Any], int]:
    """Make, fetch and store one archive; raises Failure."""
    wish = msgspec.structs.replace(order.wish, name=name)
    if order.output == _PIPE:
        made = client.ask("auth.backup", t.BackupResult, wish, timeout=BACKUP_S)
        archives.fetch(client, made, sys.stdout.buffer)
        sys.stdout.buffer.flush()
        path, removed = _PIPE, []
    else:
        path, made = _into_file(client, wish, order.output)
        removed = _forget_old(order, path) if made.verdict.ok else []
    asked = t.DiscardParams(id=made.id, kept=True)
    client.ask("auth.discard", t.Done, asked, timeout=COMMAND_S)
    document = {"file": str(path), **msgspec.to_builtins(made), "removed": removed}
    del document["id"], document["fileName"]
    return document, t.EXIT_OK if made.verdict.ok else t.EXIT_DAMAGED


def _into_file(client: Client, wish: t.BackupParams, output: Path) -> tuple[Path, t.BackupResult]:
    """The file is there before the archive is asked for: with --final there is no second one."""
    directory, name = (output, None) if output.is_dir() else (output.parent, output.name)
    with archives.sink(directory, name) as sink:
        made = client.ask("auth.backup", t.BackupResult, wish, timeout=BACKUP_S)
        try:
            archives.fetch(client, made, sink.file)
            return sink.keep(made.file_name), made
        except Failure as failure:
            with suppress(Failure):
                client.ask("auth.discard", t.Done, t.DiscardParams(id=made.id))
            raise _lost(failure, wish) from None


def _lost(failure: Failure, wish: t.BackupParams) -> Failure:
    """A move whose archive is lost."""
    if not wish.final:
        return failure
    failure.message += (
        f"; session {wish.name} is retired: wactl restore-auth --unretire {wish.name} brings it back"
    )
    return failure


def _forget_old(order: Order, path: Path) -> list[str]:
    """Remove what the policy does not keep of the same session; raises Failure."""
    made = parse_name(path.name)
    if order.keep is None or made is None:
        return []
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError as error:
        raise archives.unwritable(path.parent, error) from None
    gone = superfluous(_series(names, made.series), order.keep)
    archives.remove(path.parent, gone)
    return gone


def _series(names: Sequence[str], series: str) -> Iterator[str]:
    for name in names:
        found = parse_name(name)
        if found is not None and found.series == series:
            yield name


def _of(name: str, failure: Failure) -> Failure:
    """The same, and whom it is about."""
    return Failure(
        failure.symbol,
        f"{name}: {failure.message}",
        failure.exit,
        code=failure.code,
        data={**failure.data, "name": name},
    )


def _show(app: App, document: dict[str, Any], status: int, *, quiet: bool) -> None:
    what, verdict = clean(document["name"]), document["verdict"]
    for severity in ("error",) if quiet else ("error", "warning"):
        for note in verdict[f"{severity}s"]:
            about = f" {note['item']}" if note["item"] else ""
            app.out.note(clean(f"{what}: {severity}: {note['code']}{about}: {note['detail']}"))
    if status == t.EXIT_DAMAGED:
        app.out.note(f"{what}: DAMAGED, this backup would not work: {clean(document['file'])}")
    if quiet:
        return
    if app.as_json:
        app.out.document(document)
    elif status == t.EXIT_OK:
        app.out.line(f"{what}  {clean(document['file'])}  {document['size']} bytes, verified")
