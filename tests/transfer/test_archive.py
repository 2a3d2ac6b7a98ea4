"""Archives: what is written is what is read, and everything else is refused with nothing taken from it."""

from __future__ import annotations

import gzip
import io
import json
import re
import tarfile
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import pyrage
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.transfer.samples import (
    ABOUT,
    NOW,
    OTHER_ID,
    SESSION_ID,
    VERSION,
    Taken,
    a_row,
    a_sample,
    archive_of,
    b64,
    content_of,
    raw_tar,
)
from waD.store import checksum
from waD.store.model import MessageRow, OutboxRow, SecretRow
from waD.transfer import archive, archive_writing
from waD.transfer.archive import ArchiveError, StoredItem, file_name, is_member_name
from waD.transfer.archive_reading import Archive, open_archive
from waD.transfer.archive_writing import About
from waD.transfer.sealing import Identities, Key, Recipients
from waD.transfer.state import Report

PLACE = f"sessions/{SESSION_ID}"
SAMPLE = a_sample()


@contextmanager
def opened(
    data: bytes, spool: Path, key: Key | None = None, report: Report | None = None
) -> Iterator[Archive]:
    with open_archive(io.BytesIO(data), spool, key, report if report is not None else Report()) as archive:
        yield archive


def refusal(data: bytes, spool: Path, key: Key | None = None, *, read: bool = False) -> ArchiveError:
    """The error of an archive that must not be opened, or (`read`) whose session must not be read."""
    with pytest.raises(ArchiveError) as refused:
        look_through(data, spool, key, read=read)
    assert [*spool.iterdir()] == []
    return refused.value


def look_through(data: bytes, spool: Path, key: Key | None, *, read: bool) -> None:
    with opened(data, spool, key) as found:
        assert read, "it was opened"
        for listed in found.manifest.sessions:
            found.session(listed.id)
            found.check_rows(listed.id)


@pytest.fixture
def good(tmp_path: Path) -> bytes:
    return archive_of(content_of(SAMPLE.state), tmp_path)


# ------------------------------------------------------------------------------------------------------ round trips


@pytest.mark.parametrize("compress", [False, True])
def test_everything_comes_back(tmp_path: Path, compress: bool) -> None:
    content = content_of(SAMPLE.state, phase_log=[{"from": "dual_write", "to": "backfilled", "at": NOW}])
    report = Report()
    with opened(archive_of(content, tmp_path, compress=compress), tmp_path, None, report) as found:
        assert [note.code for note in report.notes] == ["archive_not_encrypted"]
        (listed,) = found.manifest.sessions
        session = found.session(SESSION_ID)
    assert {key: item.document for key, item in session.items.items()} == SAMPLE.state.items
    assert set(session.items.values()) == set(content.items)
    assert (session.creds, session.creds_version) == (SAMPLE.state.creds.serialize(), 3)
    assert session.phase_log == content.phase_log
    assert (listed.name, listed.epoch, listed.version, listed.phase) == ("alerts", 2, VERSION, "cut_over")
    assert listed.item_counts == SAMPLE.state.counts()
    assert session.row.push_name == "Alerts"
    assert (session.row.lease_token, session.row.lease_holder, session.row.lease_expires_at) == (
        0,
        None,
        None,
    )


def test_the_checksum_is_that_of_a_head(tmp_path: Path, good: bytes) -> None:
    parts = [checksum.creds_checksum(3, SAMPLE.state.creds.serialize())]
    content = content_of(SAMPLE.state)
    parts += [checksum.item_checksum(*item) for item in content.items]
    with opened(good, tmp_path) as found:
        assert found.manifest.sessions[0].checksum == checksum.total(parts).hex()
    content.checksum = checksum.total(parts)
    assert archive_of(content, tmp_path) == good
    content.checksum = bytes(32)
    with pytest.raises(ArchiveError) as refused:
        archive_of(content, tmp_path)
    assert refused.value.code == "checksum_mismatch"


