"""Train if needed, then put the network and its handler into one archive.

    python examples/storyteller/pack.py .build/models

leaves `.build/models/storyteller.mar`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from stoker.archives.pack import Parts, pack

HERE = Path(__file__).resolve().parent


def make(
    store: Path,
    config: Path = HERE / "model-config.yaml",
    name: str = "storyteller",
    weights: Path | None = None,
) -> Path:
    """Returns where the archive is; `weights` are made if they are not there, beside the store."""
    store.mkdir(parents=True, exist_ok=True)
    weights = weights or store.parent / "storyteller" / "weights.npz"
    if not weights.exists():
        subprocess.run([sys.executable, HERE / "train.py", weights], check=True)
    parts = Parts(
        model_name=name,
        handler=str(HERE / "handler.py"),
        extra_files=(HERE / "model.py", HERE / "story.py", weights),
        config_file=config,
    )
    return pack(parts, store, force=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", type=Path, nargs="?", default=Path(".build/models"))
    print(make(parser.parse_args().store))
