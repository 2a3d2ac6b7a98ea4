"""One example of each method for the manual page, made of the real types, so that none can be out of date."""

from __future__ import annotations

from typing import Final

import msgspec

from waD.control import types as t

_ID: Final = "0f8fad5b-d9cb-469f-a165-70867728950e"
_CHAT: Final = "15550000002@s.whatsapp.net"
_MESSAGE: Final = "3EB0A1B2C3D4E5F60718A9"
_FILE: Final = "6c1f0a52e9d84b7395ab0c1d2e3f4a5b"
_SHA256: Final = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_RECIPIENT: Final = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kudx5vqmsykhhdq"
_SOUND: Final = t.Verdict(level=2, ok=True, counts={"prekey": 812, "session": 57})


def _session(state: t.State, **more: object) -> t.SessionView:
    view = t.SessionView(
        name="alerts",
        connection_id=_ID,
        state=state,
        desired="up",
        hint=t.NEXT_STEP[state].format(name="alerts"),
    )
    return msgspec.structs.replace(view, **more)


def _storage(outcome: t.StorageOutcome, phase: t.Phase, **more: object) -> t.StorageResult:
    result = t.StorageResult(name="alerts", connection_id=_ID, outcome=outcome, was=phase, phase=phase)
    return msgspec.structs.replace(result, **more)


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
    "outbox.list": (
        t.OutboxParams(session="alerts", states=["held"], limit=10),
        t.OutboxList(
            session="alerts",
            messages=[
                t.OutboxView(
                    seq=17,
                    message_id=_MESSAGE,
                    chat=_CHAT,
                    state="held",
                    created_at=1_767_225_600_000,
                    body="disk full on web1",
                    attempts=1,
                    written_at=1_767_225_601_000,
                    idempotency_key="web1-20260101",
                )
            ],
            total=1,
        ),
    ),
    "outbox.release": (
        t.DecideParams(session="alerts", ids=[_MESSAGE]),
        t.DecideResult(session="alerts", count=1, message_ids=[_MESSAGE]),
    ),
    "outbox.cancel": (
        t.DecideParams(session="alerts", all=True),
        t.DecideResult(session="alerts", count=1, message_ids=[_MESSAGE]),
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
    "storage.status": (
        t.SessionParams(name="alerts"),
        t.StorageStatus(
            name="alerts",
            connection_id=_ID,
            phase="backfilled",
            phase_since=1_767_225_600_000,
            epoch=2,
            version=4711,
            legacy_version=4711,
            lag=0,
            items=1312,
            legacy_rows=1313,
            bytes=1_480_331,
            sealed_at=1_767_225_600_000,
            encrypted=True,
            kek="main",
        ),
    ),
    "storage.log": (
        t.StorageLogParams(name="alerts"),
        t.StorageLog(
            name="alerts",
            connection_id=_ID,
            changes=[
                t.PhaseChange(
                    was="snapshot_primary", phase="cut_over", actor="alice (uid 1000)", at=1_767_225_600_000
                )
            ],
        ),
    ),
    "storage.dual_write": (
        t.StorageParams(name="alerts"),
        t.StorageResult(
            name="alerts",
            connection_id=_ID,
            outcome="done",
            was="legacy_only",
            phase="dual_write",
            checks=[t.CheckView(check="verified", ok=True, detail="verified now, nothing found")],
        ),
    ),
    "storage.backfill": (
        t.BackfillParams(name="alerts", batches=1),
        _storage("unfinished", "dual_write", progress=t.BackfillProgress(copied=500, remaining=812)),
    ),
    "storage.verify": (
        t.StorageParams(name="alerts"),
        _storage(
            "done",
            "backfilled",
            comparison=t.ComparisonView(items=1312),
            verdict=t.Verdict(level=3, ok=True, counts={"session": 500, "prekey": 812}),
        ),
    ),
    "storage.promote": (
        t.PromoteParams(name="alerts", min_age=3600),
        _storage(
            "refused",
            "backfilled",
            checks=[
                t.CheckView(check="restarts", ok=False, detail="0 restarts in this phase, and 1 demanded")
            ],
        ),
    ),
    "storage.cutover": (
        t.StorageParams(name="alerts", dry_run=True),
        _storage("possible", "snapshot_primary"),
    ),
    "storage.rollback": (
        t.RollbackParams(name="alerts", to="legacy_only"),
        msgspec.structs.replace(_storage("done", "cut_over"), phase="legacy_only"),
    ),
    "storage.retire_legacy": (
        t.RetireParams(name="alerts", confirm="alerts"),
        msgspec.structs.replace(_storage("done", "cut_over"), phase="legacy_retired"),
    ),
    "storage.encrypt": (t.StorageParams(name="alerts"), _storage("done", "cut_over")),
    "storage.rewrap": (
        t.RewrapParams(name="alerts", kek="2026"),
        msgspec.structs.replace(_storage("done", "cut_over"), rewrapped=t.Rewrap(sessions=1, seals=9)),
    ),
    "storage.keys": (
        t.NoParams(),
        t.KeyList(
            keys=[
                t.KeyView(id="2026", here=True, wraps_new=True, sessions=["alerts"], seals=9),
                t.KeyView(id="main", here=True, wraps_new=False, retired=["old"], seals=4),
            ],
            users=[
                t.KeyUser(name="alerts", connection_id=_ID, retired=False, kek="2026", seal_keks={"2026": 9}),
            ],
        ),
    ),
    "message.purge": (
        t.PurgeParams(session="alerts", before=1_767_225_600_000),
        t.PurgeResult(session="alerts", found=9120, deleted=9120),
    ),
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
    "auth.backup": (
        t.BackupParams(name="alerts", recipients=[_RECIPIENT]),
        t.BackupResult(
            id=_FILE,
            name="alerts",
            connection_id=_ID,
            file_name="default-alerts-20260101T030000Z-v812.wadbackup.age",
            size=412_160,
            sha256=_SHA256,
            created_at=1_767_236_400_000,
            epoch=1,
            version=812,
            verdict=t.Verdict(level=2, ok=True, versions={"epoch": 1, "version": 812}),
        ),
    ),
    "auth.fetch": (t.FetchParams(id=_FILE, offset=262_144), t.Part(data=b"...", end=False)),
    "auth.discard": (t.DiscardParams(id=_FILE, kept=True), t.Done()),
    "auth.upload": (t.UploadParams(data=b"..."), t.UploadResult(id=_FILE, size=3)),
    "auth.restore": (
        t.RestoreParams(id=_FILE, sha256=_SHA256, dry_run=True),
        t.RestoreResult(
            name="alerts",
            connection_id=_ID,
            done=False,
            exact=False,
            plan=[
                "peers that lose their session, until the next message either way makes a new one: 41",
                "pairwise sessions that are dropped: 57",
            ],
            peers=41,
            sessions=57,
            verdict=_SOUND,
        ),
    ),
    "auth.seals": (
        t.SessionParams(name="alerts"),
        t.SealList(
            name="alerts",
            connection_id=_ID,
            epoch=1,
            version=851,
            seals=[
                t.SealView(epoch=1, version=840, reason="periodic", sealed_at=1_767_225_600_000, items=870),
                t.SealView(epoch=1, version=812, reason="manual", sealed_at=1_767_204_000_000, items=872),
            ],
        ),
    ),
    "auth.restore_seal": (
        t.SealRestoreParams(name="alerts", epoch=1, version=812, rollback_anyway=True),
        t.RestoreResult(
            name="alerts",
            connection_id=_ID,
            done=True,
            exact=False,
            plan=["pairwise sessions that are dropped: 57"],
            peers=41,
            sessions=57,
            verdict=_SOUND,
            backup="sealed in the store as version 851",
        ),
    ),
    "auth.unretire": (
        t.SessionParams(name="alerts"),
        t.UndoResult(
            session=_session("stopped", desired="down", paired=True),
            restored="sealed in the store as version 812",
            sealed_at=1_767_225_600_000,
            backup="sealed in the store as version 813",
            receive_only=57,
        ),
    ),
    "auth.compare": (
        t.CompareParams(id=_FILE, name="alerts"),
        t.CompareResult(
            name="alerts",
            connection_id=_ID,
            same_identity=True,
            same_epoch=True,
            equal=False,
            exact=False,
            archive={"epoch": 1, "version": 812},
            store={"epoch": 1, "version": 840},
            kinds={"session": t.DifferenceView(only_store=2, older=11, equal=46)},
            plan=["pairwise sessions that are dropped: 57"],
            peers=41,
            sessions=57,
            verdict=_SOUND,
        ),
    ),
    "auth.verify": (
        t.VerifyParams(name="alerts", level=3),
        t.VerifyResult(
            name="alerts",
            connection_id=_ID,
            verdict=t.Verdict(
                level=3,
                ok=True,
                warnings=[
                    t.NoteView(code="backup_old", detail="the newest backup is 30 hours old"),
                ],
                counts={"prekey": 790, "session": 57},
                versions={"epoch": 1, "version": 840},
            ),
        ),
    ),
    "repair.list": (
        t.SessionParams(name="alerts"),
        t.RepairList(
            name="alerts",
            connection_id=_ID,
            level=4,
            advice=[
                t.RepairAdvice(
                    action="upload-prekeys",
                    reasons=[
                        t.NoteView(code="live_prekeys_low", item="prekey", detail="WhatsApp has 2 left")
                    ],
                )
            ],
            beyond=[],
            choices=[
                t.RepairChoice(
                    action=action,
                    target=kind.target,
                    meaning=kind.meaning,
                    connected=kind.connected,
                    possible=True,
                )
                for action, kind in t.REPAIRS.items()
            ],
        ),
    ),
    "repair.run": (
        t.RepairParams(name="alerts", action="drop-session", target="15550000002"),
        t.RepairResult(
            name="alerts",
            connection_id=_ID,
            action="drop-session",
            target="100000000000002@lid",
            count=2,
            items=["session/100000000000002_1.0", "session/100000000000002_1.3"],
            backup="sealed in the store as version 812",
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
