"""Promise 11: what a handler can reach, say and leave behind has bounds."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil
import pytest
from facts import wait_until
from fates import pids
from live_crowds import memory_bytes
from live_server import HANDLERS, Server, has_ended

from stoker.archives.pack import Parts, pack

pytestmark = pytest.mark.slow

MIB = 1 << 20
SECRETS = {
    "TS_KEYSTORE_PASS": "s3",
    "TS_PRIVATE_KEY_FILE": "s4",
    "TS_SOME_TOKEN": "s5",
    "CREDENTIALS_DIRECTORY": "s6",
    "AWS_SECRET_ACCESS_KEY": "s8",
    "DB_PASSWORD": "s9",
}


@pytest.fixture(scope="module")
def server_flags() -> tuple[str, ...]:
    return ("--worker-log-max-bytes", str(MIB))


def packed(model: str, store, folder, **config: object) -> str:
    file = folder / f"{model}.yaml"
    file.write_text("".join(f"{key}: {value}\n" for key, value in config.items()))
    return pack(Parts(model, f"{HANDLERS / 'fenced.py'}:handle", config_file=file), store).name


@pytest.mark.parametrize("template", ["true", "false"])
def test_no_secret_is_in_a_workers_environment(start_server, model, template):
    """
    Ours never, clouds' and others' where `blacklist_env_vars` says so; whether the worker was
    forked or executed, and also not where the kernel shows what it was executed with.
    """
    flags = ("--worker-template", template, "--blacklist-env-vars", "AWS_.*|.*PASSWORD.*")
    server = start_server(*flags, **SECRETS, HARMLESS="yes")
    server.register(model, "fenced:handle")

    seen = server.predict(model, "environment").json
    (pid,) = pids(server, model)
    executed = Path(f"/proc/{pid}/environ").read_bytes()

    assert seen["HARMLESS"] == "yes"
    assert not seen.keys() & SECRETS.keys()
    assert {name for name in seen if name.startswith("STOKER_")} == {"STOKER_WORKER_ID"}
    for name in SECRETS:
        assert name.encode() + b"=" not in executed


@pytest.mark.parametrize("how", ["lines", "one line"])
def test_a_flood_of_output_costs_neither_memory_nor_disk(server, model, how):
    """
    A hundred megabytes: two files of a megabyte at most, and a supervisor that stays as it was.
    """
    server.register(model, "fenced:handle")
    server.predict(model, "pid")
    before = memory_bytes(server)["supervisor"]

    assert server.predict(model, f"flood {how}").json == "said"
    assert server.predict(model, "pid").status == 200

    files = [*(server.log_dir / "models").glob(f"{model}/*")]
    assert sum(file.stat().st_size for file in files) <= 2 * MIB + 16384
    assert memory_bytes(server)["supervisor"] - before < 16 * MIB


def test_a_fenced_worker_has_bounds_and_gains_no_rights(start_server, model_store, model, tmp_path):
    """
    By the server's word or the archive's; an archive may narrow what the server says, not widen it.
    """
    narrow = packed(model, tmp_path, tmp_path, sandbox="rlimits", sandbox_memory_mb=2048)
    wide = packed(f"{model}w", tmp_path, tmp_path, sandbox="off", sandbox_memory_mb=65536)
    plain = start_server("--model-store", str(tmp_path))
    strict = start_server(
        *("--model-store", str(tmp_path), "--sandbox", "rlimits", "--sandbox-memory-mb", "4096")
    )
    for server in (plain, strict):
        for url in (narrow, wide):
            query = {"url": url, "initial_workers": 1, "synchronous": "true"}
            assert server.manage("POST", "/models", **query).status == 200

    def fence(server: Server, name: str):
        found = server.predict(name, "fence").json
        return found["no_new_privs"], found["core"], found["memory"] // MIB, found["files"] <= 4096

    assert fence(plain, model) == ("1", 0, 2048, True)
    assert plain.predict(f"{model}w", "fence").json["no_new_privs"] == "0"
    assert fence(strict, model) == ("1", 0, 2048, True)
    assert fence(strict, f"{model}w") == ("1", 0, 4096, True)
    assert [plain.predict(model, f"hoard {mib}").json for mib in (64, 4096)] == [
        "granted",
        "refused",
    ]


def test_what_a_handler_starts_lives_as_long_as_its_worker_and_no_longer(server, model):
    """
    Also in a session of its own, and also without its parent.
    """
    ways = ("child", "executed", "forked")
    server.register(model, "fenced:handle")
    server.register(f"{model}o", "fenced:handle")
    (worker,) = pids(server, model)
    left = {how: int(server.predict(model, f"escape {how}").json) for how in ways}
    others = {how: int(server.predict(f"{model}o", f"escape {how}").json) for how in ways}

    def ended(started: dict[str, int]) -> set[str]:
        return {how for how, pid in started.items() if has_ended(pid)}

    # Two sweeps later they would be gone if their worker did not count.
    end = time.monotonic() + 2.2
    wait_until(lambda: time.monotonic() > end or ended(left), "two sweeps")
    assert ended(left) == set()

    os.kill(worker, signal.SIGKILL)

    wait_until(lambda: ended(left) == {*ways}, lambda: f"only {ended(left)} end with their worker")
    assert ended(others) == set()
    assert psutil.pid_exists(pids(server, f"{model}o")[0])
    assert server.manage("DELETE", f"/models/{model}o").status == 200
    wait_until(lambda: ended(others) == {*ways}, lambda: f"only {ended(others)} end with theirs")


def test_a_stop_leaves_nothing_that_a_handler_started(start_server, model, leftovers):
    """
    Twice forked and in a session of its own.
    """
    server = start_server()
    server.register(model, "fenced:handle")
    left = int(server.predict(model, "escape forked").json)

    server.stop()

    assert has_ended(left)
    assert leftovers() == []
