"""The file of a message store beside the keys: which secrets are taken from it, and what of it is told."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from tests.transfer.baileys import samples
from waD.store.model import SecretRow
from waD.transfer.baileys import message_store
from waD.transfer.state import Report

NOW_S = samples.NOW_MS // 1000
DAY_MS = 86_400_000
SECRET = bytes(range(32))
TEXT = base64.b64encode(SECRET).decode()
STRANGER, GROUP = "5511977777777@s.whatsapp.net", "120363000000000041@g.us"


def message(chat: str = STRANGER, secret: Any = TEXT, **more: Any) -> dict[str, Any]:
    content = {"conversation": "hello", "messageContextInfo": {"messageSecret": secret}}
    key = {"remoteJid": chat, "fromMe": False, "id": "A1"} | more.pop("key", {})
    return {"key": key, "message": content | more.pop("content", {}), "messageTimestamp": NOW_S} | more


def imported(
    directory: Path, *found: Any, name: str = "baileys_store.json"
) -> tuple[list[SecretRow], Report]:
    """What comes of a directory with a file of these messages."""
    (directory / name).write_text(json.dumps({"chats": [], "messages": {"any": list(found)}}))
    state, report = samples.converted(samples.read(directory, samples.files()))
    return [*state.secrets], report


def only(directory: Path, **more: Any) -> SecretRow | None:
    rows, _ = imported(directory, message(**more))
    return rows[0] if rows else None


@pytest.mark.parametrize("name", ["baileys_store.json", "store.json", "baileys_store_multi.json"])
def test_a_text(tmp_path: Path, name: str) -> None:
    rows, report = imported(tmp_path, message(), name=name)
    assert rows == [
        SecretRow(
            chat=STRANGER, sender=STRANGER, message_id="A1", wire_sender=STRANGER, secret=SECRET,
            message_ts=samples.NOW_MS, expires_at=samples.NOW_MS + 30 * DAY_MS,
        )
    ]  # fmt: skip
    assert "not_taken" not in {note.code for note in report.notes}


def test_other_forms(tmp_path: Path) -> None:
    numbers = {"type": "Buffer", "data": [*SECRET]}
    indexes = {str(index): octet for index, octet in enumerate(SECRET)}
    for form in (numbers, indexes, samples.buffer(SECRET), [*SECRET]):
        assert only(tmp_path, secret=form).secret == SECRET  # type: ignore[union-attr]
    outside = message(secret=None, messageSecret=TEXT)
    assert imported(tmp_path, outside)[0][0].secret == SECRET
    for time in (str(NOW_S), {"low": NOW_S, "high": 0, "unsigned": True}):
        assert only(tmp_path, messageTimestamp=time).message_ts == samples.NOW_MS  # type: ignore[union-attr]


def test_who_wrote_it(tmp_path: Path) -> None:
    def people(**more: Any) -> tuple[str, str, str]:
        row = only(tmp_path, **more)
        assert row is not None
        return row.chat, row.sender, row.wire_sender

    creds = samples.creds()["me"]
    pn, lid = (f"{creds[name].split(':')[0]}@{creds[name].split('@')[1]}" for name in ("id", "lid"))
    group = {"key": {"participant": f"{STRANGER.split('@')[0]}:3@s.whatsapp.net"}}
    assert people(chat=GROUP, **group) == (GROUP, STRANGER, STRANGER)
    assert people(chat=STRANGER, key={"fromMe": True}) == (STRANGER, lid, pn)
    assert people(chat="199999999999999@lid", key={"fromMe": True}) == ("199999999999999@lid", lid, lid)


def test_a_number_whose_lid_is_known(tmp_path: Path) -> None:
    state, _ = samples.converted(samples.read(tmp_path, samples.files()))
    pairs = {key: json.loads(value) for (kind, key), value in state.items.items() if kind == "lid-of-pn"}
    number = next(pn for pn in pairs if pn != state.creds.me_pn.user)  # type: ignore[union-attr]
    row = only(tmp_path, chat=f"{number}@s.whatsapp.net")
    assert row is not None
    assert (row.chat, row.sender) == (f"{pairs[number]}@lid",) * 2
    assert row.wire_sender == f"{number}@s.whatsapp.net"


@pytest.mark.parametrize("kind", ["pollCreationMessage", "pollCreationMessageV3", "eventMessage"])
def test_polls_and_events_for_longer(tmp_path: Path, kind: str) -> None:
    long_ago = NOW_S - 80 * 86_400
    assert only(tmp_path, messageTimestamp=long_ago) is None
    row = only(tmp_path, messageTimestamp=long_ago, content={kind: {"name": "x"}})
    assert row is not None
    assert row.expires_at == (long_ago * 1000) + 90 * DAY_MS


@pytest.mark.parametrize(
    "more",
    [
        {"secret": None},
        {"secret": base64.b64encode(bytes(31)).decode()},
        {"secret": {"type": "Buffer", "data": ["x"]}},
        {"key": {"id": ""}},
        {"key": {"id": 5}},
        {"key": {"id": "x" * 256}},
        {"key": {"remoteJid": "nowhere"}},
        {"chat": GROUP},
        {"message": None},
        {"messageTimestamp": None},
        {"messageTimestamp": 1e400},
        {"messageTimestamp": 10**30},
        {"messageTimestamp": {"low": "x"}},
        {"content": {"extendedTextMessage": {"contextInfo": {"isForwarded": True}}}},
    ],
)
def test_what_is_of_no_use(tmp_path: Path, more: dict[str, Any]) -> None:
    rows, report = imported(tmp_path, message(**more), message(key={"id": "good"}))
    assert [row.message_id for row in rows] == ["good"]
    assert TEXT not in repr(report.notes)


def test_of_one_message_the_newer(tmp_path: Path) -> None:
    older = message(secret=base64.b64encode(bytes(32)).decode(), messageTimestamp=NOW_S - 5)
    for order in ((older, message()), (message(), older)):
        rows, _ = imported(tmp_path, *order)
        assert [row.secret for row in rows] == [SECRET]


def test_of_too_many_the_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(message_store, "MAX_SECRETS", 2)
    many = [message(key={"id": f"A{n}"}, messageTimestamp=NOW_S - n) for n in range(4)]
    rows, _ = imported(tmp_path, *reversed(many))
    assert [row.message_id for row in rows] == ["A0", "A1"]


@pytest.mark.parametrize("text", ["{", "", "[]", '{"messages":[]}', "[" * 5000, "\xff"])
def test_a_file_that_is_none_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "baileys_store.json").write_bytes(text.encode("latin-1"))
    state, report = samples.converted(samples.read(tmp_path, samples.files()))
    assert state.secrets == ()
    (note,) = [note for note in report.notes if note.code == "not_taken"]
    assert (note.item, note.severity) == ("baileys_store.json", "warning")


def test_a_file_that_is_too_large_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("waD.transfer.baileys.directory.MAX_STORE", 10)
    rows, report = imported(tmp_path, message())
    assert rows == []
    assert "more than the 10" in next(note.detail for note in report.notes if note.code == "not_taken")


def test_nothing_secret_is_shown(tmp_path: Path) -> None:
    (tmp_path / "store.json").write_text(json.dumps({"messages": {"a": [message()]}}))
    items = samples.read(tmp_path, samples.files())
    assert "\\x1f" not in repr(items.secrets)
    assert "StoredSecret(A1)" in repr(items.secrets)
