"""Only a real slowdown fails the ratios; noise does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

COMMITTED = {"echo, 64 connections": 2.0}


@pytest.fixture
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The command with committed ratios of ours and no servers."""
    import quick

    committed = tmp_path / "ratios.json"
    committed.write_text(json.dumps(COMMITTED))
    monkeypatch.setattr(quick, "RATIOS", committed)
    monkeypatch.setattr("sys.argv", ["quick.py"])
    return quick


def measured(quick: Any, monkeypatch: pytest.MonkeyPatch, *ratios: float) -> list[Any]:
    """Every run finds the next of these; returns the runs made."""
    left = list(ratios)
    runs: list[Any] = []

    def measure(effort: Any, chosen: Any = quick.QUICK) -> dict[str, float]:
        runs.append(chosen)
        return {"echo, 64 connections": left.pop(0)}

    monkeypatch.setattr(quick, "measure", measure)
    return runs


def test_what_a_machine_moves_by_does_not_fail(quick: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A quarter between runs is weather.
    """
    runs = measured(quick, monkeypatch, 2.0 * quick.TOLERANCE - 0.01)

    assert quick.main() == 0
    assert len(runs) == 1


def test_a_slow_run_gets_a_second_one(quick: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Somebody else's job may have used the machine; only what was slow is run again.
    """
    runs = measured(quick, monkeypatch, 9.0, 2.1)

    assert quick.main() == 0
    assert [scenario.name for scenario in runs[1]] == ["echo, 64 connections"]


def test_slow_twice_fails_and_says_what(
    quick: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    That is ours.
    """
    measured(quick, monkeypatch, 9.0, 8.0)

    assert quick.main() == 1
    assert "worse again: echo, 64 connections" in capsys.readouterr().out


def test_every_quick_scenario_has_a_committed_ratio(checkout: Path) -> None:
    """
    One without could never fail.
    """
    import quick

    committed = json.loads((checkout / "benchmarks" / "ratios.json").read_text())

    assert {scenario.name for scenario in quick.QUICK} == set(committed)
    assert all(ratio > 0 for ratio in committed.values())


def test_update_commits_what_was_measured(quick: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Whoever made something faster moves the mark.
    """
    measured(quick, monkeypatch, 1.5)
    monkeypatch.setattr("sys.argv", ["quick.py", "--update"])

    assert quick.main() == 0
    assert json.loads(quick.RATIOS.read_text()) == {"echo, 64 connections": 1.5}
