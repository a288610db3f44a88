"""Settings that only make sense, or are only safe, in combination."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from stoker.addresses import MAX_UNIX_PATH_BYTES, Address, parse_address
from stoker.errors import SettingsError
from stoker.settings.origins import Origin
from stoker.settings.record import Settings

#: Room that a runtime folder must leave for the names of sockets in it.
_SOCKET_NAME_BYTES: Final = 24


def check_together(settings: Settings, origins: Mapping[str, Origin]) -> None:
    """Raises SettingsError, with where the value came from."""

    def refuse(name: str, text: str) -> SettingsError:
        return SettingsError(f"{origins[name]}: {text}", setting=name, source=str(origins[name]))

    for listener in ("inference", "management", "metrics"):
        name = f"{listener}_address"
        address = parse_address(getattr(settings, name), listener)
        if address.is_unix and not settings.use_native_io:
            raise refuse("use_native_io", "unix domain socket requires use_native_io set to true.")
        if address.is_tls and _has_half_a_pair(settings):
            raise refuse(name, f"{name} is https: certificate_file and private_key_file are needed")
        if listener != "management" or settings.insecure_management:
            continue
        if not (address.is_local or _is_guarded(settings, address)):
            raise refuse(
                name,
                f"{name} {address} can be reached from other hosts without credentials; "
                "use a loopback or unix address, ask callers for tokens "
                "(disable_token_authorization=false) or for certificates (https and "
                "client_ca_file), or say insecure_management=true",
            )
        if settings.client_ca_file and not address.is_tls:
            raise refuse("client_ca_file", f"client_ca_file needs an https {name}, not {address}")
    if len(os.fsencode(settings.runtime_dir)) + _SOCKET_NAME_BYTES > MAX_UNIX_PATH_BYTES:
        raise refuse(
            "runtime_dir", f"runtime_dir is too long for a socket's path: {settings.runtime_dir}"
        )


def _has_half_a_pair(settings: Settings) -> bool:
    """Not with a key store; and with nothing at all a certificate is made (1.1)."""
    pair = (settings.certificate_file, settings.private_key_file)
    return settings.keystore is None and any(pair) and not all(pair)


def _is_guarded(settings: Settings, management: Address) -> bool:
    """Are callers of the management listener asked who they are?"""
    asks_for_certificates = management.is_tls and settings.client_ca_file is not None
    return asks_for_certificates or not settings.disable_token_authorization