def test_the_layout_is_the_one_that_is_documented(good: bytes) -> None:
    with tarfile.open(fileobj=io.BytesIO(good)) as tar:
        members = tar.getmembers()
    names = [info.name for info in members]
    assert names[:3] == ["manifest.json", f"{PLACE}/session.json", f"{PLACE}/creds.json"]
    assert names[3:-2] == [f"{PLACE}/items/{kind}.jsonl" for kind in SAMPLE.state.counts()]
    assert names[-2:] == [f"{PLACE}/secrets.jsonl", "SHA256SUMS"]
    assert {(info.mode, info.uid, info.gid, info.mtime) for info in members} == {(0o600, 0, 0, NOW // 1000)}
    parts = Taken.apart(good).members
    manifest = json.loads(parts["manifest.json"])
    assert manifest["format"] == "wad-backup"
    assert manifest["created_at"] == "2023-11-14T23:13:20Z"
    assert manifest["final"] is False
    assert re.fullmatch("[0-9a-f]{8}", manifest["sessions"][0]["identity_fp"])
    first = parts[f"{PLACE}/items/prekey.jsonl"].splitlines()[0]
    assert list(json.loads(first)) == ["id", "value", "version"]
    assert b"lease" not in parts[f"{PLACE}/session.json"]
    assert good == archive_of(
        content_of(SAMPLE.state), Path(gettempdir())
    )  # the same content makes the same bytes


def test_several_sessions_rows_and_history(tmp_path: Path) -> None:
    message = MessageRow(
        chat="c", sender="s", message_id="1", from_me=True, ts=NOW, kind="text", raw=b"\0\xff"
    )
    kept = SecretRow(
        chat="c",
        sender="s",
        message_id="1",
        wire_sender="w",
        secret=bytes(32),
        message_ts=NOW,
        expires_at=NOW + 1,
    )
    queued = OutboxRow(client_ref="r", chat="c", message_id="2", payload={"text": "hi"}, stanza=b"\x01")
    first = content_of(SAMPLE.state, secrets=[kept])
    second = content_of(
        SAMPLE.state,
        a_row(OTHER_ID, "jobs"),
        outbox=[queued],
        history={"messages": [message] * 3, "events": []},
    )
    with opened(
        archive_of(iter([first, second]), tmp_path, About(NOW, "waD", 2, final=True)), tmp_path
    ) as found:
        assert found.manifest.final
        assert [one.name for one in found.manifest.sessions] == ["alerts", "jobs"]
        assert [*found.secrets(SESSION_ID)] == [kept]
        assert found.check_rows(SESSION_ID) == {"secrets.jsonl": 1}
        assert [*found.outbox(SESSION_ID, OutboxRow)] == []
        assert [*found.outbox(OTHER_ID, OutboxRow)] == [queued]
        assert found.tables(OTHER_ID) == ["events", "messages"]
        assert [*found.history(OTHER_ID, "messages", MessageRow)] == [message] * 3
        assert found.check_rows(OTHER_ID) == {
            "secrets.jsonl": 0, "outbox.jsonl": 1, "history/messages-0001.jsonl": 3, "history/events-0001.jsonl": 0,
        }  # fmt: skip
        with pytest.raises(ArchiveError, match="session_missing"):
            found.session("nobody")


def test_a_long_history_is_cut_into_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "PART_SIZE", 100)
    rows = [{"n": number, "text": "x" * 30} for number in range(12)]
    data = archive_of(content_of(SAMPLE.state, history={"events": iter(rows)}), tmp_path)
    assert sum("history/" in name for name in Taken.apart(data).members) == 4
    with opened(data, tmp_path) as found:
        assert [*found.history(SESSION_ID, "events", dict)] == rows


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(keys=st.sets(st.text(st.characters(codec="utf-8"), max_size=8), max_size=8), compress=st.booleans())
def test_any_key_of_an_unknown_kind_survives(tmp_path: Path, keys: set[str], compress: bool) -> None:
    state = SAMPLE.with_items({("x-new", key): json.dumps([key]).encode() for key in keys})
    with opened(archive_of(content_of(state), tmp_path, compress=compress), tmp_path) as found:
        items = found.session(SESSION_ID).items
    assert {key for kind, key in items if kind == "x-new"} == keys
    assert all(json.loads(items["x-new", key].document) == [key] for key in keys)


def test_nothing_is_left_behind_in_the_spool(tmp_path: Path, good: bytes) -> None:
    with opened(good, tmp_path):
        assert [*tmp_path.iterdir()] == []


# ---------------------------------------------------------------------------------------------------------- writing


@pytest.mark.parametrize(
    ("items", "code"),
    [
        ([StoredItem("b", "1", 0, b"1"), StoredItem("a", "1", 0, b"1")], "items_unordered"),
        ([StoredItem("a", "2", 0, b"1"), StoredItem("a", "1", 0, b"1")], "items_unordered"),
        ([StoredItem("a", "1", 0, b"1"), StoredItem("a", "1", 0, b"1")], "items_unordered"),
        ([StoredItem("../up", "1", 0, b"1")], "items_unordered"),
        ([StoredItem("a", "1", 0, b"\x01no json")], "item_unreadable"),
    ],
)
def test_a_store_that_gives_nonsense_makes_no_archive(
    tmp_path: Path, items: list[StoredItem], code: str
) -> None:
    content = content_of(SAMPLE.state)
    content.items = items
    with pytest.raises(ArchiveError) as refused:
        archive_of(content, tmp_path)
    assert refused.value.code == code


def test_limits_hold_for_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = content_of(SAMPLE.state, history={"events": [{"text": "x" * 4000}] * 40})
    monkeypatch.setattr(archive, "MAX_MEMBER", 100_000)
    with pytest.raises(ArchiveError, match=r"archive_too_large.*history"):
        archive_of(content, tmp_path)
    monkeypatch.setattr(archive, "MAX_LINE", 3000)
    with pytest.raises(ArchiveError, match="line_too_long"):
        archive_of(content, tmp_path)
    with pytest.raises(ArchiveError, match="session_invalid"):
        archive_of(content_of(SAMPLE.state, a_row("../../etc")), tmp_path)


def test_names_of_files() -> None:
    assert file_name("", "alerts", NOW, 7) == "alerts-20231114T231320Z-v7.wadbackup.age"
    assert file_name("acme", "a b/../ü", NOW, 7, sealed=False) == "acme-a_b_.._-20231114T231320Z-v7.wadbackup"
    assert file_name("", "..", NOW, 7).startswith("_-")
    assert "/" not in file_name("/", "/etc/passwd", NOW, 1)


# ----------------------------------------------------------------------------------------- truncated, damaged, foreign


@pytest.mark.parametrize("compress", [False, True])
def test_cut_short_anywhere(tmp_path: Path, compress: bool) -> None:
    data = archive_of(content_of(SAMPLE.state), tmp_path, compress=compress)
    for length in {
        0,
        1,
        511,
        512,
        600,
        1024,
        len(data) // 3,
        len(data) // 2,
        len(data) - 1025,
        len(data) - 1000,
    }:
        assert refusal(data[:length], tmp_path).code in ("archive_truncated", "not_an_archive"), length


def test_cut_between_members(tmp_path: Path, good: bytes) -> None:
    parts = Taken.apart(good)
    del parts.members["SHA256SUMS"]
    assert refusal(parts.together(sums=False), tmp_path).code == "archive_truncated"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), compress=st.booleans())
