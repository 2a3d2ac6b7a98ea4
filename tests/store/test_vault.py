"""Encryption at rest: every item is bound to its place, and keys that are not here are said to be missing."""

from __future__ import annotations

import base64
import json
import traceback
import uuid
from collections.abc import Callable

import msgspec
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from waD.store.errors import KekUnavailable, StoreDamaged
from waD.store.vault import CACHED, CLEAR, Cipher, Vault

ONE, TWO = str(uuid.UUID(int=1)), str(uuid.UUID(int=2))
KEK, OTHER = b"K" * 32, b"O" * 32
SECRET = b'{"priv":"SECRETSECRET"}'


def vault(**keks: bytes) -> Vault:
    return Vault(keks or {"main": KEK}, next(iter(keks), "main"))


def new(session: str = ONE, epoch: int = 1, safe: Vault | None = None) -> Cipher:
    cipher = (safe or vault()).new(session, epoch)
    assert cipher is not None
    return cipher


@given(st.text(), st.integers(0, 2**63 - 1), st.binary())
def test_what_was_closed_is_opened(key: str, version: int, document: bytes) -> None:
    cipher = new()
    closed = cipher.close("session", key, version, document)
    assert json.loads(closed).keys() == {"$wad", "n", "c"}
    assert msgspec.json.encode(msgspec.json.decode(closed), order="sorted") == closed
    assert cipher.open("session", key, version, closed) == document
    assert cipher.close("session", key, version, document) != closed
    blob = cipher.close_blob("retry:A", document)
    assert cipher.open_blob("retry:A", blob) == document


@pytest.mark.parametrize(
    "place", [("session", "3.0", 5), ("prekey", "2.0", 5), ("session", "2.0", 4), ("creds", "", 5)]
)
def test_an_item_is_bound_to_its_place(place: tuple[str, str, int]) -> None:
    cipher = new()
    closed = cipher.close("session", "2.0", 5, SECRET)
    with pytest.raises(StoreDamaged, match="belong"):
        cipher.open(*place, closed)


def test_an_item_is_bound_to_its_session_even_under_one_key() -> None:
    dek = bytes(32)
    ours, theirs = (Cipher(name, dek, b"", "main", bytes) for name in (ONE, TWO))
    with pytest.raises(StoreDamaged):
        theirs.open("session", "2.0", 1, ours.close("session", "2.0", 1, SECRET))
    with pytest.raises(StoreDamaged):
        theirs.open_blob("retry:A", ours.close_blob("retry:A", SECRET))
    with pytest.raises(StoreDamaged):
        ours.open_blob("retry:B", ours.close_blob("retry:A", SECRET))


def test_the_forms_are_those_of_the_chapter() -> None:
    made = iter([b"D" * 32, b"w" * 12, b"n" * 12])
    cipher = Vault({"k": KEK}, "k", lambda _: next(made)).new(ONE, 3)
    assert cipher is not None
    aad = b"wad-dek-1" + uuid.UUID(ONE).bytes + (3).to_bytes(4, "big")
    assert cipher.wrapped == b"w" * 12 + AESGCM(KEK).encrypt(b"w" * 12, b"D" * 32, aad)
    box = json.loads(cipher.close("session", "2.0", 9, SECRET))
    assert (box["$wad"], base64.b64decode(box["n"])) == (1, b"n" * 12)
    key = HKDF(hashes.SHA256(), 32, salt=None, info=b"wad item enc").derive(b"D" * 32)
    place = b"wad-item-1\0\0\0\0\7session\0\0\0\0032.0" + (9).to_bytes(8, "big") + uuid.UUID(ONE).bytes
    assert AESGCM(key).decrypt(b"n" * 12, base64.b64decode(box["c"]), place) == SECRET
    assert cipher.mac_key == HKDF(hashes.SHA256(), 32, salt=None, info=b"wad item mac").derive(b"D" * 32)


@given(st.data())
def test_any_changed_bit_is_noticed(data: st.DataObject) -> None:
    cipher = new()
    closed = bytearray(cipher.close("session", "2.0", 5, SECRET))
    at = data.draw(st.integers(0, len(closed) - 1))
    closed[at] ^= 1 << data.draw(st.integers(0, 7))
    try:
        opened = cipher.open("session", "2.0", 5, bytes(closed))
    except StoreDamaged:
        return
    assert opened == SECRET  # a bit of base64 that means nothing


@given(st.binary(max_size=80))
def test_an_item_that_should_be_encrypted_and_is_not_is_damage(stored: bytes) -> None:
    with pytest.raises(StoreDamaged):
        new().open("session", "2.0", 5, stored)
    with pytest.raises(StoreDamaged):
        new().open_blob("retry:A", stored)


def test_a_clear_document_is_not_taken_for_an_encrypted_one() -> None:
    cipher = new()
    for stored in (
        SECRET,
        b"null",
        b"{}",
        b'{"$wad":2,"n":"AAAAAAAAAAAAAAAA","c":""}',
        b'{"$wad":1,"n":"AAAA","c":""}',
    ):
        with pytest.raises(StoreDamaged):
            cipher.open("outbox", "A1", 0, stored)


