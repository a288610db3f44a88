"""`ModelService` and `SingleNodeService`, as far as they need no MXNet.

Source: contracts/mms.md 10.4.
"""

from __future__ import annotations

import ast
import json
import logging
import os
import time
from abc import ABC, abstractmethod
from typing import Any

__all__ = ["ModelService", "SingleNodeService"]

_log = logging.getLogger(__name__)


class ModelService(ABC):
    """A model with a signature: what goes in and what comes out."""

    def __init__(
        self, model_name: str, model_dir: str, manifest: dict[str, Any], gpu: int | None = None
    ) -> None:
        self.model_name = model_name
        self.model_dir = model_dir
        self.manifest = manifest
        self.gpu = gpu
        self.context: Any = None
        self._signature: dict[str, Any] = {}

    def initialize(self, context: Any) -> None:
        """Read the signature file that the manifest names.

        Raises:
            RuntimeError: It is not there.
        """
        self.context = context
        properties = context.system_properties
        self.model_dir = properties.get("model_dir") or self.model_dir
        self.gpu = properties.get("gpu_id", self.gpu)
        name = self.manifest["Model"]["Signature"]
        path = os.path.join(self.model_dir, name)
        if not os.path.isfile(path):
            raise RuntimeError("Signature file is not found.")
        with open(path, encoding="utf-8") as file:
            self._signature = json.load(file)

    @abstractmethod
    def inference(self, data: Any) -> Any: ...

    @abstractmethod
    def ping(self) -> Any: ...

    def signature(self) -> dict[str, Any]:
        return self._signature

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[Any]:
        """The first request's input to `inference`, and its result as a list."""
        inputs = data[0]
        name = self._signature["inputs"][0]["data_name"]
        value = inputs.get(name)
        if value is None:
            value = inputs.get("body", inputs.get("data"))
        is_json = self._signature.get("input_type") == "application/json"
        if is_json and isinstance(value, (bytes, bytearray)):
            value = ast.literal_eval(value.decode())
        result = self.inference([value])
        return result if isinstance(result, list) else [result]


class SingleNodeService(ModelService):
    """One model on one device: three steps, each of which does nothing by itself."""

    def inference(self, data: Any) -> Any:
        began = time.monotonic()
        prepared = self._preprocess(data)
        middle = time.monotonic()
        computed = self._inference(prepared)
        after = time.monotonic()
        result = self._postprocess(computed)
        ended = time.monotonic()
        _log.info(
            "preprocess %.2f ms, inference %.2f ms, postprocess %.2f ms",
            *((b - a) * 1000 for a, b in ((began, middle), (middle, after), (after, ended))),
        )
        return result

    def ping(self) -> Any:
        return None

    def _preprocess(self, data: Any) -> Any:
        return data

    def _inference(self, data: Any) -> Any:
        return data

    def _postprocess(self, data: Any) -> Any:
        return data