def test_a_flipped_bit_is_never_taken(tmp_path: Path, where: float, bit: int, compress: bool) -> None:
    whole = archive_of(content_of(SAMPLE.state), tmp_path, compress=compress)
    changed = bytearray(whole)
    changed[int(where * len(whole))] ^= 1 << bit
    try:
        with opened(bytes(changed), tmp_path) as found:
            session = found.session(SESSION_ID)
    except ArchiveError:
        return
    # Padding, and what a tar says of owner and time, carry nothing.
    assert {key: item.document for key, item in session.items.items()} == SAMPLE.state.items
    assert session.creds == SAMPLE.state.creds.serialize()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=3000))
def test_any_bytes_are_refused_in_order(tmp_path: Path, data: bytes) -> None:
    refusal(data, tmp_path)


@pytest.mark.parametrize(
    "foreign",
    [
        b"PK\x03\x04" + bytes(1000),
        b"SQLite format 3\0" + bytes(1000),
        gzip.compress(b"-- dump\n"),
        gzip.compress(b"x" * 5000),
        raw_tar([(tarfile.TarInfo("creds.json"), b"{}")]),
        b"",
    ],
    ids=["zip", "sqlite", "small gzip", "gzip", "tar", "empty"],
)
def test_foreign_files(tmp_path: Path, foreign: bytes) -> None:
    assert refusal(foreign, tmp_path).code in ("not_an_archive", "archive_foreign")


