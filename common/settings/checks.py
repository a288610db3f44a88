"""Settings that only make sense, or are only safe, in combination."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from stoker.addresses import MAX_UNIX_PATH_BYTES, parse_address
from stoker.errors import SettingsError
from stoker.settings.about import Effect
from stoker.settings.known import KNOWN
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
        if address.is_tls and not (settings.certificate_file and settings.private_key_file):
            raise refuse(name, f"{name} is https: certificate_file and private_key_file are needed")
        if listener == "management" and not (
            address.is_local or settings.insecure_management or _is_guarded(settings)
        ):
            raise refuse(
                name,
                f"{name} {address} can be reached from other hosts without credentials; "
                "use a loopback or unix address, or say insecure_management=true",
            )
    if not settings.disable_token_authorization and not _is_in_effect(
        "disable_token_authorization"
    ):
        raise refuse(
            "disable_token_authorization",
            "token authorization is not built yet, and serving without it would be unsafe; "
            "remove disable_token_authorization=false",
        )
    if len(os.fsencode(settings.runtime_dir)) + _SOCKET_NAME_BYTES > MAX_UNIX_PATH_BYTES:
        raise refuse(
            "runtime_dir", f"runtime_dir is too long for a socket's path: {settings.runtime_dir}"
        )


def _is_in_effect(name: str) -> bool:
    return KNOWN[name].about.effect is Effect.NOW


def _is_guarded(settings: Settings) -> bool:
    """Are callers of the management listener asked who they are?

    Only what is really enforced counts, so these become true by themselves
    once tokens and client certificates are built.
    """
    tokens = not settings.disable_token_authorization and _is_in_effect(
        "disable_token_authorization"
    )
    certificates = (
        parse_address(settings.management_address, "management").is_tls
        and settings.client_ca_file is not None
        and _is_in_effect("client_ca_file")
    )
    return tokens or certificates
