"""Applying units to the database, inside an open transaction (chapter 08 §6.4)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

from waD.store.errors import KekUnavailable, LeaseLost
from waD.store.model import UNDECRYPTABLE, EventRow
from waD.store.sql import message_secrets, rows
from waD.store.sql.database import Database, Json, Ms, document, ms
from waD.store.sql.heads import Fenced, Heads
from waD.store.unit import (
    Announce,
    ChangeMessage,
    ChangeOutbox,
    Committed,
    Enqueue,
    ItemKey,
    Journal,
    KeepPlaintext,
    KeepSecret,
    MovePerson,
    PutMessage,
    RaiseStatus,
    Step,
    Tally,
    Unit,
)
from waD.store.vault import Cipher, Vault, missing_kek

_PUT_MESSAGE: Final = (
    "INSERT INTO whatsapp_messages (session_id, chat, sender, message_id, wire_chat, wire_sender, from_me, ts, "
    "kind, body, content, raw, status, source, inserted_at) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?) "
    "ON CONFLICT (session_id, chat, sender, message_id) DO UPDATE SET kind=excluded.kind, body=excluded.body, "
    f"content=excluded.content, raw=excluded.raw WHERE whatsapp_messages.kind='{UNDECRYPTABLE}' RETURNING session_id"
)
_PUT_OUTBOX: Final = (
    "INSERT INTO wa_outbox (session_id, client_ref, chat, message_id, payload, stanza, state, attempts, not_before, "
    "expires_at, created_at) VALUES (?,?,?,?,?,?,?,?,?,?,?)"
)
_PUT_PLAINTEXT: Final = (
    "INSERT INTO wa_retry_buffer (session_id, chat, message_id, plaintext, created_at) VALUES (?,?,?,?,?) "
    "ON CONFLICT (session_id, chat, message_id) DO UPDATE SET plaintext=excluded.plaintext"
)
_PUT_JOURNAL: Final = (
    "INSERT INTO wa_inbound_buffer (session_id, cipher_sha, chat, sender, message_id, inserted_at) "
    "VALUES (?,?,?,?,?,?) ON CONFLICT DO NOTHING"
)
_PUT_EVENT: Final = (
    "INSERT INTO wa_events (session_id, session, kind, payload, at) VALUES (?,?,?,?,?) "
    "RETURNING session_id, id"
)
_RAISE_STATUS: Final = (
    "UPDATE whatsapp_messages SET status=? "
    "WHERE session_id=? AND message_id=? AND chat=? AND from_me AND status<?"
)

_TAKEN: Final = "SELECT count(*) FROM wa_outbox WHERE session_id=? AND message_id=? AND state<>'sent'"
_NEW: Final = frozenset({"live", "offline"})
"""Sources of messages that arrived as such, not as somebody's history."""