def test_the_manifest_decides_who_may_read(tmp_path: Path, good: bytes) -> None:
    def changed(**fields: Any) -> bytes:
        parts = Taken.apart(good)
        parts.members["manifest.json"] = json.dumps(
            json.loads(parts.members["manifest.json"]) | fields
        ).encode()
        return parts.together()

    error = refusal(changed(version=2, sessions="of tomorrow"), tmp_path)
    assert (error.code, error.cannot_check) == ("archive_too_new", True)
    assert "upgrade" in error.detail
    assert refusal(changed(format="other"), tmp_path).code == "archive_foreign"
    assert refusal(changed(version=0), tmp_path).code == "manifest_invalid"
    assert refusal(changed(sessions=[]), tmp_path).code == "manifest_invalid"
    assert refusal(changed(created_at="yesterday"), tmp_path).code == "manifest_invalid"
    assert refusal(changed(sessions=3), tmp_path).code == "json_invalid"
    listed = json.loads(Taken.apart(good).members["manifest.json"])["sessions"]
    assert refusal(changed(sessions=listed * 2), tmp_path).code == "manifest_invalid"
    assert refusal(changed(sessions=[listed[0] | {"id": "../../etc"}]), tmp_path).code == "manifest_invalid"
    assert refusal(changed(sessions=[listed[0] | {"id": OTHER_ID}]), tmp_path).code == "member_missing"


# ------------------------------------------------------------------------------------------- swapped and added members


def test_swapped_members(tmp_path: Path, good: bytes) -> None:
    parts = Taken.apart(good)
    one, other = f"{PLACE}/items/session.jsonl", f"{PLACE}/items/identity.jsonl"
    parts.members[one], parts.members[other] = parts.members[other], parts.members[one]
    assert refusal(parts.together(sums=False), tmp_path).code == "member_hash_mismatch"
    assert refusal(parts.together(), tmp_path, read=True).code == "item_count_mismatch"


def test_a_member_of_another_backup(tmp_path: Path, good: bytes) -> None:
    """With hashes made anew: the manifest's checksum tells."""
    older = Taken.apart(archive_of(content_of(a_sample().state), tmp_path)).members
    for name in ("creds.json", "items/session.jsonl", "items/prekey.jsonl"):
        parts = Taken.apart(good)
        parts.members[f"{PLACE}/{name}"] = older[f"{PLACE}/{name}"]
        assert refusal(parts.together(), tmp_path, read=True).code == "checksum_mismatch"


def test_swapped_sessions(tmp_path: Path) -> None:
    contents = [content_of(SAMPLE.state), content_of(a_sample().state, a_row(OTHER_ID, "jobs"))]
    parts = Taken.apart(archive_of(contents, tmp_path))
    swapped = {
        name.replace(SESSION_ID, "?").replace(OTHER_ID, SESSION_ID).replace("?", OTHER_ID): data
        for name, data in parts.members.items()
    }
    assert refusal(Taken(swapped).together(), tmp_path, read=True).code == "session_mismatch"


def test_a_version_changed_by_hand(tmp_path: Path, good: bytes) -> None:
    parts = Taken.apart(good)
    name = f"{PLACE}/items/prekey.jsonl"
    parts.members[name] = re.sub(rb'"version":\d+', b'"version":1', parts.members[name], count=1)
    assert refusal(parts.together(), tmp_path, read=True).code == "checksum_mismatch"
    parts.members[name] = re.sub(rb'"version":\d+', b'"version":99', parts.members[name], count=1)
    assert refusal(parts.together(), tmp_path, read=True).code == "version_mismatch"


def test_lines_twice_or_out_of_order(tmp_path: Path, good: bytes) -> None:
    name = f"{PLACE}/items/prekey.jsonl"
    lines = Taken.apart(good).members[name].splitlines(keepends=True)
    for changed in (lines[::-1], lines + lines[-1:]):
        parts = Taken.apart(good)
        parts.members[name] = b"".join(changed)
        assert refusal(parts.together(), tmp_path, read=True).code == "items_unordered"


def test_unknown_members_are_told_and_ignored(tmp_path: Path, good: bytes) -> None:
    parts = Taken.apart(good)
    extra = ["README", f"{PLACE}/future.bin", f"sessions/{OTHER_ID}/creds.json", f"{PLACE}/items/a/b.jsonl"]
    parts.members |= dict.fromkeys(extra, b"?")
    report = Report()
    with opened(parts.together(), tmp_path, None, report) as found:
        assert len(found.session(SESSION_ID).items) == len(SAMPLE.state.items)
    assert [note.item for note in report.warnings if note.code == "unknown_member"] == extra


