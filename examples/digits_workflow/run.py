"""One workflow in two notations, each compared with the bare pipeline, picture by picture.

    python examples/digits_workflow/run.py

Trains two versions of the digits network first if `.build/digits-workflow` does not
hold them yet.  Exit code 0 if all three agree on every held-back picture.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
DIGITS = HERE.parent / "digits"
sys.path[:0] = [str(HERE), str(HERE.parent), str(DIGITS)]

from local_server import LocalServer, ServerError  # noqa: E402

from stoker.archives.pack import Parts, pack  # noqa: E402
from stoker.archives.war import pack_war  # noqa: E402

VERSIONS = {"first": 20, "second": 21}
CLIENTS = 16
NAME = "digits"
Picture = tuple[Path, int]


def say(text: str = "") -> None:
    print(text, flush=True)


def prepare(folder: Path) -> list[Picture]:
    """Train what is not trained yet; returns the pictures that no network has seen."""
    import train

    folder.mkdir(parents=True, exist_ok=True)
    for version, seed in VERSIONS.items():
        if not (folder / version / "digits.pt").exists():
            say(f"training the {version} version")
            train.train(folder / version, seed)
    pictures: list[Picture] = train.held_back(folder / "first")
    return pictures


def pack_torchserve(folder: Path, store: Path) -> None:
    """Two `.mar` and the `.war` that calls them."""
    for version in VERSIONS:
        parts = Parts(
            model_name=f"digits_{version}",
            handler=str(HERE / "handler.py"),
            model_file=DIGITS / "model.py",
            serialized_file=folder / version / "digits.pt",
        )
        pack(parts, store, force=True)
    files = (HERE / "workflow.yaml", HERE / "functions.py")
    pack_war(NAME, *files, store, (HERE / "pipeline.py",), force=True)


def lay_out_djl(folder: Path, store: Path) -> None:
    """A folder with the definition, its functions, and a folder for each model."""
    target = store / NAME
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(HERE / "djl", target, ignore=shutil.ignore_patterns("model.py", "__pycache__"))
    shutil.copy(HERE / "pipeline.py", target)
    for version in VERSIONS:
        (target / version).mkdir()
        (target / version / "serving.properties").write_text("engine=Python\n")
        shutil.copy(HERE / "djl" / "model.py", target / version)
        shutil.copy(DIGITS / "model.py", target / version / "network.py")
        shutil.copy(folder / version / "digits.pt", target / version)


def ask_bare(folder: Path, pictures: list[Picture]) -> list[dict[str, Any]]:
    """What the pipeline says without a server, one picture at a time."""
    import pipeline
    import torch
    import train

    networks = [train.load(folder / version) for version in VERSIONS]
    answers = []
    with torch.inference_mode():
        for path, _ in pictures:
            row = torch.tensor(pipeline.preprocess(path.read_bytes()), dtype=torch.float32)
            inputs = row.reshape(1, 1, 8, 8)
            opinions = [network(inputs).softmax(dim=1)[0].tolist() for network in networks]
            answers.append(pipeline.ensemble(opinions))
    return answers


def ask_served(server: LocalServer, path: str, pictures: list[Picture]) -> list[dict[str, Any]]:
    """What the workflow says, asked over several connections at once."""
    answers: list[dict[str, Any]] = [{} for _ in pictures]
    work: Iterator[tuple[int, Picture]] = iter(enumerate(pictures))
    lock = threading.Lock()

    def ask_until_done() -> None:
        with server.client() as client:
            while True:
                with lock:
                    at, picture = next(work, (None, None))
                if at is None or picture is None:
                    return
                answer = client.ask("POST", path, picture[0].read_bytes(), "image/png")
                if answer.status != 200:
                    raise ServerError(f"{picture[0].name}: {answer.status}: {answer.body!r}")
                answers[at] = answer.json()

    with ThreadPoolExecutor(CLIENTS) as clients:
        for asking in [clients.submit(ask_until_done) for _ in range(CLIENTS)]:
            asking.result()
    return answers


def serve(
    store: Path, dialect: str, url: str, path: str, pictures: list[Picture]
) -> list[dict[str, Any]]:
    """Register the workflow in one notation and ask it about every picture."""
    with LocalServer("--dialect", dialect, model_store=store) as server:
        with server.client("management") as client:
            answer = client.ask("POST", "/workflows", url=url)
        if answer.status != 200:
            raise ServerError(f"{dialect}: {answer.status}: {answer.body!r}")
        say(f"  {answer.json()['status']}")
        started = time.monotonic()
        answers = ask_served(server, path, pictures)
        say(f"  {len(answers)} pictures in {time.monotonic() - started:.2f} s")
        return answers


def right(answers: list[dict[str, Any]], pictures: list[Picture]) -> int:
    return sum(
        answer["digit"] == digit for answer, (_, digit) in zip(answers, pictures, strict=True)
    )


def differing(answers: list[dict[str, Any]], bare: list[dict[str, Any]]) -> int:
    """Batches are summed in another order, so probabilities may differ in the last place."""
    return sum(
        one["digit"] != other["digit"]
        or max(
            abs(a - b) for a, b in zip(one["probabilities"], other["probabilities"], strict=True)
        )
        > 1e-4
        for one, other in zip(answers, bare, strict=True)
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path(".build/digits-workflow"))
    folder = parser.parse_args().folder.resolve()

    pictures = prepare(folder)
    store = folder / "model-store"
    store.mkdir(exist_ok=True)
    pack_torchserve(folder, store)
    lay_out_djl(folder, store)
    say("the bare pipeline")
    bare = ask_bare(folder, pictures)
    say("TorchServe's notation")
    torchserve = serve(store, "torchserve", f"{NAME}.war", f"/wfpredict/{NAME}", pictures)
    say("DJL Serving's notation")
    djl = serve(store, "djl", NAME, f"/predictions/{NAME}", pictures)

    for name, answers in (("bare", bare), ("torchserve", torchserve), ("djl", djl)):
        count = right(answers, pictures)
        say(f"{name:10} {count} of {len(pictures)} right ({count / len(pictures):.2%})")
    differ = [differing(answers, bare) for answers in (torchserve, djl)]
    say(f"answers that differ from the bare pipeline's: {differ[0]} and {differ[1]}")
    return 0 if not any(differ) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ServerError as error:
        print(f"\n{error}", file=sys.stderr)
        sys.exit(1)
