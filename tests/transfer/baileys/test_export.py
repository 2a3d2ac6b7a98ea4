from __future__ import annotations

import base64
import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tests.transfer.baileys import samples
from waD.e2ee import skipped
from waD.e2ee.curve import KeyPair
from waD.e2ee.record import SessionRecord
from waD.e2ee.session import mark_stale
from waD.link.credentials import SignedPreKey
from waD.link.prekeys import OneTimePreKey
from waD.messaging import kinds
from waD.transfer.baileys import SourceRefused
from waD.transfer.baileys.export import baileys_files, write_directory
from waD.transfer.baileys.names import read_name
from waD.transfer.state import AuthState, Report

BOB = (kinds.SESSION, "100000000000042_1.0")


@pytest.fixture
def state(tmp_path: Path) -> AuthState:
    path = tmp_path / "origin"
    path.mkdir()
    return samples.converted(samples.read(path, samples.files()))[0]


def with_items(state: AuthState, items: dict[tuple[str, str], bytes], **creds: Any) -> AuthState:
    return AuthState(state.creds.change(**creds), dict(state.items) | items)


def found(report: Report) -> list[tuple[str, str]]:
    return [(note.code, note.item) for note in report.notes]


def fixed_random(count: int) -> bytes:
    return bytes(range(count))


def test_files_are_those_of_baileys(state: AuthState, tmp_path: Path) -> None:
    report = write_directory(state, tmp_path / "out")
    assert report.notes == []
    names = {path.name for path in (tmp_path / "out").iterdir()}
    there = set(samples.files()) - {"tctoken-__index.json"}
    assert names == {name for name in there if not name.startswith("device-list-")}
    for name in names - {"creds.json"}:
        read_name(name.removesuffix(".json"))
        ours = json.loads((tmp_path / "out" / name).read_text())
        theirs = json.loads(samples.files()[name])
        if not name.startswith(("session-", "app-state-sync-key")):
            assert ours == theirs, name


def test_credentials_are_those_of_baileys(state: AuthState) -> None:
    files, _ = baileys_files(state)
    assert [*files][-1] == "creds.json"
    ours, theirs = json.loads(files["creds.json"]), samples.creds()
    for name in (
        "noiseKey", "signedIdentityKey", "signedPreKey", "registrationId", "advSecretKey", "nextPreKeyId", "account",
        "me", "signalIdentities", "platform", "myAppStateKeyId", "lastPropHash", "routingInfo", "registered",
    ):  # fmt: skip
        assert ours[name] == theirs[name], name


def test_only_the_owner_can_read_it(state: AuthState, tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        write_directory(state, tmp_path / "out")
        (tmp_path / "empty").mkdir(mode=0o777)
        write_directory(state, tmp_path / "empty")
    finally:
        os.umask(mask)
    for directory in (tmp_path / "out", tmp_path / "empty"):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}


def refused(state: AuthState, path: Path) -> str:
    with pytest.raises(SourceRefused) as refusal:
        write_directory(state, path)
    return refusal.value.code


