"""The autoscaler against recorded and made loads, from seeds; see `scale_world.py`.

Held, whatever the load: 99 of 100 requests wait no longer than the target
wherever the maximum permits it and a worker can have started in time; at a
constant load the count turns round at most once a minute; after the load it
is the minimum again.
"""

from __future__ import annotations

import os

import pytest
from load_shapes import (
    bursts,
    constant,
    diurnal,
    ramp,
    recorded,
    sawtooth,
    spike,
    step,
)
from scale_world import Model, Run, play

from stoker.supervisor import scaling

#: `make simulation` takes more seeds.
SEEDS = range(int(os.environ.get("STOKER_SCALING_SEEDS", "1")))
LOADS = (0.05, 0.6, 1.6, 3.3) if len(SEEDS) > 1 else (0.05, 1.6)

SINGLE = Model()
MODELS = {
    "one by one": SINGLE,
    "batches that cost what their requests cost": Model(
        fixed_s=0.01, each_s=0.05, batch_size=8, delay_s=0.05, high=12
    ),
    "batches that cost the same": Model(
        fixed_s=0.15, each_s=0.002, batch_size=8, delay_s=0.05, start_s=6.0
    ),
    "times that vary wildly": Model(each_s=0.08, spread=1.0, high=12),
    "a slow start": Model(start_s=12.0, high=12),
}
SHAPES = {
    "step": lambda seed: step(),
    "ramp": lambda seed: ramp(),
    "spike": lambda seed: spike(),
    "sawtooth": lambda seed: sawtooth(),
    "bursts": bursts,
    "diurnal": lambda seed: diurnal(),
    "recorded": lambda seed: recorded(),
}


#: All of them in the long form; two kinds for every shape else.
PAIRS = [
    (name, kind)
    for place, name in enumerate(SHAPES)
    for other, kind in enumerate(MODELS)
    if len(SEEDS) > 1 or (other - place) % len(MODELS) in (0, 2)
]


def late_s(model: Model) -> float:
    """After a jump, until a worker can have started and worked off what has queued meanwhile."""
    return 5.0 + 3 * model.start_s


def worst_minute(turns: list[float]) -> int:
    return max((sum(at <= other < at + 60 for other in turns) for at in turns), default=0)


def check_served(run: Run) -> None:
    """Everybody is answered, within the bounds, and afterwards it is as it was before."""
    model = run.model
    assert run.refused == {}
    assert run.answered == run.asked
    assert all(model.low <= second.workers <= model.high for second in run.seconds)
    assert run.seconds[-1].workers == model.low


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_the_wait_keeps_to_its_target_wherever_that_can_be(name, kind, seed):
    """
    What an operator asks for with a range of workers instead of a number.
    """
    model = MODELS[kind]

    run = play(seed, SHAPES[name](seed), model)

    check_served(run)
    assert run.wait_p99_s(late_s(model)) <= model.target_s + model.delay_s


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("load", LOADS)
def test_a_constant_load_does_not_make_it_swing(load, kind, seed):
    """
    A swing costs a start each time, and those who meet it the wait for one.
    """
    model = MODELS[kind]
    shape = constant(load / (model.fixed_s / model.batch_size + model.each_s))

    run = play(seed, shape, model)

    turns = [at for at in run.reversals(since=60.0) if at < shape.quiet_s]
    assert worst_minute(turns) <= 1
    assert len(turns) <= 3, "nor all day long"


@pytest.mark.parametrize("idle_s", [1.0, 10.0, 60.0])
def test_after_idle_it_is_the_minimum_again(idle_s):
    """
    `max_idle_time` of DJL Serving: so long after the last request.
    """
    model = Model(max_idle_s=idle_s)
    shape = step()

    run = play(1, shape, model)

    at_rest = next(
        second
        for second, each in enumerate(run.seconds)
        if second > shape.quiet_s and each.workers == model.low
    )
    assert at_rest - shape.quiet_s <= idle_s + 15.0


def test_where_the_maximum_does_not_permit_it_all_of_them_work():
    model = Model(high=3)

    run = play(1, step(high=60.0), model)

    busy = run.seconds[80:230]
    assert {second.ready for second in busy} == {3}
    assert run.changes[-1][2] == 1


@pytest.mark.parametrize("seed", SEEDS)
def test_a_version_that_sleeps_serves_whoever_comes(seed):
    """
    Scale to zero: who comes first waits for a start, nobody is refused.
    """
    model = Model(low=0, max_idle_s=5.0, start_s=2.0)

    run = play(seed, constant(0.05), model)

    check_served(run)
    assert sum(second.workers == 0 for second in run.seconds) > 100
    longest = max(waited for _, waited in run.waits)
    assert longest < 3 * model.start_s


@pytest.mark.parametrize("seed", SEEDS)
def test_workers_that_are_killed_cost_no_answer_and_no_bound(seed):
    """
    SIGKILL now and then, all the time, also of those that are just starting.
    """
    model = Model(dies_every_s=15.0)

    run = play(seed, diurnal(), model)

    assert run.deaths > 30
    assert run.answered == run.asked
    assert all(second.workers <= model.high for second in run.seconds)
    assert run.seconds[-1].workers == model.low


def test_memory_bounds_it_where_nobody_else_does():
    """
    Room for three and no more: the fourth is not tried again and again.
    """
    gib = 1 << 30
    model = Model(high=8, worker_bytes=gib)

    run = play(1, step(high=60.0), model, free_bytes=3 * gib + gib // 2)

    assert max(second.workers for second in run.seconds) == 3
    assert {second.ready for second in run.seconds[80:230]} == {3}


# -- does it notice? ------------------------------------------------------------


def swings(monkeypatch) -> None:
    """Fewer at the first calm look, more at the first busy one, nothing remembered."""
    monkeypatch.setattr(scaling, "_remember", lambda state, missed: state)

    def shrink(policy, state, load, now):
        fewest = max(policy.min_workers, min(load.workers, load.in_hand))
        return scaling.Decision(fewest, "swings", state)

    monkeypatch.setattr(scaling, "_shrink", shrink)


def sleeps(monkeypatch) -> None:
    """More only when all else is too late."""
    monkeypatch.setattr(scaling, "workers_for", lambda load, service_s, target_s, most: 1)
    monkeypatch.setattr(scaling, "_is_late", lambda load: False)


def stays(monkeypatch) -> None:
    """What was started once is kept."""
    monkeypatch.setattr(
        scaling,
        "_shrink",
        lambda policy, state, load, now: scaling.Decision(load.workers, "stays", state),
    )


@pytest.mark.parametrize(
    ("plant", "test", "arguments"),
    [
        (swings, test_a_constant_load_does_not_make_it_swing, (1.6, "one by one", 0)),
        (
            sleeps,
            test_the_wait_keeps_to_its_target_wherever_that_can_be,
            ("diurnal", "one by one", 0),
        ),
        (stays, test_after_idle_it_is_the_minimum_again, (10.0,)),
    ],
)
def test_a_wrong_policy_is_noticed(plant, test, arguments, monkeypatch):
    """
    A check that cannot fail proves nothing.
    """
    plant(monkeypatch)

    with pytest.raises((AssertionError, StopIteration)):
        test(*arguments)


def test_the_same_seed_is_the_same_run():
    shape = constant(5.0, 60.0)

    one, two = play(3, shape, SINGLE), play(3, shape, SINGLE)

    assert one.waits == two.waits
    assert one.changes == two.changes
