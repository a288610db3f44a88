"""Train the digits network in a few seconds on a CPU, the same way every time.

Leaves in the folder given: `digits.pt` (the weights) and `held-back/` (a fifth of
the pictures as PNG files called NUMBER-DIGIT.png, never trained on).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import pictures
import torch
from model import DigitsNet
from sklearn.datasets import load_digits  # type: ignore[import-untyped]
from sklearn.model_selection import train_test_split  # type: ignore[import-untyped]
from torch.nn.functional import cross_entropy

# So small a network is slower, not faster, when threads share it.
torch.set_num_threads(1)

SEED = 20
EPOCHS = 15
BATCH = 32


def train(folder: Path, seed: int = SEED) -> None:
    """Fill `folder`; prints a line per few epochs.  Another seed makes another network."""
    started = time.monotonic()
    torch.manual_seed(seed)
    digits = load_digits()
    train_ink, held_ink, train_digits, held_digits = train_test_split(
        digits.images, digits.target, test_size=0.2, stratify=digits.target, random_state=SEED
    )
    held_back = folder / "held-back"
    held_back.mkdir(parents=True, exist_ok=True)
    for number, (ink, digit) in enumerate(zip(held_ink, held_digits, strict=True)):
        pictures.write_png(ink, held_back / f"{number:03}-{digit}.png")

    inputs = torch.stack([pictures.from_rows(ink.tolist()) for ink in train_ink])
    targets = torch.as_tensor(train_digits)
    network = DigitsNet()
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    for epoch in range(1, EPOCHS + 1):
        losses = []
        order = torch.randperm(len(inputs))
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            loss = cross_entropy(network(inputs[chosen]), targets[chosen])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.item())
        if epoch % 5 == 0:
            print(
                f"  epoch {epoch:2}/{EPOCHS}   loss {sum(losses) / len(losses):.4f}"
                f"   {time.monotonic() - started:.1f} s",
                flush=True,
            )
    # Weights last: whoever finds them finds a finished folder.
    torch.save(network.state_dict(), folder / "digits.pt.part")
    (folder / "digits.pt.part").replace(folder / "digits.pt")


def load(folder: Path) -> DigitsNet:
    """The trained network, bare: no server, no archive."""
    network = DigitsNet()
    network.load_state_dict(torch.load(folder / "digits.pt", weights_only=True))
    return network.eval()


def held_back(folder: Path) -> list[tuple[Path, int]]:
    """Every held-back picture with the digit it shows."""
    return [
        (path, int(path.stem.split("-")[1])) for path in sorted(folder.glob("held-back/*-*.png"))
    ]


def classify(network: DigitsNet, paths: list[Path]) -> list[int]:
    """What the bare network says of each picture, one at a time as a person would ask."""
    with torch.inference_mode():
        return [
            int(network(pictures.read_png(path.read_bytes()).unsqueeze(0)).argmax())
            for path in paths
        ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=Path(".build/digits"))
    train(parser.parse_args().folder)
