"""TLS for https listeners: where key and certificates come from, and what is spoken.

From the PEM pair, else from the key store, else made up at start.  They are
read once, by the master, and held in memory: the processes that serve never
see the files, and a reload with a broken certificate keeps the old one.

Source: contracts/torchserve.md 1.1.
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from stoker.errors import SettingsError
from stoker.logs import get_logger
from stoker.settings import MIB, Settings

_MAX_FILE_BYTES: Final = MIB

log = get_logger("tls")


@dataclass(frozen=True, slots=True)
class TlsMaterial:
    """A private key and its certificate chain as one PEM text, and who may sign clients."""

    pem: bytes = field(repr=False)
    client_ca_pem: bytes = b""

    def context(self, *, asks_clients: bool = False) -> ssl.SSLContext:
        """For one listener.

        Args:
            asks_clients: Only clients with a certificate of ours are let in.

        Raises:
            SettingsError: Key and certificates do not fit, or are none.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(["http/1.1"])
        _load_chain(context, self.pem)
        if asks_clients and self.client_ca_pem:
            try:
                context.load_verify_locations(cadata=self.client_ca_pem.decode("ascii"))
            except (ssl.SSLError, ValueError) as error:
                raise SettingsError(
                    f"client_ca_file holds no certificates: {error}", setting="client_ca_file"
                ) from None
            context.verify_mode = ssl.CERT_REQUIRED
        return context


def read_material(settings: Settings) -> TlsMaterial:
    """What the settings name, checked.  Raises SettingsError."""
    client_ca = settings.client_ca_file
    material = TlsMaterial(
        _read_key_and_chain(settings),
        b"" if client_ca is None else _read("client_ca_file", client_ca),
    )
    material.context(asks_clients=True)
    return material


def _read_key_and_chain(settings: Settings) -> bytes:
    if settings.certificate_file is not None and settings.private_key_file is not None:
        key = _read("private_key_file", settings.private_key_file, is_private=True)
        if b"ENCRYPTED" in key:
            raise SettingsError(
                f"private_key_file {settings.private_key_file} has a password, and nobody "
                "is there to type it; `openssl pkey` writes a copy without one",
                setting="private_key_file",
            )
        return key + b"\n" + _read("certificate_file", settings.certificate_file)
    # Where neither is named the module asks for a library that not everybody has.
    from stoker.frontend import keystore

    if settings.keystore is None:
        return keystore.make_self_signed()
    content = _read("keystore", settings.keystore, is_private=True)
    return keystore.read_keystore(
        settings.keystore, content, settings.keystore_type, settings.keystore_pass
    )


def _read(name: str, path: Path, *, is_private: bool = False) -> bytes:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise SettingsError(
            f"{name} {path} cannot be read: {error.strerror}", setting=name
        ) from None
    if len(content) > _MAX_FILE_BYTES:
        raise SettingsError(f"{name} {path} is too large", setting=name)
    if is_private and mode & 0o077:
        log.warning("others may use this private key: chmod 600", file=str(path))
    return content


def _load_chain(context: ssl.SSLContext, pem: bytes) -> None:
    # The library wants a file's name; this file is nowhere but in memory.
    in_memory = os.memfd_create("tls", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(in_memory), "wb") as file:
            file.write(pem)
        context.load_cert_chain(f"/proc/self/fd/{in_memory}", password=_no_password)
    except ssl.SSLError as error:
        what = "does not belong to the certificate" if "MISMATCH" in str(error) else "is of no use"
        raise SettingsError(
            f"the private key for https {what}: {error.reason or error}",
            setting="private_key_file",
        ) from None
    finally:
        os.close(in_memory)


def _no_password() -> str:
    """Else the library would ask on the terminal."""
    return ""
