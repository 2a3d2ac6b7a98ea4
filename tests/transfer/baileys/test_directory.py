from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.transfer.baileys import samples
from waD.transfer.baileys import BaileysItems, SourceRefused, directory, read_directory

HOUR_MS = 3_600_000


def read(path: Path, *, stopped: bool = True, now_ms: int = samples.NOW_MS) -> BaileysItems:
    return read_directory(path, now_ms=now_ms, stopped=stopped)


def refused(path: Path, **how: Any) -> SourceRefused:
    with pytest.raises(SourceRefused) as refusal:
        read(path, **how)
    return refusal.value


def codes(items: BaileysItems) -> dict[str, str]:
    return {note.item: note.code for note in items.notes}


@pytest.fixture
def account(tmp_path: Path) -> Path:
    path = tmp_path / "auth"
    path.mkdir()
    return samples.write(path, samples.files())


def last_change_ms(path: Path) -> int:
    times = [path.stat().st_mtime_ns, *(entry.stat().st_mtime_ns for entry in path.iterdir())]
    return max(times) // 1_000_000


def test_every_file_becomes_an_item(account: Path) -> None:
    items = read(account)
    assert items.notes == ()
    assert len(items.items) == len(samples.files()) - 1
    assert isinstance(items.creds, dict)
    assert items.items["app-state-sync-key", "AAD/777/"]
    assert items.items["lid-mapping", "5511900000041"] == "100000000000041"
    assert items.items["tctoken", "__index"]
    assert set(items.times) == set(items.items)
    assert not items.keeps_deleted
    assert "noiseKey" not in repr(items)


