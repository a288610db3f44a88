"""Settings that only make sense, or are only safe, in combination."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Final

from stoker.addresses import MAX_UNIX_PATH_BYTES, Address
from stoker.errors import SettingsError
from stoker.settings.listeners import ListenerSetting, listeners_of
from stoker.settings.origins import Origin
from stoker.settings.record import Settings

#: Room that a runtime folder must leave for the names of sockets in it.
_SOCKET_NAME_BYTES: Final = 24


def check_together(settings: Settings, origins: Mapping[str, Origin]) -> None:
    """Raises SettingsError, with where the value came from."""

    def refuse(name: str, text: str) -> SettingsError:
        return SettingsError(f"{origins[name]}: {text}", setting=name, source=str(origins[name]))

    wanted = listeners_of(settings)
    _check_listeners(settings, wanted, origins, refuse)
    for item in wanted:
        name, address = item.setting, item.address
        if address.is_unix and not settings.use_native_io:
            raise refuse("use_native_io", "unix domain socket requires use_native_io set to true.")
        if address.is_tls and _has_half_a_pair(settings):
            raise refuse(name, f"{name} is https: certificate_file and private_key_file are needed")
        if "management" not in item.apis or settings.insecure_management:
            continue
        if not (address.is_local or _is_guarded(settings, address)):
            raise refuse(
                name,
                f"{name} {address} can be reached from other hosts without credentials; "
                "use a loopback or unix address, ask callers for tokens "
                "(disable_token_authorization=false) or for certificates (https and "
                "client_ca_file), or say insecure_management=true",
            )
    managed = [item for item in wanted if "management" in item.apis]
    is_idle = not any(item.address.is_tls for item in managed)
    if managed and settings.client_ca_file and is_idle and not settings.insecure_management:
        name, address = managed[0].setting, managed[0].address
        raise refuse("client_ca_file", f"client_ca_file needs an https {name}, not {address}")
    if len(os.fsencode(settings.runtime_dir)) + _SOCKET_NAME_BYTES > MAX_UNIX_PATH_BYTES:
        raise refuse(
            "runtime_dir", f"runtime_dir is too long for a socket's path: {settings.runtime_dir}"
        )


def _check_listeners(
    settings: Settings,
    wanted: list[ListenerSetting],
    origins: Mapping[str, Origin],
    refuse: Callable[[str, str], SettingsError],
) -> None:
    """What `listeners` must not say twice, or against another setting."""
    if not settings.listeners:
        return
    for name in ("inference_address", "management_address", "metrics_address"):
        if origins[name].kind != "default":
            raise refuse(
                "listeners",
                f"listeners says where everything is served; take {name} out ({origins[name]})",
            )
    seen: set[Address] = set()
    for item in wanted:
        address = item.address
        if address in seen and (address.is_unix or address.port):
            raise refuse(
                "listeners",
                f"listeners names {address} twice; a listener has one dialect, and its APIs are "
                "joined with +",
            )
        seen.add(address)
        if "metrics" in item.apis and not settings.enable_metrics_api:
            raise refuse(
                "listeners",
                f"listeners serves metrics at {address}, and enable_metrics_api=false "
                f"({origins['enable_metrics_api']})",
            )


def _has_half_a_pair(settings: Settings) -> bool:
    """Not with a key store; and with nothing at all a certificate is made (1.1)."""
    pair = (settings.certificate_file, settings.private_key_file)
    return settings.keystore is None and any(pair) and not all(pair)


def _is_guarded(settings: Settings, management: Address) -> bool:
    """Are callers of the management listener asked who they are?"""
    asks_for_certificates = management.is_tls and settings.client_ca_file is not None
    return asks_for_certificates or not settings.disable_token_authorization
