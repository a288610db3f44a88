"""Names, versions, and which one is meant when none is said."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from stoker.errors import DefaultVersionInUse, ModelNotFound, VersionExists, VersionNotFound
from stoker.supervisor.jobs import ImpossibleMove
from stoker.supervisor.registry import Registry
from stoker.supervisor.versions import VERSION_MOVES, VersionEvent, VersionKey, VersionState, move


@pytest.fixture
def registry():
    registry: Registry[str] = Registry()
    for version in ("2.0", "1.0", "beta"):
        registry.add(VersionKey("bert", version), f"bert {version}")
    registry.add(VersionKey("alexnet", "1.0"), "alexnet 1.0")
    return registry


def test_the_first_registered_version_is_the_default_and_stays_it(registry):
    """
    Versions are opaque: a "higher" one that comes later changes nothing.
    """
    assert registry.default_version("bert") == "2.0"
    assert registry.find("bert") == "bert 2.0"
    assert registry.find("bert", "beta") == "bert beta"


def test_the_default_moves_when_somebody_says_so(registry):
    registry.set_default("bert", "beta")

    assert registry.find("bert") == "bert beta"


def test_the_same_version_twice_is_refused_and_changes_nothing(registry):
    with pytest.raises(VersionExists) as caught:
        registry.add(VersionKey("bert", "1.0"), "another")

    assert caught.value.details == {"model": "bert", "version": "1.0"}
    assert registry.find("bert", "1.0") == "bert 1.0"


@pytest.mark.parametrize("version", [None, "1.0"])
def test_an_unknown_model_is_told_from_an_unknown_version(registry, version):
    with pytest.raises(ModelNotFound):
        registry.find("gpt", version)
    with pytest.raises(VersionNotFound):
        registry.find("bert", "9")


@pytest.mark.parametrize("version", [None, "2.0"])
def test_the_default_cannot_go_while_others_are_there(registry, version):
    with pytest.raises(DefaultVersionInUse):
        registry.check_removable("bert", version)


def test_the_last_version_takes_the_name_with_it(registry):
    assert registry.check_removable("alexnet", None) == "alexnet 1.0"

    registry.discard(VersionKey("alexnet", "1.0"))

    assert registry.names() == ["bert"]
    with pytest.raises(ModelNotFound):
        registry.find("alexnet")


def test_a_default_that_vanishes_is_followed_by_the_oldest(registry):
    """
    A registration that fails may be that of the default.
    """
    registry.discard(VersionKey("bert", "2.0"))

    assert registry.default_version("bert") == "1.0"


def test_refused_changes_leave_the_default_alone(registry):
    with pytest.raises(VersionNotFound):
        registry.set_default("bert", "9")
    with pytest.raises(ModelNotFound):
        registry.set_default("gpt", "1.0")

    assert registry.default_version("bert") == "2.0"


def test_names_are_sorted_and_versions_in_order_of_registration(registry):
    assert registry.names() == ["alexnet", "bert"]
    assert registry.all_versions("bert") == ["bert 2.0", "bert 1.0", "bert beta"]


MODELS, VERSIONS = st.sampled_from("ab"), st.sampled_from("123")


class RegistryLife(RuleBasedStateMachine):
    """The registry against a plain dict of lists."""

    def __init__(self) -> None:
        super().__init__()
        self.registry: Registry[VersionKey] = Registry()
        self.known: dict[str, list[str]] = {}
        self.defaults: dict[str, str] = {}

    @rule(model=MODELS, version=VERSIONS)
    def add(self, model: str, version: str) -> None:
        key = VersionKey(model, version)
        if version in self.known.get(model, []):
            with pytest.raises(VersionExists):
                self.registry.add(key, key)
            return
        self.registry.add(key, key)
        self.known.setdefault(model, []).append(version)
        self.defaults.setdefault(model, version)

    @rule(model=MODELS, version=VERSIONS)
    def set_default(self, model: str, version: str) -> None:
        with contextlib.suppress(ModelNotFound, VersionNotFound):
            self.registry.set_default(model, version)
            self.defaults[model] = version
            assert version in self.known[model]

    @rule(model=MODELS, version=st.none() | VERSIONS)
    def remove(self, model: str, version: str | None) -> None:
        with contextlib.suppress(ModelNotFound, VersionNotFound, DefaultVersionInUse):
            key = self.registry.check_removable(model, version)
            assert key.version == (version or self.defaults[model])
            assert key.version != self.defaults[model] or len(self.known[model]) == 1
            self.registry.discard(key)
            self.known[model].remove(key.version)
            if not self.known[model]:
                del self.known[model], self.defaults[model]

    @invariant()
    def agrees(self) -> None:
        assert self.registry.names() == sorted(self.known)
        assert sorted(self.registry) == sorted((m, v) for m, vs in self.known.items() for v in vs)
        for model, versions in self.known.items():
            assert [key.version for key in self.registry.all_versions(model)] == versions
            assert self.registry.find(model).version == self.defaults[model]
            assert self.registry.default_version(model) in versions


RegistryLife.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
test_every_name_has_a_default_that_exists = RegistryLife.TestCase

# -- a version's life -----------------------------------------------------------

S, E = VersionState, VersionEvent

#: Written out a second time on purpose: the table is the promise.
EXPECTED = {
    (S.REGISTERED, E.SCALE): S.SCALING,
    (S.REGISTERED, E.FAIL): S.FAILED,
    (S.REGISTERED, E.DRAIN): S.DRAINING,
    (S.SCALING, E.SCALE): S.SCALING,
    (S.SCALING, E.SETTLED): S.STEADY,
    (S.SCALING, E.FAIL): S.FAILED,
    (S.SCALING, E.DRAIN): S.DRAINING,
    (S.STEADY, E.SCALE): S.SCALING,
    (S.STEADY, E.LOST): S.SCALING,
    (S.STEADY, E.FAIL): S.FAILED,
    (S.STEADY, E.DRAIN): S.DRAINING,
    (S.FAILED, E.SCALE): S.SCALING,
    (S.FAILED, E.FAIL): S.FAILED,
    (S.FAILED, E.DRAIN): S.DRAINING,
    (S.DRAINING, E.DRAIN): S.DRAINING,
    (S.DRAINING, E.EMPTIED): S.GONE,
}


@pytest.mark.parametrize("event", VersionEvent)
@pytest.mark.parametrize("state", VersionState)
def test_every_cell_of_the_version_table_is_as_drawn(state, event):
    """
    A pair that is missing is a bug in us and must never pass silently.
    """
    if (state, event) in EXPECTED:
        assert move(state, event) is EXPECTED[state, event]
    else:
        with pytest.raises(ImpossibleMove, match=f"a {state.value} version cannot {event.value}"):
            move(state, event)


def test_a_version_that_is_gone_stays_gone():
    assert set(VERSION_MOVES) == set(VersionState)
    assert [state for state, moves in VERSION_MOVES.items() if not moves] == [S.GONE]


def test_versions_take_turns_where_none_is_named():
    """
    DJL Serving's rule (contracts/djl-serving.md 3.2); one that cannot take a job is passed over.
    """
    registry: Registry[str] = Registry()
    for version in ("1", "2", "3"):
        registry.add(VersionKey("m", version), version)
    able = {"1", "2", "3"}

    turns = [registry.next_of("m", able.__contains__) for _ in range(4)]
    able.discard("2")
    turns += [registry.next_of("m", able.__contains__) for _ in range(3)]

    assert turns == ["1", "2", "3", "1", "3", "1", "3"]


def test_turns_go_on_when_nobody_can_take_a_job():
    """
    Somebody must say no; not always the same one.
    """
    registry: Registry[str] = Registry()
    for version in ("1", "2"):
        registry.add(VersionKey("m", version), version)

    assert [registry.next_of("m", lambda _: False) for _ in range(3)] == ["1", "2", "1"]


def test_turns_survive_a_version_that_leaves():
    """
    Whoever is next then may be any of those that are left.
    """
    registry: Registry[str] = Registry()
    for version in ("1", "2", "3"):
        registry.add(VersionKey("m", version), version)
    registry.next_of("m", lambda _: True)
    registry.next_of("m", lambda _: True)
    registry.discard(VersionKey("m", "3"))

    assert {registry.next_of("m", lambda _: True) for _ in range(2)} == {"1", "2"}
    with pytest.raises(ModelNotFound):
        registry.next_of("none", lambda _: True)


def test_a_name_is_taken_by_any_version():
    """
    Who registers without a version means to be the only one.
    """
    registry: Registry[str] = Registry()
    registry.check_name_free("m")
    registry.add(VersionKey("m", "1"), "1")

    with pytest.raises(VersionExists):
        registry.check_name_free("m")


def test_the_default_version_may_go_where_there_is_no_such_thing():
    """
    DJL Serving's endpoints have no default; the oldest that is left becomes ours.
    """
    registry: Registry[str] = Registry()
    for version in ("1", "2"):
        registry.add(VersionKey("m", version), version)

    assert registry.check_removable("m", "1", may_be_default=True) == "1"
    registry.discard(VersionKey("m", "1"))
    assert registry.default_version("m") == "2"
