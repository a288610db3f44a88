"""How fast the small network is in one process with nothing around it.

    python benchmarks/bare_loop.py --batch-size 8 --seconds 5

The very code the handlers call; what a server loses against this is its cost.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent / "models"))


def measure(batch_size: int, seconds: float) -> dict[str, float]:
    from cnn import BODY_BYTES, Classifier

    classify = Classifier()
    bodies = [b"x" * BODY_BYTES] * batch_size
    warm = time.perf_counter() + seconds / 4
    while time.perf_counter() < warm:
        classify(bodies)
    done, started, cpu_s = 0, time.perf_counter(), time.process_time()
    while (now := time.perf_counter()) < started + seconds:
        done += len(classify(bodies))
    cpu_s = time.process_time() - cpu_s
    return {"pictures_per_s": done / (now - started), "cpu_us": cpu_s / done * 1e6}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    json.dump(measure(options.batch_size, options.seconds), sys.stdout)
    print()
