"""The batch delay, to the instant: awake exactly when `next_due` says, nothing is late."""

from __future__ import annotations

import random

import pytest

from stoker.clock import FakeClock
from stoker.supervisor import actions as a
from stoker.supervisor.batching import BatchPolicy
from stoker.supervisor.engine import Engine
from stoker.supervisor.versions import VersionSpec
from stoker.wire.frames import Reply, SubmittedJob


class Nowhere:
    def place(self, worker_id, spec):
        return None

    def release(self, worker_id):
        pass


@pytest.mark.parametrize("seed", range(20))
def test_a_partial_batch_leaves_at_its_instant_and_not_later(seed):
    """
    Three versions with delays of their own share one timer; a worker that is
    free gets what is due at the very instant that was announced, and a worker
    that becomes free gets what was due meanwhile at that moment.
    """
    rng = random.Random(seed)
    clock = FakeClock(1000 + rng.random())
    engine = Engine(Nowhere())
    policies, free_since, model_of = {}, {}, {}
    for model in ("a", "b", "c"):
        policy = policies[model] = BatchPolicy(rng.randint(2, 6), rng.uniform(0.001, 0.4))
        engine.versions.register(VersionSpec(model, "1", batch=policy, queue_capacity=1000))
    for model in policies:
        # Two slow workers each: then nothing is sent ahead to a busy one.
        engine.versions.scale(engine.registry.find(model).spec.key, 2, 2, clock.now())
    for spawn in engine.take_actions():
        if isinstance(spawn, a.Spawn):
            engine.worker_said_hello(spawn.worker_id, clock.now())
            engine.worker_loaded(spawn.worker_id, clock.now())
            free_since[spawn.worker_id] = clock.now()
            model_of[spawn.worker_id] = spawn.spec.model
    engine.take_actions()
    busy_until: dict[int, tuple[float, int, list[bytes]]] = {}
    arrive_at, sent = clock.now(), 0

    for number in range(3000):
        events = [arrive_at, engine.next_due(), *(at for at, _, _ in busy_until.values())]
        clock.advance(max(0.0, min(events) - clock.now()))
        now = clock.now()
        if engine.next_due() <= now:
            engine.tick(now)
        if arrive_at <= now:
            job_id = number.to_bytes(16, "big")
            engine.submit(SubmittedJob(job_id, rng.choice("abc"), None, now + 60, 0, b""), now)
            arrive_at = now + rng.expovariate(100)
        for worker_id, (at, batch_id, job_ids) in list(busy_until.items()):
            if at <= now:
                del busy_until[worker_id]
                free_since[worker_id] = now
                engine.worker_replied(worker_id, [Reply(batch_id, True, job_ids, [])], now)
        engine.dispatch(now)

        for action in engine.take_actions():
            if isinstance(action, a.SendBatch):
                sent += 1
                model = model_of[action.worker_id]
                free_at = min(at for x, at in free_since.items() if model_of[x] == model)
                del free_since[action.worker_id]
                oldest = action.jobs[0]
                policy = policies[model]
                full_at = action.jobs[-1].arrived_at if len(action.jobs) == policy.max_size else now
                due_at = min(oldest.arrived_at + policy.delay_s, full_at)
                assert now == pytest.approx(max(due_at, free_at), abs=1e-9)
                job_ids = [job.job_id for job in action.jobs]
                until = now + rng.uniform(0.03, 0.1)
                busy_until[action.worker_id] = (until, action.batch_id, job_ids)

    assert sent > 300
