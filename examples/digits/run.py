"""Serve the digits network and check every answer against the bare network.

    python examples/digits/run.py            keep serving until Ctrl-C
    python examples/digits/run.py --demo     stop afterwards; exit code 0 if all agree

Trains and packs first if `.build/digits` does not hold them yet.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent))

from local_server import LISTENERS, LocalServer, ServerError, is_free  # noqa: E402

DEFAULT_PORTS = (8080, 8081, 8082)
CLIENTS = 16
BATCH_SIZE = 8
MAX_BATCH_DELAY_MS = 10
MODEL = "digits"


class Picture(NamedTuple):
    path: Path
    digit: int


class Served(NamedTuple):
    """What the server said, in the order of the pictures, and how long it took."""

    digits: list[int]
    seconds: float


def say(text: str = "") -> None:
    print(text, flush=True)


def heading(number: int, text: str) -> None:
    say(f"\n[{number}/5] {text}")


def prepare(folder: Path) -> tuple[list[Picture], list[int]]:
    """Train and pack where needed; returns the pictures and the bare network's answers."""
    heading(1, "The model")
    say("  importing torch ...")
    import pack
    import train

    if (folder / "digits.pt").exists():
        say(f"  trained already: {shown(folder / 'digits.pt')}")
    else:
        say("  training a small convolutional network on scikit-learn's digits")
        folder.mkdir(parents=True, exist_ok=True)
        train.train(folder)
    archive = pack.pack_digits(folder)
    say(f"  packed {shown(archive)} ({archive.stat().st_size / 1000:.0f} kB)")

    heading(2, "The bare network, no server")
    pictures = [Picture(path, digit) for path, digit in train.held_back(folder)]
    bare = train.classify(train.load(folder), [picture.path for picture in pictures])
    say(f"  {len(pictures)} pictures it has never seen: {accuracy(bare, pictures)}")
    return pictures, bare


def shown(path: Path) -> str:
    """Short where possible: as seen from the working directory."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def accuracy(digits: list[int], pictures: list[Picture]) -> str:
    right = sum(digit == picture.digit for digit, picture in zip(digits, pictures, strict=True))
    return f"{right} of {len(pictures)} right ({right / len(pictures):.2%})"


def choose_ports(wanted: tuple[int, int, int]) -> tuple[int, int, int]:
    """The wanted ports, or free ones, said plainly, when one of them is taken."""
    taken = [port for port in wanted if port and not is_free(port)]
    if not taken:
        return wanted
    ports = ", ".join(str(port) for port in taken)
    say(f"  port {ports} is taken by another program; using free ports instead")
    return (0, 0, 0)


def classify(server: LocalServer, pictures: list[Picture]) -> Served:
    """Ask the server about every picture, from several connections at once."""
    answers: list[int | None] = [None] * len(pictures)
    work: Iterator[tuple[int, Picture]] = iter(enumerate(pictures))
    lock = threading.Lock()

    def ask_until_done() -> None:
        with server.client() as client:
            while True:
                with lock:
                    at, picture = next(work, (None, None))
                if at is None or picture is None:
                    return
                png = picture.path.read_bytes()
                answer = client.ask("POST", f"/predictions/{MODEL}", png, "image/png")
                if answer.status != 200:
                    text = answer.body.decode(errors="replace").strip()
                    raise ServerError(f"{picture.path.name}: status {answer.status}: {text}")
                answers[at] = answer.json()["digit"]

    started = time.monotonic()
    with ThreadPoolExecutor(CLIENTS) as clients:
        for asking in [clients.submit(ask_until_done) for _ in range(CLIENTS)]:
            asking.result()
    took = time.monotonic() - started
    return Served([answer for answer in answers if answer is not None], took)


def compare(served: list[int], bare: list[int], pictures: list[Picture]) -> bool:
    """Say where server and bare network differ; they never should."""
    differing = [
        (picture.path.name, mine, theirs)
        for picture, mine, theirs in zip(pictures, served, bare, strict=True)
        if mine != theirs
    ]
    for name, mine, theirs in differing[:10]:
        say(f"  DIFFERENT {name}: server {mine}, bare network {theirs}")
    if differing:
        say(f"  {len(differing)} of {len(pictures)} answers differ")
    else:
        say(f"  equal: all {len(pictures)} answers are those of the bare network")
    return not differing


def invite(server: LocalServer) -> None:
    """The lines to try next, ready to paste."""
    seven, rows = shown(HERE / "seven.png"), shown(HERE / "seven.json")
    inference, management = server.inference, server.management
    say(f"  curl {inference}/predictions/{MODEL} -T {seven}")
    say(f"  curl {inference}/predictions/{MODEL} --json @{rows}")
    say(f"  curl {management}/models/{MODEL}")
    say(f'  curl -X PUT "{management}/models/{MODEL}?min_worker=2&synchronous=true"')
    say(f"  curl {inference}/ping")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--demo", action="store_true", help="stop after the comparison")
    parser.add_argument("--folder", type=Path, default=Path(".build/digits"))
    parser.add_argument("--free-ports", action="store_true", help="do not try 8080 to 8082")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    pictures, bare = prepare(options.folder.resolve())

    heading(3, "The server")
    ports = (0, 0, 0) if options.free_ports else choose_ports(DEFAULT_PORTS)
    say("  starting stoker serve ...")
    with LocalServer(ports=ports, model_store=options.folder / "model-store") as server:
        for listener in LISTENERS:
            if address := server.addresses.get(listener):
                say(f"  {listener:10} {address}")
        status = server.register(
            url=f"{MODEL}.mar", batch_size=BATCH_SIZE, max_batch_delay=MAX_BATCH_DELAY_MS
        )
        say(f"  {status}")

        heading(4, f"The same pictures over HTTP, {CLIENTS} connections, batches of {BATCH_SIZE}")
        served = classify(server, pictures)
        say(f"  served   {accuracy(served.digits, pictures)} in {served.seconds:.2f} s")
        say(f"  bare     {accuracy(bare, pictures)}")
        is_equal = compare(served.digits, bare, pictures)

        if options.demo:
            heading(5, "Stopping")
        else:
            heading(5, "Yours; try these in another terminal (Ctrl-C stops the server)")
            invite(server)
            try:
                server.wait()
                say(f"\nthe server ended by itself:\n{server.log_tail()}")
                return 1
            except KeyboardInterrupt:
                say("\n  stopping ...")
    say("  stopped")
    return 0 if is_equal else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ServerError as error:
        print(f"\n{error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
