"""One version of a model: what it should be, and how far it is.

    REGISTERED --scale--> SCALING --settled--> STEADY --scale / lost--> SCALING
       |  \\                |  \\----fail----> FAILED --scale--> SCALING
       |   \\---drain-------+--------drain-----> DRAINING --gone--> GONE
       \\------fail (no archive)------------> FAILED

Source: design section 4; contracts/torchserve.md 3.3 and 3.6 for what describe shows.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from stoker.supervisor.batching import BatchPolicy
from stoker.supervisor.fences import Fence
from stoker.supervisor.jobs import ImpossibleMove
from stoker.supervisor.recycling import NO_LIMITS, Limits
from stoker.supervisor.sequences import SequencePolicy


class VersionKey(NamedTuple):
    model: str
    version: str


class VersionState(enum.Enum):
    REGISTERED = "registered"
    SCALING = "scaling"
    STEADY = "steady"
    FAILED = "failed"
    DRAINING = "draining"
    GONE = "gone"


class VersionEvent(enum.Enum):
    SCALE = "scale"
    SETTLED = "settled"
    LOST = "lost"
    FAIL = "fail"
    DRAIN = "drain"
    EMPTIED = "emptied"


_S, _E = VersionState, VersionEvent

VERSION_MOVES: Final[dict[VersionState, dict[VersionEvent, VersionState]]] = {
    _S.REGISTERED: {_E.SCALE: _S.SCALING, _E.FAIL: _S.FAILED, _E.DRAIN: _S.DRAINING},
    _S.SCALING: {
        _E.SCALE: _S.SCALING,
        _E.SETTLED: _S.STEADY,
        _E.FAIL: _S.FAILED,
        _E.DRAIN: _S.DRAINING,
    },
    _S.STEADY: {
        _E.SCALE: _S.SCALING,
        _E.LOST: _S.SCALING,
        _E.FAIL: _S.FAILED,
        _E.DRAIN: _S.DRAINING,
    },
    _S.FAILED: {_E.SCALE: _S.SCALING, _E.FAIL: _S.FAILED, _E.DRAIN: _S.DRAINING},
    _S.DRAINING: {_E.DRAIN: _S.DRAINING, _E.EMPTIED: _S.GONE},
    _S.GONE: {},
}


def move(state: VersionState, event: VersionEvent) -> VersionState:
    """Raises ImpossibleMove if the table knows no such move."""
    try:
        return VERSION_MOVES[state][event]
    except KeyError:
        raise ImpossibleMove(f"a {state.value} version cannot {event.value}") from None


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a version cannot run, for describe and for the waiting call."""

    message: str
    last_line: str
    is_out_of_memory: bool = False


@dataclass(eq=False)
class VersionSpec:
    """Everything registered about one version.

    Fixed for its life, but for what `Served.tune` changes; worker counts are the crew's.

    Attributes:
        parallel_type: "", "pp", "tp", "pptp" or "custom".
        parallel_level: Devices, and but for "custom" processes, of one worker; 0 = one of each.
        omp_threads: OMP_NUM_THREADS of each of those processes.
        python: The interpreter of its workers; "" for the server's own.
        packages_dir: Found by its workers before what the server has installed.
        jobs_at_once: Jobs that one worker works on at once, where they join and leave
            one by one; 0: it works on one batch after the other.
        uses_job_tickets: A job is only taken while a worker waits for one.
        sequences: Its requests are rows that live in one worker each; such a
            version tries nothing twice.
        fence: Of its workers; None: no fence.
        has_time_limits: False for debugging: loading and answering may take for ever.
        most_workers: As many as there are devices for; None for any number.
        group_devices: Where its bounds count for each device: the devices, or the first of
            each group of neighbours; () where they count for all together.
        max_idle_s: How long a worker beyond the least must not have been needed before it goes.
        queue_wait_target_s: Where the number of workers is not fixed, what 99 of 100 requests
            shall wait for a worker at most.
        required_memory_bytes: Of one worker, as somebody said; 0: nobody did.
        reserved_memory_bytes: What must stay free when one is started.
        is_preloaded: Its workers are forked of a process that has loaded the model.
        number_gpu: Workers that use a GPU, while there are others; None: all that can.
        loading: The rest of what the worker is told (`wire.loading.LoadSpec`
            fields other than gpu_id), opaque here.
        shown: What describe shows beyond what is used here (url, runtime, ...).
    """

    model: str
    version: str
    batch: BatchPolicy = field(default_factory=BatchPolicy)
    queue_capacity: int = 100
    response_timeout_s: float = 120
    startup_timeout_s: float = 120
    max_retry_s: float = 300
    client_timeout_s: float = 0
    max_attempts: int = 2
    quarantine_s: float = 300
    limits: Limits = NO_LIMITS
    fence: Fence | None = None
    device_type: str = "cpu"
    device_ids: tuple[int, ...] = ()
    parallel_type: str = ""
    parallel_level: int = 0
    omp_threads: int = 1
    most_workers: int | None = None
    python: str = ""
    packages_dir: str | None = None
    jobs_at_once: int = 0
    uses_job_tickets: bool = False
    sequences: SequencePolicy | None = None
    has_time_limits: bool = True
    is_loaded_at_startup: bool = False
    is_preloaded: bool = False
    number_gpu: int | None = None
    group_devices: tuple[int, ...] = ()
    max_idle_s: float = 60
    queue_wait_target_s: float = 0.25
    required_memory_bytes: int = 0
    reserved_memory_bytes: int = 0
    loading: dict[str, Any] = field(default_factory=dict)
    shown: dict[str, Any] = field(default_factory=dict)

    @property
    def ranks(self) -> int:
        """Processes of one worker."""
        return 1 if self.parallel_type == "custom" else max(1, self.parallel_level)

    @property
    def key(self) -> VersionKey:
        return VersionKey(self.model, self.version)
