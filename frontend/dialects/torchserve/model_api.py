"""The switch over registering and unregistering: contracts/torchserve.md 3.11."""

from __future__ import annotations

from stoker.frontend.problems import MethodNotAllowed
from stoker.settings import Settings


def check_model_api(settings: Settings) -> None:
    """Raises MethodNotAllowed where the settings switch it off."""
    if not settings.enable_model_api:
        raise MethodNotAllowed("The model API is switched off: enable_model_api.")
