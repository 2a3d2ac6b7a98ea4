"""The commands by name, and what becomes of every way a command can end."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any, Final, NoReturn

import click

from wactl.base import App, LazyGroup
from wactl.failure import Failure
from wactl.render import Renderer
from waD import __version__
from waD.control import types as t

COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "connect": ("wactl.commands.connect:connect", "Bring a session up; pair it if it is new."),
    "qr": ("wactl.commands.qr:qr", "Show the QR codes of a session that is being paired."),
    "disconnect": ("wactl.commands.disconnect:disconnect", "Take a session down; it stays paired."),
    "logout": ("wactl.commands.logout:logout", "Unlink a session from its account."),
    "remove": ("wactl.commands.remove:remove", "Retire a session; its history stays."),
    "hold": ("wactl.commands.hold:hold", "Keep a session down, for maintenance."),
    "release": ("wactl.commands.release:release", "End a hold."),
    "reset": ("wactl.commands.reset:reset", "Forget a session's failures."),
    "undo": ("wactl.commands.undo:undo", "Put back credentials that were cleared."),
    "list": ("wactl.commands.list:list_sessions", "List the sessions."),
    "status": ("wactl.commands.status:status", "Show how a session is, or all."),
    "send": ("wactl.commands.send:send", "Send a text."),
    "messages": ("wactl.commands.messages:messages", "Show a session's history, or delete from it."),
    "read": ("wactl.commands.read:read", "Mark messages as read."),
    "outbox": ("wactl.commands.outbox:outbox", "Show, release or cancel messages that have not left."),
    "backup-auth": ("wactl.commands.backup_auth:backup_auth", "Back up the auth state of a session."),
    "restore-auth": (
        "wactl.commands.restore_auth:restore_auth",
        "Put a backup or a sealed copy back, or a moved session.",
    ),
    "verify-auth": ("wactl.commands.verify_auth:verify_auth", "Check a backup, or a stored auth state."),
    "repair": ("wactl.commands.repair:repair", "Repair an auth state without a new pairing."),
    "migrate-auth": (
        "wactl.commands.migrate_auth:migrate_auth",
        "Move a session from, to or between stores.",
    ),
    "tail-events": ("wactl.commands.tail_events:tail_events", "Follow the event log."),
    "ping": ("wactl.commands.ping:ping", "Ask whether the daemon is there."),
    "info": ("wactl.commands.info:info", "Show what the daemon runs."),
    "check": ("wactl.commands.check:check", "Report for a monitor such as Nagios."),
    "ready": ("wactl.commands.ready:ready", "Tell or wait whether a session is open."),
    "doctor": ("wactl.commands.doctor:doctor", "Look for what is wrong, and say what to do."),
    "storage": ("wactl.commands.storage:storage", "Show or change how auth states are stored."),
    "policy": ("wactl.commands.policy:policy", "Show what happens on each disconnect."),
    "config": ("wactl.commands.config:config", "Show, check or write settings."),
    "daemon": ("wactl.commands.daemon:daemon", "Reload or stop the daemon."),
    "sandbox": ("wactl.sandbox.group:sandbox", "A WhatsApp server with simulated phones, for trying."),
    "completion": ("wactl.commands.completion:completion", "Print a shell's completion script."),
}


class Ended(Exception):  # noqa: N818 - what happened, not a fault
    """Ctrl-C or a reader that has gone, so wrapped that click does not make its own of it."""


class Cli(LazyGroup):
    """The root command."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was named."""
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, BrokenPipeError) as end:
            raise Ended from end

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> NoReturn:
        """Run a command line and end the process with its exit status."""
        del standalone_mode  # it always stands alone
        words = list(sys.argv[1:] if args is None else args)
        app = App()
        try:
            status = _run(self, words, app, prog_name, complete_var, extra)
            _flush()
        except BrokenPipeError:
            _silence(sys.stdout)  # the reader has seen enough
            status = t.EXIT_OK
        except OSError as error:
            _silence(sys.stdout)
            failure = Failure("output", f"cannot write: {error.strerror or error}", t.EXIT_REFUSED)
            status = _fail(app, failure)
        except KeyboardInterrupt:
            status = t.EXIT_INTERRUPTED
        sys.exit(status)


def _run(
    cli: Cli,
    words: list[str],
    app: App,
    prog_name: str | None,
    complete_var: str | None,
    extra: dict[str, Any],
) -> int:
    try:
        outcome = click.Group.main(
            cli, words, prog_name, complete_var, standalone_mode=False, obj=app, **extra
        )
    except Failure as failure:
        return _fail(app, failure)
    except Ended as end:
        raise end.__cause__ or end from None
    except click.Abort as abort:
        if isinstance(abort.__context__, KeyboardInterrupt):  # at a question
            return t.EXIT_INTERRUPTED
        return _fail(app, Failure("declined", "not confirmed; nothing was done", t.EXIT_REFUSED))
    except click.UsageError as error:
        return _misused(app, error, words)
    except click.ClickException as error:
        return _fail(app, Failure("refused", error.format_message(), t.EXIT_REFUSED))
    return outcome if isinstance(outcome, int) else t.EXIT_OK


def _misused(app: App, error: click.UsageError, words: list[str]) -> int:
    """A wrong command line; whether JSON was asked for may stand behind the mistake."""
    status: int = getattr(error.ctx and error.ctx.command, "misused", t.EXIT_USAGE)
    if "--json" in words:
        app.out = Renderer(as_json=True)
    if not app.as_json:
        error.show()
        return status
    return _fail(app, Failure("usage", error.format_message(), status))


def _fail(app: App, failure: Failure) -> int:
    try:
        _flush()
        app.out.failure(failure)
    except OSError:
        _silence(sys.stderr)
    return failure.exit


def _flush() -> None:
    if sys.stdout is not None:
        sys.stdout.flush()


def _silence(stream: Any) -> None:
    """Keep the interpreter from complaining about what is still in a buffer that nobody reads."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
    except (OSError, ValueError, AttributeError):  # it is closed, or not one of the operating system's
        return


def _root(**_: Any) -> None:
    socket = os.environ.get("WAD_SOCKET")
    app = click.get_current_context().ensure_object(App)
    if socket and app.socket is None:
        from pathlib import Path

        app.socket = Path(socket)


cli = Cli(
    "wactl",
    table=COMMANDS,
    callback=_root,
    help="Control waD, the daemon that runs WhatsApp sessions.\n\n"
    "Exit status: 0 done, 1 refused or failed, 2 wrong usage, 3 daemon unreachable, 4 no such session or not in "
    "the state for this, 5 timed out, 6 damage found, 7 not permitted, 130 interrupted. wactl check and wactl ready "
    "have exit statuses of their own.",
    example="wactl connect alerts\nwactl send alerts +15550000002 'disk full on web1' --wait delivered",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    params=[],
)


def _version(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if not value or context.resilient_parsing:
        return
    click.echo(f"wactl {__version__}")
    context.exit()


cli.params.append(
    click.Option(
        ["--version"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_version,
        help="Show the version and exit.",
    )
)
