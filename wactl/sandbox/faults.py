"""Faults on order."""

from __future__ import annotations

from typing import Any, Final

import click

from wactl.base import App, command
from wactl.failure import usage
from wactl.sandbox.http import Admin, admin_options
from wactl.text import clean

_SHOWN: Final = (
    "id",
    "target",
    "count",
    "fired",
    "code",
    "mode",
    "collection",
    "xmlns",
    "conflict",
    "child",
    "attrs",
)


@command(
    "fault",
    example="wactl sandbox fault close --target 15550000001\n"
    "wactl sandbox fault failure --code 503 --count 3\n"
    "wactl sandbox fault noise --mode expired",
)
@click.argument("kind")
@click.option("--target", metavar="NUMBER[:DEVICE]", help="Whom it befalls; else everybody, or the next.")
@click.option("--count", type=click.IntRange(0), metavar="N", help="How often, else once; 0: until cleared.")
@click.option("--code", type=int, metavar="N", help="Number of a failure, an error or an HTTP answer.")
@click.option(
    "--mode", metavar="MODE", help="How the handshake fails, which direction stalls, or what is wrong."
)
@click.option("--collection", metavar="NAME", help="Which app state is wrong; else any.")
@click.option("--conflict", metavar="TYPE", help="Type of the conflict in a stream error.")
@click.option("--child", metavar="TAG", help="Another child of a stream error or ib.")
@click.option(
    "--attr", "attrs", multiple=True, metavar="NAME=VALUE", help="An attribute of the failure or child."
)
@click.option("--xmlns", metavar="NS", help="Which requests are answered wrongly; else all.")
@click.option(
    "--backoff", type=click.IntRange(0), metavar="SECONDS", help="Told with an error to a request or a file."
)
@click.option("--delay", type=click.IntRange(0), metavar="MS", help="How late an ack or a file comes.")
@click.option("--never", is_flag=True, help="No answer at all; with http and files the connection is cut.")
@click.option("--no-frame", is_flag=True, help="Close without a closing frame.")
@admin_options
def fault(app: App, admin: Admin, kind: str, attrs: tuple[str, ...], **options: Any) -> None:
    """Order a fault of a KIND that wactl sandbox info lists: at once, or at its next occasion."""
    body = {
        "kind": kind,
        "target": options["target"],
        "count": options["count"],
        "code": options["code"],
        "mode": options["mode"],
        "collection": options["collection"],
        "conflict": options["conflict"],
        "child": options["child"],
        "attrs": _attributes(attrs),
        "xmlns": options["xmlns"],
        "backoffS": options["backoff"],
        "delayMs": options["delay"],
        "never": options["never"] or None,
        "frame": False if options["no_frame"] else None,
    }
    done = admin.post("/admin/faults", body)
    if app.as_json:
        app.out.document(done)
    else:
        app.out.line(_told(kind, done))


def _attributes(words: tuple[str, ...]) -> dict[str, str] | None:
    pairs = [word.partition("=") for word in words]
    for name, sign, _ in pairs:
        if not (name and sign):
            raise usage(f"--attr {name!r}: expected NAME=VALUE")
    return {name: value for name, _, value in pairs} or None


def _told(kind: str, done: Any) -> str:
    facts = done if isinstance(done, dict) else {}
    known = [f"{name}={clean(str(facts[name]))}" for name in _SHOWN if facts.get(name) not in (None, {})]
    return f"{clean(kind)}  {' '.join(known)}".rstrip()


@command("faults", example="wactl sandbox faults\nwactl sandbox faults --clear")
@click.argument("fault_id", type=click.IntRange(1), metavar="[ID]", required=False)
@click.option("--clear", is_flag=True, help="Clear all, or the one with this ID.")
@admin_options
def faults(app: App, admin: Admin, fault_id: int | None, *, clear: bool) -> None:
    """List the faults that wait for their occasion, or clear them."""
    if fault_id is not None and not clear:
        raise usage("an ID is for --clear")
    if clear:
        done = admin.delete(f"/admin/faults/{fault_id}" if fault_id else "/admin/faults")
        return app.out.document(done) if app.as_json else app.out.line(f"{done.get('cleared')} cleared")
    found = admin.get("/admin/faults")
    if app.as_json:
        return app.out.document(found)
    for one in found:
        app.out.line(_told(str(one.get("kind")), one))
    if not found:
        app.out.note("no faults wait")
    return None


@command("drop", example="wactl sandbox drop 15550000001:1")
@click.argument("device", metavar="NUMBER[:DEVICE]")
@click.option("--frame", is_flag=True, help="Say goodbye with a closing frame.")
@admin_options
def drop(app: App, admin: Admin, device: str, *, frame: bool) -> None:
    """Cut the connections of a linked device, or of all of an account."""
    done = admin.post("/admin/drop", {"jid": device, "frame": frame})
    if app.as_json:
        app.out.document(done)
    else:
        app.out.line(f"dropped: {clean(', '.join(done.get('dropped', []))) or 'none was connected'}")
