"""BaseHandler: a torch model in ten lines.

    from stoker.handlers import BaseHandler

    class Doubler(BaseHandler):
        def postprocess(self, data):
            return (2 * data).tolist()

Put it in an archive with the model's file and weights, and override only the
step that differs.  The steps are the peer's, so its users' subclasses work.

Source: contracts/torchserve.md 7.4.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from stoker.handlers import devices, weights
from stoker.handlers.labels import load_label_mapping
from stoker.handlers.timing import timed

if TYPE_CHECKING:
    import torch


class BaseHandler:
    """Loads a model once and answers batches in three steps."""

    def __init__(self) -> None:
        self.model: Any = None
        self.mapping: dict[str, str] | None = None
        self.device: torch.device | None = None
        self.initialized = False
        self.context: Any = None
        self.model_pt_path: str | None = None
        self.manifest: dict[str, Any] | None = None
        self.map_location: str | None = None
        self.explain = False
        self.target = 0
        self.profiler_args: dict[str, Any] = {}
        self.model_yaml_config: dict[str, Any] = {}

    # -- loading ---------------------------------------------------------------

    def initialize(self, context: Any) -> None:
        """Choose a device and load the model that the manifest names.

        Raises:
            RuntimeError: The archive holds nothing that can be loaded.
        """
        self.context = context
        self.manifest = context.manifest
        self.model_yaml_config = getattr(context, "model_yaml_config", None) or {}
        properties = context.system_properties
        model_dir = str(properties.get("model_dir"))
        self.device = devices.choose_device(properties.get("gpu_id"))
        self.map_location = self.device.type

        model_entry = (self.manifest or {}).get("model", {})
        if serialized_file := model_entry.get("serializedFile"):
            self.model_pt_path = os.path.join(model_dir, serialized_file)
        self.model = self._load_model(model_dir, model_entry.get("modelFile"))
        self._compile()
        self.mapping = load_label_mapping(os.path.join(model_dir, "index_to_name.json"))
        self.initialized = True

    def _load_model(self, model_dir: str, model_file: str | None) -> Any:
        path = self.model_pt_path or ""
        if model_file:
            model = self._load_pickled_model(model_dir, model_file, self.model_pt_path)
            return devices.optimise_for_intel(model.to(self.device).eval())
        if path.endswith(".pt"):
            return self._load_torchscript_model(path).eval()
        if path.endswith(".pt2"):
            return weights.load_exported(path, self.get_device())
        if path.endswith(".onnx"):
            return weights.load_onnx(path)
        if path.endswith(".so") and self._pt2("export").get("aot_compile"):
            return self._load_torch_export_aot_compile(path)
        raise RuntimeError("No model weights could be loaded")

    def _load_pickled_model(
        self, model_dir: str, model_file: str, model_pt_path: str | None
    ) -> torch.nn.Module:
        settings = self.model_yaml_config.get("handler")
        is_trusted = isinstance(settings, dict) and settings.get("weights_only") is False
        return weights.load_eager(
            model_file, model_pt_path, self.get_device(), weights_only=not is_trusted
        )

    def _load_torchscript_model(self, model_pt_path: str) -> Any:
        return weights.load_torchscript(model_pt_path, self.get_device())

    def _load_torch_export_aot_compile(self, model_so_path: str) -> Any:
        return weights.load_aot_compiled(model_so_path, self.get_device())

    def _pt2(self, part: str) -> dict[str, Any]:
        pt2 = self.model_yaml_config.get("pt2")
        value = pt2.get(part) if isinstance(pt2, dict) else None
        return value if isinstance(value, dict) else {}

    def _compile(self) -> None:
        """Hand the model to torch.compile if the model-config asks for it (`pt2`)."""
        pt2 = self.model_yaml_config.get("pt2")
        if isinstance(pt2, str):
            options: dict[str, Any] = {"backend": pt2}
        elif isinstance(pt2, dict) and "compile" in pt2:
            options = self._pt2("compile")
            if not options.get("enable"):
                return
            options = {name: value for name, value in options.items() if name != "enable"}
        elif isinstance(pt2, dict) and "export" not in pt2:
            options = pt2
        else:
            return
        import torch

        self.model = torch.compile(self.model, **options)

    def get_device(self) -> torch.device:
        if self.device is None:
            raise RuntimeError("the handler has no device before initialize()")
        return self.device

    # -- answering ---------------------------------------------------------------

    @timed
    def preprocess(self, data: list[Any]) -> Any:
        """One tensor for the whole batch, from whatever torch can make one of."""
        import torch

        return torch.as_tensor([body_of(row) for row in data], device=self.device)

    @timed
    def inference(self, data: Any, *args: Any, **kwargs: Any) -> Any:
        import torch

        with torch.inference_mode():
            return self.model(data.to(self.device), *args, **kwargs)

    @timed
    def postprocess(self, data: Any) -> list[Any]:
        """One result per row."""
        rows: list[Any] = data.tolist()
        return rows

    def handle(self, data: list[Any], context: Any) -> list[Any]:
        """Answer one batch; emits `HandlerTime`."""
        started_at = time.perf_counter()
        self.context = context
        if self._is_describe():
            output = [self.describe_handle()]
        elif self._is_explain():
            output = self.explain_handle(self.preprocess(data), data)
        elif os.environ.get("ENABLE_TORCH_PROFILER"):
            output, _ = self._infer_with_profiler(data)
        else:
            output = self.postprocess(self.inference(self.preprocess(data)))
        if context.metrics is not None:
            elapsed_ms = (time.perf_counter() - started_at) * 1000
            context.metrics.add_time("HandlerTime", round(elapsed_ms, 2), None, "ms")
        return output

    def explain_handle(self, data_preprocess: Any, raw_data: list[Any]) -> list[Any]:
        """Say which input made the model decide; the row's `target` names the class."""
        row = raw_data[0] if raw_data else {}
        inner = body_of(row)
        source = inner if isinstance(inner, dict) else row
        self.target = int(source.get("target") or 0) if isinstance(source, dict) else 0
        return self.get_insights(data_preprocess, raw_data, self.target)

    def get_insights(self, tensor_data: Any, raw_data: Any, target: int) -> list[Any]:
        raise NotImplementedError(f"{type(self).__name__} does not explain its predictions")

    def describe_handle(self) -> Any:
        """What a customised describe answers; override it."""
        return None

    def _is_explain(self) -> bool:
        self.explain = bool(self._header("explain") == "True")
        return self.explain

    def _is_describe(self) -> bool:
        return bool(self._header("describe") == "True")

    def _header(self, name: str) -> Any:
        return None if self.context is None else self.context.get_request_header(0, name)

    def _infer_with_profiler(self, data: list[Any]) -> tuple[list[Any], Any]:
        """The three steps under torch's profiler; the trace goes to the temporary folder."""
        import tempfile

        import torch

        folder = os.path.join(tempfile.gettempdir(), "pytorch_profiler", self.context.model_name)
        options = {
            "record_shapes": True,
            "on_trace_ready": torch.profiler.tensorboard_trace_handler(folder),
            **self.profiler_args,
        }
        with torch.profiler.profile(**options) as profiler:
            output = self.postprocess(self.inference(self.preprocess(data)))
        return output, profiler


def body_of(row: Any) -> Any:
    """What a client sent for one row: the parameter `data`, else `body` (2.3)."""
    if not isinstance(row, dict):
        return row
    value = row.get("data")
    return row.get("body") if value is None else value
