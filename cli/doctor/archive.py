"""One archive of the model store: would it register, load and answer?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from stoker.archives.archive import ArchiveRequest, ResolvedArchive
from stoker.archives.model_config import flaws, not_built
from stoker.archives.obtaining import ArchivePlaces, open_cache
from stoker.archives.resolve import resolve
from stoker.archives.startup import StartupModel
from stoker.cli.doctor.findings import ArchiveReport, Finding, Severity
from stoker.cli.doctor.handler import derives_from_ours, judge_handler
from stoker.errors import StokerError
from stoker.settings import Settings

#: For the process that parses one archive's code.
SOURCE_TIMEOUT_S: Final = 60.0
MAX_FACTS_BYTES: Final = 64 << 20
#: Roots of what `torch.load(weights_only=True)` may look up.
_SAFE_ROOTS: Final = frozenset({"torch", "collections", "_codecs", "numpy"})


def examine(model: StartupModel, settings: Settings) -> ArchiveReport:
    """Unpack it as a server would, into a folder that is removed again, and look."""
    report = ArchiveReport(model.url)
    with tempfile.TemporaryDirectory(prefix="stoker-doctor-") as folder:
        places = ArchivePlaces(settings.model_store, Path(folder), settings.allowed_urls)
        request = ArchiveRequest(
            url=model.url,
            model=model.model,
            default_model=model.default_model,
            default_handler=settings.default_service_handler,
        )
        try:
            cache = open_cache(places)
            archive = resolve(request, places, cache)
        except StokerError as error:
            report.findings.append(_refusal(error))
            return report
        try:
            report.model, report.version = archive.model, archive.version
            report.findings += _judge(archive, settings)
        finally:
            if archive.content_hash is not None:
                cache.release(archive.content_hash)
    return report


def _refusal(error: StokerError) -> Finding:
    reason = error.details.get("reason")
    return Finding(Severity.FAILS, "archive", error.message + (f" ({reason})" if reason else ""))


def _judge(archive: ResolvedArchive, settings: Settings) -> list[Finding]:
    assert archive.model_dir is not None
    findings = [Finding(Severity.DIFFERS, "archive", warning) for warning in archive.warnings]
    if archive.manifest is None:
        findings.append(Finding(Severity.NOTE, "archive", "has no MANIFEST.json"))
    if archive.config is not None and (missing := not_built(archive.config)):
        findings.append(
            Finding(
                Severity.FAILS,
                "model-config.yaml",
                f"asks for {', '.join(missing)}, which this release does not have",
            )
        )
    if archive.config is not None:
        findings += [
            Finding(Severity.FAILS, "model-config.yaml", flaw) for flaw in flaws(archive.config)
        ]
    entry = (archive.manifest or {}).get("model", {})
    serialized = _named_files(entry, archive.model_dir, findings)
    facts = _read_source(archive.model_dir, serialized)
    if facts is None:
        findings.append(
            Finding(Severity.FAILS, "source", "the archive's code cannot be parsed within limits")
        )
        return findings
    installs = settings.install_py_dep_per_model and archive.requirements_file is not None
    findings += judge_handler(archive.handler, facts["files"], installs=installs)
    if derives_from_ours(archive.handler, facts["files"]):
        for name, weights in facts["weights"].items():
            findings += _weights(name, weights, has_model_file=bool(entry.get("modelFile")))
    findings += _requirements(archive, settings)
    return findings


def _named_files(entry: dict[str, Any], model_dir: Path, findings: list[Finding]) -> list[str]:
    """Files that the manifest names must be there; returns the serialized ones that are."""
    serialized = []
    for key in ("modelFile", "serializedFile"):
        value = entry.get(key)
        names = value.split(",") if isinstance(value, str) else []
        for name in names:
            path = (model_dir / name).resolve()
            if model_dir.resolve() in path.parents and path.is_file():
                serialized += [name] if key == "serializedFile" else []
            else:
                findings.append(
                    Finding(Severity.DIFFERS, name, f"is the manifest's {key}, but not there")
                )
    return serialized


def _read_source(model_dir: Path, weights: list[str]) -> dict[str, Any] | None:
    """What the parsing process found; None when it did not survive the archive."""
    command = [sys.executable, "-P", "-m", "stoker.cli.doctor.source", str(model_dir), *weights]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            check=False,
            stdin=subprocess.DEVNULL,
            env=environ,
            cwd="/",
            timeout=SOURCE_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        return None
    if done.returncode or len(done.stdout) > MAX_FACTS_BYTES:
        return None
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


def _weights(name: str, weights: dict[str, Any], *, has_model_file: bool) -> list[Finding]:
    kind = weights["kind"]
    if kind == "torchscript":
        return [Finding(Severity.WORKS, name, "is TorchScript")]
    if kind == "unreadable":
        return [Finding(Severity.FAILS, name, f"cannot be read: {weights['reason']}")]
    if kind != "eager":
        return [Finding(Severity.NOTE, name, "is of a kind that is not looked into")]
    if not has_model_file:
        return [
            Finding(
                Severity.FAILS,
                name,
                "holds eager weights, but the manifest names no modelFile to load them into",
                "TorchServe's base handler cannot load it either",
            )
        ]
    strangers = sorted(
        each for each in weights["globals"] if each.partition(".")[0] not in _SAFE_ROOTS
    )
    if strangers:
        return [
            Finding(
                Severity.FAILS,
                name,
                f"unpickles more than tensors: {', '.join(strangers[:5])}",
                "if you trust it: `handler: {weights_only: false}` in model-config.yaml",
            )
        ]
    return [Finding(Severity.WORKS, name, "holds eager weights, and only tensors")]


def _requirements(archive: ResolvedArchive, settings: Settings) -> list[Finding]:
    if archive.requirements_file is None:
        return []
    name = archive.requirements_file.name
    if settings.install_py_dep_per_model:
        return [Finding(Severity.WORKS, name, "is installed before the first worker starts")]
    return [
        Finding(Severity.NOTE, name, "is not installed: install_py_dep_per_model is off, as it was")
    ]
