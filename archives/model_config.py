"""model-config.yaml: what an archive wants of the server.

A key of the wrong type is a warning and counts as unset, as in the peer; keys
that are not ours belong to the handler and are only kept in the raw document.
Units become seconds here.

Source: contracts/torchserve.md 6.3, 3.4.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from stoker.archives.yaml_document import BadYaml, parse_yaml, read_yaml
from stoker.errors import ManifestInvalid
from stoker.wire.sequence_labels import MAX_KNOWN

_MAX_INT: Final = 2**31 - 1  # the peer's int
_PARALLEL_TYPES: Final = frozenset({"pp", "tp", "pptp", "custom"})
_SANDBOXES: Final = frozenset({"off", "rlimits", "bubblewrap"})
_DEVICE_TYPES: Final = frozenset({"cpu", "gpu"})
#: Open sequences of a version, or requests of them that wait: a worker can say no more.
MAX_SEQUENCES: Final = MAX_KNOWN
#: Processes of one worker.
MAX_RANKS: Final = 64
#: Of `torchrun`, what only several hosts need.
_HOST_KEYS: Final = ("rdzv-backend", "rdzv-endpoint", "rdzv-conf", "monitor-interval", "node-rank")


@dataclass(frozen=True, slots=True)
class TorchRun:
    """How the processes of one worker find each other."""

    nnodes: int = 1
    nproc_per_node: int = 1
    rdzv_backend: str = "c10d"
    rdzv_endpoint: str = ""
    rdzv_conf: str = ""
    monitor_interval_s: int = 5
    node_rank: int = 0
    omp_threads: int = 1


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The front-end keys of one file.  None: the file does not say.

    The peer's own defaults for what the file leaves out (120 s for both
    timeouts) are the business of whoever merges this with the request.

    Attributes:
        device_ids: As written; `usable_device_ids` knows which ones count.
        raw: The whole document, for `context.model_yaml_config`.
        warnings: Sentences about what was ignored or changed.
    """

    min_workers: int | None = None
    max_workers: int | None = None
    batch_size: int | None = None
    max_batch_delay_s: float | None = None
    response_timeout_s: int | None = None
    startup_timeout_s: int | None = None
    device_type: str | None = None
    device_ids: tuple[int, ...] = ()
    parallel_type: str | None = None
    parallel_level: int = 0
    torchrun: TorchRun | None = None
    max_retry_timeout_s: int = 300
    client_timeout_s: float | None = None
    job_queue_size: int | None = None
    use_job_ticket: bool = False
    continuous_batching: bool = False
    sequence_batching: bool = False
    sequence_max_idle_s: float = 0.0
    sequence_timeout_s: float | None = None
    max_sequence_job_queue_size: int = 1
    max_num_sequence: int = 1
    async_communication: bool = False
    max_requests_in_hand: int | None = None
    use_venv: bool = False
    max_idle_s: float | None = None
    max_worker_jobs: int | None = None
    max_worker_age_s: int | None = None
    max_worker_memory_mb: int | None = None
    worker_memory_limit_mb: int | None = None
    queue_wait_target_s: float | None = None
    required_memory_mb: int | None = None
    reserved_memory_mb: int | None = None
    gpu_required_memory_mb: int | None = None
    gpu_reserved_memory_mb: int | None = None
    sandbox: str | None = None
    sandbox_network: bool | None = None
    sandbox_memory_mb: int | None = None
    raw: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def worker_bounds(self) -> tuple[int, int] | None:
        """(min, max) if the file gives usable ones, which then win over the request (3.4)."""
        if self.min_workers is None or self.max_workers is None:
            return None
        return (
            (self.min_workers, self.max_workers) if self.max_workers >= self.min_workers else None
        )

    def usable_device_ids(self, number_of_gpus: int) -> tuple[int, ...]:
        """The device ids, or none at all if one of them does not exist on this host."""
        return self.device_ids if all(i < number_of_gpus for i in self.device_ids) else ()


#: An archive that has no such file.
NO_CONFIG: Final = ModelConfig()


def not_built(config: ModelConfig) -> list[str]:
    """What the file asks for that this release does not have; its archive is refused."""
    missing: list[str] = []
    if config.async_communication and config.sequence_batching:
        missing.append("asyncCommunication together with sequenceBatching")
    if (
        config.async_communication
        and config.parallel_level > 1
        and config.parallel_type != "custom"
    ):
        missing.append("asyncCommunication in a worker of several processes")
    if config.torchrun is not None and config.torchrun.nnodes > 1:
        missing.append("torchrun.nnodes above 1")
    if config.parallel_level > MAX_RANKS:
        missing.append(f"parallelLevel above {MAX_RANKS}")
    return missing