def test_members_and_their_hashes(tmp_path: Path, good: bytes) -> None:
    parts = Taken.apart(good)
    parts.members[f"{PLACE}/extra.txt"] = b""
    assert refusal(_sums_last(parts), tmp_path).code == "member_unlisted"
    parts = Taken.apart(good)
    del parts.members[f"{PLACE}/items/retry.jsonl"]
    assert refusal(parts.together(sums=False), tmp_path).code == "member_missing"
    assert refusal(parts.together(), tmp_path, read=True).code == "item_count_mismatch"
    parts = Taken.apart(good)
    del parts.members[f"{PLACE}/creds.json"]
    assert refusal(parts.together(), tmp_path).code == "member_missing"
    parts = Taken.apart(good)
    parts.members["SHA256SUMS"] = b"nothing\n"
    assert refusal(parts.together(sums=False), tmp_path).code == "archive_damaged"
    parts = Taken.apart(good)
    parts.members = {"first": b"", **parts.members}
    assert refusal(parts.together(), tmp_path).code == "archive_foreign"


def _sums_last(parts: Taken) -> bytes:
    parts.members["SHA256SUMS"] = parts.members.pop("SHA256SUMS")
    return parts.together(sums=False)


# ----------------------------------------------------------------------------------------------- hostile tars and JSON


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../up",
        "sessions/../../up",
        "a//b",
        "a/./b",
        "a/",
        "ü",
        "a b",
        "a\\b",
        "a" * 99 + "/" + "\n",
    ],
)
def test_path_traversal_and_odd_names(tmp_path: Path, good: bytes, name: str) -> None:
    assert not is_member_name(name)
    with tarfile.open(fileobj=io.BytesIO(good)) as tar:
        first = tar.getmembers()[0]
    header = tarfile.TarInfo("x")
    header.name = name
    data = raw_tar([(first, Taken.apart(good).members["manifest.json"])])[:-1024]
    blob = header.tobuf(tarfile.USTAR_FORMAT, "utf-8")
    error = refusal(data + blob + bytes(1024), tmp_path)
    assert error.code == "member_name_invalid" or (name == "ü" and error.code == "archive_damaged")


@pytest.mark.parametrize("name", ["a" * 201, "", ".", ".."])
def test_names_that_do_not_fit(name: str) -> None:
    assert not is_member_name(name)


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE,
     tarfile.CONTTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_SPARSE, tarfile.XHDTYPE, tarfile.XGLTYPE, b"Z"],
)  # fmt: skip
def test_links_devices_and_extensions(tmp_path: Path, good: bytes, kind: bytes) -> None:
    info = tarfile.TarInfo(f"{PLACE}/creds.json")
    info.type, info.linkname = kind, "/etc/shadow"
    end = good.index(b"SHA256SUMS\0")
    blob = good[:end] + info.tobuf(tarfile.USTAR_FORMAT) + good[end:]
    assert refusal(blob, tmp_path).code == "member_type_invalid"


def test_a_member_twice(tmp_path: Path, good: bytes) -> None:
    end = good.index(b"SHA256SUMS\0")
    again = raw_tar([(tarfile.TarInfo(f"{PLACE}/creds.json"), b"{}")])[:-1024]
    assert refusal(good[:end] + again + good[end:], tmp_path).code == "member_duplicate"


