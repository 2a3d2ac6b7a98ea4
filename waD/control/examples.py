"""One example of each method for the manual page, made of the real types, so that none can be out of date."""

from __future__ import annotations

from typing import Final

import msgspec

from waD.control import types as t

_ID: Final = "0f8fad5b-d9cb-469f-a165-70867728950e"
_CHAT: Final = "15550000002@s.whatsapp.net"
_MESSAGE: Final = "3EB0A1B2C3D4E5F60718A9"


def _session(state: t.State, **more: object) -> t.SessionView:
    view = t.SessionView(
        name="alerts",
        connection_id=_ID,
        state=state,
        desired="up",
        hint=t.NEXT_STEP[state].format(name="alerts"),
    )
    return msgspec.structs.replace(view, **more)


_OPEN: Final = _session(
    "open",
    paired=True,
    ready=True,
    healthy=True,
    me="100000012345678@lid",
    me_pn="15550000001@s.whatsapp.net",
    last_connected_at=1_767_225_600_000,
)
_EVENT: Final = t.EventView(
    cursor=4712,
    time=1_767_225_660_000,
    type="message:status",
    connection_id=_ID,
    session="alerts",
    data={"messageId": _MESSAGE, "state": "delivered"},
)

EXAMPLES: Final[dict[str, tuple[msgspec.Struct, msgspec.Struct]]] = {
    "session.connect": (t.SessionParams(name="alerts"), _session("connecting")),
    "session.disconnect": (
        t.SessionParams(name="alerts"),
        _session("stopped", desired="down", paired=True),
    ),
    "session.logout": (
        t.SessionParams(name="alerts"),
        t.LogoutResult(
            session=_session("needs_pairing", desired="down"),
            unlinked=True,
            backup="/var/lib/waD/backups/alerts-20260101T000000Z.wadbak",
        ),
    ),
    "session.remove": (t.SessionParams(name="alerts"), t.RemoveResult(name="alerts", connection_id=_ID)),
    "session.hold": (
        t.SessionParams(name="alerts"),
        _session("stopped", paired=True, held=True, hint="wactl release alerts"),
    ),
    "session.release": (t.SessionParams(name="alerts"), _session("connecting", paired=True)),
    "session.reset": (t.SessionParams(name="alerts"), _session("stopped", desired="down", paired=True)),
    "session.undo": (
        t.SessionParams(name="alerts"),
        t.UndoResult(
            session=_session("stopped", desired="down", paired=True),
            restored="sealed in the store as version 812",
            sealed_at=1_767_225_600_000,
            backup="sealed in the store as version 815",
            receive_only=41,
            sender_keys=3,
            stale_prekeys=790,
            held=1,
        ),
    ),
    "session.list": (t.NoParams(), t.SessionList(sessions=[_OPEN])),
    "session.status": (
        t.SessionParams(name="alerts"),
        _session(
            "backoff",
            paired=True,
            reconnect_attempt=2,
            next_attempt_at=1_767_225_604_000,
            last_disconnect=t.DisconnectView(
                cause="eof",
                at=1_767_225_600_000,
                code=428,
                message="the connection ended without a word from WhatsApp",
            ),
        ),
    ),
    "session.qr": (
        t.SessionParams(name="alerts"),
        t.QrResult(
            session=_session("pairing"),
            code=t.QrView(
                session="alerts", qr="2@hX0...,...,...,...", number=1, of=6, expires_at=1_767_225_660_000
            ),
        ),
    ),
    "message.send": (
        t.SendRequest(
            session="alerts", to="+1 555 000 0002", text="disk full on web1", idempotency_key="web1-20260101"
        ),
        t.SendResult(session="alerts", message_id=_MESSAGE, chat=_CHAT, state="queued", seq=17),
    ),
    "message.wait": (
        t.WaitParams(session="alerts", message_id=_MESSAGE, state="delivered", timeout=30),
        t.WaitResult(session="alerts", message_id=_MESSAGE, state="read"),
    ),
    "message.list": (
        t.ListParams(session="alerts", chat="15550000002", limit=1),
        t.MessageList(
            session="alerts",
            messages=[
                t.MessageView(
                    seq=912,
                    chat=_CHAT,
                    sender=_CHAT,
                    message_id="A5F0C9E2B7D41680",
                    from_me=False,
                    time=1_767_225_661_000,
                    kind="text",
                    status="received",
                    body="on my way",
                )
            ],
            next=912,
        ),
    ),
    "message.read": (
        t.ReadParams(session="alerts", chat="15550000002", ids=["A5F0C9E2B7D41680"]),
        t.ReadResult(session="alerts", marked=1),
    ),
    "events.list": (
        t.EventsParams(since=4711, types=["message:status"], limit=1),
        t.EventList(events=[_EVENT], oldest=1, last=4720),
    ),
    "events.subscribe": (
        t.SubscribeParams(since=4711, session="alerts"),
        t.Subscription(subscription=1, oldest=1, last=4720),
    ),
    "events.unsubscribe": (t.UnsubscribeParams(subscription=1), t.Done()),
    "policy.show": (
        t.PolicyParams(session="alerts"),
        t.PolicyTable(
            session="alerts",
            rows=[
                t.PolicyRow(
                    cause="stream_503",
                    section="stream",
                    code=503,
                    action="backoff",
                    default_action="slow",
                    origin="/etc/waD/waD.toml:31",
                    counts=True,
                    counted_as="stream_503",
                    alerts=[t.PolicyAlert(occurrence=2, severity="warning")],
                    meaning="the server is busy",
                )
            ],
        ),
    ),
    "config.show": (
        t.NoParams(),
        t.ConfigList(
            options=[t.OptionView(key="reconnect.base", value="1000", origin="default")],
            files=["/etc/waD/waD.toml"],
        ),
    ),
    "daemon.ping": (
        t.NoParams(),
        t.Pong(pid=714, version="0.1.0", protocol=t.PROTOCOL_VERSION, role="operator"),
    ),
    "daemon.info": (
        t.NoParams(),
        t.DaemonInfo(
            pid=714,
            version="0.1.0",
            protocol=t.PROTOCOL_VERSION,
            started_at=1_767_220_000_000,
            socket="/run/waD/control.sock",
            config="/etc/waD/waD.toml",
            store="sqlite:/var/lib/waD/waD.db",
            sessions=1,
            states={"open": 1},
            last_cursor=4720,
        ),
    ),
    "daemon.check": (
        t.NoParams(),
        t.CheckReport(
            level="warning",
            findings=[
                t.Finding(
                    check="clock",
                    level="warning",
                    subject="alerts",
                    message="this machine's clock differs from WhatsApp's by +75 s",
                    hint="set the clock, for example by NTP",
                    data={"offsetMs": 75_000},
                )
            ],
        ),
    ),
    "daemon.reload": (
        t.NoParams(),
        t.ReloadResult(applied=["log.level"], restart_needed=["control.socket"]),
    ),
    "daemon.stop": (t.NoParams(), t.Done()),
}
"""Parameters and answer by method."""

NOTICES: Final[dict[str, msgspec.Struct]] = {
    "event": t.EventNotice(subscription=1, event=_EVENT),
    "events.end": t.EndNotice(subscription=1, reason="stopped", cursor=4712),
}
"""What the daemon sends unasked."""
