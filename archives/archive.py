"""An archive as it is asked for, and as it is here: the two ends of `resolve.py`.

Source: contracts/torchserve.md 3.1-3.4, 6.1-6.3.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from stoker.archives.manifest import TORCHSERVE
from stoker.archives.model_config import ModelConfig

#: Whose handlers an archive has.
DJL: Final = "djl"
#: A function of a workflow in its notation.
DJL_FUNCTION: Final = "djl_function"


@dataclass(frozen=True, slots=True)
class ArchiveRequest:
    """What a register request says about its archive.  None: it does not say.

    Attributes:
        default_model: The name if neither request nor manifest has one; set
            at start-up only, from the file's name (6.2).
        default_handler: `default_service_handler` of the settings.
        engine: What DJL Serving's clients call the runtime.
        takes_store: The configuration asks, which may mean the whole model store (`.`).
        known_hash: The content's hash from an earlier registration.  If that
            copy is still whole it is used as it is, without asking the origin:
            a restart needs no network and sees the very same files.
    """

    url: str | None = None
    model: str | None = None
    handler: str | None = None
    runtime: str | None = None
    version: str | None = None
    s3_sse_kms: bool = False
    default_model: str | None = None
    default_handler: str = ""
    engine: str | None = None
    takes_store: bool = False
    known_hash: str | None = None


@dataclass(frozen=True, slots=True)
class ResolvedArchive:
    """One version, ready to be registered.

    Attributes:
        url: The text as given; "" without an archive.
        model_dir: None when the handler comes from PYTHONPATH alone.
        manifest: The raw document; None when there is none.
        contract: Whose handlers it has: `torchserve`, `mms`, `djl` or `djl_function`.
        config: None when the archive has no model-config.yaml and no serving.properties.
        content_hash: Names the copy in the cache that this uses; hand it to
            `ArchiveCache.release` when the version is gone.  None for a
            directory and for no archive.
        requirements_file: Inside model_dir; None when not named or not there.
        environment: Names what `supervisor.environments` has made for it; "" for nothing.
        python: The interpreter of its workers; "" for the server's own.
        packages_dir: Where its requirements are installed, apart from a venv.
        warnings: For the log; nothing in it is secret.
    """

    model: str
    version: str
    handler: str
    runtime: str
    url: str
    model_dir: Path | None = None
    manifest: dict[str, Any] | None = None
    envelope: str | None = None
    contract: str = TORCHSERVE
    config: ModelConfig | None = None
    config_raw: dict[str, Any] = field(default_factory=dict)
    content_hash: str | None = None
    requirements_file: Path | None = None
    environment: str = ""
    python: str = ""
    packages_dir: Path | None = None
    warnings: tuple[str, ...] = ()
