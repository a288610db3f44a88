"""How fast the digits network is in one process with nothing around it.

    python benchmarks/bare_loop.py .build/digits --seconds 5

Reads the same PNG, makes the same batches and picks the same answer as the
handler does; what the server loses against this is the server's cost.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "digits"
sys.path.append(str(EXAMPLE))


def pictures_per_s(folder: Path, batch_size: int, seconds: float) -> float:
    import pictures
    import torch
    import train

    network = train.load(folder)
    png = (EXAMPLE / "seven.png").read_bytes()
    done, started = 0, time.perf_counter()
    with torch.inference_mode():
        while (now := time.perf_counter()) < started + seconds:
            batch = torch.stack([pictures.read_png(png) for _ in range(batch_size)])
            best = network(batch).softmax(dim=1).max(dim=1)
            done += len(list(zip(best.indices.tolist(), best.values.tolist(), strict=True)))
    return done / (now - started)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    rate = pictures_per_s(options.folder, options.batch_size, options.seconds)
    json.dump({"pictures_per_s": rate}, sys.stdout)
    print()
