"""Configuration against stored state: the latest word wins, and the other one is named."""

from __future__ import annotations

from typing import Any

import pytest

from stoker.archives.snapshot import Snapshot, SnapshotEntry
from stoker.archives.startup import StartupModel
from stoker.supervisor import start_plan as sp
from stoker.supervisor.desired import DesiredState, DesiredVersion, PutItem
from stoker.supervisor.start_plan import Conflict, StartPlan, decide_workers, plan_start
from stoker.supervisor.versions import VersionKey


def item(url: str, model: str | None = None) -> StartupModel:
    return StartupModel(url, model, "default")


def state(*versions: DesiredVersion, items: tuple[StartupModel, ...] = ()) -> DesiredState:
    made = DesiredState()
    for version in versions:
        made.apply(made.registering(version))
    made.apply([PutItem(each.key) for each in items])
    return made


def plan(
    stored: DesiredState, *items: StartupModel, snapshot: Snapshot | None = None, **more: Any
) -> StartPlan:
    return plan_start(stored, items, snapshot, **{"goes_on": False, "now": 5.0, **more})


def after(stored: DesiredState, decided: StartPlan) -> DesiredState:
    stored.apply(decided.edits)
    return stored


def events(decided: StartPlan) -> list[str]:
    return [conflict.event for conflict in decided.conflicts]


A, B = item("a.mar"), item("b.mar")
BY_CALL = DesiredVersion("called", "1.0", asked={"url": "called.mar"})
BY_A = DesiredVersion("a", "1.0", asked={"url": "a.mar"}, item=A.key)
BY_B = DesiredVersion("b", "1.0", asked={"url": "b.mar"}, item=B.key)


# -- load_models -------------------------------------------------------------------------


def test_an_item_that_is_new_is_registered() -> None:
    decided = plan(state(BY_CALL), A)

    assert decided.fresh == [A]
    assert decided.edits == []
    assert decided.conflicts == []


def test_an_item_acted_on_before_is_restored_as_it_is_and_its_file_looked_at() -> None:
    """
    Its worker counts and its default are the calls'; its file is the operator's.
    """
    decided = plan(state(BY_CALL, BY_A, items=(A,)), A)

    assert decided.fresh == []
    assert decided.may_have_changed == {BY_A.key}
    assert decided.conflicts == []


def test_an_item_that_a_call_unregistered_stays_away_and_is_named() -> None:
    """
    Otherwise every restart would bring it back; the command line must know that it lost.
    """
    decided = plan(state(BY_CALL, items=(A,)), A)

    assert decided.fresh == []
    assert decided.conflicts == [Conflict(sp.STAYS_AWAY, {"url": "a.mar", "model": None})]


def test_what_came_with_the_command_line_goes_with_it() -> None:
    """
    Somebody who starts it with b.mar does not expect a.mar any more.
    """
    stored = state(BY_CALL, BY_A, items=(A,))

    decided = plan(stored, B)

    assert decided.fresh == [B]
    assert decided.conflicts == [Conflict(sp.LEAVES, {"model": "a", "version": "1.0"})]
    left = after(stored, decided)
    assert list(left.versions) == [BY_CALL.key]
    assert left.defaults == {"called": "1.0"}
    assert left.items == {}


def test_several_that_leave_take_their_models_and_defaults_along() -> None:
    """
    Two versions of one model, one of them the default: what is left agrees with itself.
    """
    c = item("c.mar")
    second = DesiredVersion("a", "2.0", item=B.key)
    third = DesiredVersion("a", "3.0", item=c.key)
    stored = state(BY_A, second, third, items=(A, B, c))

    left = after(stored, plan(stored, c))

    assert list(left.versions) == [third.key]
    assert left.defaults == {"a": "3.0"}
    assert list(left.items) == [c.key]


def test_a_name_in_front_makes_it_another_item() -> None:
    decided = plan(state(BY_A, items=(A,)), item("a.mar", "other"))

    assert [fresh.model for fresh in decided.fresh] == ["other"]
    assert events(decided) == [sp.LEAVES]