def test_the_directory_may_be_a_link(account: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(account)
    assert read(tmp_path / "link").items == read(account).items


def test_other_programs_files_are_ignored_and_strange_ones_told(account: Path) -> None:
    ignored = (
        ".waha.session.config.json", "store.sqlite3", "store.sqlite3-wal", "session-1.0.json.tmp",
    )  # fmt: skip
    for name in ignored:
        (account / name).write_text("{")
    (account / "session-1.5.json").mkdir()
    (account / "mystery-1.json").write_text("{}")
    (account / "README").write_text("")
    items = read(account)
    assert codes(items) == {"mystery-1": "unknown_item", "README": "unknown_item"}
    assert len(items.items) == len(samples.files()) - 1


def test_files_of_evolutions_file_server_have_no_suffix(account: Path) -> None:
    wanted = read(account)
    (account / "creds").write_text("damaged")
    assert read(account).creds == wanted.creds
    for path in [*account.iterdir()]:
        path.rename(path.with_name(path.name.removesuffix(".json")))
    found = read(account)
    assert (found.creds, dict(found.items), found.notes) == (wanted.creds, dict(wanted.items), ())


def test_names_that_no_terminal_can_show_are_told_safely(account: Path) -> None:
    os.symlink("creds.json", os.fsencode(account) + b"/\xff\x1b.json")
    (note,) = read(account).notes
    assert note.code == "unknown_item"
    assert note.item.isascii()
    json.dumps(note.item)


@pytest.mark.parametrize(
    "content", ["", "  ", "{", '{"_sessions":', "\x00", "nope", "[" * 100_000, "1" * 5000]
)
def test_unreadable_items_are_dropped(account: Path, content: str) -> None:
    (account / "session-1.0.json").write_text(content)
    assert codes(read(account)) == {"session-1.0": "item_unreadable"}
    (account / "session-1.0.json").write_bytes(b"\xff\xfe\xff")
    assert codes(read(account)) == {"session-1.0": "item_unreadable"}


def test_null_means_deleted(account: Path) -> None:
    (account / "session-1.0.json").write_text("null")
    items = read(account)
    assert items.notes == ()
    assert ("session", "1.0") not in items.items


@pytest.mark.parametrize("content", ["", '{"noiseKey":', "7", "[]", '"text"', None])
def test_unreadable_credentials_are_an_error(account: Path, content: str | None) -> None:
    (account / "creds.json").unlink()
    if content is not None:
        (account / "creds.json").write_text(content)
    items = read(account)
    assert items.creds is None
    assert [(note.severity, note.code) for note in items.notes] == [("error", "creds_unreadable")]


def test_too_large_a_file_is_not_read(account: Path) -> None:
    with (account / "session-1.0.json").open("wb") as file:
        file.truncate(directory.MAX_VALUE + 1)
    assert codes(read(account)) == {"session-1.0": "item_unreadable"}


def test_too_many_bytes_or_files(account: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("waD.transfer.baileys.source.MAX_TOTAL_SIZE", 1000)
    assert refused(account).code == "source_too_large"
    monkeypatch.undo()
    monkeypatch.setattr(directory, "MAX_ITEMS", 5)
    assert refused(account).code == "source_too_large"


def test_nothing_is_followed_out_of_the_directory(account: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.json"
    outside.write_text((account / "session-100000000000042_1.0.json").read_text())
    (account / "session-1.0.json").symlink_to(outside)
    (account / "session-2.0.json").symlink_to("../outside.json")
    (account / "session-3.0.json").symlink_to("session-100000000000042_1.0.json")
    (account / "session-4.0.json").symlink_to("/nowhere")
    (account / "session-5.0.json").symlink_to("session-5.0.json")
    os.mkfifo(account / "session-6.0.json")
    items = read(account)
    assert codes(items) == {"session-1.0": "item_unreadable", "session-2.0": "item_unreadable"}
    assert items.items["session", "3.0"] == items.items["session", "100000000000042_1.0"]


def test_credentials_that_are_a_link_out_are_not_taken(account: Path, tmp_path: Path) -> None:
    (account / "creds.json").rename(tmp_path / "creds.json")
    (account / "creds.json").symlink_to(tmp_path / "creds.json")
    assert codes(read(account)) == {"creds": "creds_unreadable"}


def test_a_name_that_became_a_link_after_the_look_is_not_followed(
    account: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = account / "session-100000000000042_1.0.json"
    opened = os.open

    def swap(path: Any, *arguments: Any, **named: Any) -> int:
        if Path(path) == victim and not victim.is_symlink():
            victim.unlink()
            victim.symlink_to("/etc/hostname")
        return opened(path, *arguments, **named)

    monkeypatch.setattr(os, "open", swap)
    assert refused(account).code == "source_changed"


# A directory in use


def test_a_directory_that_changed_lately_is_in_use(account: Path) -> None:
    changed = last_change_ms(account)
    refusal = refused(account, stopped=False, now_ms=changed + 59_000)
    assert refusal.code == "source_running"
    assert "--i-stopped-it" in str(refusal)
    assert refused(account, stopped=False, now_ms=changed - HOUR_MS).code == "source_running"
    assert read(account, stopped=False, now_ms=changed + 61_000).creds is not None
    assert read(account, stopped=True, now_ms=changed).creds is not None


def test_files_that_are_no_items_show_use_as_well(account: Path) -> None:
    later = last_change_ms(account) + HOUR_MS
    (account / "store.sqlite3-wal").write_text("")
    os.utime(account / "store.sqlite3-wal", ns=(0, later * 1_000_000))
    assert refused(account, stopped=False, now_ms=later + 1000).code == "source_running"


def _rewrite(account: Path) -> None:
    (account / "session-100000000000042_1.0.json").write_text("{}")


def _touch(account: Path) -> None:
    os.utime(account / "creds.json", ns=(0, 1))


def _add(account: Path) -> None:
    (account / "pre-key-99.json").write_text("{}")


def _remove(account: Path) -> None:
    (account / "pre-key-1.json").unlink()


def _replace(account: Path) -> None:
    """As a program does that writes well: another file of the same length and time."""
    old = account / "pre-key-1.json"
    status = old.stat()
    new = account.parent / "new"
    new.write_text(old.read_text())
    os.utime(new, ns=(status.st_atime_ns, status.st_mtime_ns))
    new.rename(old)


@pytest.mark.parametrize("change", [_rewrite, _touch, _add, _remove, _replace])
def test_any_change_while_reading_ends_it(
    account: Path, monkeypatch: pytest.MonkeyPatch, change: Any
) -> None:
    original = directory.decode_text
    waiting = [change]

    def decode(data: bytes) -> Any:
        if waiting:
            waiting.pop()(account)
        return original(data)

    monkeypatch.setattr(directory, "decode_text", decode)
    assert refused(account).code == "source_changed"


# What is no such directory


def test_no_directory(tmp_path: Path, account: Path) -> None:
    assert refused(tmp_path / "missing").code == "source_missing"
    refusal = refused(account / "creds.json")
    assert (refusal.code, "not a directory" in refusal.detail) == ("not_baileys", True)


def test_a_directory_above_or_beside(tmp_path: Path, account: Path) -> None:
    refusal = refused(tmp_path)
    assert refusal.code == "not_baileys"
    assert "auth" in refusal.detail
    (tmp_path / "empty").mkdir()
    assert "name the directory that holds it" in refused(tmp_path / "empty").detail


@pytest.fixture
def unprivileged() -> Iterator[None]:
    """Root reads everything, so the tests of permissions run as somebody else where they can."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_directory_without_permission(tmp_path: Path, account: Path, unprivileged: None) -> None:
    if os.getuid() == 0:
        os.seteuid(0)
        account.chmod(0o700)
        for parent in (tmp_path, *tmp_path.parents[:3]):
            parent.chmod(0o755)
        os.seteuid(65534)
    else:
        account.chmod(0)
    refusal = refused(account)
    assert (refusal.code, "Permission denied" in refusal.detail) == ("source_unreachable", True)


def test_files_without_permission(tmp_path: Path, account: Path, unprivileged: None) -> None:
    secret = account / "pre-key-1.json"
    if os.getuid() == 0:
        os.seteuid(0)
        for parent in (account, tmp_path, *tmp_path.parents[:3]):
            parent.chmod(0o755)
        for entry in account.iterdir():
            entry.chmod(0o644)
        secret.chmod(0o600)
        os.seteuid(65534)
    else:
        secret.chmod(0)
    items = read(account)
    assert codes(items) == {"pre-key-1": "item_unreadable"}
    assert "Permission denied" in items.notes[0].detail


def test_nothing_in_the_source_changes(account: Path) -> None:
    before = {entry.name: (entry.read_bytes(), entry.stat().st_mtime_ns) for entry in account.iterdir()}
    read(account)
    assert before == {
        entry.name: (entry.read_bytes(), entry.stat().st_mtime_ns) for entry in account.iterdir()
    }
