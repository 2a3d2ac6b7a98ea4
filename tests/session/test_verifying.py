"""What the store and WhatsApp say about an auth state: levels 3 and 4, as pure judgements."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from tests.messaging.accounts import OWN_LID, OWN_PN
from tests.session.fakes import session_row
from tests.transfer.samples import NOW, a_sample
from waD.link.devices import DeviceAnswer
from waD.link.digest import ServerKeys
from waD.link.usync import DevicesAnswer, ListedDevice
from waD.messaging import kinds
from waD.session.verifying import StoreFacts, check_store, judge_devices, judge_live
from waD.store.engine import Comparison
from waD.store.model import SealInfo
from waD.transfer.state import AuthState, Report

HOUR = 3_600_000
DAY = 24 * HOUR
SAMPLE = a_sample()
STATE = SAMPLE.state
ALL_WELL = ServerKeys(
    registration=True, identity=True, signed_prekey=True, listed=800, missing=0, hash_equal=True
)


def facts(**more: Any) -> StoreFacts:
    known: dict[str, Any] = {
        "row": session_row(auth_epoch=2),
        "comparison": Comparison(phase="cut_over", compared=False),
        "seals": [],
        "backup_ms": NOW - HOUR,
        "now_ms": NOW,
    }
    return StoreFacts(**(known | more))


def found(state: AuthState = STATE, **more: Any) -> list[tuple[str, str, str]]:
    report = Report()
    check_store(facts(**more), state, report)
    return [(note.severity, note.code, note.item) for note in report.notes]


def live(**changes: Any) -> list[tuple[str, str]]:
    report = Report()
    judge_live(replace(ALL_WELL, **changes), report)
    return [(note.severity, note.code) for note in report.notes]


def test_all_is_well() -> None:
    assert found() == []
    assert live() == []


@pytest.mark.parametrize(
    ("field", "code"),
    [
        ("missing", "legacy_missing_in_snapshot"),
        ("different", "legacy_different"),
        ("extra", "legacy_rows_missing"),
    ],
)
def test_the_two_representations(field: str, code: str) -> None:
    told: dict[str, Any] = {field: {"session": 2, "prekey": 1}}
    for phase in ("snapshot_primary", "dual_write"):
        comparison = Comparison(phase=phase, compared=True, **told)
        expected = [("error", code, "prekey"), ("error", code, "session")]
        if (phase, field) == ("dual_write", "missing"):  # the snapshot is still being filled
            expected = []
        assert found(comparison=comparison) == expected


def test_the_age_of_the_last_backup() -> None:
    assert found(backup_ms=None) == [("warning", "no_backup", "")]
    assert found(backup_ms=NOW - 26 * HOUR) == []
    assert found(backup_ms=NOW - 27 * HOUR) == [("warning", "backup_old", "")]


def test_the_age_of_the_newest_seal() -> None:
    """Of this epoch, and only while there is something to seal."""
    old = SealInfo(epoch=2, version=9, reason="periodic", sealed_at=NOW - 3 * DAY, item_count=1)
    earlier = msgspec.structs.replace(old, epoch=1)
    row = session_row(auth_epoch=2, auth_version=10)
    assert found(seals=[old], row=row) == [("warning", "seal_old", "")]
    assert found(seals=[msgspec.structs.replace(old, version=10)], row=row) == []
    assert found(seals=[earlier], row=row) == []
    assert found(seals=[old], row=msgspec.structs.replace(row, desired_state="down")) == []


def test_the_age_of_the_signed_prekey() -> None:
    assert found(now_ms=NOW + 40 * DAY, backup_ms=NOW + 40 * DAY) == [
        ("warning", "signed_prekey_old", "creds")
    ]


def test_the_stock_of_prekeys() -> None:
    few = SAMPLE.with_items({(kinds.PREKEY, "1"): None, (kinds.PREKEY, "2"): b"{}"})
    assert found(few) == [("warning", "prekeys_low", kinds.PREKEY)]


@pytest.mark.parametrize(
    ("changes", "notes"),
    [
        ({"identity": False}, [("error", "live_identity_mismatch")]),
        ({"registration": False}, [("error", "live_identity_mismatch")]),
        ({"signed_prekey": False, "hash_equal": False}, [("warning", "live_signed_prekey_mismatch")]),
        ({"missing": 3, "hash_equal": None}, [("warning", "live_prekeys_missing")]),
        ({"hash_equal": False}, [("warning", "live_hash_mismatch")]),
        ({"hash_equal": None}, []),
        ({"listed": 4}, [("warning", "live_prekeys_low")]),
    ],
)
def test_what_whatsapp_has(changes: dict[str, Any], notes: list[tuple[str, str]]) -> None:
    assert live(**changes) == notes


ME = OWN_PN.account.with_device(7)
LISTED = DevicesAnswer(devices=(ListedDevice(0), ListedDevice(7, 1)))


@pytest.mark.parametrize(
    ("answer", "notes"),
    [
        (DeviceAnswer(ME.account, LISTED), []),
        (DeviceAnswer(ME.account, LISTED, OWN_LID.account), []),
        (DeviceAnswer(ME.account, DevicesAnswer()), [("error", "live_device_missing")]),
        (DeviceAnswer(ME.account, LISTED, ME.account), [("error", "live_lid_mismatch")]),
        (DeviceAnswer(ME.account, None), [("warning", "live_unknown")]),
    ],
)
def test_the_devices_of_the_account(answer: DeviceAnswer, notes: list[tuple[str, str]]) -> None:
    report = Report()
    judge_devices(answer, ME, OWN_LID, report)
    assert [(note.severity, note.code) for note in report.notes] == notes


def test_whatsapp_has_nothing() -> None:
    report = Report()
    judge_live(None, report)
    assert [note.code for note in report.errors] == ["live_no_bundle"]