@pytest.mark.parametrize("kind", sorted(CLEAR))
def test_kinds_without_secrets_stay_readable(kind: str) -> None:
    cipher = new()
    assert cipher.close(kind, "key", 1, b'{"$wad":1}') == b'{"$wad":1}'
    assert cipher.open(kind, "key", 1, b'{"$wad":1}') == b'{"$wad":1}'


def test_nothing_else_is_clear() -> None:
    assert {
        "lid-of-pn", "pn-of-lid", "device-list", "identity", "app-state-version", "sender-key-memory"
    } == CLEAR  # fmt: skip


# Keys.


def test_a_stored_key_is_opened_in_its_place_only() -> None:
    wrapped = new().wrapped
    for at in ((TWO, 1), (ONE, 2)):
        with pytest.raises(KekUnavailable, match="not the one"):
            vault().cipher(*at, wrapped, "main")


def test_a_key_that_is_known_already_is_bound_to_its_place_all_the_same() -> None:
    safe = vault(main=KEK, second=OTHER)
    wrapped = new(safe=safe).wrapped
    assert safe.cipher(ONE, 1, wrapped, "main") is safe.cipher(ONE, 1, wrapped, "main")
    for session, epoch, kek in ((TWO, 1, "main"), (ONE, 2, "main"), (ONE, 1, "second"), (ONE, 1, "third")):
        with pytest.raises(KekUnavailable):
            safe.cipher(session, epoch, wrapped, kek)


@pytest.mark.parametrize(
    "damage", [lambda w: w[:-1], lambda w: b"", lambda w: w[:12], lambda w: w[:-1] + b"\0"]
)
def test_a_damaged_key(damage: Callable[[bytes], bytes]) -> None:
    with pytest.raises(KekUnavailable):
        vault().cipher(ONE, 1, damage(new().wrapped), "main")


def test_a_missing_and_a_wrong_key() -> None:
    wrapped = new().wrapped
    with pytest.raises(KekUnavailable, match=r"'main'.*not here.*wad-kek"):
        Vault({}, None).cipher(ONE, 1, wrapped, "main")
    with pytest.raises(KekUnavailable, match="not the one"):
        vault(main=OTHER).cipher(ONE, 1, wrapped, "main")
    with pytest.raises(KekUnavailable):
        Vault({}, "main").new(ONE, 1)
    assert Vault({"main": KEK}, None).new(ONE, 1) is None


def test_keys_of_sessions_and_epochs_differ() -> None:
    safe = vault()
    macs = {new(session, epoch, safe).mac_key for session in (ONE, TWO) for epoch in (1, 2)}
    assert len(macs) == 4


def test_rewrapping_keeps_the_key() -> None:
    safe = vault(main=KEK, second=OTHER)
    old = new(safe=safe)
    closed = old.close("session", "2.0", 1, SECRET)
    fresh = safe.rewrap(ONE, 1, old.wrapped, "main", "second")
    assert (fresh.kek_id, fresh.mac_key) == ("second", old.mac_key)
    assert fresh.wrapped != old.wrapped
    later = vault(second=OTHER).cipher(ONE, 1, fresh.wrapped, "second")
    assert later.open("session", "2.0", 1, closed) == SECRET
    with pytest.raises(KekUnavailable):
        safe.rewrap(ONE, 1, old.wrapped, "main", "third")
    with pytest.raises(KekUnavailable):
        safe.rewrap(ONE, 1, fresh.wrapped, "main", "second")


def test_another_key_can_be_added() -> None:
    safe = Vault({}, None)
    safe.add("main", KEK)
    safe.current = "main"
    assert safe.ids == ["main"]
    assert safe.cipher(ONE, 1, new().wrapped, "main").kek_id == "main"


def test_the_number_of_known_keys_is_bounded() -> None:
    safe = vault()
    first = new(epoch=0, safe=safe)
    for epoch in range(1, CACHED + 10):
        new(epoch=epoch, safe=safe)
    assert len(safe._ciphers) == CACHED
    assert safe.cipher(ONE, 0, first.wrapped, "main").mac_key == first.mac_key


def test_nothing_shows_a_secret() -> None:
    safe = Vault({"main": KEK}, "main", lambda size: b"\x5a" * size)
    cipher = new(safe=safe)
    shown = [repr(safe), repr(cipher), str(safe), str(cipher)]
    closed = cipher.close("session", "2.0", 1, SECRET)
    blob = cipher.close_blob("retry:A", SECRET)
    for use in (
        lambda: cipher.open("session", "2.0", 2, closed),
        lambda: cipher.open("session", "2.0", 2, SECRET),
        lambda: cipher.open_blob("retry:B", blob),
        lambda: vault(main=OTHER).cipher(ONE, 1, cipher.wrapped, "main"),
        lambda: Vault({}, None).cipher(ONE, 1, cipher.wrapped, "main"),
    ):
        with pytest.raises((StoreDamaged, KekUnavailable)) as caught:
            use()
        shown.append("".join(traceback.format_exception(caught.value)))
    for secret in (KEK, OTHER, SECRET, b"\x5a" * 32, cipher.mac_key):
        for form in (repr(secret)[2:-1], secret.hex(), base64.b64encode(secret).decode(), "SECRETSECRET"):
            lines = [line for text in shown for line in text.splitlines() if not line.startswith("    ")]
            assert not any(form in line for line in lines)
