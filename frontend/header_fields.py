"""What clients say in headers of their own, or in SageMaker's one header for everything.

Source: contracts/djl-serving.md 3.2, 3.3, 3.6.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

CUSTOM_ATTRIBUTES: Final = "x-amzn-sagemaker-custom-attributes"


def fields_in_headers(
    headers: Iterable[tuple[bytes, bytes]], wanted: Collection[str]
) -> dict[str, str]:
    """The fields of these names; a header of its own is stronger."""
    said: dict[str, str] = {}
    attributes = ""
    for spelled, value in headers:
        name = spelled.lower().decode("latin-1")
        if name in wanted:
            said[name] = value.decode("latin-1").strip()
        elif name == CUSTOM_ATTRIBUTES:
            attributes = value.decode("latin-1")
    for field in attributes.split(";"):
        key, _, text = field.partition("=")
        if key.strip() in wanted:
            said.setdefault(key.strip(), text.strip())
    return said
