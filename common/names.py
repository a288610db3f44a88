"""What a model name and a version may look like.

Both travel in URLs, log lines, process titles and folder names, so the rule
of the peer's archiver is enforced here for every way in
(contracts/torchserve.md 3.1).
"""

from __future__ import annotations

import re
from typing import Final

from stoker.errors import InvalidParameter

MAX_NAME_LENGTH: Final = 128
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_\-.]*")


def check_model_name(name: str) -> str:
    """Return `name` unchanged, or raise InvalidParameter saying what is allowed."""
    return _check("model_name", name)


def check_version(version: str) -> str:
    """Return `version` unchanged, or raise InvalidParameter saying what is allowed."""
    return _check("model_version", version)


def _check(parameter: str, text: str) -> str:
    if len(text) > MAX_NAME_LENGTH or not _NAME.fullmatch(text):
        raise InvalidParameter(
            f"Parameter {parameter} must start with a letter or digit, go on with letters, "
            f"digits, '_', '-' or '.', and have at most {MAX_NAME_LENGTH} characters.",
            parameter=parameter,
        )
    return text
