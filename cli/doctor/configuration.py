"""What a config.properties (or none) means here, key by key.

Source: contracts/torchserve.md 9.2, 9.3; contracts/README.md for what is decided differently.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from stoker.archives.location import Remote, locate
from stoker.archives.startup import startup_names
from stoker.cli.doctor.findings import Finding, Severity
from stoker.errors import SettingsError, StokerError
from stoker.settings import KNOWN, Effect, Settings
from stoker.settings.listeners import listeners_of
from stoker.settings.load import Loaded, load_with_origins

#: Tried in turn when a start would be refused, so that the rest can be looked at too.
_WAYS_ON: Final = {
    "management_address": ["--insecure-management"],
    "listeners": ["--insecure-management"],
    "client_ca_file": ["--client-ca-file="],
}
_FILES: Final = ("private_key_file", "certificate_file", "keystore", "metrics_config")


@dataclass(slots=True)
class Configuration:
    """Settings as far as they could be read, and what is to be said about them."""

    settings: Settings
    findings: list[Finding]


def read_configuration(argv: Sequence[str], environ: dict[str, str]) -> Configuration:
    """As `stoker torchserve` would read it; a refused start is a finding, not the end."""
    findings: list[Finding] = []
    flags = ["--lenient-config", "true", *argv]
    own = {"lenient_config"}
    for _ in range(len(_WAYS_ON) + 1):
        try:
            loaded = load_with_origins(flags, environ)
        except SettingsError as error:
            setting = str(error.details.get("setting") or "configuration")
            finding = Finding(Severity.FAILS, setting, error.message)
            if finding in findings:
                break  # that was no way on
            findings.append(finding)
            if setting not in _WAYS_ON:
                break
            flags += _WAYS_ON[setting]
            own |= {"insecure_management", "client_ca_file"}
            continue
        findings += _effects(loaded, own)
        findings += _defaults(loaded)
        findings += _paths(loaded.settings)
        findings += _startup_models(loaded.settings)
        return Configuration(loaded.settings, findings)
    return Configuration(Settings(), findings)


def _effects(loaded: Loaded, own: set[str]) -> list[Finding]:
    """One finding for all that works; `own` are settings that nobody but us has made."""
    given = [
        name
        for name, origin in loaded.origins.items()
        if _is_given(origin.kind) and name not in own
    ]
    by_effect = {
        effect: [name for name in given if KNOWN[name].about.effect is effect] for effect in Effect
    }
    findings = []
    if names := by_effect[Effect.NOW]:
        findings.append(Finding(Severity.WORKS, "settings", ", ".join(names)))
    for note in loaded.notes:
        is_moot = note.startswith(Effect.NONE.value)
        severity = Severity.NOTE if is_moot else Severity.DIFFERS
        findings.append(Finding(severity, "settings", note))
    return findings


def _is_given(kind: str) -> bool:
    return kind in ("file", "environment", "flag")


def _defaults(loaded: Loaded) -> list[Finding]:
    """What nobody set, and is not what it was."""

    def is_default(name: str) -> bool:
        return not _is_given(loaded.origins[name].kind)

    settings = loaded.settings
    findings = []
    if is_default("disable_token_authorization"):
        findings.append(
            Finding(
                Severity.NOTE,
                "disable_token_authorization",
                "tokens are off by default (TorchServe 0.12: on)",
                "disable_token_authorization=false turns them on",
            )
        )
    if is_default("enable_model_api"):
        findings.append(
            Finding(
                Severity.NOTE,
                "enable_model_api",
                "registering over HTTP is on by default (TorchServe 0.12: off)",
                "enable_model_api=false turns it off",
            )
        )
    if is_default("metrics_mode"):
        findings.append(
            Finding(
                Severity.NOTE,
                "metrics_mode",
                "is prometheus by default (TorchServe: log, with an empty /metrics)",
            )
        )
    if not settings.allowed_urls:
        findings.append(
            Finding(
                Severity.NOTE,
                "allowed_urls",
                "nothing remote may be registered unless a pattern allows it "
                "(TorchServe: everything, with a warning)",
            )
        )
    for item in listeners_of(settings):
        if item.address.is_tls:
            findings.append(
                Finding(Severity.NOTE, item.setting, "TLS 1.2 and newer, modern ciphers")
            )
    return findings


def _paths(settings: Settings) -> list[Finding]:
    findings = []
    for name in ("model_store", "workflow_store"):
        folder = getattr(settings, name)
        if folder is not None and not folder.is_dir():
            findings.append(Finding(Severity.FAILS, name, f"directory not found: {folder}"))
    if settings.model_store is None:
        findings.append(
            Finding(
                Severity.FAILS,
                "model_store",
                "is not set",
                "--model-store DIR, here and for `stoker torchserve`",
            )
        )
    for name in _FILES:
        path = getattr(settings, name)
        if path is not None and not path.is_file():
            findings.append(Finding(Severity.FAILS, name, f"file not found: {path}"))
    return findings


def _startup_models(settings: Settings) -> list[Finding]:
    """Each of `load_models` must be where a start would look for it."""
    findings = []
    try:
        models = startup_names(settings.model_store, settings.load_models)
    except SettingsError as error:
        return [Finding(Severity.FAILS, "load_models", error.message)]
    for model in models:
        try:
            found = locate(model.url, settings.model_store, settings.allowed_urls)
        except StokerError as error:
            findings.append(Finding(Severity.FAILS, "load_models", error.message))
        else:
            if isinstance(found, Remote):
                findings.append(
                    Finding(Severity.NOTE, "load_models", f"{model.url} is downloaded at start")
                )
    return findings
