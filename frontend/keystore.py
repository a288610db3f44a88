"""What only `cryptography` can do: read a PKCS12 key store, sign a certificate.

The library comes with the extra `keystore`; who brings PEM files needs none.
Java's own format (JKS) is refused with the command that converts it: nobody
maintains a reader for it, and Java itself has gone over to PKCS12.

Source: contracts/torchserve.md 1.1.
"""

from __future__ import annotations

import ipaddress
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from stoker.errors import SettingsError
from stoker.logs import get_logger

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

_PKCS12: Final = ("PKCS12", "P12", "PFX")
#: The first bytes of JKS and JCEKS files, whatever they are called.
_JAVA_MAGIC: Final = (b"\xfe\xed\xfe\xed", b"\xce\xce\xce\xce")
_VALID_DAYS: Final = 3650

log = get_logger("tls")


def read_keystore(path: Path, content: bytes, kind: str, password: str) -> bytes:
    """Its private key and certificate chain, as PEM.  Raises SettingsError."""
    if kind.strip().upper() not in _PKCS12 or content.startswith(_JAVA_MAGIC):
        raise _refuse(
            f"keystore {path} is not PKCS12; convert it: keytool -importkeystore -srckeystore "
            f"{path} -destkeystore {path.stem}.p12 -deststoretype PKCS12"
        )
    try:
        from cryptography.hazmat.primitives.serialization import (
            Encoding,
            NoEncryption,
            PrivateFormat,
            pkcs12,
        )
    except ImportError:
        raise _refuse(
            "reading a keystore needs the package cryptography: pip install 'stoker[keystore]', "
            "or name certificate_file and private_key_file"
        ) from None
    try:
        key, certificate, others = pkcs12.load_key_and_certificates(content, password.encode())
    except (ValueError, TypeError):
        raise _refuse(
            f"keystore {path} cannot be read: wrong keystore_pass, or not PKCS12"
        ) from None
    if key is None or certificate is None:
        raise _refuse(f"keystore {path} holds no private key with a certificate")
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    chain = [one.public_bytes(Encoding.PEM) for one in _ordered(certificate, others)]
    return b"".join((secret, *chain))


def _ordered(leaf: Certificate, others: list[Certificate]) -> list[Certificate]:
    """From the leaf up: stores keep certificates in any order, TLS does not."""
    chain, left = [leaf], list(others)
    while parent := next((one for one in left if one.subject == chain[-1].issuer), None):
        left.remove(parent)
        chain.append(parent)
    return chain


def make_self_signed() -> bytes:
    """A key and a certificate for it that nobody else vouches for, as PEM.

    Raises:
        SettingsError: The library is not there.
    """
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import (
            Encoding,
            NoEncryption,
            PrivateFormat,
        )
    except ImportError:
        raise SettingsError(
            "an https listener needs certificate_file and private_key_file, or a keystore; "
            "to have a self-signed certificate made: pip install 'stoker[keystore]'",
            setting="certificate_file",
        ) from None
    key = ec.generate_private_key(ec.SECP256R1())
    host = socket.gethostname()[:64] or "localhost"
    names: list[Any] = [x509.DNSName("localhost")]
    names += [x509.DNSName(host)] if host.isascii() and host != "localhost" else []
    names += [x509.IPAddress(ipaddress.ip_address(one)) for one in ("127.0.0.1", "::1")]
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "stoker")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=_VALID_DAYS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    log.warning(
        "https with a certificate made for this run: clients cannot check it",
        sha256=certificate.fingerprint(hashes.SHA256()).hex(),
    )
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return secret + certificate.public_bytes(Encoding.PEM)


def _refuse(text: str) -> SettingsError:
    return SettingsError(text, setting="keystore")