MOVED_MESSAGES: Final = 2_000
"""Messages of a person that are re-keyed with one unit, newest first; readers ask for both addresses anyway."""
_MOVE_PLAINTEXTS: Final = (
    "UPDATE wa_retry_buffer SET chat=? WHERE session_id=? AND chat=? AND NOT EXISTS (SELECT 1 FROM wa_retry_buffer o "
    "WHERE o.session_id=wa_retry_buffer.session_id AND o.chat=? AND o.message_id=wa_retry_buffer.message_id)"
)
_MOVES: Final = (
    ("UPDATE wa_outbox SET chat=? WHERE session_id=? AND chat=?", "nso"),
    (_MOVE_PLAINTEXTS, "nson"),
    ("UPDATE wa_inbound_buffer SET chat=? WHERE session_id=? AND chat=?", "nso"),
    ("UPDATE wa_inbound_buffer SET sender=? WHERE session_id=? AND sender=?", "nso"),
)
"""Statements, and which of new address, session and old address each placeholder is."""
_MOVE_MESSAGES: Final = (
    "UPDATE whatsapp_messages SET chat=?, sender=? WHERE seq IN (SELECT m.seq FROM whatsapp_messages m "
    "WHERE m.session_id=? AND m.chat=? AND m.sender=? AND NOT EXISTS (SELECT 1 FROM whatsapp_messages o WHERE "
    "o.session_id=m.session_id AND o.chat=? AND o.sender=? AND o.message_id=m.message_id) "
    f"ORDER BY m.seq DESC LIMIT {MOVED_MESSAGES})"
)
_SENDERS: Final = "SELECT DISTINCT sender FROM whatsapp_messages WHERE session_id=? AND chat=?"
FENCE_STEP: Final = (
    "auth_version=auth_version+1, legacy_version=CASE WHEN auth_phase IN ('cut_over','legacy_retired') "
    "THEN legacy_version ELSE auth_version+1 END"
)
FENCE_FOUND: Final = "id, auth_version, auth_epoch, name, auth_phase, dek_wrapped, dek_kek_id"
_FENCE: Final = (
    f"UPDATE wa_sessions SET {FENCE_STEP}, updated_at=?{{more}} "
    f"WHERE id=? AND lease_token=? AND (auth_epoch=? OR ?=0) RETURNING {FENCE_FOUND}"
)
TALLY_COLUMNS: Final = ("messages_received", "messages_sent", "decrypt_failures", "retry_requests")
TALLY: Final = f"UPDATE wa_sessions SET {', '.join(f'{name}={name}+?' for name in TALLY_COLUMNS)} WHERE id=?"


def put_event(
    db: Database,
    session: tuple[str | None, str | None],
    event_type: str,
    data: dict[str, Any],
    now_ms: int,
) -> EventRow:
    """Append to the log; `session` is (id, name)."""
    return send_event(db, session, event_type, data, now_ms)()


def send_event(
    db: Database,
    session: tuple[str | None, str | None],
    event_type: str,
    data: dict[str, Any],
    now_ms: int,
) -> Callable[[], EventRow]:
    """The same; what was appended is asked for later."""
    asked = db.promise(_PUT_EVENT, (*session, event_type, rows.json_text(data), Ms(now_ms)))
    return lambda: EventRow(
        cursor=asked()[1],
        time=now_ms,
        connection_id=session[0],
        session=session[1],
        type=event_type,
        data=data,
    )


def fence(
    db: Database,
    session_id: str,
    owned: tuple[int, int],
    changes: Mapping[str, Any],
    vault: Vault | None,
    now_ms: int,
    *,
    keys: bool = True,
) -> Fenced:
    """Begin a unit: the next version of the auth state, for the owner of the token only.

    Args:
        db: in a transaction.
        session_id: whose state.
        owned: token and epoch, or 0 for any epoch.
        changes: columns of the session's row.
        vault: the operator's keys.
        now_ms: Unix milliseconds.
        keys: whether anything of it has to be encrypted.

    Raises:
        LeaseLost: the token is not the current one.
        KekUnavailable: the session is encrypted with a key that is not here.
    """
    found = ask_fence(db, session_id, owned, changes, now_ms)()
    return fenced(found, session_id, owned[0], vault, keys=keys)


def ask_fence(
    db: Database, session_id: str, owned: tuple[int, int], changes: Mapping[str, Any], now_ms: int
) -> Callable[[], Any]:
    """The statement of `fence`; what it gives is for `fenced`."""
    columns = rows.session_changes(changes)
    more = "".join(f", {name}=?" for name in columns)
    token, epoch = owned
    return db.promise(
        _FENCE.format(more=more), (Ms(now_ms), *columns.values(), session_id, token, epoch, epoch)
    )


def fenced(found: Any, session_id: str, token: int, vault: Vault | None, *, keys: bool) -> Fenced:
    """What the fence found; raises as `fence`."""
    if found is None:
        raise LeaseLost(f"session {session_id} has another owner now; this one must not write any more")
    _, version, epoch, name, phase, wrapped, kek_id = found
    cipher = open_cipher(vault, session_id, epoch, wrapped, kek_id) if keys else None
    return Fenced(session_id, name, token, epoch, version, phase, cipher)


