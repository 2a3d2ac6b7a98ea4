"""The server's certificate chain: root, intermediate, leaf (chapter 01 §3.4)."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from google.protobuf.message import DecodeError

from waD.e2ee.curve import KEY_LENGTH, SIGNATURE_LENGTH, KeyPair, sign, verify
from waD.proto.handshake_pb2 import CertChain
from waD.wire.errors import CertificateError

ROOT_KEY: Final = bytes.fromhex("142375574d0a587166aae71ebe516437c4a28b73e3695c6ce1f7f9545da8ee6b")
"""Public key of WhatsApp's root, named WhatsAppLongTerm1."""
ROOT_SERIAL: Final = 0
SANDBOX_INTERMEDIATE_SERIAL: Final = 4711
SANDBOX_LEAF_SERIAL: Final = 4712


@dataclass(frozen=True, slots=True)
class Certificate:
    """What one certificate says.

    Attributes:
        serial: number of this certificate.
        issuer_serial: number of the certificate that signed it.
        key: X25519 public key, 32 bytes.
        not_before: unix seconds, inclusive.
        not_after: unix seconds, inclusive.
    """

    serial: int
    issuer_serial: int
    key: bytes
    not_before: int
    not_after: int


@dataclass(frozen=True, slots=True)
class Chain:
    """A verified chain; `raw` is the protobuf as received."""

    leaf: Certificate
    intermediate: Certificate
    raw: bytes = field(repr=False)


def verify_chain(chain: bytes, static: bytes, root_key: bytes, now: int) -> Chain:
    """Check that a server's static key is certified by the root, in all eight points of chapter 01 §3.4.

    Signatures are verified over the detail bytes as received.

    Args:
        chain: serialised CertChain, as decrypted from the server hello.
        static: the key the server used in the handshake, 32 bytes.
        root_key: public key to trust, 32 bytes.
        now: unix seconds.

    Raises:
        CertificateError: naming the point that failed.
    """
    parsed = _parse_chain(chain)
    leaf = _parse_details("leaf", parsed.leaf)
    intermediate = _parse_details("intermediate", parsed.intermediate)
    if intermediate.issuer_serial != ROOT_SERIAL:
        raise CertificateError(
            "not_from_root", "the intermediate certificate does not name the root as issuer"
        )
    if not verify(root_key, parsed.intermediate.details, parsed.intermediate.signature):
        raise CertificateError("root_signature", "the intermediate certificate is not signed by the root")
    if leaf.issuer_serial != intermediate.serial:
        raise CertificateError("serial_link", "the leaf certificate names another issuer")
    if not verify(intermediate.key, parsed.leaf.details, parsed.leaf.signature):
        raise CertificateError("leaf_signature", "the leaf certificate is not signed by the intermediate")
    if not hmac.compare_digest(leaf.key, static):
        raise CertificateError("key_mismatch", "the leaf certificate is for another key than the server used")
    for name, certificate in (("intermediate", intermediate), ("leaf", leaf)):
        if not certificate.not_before <= now <= certificate.not_after:
            raise CertificateError(
                "validity",
                f"the {name} certificate is valid from {certificate.not_before} to {certificate.not_after},"
                f" and it is {now} (unix seconds): is the clock right?",
            )
    return Chain(leaf, intermediate, chain)


def _parse_chain(chain: bytes) -> CertChain:
    try:
        parsed = CertChain.FromString(chain)
    except DecodeError:
        raise CertificateError("malformed", "the certificate chain is not protobuf") from None
    for name, present, signed in (
        ("leaf", parsed.HasField("leaf"), parsed.leaf),
        ("intermediate", parsed.HasField("intermediate"), parsed.intermediate),
    ):
        if not present or not signed.HasField("details") or len(signed.signature) != SIGNATURE_LENGTH:
            raise CertificateError("incomplete", f"the {name} certificate or a part of it is missing")
    return parsed


def _parse_details(name: str, signed: CertChain.NoiseCertificate) -> Certificate:
    try:
        details = CertChain.NoiseCertificate.Details.FromString(signed.details)
    except DecodeError:
        raise CertificateError("malformed", f"the {name} certificate is not protobuf") from None
    # An absent serial is not the serial 0 of the root.
    if not details.HasField("serial") or not details.HasField("issuerSerial"):
        raise CertificateError("incomplete", f"the {name} certificate has no serial or issuer")
    if len(details.key) != KEY_LENGTH:
        raise CertificateError("bad_key", f"the key of the {name} certificate is not {KEY_LENGTH} bytes long")
    return Certificate(details.serial, details.issuerSerial, details.key, details.notBefore, details.notAfter)


def issue_chain(
    static: bytes,
    root: KeyPair,
    intermediate: KeyPair,
    not_before: int,
    not_after: int,
    random: Callable[[int], bytes],
) -> bytes:
    """Make a chain for a server of our own, for clients that trust its root (chapter 01 §4.1).

    Args:
        static: public key of the server, 32 bytes.
        root: pair of the root.
        intermediate: pair of the intermediate certificate.
        not_before: unix seconds from which both certificates are valid.
        not_after: unix seconds until which they are.
        random: source of unpredictable bytes for the signatures.
    """
    middle = Certificate(SANDBOX_INTERMEDIATE_SERIAL, ROOT_SERIAL, intermediate.public, not_before, not_after)
    leaf = Certificate(SANDBOX_LEAF_SERIAL, SANDBOX_INTERMEDIATE_SERIAL, static, not_before, not_after)
    return CertChain(
        leaf=_signed(leaf, intermediate, random), intermediate=_signed(middle, root, random)
    ).SerializeToString()


def _signed(
    certificate: Certificate, issuer: KeyPair, random: Callable[[int], bytes]
) -> CertChain.NoiseCertificate:
    details = CertChain.NoiseCertificate.Details(
        serial=certificate.serial,
        issuerSerial=certificate.issuer_serial,
        key=certificate.key,
        notBefore=certificate.not_before,
        notAfter=certificate.not_after,
    ).SerializeToString()
    return CertChain.NoiseCertificate(details=details, signature=sign(issuer.private, details, random))
