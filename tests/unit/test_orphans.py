"""Who may take which worker of a dead supervisor."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.supervisor.batching import BatchPolicy
from stoker.supervisor.orphans import Orphan, Orphans
from stoker.supervisor.versions import VersionSpec
from stoker.supervisor.worker_record import spec_hash


def version(model: str = "m", **fields: object) -> VersionSpec:
    return VersionSpec(model=model, version="1.0", **fields)


def orphan(worker_id: int, slot: int | None = None) -> Orphan:
    return Orphan(worker_id, 9000 + worker_id if slot is None else slot, 100 + worker_id)


def test_a_version_gets_the_workers_that_have_loaded_just_it():
    """
    In the order of their slots, so that clients see the same numbers at the same places.
    """
    spec = version()
    name = spec_hash(spec)
    orphans = Orphans(spec_hash, [(name, orphan(3)), (name, orphan(1)), ("other", orphan(2))])

    taken = [orphans.take(spec) for _ in range(3)]

    assert taken == [orphan(1), orphan(3), None]


@pytest.mark.parametrize(
    "other",
    [
        {"model": "n"},
        {"device_type": "gpu"},
        {"loading": {"handler": "other"}},
        {"python": "/other"},
        {"packages_dir": "/other"},
        {"batch": BatchPolicy(2, 0.1)},
        {"parallel_type": "pp"},
    ],
)
def test_what_was_loaded_otherwise_is_nobodys(other):
    """
    It would answer for a model that it has not got.
    """
    spec = version()
    orphans = Orphans(spec_hash, [(spec_hash(spec), orphan(1))])

    assert orphans.take(replace(spec, **other)) is None
    assert orphans.take(spec) == orphan(1)


@pytest.mark.parametrize(
    "other",
    [
        {"queue_capacity": 7},
        {"response_timeout_s": 7.0},
        {"max_attempts": 1},
        {"batch": BatchPolicy(1, 9.0)},
        {"shown": {"url": "elsewhere"}},
    ],
)
def test_what_only_the_supervisor_notices_costs_no_loaded_model(other):
    """
    A change of a queue's length is no reason to load gigabytes again.
    """
    spec = version()
    orphans = Orphans(spec_hash, [(spec_hash(spec), orphan(1))])

    assert orphans.take(replace(spec, **other)) == orphan(1)


def test_nobody_gets_one_after_they_were_forgotten():
    """
    They are killed then.
    """
    spec = version()
    orphans = Orphans(spec_hash, [(spec_hash(spec), orphan(1))], [spec_hash(spec)])

    orphans.forget()

    assert orphans.take(spec) is None
    assert orphans.has_dead(spec)


def test_a_death_is_known_by_what_the_dead_had_loaded():
    """
    Of another version's nobody need be careful.
    """
    orphans = Orphans(spec_hash, [], [spec_hash(version())])

    assert orphans.has_dead(version())
    assert not orphans.has_dead(version("n"))
    assert not Orphans().has_dead(version())


models = st.sampled_from("abc")


@given(
    st.lists(models, max_size=12).map(lambda names: list(enumerate(names))),
    st.lists(models, max_size=20),
)
def test_every_orphan_is_taken_once_and_by_its_own_version(living, wishes):
    """
    Two that had the same one would both send it work.
    """
    specs = {name: version(name) for name in "abc"}
    orphans = Orphans(spec_hash, [(spec_hash(specs[name]), orphan(i)) for i, name in living])

    taken = [(name, orphans.take(specs[name])) for name in wishes]

    got = [(name, each) for name, each in taken if each is not None]
    assert len({each.worker_id for _, each in got}) == len(got)
    assert all((each.worker_id, name) in living for name, each in got)
    there, wanted = Counter(name for _, name in living), Counter(wishes)
    assert Counter(name for name, _ in got) == there & wanted
