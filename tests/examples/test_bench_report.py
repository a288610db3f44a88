"""The page says what the run found, nothing else, and nothing is lost silently."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


def window(cpu_us: float, **more: Any) -> dict[str, Any]:
    return {
        "requests": 10,
        "requests_per_s": 1000.0,
        "p50_ms": 1.0,
        "p99_ms": 2.0,
        "mb_per_s": 0.1,
        "cpu_us": cpu_us,
        "cpu_us_by_role": {"frontend": cpu_us},
        "failures": {},
        **more,
    }


def test_only_the_generated_parts_of_a_page_change() -> None:
    """
    The words around them are written by people.
    """
    import report

    page = "before\n<!-- generated: a -->\nold\n<!-- end: a -->\nafter\n"

    filled = report.fill(page, {"a": "new"})

    assert filled == "before\n<!-- generated: a -->\n\nnew\n\n<!-- end: a -->\nafter\n"
    assert report.fill(filled, {"a": "new"}) == filled


def test_a_page_without_one_of_the_parts_is_an_error() -> None:
    """
    Otherwise a table could go missing and nobody would notice.
    """
    import report

    with pytest.raises(report.PageError, match="'b'"):
        report.fill("<!-- generated: a -->\n<!-- end: a -->\n", {"a": "", "b": ""})


def test_the_page_in_docs_has_every_part(checkout: Path) -> None:
    """
    `make bench` ends by writing it; forty minutes later is too late to find out.
    """
    import report

    page = (checkout / "docs" / "performance.md").read_text()

    assert {found[2] for found in report.PART.finditer(page)} == set(report.PARTS)


def test_failures_stand_beside_the_figure() -> None:
    """
    A server that refuses half is not fast.
    """
    import report

    cell = report.cell_of("echo, 64 connections", window(50.0, failures={"503": 4, "refused": 1}))

    assert cell.endswith("5 failed")


def test_what_could_not_be_installed_is_in_the_table() -> None:
    """
    Never silently.
    """
    import report

    figures = {
        "peers": {
            "figures": {
                "versions": {"mosec": {"mosec": "1"}},
                "settings": {"mosec": "defaults"},
                "missing": {"Other": "not installed: needs `java`"},
            }
        },
        "steady": {"figures": {"failed": {"mosec": "did not run: no ports"}}},
    }

    text = report.peers(figures)

    assert "| mosec | mosec 1 | defaults | did not run: no ports |" in text
    assert "| Other | - |  | not installed: needs `java` |" in text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0123, "0.0123"), (56.14, "56.1"), (287.4, "287"), (4123.0, "4,120"), (None, "never")],
)
def test_numbers_have_three_digits(value: float | None, text: str) -> None:
    """
    More would pretend to a precision that the machine does not have.
    """
    import report

    assert report.number(value) == text


def test_windows_are_combined_by_their_median_and_all_failures_count() -> None:
    """
    One disturbed window must not be the figure, and one refusal must not vanish.
    """
    import measuring

    runs = [window(100.0), window(900.0, failures={"503": 2}), window(110.0)]

    figures = measuring.combine(runs)

    assert figures["cpu_us"] == 110.0
    assert figures["cpu_us_by_role"] == {"frontend": 110.0}
    assert figures["failures"] == {"503": 2}
    assert figures["requests"] == 30
    assert figures["cpu_us_spread"] == [100.0, 900.0]


def test_infinity_is_stored_as_nothing(tmp_path: Path) -> None:
    """
    A worker that never came back; JSON has no word for it.
    """
    import results

    file = tmp_path / "results.json"
    results.store("lives", {"next_answer_s": float("inf"), "exact": 1.23456789}, file)

    assert results.load(file)["lives"]["figures"] == {"next_answer_s": None, "exact": 1.235}
