"""What a worker is told to load."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final

from stoker.errors import ProtocolError

#: How the processes of one worker tell themselves apart, in torchrun's words.
RANK_VARIABLES: Final = ("RANK", "LOCAL_RANK", "ROLE_RANK")

BATCHES: Final = "batches"
CONTINUOUS: Final = "continuous"
ASYNC: Final = "async"


@dataclass(frozen=True, slots=True)
class LoadSpec:
    """One version on one device, as its worker sees it.

    Attributes:
        model_dir: Absolute folder of the unpacked archive; None when the
            handler comes from PYTHONPATH alone.
        handler: As in the manifest or the request: `module`, `module.py`,
            `path/to/module.py:function`, `package.module:function`.
        manifest: The raw MANIFEST.json, or None.
        config: The parsed model-config.yaml, or {}.
        envelope: `service_envelope`, or "".
        gpu_id: Index among the devices the worker can see; None on CPU.
        decode_request: False hands every value out as bytearray.
        max_response_bytes: An answer above that fails its request alone.
        mode: How the handler is called: with one batch after the other (`BATCHES`), at
            every step with whatever requests are there (`CONTINUOUS`), or with every
            request by itself while others are in progress (`ASYNC`).
        jobs_at_once: How many requests are there at once, in the latter two.
        ranks: Processes of this worker; the one that gets this starts the others.
        is_broadcast: Every rank gets every batch, not the first alone.
        response_timeout_s: How long the worker may be silent over one batch.
        is_idempotent: A request may be given to a handler twice; else the worker
            must not begin a batch before the supervisor can know the last one ended.
        metrics: The metrics that the configuration names: name, type, unit, labels.
        detects_metrics: Others count as well.
        prints_metrics: Updates are printed and not sent.
        sequence_headers: Names of the headers that name, start and end a sequence;
            [] where there are no sequences.
        sequence_max_idle_s: A sequence without a request for so long has ended.
        sequence_timeout_s: One that is so old has ended; 0: none has.
        adapters_name: Of the file that the workers share, if the model takes adapters.
        orphan_grace_s: How long the worker looks for a successor of its supervisor;
            0: it ends with it.
        arena: Folder of the frontends' shared memory.
    """

    model: str
    version: str
    handler: str
    model_dir: str | None = None
    manifest: dict[str, Any] | None = None
    config: dict[str, Any] = field(default_factory=dict)
    contract: str = "torchserve"
    envelope: str = ""
    batch_size: int = 1
    gpu_id: int | None = None
    decode_request: bool = True
    limit_max_image_pixels: bool = True
    max_response_bytes: int = 6_553_500
    mode: str = BATCHES
    jobs_at_once: int = 0
    ranks: int = 1
    is_broadcast: bool = False
    response_timeout_s: float = 120.0
    is_idempotent: bool = True
    metrics: list[list[Any]] = field(default_factory=list)
    detects_metrics: bool = True
    prints_metrics: bool = True
    orphan_grace_s: float = 0.0
    adapters_name: str = ""
    sequence_headers: list[str] = field(default_factory=list)
    sequence_max_idle_s: float = 0.0
    sequence_timeout_s: float = 0.0
    arena: str = ""

    def to_wire(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_wire(cls, spec: dict[str, Any]) -> LoadSpec:
        """Raises ProtocolError when a key is missing or unknown."""
        if unknown := spec.keys() - {item.name for item in fields(cls)}:
            raise ProtocolError(f"unknown keys in a load spec: {sorted(unknown)}")
        try:
            return cls(**spec)
        except TypeError:
            raise ProtocolError("a load spec lacks a key") from None
