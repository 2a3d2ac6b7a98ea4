"""Encryption: other implementations of age read what is written here, and every failure has its code."""

from __future__ import annotations

import io
import os
from typing import Any

import pyrage
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from waD.transfer import age_header
from waD.transfer.age_header import MAGIC, WORK_FACTOR, Stanza
from waD.transfer.archive import ArchiveError
from waD.transfer.sealing import CHUNK, Identities, Key, Passphrase, Recipients, check_size

ME = pyrage.x25519.Identity.generate()
MINE = str(ME.to_public())
KEY = Identities([str(ME)])
SIZES = (0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK)


@pytest.fixture(autouse=True)
def little_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(age_header, "WORK_FACTOR", 10)


def sealed(plain: bytes, by: Recipients | Passphrase) -> bytes:
    out = io.BytesIO()
    by.encrypt(io.BytesIO(plain), out)
    return out.getvalue()


def opened(data: bytes, key: Key) -> bytes:
    out = io.BytesIO()
    key.decrypt(io.BytesIO(data), out)
    return out.getvalue()


def refusal(data: bytes, key: Key) -> ArchiveError:
    with pytest.raises(ArchiveError) as refused:
        opened(data, key)
    return refused.value


class Trickle(io.RawIOBase):
    """A file that gives little at a time, as a pipe does."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def read(self, size: int = -1, /) -> bytes:
        return self._file.read(min(size, 700))


# ------------------------------------------------------------------------------------------------------- recipients


@pytest.mark.parametrize("size", SIZES)
def test_recipients(size: int) -> None:
    plain = os.urandom(size)
    other = pyrage.x25519.Identity.generate()
    data = sealed(plain, Recipients([str(other.to_public()), MINE]))
    assert pyrage.decrypt(data, [ME]) == plain
    assert opened(data, KEY) == opened(data, Identities([str(other)])) == plain
    assert opened(pyrage.encrypt(plain, [ME.to_public()]), KEY) == plain
    out = io.BytesIO()
    KEY.decrypt(Trickle(data), out)
    assert out.getvalue() == plain
    check_size(age_header.parse(data), len(data))


@pytest.mark.parametrize(
    "text",
    ["", "age1", "age1xyz", MINE[:-1], MINE.upper() + "X", "ssh-ed25519 AAAA", "me@x"],
    ids=range(7),
)
def test_what_is_no_recipient(text: str) -> None:
    with pytest.raises(ArchiveError) as refused:
        Recipients([text])
    assert refused.value.code == "recipient_invalid"
    assert "age1" in refused.value.detail


def test_a_secret_key_as_recipient_is_not_repeated() -> None:
    with pytest.raises(ArchiveError, match="secret key") as refused:
        Recipients([str(ME)])
    assert str(ME) not in str(refused.value)
    for texts in ([], [MINE] * 65):
        with pytest.raises(ArchiveError, match="recipient_invalid"):
            Recipients(texts)


def test_secrets_have_no_repr() -> None:
    assert repr(KEY) == "Identities(1)"
    assert repr(Passphrase("correct horse")) == "Passphrase()"
    with pytest.raises(ArchiveError) as refused:
        Identities([str(ME)[:-1]])
    assert refused.value.code == "identity_unusable"
    assert str(ME)[:-1] not in str(refused.value)


# ------------------------------------------------------------------------------------------------------- passphrases


@pytest.mark.parametrize("size", SIZES)
def test_passphrases(size: int) -> None:
    plain = os.urandom(size)
    data = sealed(plain, Passphrase("größer als gedacht"))
    assert pyrage.passphrase.decrypt(data, "größer als gedacht") == plain
    assert opened(data, Passphrase("größer als gedacht")) == plain
    assert refusal(data, Passphrase("other")).code == "wrong_key"
    out = io.BytesIO()
    Passphrase("größer als gedacht").decrypt(Trickle(data), out)
    assert out.getvalue() == plain


def test_the_work_factor_that_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    assert WORK_FACTOR == 18
    monkeypatch.setattr(age_header, "WORK_FACTOR", WORK_FACTOR)
    data = sealed(b"x", Passphrase("p"))
    assert data.split(b"\n")[1].split(b" ")[-1] == b"18"
    assert opened(data, Passphrase("p")) == b"x"


def test_every_file_has_its_own_salt_and_key() -> None:
    first, second = (age_header.parse(sealed(b"x", Passphrase("p"))) for _ in range(2))
    assert first.stanzas[0].arguments[0] != second.stanzas[0].arguments[0]
    assert age_header.open_passphrase(first, "p") != age_header.open_passphrase(second, "p")


def test_a_changed_header_of_a_passphrase() -> None:
    data = sealed(b"x", Passphrase("p"))
    mac = data.index(b"--- ") + 4
    changed = data[:mac] + (b"B" if data[mac : mac + 1] != b"B" else b"C") + data[mac + 1 :]
    assert refusal(changed, Passphrase("p")).code == "archive_damaged"


def test_the_other_kind_of_key() -> None:
    error = refusal(sealed(b"x", Passphrase("p")), KEY)
    assert (error.code, "passphrase" in error.detail) == ("wrong_key", True)
    error = refusal(sealed(b"x", Recipients([MINE])), Passphrase("p"))
    assert (error.code, "identity" in error.detail) == ("wrong_key", True)
    with pytest.raises(ArchiveError, match="passphrase_unusable"):
        Passphrase("")


# ----------------------------------------------------------------------------------------------------------- headers


def header_with(*stanzas: Stanza, mac: str = "A" * 43) -> bytes:
    return MAGIC + b"".join(stanza.encode() for stanza in stanzas) + f"--- {mac}\n".encode()


SCRYPT = Stanza("scrypt", ("A" * 22, "18"), bytes(32))
X25519 = Stanza("X25519", ("A" * 43,), bytes(32))


@pytest.mark.parametrize("length", [0, 1, 47, 48, 49, 96, 100])
def test_bodies_of_every_length(length: int) -> None:
    stanza = Stanza("grease", ("a", "b"), bytes(length))
    header = age_header.parse(header_with(stanza, X25519) + b"payload")
    assert header.stanzas == (stanza, X25519)
    assert header.size == len(header_with(stanza, X25519))
    assert header.covered == header_with(stanza, X25519)[:-45]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "not_age"),
        (b"not age at all", "not_age"),
        (b"age-encryption", "archive_truncated"),
        (b"age-encryption.org/v1", "archive_truncated"),
        (b"age-encryption.org/v2\n-> X25519", "archive_too_new"),
        (MAGIC, "archive_truncated"),
        (MAGIC + b"-> X25519 abc\n", "archive_truncated"),
        (MAGIC + b"--- " + b"A" * 43 + b"\n", "archive_damaged"),
        (MAGIC + b"rubbish\n", "archive_damaged"),
        (MAGIC + b"-> \n\n", "archive_damaged"),
        (MAGIC + b"-> a  b\n\n", "archive_damaged"),
        (MAGIC + b"-> a\n" + b"A" * 65 + b"\n", "archive_damaged"),
        (MAGIC + b"-> a\nAB\n", "archive_damaged"),
        (MAGIC + b"-> a\nAA==\n", "archive_damaged"),
        (MAGIC + b"-> \xff\n\n", "archive_damaged"),
        (MAGIC + b"-> a\n" + (b"A" * 64 + b"\n") * 2000, "archive_damaged"),
        (header_with(X25519, mac="A" * 42), "archive_damaged"),
        (header_with(SCRYPT, X25519), "archive_damaged"),
        (header_with(SCRYPT, SCRYPT), "archive_damaged"),
        (header_with(Stanza("scrypt", ("A" * 22,), bytes(32))), "archive_damaged"),
        (header_with(Stanza("scrypt", ("A" * 21, "18"), bytes(32))), "archive_damaged"),
        (header_with(Stanza("scrypt", ("A" * 22, "018"), bytes(32))), "archive_damaged"),
        (header_with(Stanza("scrypt", ("A" * 22, "18"), bytes(31))), "archive_damaged"),
        (header_with(Stanza("scrypt", ("A" * 22, "21"), bytes(32))), "work_factor_too_high"),
        (header_with(Stanza("scrypt", ("A" * 22, "99"), bytes(32))), "work_factor_too_high"),
    ],
)
def test_headers_that_are_refused(data: bytes, code: str) -> None:
    for key in (KEY, Passphrase("p")):
        assert refusal(data, key).code == code


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=300))
def test_any_header_is_refused_in_order(data: bytes) -> None:
    for tail in (data, MAGIC + data):
        assert refusal(tail, KEY).code in {
            "not_age", "archive_truncated", "archive_damaged", "archive_too_new", "wrong_key", "work_factor_too_high",
        }  # fmt: skip


# ------------------------------------------------------------------------------------------------------------ damage


@pytest.mark.parametrize("by", [Recipients([MINE]), Passphrase("p")], ids=["recipient", "passphrase"])
def test_cut_short(by: Recipients | Passphrase) -> None:
    key: Key = by if isinstance(by, Passphrase) else KEY
    data = sealed(os.urandom(2 * CHUNK + 100), by)
    size = age_header.parse(data).size
    for length in (
        5,
        22,
        size - 1,
        size,
        size + 3,
        size + 16,
        size + 20,
        size + 16 + CHUNK + 16,
        len(data) - 1,
    ):
        assert refusal(data[:length], key).code == "archive_truncated", length


def test_the_size_alone_tells_of_some_cuts() -> None:
    data = sealed(os.urandom(2 * CHUNK), Recipients([MINE]))
    header = age_header.parse(data)
    check_size(header, len(data))
    for missing in (CHUNK, CHUNK + 15):
        with pytest.raises(ArchiveError, match="archive_truncated"):
            check_size(header, len(data) - missing)
    for size in (header.size, header.size + 16, header.size + 31):
        with pytest.raises(ArchiveError, match="archive_truncated"):
            check_size(header, size)


@settings(max_examples=60, deadline=None)
@given(where=st.integers(0, 3 * CHUNK), bit=st.integers(0, 7))
def test_a_flipped_bit(where: int, bit: int) -> None:
    data = bytearray(FIXED)
    data[where % len(data)] ^= 1 << bit
    assert refusal(bytes(data), KEY).code in {
        "archive_damaged", "archive_truncated", "wrong_key", "not_age", "archive_too_new",
    }  # fmt: skip


FIXED = pyrage.encrypt(bytes(2 * CHUNK), [ME.to_public()])


def test_damage_in_the_middle_is_not_called_a_cut() -> None:
    data = bytearray(FIXED)
    data[age_header.parse(FIXED).size + 1000] ^= 1
    assert refusal(bytes(data), KEY).code == "archive_damaged"


def test_errors_of_files_come_out_as_they_are() -> None:
    class Broken(io.BytesIO):
        def read(self, size: Any = -1, /) -> bytes:
            raise OSError(5, "Input/output error")

        def write(self, data: Any, /) -> int:
            raise OSError(28, "No space left on device")

    for work in (
        lambda: Recipients([MINE]).encrypt(Broken(), io.BytesIO()),
        lambda: KEY.decrypt(Broken(), io.BytesIO()),
    ):
        with pytest.raises(OSError) as failed:
            work()
        assert failed.value.errno == 5
    for work in (
        lambda: Recipients([MINE]).encrypt(io.BytesIO(bytes(CHUNK)), Broken()),
        lambda: Passphrase("p").encrypt(io.BytesIO(bytes(CHUNK)), Broken()),
        lambda: KEY.decrypt(io.BytesIO(FIXED), Broken()),
    ):
        with pytest.raises(OSError) as failed:
            work()
        assert failed.value.errno == 28


def test_ctrl_c_is_not_taken_for_damage() -> None:
    class Interrupted(io.BytesIO):
        def read(self, size: Any = -1, /) -> bytes:
            if self.tell() > CHUNK:
                raise KeyboardInterrupt
            return super().read(size)

        def write(self, data: Any, /) -> int:
            raise KeyboardInterrupt

    for work in (
        lambda: Recipients([MINE]).encrypt(Interrupted(bytes(9 * CHUNK)), io.BytesIO()),
        lambda: KEY.decrypt(Interrupted(FIXED), io.BytesIO()),
        lambda: KEY.decrypt(io.BytesIO(FIXED), Interrupted()),
    ):
        with pytest.raises(KeyboardInterrupt):
            work()
