"""What a benchmark imports is installed by the make target that runs it, in an empty venv too."""

from __future__ import annotations

import ast
import configparser
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"
#: These run in environments of their own.
FOREIGN = BENCHMARKS / "peers" / "programs"


def imported(file: Path) -> set[str]:
    """Top-level names of what a script imports anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names


def normal(requirement: str) -> str:
    name = re.match(r"[\w.-]+", requirement)
    assert name, requirement
    return re.sub(r"[-_.]+", "-", name[0]).lower()


def installed_by_make_bench() -> set[str]:
    """`.[vision]` and the requirements beside it, as the Makefile says."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = config["options"]["install_requires"].split("\n")
    lines += config["options.extras_require"]["vision"].split("\n")
    for folder in (ROOT / "examples" / "digits", BENCHMARKS):
        lines += (folder / "requirements.txt").read_text().split("\n")
    return {normal(line) for line in map(str.strip, lines) if line and not line.startswith("#")}


def test_every_benchmark_finds_what_it_imports() -> None:
    """
    The tests' own environment has more, and hides what is missing.
    """
    files = [file for file in BENCHMARKS.rglob("*.py") if FOREIGN not in file.parents]
    beside = [*(ROOT / "examples").rglob("*.py"), *(ROOT / "tests" / "simulation").glob("*.py")]
    ours = {file.stem for file in (*files, *beside)} | {"stoker", "peers"}
    names = set().union(*map(imported, files)) - ours - set(sys.stdlib_module_names)
    # What is not installed here (matplotlib) is called as it is imported.
    distributions = packages_distributions()

    packages = {name: set(map(normal, distributions.get(name, [name]))) for name in names}
    missing = {name for name in names if not packages[name] & installed_by_make_bench()}

    assert missing == set()


def test_both_targets_install_them() -> None:
    makefile = (ROOT / "Makefile").read_text()

    for target in ("bench", "bench-quick"):
        assert re.search(rf"^{target}: \$\(VENV\)/bench$", makefile, re.MULTILINE)
