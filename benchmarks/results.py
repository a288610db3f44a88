"""The figures of the last full run: kept beside the code, so that the page can be made again.

`benchmarks/results.json`: one key per part of the run, each with the moment
and the commit it was measured at.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
import re
import subprocess
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
FILE = HERE / "results.json"
#: A list of plain values: forty lines for forty numbers are no help to a reader.
LIST = re.compile(r"\[[^\[\]{}]*\]")
OUR_LIBRARIES = ("falcon", "gunicorn", "uvicorn", "uvloop", "httptools", "pyzmq", "msgpack")

Results = dict[str, Any]


def load(path: Path = FILE) -> Results:
    if not path.exists():
        return {}
    read: Results = json.loads(path.read_text())
    return read


def store(part: str, figures: Any, path: Path = FILE) -> Results:
    """Replace one part of the file; the others stay as they were measured."""
    results = load(path)
    results[part] = {
        "at": time.strftime("%Y-%m-%d %H:%M"),
        "commit": commit(),
        "figures": _plain(figures),
    }
    results["machine"] = machine()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(LIST.sub(_one_line, json.dumps(results, indent=1)) + "\n")
    return results


def _one_line(found: re.Match[str]) -> str:
    return " ".join(found[0].split())


def _plain(value: Any) -> Any:
    """Four significant digits, and no infinities, which JSON lacks."""
    if isinstance(value, float):
        return float(f"{value:.4g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return value


def commit() -> str:
    found = subprocess.run(
        ["git", "-C", str(HERE), "rev-parse", "--short", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip() or "unknown"


def machine() -> dict[str, Any]:
    return {
        "cpus": os.cpu_count(),
        "cpu": _cpu_name(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "kernel": platform.release().split("-")[0],
        "python": platform.python_version(),
        "libraries": {name: importlib.metadata.version(name) for name in OUR_LIBRARIES},
    }


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
