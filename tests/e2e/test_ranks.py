"""Workers of several processes: parallelType, parallelLevel, torchrun (6.3, 6.5)."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from facts import wait_until

from stoker.archives.pack import Parts, pack

pytestmark = pytest.mark.slow

HANDLERS = Path(__file__).parent / "handlers"
Notes = list[dict[str, Any]]


@pytest.fixture
def register(server: Any, model_store: Path, tmp_path: Path) -> Callable[..., Any]:
    """Pack a handler with this model-config.yaml and register it; returns the answer."""

    def do(config: str, handler: str = "ranks.py", model: str = "ranked") -> Any:
        (server.home / "gates" / "ranks").unlink(missing_ok=True)
        file = tmp_path / "model-config.yaml"
        file.write_text(config)
        made = pack(Parts(model, str(HANDLERS / handler), config_file=file), tmp_path)
        made.rename(model_store / made.name)
        return server.manage(
            "POST", "/models", url=made.name, initial_workers=1, synchronous="true"
        )

    return do


def notes(server: Any, what: str) -> Notes:
    path = server.home / "gates" / "ranks"
    lines = path.read_text().splitlines() if path.exists() else []
    return [note for note in map(json.loads, lines) if note["what"] == what]


def ask(server: Any, body: bytes) -> Any:
    return server.predict("ranked", body, content_type="application/octet-stream")


def test_every_rank_gets_what_torchrun_would_give_it(server, register):
    """
    Handlers read these variables to find each other.
    """
    answer = register("parallelType: tp\ntorchrun:\n  nproc-per-node: 3\n  OMP_NUMBER_THREADS: 2\n")

    assert answer.status == 200, answer.text
    found = {note["rank"]: note["env"] for note in notes(server, "loaded")}
    assert found == {
        rank: {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": "3",
            "LOCAL_WORLD_SIZE": "3",
            "MASTER_ADDR": "127.0.0.1",
            "OMP_NUM_THREADS": "2",
        }
        for rank in range(3)
    }
    record = server.describe("ranked")
    assert (record["parallelType"], record["parallelLevel"]) == ("tp", 3)
    assert len(record["workers"]) == 1


@pytest.mark.parametrize("size", [5, 300_000])
def test_a_batch_reaches_all_ranks_and_the_first_answers(server, register, size):
    """
    Tensor-parallel ranks compute together; bodies from shared memory go along.
    """
    register("parallelType: tp\nparallelLevel: 2\n")

    answer = ask(server, b"x" * size)

    assert answer.text == "rank 0"
    wait_until(lambda: len(notes(server, "got")) == 2, "both ranks handled it")
    first, second = notes(server, "got")
    assert {first["rank"], second["rank"]} == {0, 1}
    assert first["size"] == second["size"] == size
    assert first["id"] == second["id"] == answer.header("x-request-id")


def test_a_pipelines_first_rank_alone_gets_the_batch(server, register):
    """
    With `pp` it feeds the others itself (6.3).
    """
    register("parallelType: pp\nparallelLevel: 2\n")

    answers = [ask(server, b"x").text for _ in range(3)]

    assert answers == ["rank 0"] * 3
    assert [note["rank"] for note in notes(server, "got")] == [0, 0, 0]


def test_an_error_in_all_ranks_fails_the_request_alone(server, register):
    """
    The worker goes on; the next request is answered.
    """
    register("parallelType: tp\nparallelLevel: 2\n")
    pids = {note["pid"] for note in notes(server, "loaded")}

    failed = ask(server, b"fail")
    after = ask(server, b"x")

    assert failed.status == 503
    assert after.text == "rank 0"
    assert {note["pid"] for note in notes(server, "loaded")} == pids


def test_when_one_rank_dies_the_whole_worker_is_replaced(server, register, is_gone):
    """
    What is left of a group can only hang in its next collective call.
    """
    register("parallelType: tp\nparallelLevel: 2\nidempotent: false\n")
    before = [note["pid"] for note in notes(server, "loaded")]

    failed = ask(server, b"die")
    after = ask(server, b"x")

    assert failed.status == 500
    assert after.text == "rank 0"
    assert len(notes(server, "loaded")) == 4
    assert all(is_gone(pid) for pid in before)


def test_a_rank_that_cannot_load_is_reported_although_the_first_waits_for_it(server, register):
    """
    Rank 0 sits in a call that nothing ends; the reason is known all the same.
    """
    server.expect_error("load failed")

    answer = register("parallelType: tp\nparallelLevel: 2\nfails: 1\n")

    assert answer.status == 500
    (line,) = server.logged("load failed")
    assert line["last_line"] == "ValueError: rank 1 cannot load"


def test_unregistering_ends_every_rank(server, register, is_gone):
    """
    Ranks are nobody's workers but their own worker's.
    """
    register("parallelType: tp\nparallelLevel: 3\n")
    pids = [note["pid"] for note in notes(server, "loaded")]

    server.manage("DELETE", "/models/ranked")

    assert len(pids) == 3
    wait_until(lambda: all(is_gone(pid) for pid in pids), "all ranks have ended")


@pytest.mark.torch
def test_torchs_own_process_group_forms_and_reduces(server, register):
    """
    What the variables are for: init_process_group() without a word of ours.
    """
    register("parallelType: tp\nparallelLevel: 2\n", "reduces.py")

    assert ask(server, b"12345").text == "15"


def test_workers_are_pinned_to_their_shares_of_the_cores(start_server, until):
    """
    `cpu_launcher_enable` (8.9): also those that are there already when another one comes.
    """
    server = start_server("--cpu-launcher-enable", "true")
    cores = sorted(os.sched_getaffinity(0))
    server.register("echo", "echo:handle")
    (first,) = [worker["pid"] for worker in server.workers("echo")]
    until(lambda: os.sched_getaffinity(first) == set(cores), "one has all of them")

    server.manage("PUT", "/models/echo", min_worker=2, synchronous="true")

    half = max(1, len(cores) // 2)
    pids = [worker["pid"] for worker in sorted(server.workers("echo"), key=lambda w: int(w["id"]))]
    shares = [set(cores[:half]), set(cores[half : 2 * half] or cores[:half])]
    until(lambda: [os.sched_getaffinity(pid) for pid in pids] == shares, "each has its share")