def open_cipher(
    vault: Vault | None, session_id: str, epoch: int, wrapped: bytes | None, kek_id: str | None
) -> Cipher | None:
    """What a session's state is encrypted with; None when it is not.

    Raises:
        KekUnavailable: the key is not here.
    """
    if wrapped is None:
        return None
    if vault is None:
        raise KekUnavailable(missing_kek(kek_id or "", session_id))
    return vault.cipher(session_id, epoch, wrapped, kek_id or "")


_SECRET: Final = (Enqueue, ChangeOutbox, KeepPlaintext, KeepSecret)


def _has_secrets(unit: Unit) -> bool:
    """What holds none can be written also while the operator's key is not there: that it is not, for a start."""
    return bool(unit.items) or unit.creds is not None or any(isinstance(step, _SECRET) for step in unit.steps)


class UnitWriter:
    """Writes one session's unit inside an open transaction.

    Attributes:
        now: Unix milliseconds.
    """

    def __init__(self, db: Database, heads: Heads, vault: Vault | None, now_ms: int) -> None:
        self._db = db
        self._heads = heads
        self._vault = vault
        self.now = now_ms
        self._id = ""
        self._name = ""
        self._cipher: Cipher | None = None
        self._version = 0
        self._events: list[Callable[[], EventRow]] = []
        self._counted: list[tuple[Callable[[], int], str]] = []
        self._tallies: Counter[str] = Counter()

    def write(self, session_id: str, owned: tuple[int, int], unit: Unit) -> Committed:
        """Apply everything, for the owner of a token in an epoch.

        Raises:
            LeaseLost: the token is not the current one.
            KekUnavailable: the session is encrypted with a key that is not here.
        """
        found = ask_fence(self._db, session_id, owned, unit.session, self.now)()
        self.apply(session_id, owned[0], found, unit)
        if (tally := self.tally_row()) is not None:
            self._db.execute(TALLY, tally)
        return self.committed()

    def apply(
        self, session_id: str, token: int, found: Any, unit: Unit, old: Mapping[ItemKey, bytes] | None = None
    ) -> None:
        """Apply everything but the tallies, behind a fence.

        Args:
            session_id: whose state.
            token: the owner's.
            found: what `ask_fence` gave.
            unit: which.
            old: the checksums of its items that there are; None: they are asked for.

        Raises:
            LeaseLost, KekUnavailable: as `write`.
        """
        at = fenced(found, session_id, token, self._vault, keys=_has_secrets(unit))
        self._id, self._name, self._cipher, self._version = session_id, at.name, at.cipher, at.version
        if unit.items or unit.creds is not None:
            self._heads.write(self._db, at, unit.items, unit.creds, self.now, old)
        else:
            self._heads.step(self._db, at)
        for step in unit.steps:
            _WRITERS[type(step)](self, step)

    def tally_row(self) -> tuple[Any, ...] | None:
        """What is left for the statement TALLY; None when nothing was counted."""
        for count, name in self._counted:
            self._tallies[name] += count()
        if not self._tallies.total():
            return None
        return (*(self._tallies[name] for name in TALLY_COLUMNS), self._id)

    def committed(self) -> Committed:
        """The outcome."""
        return Committed(self._version, [event() for event in self._events])

    def put_message(self, step: PutMessage) -> None:
        """Insert, or resolve an undecryptable one."""
        m = step.row
        content = None if m.content is None else rows.json_text(m.content)
        done = self._db.promise(
            _PUT_MESSAGE,
            (self._id, m.chat, m.sender, m.message_id, m.wire_chat, m.wire_sender, m.from_me, Ms(m.ts), m.kind,
             m.body, content, m.raw, m.status, m.source, Ms(self.now)),
        )  # fmt: skip
        if not m.from_me and m.source in _NEW:
            tally = "decrypt_failures" if m.kind == UNDECRYPTABLE else "messages_received"
            self._counted.append((lambda: int(done() is not None), tally))

    def change_message(self, step: ChangeMessage) -> None:
        """Change columns of a message."""
        columns, values = rows.assignments("message", step.changes, rows.MESSAGE_CHANGES)
        self._db.execute(
            f"UPDATE whatsapp_messages SET {columns} "
            "WHERE session_id=? AND chat=? AND sender=? AND message_id=?",
            (*values, self._id, step.chat, step.sender, step.message_id),
        )

    def raise_status(self, step: RaiseStatus) -> None:
        """Never lowers."""
        self._db.execute(_RAISE_STATUS, (step.status, self._id, step.message_id, step.chat, step.status))

    def enqueue(self, step: Enqueue) -> None:
        """Add to the outbox."""
        o = step.row
        self._db.execute(
            _PUT_OUTBOX,
            (self._id, o.client_ref, o.chat, o.message_id, self._payload(o.message_id, o.payload), o.stanza, o.state,
             o.attempts, Ms(o.not_before), ms(o.expires_at), Ms(o.created_at or self.now)),
        )  # fmt: skip

    def _payload(self, message_id: str, payload: dict[str, Any]) -> Json:
        text = rows.json_text(payload)
        return (
            text
            if self._cipher is None
            else document(self._cipher.close("outbox", message_id, 0, text.encode()))
        )

    def change_outbox(self, step: ChangeOutbox) -> None:
        """Change columns of an outbox row."""
        changes = step.changes
        if "payload" in changes:
            changes = {**changes, "payload": self._payload(step.message_id, changes["payload"])}
        columns, values = rows.assignments("message on its way", changes, rows.OUTBOX_CHANGES)
        if step.changes.get("state") == "sent":
            taken = self._db.promise(_TAKEN, (self._id, step.message_id))
            self._counted.append((lambda: taken()[0], "messages_sent"))
        self._db.execute(
            f"UPDATE wa_outbox SET {columns} WHERE session_id=? AND message_id=?",
            (*values, self._id, step.message_id),
        )

    def keep_plaintext(self, step: KeepPlaintext) -> None:
        """For retries."""
        kept = step.plaintext
        if self._cipher is not None:
            kept = self._cipher.close_blob(f"retry:{step.message_id}", kept)
        self._db.execute(_PUT_PLAINTEXT, (self._id, step.chat, step.message_id, kept, Ms(self.now)))

    def keep_secret(self, step: KeepSecret) -> None:
        """For add-ons."""
        message_secrets.put(self._db, self._id, step.row, self._cipher)

    def journal(self, step: Journal) -> None:
        """For duplicates."""
        self._db.execute(
            _PUT_JOURNAL, (self._id, step.cipher_sha, step.chat, step.sender, step.message_id, Ms(self.now))
        )

    def move_person(self, step: MovePerson) -> None:
        """Re-key rows; where the new key exists already the old row stays."""
        words = {"n": step.new, "s": self._id, "o": step.old}
        for statement, order in _MOVES:
            self._db.execute(statement, [words[letter] for letter in order])
        senders = [row[0] for row in self._db.execute(_SENDERS, (self._id, step.old)).fetchall()]
        for sender in senders:
            target = (step.new, step.new if sender == step.old else sender)
            self._db.execute(_MOVE_MESSAGES, (*target, self._id, step.old, sender, *target))
        message_secrets.move_person(self._db, self._id, step.old, step.new, MOVED_MESSAGES)

    def tally(self, step: Tally) -> None:
        """Count one more."""
        self._tallies[step.name] += 1

    def announce(self, step: Announce) -> None:
        """Append an event."""
        session = (self._id, self._name)
        self._events.append(send_event(self._db, session, step.type, step.data, self.now))


_WRITERS: Final[dict[type[Step], Callable[[UnitWriter, Any], None]]] = {
    PutMessage: UnitWriter.put_message,
    ChangeMessage: UnitWriter.change_message,
    RaiseStatus: UnitWriter.raise_status,
    Enqueue: UnitWriter.enqueue,
    ChangeOutbox: UnitWriter.change_outbox,
    KeepPlaintext: UnitWriter.keep_plaintext,
    KeepSecret: UnitWriter.keep_secret,
    Journal: UnitWriter.journal,
    MovePerson: UnitWriter.move_person,
    Tally: UnitWriter.tally,
    Announce: UnitWriter.announce,
}
