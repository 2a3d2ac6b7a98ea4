"""The certificate chain: all eight checks of chapter 01 §3.4."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waD.e2ee.curve import KeyPair, sign
from waD.proto.handshake_pb2 import CertChain
from waD.wire.certs import ROOT_KEY, Chain, issue_chain, verify_chain
from waD.wire.errors import CertificateError, NoiseError, WireError

RANDOM = random.Random(7).randbytes
ROOT = KeyPair.generate(RANDOM)
INTERMEDIATE = KeyPair.generate(RANDOM)
SERVER = KeyPair.generate(RANDOM)
STRANGER = KeyPair.generate(RANDOM)
FROM, NOW, UNTIL = 1_700_000_000, 1_800_000_000, 1_900_000_000

Details = CertChain.NoiseCertificate.Details


@dataclass
class Draft:
    """A chain before signing, for a test to change one thing."""

    intermediate: Details
    leaf: Details
    root: KeyPair = ROOT
    issuer: KeyPair = INTERMEDIATE

    def signed(self) -> CertChain:
        chain = CertChain()
        for certificate, details, key in (
            (chain.intermediate, self.intermediate, self.root),
            (chain.leaf, self.leaf, self.issuer),
        ):
            certificate.details = details.SerializeToString()
            certificate.signature = sign(key.private, certificate.details, RANDOM)
        return chain


def draft() -> Draft:
    def details(serial: int, issuer: int, key: bytes) -> Details:
        return Details(serial=serial, issuerSerial=issuer, key=key, notBefore=FROM, notAfter=UNTIL)

    return Draft(details(4, 0, INTERMEDIATE.public), details(9, 4, SERVER.public))


def verify(chain: CertChain | bytes, now: int = NOW) -> Chain:
    raw = chain if isinstance(chain, bytes) else chain.SerializeToString()
    return verify_chain(raw, SERVER.public, ROOT.public, now)


def refused(chain: CertChain | bytes, now: int = NOW) -> str:
    with pytest.raises(CertificateError) as caught:
        verify(chain, now)
    return caught.value.code


def test_a_correct_chain() -> None:
    raw = draft().signed().SerializeToString()
    chain = verify(raw)
    assert chain.raw == raw
    assert (chain.leaf.serial, chain.leaf.issuer_serial, chain.leaf.key) == (9, 4, SERVER.public)
    assert (chain.intermediate.serial, chain.intermediate.issuer_serial) == (4, 0)
    assert chain.intermediate.key == INTERMEDIATE.public
    assert (chain.leaf.not_before, chain.leaf.not_after) == (FROM, UNTIL)
    assert raw.hex() not in repr(chain)


def test_the_production_root() -> None:
    assert ROOT_KEY.hex() == "142375574d0a587166aae71ebe516437c4a28b73e3695c6ce1f7f9545da8ee6b"
    with pytest.raises(CertificateError, match="not signed by the root"):
        verify_chain(draft().signed().SerializeToString(), SERVER.public, ROOT_KEY, NOW)


# 1: presence


@pytest.mark.parametrize("name", ["leaf", "intermediate"])
@pytest.mark.parametrize("part", ["", "details", "signature"])
def test_missing_parts(name: str, part: str) -> None:
    chain = draft().signed()
    if part:
        getattr(chain, name).ClearField(part)
    else:
        chain.ClearField(name)
    assert refused(chain) == "incomplete"


@pytest.mark.parametrize("name", ["leaf", "intermediate"])
@pytest.mark.parametrize("length", [0, 63, 65])
def test_signatures_have_64_bytes(name: str, length: int) -> None:
    chain = draft().signed()
    certificate = getattr(chain, name)
    certificate.signature = (certificate.signature + b"\x00")[:length]
    assert refused(chain) == "incomplete"


@pytest.mark.parametrize("raw", [b"\xff", b"\x0a\x05abc", b"not a chain"])
def test_garbage(raw: bytes) -> None:
    assert refused(raw) == "malformed"
    assert refused(b"") == "incomplete"


# 2: details


@pytest.mark.parametrize("name", ["leaf", "intermediate"])
@pytest.mark.parametrize("part", ["serial", "issuerSerial"])
def test_an_absent_serial_is_not_zero(name: str, part: str) -> None:
    plan = draft()
    plan.intermediate.serial = plan.leaf.issuerSerial = 0
    assert verify(plan.signed()).leaf.issuer_serial == 0
    getattr(plan, name).ClearField(part)
    assert refused(plan.signed()) == "incomplete"


@pytest.mark.parametrize("name", ["leaf", "intermediate"])
@pytest.mark.parametrize("key", [None, b"", bytes(31), bytes(33)])
def test_keys_have_32_bytes(name: str, key: bytes | None) -> None:
    plan = draft()
    details = getattr(plan, name)
    if key is None:
        details.ClearField("key")
    else:
        details.key = key
    assert refused(plan.signed()) == "bad_key"


@pytest.mark.parametrize("name", ["leaf", "intermediate"])
def test_details_that_are_not_protobuf(name: str) -> None:
    chain = draft().signed()
    getattr(chain, name).details = b"\xff\xff"
    assert refused(chain) == "malformed"


# 3 to 7


def test_the_intermediate_names_the_root() -> None:
    plan = draft()
    plan.intermediate.issuerSerial = 1
    assert refused(plan.signed()) == "not_from_root"


def test_the_intermediate_is_signed_by_the_root() -> None:
    plan = draft()
    plan.root = STRANGER
    assert refused(plan.signed()) == "root_signature"


def test_the_leaf_names_the_intermediate() -> None:
    plan = draft()
    plan.leaf.issuerSerial = 5
    assert refused(plan.signed()) == "serial_link"


@pytest.mark.parametrize("issuer", [STRANGER, ROOT, SERVER])
def test_the_leaf_is_signed_by_the_intermediate(issuer: KeyPair) -> None:
    plan = draft()
    plan.issuer = issuer
    assert refused(plan.signed()) == "leaf_signature"


def test_the_leaf_is_for_the_key_of_the_handshake() -> None:
    plan = draft()
    plan.leaf.key = STRANGER.public
    assert refused(plan.signed()) == "key_mismatch"


@pytest.mark.parametrize("name", ["leaf", "intermediate"])
@pytest.mark.parametrize("bit", [0, 100, 255, 256, 300, 511])
def test_one_bit_of_a_signature(name: str, bit: int) -> None:
    chain = draft().signed()
    certificate = getattr(chain, name)
    signature = bytearray(certificate.signature)
    signature[bit // 8] ^= 1 << bit % 8
    certificate.signature = bytes(signature)
    assert refused(chain) == {"leaf": "leaf_signature", "intermediate": "root_signature"}[name]


def test_signatures_are_over_the_bytes_as_received() -> None:
    """An unknown field in the details is signed too; a re-serialised copy would still hold it, an edited one not."""
    plan = draft()
    chain = plan.signed()
    chain.leaf.details += b"\x7a\x01x"
    assert refused(chain) == "leaf_signature"
    chain.leaf.signature = sign(INTERMEDIATE.private, chain.leaf.details, RANDOM)
    assert verify(chain).leaf.serial == 9
    odd_order = (
        Details(key=SERVER.public, notBefore=FROM, notAfter=UNTIL).SerializeToString() + b"\x10\x04\x08\x09"
    )
    chain.leaf.details = odd_order
    chain.leaf.signature = sign(INTERMEDIATE.private, odd_order, RANDOM)
    assert verify(chain).leaf.serial == 9


# 8: validity


@pytest.mark.parametrize("name", ["leaf", "intermediate"])
def test_validity_has_inclusive_ends(name: str) -> None:
    plan = draft()
    details = getattr(plan, name)
    details.notBefore, details.notAfter = NOW - 10, NOW + 10
    chain = plan.signed()
    assert verify(chain, NOW - 10)
    assert verify(chain, NOW + 10)
    assert refused(chain, NOW - 11) == "validity"
    assert refused(chain, NOW + 11) == "validity"


@pytest.mark.parametrize("name", ["leaf", "intermediate"])
def test_an_absent_end_is_long_ago(name: str) -> None:
    plan = draft()
    getattr(plan, name).ClearField("notAfter")
    assert refused(plan.signed()) == "validity"


def test_the_error_tells_the_operator_what_to_look_at() -> None:
    with pytest.raises(CertificateError, match=r"leaf|intermediate") as caught:
        verify(draft().signed(), UNTIL + 1)
    assert str(UNTIL) in str(caught.value)
    assert "clock" in str(caught.value)
    assert isinstance(caught.value, NoiseError)
    assert isinstance(caught.value, WireError)


# Fuzz


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_with_the_certificate_error(raw: bytes) -> None:
    refused(raw)


@given(st.data())
def test_any_damage_is_refused_with_the_certificate_error(data: st.DataObject) -> None:
    raw = bytearray(GOOD)
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    refused(bytes(raw))


@given(st.binary(min_size=32, max_size=32))
def test_any_intermediate_key_gives_a_verdict(key: bytes) -> None:
    plan = draft()
    plan.intermediate.key = key
    assert refused(plan.signed()) == "leaf_signature"


GOOD = draft().signed().SerializeToString()


# Issuing


def issue(source: Callable[[int], bytes] = RANDOM) -> bytes:
    return issue_chain(SERVER.public, ROOT, INTERMEDIATE, FROM, UNTIL, source)


def test_an_issued_chain_verifies_and_writes_every_field() -> None:
    chain = verify(issue())
    assert (chain.intermediate.serial, chain.intermediate.issuer_serial) == (4711, 0)
    assert chain.leaf.issuer_serial == 4711
    assert chain.leaf.serial != 4711
    parsed = CertChain.FromString(issue())
    for certificate in (parsed.leaf, parsed.intermediate):
        fields = Details.FromString(certificate.details).ListFields()
        assert [field.number for field, _ in fields] == [1, 2, 3, 4, 5]
    assert refused(issue(), FROM - 1) == "validity"
    assert refused(issue(), UNTIL + 1) == "validity"


def test_randomness_comes_from_the_caller() -> None:
    assert issue(random.Random(1).randbytes) == issue(random.Random(1).randbytes)
    assert issue(random.Random(1).randbytes) != issue(random.Random(2).randbytes)
