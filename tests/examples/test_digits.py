"""The README's first command, end to end: a real network behind real processes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.torch, pytest.mark.slow]

DEMO_TIMEOUT_S = 100


def test_demo_agrees_with_the_bare_network_on_every_picture(
    checkout: Path, digits_folder: Path
) -> None:
    """
    Batching, PNG bodies and worker processes must not change one answer.
    """
    before = {process.pid for process in psutil.Process().children(recursive=True)}

    finished = subprocess.run(
        [
            sys.executable,
            str(checkout / "examples" / "digits" / "run.py"),
            *("--demo", "--free-ports", "--folder", str(digits_folder)),
        ],
        check=False,
        capture_output=True,
        text=True,
        timeout=DEMO_TIMEOUT_S,
    )

    assert finished.returncode == 0, finished.stdout + finished.stderr
    served, bare = re.findall(r"^  (?:served|bare) +(\d+ of 360)", finished.stdout, re.MULTILINE)
    assert served == bare
    assert "equal: all 360 answers" in finished.stdout
    after = {process.pid for process in psutil.Process().children(recursive=True)}
    assert after <= before


def test_the_bare_network_learnt_something(digits_folder: Path) -> None:
    """
    Equality with a network that guesses would prove little.
    """
    import train

    pictures = train.held_back(digits_folder)

    digits = train.classify(train.load(digits_folder), [path for path, _ in pictures])

    right = sum(digit == shown for digit, (_, shown) in zip(digits, pictures, strict=True))
    assert len(pictures) == 360
    assert right >= 340


def test_both_samples_show_the_same_seven(checkout: Path) -> None:
    """
    The README asks about one picture in two ways and shows one answer.
    """
    import pictures
    import torch

    folder = checkout / "examples" / "digits"
    from_png = pictures.read((folder / "seven.png").read_bytes())
    from_json = pictures.read(json.loads((folder / "seven.json").read_text()))

    assert torch.allclose(from_png, from_json, atol=1 / 255)
