"""`wactl migrate-auth`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import click

from wactl import exporting, importing, moving
from wactl.base import App, command, complete_name
from wactl.failure import usage
from wactl.stored import offline_options

PRESETS: Final = (
    "auth_state",
    "baileys_auth_state",
    "baileys-mongo",
    "drizzle",
    "evolution",
    "keyv",
    "mysql-baileys",
    "postgres-baileys",
    "prisma",
    "ticketz",
    "waha",
    "waha_auth",
    "waha-mongo",
    "whaticket",
    "whaticket-free",
    "whaticket-old",
    "whatsapp_auth",
)
"""Names of the programs whose tables are known; `waD.transfer.baileys` has the tables."""
DIRECTORY: Final = "baileys-dir:"
_PATH: Final = click.Path(path_type=Path)
DAEMON: Final = "waD"
_STORES: Final = (DAEMON, "sqlite:", "postgresql://", "postgres://")


def _complete_preset(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    return [name for name in PRESETS if name.startswith(incomplete)]


def _check_preset(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None and value not in PRESETS:
        raise click.BadParameter(f"is none of {', '.join(PRESETS)}")
    return value


@command(
    "migrate-auth",
    example="wactl migrate-auth --from baileys-dir:./auth_info --i-stopped-it --dry-run alerts\n"
    "wactl migrate-auth --from whatsmeow:main.db --jid 5511999999999 --i-stopped-it alerts\n"
    "wactl migrate-auth --from evolution.sql --keys dump.rdb --session 3f2a --dry-run alerts\n"
    "wactl migrate-auth --from sqlite:/var/lib/waD/waD.db --to postgresql://waD@db/waD alerts\n"
    "wactl migrate-auth --from sqlite:/var/lib/waD/waD.db --to postgresql://waD@db/waD --abort alerts\n"
    "wactl migrate-auth --to baileys-dir:./auth_info alerts",
)
@click.argument("name", metavar="NAME", shell_complete=complete_name)
@click.option(
    "--from",
    "source",
    metavar="SOURCE",
    help="Where the session is; a path is looked at to find out what it is. Else waD.",
)
@click.option(
    "--to",
    "target",
    metavar="DEST",
    default=DAEMON,
    show_default=True,
    help="Where it goes to: waD, sqlite:FILE, postgresql://USER@HOST/DB or baileys-dir:DIR.",
)
@click.option(
    "--from-kek-file",
    "from_kek",
    type=_PATH,
    metavar="FILE",
    help="The key that a store of waD is encrypted with, named as SOURCE by a path or URL.",
)
@click.option("--to-kek-file", "to_kek", type=_PATH, metavar="FILE", help="The same for DEST.")
@click.option(
    "--abort", is_flag=True, help="Give up a move between stores that has not ended: the source goes on."
)
@click.option("--dry-run", is_flag=True, help="Say what would be taken, converted and lost; change nothing.")
@click.option("--i-stopped-it", "stopped", is_flag=True, help="The old program is stopped, and stays so.")
@click.option("--jid", metavar="JID", help="Which device of whatsmeow's, when there are several.")
@click.option("--session", metavar="KEY", help="Which session of a Baileys store, when there are several.")
@click.option(
    "--preset",
    metavar="PROGRAM",
    shell_complete=_complete_preset,
    callback=_check_preset,
    help="Which program keeps the Baileys store; it is found out if not given.",
)
@click.option("--table", metavar="TABLE", help="A table or collection that no preset has.")
@click.option("--session-column", metavar="NAME", help="Its column that tells sessions apart.")
@click.option("--key-column", metavar="NAME", help="Its column with the names of items.")
@click.option("--value-column", metavar="NAME", help="Its column with the values.")
@click.option("--kind-column", metavar="NAME", help="Its column with types, where names are ids alone.")
@click.option(
    "--keys", metavar="SOURCE", help="A second place, where the keys are, of stores that are divided."
)
@click.option("--all-mappings", is_flag=True, help="Take LIDs of people too with whom there is nothing else.")
@offline_options
@click.option("--yes", is_flag=True, help="Do not ask.")
def migrate_auth(
    app: App,
    name: str,
    *,
    source: str | None,
    target: str,
    from_kek: Path | None,
    to_kek: Path | None,
    abort: bool,
    dry_run: bool,
    offline: bool,
    config: Path | None,
    yes: bool,
    **choice: Any,
) -> int:
    """Bring a session here from another program, without pairing anew; or take it away; or move it between stores.

    SOURCE is baileys-dir:DIR, baileys-kv:FILE|URL (SQLite, PostgreSQL, SQL dump, CSV, JSON lines), baileys-json:FILE,
    baileys-redis:FILE (dump.rdb, HGETALL), whatsmeow:FILE|URL (SQLite, PostgreSQL, SQL dump), or a store of waD: waD
    (the one of this machine's daemon), sqlite:FILE, postgresql://USER@HOST/DB.

    From another program: the source is only read, converted, checked to the last key, and put in place under NAME,
    which must be new or not paired. The session is left down. The old program must be stopped before, and never
    connect again: two programs with one link destroy each other's conversations.

    To a Baileys directory: the session must be down; what Baileys has no place for is told. From then on only one of
    the two may run: the directory, or the session here.

    Between stores of waD: nothing is lost. The session is retired in the one before it can start in the other; after
    a crash the same command goes on. With --abort it is given up instead: what has come is cleared in DEST, and then
    SOURCE goes on as if nothing had been. That is refused when the session may have run in DEST, and while DEST cannot
    be reached, unless SOURCE was never stopped. wactl status, list and doctor show a move that has not ended.

    The key of a store that is encrypted is named with --from-kek-file or --to-kek-file, or lies beside the database
    file; else the systemd credential wad-kek is taken where sessions are encrypted already. For waD it is that of its
    configuration. FILE must be of mode 0400 or 0600, and belong to you or root.

    PROGRAM, for baileys-kv, is one of auth_state, baileys_auth_state, baileys-mongo, drizzle, evolution, keyv,
    mysql-baileys, postgres-baileys, prisma, ticketz, waha, waha_auth, waha-mongo, whaticket, whaticket-free,
    whaticket-old, whatsapp_auth.

    A password of a database is read from PGPASSFILE or PGPASSWORD and never taken from the command line. The exit
    status is 1 if something was refused, 4 if there is no such session or move, 6 if the source is damaged, 7 if a
    database does not let you in.
    """
    where = importing.Where(app.socket, config, offline=offline)
    if abort and (source is None or not _is_store(source) or not _is_store(target)):
        raise usage(
            "--abort gives up a move between two stores of waD: name both, with --from and --to, as it did"
        )
    _check_keys(source, target, from_kek, to_kek)
    if source is None:
        if target == DAEMON:
            raise usage("say where the session is with --from, or where it goes to with --to")
        source = DAEMON
    if not _is_store(source):
        if target.startswith(DIRECTORY):
            raise usage("a session of another program goes into waD first, and from there into a directory")
        words = _words(choice)
        if target == DAEMON:
            return importing.run(app, where, source, name, words, dry_run=dry_run)
        words += _key_words(None, to_kek)
        return moving.run_import(app, source, target, name, words, dry_run=dry_run)
    if _given(choice):
        raise usage(f"{_given(choice)[0]} is for sources of other programs")
    if source == DAEMON and target.startswith(DIRECTORY):
        directory = target.removeprefix(DIRECTORY)
        return exporting.run(app, where, name, directory, dry_run=dry_run)
    order = moving.Order(source, target, name, tuple(_key_words(from_kek, to_kek)), abort, dry_run)
    return moving.run(app, where, order, yes=yes)


def _is_store(place: str) -> bool:
    return place.startswith(_STORES) and not _is_looked_at(place)


def _check_keys(source: str | None, target: str, from_kek: Path | None, to_kek: Path | None) -> None:
    """A key is that of a store which is named."""
    for option, key, place in (("from", from_kek, source or DAEMON), ("to", to_kek, target)):
        if key is not None and (place == DAEMON or not _is_store(place)):
            raise usage(f"--{option}-kek-file is for a store of waD that is named by a path or a URL")


def _key_words(from_kek: Path | None, to_kek: Path | None) -> list[str]:
    """The keys' files as the other process takes them."""
    named = (("--from-kek-file", from_kek), ("--to-kek-file", to_kek))
    return [f"{option}={file}" for option, file in named if file is not None]


def _is_looked_at(source: str) -> bool:
    """Whether it is a path that only looks like a scheme."""
    return source != DAEMON and os.path.exists(source)


_FLAGS: Final = {"stopped": "--i-stopped-it", "all_mappings": "--all-mappings"}


def _given(choice: dict[str, Any]) -> list[str]:
    return [word.partition("=")[0] for word in _words(choice) if word != _FLAGS["stopped"]]


def _words(choice: dict[str, Any]) -> list[str]:
    """The options as the other process takes them."""
    words = []
    for name, value in choice.items():
        if name in _FLAGS:
            words += [_FLAGS[name]] if value else []
        elif value is not None:
            words.append(f"--{name.replace('_', '-')}={value}")
    return words