def test_nothing_is_overwritten(state: AuthState, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("kept")
    (tmp_path / "file").write_text("kept")
    assert refused(state, tmp_path / "full") == "target_not_empty"
    assert refused(state, tmp_path / "file") == "target_not_empty"
    assert refused(state, tmp_path / "file" / "below") == "target_unwritable"
    assert refused(state, tmp_path / "missing" / "below") == "target_unwritable"
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["x"]
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("calls", [0, 1, 7, 20])
@pytest.mark.parametrize("exists", [False, True])
def test_a_full_disk_leaves_nothing(
    state: AuthState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: int, exists: bool
) -> None:
    synced = os.fsync
    left = [calls]

    def fsync(descriptor: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        synced(descriptor)

    if exists:
        (tmp_path / "out").mkdir()
    monkeypatch.setattr(os, "fsync", fsync)
    assert refused(state, tmp_path / "out") == "target_unwritable"
    assert (tmp_path / "out").exists() is exists
    assert not exists or [*(tmp_path / "out").iterdir()] == []


def test_an_interrupted_export_leaves_nothing(
    state: AuthState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", stop)
    with pytest.raises(KeyboardInterrupt):
        write_directory(state, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_every_file_is_durable_before_it_has_its_name(
    state: AuthState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[str] = []
    synced, renamed = os.fsync, Path.rename
    monkeypatch.setattr(os, "fsync", lambda descriptor: (happened.append("sync"), synced(descriptor))[1])
    monkeypatch.setattr(
        Path, "rename", lambda path, target: (happened.append(Path(target).name), renamed(path, target))[1]
    )
    write_directory(state, tmp_path / "out")
    files = len([*(tmp_path / "out").iterdir()])
    assert happened[: 2 * files : 2] == ["sync"] * files
    assert happened[2 * files - 1 :] == ["creds.json", "sync", "sync"]


# What is lost


def test_what_baileys_has_no_place_for(state: AuthState) -> None:
    items = {
        (kinds.NUMBER_ALIAS, "55"): b'"56"',
        (kinds.RETRY, "a"): b"{}",
        (kinds.RETRY, "b"): b"{}",
        (kinds.IDENTITY, "no address"): b'"AA=="',
        (kinds.SESSION, "55.1"): b"{}",
        (kinds.SENDER_KEY, "1@g.us|x"): b"{}",
        (kinds.SENDER_KEY_MEMORY, f"{'1' * 60}-{'2' * 60}@g.us"): b"[]",
    }
    files, report = baileys_files(with_items(state, items))
    assert {name for name in files if not name.startswith("x-wad")} == set(files)
    assert sorted(found(report)) == [
        ("not_exported", "identity"), ("not_exported", "number-alias"), ("not_exported", "retry"),
        ("not_exported", "sender-key"), ("not_exported", "sender-key-memory"), ("not_exported", "session/55.1"),
    ]  # fmt: skip


def test_states_of_prekeys(state: AuthState) -> None:
    keys = [
        OneTimePreKey(90 + n, KeyPair.generate(fixed_random), name)
        for n, name in enumerate(("new", "direct", "stale"))
    ]  # type: ignore[arg-type]
    files, report = baileys_files(
        with_items(state, {(kinds.PREKEY, str(key.id)): key.serialize() for key in keys})
    )
    assert {"pre-key-90.json", "pre-key-91.json", "pre-key-92.json"} <= set(files)
    (note,) = report.notes
    assert (note.code, note.detail[:2]) == ("prekey_states_lost", "3 ")


def test_earlier_signed_prekeys_and_fields_of_the_credentials(state: AuthState) -> None:
    fresh = SignedPreKey.make(2, state.creds.identity, fixed_random)
    creds = state.creds.with_new_signed_prekey(fresh, 1)
    changed = with_items(
        state, {}, signed_prekeys=creds.signed_prekeys, nct_salt=b"salt", rotation_candidate=fresh
    )
    files, report = baileys_files(changed)
    assert json.loads(files["creds.json"])["signedPreKey"]["keyId"] == 2
    assert found(report) == [
        ("signed_prekeys_lost", "creds"),
        ("creds_field_dropped", "creds/nct_salt,rotation_candidate"),
    ]


def test_sessions_that_must_not_send_are_closed(state: AuthState) -> None:
    stale = mark_stale(SessionRecord.parse(state.items[BOB])).serialize()
    files, report = baileys_files(with_items(state, {BOB: stale}))
    entries = json.loads(files["session-100000000000042_1.0.json"])["_sessions"].values()
    assert all(entry["indexInfo"]["closed"] != -1 for entry in entries)
    assert found(report) == [("session_closed", "/".join(BOB))]


def test_skipped_keys_without_seed_are_counted(state: AuthState) -> None:
    record = SessionRecord.parse(state.items[BOB])
    assert record.current is not None
    (*rest, chain) = record.current.receivers
    packed = skipped.pack([(0, 1, bytes(80))])
    changed = replace(chain, next=chain.next + 1, triples=packed)
    current = replace(record.current, receivers=(*rest, changed))
    document = SessionRecord(current, record.archived, 1).serialize()
    _, report = baileys_files(with_items(state, {BOB: document}))
    assert found(report) == [("skipped_keys_lost", "/".join(BOB))]
    assert "1 keys" in report.notes[0].detail


# There and back


@pytest.mark.parametrize("name", samples.ALL)
def test_there_and_back(tmp_path: Path, name: str) -> None:
    (tmp_path / "origin").mkdir()
    first, _ = samples.converted(samples.read(tmp_path / "origin", samples.files(name)))
    write_directory(first, tmp_path / "out")
    again, report = samples.converted(samples.read(tmp_path / "out", {}))
    assert report.notes == []
    assert again.creds == first.creds
    assert again.items.keys() == first.items.keys()
    different = {key for key in first.items if first.items[key] != again.items[key]}
    assert {kind for kind, _ in different} <= {kinds.SESSION}
    for kind, key in different:
        before, after = (SessionRecord.parse(one.items[kind, key]) for one in (first, again))
        assert [chains(one) for one in before.states()] == [chains(one) for one in after.states()]


def chains(one: Any) -> list[Any]:
    """Everything of a session but the order of its old chains, which canonical JSON does not keep."""
    (*old, newest) = one.receivers or (None,)
    return [replace(one, receivers=()), {chain.ratchet: chain for chain in old}, newest]


def test_bytes_are_spelled_as_every_version_reads_them(tmp_path: Path) -> None:
    (tmp_path / "origin").mkdir()
    state, _ = samples.converted(samples.read(tmp_path / "origin", samples.files(samples.GROUPS)))
    files, _ = baileys_files(state)
    (name,) = [name for name in files if name.startswith("sender-key-") and "52_1" in name]
    value = json.loads(files[name])
    assert value["type"] == "Buffer"
    (inner,) = json.loads(base64.b64decode(value["data"]))
    assert isinstance(inner["senderChainKey"]["seed"]["data"], str)
