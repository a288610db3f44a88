"""Environment, command line and folder of a worker."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from stoker.errors import SettingsError
from stoker.supervisor.devices import Device
from stoker.supervisor.fences import OFF, RLIMITS, Fence
from stoker.supervisor.launcher import WorkerCommand
from stoker.supervisor.worker_environment import (
    EnvironmentPolicy,
    RankPlan,
    WorkerPlace,
    compile_blacklist,
    worker_command,
)
from stoker.supervisor.worker_user import WorkerUser
from stoker.worker.fence import FenceOrder, parse_fence

POLICY = EnvironmentPolicy(cwd="/srv", parent_pid=42, python="/usr/bin/python3")


def place(**fields: Any) -> WorkerPlace:
    usual: dict[str, Any] = {
        "worker_id": 7,
        "slot": 9000,
        "model": "echo",
        "version": "1.0",
        "handler": "echo.py",
        "address": "unix:/run/stoker/worker.sock",
        "token": b"\x01\xff",
        "model_dir": "/cache/echo",
    }
    return WorkerPlace(**(usual | fields))


def env_of(
    environ: dict[str, str], policy: EnvironmentPolicy = POLICY, **fields: Any
) -> dict[str, str]:
    return dict(worker_command(place(**fields), policy, environ).env)


def test_the_command_says_who_the_worker_is() -> None:
    """
    `ps` and the worker's own first message both rest on it.
    """
    command = worker_command(place(), POLICY, {})

    assert command.argv[-1] == "9000 echo:1.0"
    assert " ".join(command.argv[:-1]) == (
        "/usr/bin/python3 -P -m stoker.worker --worker-id 7"
        " --address unix:/run/stoker/worker.sock --label"
    )
    assert command.cwd == "/cache/echo"
    assert command.label == "9000 echo:1.0"
    assert command.env == {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "PYTHONPATH": "/cache/echo",
        "PYTHONUNBUFFERED": "1",
        "MMS_DECODE_INPUT_REQUEST": "true",
        "STOKER_PARENT_PID": "42",
        "STOKER_WORKER_ID": "7",
        "STOKER_WORKER_TOKEN": "01ff",
        "TS_DECODE_INPUT_REQUEST": "true",
        "TS_IPEX_ENABLE": "false",
        "TS_IPEX_GPU_ENABLE": "false",
    }


@pytest.mark.parametrize(
    "name",
    [
        "STOKER_MANAGEMENT_TOKEN",
        "STOKER_WORKER_TOKEN",
        "TS_KEYSTORE_PASS",
        "TS_PRIVATE_KEY_FILE",
        "TS_DISABLE_TOKEN_AUTHORIZATION",
        "NOTIFY_SOCKET",
        "CREDENTIALS_DIRECTORY",
        "LISTEN_FDS",
    ],
)
def test_secrets_and_the_services_own_names_are_kept_back(name: str) -> None:
    """
    A handler must not read our tokens, nor tell systemd that we are ready.
    """
    assert env_of({name: "inherited"}).get(name) in (None, "01ff")


@pytest.mark.parametrize("name", ["HOME", "AWS_SECRET_ACCESS_KEY", "TS_TOKENIZER", "HF_TOKEN"])
def test_everything_else_is_inherited(name: str) -> None:
    """
    As with the peer; handlers fetch weights with the server's credentials.
    """
    assert env_of({name: "value"})[name] == "value"


def test_the_blacklist_matches_whole_names() -> None:
    """
    Contract 6.5: fully matching; `AWS_.*|PATH` spares LD_LIBRARY_PATH.
    """
    policy = EnvironmentPolicy("/srv", 42, blacklist=compile_blacklist("AWS_.*|PATH"))

    env = env_of({"AWS_KEY": "1", "PATH": "2", "LD_LIBRARY_PATH": "3"}, policy)

    assert "AWS_KEY" not in env
    assert "PATH" not in env
    assert env["LD_LIBRARY_PATH"] == "3"


def test_a_bad_blacklist_stops_the_start() -> None:
    """
    Silently matching nothing would hand out what the operator meant to hide.
    """
    assert compile_blacklist("") is None
    with pytest.raises(SettingsError, match="blacklist_env_vars"):
        compile_blacklist("AWS_(")


@pytest.mark.parametrize(
    ("fields", "inherited", "path"),
    [
        ({}, "", "/cache/echo"),
        ({}, "/lib/a::/lib/b", "/lib/a:/lib/b:/cache/echo"),
        ({}, "lib:.", "/srv/lib:/srv/.:/cache/echo"),
        ({"handler": "src/echo.py:run"}, "/lib", "/cache/echo/src:/lib:/cache/echo"),
        ({"handler": "/opt/h/echo.py:run"}, "", "/opt/h:/cache/echo"),
        ({"handler": "package.echo:run", "model_dir": None}, "/lib", "/lib"),
        ({"handler": "echo:run", "model_dir": None}, "", None),
        ({"store_dir": "/store"}, "/store", "/store:/cache/echo"),
        ({"store_dir": "/store"}, "", "/cache/echo:/store"),
    ],
)
def test_pythonpath_has_the_contracts_order(
    fields: dict[str, Any], inherited: str, path: str | None
) -> None:
    """
    Contract 6.5; no empty part, which would mean whatever folder a process is in.
    """
    assert env_of({"PYTHONPATH": inherited}, **fields).get("PYTHONPATH") == path


def test_without_an_archive_the_worker_stays_in_the_servers_folder() -> None:
    """
    Its relative files are where the operator started the server.
    """
    assert worker_command(place(model_dir=None), POLICY, {}).cwd == "/srv"


def test_gpu_workers_inherit_what_is_visible() -> None:
    """
    `gpu_id` indexes into it; narrowing it would shift the index (contract 8.9).
    """
    device = Device(1, "GPU-b", "Tesla", 1)

    env = env_of({"CUDA_VISIBLE_DEVICES": "3,2"}, device=device)

    assert env["CUDA_VISIBLE_DEVICES"] == "3,2"
    assert env["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert "CUDA_VISIBLE_DEVICES" not in env_of({}, device=device)


def test_the_operators_device_order_stays() -> None:
    """
    Whoever set it knows their cards.
    """
    assert env_of({"CUDA_DEVICE_ORDER": "FASTEST_FIRST"})["CUDA_DEVICE_ORDER"] == "FASTEST_FIRST"


def test_a_worker_on_a_slice_sees_only_that() -> None:
    """
    CUDA shows a process one slice: the one it was placed on.
    """
    device = Device(4, "MIG-c", "Tesla MIG 1g", 1, is_slice=True)

    assert env_of({"CUDA_VISIBLE_DEVICES": "0"}, device=device)["CUDA_VISIBLE_DEVICES"] == "MIG-c"


def test_gpus_are_hidden_when_said_so() -> None:
    """
    `number_of_gpu=0` and `deviceType: cpu` must hold even for handlers that do
    not ask the context; a worker that found no GPU keeps the server's view.
    """
    no_gpus = EnvironmentPolicy("/srv", 42, hides_gpus=True)

    assert env_of({"CUDA_VISIBLE_DEVICES": "0"}, no_gpus)["CUDA_VISIBLE_DEVICES"] == ""
    assert env_of({}, sees_gpus=False)["CUDA_VISIBLE_DEVICES"] == ""
    assert env_of({"CUDA_VISIBLE_DEVICES": "0"})["CUDA_VISIBLE_DEVICES"] == "0"


def test_decoding_can_be_switched_off() -> None:
    """
    `decode_input_request=false` reaches the worker the peer's way.
    """
    policy = EnvironmentPolicy("/srv", 42, decode_input_request=False)

    assert env_of({}, policy)["TS_DECODE_INPUT_REQUEST"] == "false"


def test_ranks_find_each_other_as_under_torchrun() -> None:
    """
    Handlers call init_process_group(), which reads exactly these (6.5).
    """
    env = env_of({}, ranks=RankPlan(count=2, master_port=29500, omp_threads=3))

    assert {name: env[name] for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE")} == {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "2",
    }
    assert (env["LOCAL_WORLD_SIZE"], env["OMP_NUM_THREADS"], env["LOGLEVEL"]) == ("2", "3", "INFO")
    assert (env["MASTER_ADDR"], env["MASTER_PORT"]) == ("127.0.0.1", "29500")


@pytest.mark.parametrize(
    ("inherited", "visible"),
    [
        ({}, "1,2"),
        ({"CUDA_VISIBLE_DEVICES": "5,6,7"}, "6,7"),
        ({"CUDA_VISIBLE_DEVICES": "5"}, None),
    ],
)
def test_a_worker_of_several_gpus_sees_those_alone(
    inherited: dict[str, str], visible: str | None
) -> None:
    """
    Indices are the server's; the variable speaks of what the server was shown itself.
    """
    group = tuple(Device(index, f"GPU-{index}", "fake", 1 << 30) for index in (1, 2))

    env = env_of(inherited, device=group[0], group=group)

    assert env["CUDA_VISIBLE_DEVICES"] == (visible or "GPU-1,GPU-2")


def test_intels_switches_reach_the_handlers() -> None:
    """
    Handlers read the peer's variables (6.5).
    """
    policy = EnvironmentPolicy(cwd="/srv", parent_pid=1, is_ipex_on=True, is_ipex_gpu_on=True)

    env = env_of({}, policy)

    assert (env["TS_IPEX_ENABLE"], env["TS_IPEX_GPU_ENABLE"]) == ("true", "true")


def test_a_model_with_packages_of_its_own_is_never_forked() -> None:
    """
    A template has imported the server's versions of them.
    """
    command = worker_command(
        place(packages_dir="/cache/env/packages", python="/venv/bin/python"), POLICY, {}
    )

    assert not command.may_fork
    assert command.argv[0] == "/venv/bin/python"
    assert command.env["PYTHONPATH"] == "/cache/env/packages:/cache/echo"


MODELS = WorkerUser("models", 900, 901, (901, 44), "/var/lib/models")


@pytest.mark.parametrize(
    ("fence", "user", "order"),
    [
        (None, None, None),
        (Fence(RLIMITS), None, FenceOrder(0, None, 0, ())),
        (Fence(RLIMITS, 1 << 30), None, FenceOrder(1 << 30, None, 0, ())),
        (Fence(OFF, user="models"), MODELS, FenceOrder(None, 900, 901, (901, 44))),
        (Fence(RLIMITS, 5, "models"), MODELS, FenceOrder(5, 900, 901, (901, 44))),
    ],
)
def test_the_worker_is_told_of_its_fence_in_words_it_reads(fence, user, order) -> None:
    """
    One end writes what the other reads; no fence is no word.
    """
    policy = replace(POLICY, user=user)

    env = env_of({"HOME": "/root", "USER": "root"}, policy, fence=fence)

    assert ("STOKER_FENCE" in env) == (order is not None)
    if order is not None:
        assert parse_fence(env["STOKER_FENCE"]) == order
    assert env["HOME"] == ("/root" if user is None else "/var/lib/models")
    assert env["USER"] == ("root" if user is None else "models")


@pytest.mark.parametrize("text", ["", "0", "0::", "a:::", ":1:2", "::::", ":x:y:z", "0:1:2:3:4"])
def test_a_fence_that_is_not_understood_is_no_fence_to_do_without(text) -> None:
    """
    The worker ends instead.
    """
    with pytest.raises(ValueError, match=r"\w"):
        parse_fence(text)


def test_the_token_is_not_in_the_commands_repr() -> None:
    """
    Commands get logged.
    """
    command = WorkerCommand(("python",), {"STOKER_WORKER_TOKEN": "feed"}, "/", "echo:1.0")

    assert "feed" not in repr(command)
