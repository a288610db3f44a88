"""Certificates for tests: an authority, and who it vouches for."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)

_SECRET = PrivateFormat.PKCS8


class Authority:
    """Signs; its certificate is in `path`, everything else is written beside it."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        self.certificate = self._sign(self._name, self._key.public_key(), is_authority=True)
        self.path = folder / f"{name}.pem"
        self.path.write_bytes(self.certificate.public_bytes(Encoding.PEM))

    def issue(self, name: str, password: str | None = None) -> Issued:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        return Issued(
            self._folder / name,
            key,
            self._sign(subject, key.public_key(), is_authority=False),
            self.certificate,
            password,
        )

    def _sign(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, *, is_authority: bool
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        own = x509.SubjectKeyIdentifier.from_public_key(key)
        signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(own, critical=False)
            .add_extension(signer, critical=False)
            .sign(self._key, hashes.SHA256())
        )


class Issued:
    """A key and its certificate, as PEM files and as a key store."""

    def __init__(
        self,
        base: Path,
        key: ec.EllipticCurvePrivateKey,
        certificate: x509.Certificate,
        signer: x509.Certificate,
        password: str | None,
    ) -> None:
        self.certificate = certificate
        self.certificate_file = base.with_suffix(".crt")
        self.private_key_file = base.with_suffix(".key")
        self.keystore = base.with_suffix(".p12")
        hidden = NoEncryption() if password is None else BestAvailableEncryption(password.encode())
        self.certificate_file.write_bytes(certificate.public_bytes(Encoding.PEM))
        self.private_key_file.write_bytes(key.private_bytes(Encoding.PEM, _SECRET, hidden))
        self.keystore.write_bytes(
            pkcs12.serialize_key_and_certificates(
                b"server", key, certificate, [signer], BestAvailableEncryption(b"changeit")
            )
        )
        for secret in (self.private_key_file, self.keystore):
            secret.chmod(0o600)

    @property
    def pair(self) -> dict[str, Path]:
        """As settings."""
        return {
            "certificate_file": self.certificate_file,
            "private_key_file": self.private_key_file,
        }

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)
