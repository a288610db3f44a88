"""How often things go wrong, and how a version's handler behaves."""

from __future__ import annotations

import random
from dataclasses import dataclass

from sim_sequences import random_policy

from stoker.supervisor.batching import BatchPolicy
from stoker.supervisor.recycling import NO_LIMITS, Limits
from stoker.supervisor.versions import VersionSpec

GIB = 1 << 30
#: What some requests say, and what it does to a worker.
POISONS = (b"kills at once     0", b"kills at once     1", b"kills later       2")
POISONED = 0.008


@dataclass(frozen=True)
class Faults:
    """Probabilities; each is asked once at the moment it could happen."""

    spawn_fails: float = 0.0
    never_says_hello: float = 0.0
    dies_before_hello: float = 0.0
    dies_loading: float = 0.0
    hangs_loading: float = 0.0
    fails_loading: float = 0.0
    lingers_after_failed_load: float = 0.0
    dies_working: float = 0.0
    hangs_working: float = 0.0
    overruns: float = 0.0
    lies: float = 0.0
    leaves_some_unanswered: float = 0.0
    ignores_leave: float = 0.0
    dies_leaving: float = 0.0
    ignores_abort: float = 0.0
    answers_when_aborted: float = 0.0
    dies_slowly: float = 0.0
    survives_a_kill: float = 0.0
    grows: float = 0.0
    is_shot: float = 0.0
    speaks_after_death: float = 0.0


CALM = Faults()

WILD = Faults(
    spawn_fails=0.02,
    never_says_hello=0.01,
    dies_before_hello=0.02,
    dies_loading=0.03,
    hangs_loading=0.02,
    fails_loading=0.03,
    lingers_after_failed_load=0.2,
    dies_working=0.003,
    hangs_working=0.001,
    overruns=0.001,
    lies=0.001,
    leaves_some_unanswered=0.003,
    ignores_leave=0.05,
    dies_leaving=0.05,
    ignores_abort=0.1,
    answers_when_aborted=0.3,
    dies_slowly=0.05,
    survives_a_kill=0.05,
    grows=0.02,
    is_shot=0.0005,
    speaks_after_death=0.2,
)


@dataclass(frozen=True)
class Handler:
    """What the code of one version does.

    Attributes:
        batch_s: Median time of one batch.
        spread: Sigma of its logarithm.
        streams: How often a batch is answered in pieces.
        cannot_load: It never loads, until the calm comes.
        heeds: It looks at `context.cancelled` and stops.
        needs_room: A second worker beside the first runs out of memory.
    """

    load_s: float
    batch_s: float
    spread: float
    streams: float
    cannot_load: bool
    heeds: bool
    needs_room: bool

    def service_s(self, rng: random.Random) -> float:
        return self.batch_s * rng.lognormvariate(0.0, self.spread)


def random_handler(rng: random.Random) -> Handler:
    return Handler(
        load_s=rng.choice((0.01, 0.1, 0.5)),
        batch_s=rng.choice((0.00002, 0.0003, 0.002, 0.01, 0.05, 0.2)),
        spread=rng.choice((0.0, 0.3, 1.0)),
        streams=rng.choice((0.0, 0.0, 0.05, 0.5)),
        cannot_load=rng.random() < 0.08,
        heeds=rng.random() < 0.4,
        needs_room=rng.random() < 0.2,
    )


def random_limits(rng: random.Random) -> Limits:
    return Limits(
        jobs=rng.choice((0, 0, 5, 200)),
        age_s=rng.choice((0.0, 0.0, 1.0, 5.0)),
        memory_bytes=rng.choice((0, 2 * GIB)),
        kill_bytes=rng.choice((0, 4 * GIB)),
    )


def random_spec(rng: random.Random, model: str, version: str) -> VersionSpec:
    """Limits short enough for everything to happen within a minute."""
    sequences = random_policy(rng) if rng.random() < 0.2 else None
    many = sequences is None and rng.random() < 0.25
    return VersionSpec(
        sequences=sequences,
        jobs_at_once=rng.choice((1, 2, 4, 16)) if many else 0,
        model=model,
        version=version,
        batch=BatchPolicy(
            rng.choice((1, 1, 2, 3, 8, 32)), rng.choice((0.0, 0.0, 0.001, 0.02, 0.1, 0.4))
        ),
        queue_capacity=rng.choice((1, 3, 20, 100)),
        response_timeout_s=rng.choice((0.5, 2.0, 5.0)),
        startup_timeout_s=rng.choice((1.0, 3.0)),
        max_retry_s=rng.choice((0.0, 3.0, 15.0)),
        client_timeout_s=rng.choice((0.0, 0.0, 0.0, 0.05, 0.5)),
        max_attempts=rng.choice((1, 2, 2, 3)) if sequences is None else 1,
        quarantine_s=rng.choice((0.0, 1.0, 20.0, 20.0)),
        limits=rng.choice((NO_LIMITS, NO_LIMITS, random_limits(rng))),
        device_type=rng.choice(("cpu", "gpu")),
        max_idle_s=rng.choice((0.0, 1.0, 10.0)),
        queue_wait_target_s=rng.choice((0.001, 0.05, 0.5)),
        required_memory_bytes=rng.choice((0, 0, GIB)),
        reserved_memory_bytes=rng.choice((0, GIB)),
    )
