"""One entry for the log of a start: who runs, on what, with which settings that matter most.

Source: contracts/torchserve.md 9.4.
"""

from __future__ import annotations

import os
import platform
from typing import Final

from stoker import __version__
from stoker.settings.load import Loaded

#: The peer lists these (9.4); the rest is a `stoker config` away.
_NAMES: Final = (
    "dialect",
    "listeners",
    "inference_address",
    "management_address",
    "metrics_address",
    "model_store",
    "workflow_store",
    "load_models",
    "default_workers_per_model",
    "blacklist_env_vars",
    "max_request_size",
    "max_response_size",
    "limit_max_image_pixels",
    "allowed_urls",
    "install_py_dep_per_model",
    "enable_metrics_api",
    "metrics_mode",
    "enable_model_api",
    "disable_token_authorization",
    "log_dir",
    "cache_dir",
    "state_dir",
)


def summary(loaded: Loaded) -> dict[str, str | int | bool | None]:
    """Facts for one log line; nothing of it is secret."""
    facts: dict[str, str | int | bool | None] = {
        "version": __version__,
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        "config_file": None if loaded.config_file is None else str(loaded.config_file),
    }
    for name in _NAMES:
        value = getattr(loaded.settings, name)
        if isinstance(value, tuple):
            value = ",".join(value)
        facts[name] = value if isinstance(value, int | None) else str(value)
    return facts