def test_sizes(tmp_path: Path, good: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    huge = tarfile.TarInfo("huge")
    huge.size = 2 << 30
    assert refusal(huge.tobuf(tarfile.USTAR_FORMAT), tmp_path).code == "archive_too_large"
    negative = tarfile.TarInfo("negative")
    negative.size = -(1 << 40)
    assert refusal(negative.tobuf(tarfile.GNU_FORMAT), tmp_path).code in (
        "archive_too_large",
        "not_an_archive",
    )
    monkeypatch.setattr(archive, "MAX_TOTAL", 4096)
    assert refusal(good, tmp_path).code == "archive_too_large"
    monkeypatch.undo()
    monkeypatch.setattr(archive, "MAX_MEMBERS", 5)
    assert refusal(good, tmp_path).code == "archive_too_large"


def test_a_zip_bomb(tmp_path: Path) -> None:
    bomb = gzip.compress(bytes(64 << 20), 9)
    assert len(bomb) < 100_000
    error = refusal(bomb, tmp_path)
    assert error.code == "archive_too_large"
    assert "no backup" in error.detail


def test_something_behind_the_end(tmp_path: Path, good: bytes) -> None:
    assert refusal(good + b"x", tmp_path).code == "archive_damaged"
    assert refusal(gzip.compress(good) + b"x", tmp_path).code == "archive_damaged"
    assert refusal(gzip.compress(good) * 2, tmp_path).code == "archive_damaged"
    with opened(good + bytes(512 * 17), tmp_path) as found:  # as tar fills up its records
        assert found.manifest.sessions


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b'{"id":"a","version":1,"value":%b}\n' % (b"[" * 100_000 + b"]" * 100_000), "json_invalid"),
        (b'{"id":"a","version":1,"value":%b}\n' % (b"[" * 70 + b"]" * 70), "json_too_deep"),
        (b'{"id":"a","version":1,"value":%b}\n' % (b'{"[":' * 70 + b"1" + b"}" * 70), "json_too_deep"),
        (b'{"id":"a","version":1,"value":"\xff"}\n', "json_invalid"),
        (b'{"id":"a","version":-1,"value":1}\n', "json_invalid"),
        (b'{"id":"a","version":1e400,"value":1}\n', "json_invalid"),
        (b'{"id":1,"version":1,"value":1}\n', "json_invalid"),
        (b'{"id":"a","version":1}\n', "json_invalid"),
        (b"\n", "json_invalid"),
        (b'{"id":"a","version":1,"value":1}', "json_invalid"),
        (b'{"id":"a","version":1,"value":' + b'"\\"' * 10_000, "json_invalid"),
    ],
)
def test_hostile_lines(tmp_path: Path, good: bytes, line: bytes, code: str) -> None:
    parts = Taken.apart(good)
    parts.members[f"{PLACE}/items/x-new.jsonl"] = line
    assert refusal(parts.together(), tmp_path, read=True).code == code
    if b"value" in line and code == "json_too_deep":
        parts = Taken.apart(good)
        parts.members[f"{PLACE}/outbox.jsonl"] = line
        assert refusal(parts.together(), tmp_path, read=True).code == code


@pytest.mark.parametrize(
    "change",
    [
        {"secret": b64(bytes(31))},
        {"secret": b64(bytes(33))},
        {"secret": "not base64"},
        {"secret": None},
        {"chat": ""},
        {"sender": "x" * 257},
        {"message_id": "x" * 256},
        {"wire_sender": 5},
        {"message_ts": -1},
        {"message_ts": 2**60},
        {"expires_at": "never"},
    ],
)
def test_secrets_of_messages_have_limits(tmp_path: Path, good: bytes, change: dict[str, Any]) -> None:
    row = {
        "chat": "c", "sender": "s", "message_id": "1", "wire_sender": "w", "secret": b64(b"Z" * 32), "message_ts": 1,
        "expires_at": None,
    }  # fmt: skip
    parts = Taken.apart(good)
    name = f"{PLACE}/secrets.jsonl"
    parts.members[name] = json.dumps(row).encode() + b"\n"
    with opened(parts.together(), tmp_path) as found:
        assert found.check_rows(SESSION_ID)["secrets.jsonl"] == 1
    parts.members[name] = json.dumps(row | change).encode() + b"\n"
    with opened(parts.together(), tmp_path) as found:
        with pytest.raises(ArchiveError) as refusal:
            found.check_rows(SESSION_ID)
        assert (refusal.value.code, refusal.value.item) == ("json_invalid", name)
        assert b64(b"Z" * 32) not in str(refusal.value)


def test_brackets_in_texts_are_no_depth(tmp_path: Path) -> None:
    state = SAMPLE.with_items({("x-new", "a"): json.dumps(["[{" * 100 + '"\\']).encode()})
    with opened(archive_of(content_of(state), tmp_path), tmp_path) as found:
        assert len(found.session(SESSION_ID).items) == len(state.items)