def flaws(config: ModelConfig) -> list[str]:
    """What no server could do with the file; its archive is refused."""
    if not config.sequence_batching:
        return []
    found = []
    if not config.sequence_max_idle_s:
        found.append("sequenceBatching needs a sequenceMaxIdleMSec above 0")
    if config.max_num_sequence * config.max_sequence_job_queue_size > MAX_SEQUENCES:
        found.append(
            f"maxNumSequence times maxSequenceJobQueueSize must be at most {MAX_SEQUENCES}"
        )
    return found


def read_model_config(path: Path, url: str) -> ModelConfig:
    """Read the file that the manifest names.

    Raises:
        ManifestInvalid: not YAML, a bomb, or not a map.
    """
    try:
        return _config(*read_yaml(path))
    except BadYaml as error:
        raise _invalid(path.name, url, error) from None


def parse_model_config(text: bytes, url: str = "") -> ModelConfig:
    """As `read_model_config`, from the bytes of the file."""
    try:
        return _config(*parse_yaml(text))
    except BadYaml as error:
        raise _invalid("model-config.yaml", url, error) from None


def _invalid(name: str, url: str, error: BadYaml) -> ManifestInvalid:
    return ManifestInvalid(f"Model config file {name} {error}.", url=url)


def _config(document: Any, changes: list[str]) -> ModelConfig:
    if document is None:  # an empty file
        document = {}
    if not isinstance(document, dict):
        raise BadYaml("is not a map")
    keys = _Keys(document, [f"model-config.yaml: {change}" for change in changes])
    torchrun = _torchrun(keys)
    parallel_type = keys.word("parallelType", _PARALLEL_TYPES)
    parallel_level = keys.number("parallelLevel", lowest=0) or 0
    if torchrun is not None:
        parallel_level = torchrun.nproc_per_node
    delay_ms = keys.number("maxBatchDelay", lowest=0)
    return ModelConfig(
        min_workers=keys.number("minWorkers", at_least=1),
        max_workers=keys.number("maxWorkers", lowest=0) or None,
        batch_size=keys.number("batchSize", at_least=1),
        # An explicit 0 counts as unset in the peer.
        max_batch_delay_s=delay_ms / 1000 if delay_ms else None,
        response_timeout_s=keys.number("responseTimeout", lowest=1),
        startup_timeout_s=keys.number("startupTimeout", lowest=1),
        device_type=keys.word("deviceType", _DEVICE_TYPES),
        device_ids=keys.numbers("deviceIds"),
        parallel_type=parallel_type,
        parallel_level=parallel_level if parallel_type else 0,
        torchrun=torchrun,
        max_retry_timeout_s=keys.number_or("maxRetryTimeoutInSec", 300, lowest=0),
        client_timeout_s=keys.seconds("clientTimeoutInMills"),
        job_queue_size=keys.number("jobQueueSize", lowest=1),
        use_job_ticket=keys.truth("useJobTicket"),
        continuous_batching=keys.truth("continuousBatching"),
        sequence_batching=keys.truth("sequenceBatching"),
        sequence_max_idle_s=keys.seconds("sequenceMaxIdleMSec") or 0.0,
        sequence_timeout_s=keys.seconds("sequenceTimeoutMSec"),
        max_sequence_job_queue_size=keys.number_or("maxSequenceJobQueueSize", 1, lowest=1),
        max_num_sequence=keys.number_or("maxNumSequence", 1, lowest=1),
        async_communication=keys.truth("asyncCommunication"),
        use_venv=keys.truth("useVenv"),
        max_requests_in_hand=keys.number("max_requests_in_hand", lowest=1),
        # Ours; called like the settings whose place they take.
        max_worker_jobs=keys.number("max_worker_jobs", lowest=0),
        max_worker_age_s=keys.number("max_worker_age_s", lowest=0),
        max_worker_memory_mb=keys.number("max_worker_memory_mb", lowest=0),
        worker_memory_limit_mb=keys.number("worker_memory_limit_mb", lowest=0),
        max_idle_s=keys.duration("max_idle_s", may_be_none=True),
        queue_wait_target_s=keys.duration("queue_wait_target_s"),
        required_memory_mb=keys.number("required_memory_mb", lowest=0),
        reserved_memory_mb=keys.number("reserved_memory_mb", lowest=0),
        gpu_required_memory_mb=keys.number("gpu_required_memory_mb", lowest=0),
        gpu_reserved_memory_mb=keys.number("gpu_reserved_memory_mb", lowest=0),
        sandbox=_sandbox(keys),
        sandbox_network=_sandbox_network(keys),
        sandbox_memory_mb=keys.number("sandbox_memory_mb", lowest=0),
        raw=document,
        warnings=tuple(keys.warnings),
    )


