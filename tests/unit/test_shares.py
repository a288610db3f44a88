"""What one of many may take of what all share."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stoker.shares import Budget, may_take


def greedy(limit: int, takers: int) -> list[int]:
    """What each of them ends up with who takes one at a time for as long as it may."""
    held = [0] * takers
    while True:
        before = sum(held)
        for i in range(takers):
            if may_take(1, held[i], sum(held), limit):
                held[i] += 1
        if sum(held) == before:
            return held


def test_one_alone_gets_seven_eighths():
    assert greedy(4096, 1) == [3584]


def test_one_of_a_few_gets_everything():
    """
    Where a share would be nothing at all, nothing is set aside.
    """
    assert [greedy(limit, 1) for limit in (1, 2, 7)] == [[1], [2], [7]]


def test_several_greedy_ones_leave_something_for_the_next():
    held = greedy(4096, 3)

    assert max(held) - min(held) <= 1
    assert may_take(100, 0, sum(held), 4096)


def test_the_largest_body_passes_when_nothing_else_is_there():
    """
    Sharing is for when there is somebody to share with.
    """
    assert Budget(1000).take(1000, 0)
    assert not Budget(1000).take(1001, 0)


@given(st.integers(1, 60), st.lists(st.tuples(st.integers(0, 2), st.integers(1, 30)), max_size=40))
def test_a_budget_says_what_the_rule_says(limit, wishes):
    """
    It asks the rule only when it must.
    """
    budget, own = Budget(limit), [0, 0, 0]
    for who, size in wishes:
        expected = may_take(size, own[who], budget.taken_bytes, limit)
        assert budget.take(size, own[who]) == expected
        own[who] += size * expected
        assert budget.taken_bytes == sum(own) <= limit
