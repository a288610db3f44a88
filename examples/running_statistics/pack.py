"""Put the handler and its configuration into one archive.

    python examples/running_statistics/pack.py .build/models

leaves `.build/models/running_statistics.mar`, which `stoker serve
--model-store .build/models` can register by name.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from stoker.archives.pack import Parts, pack

HERE = Path(__file__).resolve().parent


def pack_into(store: Path) -> Path:
    """Returns where the archive is."""
    store.mkdir(parents=True, exist_ok=True)
    parts = Parts(
        model_name="running_statistics",
        handler=str(HERE / "handler.py"),
        config_file=HERE / "model-config.yaml",
    )
    return pack(parts, store, force=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", type=Path, nargs="?", default=Path(".build/models"))
    print(pack_into(parser.parse_args().store))