def test_a_repaired_crash_asks_nobody() -> None:
    """
    A file may have been edited since the server was started; a crash is no time to read it.
    """
    stored = state(BY_CALL, BY_A, items=(A, B))

    decided = plan(stored, B, item("c.mar"), goes_on=True)

    assert decided.edits == []
    assert decided.conflicts == []
    assert decided.may_have_changed == set()
    assert decided.fresh == [item("c.mar")], "what the first start did not come to"


# -- model_snapshot ----------------------------------------------------------------------

SNAPSHOT = Snapshot(
    "x.cfg",
    (
        SnapshotEntry("demo", "1.0", "demo.mar", min_workers=1, max_workers=2, batch_size=4),
        SnapshotEntry("demo", "2.0", "demo2.mar", is_default=True, max_batch_delay_s=0.05),
    ),
)


def test_a_snapshot_pointed_at_is_everything_there_is() -> None:
    stored = state(BY_CALL, BY_A, items=(A,))

    decided = plan(stored, snapshot=SNAPSHOT)

    assert decided.replaces_everything
    assert events(decided) == [sp.REPLACED_BY_SNAPSHOT] * 2
    left = after(stored, decided)
    assert list(left.versions) == [VersionKey("demo", "1.0"), VersionKey("demo", "2.0")]
    assert left.defaults == {"demo": "2.0"}
    first = left.versions[VersionKey("demo", "1.0")]
    assert (first.min_workers, first.max_workers) == (1, 2)
    assert first.asked == {"url": "demo.mar", "batch_size": 4}
    assert first.registered_at == 5.0
    assert len(left.items) == 1


def test_a_snapshot_is_restored_once_and_then_calls_hold() -> None:
    """
    A unit file that names it would otherwise undo every call at every restart.
    """
    stored = DesiredState()
    after(stored, plan(stored, snapshot=SNAPSHOT))
    stored.apply(stored.unregistering(VersionKey("demo", "1.0")))

    again = plan(stored, snapshot=SNAPSHOT)

    assert again.edits == []
    assert events(again) == [sp.SNAPSHOT_TAKEN]
    other = plan(stored, snapshot=Snapshot("y.cfg", SNAPSHOT.entries))
    assert other.replaces_everything


def test_without_the_snapshot_its_models_stay_and_it_counts_as_new_again() -> None:
    stored = DesiredState()
    after(stored, plan(stored, snapshot=SNAPSHOT))

    after(stored, plan(stored))

    assert len(stored.versions) == 2
    assert stored.items == {}
    assert plan(stored, snapshot=SNAPSHOT).replaces_everything


def test_items_beside_a_new_snapshot_come_on_top_of_it() -> None:
    stored = state(BY_A, items=(A,))

    decided = plan(stored, A, snapshot=SNAPSHOT)

    assert decided.fresh == [A]
    assert BY_A.key not in after(stored, decided).versions


# -- worker counts -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "now", "counts", "becomes", "event"),
    [
        ("", "", (1, 1), (3, 3), None),
        ("2//", "2//", (2, 2), (3, 3), sp.WORKERS_OF_CALL),
        ("2//", "4//", (4, 4), (4, 4), sp.WORKERS_OF_START),
        ("", "4//", (4, 4), (4, 4), sp.WORKERS_OF_START),
        ("2//", "", (1, 1), (3, 3), None),
        ("2//", "3//", (3, 3), (3, 3), None),
    ],
    ids=["nothing said", "said before", "said anew", "said first", "said no more", "the same"],
)
def test_worker_counts_are_whose_word_is_the_later(
    before: str, now: str, counts: tuple[int, int], becomes: tuple[int, int], event: str | None
) -> None:
    """
    A scale call holds until the configuration says something else than it did then.
    """
    version = DesiredVersion("a", "1.0", 3, 3, item=A.key, configured_workers=before)

    decided, conflict = decide_workers(version, now, counts)

    assert (decided.min_workers, decided.max_workers) == becomes
    assert decided.configured_workers == now
    assert (conflict.event if conflict else None) == event
    if conflict is not None:
        assert conflict.facts["of_call"] == "3-3"
        assert conflict.facts["of_configuration"] == f"{counts[0]}-{counts[1]}"
