"""docs/compatibility*.md name a test for every row, and every test they name exists."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
TESTS = CHECKOUT / "tests"
NAMES = ("compatibility", "compatibility-rows", "compatibility-djl", "compatibility-mms")
PAGES = tuple(f"{name}.md" for name in NAMES)
#: `unit/test_x.py::test_name`, `unit/test_x.py`, `doctor/`, or `::test_name` of the file before.
REFERENCE = re.compile(r"`([\w/]*(?:\.py)?(?:::\w+)?)`")


def tables(page: str) -> dict[str, list[list[str]]]:
    """Heading to rows; a row is the texts of its cells."""
    found: dict[str, list[list[str]]] = {}
    heading = ""
    for line in (CHECKOUT / "docs" / page).read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            heading = line[3:]
        elif line.startswith("| ") and not line.startswith(("| #", "|---")):
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            found.setdefault(heading, []).append(cells)
    return found


@cache
def functions_in(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(
        node.name
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    )


@pytest.mark.parametrize("page", PAGES)
def test_every_test_that_is_named_exists(page):
    """
    A reader who doubts a row can run its test.
    """
    missing = []
    for rows in tables(page).values():
        for row in rows:
            file = ""
            for reference in REFERENCE.findall(row[-1]):
                named, _, test = reference.partition("::")
                file = named or file
                path = TESTS / file
                if not path.exists() or (test and test not in functions_in(path)):
                    missing.append(f"{row[0]}: {file}::{test}")

    assert missing == []


@pytest.mark.parametrize(("heading", "count"), [("Checklist (0.2)", 25), ("Errors (1.6)", 50)])
def test_every_row_of_the_contract_is_there(heading, count):
    """
    Numbered, in the contract's order; one without a test says that it is not built.
    """
    rows = tables("compatibility-rows.md")[heading]

    assert [row[0] for row in rows] == [str(i + 1) for i in range(count)]
    for number, _, verdict, test in rows:
        assert (test == "-") == verdict.startswith("not yet"), number


def test_every_section_of_the_rest_contract_is_there():
    """
    Each with a verdict and a test; 4, 5 and 7 are other contracts.
    """
    rows = [row for row in tables("compatibility.md")["Section by section"] if row[0] != "section"]

    sections = [row[0].split()[0] for row in rows]
    assert sections == [
        *(f"1.{i}" for i in range(1, 7)),
        *(f"2.{i}" for i in range(1, 11)),
        *(f"3.{i}" for i in range(1, 12)),
        *(f"6.{i}" for i in range(1, 6)),
        *(f"8.{i}" for i in range(1, 10)),
        *(f"9.{i}" for i in range(1, 7)),
        *(f"10.{i}" for i in range(1, 5)),
        "11",
        "A1-A10",
        "A11",
    ]
    assert all(row[2] != "-" for row in rows[:-1])
