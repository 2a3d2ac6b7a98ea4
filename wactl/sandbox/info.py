"""`wactl sandbox info` and `wactl sandbox complaints`."""

from __future__ import annotations

from wactl.base import App, command
from wactl.sandbox.http import Admin, admin_options, show
from wactl.text import clean, moment


@command("info", example="wactl sandbox info\nwactl sandbox info --json | jq -r .rootKey")
@admin_options
def info(app: App, admin: Admin) -> None:
    """Show the sandbox: its addresses and root key, what is connected, the kinds of faults."""
    found = admin.get("/admin/info")
    if app.as_json:
        return app.out.document(found)
    kinds = found.get("faults", {})
    app.out.line("sandbox")
    app.out.fields(
        [
            ("url", clean(str(found.get("url", "")))),
            ("admin", clean(str(found.get("adminUrl", "")))),
            ("root key", clean(str(found.get("rootKey", "")))),
            ("CA file", clean(str(found.get("caFile") or ""))),
            ("accounts", str(found.get("accounts", ""))),
            ("connections", str(found.get("links", ""))),
            ("time", moment(found.get("time"))),
            ("faults", clean(", ".join([*kinds.get("now", []), *kinds.get("later", [])]))),
        ]
    )
    return None


@command("complaints", example="wactl sandbox complaints --json | jq length")
@admin_options
def complaints(app: App, admin: Admin) -> None:
    """Show what clients sent that the real server would not like."""
    found = admin.get("/admin/complaints")
    if found or app.as_json:
        show(app, found)
    else:
        app.out.note("no complaints")
