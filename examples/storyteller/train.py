"""Learn from the documentation of this checkout; takes seconds.

python examples/storyteller/train.py .build/storyteller/weights.npz
"""

from __future__ import annotations

import argparse
import re
import time
from pathlib import Path

from model import UNITS, Storyteller, use_one_thread

CHECKOUT = Path(__file__).resolve().parents[2]
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "docs/architecture.md",
    "docs/reliability.md",
)
#: More would not make it a poet.
MOST_CHARACTERS = 60_000


def bundled_text() -> str:
    """What people wrote, without tables, code, and marks."""
    text = "\n".join((CHECKOUT / page).read_text(encoding="utf-8") for page in PAGES)
    text = re.sub(r"```.*?```", " ", text, flags=re.S)
    text = re.sub(r"^ *[|+].*$|`[^`\n]*`|\([^)\n]*\)|[*#>\[\]|]", " ", text, flags=re.M)
    return re.sub(r"\s+", " ", text)[:MOST_CHARACTERS]


def train(path: Path, units: int = UNITS) -> None:
    started = time.monotonic()
    use_one_thread()
    text = bundled_text()
    path.parent.mkdir(parents=True, exist_ok=True)
    Storyteller.learn(text, units).save(path)
    print(f"learned from {len(text)} characters in {time.monotonic() - started:.1f} s", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path)
    parser.add_argument("--units", type=int, default=UNITS)
    arguments = parser.parse_args()
    train(arguments.path, arguments.units)