def _sandbox(keys: _Keys) -> str | None:
    """Unlike other keys, one that is misspelt is refused: nobody would notice that it is unset."""
    before = len(keys.warnings)
    # YAML reads a bare `off` as false.
    word = "off" if keys.is_false("sandbox") else keys.word("sandbox", _SANDBOXES)
    if len(keys.warnings) > before:
        raise BadYaml(f"asks for a sandbox that is none of {', '.join(sorted(_SANDBOXES))}")
    return word


def _sandbox_network(keys: _Keys) -> bool | None:
    """Misspelt, it is refused as well."""
    before = len(keys.warnings)
    is_true = keys.truth("sandbox_network")
    if len(keys.warnings) > before:
        raise BadYaml("has a sandbox_network that is not true or false")
    return False if keys.is_false("sandbox_network") else is_true or None


def _torchrun(keys: _Keys) -> TorchRun | None:
    section = keys.section("torchrun")
    if section is None:
        return None
    section.say_moot(_HOST_KEYS)
    return TorchRun(
        nnodes=section.number_or("nnodes", 1, lowest=1),
        nproc_per_node=section.number_or("nproc-per-node", 1, lowest=1),
        rdzv_backend=section.text("rdzv-backend") or "c10d",
        rdzv_endpoint=section.text("rdzv-endpoint") or "",
        rdzv_conf=section.text("rdzv-conf") or "",
        monitor_interval_s=section.number_or("monitor-interval", 5, lowest=0),
        node_rank=section.number_or("node-rank", 0, lowest=0),
        omp_threads=section.number_or("OMP_NUMBER_THREADS", 1, lowest=1),
    )


class _Keys:
    """One map of the file, read key by key; what is wrong is noted and counts as unset."""

    def __init__(self, entries: dict[str, Any], warnings: list[str], prefix: str = "") -> None:
        self._entries = entries
        self.warnings = warnings
        self._prefix = prefix

    def _ignore(self, key: str, why: str) -> None:
        self.warnings.append(f"model-config.yaml: {self._prefix}{key} {why} and is ignored")

    def say_moot(self, keys: Iterable[str]) -> None:
        """Name those of `keys` that are there and change nothing."""
        named = [f"{self._prefix}{key}" for key in keys if key in self._entries]
        if named:
            self.warnings.append(f"model-config.yaml: without effect: {', '.join(named)}")

    def number(
        self, key: str, *, lowest: int = -_MAX_INT, at_least: int | None = None
    ) -> int | None:
        """An integer; below `lowest` it is ignored, below `at_least` it becomes that."""
        value = self._entries.get(key)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or abs(value) > _MAX_INT:
            self._ignore(key, "is not an integer")
            return None
        if value < lowest:
            self._ignore(key, f"is below {lowest}")
            return None
        return value if at_least is None else max(value, at_least)

    def number_or(self, key: str, default: int, *, lowest: int) -> int:
        value = self.number(key, lowest=lowest)
        return default if value is None else value

    def numbers(self, key: str) -> tuple[int, ...]:
        value = self._entries.get(key)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(
            isinstance(item, int) and not isinstance(item, bool) and 0 <= item <= _MAX_INT
            for item in value
        ):
            self._ignore(key, "is not a list of device numbers")
            return ()
        return tuple(value)

    def seconds(self, key: str) -> float | None:
        """Milliseconds in the file; 0 means none."""
        value = self.number(key, lowest=0)
        return value / 1000 if value else None

    def duration(self, key: str, *, may_be_none: bool = False) -> float | None:
        """Seconds in the file, whole or not; 0 only if that means something."""
        value = self._entries.get(key)
        if value is None:
            return None
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not 0 <= value < 1e9 or (value == 0 and not may_be_none):
            self._ignore(key, "is not a time in seconds")
            return None
        return float(value)

    def truth(self, key: str) -> bool:
        value = self._entries.get(key)
        if value is not None and not isinstance(value, bool):
            self._ignore(key, "is not true or false")
        return value is True

    def is_false(self, key: str) -> bool:
        return self._entries.get(key) is False

    def text(self, key: str) -> str | None:
        value = self._entries.get(key)
        if value is not None and not isinstance(value, str):
            self._ignore(key, "is not a text")
            return None
        return value

    def word(self, key: str, words: frozenset[str]) -> str | None:
        text = self.text(key)
        if text is None:
            return None
        if text.lower() not in words:
            self._ignore(key, f"is none of {', '.join(sorted(words))}")
            return None
        return text.lower()

    def section(self, key: str) -> _Keys | None:
        value = self._entries.get(key)
        if value is None:
            return None
        if not isinstance(value, dict):
            self._ignore(key, "is not a map")
            return None
        return _Keys(value, self.warnings, f"{key}.")