def test_a_line_without_end(tmp_path: Path, good: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = Taken.apart(good)
    parts.members[f"{PLACE}/items/x-new.jsonl"] = b'{"id":"a","value":"' + b"a" * 50_000 + b'","version":1}\n'
    data = parts.together()
    monkeypatch.setattr(archive, "MAX_LINE", 20_000)
    assert refusal(data, tmp_path, read=True).code == "line_too_long"


@pytest.mark.parametrize(
    "row", [{"id": 3}, {"name": "x"}, {}, {"id": SESSION_ID, "name": "alerts", "current_status": "odd"}]
)
def test_a_row_that_is_none(tmp_path: Path, good: bytes, row: dict[str, Any]) -> None:
    parts = Taken.apart(good)
    parts.members[f"{PLACE}/session.json"] = json.dumps({"row": row, "creds_version": 3}).encode()
    assert refusal(parts.together(), tmp_path, read=True).code == "session_invalid"


# ---------------------------------------------------------------------------------------------------------- encrypted


def test_sealed_and_opened(tmp_path: Path) -> None:
    mine, other = (pyrage.x25519.Identity.generate() for _ in range(2))
    seal = Recipients([str(mine.to_public())]).encrypt
    data = archive_of(content_of(SAMPLE.state), tmp_path, seal=seal, compress=True)
    report = Report()
    with opened(data, tmp_path, Identities([str(mine)]), report) as found:
        assert found.encrypted
        assert len(found.session(SESSION_ID).items) == len(SAMPLE.state.items)
        assert found.sha256 == sha256(data).hexdigest()
    assert report.notes == []
    error = refusal(data, tmp_path, Identities([str(other)]))
    assert (error.code, error.cannot_check) == ("wrong_key", True)
    assert refusal(data, tmp_path).code == "key_needed"
    for length in (30, 100, 300, len(data) // 2, len(data) - 1):
        assert refusal(data[:length], tmp_path, Identities([str(mine)])).code == "archive_truncated"
    middle = bytearray(data)
    middle[len(data) // 2] ^= 1
    assert refusal(bytes(middle), tmp_path, Identities([str(mine)])).code in (
        "archive_damaged",
        "archive_truncated",
    )


def test_an_encrypted_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = pyrage.x25519.Identity.generate()
    data = pyrage.encrypt(bytes(1 << 20), [mine.to_public()])
    monkeypatch.setattr(archive, "MAX_TOTAL", 100_000)
    assert refusal(data, tmp_path, Identities([str(mine)])).code == "archive_too_large"


def test_what_a_file_fails_with_comes_out(tmp_path: Path) -> None:
    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            raise OSError(28, "No space left on device")

    mine = pyrage.x25519.Identity.generate()
    for seal in (None, Recipients([str(mine.to_public())]).encrypt):
        with pytest.raises(OSError) as failed:
            archive_writing.write_archive(Full(), [content_of(SAMPLE.state)], ABOUT, tmp_path, seal=seal)
        assert failed.value.errno == 28
    lying = content_of(SAMPLE.state, checksum=bytes(32))
    with pytest.raises(ArchiveError, match="checksum_mismatch"):
        archive_of(lying, tmp_path, seal=Recipients([str(mine.to_public())]).encrypt)


def test_a_few_bytes_of_an_age_file_are_a_cut(tmp_path: Path) -> None:
    for length in (1, 10, 20):
        assert (
            refusal(b"age-encryption.org/v1\n"[:length], tmp_path, KEY_OF_NOBODY).code == "archive_truncated"
        )


KEY_OF_NOBODY = Identities([str(pyrage.x25519.Identity.generate())])


def test_memory_does_not_grow_with_the_archive(tmp_path: Path) -> None:
    mine = pyrage.x25519.Identity.generate()
    rows = ({"n": number, "text": "x" * 10_000} for number in range(3000))
    path = tmp_path / "large"
    tracemalloc.start()
    try:
        with path.open("w+b") as file:
            content = content_of(SAMPLE.state, history={"messages": rows})
            seal = Recipients([str(mine.to_public())]).encrypt
            archive_writing.write_archive(file, [content], ABOUT, tmp_path, seal=seal)
            file.seek(0)
            with open_archive(file, tmp_path, Identities([str(mine)]), Report()) as found:
                counts = found.check_rows(SESSION_ID)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert counts["history/messages-0001.jsonl"] == 3000
    assert path.stat().st_size > 30_000_000
    assert peak < 4_000_000
