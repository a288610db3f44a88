"""serving.properties: what an archive made for DJL Serving wants of the server.

It becomes the same record as a model-config.yaml, so that whoever merges both
with a request knows one kind of archive.  All options and arguments are kept
for the handler, which gets them when it loads; `option.` is taken off.

Source: contracts/djl-serving.md 6.3, 11.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from stoker.archives.devices import parse_devices
from stoker.archives.model_config import NO_CONFIG, ModelConfig
from stoker.errors import InvalidParameter, ManifestInvalid, SettingsError
from stoker.properties import read_properties

FILE_NAME: Final = "serving.properties"
MAX_FILE_BYTES: Final = 1 << 20
DEFAULT_ENTRY_POINT: Final = "model.py"
DEFAULT_FUNCTION: Final = "handle"
_OPTION: Final = "option."
_MAX_INT: Final = 2**31 - 1
#: What is about the server, not the handler.
_SERVER_KEYS: Final = frozenset(
    {
        "engine",
        "job_queue_size",
        "batch_size",
        "max_dynamic_batch_size",
        "max_batch_delay",
        "max_idle_time",
        "load_on_devices",
        "minWorkers",
        "maxWorkers",
        "cpu.minWorkers",
        "cpu.maxWorkers",
        "gpu.minWorkers",
        "gpu.maxWorkers",
        "log_request_metric",
        "metrics_aggregation",
        "required_memory_mb",
        "reserved_memory_mb",
        "gpu.required_memory_mb",
        "gpu.reserved_memory_mb",
        "retry_threshold",
    }
)
#: Options whose handlers would answer wrongly without what they ask for.
_NOT_BUILT: Final = ("rolling_batch", "async_mode", "mpi_mode", "enable_venv")
_OFF: Final = frozenset({"", "false", "disable", "off"})


@dataclass(frozen=True, slots=True)
class ServingProperties:
    """One file.

    Attributes:
        engine: "" where the file does not say.
        entry_point: A file of the archive, a path, or a dotted name.
        function: What of it is called.
        config: The rest of what the server must know.
        options: All options and arguments, for the handler.
        is_stated: There is such a file.
    """

    engine: str = ""
    entry_point: str = DEFAULT_ENTRY_POINT
    function: str = DEFAULT_FUNCTION
    config: ModelConfig = NO_CONFIG
    options: Mapping[str, str] = field(default_factory=dict)
    is_stated: bool = False


def is_djl_folder(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (FILE_NAME, DEFAULT_ENTRY_POINT))


def read_serving_properties(model_dir: Path, url: str) -> ServingProperties:
    """The file of an unpacked archive; the defaults when there is none.

    Raises:
        ManifestInvalid: It cannot be read, or asks for something impossible or not built.
    """
    path = model_dir / FILE_NAME
    try:
        if not path.is_file():
            return ServingProperties()
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise _invalid(url, f"cannot be read: {error.strerror}") from None
    if len(content) > MAX_FILE_BYTES:
        raise _invalid(url, "is too large")
    return parse_serving_properties(content, url)


def parse_serving_properties(content: bytes, url: str = "") -> ServingProperties:
    """As `read_serving_properties`, from the bytes of the file."""
    try:
        values = {entry.key: entry.value.strip() for entry in read_properties(content, {})}
    except SettingsError as error:
        raise _invalid(url, f"cannot be read: {error.message}") from None
    options = {
        key.removeprefix(_OPTION): value for key, value in values.items() if key not in _SERVER_KEYS
    }
    if missing := [name for name in _NOT_BUILT if options.get(name, "").lower() not in _OFF]:
        asked = ", ".join(f"option.{name}" for name in missing)
        raise _invalid(url, f"asks for {asked}, which this release does not have")
    return ServingProperties(
        engine=values.get("engine", "") or options.get("engine", ""),
        entry_point=options.get("entryPoint") or DEFAULT_ENTRY_POINT,
        function=options.get("handler") or DEFAULT_FUNCTION,
        config=_Reader(values, options, url).config(),
        options=options,
        is_stated=True,
    )


class _Reader:
    """Reads numbers, and says whose they are when they are none."""

    def __init__(self, values: Mapping[str, str], options: Mapping[str, str], url: str) -> None:
        self._values = values
        self._options = options
        self._url = url

    def config(self) -> ModelConfig:
        device_type, device_ids = self._devices()
        kind = "cpu" if device_type == "cpu" else "gpu"
        least = self._first_number(f"{kind}.minWorkers", "minWorkers")
        most = self._first_number(f"{kind}.maxWorkers", "maxWorkers")
        delay_ms = self._number(self._values, "max_batch_delay")
        idle_s = self._number(self._values, "max_idle_time")
        span = self._span()
        return ModelConfig(
            min_workers=least if most is None or least is None else min(least, most),
            max_workers=most,
            batch_size=self._first_number("batch_size", "max_dynamic_batch_size", least=1),
            max_batch_delay_s=None if delay_ms is None else delay_ms / 1000,
            max_idle_s=None if idle_s is None else float(idle_s),
            required_memory_mb=self._number(self._values, "required_memory_mb"),
            reserved_memory_mb=self._number(self._values, "reserved_memory_mb"),
            gpu_required_memory_mb=self._number(self._values, "gpu.required_memory_mb"),
            gpu_reserved_memory_mb=self._number(self._values, "gpu.reserved_memory_mb"),
            job_queue_size=self._number(self._values, "job_queue_size", least=1),
            response_timeout_s=self._number(self._options, "predict_timeout", least=1),
            startup_timeout_s=self._number(self._options, "model_loading_timeout", least=1),
            device_type=device_type,
            device_ids=device_ids,
            # One process that sees several devices.
            parallel_type="custom" if span > 1 else None,
            parallel_level=span if span > 1 else 0,
            raw=dict(self._options),
        )

    def _devices(self) -> tuple[str | None, tuple[int, ...]]:
        try:
            return parse_devices(self._values.get("load_on_devices", ""))
        except InvalidParameter as error:
            raise _invalid(self._url, f"has a bad load_on_devices: {error.message}") from None

    def _span(self) -> int:
        """Devices of one worker."""
        degrees = [
            self._number(self._options, f"{name}_parallel_degree", least=1) or 1
            for name in ("tensor", "pipeline")
        ]
        return degrees[0] * degrees[1]

    def _first_number(self, *keys: str, least: int = 0) -> int | None:
        found = (self._number(self._values, key, least=least) for key in keys)
        return next((number for number in found if number is not None), None)

    def _number(self, values: Mapping[str, str], key: str, least: int = 0) -> int | None:
        text = values.get(key, "")
        if not text:
            return None
        if not text.isascii() or not text.isdigit() or not least <= int(text[:12]) <= _MAX_INT:
            raise _invalid(self._url, f"says {key}={text[:40]}, which is no number that can be")
        return int(text)


def _invalid(url: str, said: str) -> ManifestInvalid:
    return ManifestInvalid(f"{FILE_NAME} {said}.", url=url)
