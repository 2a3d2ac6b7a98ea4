"""Who the sandbox is: its own Noise root, intermediate and static keys, and a TLS authority (chapter 01 §4.1)."""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from waD.e2ee.curve import KeyPair
from waD.sandbox.environment import Random
from waD.wire.certs import issue_chain

DAY_S: Final = 86_400
VALID_DAYS: Final = 3650
TLS_NAMES: Final = ("localhost", "web.whatsapp.com", "mmg.whatsapp.net", "media.whatsapp.net")
CA_FILE: Final = "ca.pem"
CERT_FILE: Final = "server.pem"
KEY_FILE: Final = "server.key"


class ServerIdentity(msgspec.Struct):
    """Private keys, 32 bytes each, and the certificate chain made from them."""

    root: bytes
    intermediate: bytes
    static: bytes
    chain: bytes

    @property
    def root_key(self) -> bytes:
        """The public key clients have to trust."""
        return KeyPair.from_private(self.root).public

    @property
    def static_pair(self) -> KeyPair:
        """The server's permanent Noise key pair."""
        return KeyPair.from_private(self.static)

    def __repr__(self) -> str:
        return f"ServerIdentity({self.root_key.hex()[:8]})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("root_key", self.root_key.hex()[:8])]


def new_identity(random: Random, now_s: int) -> ServerIdentity:
    """Draw a fresh identity, valid from yesterday for ten years."""
    root, intermediate, static = (KeyPair.generate(random) for _ in range(3))
    chain = issue_chain(static.public, root, intermediate, now_s - DAY_S, now_s + VALID_DAYS * DAY_S, random)
    return ServerIdentity(root.private, intermediate.private, static.private, chain)


def bad_chain(identity: ServerIdentity, random: Random, now_s: int, mode: str) -> bytes:
    """A chain clients must refuse: `expired`, or `bad-certificate` from an unknown root."""
    root, intermediate = KeyPair.from_private(identity.root), KeyPair.from_private(identity.intermediate)
    until = now_s + DAY_S
    if mode == "expired":
        until = now_s - DAY_S
    else:
        root = KeyPair.generate(random)
    return issue_chain(identity.static_pair.public, root, intermediate, now_s - 10 * DAY_S, until, random)


def make_tls_files(directory: Path) -> tuple[Path, Path, Path]:
    """Write a certificate authority and a server certificate, unless they are there already.

    Returns the paths of the authority's certificate, the server's certificate and its key.
    """
    ca_path, cert_path, key_path = (directory / name for name in (CA_FILE, CERT_FILE, KEY_FILE))
    if ca_path.exists() and cert_path.exists() and key_path.exists():
        return ca_path, cert_path, key_path
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ca_name = _name("waD sandbox authority")
    names: list[x509.GeneralName] = [x509.DNSName(name) for name in TLS_NAMES]
    names += [x509.IPAddress(ipaddress.ip_address(address)) for address in ("127.0.0.1", "::1")]
    ca = _sign(ca_name, ca_name, ca_key, ca_key, lambda b: b.add_extension(_AUTHORITY, critical=True))
    certificate = _sign(
        _name("waD sandbox"),
        ca_name,
        key,
        ca_key,
        lambda b: b.add_extension(x509.SubjectAlternativeName(names), critical=False),
    )
    ca_path.write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    cert_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_path.touch(mode=0o600)
    key_path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return ca_path, cert_path, key_path


_AUTHORITY: Final = x509.BasicConstraints(ca=True, path_length=0)
_Extend = Callable[[x509.CertificateBuilder], x509.CertificateBuilder]


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _sign(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer_key: ec.EllipticCurvePrivateKey,
    extend: _Extend,
) -> x509.Certificate:
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=VALID_DAYS))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
        )
    )
    return extend(builder).sign(issuer_key, hashes.SHA256())
