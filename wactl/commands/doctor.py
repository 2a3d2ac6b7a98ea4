"""`wactl doctor`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from wactl import diagnosis
from wactl.base import App, command
from wactl.client import COMMAND_S, Client, candidates
from wactl.diagnosis import finding
from wactl.endpoint import look
from wactl.failure import Failure
from wactl.render import Renderer
from wactl.text import clean
from waD.control import types as t

_COLOURS: Final = {"ok": "green", "warning": "yellow", "critical": "red"}
_DAMAGED: Final = "damaged"
"""Fact of a finding: what is stored is not what was written."""
_ROLE_HINT: Final = "ask for the role {role} in [control.roles], or look as root"


@command(
    "doctor",
    example="wactl doctor\nwactl doctor --json | jq -r '.findings[] | select(.level != \"ok\").hint'",
)
@click.option("--offline", is_flag=True, help="Do not try to reach anything over the network.")
def doctor(app: App, *, offline: bool) -> int:
    """Look at everything that may be wrong, and say for each finding what to do. Changes nothing.

    Looks at the control socket and who listens, your role, the settings, the clock, the way to WhatsApp's end point,
    the store's soundness and permissions, each session's state, health, clock, keys and failures to decrypt, the keys
    that auth states are encrypted with and who needs them, and subscribers of the event log.

    Exit status 0 if nothing is wrong, 1 with a warning or worse, 6 if what is stored is damaged, 3 if the daemon
    cannot be reached; what needs no daemon is looked at all the same. A store that does not work now, such as on a full
    disk, is no damage.
    """
    examination = Examination(app, offline=offline)
    findings: list[t.Finding] = []
    for one in examination.findings():
        findings.append(one)
        if not app.as_json:
            _show(app.out, one)
    status = examination.exit_status(findings)
    level = diagnosis.worst(findings)
    if app.as_json:
        app.out.document({"level": level, "exit": status, "findings": msgspec.to_builtins(findings)})
    else:
        _sum_up(app.out, findings)
    return status


class Examination:
    """One walk through all checks.

    Attributes:
        reached: the daemon has answered.
    """

    def __init__(self, app: App, *, offline: bool) -> None:
        self._app = app
        self._offline = offline
        self.reached = False
        self._options: dict[str, str] = {}
        self._file: Path | None = None

    def findings(self) -> Iterator[t.Finding]:
        """Look at one thing after the other; no fault is raised, each is a finding."""
        socket, found = diagnosis.look_at_socket(candidates(self._app.socket))
        yield from found
        if socket is not None:
            yield from self._ask(socket)
        yield from diagnosis.look_at_config(self._file)
        options = self._options or diagnosis.read_options()
        if not self.reached:
            yield from diagnosis.look_at_store(options, offline=self._offline)
        yield diagnosis.look_at_clock()
        if not self._offline:
            for end in diagnosis.endpoints(options):
                yield from look(end)

    def exit_status(self, findings: list[t.Finding]) -> int:
        """What the walk comes to."""
        if any(one.data.get(_DAMAGED) is True for one in findings):
            return t.EXIT_DAMAGED
        if not self.reached:
            return t.EXIT_UNREACHABLE
        return t.EXIT_OK if diagnosis.worst(findings) == "ok" else t.EXIT_REFUSED

    def _ask(self, socket: Path) -> Iterator[t.Finding]:
        """What the daemon says: its settings, if it tells them, and its own findings."""
        try:
            with Client.connect([socket]) as client:
                pong = client.ask("daemon.ping", t.Pong)
                self.reached = True
                yield _role(pong)
                self._learn(client)
                yield from _report(client)
        except Failure as failure:
            hint = "see journalctl -u waD; a daemon that hangs is restarted with systemctl restart waD"
            yield finding("daemon", "critical", socket, failure.message, hint)

    def _learn(self, client: Client) -> None:
        """Take note of the settings in force; a role that may not see them is no fault."""
        try:
            listed = client.ask("config.show", t.ConfigList)
        except Failure as failure:
            if failure.symbol in ("not_permitted", "unknown_method"):
                return
            raise
        self._options = {one.key: one.value for one in listed.options}
        self._file = diagnosis.main_file(listed.files)


def _role(pong: t.Pong) -> t.Finding:
    text = f"waD {pong.version} (pid {pong.pid}) answers; your role is {pong.role}"
    facts: dict[str, Any] = {"role": pong.role, "pid": pong.pid, "version": pong.version}
    if pong.protocol > t.PROTOCOL_VERSION:
        text = f"it speaks protocol {pong.protocol}, this wactl {t.PROTOCOL_VERSION}"
        return finding("daemon", "warning", "daemon", text, "upgrade wactl", **facts)
    return finding("daemon", "ok", "daemon", text, **facts)


def _report(client: Client) -> list[t.Finding]:
    try:
        return client.ask("daemon.check", t.CheckReport, timeout=COMMAND_S).findings
    except Failure as failure:
        if failure.symbol == "not_permitted":
            role = str(failure.data.get("needs", "operator"))
            text = "its own checks were not made: your role is too low"
            return [finding("daemon", "warning", "daemon", text, _ROLE_HINT.format(role=role))]
        if failure.symbol == "damaged":
            facts = {_DAMAGED: True}
            return [finding("store", "critical", "store", failure.message, "restore a backup", **facts)]
        raise


def _show(out: Renderer, one: t.Finding) -> None:
    level = click.style(f"{one.level:<8}", fg=_COLOURS.get(one.level))
    out.line(f"{level}  {clean(one.check):<11}  {clean(one.subject)}: {clean(one.message)}")
    if one.hint:
        out.line(f"{'':21}  -> {clean(one.hint)}")


def _sum_up(out: Renderer, findings: list[t.Finding]) -> None:
    damaged = (
        " (what is stored is damaged)" if any(one.data.get(_DAMAGED) is True for one in findings) else ""
    )
    counts = {level: sum(one.level == level for one in findings) for level in ("warning", "critical")}
    said = ", ".join(f"{count} {level}" for level, count in counts.items() if count)
    out.note(f"{len(findings)} things looked at: {said or 'nothing is wrong'}{damaged}")
