"""Collections of the app state whose entries are in tables: verified, restored, exported, kept as key-value rows."""

from __future__ import annotations

import os
from typing import Any

import msgspec
import pytest

from tests.transfer.samples import NOW, Items, Sample, a_sample
from waD.e2ee.syncd.lthash import EMPTY, lt_hash
from waD.messaging import kinds
from waD.messaging.appstate.stored import Entry, Head, Part, encode_part, index_text, part_key, part_of
from waD.session.repairs import advise
from waD.transfer.baileys.export import baileys_files
from waD.transfer.collections import plain
from waD.transfer.legacy.codec import LegacyCodec
from waD.transfer.reviving import revive
from waD.transfer.state import AuthState, Report
from waD.transfer.verify import verify

REGULAR = (kinds.APP_STATE_VERSION, "regular")


def tabled(macs: dict[bytes, bytes], number: int = 1, **more: Any) -> Items:
    """A collection of these entries as the syncing leaves it."""
    parts: dict[str, Part] = {}
    for index, mac in macs.items():
        parts.setdefault(part_of(index), {})[index_text(index)] = Entry(mac, "000000000007", b"data")
    fields = {"version": 9, "hash": lt_hash(macs.values()), "macs": {}, "table": number} | more
    items: Items = {REGULAR: Head(**fields).serialize()}
    for part, entries in parts.items():
        items[kinds.APP_STATE_ENTRIES, part_key("regular", number, part)] = encode_part(entries)
    return items


@pytest.fixture
def macs() -> dict[bytes, bytes]:
    return {os.urandom(32): os.urandom(32) for _ in range(20)}


@pytest.fixture
def sample() -> Sample:
    return a_sample()


def codes(state: AuthState) -> list[tuple[str, str]]:
    return [
        (note.code, note.item) for note in verify(state, NOW).notes if note.code.startswith(("app", "item"))
    ]


def test_a_table_sums_up_beside_one_of_before(sample: Sample, macs: dict[bytes, bytes]) -> None:
    before = {os.urandom(32): os.urandom(32) for _ in range(5)}
    items = {**tabled(before, 1), **tabled(macs, 2, leftover=True)}
    assert codes(sample.with_items(items)) == []
    gone = next(item for item in items if item[0] == kinds.APP_STATE_ENTRIES and "|2|" in item[1])
    assert codes(sample.with_items({**items, gone: encode_part({})})) == [
        ("app_state_hash_mismatch", "app-state-version/regular")
    ]


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"disabled": "patch-mac"}, "app_state_disabled"),
        ({"mismatch": True}, "app_state_mac_mismatch"),
        ({"blocked": ["000000000008"]}, "app_state_blocked"),
    ],
)
def test_what_is_wrong_with_one_is_told(
    sample: Sample, macs: dict[bytes, bytes], more: dict[str, Any], code: str
) -> None:
    state = sample.with_items(tabled(macs, **more))
    assert codes(state) == [(code, "app-state-version/regular")]
    advice, _ = advise(verify(state, NOW).notes)
    wanted = [] if code == "app_state_blocked" else [("resync", "regular")]
    assert [(one.action, one.target) for one in advice] == wanted


@pytest.mark.parametrize(
    ("key", "document"),
    [
        ("regular|1|00", b"[]"),
        ("regular|1|00", b"x"),
        ("regular|1|00", b'{"AAAA":["",null,null]}'),
        ("regular|0|00", b"{}"),
        ("regular|1|0", b"{}"),
        ("regular", b"{}"),
    ],
)
def test_parts_that_cannot_be_read(sample: Sample, key: str, document: bytes) -> None:
    item = (kinds.APP_STATE_ENTRIES, key)
    assert codes(sample.with_items({item: document})) == [("item_unreadable", f"app-state-entries/{key}")]


def test_a_restore_keeps_what_is_whole_and_begins_anew_what_is_not(
    sample: Sample, macs: dict[bytes, bytes]
) -> None:
    asked = (kinds.APP_STATE_REQUEST, "000000000009")
    whole = {**tabled(macs), asked: b'{"at":1,"devices":[],"refused":[]}'}
    kept = revive(sample.with_items(whole), NOW, os.urandom).items
    assert {item: kept[item] for item in tabled(macs)} == tabled(macs)
    assert asked not in kept
    report = Report()
    broken = {**tabled(macs), REGULAR: Head(version=9, hash=EMPTY, macs={}, table=1).serialize()}
    left = revive(sample.with_items(broken), NOW, os.urandom, report=report).items
    assert not [item for item in left if item == REGULAR or item[0] == kinds.APP_STATE_ENTRIES]
    assert [note.code for note in report.notes] == ["app_state_hash_mismatch"]


def test_baileys_gets_it_as_one_document(sample: Sample, macs: dict[bytes, bytes]) -> None:
    state = sample.with_items(tabled(macs, mismatch=True))
    files, report = baileys_files(state)
    written = msgspec.json.decode(files["app-state-sync-version-regular.json"])
    assert (written["version"], len(written["indexValueMap"])) == (9, 20)
    assert "app-state" not in str([note for note in report.notes if note.code == "not_exported"])
    assert plain(plain(state.items)) == plain(state.items)


def test_key_value_rows_keep_all_of_it_and_offer_baileys_none(macs: dict[bytes, bytes]) -> None:
    """A row without its entries would be worse than none: without one Baileys fetches the collection."""
    codec = LegacyCodec()
    rows = {}
    for (kind, key), document in tabled(macs).items():
        rows.update(codec.item_rows(kind, key, document))
    assert rows["app-state-sync-version", "regular"] is None
    there = {name: value for name, value in rows.items() if value is not None}
    for (kind, key), document in tabled(macs).items():
        own = {name: there[name] for name in codec.names(kind, key) if name in there}
        assert codec.item(kind, key, own) == document
        assert (kind, key) in {codec.native(name) for name in own}


def test_a_row_that_baileys_wrote_since_wins(macs: dict[bytes, bytes]) -> None:
    codec = LegacyCodec()
    rows = dict(codec.item_rows(*REGULAR, tabled(macs)[REGULAR]))
    theirs = Head(version=12, hash=lt_hash([]), macs={}).serialize()
    rows["app-state-sync-version", "regular"] = codec.item_rows(*REGULAR, theirs)[
        "app-state-sync-version", "regular"
    ]
    there = {name: value for name, value in rows.items() if value is not None}
    assert codec.item(*REGULAR, there) == theirs
