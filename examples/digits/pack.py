"""Train if needed, then put the network and its handler into one archive.

    python examples/digits/pack.py .build/digits

leaves `.build/digits/model-store/digits.mar`, which `stoker serve
--model-store .build/digits/model-store` can register by name.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from stoker.archives.pack import Parts, pack

HERE = Path(__file__).resolve().parent


def pack_digits(folder: Path) -> Path:
    """Pack the trained weights in `folder`; returns where the archive is."""
    store = folder / "model-store"
    store.mkdir(exist_ok=True)
    parts = Parts(
        model_name="digits",
        handler=str(HERE / "handler.py"),
        model_file=HERE / "model.py",
        serialized_file=folder / "digits.pt",
        extra_files=(HERE / "pictures.py",),
    )
    return pack(parts, store, force=True)


def make(folder: Path) -> Path:
    """As `pack_digits`, after training the network if that has not been done."""
    if not (folder / "digits.pt").exists():
        import train

        print("training the digits network", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        train.train(folder)
    return pack_digits(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=Path(".build/digits"))
    make(parser.parse_args().folder)
