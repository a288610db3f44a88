"""What a worker process is started with: command line, environment, folder.

A worker inherits the server's environment minus three kinds of names: what
`blacklist_env_vars` matches, what is ours (tokens and keys above all), and
what systemd meant for the supervisor alone.  Cloud credentials stay unless
blacklisted: handlers fetch their weights with them.

Thread counts (`OMP_NUM_THREADS` and its like) are not touched, but for workers
of several processes and those that are pinned (`core_shares.py`): the peer does
not either, and how many cores a worker should have is the operator's choice.

Source: contracts/torchserve.md 6.5, 8.9.
"""

from __future__ import annotations

import os.path
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from stoker.errors import SettingsError
from stoker.java_regex import compile_java
from stoker.supervisor.bubblewrap import TEMP, Bubblewrap
from stoker.supervisor.devices import VISIBLE, Device
from stoker.supervisor.escaped import MARK
from stoker.supervisor.fences import BUBBLEWRAP, OFF, Fence
from stoker.supervisor.launcher import WorkerCommand
from stoker.supervisor.worker_user import WorkerUser
from stoker.wire.loading import RANK_VARIABLES
from stoker.wire.sequence_labels import SequenceHeaders

TOKEN: Final = "STOKER_WORKER_TOKEN"
PARENT_PID: Final = "STOKER_PARENT_PID"
#: Asks the worker to fence itself in; see `worker/fence.py`.
FENCE: Final = "STOKER_FENCE"
DEVICE_ORDER: Final = "CUDA_DEVICE_ORDER"
#: In the place of PARENT_PID: we are not its parent before it has said hello.
BEHIND_A_SANDBOX: Final = "0"

#: Never inherited: our own settings and secrets (the peer's names of them too), ...
_OURS: Final = re.compile(r"STOKER_.*|(TS|MMS)_.*(TOKEN(?!IZ)|KEYSTORE|PRIVATE_KEY|SECRET).*")
#: ... and what would let a handler speak for the service, or read its credentials.
_SERVICE: Final = frozenset(
    {
        "NOTIFY_SOCKET",
        "WATCHDOG_PID",
        "WATCHDOG_USEC",
        "LISTEN_FDS",
        "LISTEN_PID",
        "LISTEN_FDNAMES",
        "CREDENTIALS_DIRECTORY",
        "JOURNAL_STREAM",
        "MEMORY_PRESSURE_WATCH",
        "MEMORY_PRESSURE_WRITE",
        "GUNICORN_CMD_ARGS",
        "GUNICORN_FD",
        "GUNICORN_PID",
    }
)


@dataclass(frozen=True, slots=True)
class EnvironmentPolicy:
    """The settings that shape every worker's environment.

    Attributes:
        hides_gpus: `number_of_gpu` is 0: no worker sees any GPU.
        cwd: The server's folder: for workers without an archive, and what
            relative entries of an inherited PYTHONPATH mean.
        sequence_headers: `sequence_variables`.
        user: Whom workers become; None for nobody else.
        bubblewrap: For workers whose fence is one.
    """

    cwd: str
    parent_pid: int
    blacklist: re.Pattern[str] | None = None
    decode_input_request: bool = True
    hides_gpus: bool = False
    is_ipex_on: bool = False
    is_ipex_gpu_on: bool = False
    sequence_headers: Mapping[str, str] = field(default_factory=dict)
    python: str = sys.executable
    user: WorkerUser | None = None
    bubblewrap: Bubblewrap | None = None


@dataclass(frozen=True, slots=True)
class RankPlan:
    """A worker of several processes, each a rank, that find each other at one port.

    Attributes:
        count: Its processes; the first of them starts the others.
        master_port: Where rank 0 listens for them; no other worker's.
        omp_threads: OMP_NUM_THREADS of each.
    """

    count: int
    master_port: int
    omp_threads: int = 1


@dataclass(frozen=True, slots=True)
class WorkerPlace:
    """One worker to be: whose handler, where to report, on which device.

    Attributes:
        group: The devices of a worker that takes several; `device` is the first of them.
        ranks: Set where the worker is several processes.
        python: An interpreter of the model's own; "" for the server's.
        packages_dir: What was installed for this model; found before the server's packages.
        sees_gpus: False for `deviceType: cpu`; a worker that merely found no
            free device keeps the server's view, as with the peer.
        slot: The number that clients and `ps` see; a worker's successor has it too.
        store_dir: Parent of the symlink through which a plain directory is
            served; handlers may find modules there.
        fence: As in VersionSpec.
    """

    worker_id: int
    slot: int
    model: str
    version: str
    handler: str
    address: str
    token: bytes
    model_dir: str | None = None
    store_dir: str | None = None
    device: Device | None = None
    sees_gpus: bool = True
    group: tuple[Device, ...] = ()
    ranks: RankPlan | None = None
    python: str = ""
    packages_dir: str | None = None
    fence: Fence | None = None


def compile_blacklist(pattern: str) -> re.Pattern[str] | None:
    """The `blacklist_env_vars` setting, ready to match whole names.

    Raises:
        SettingsError: It is not a regular expression; the server must not start.
    """
    if not pattern:
        return None
    try:
        return compile_java(pattern)
    except re.error as error:
        raise SettingsError(
            f"blacklist_env_vars is not a regular expression: {error}.",
            setting="blacklist_env_vars",
        ) from None


def worker_command(
    place: WorkerPlace, policy: EnvironmentPolicy, environ: Mapping[str, str]
) -> WorkerCommand:
    """Build what the launcher executes for one worker."""
    label = f"{place.slot} {place.model}:{place.version}"
    argv = (
        place.python or policy.python,
        "-P",  # no folder of the user's before the standard library
        "-m",
        "stoker.worker",
        "--worker-id",
        str(place.worker_id),
        "--address",
        place.address,
        "--label",
        label,
    )
    env = inherited(environ, policy.blacklist)
    if path := python_path(place, env.get("PYTHONPATH", ""), policy.cwd):
        env["PYTHONPATH"] = path
    else:
        env.pop("PYTHONPATH", None)
    env["PYTHONUNBUFFERED"] = "1"
    for peer in ("TS", "MMS"):
        env[f"{peer}_DECODE_INPUT_REQUEST"] = _flag(policy.decode_input_request)
    env["TS_IPEX_ENABLE"] = _flag(policy.is_ipex_on)
    env["TS_IPEX_GPU_ENABLE"] = _flag(policy.is_ipex_gpu_on)
    env.update(policy.sequence_headers)
    env[TOKEN] = place.token.hex()
    env[PARENT_PID] = str(policy.parent_pid)
    env[MARK] = str(place.worker_id)
    _show_gpus(env, place, policy)
    if place.ranks is not None:
        env.update(rank_environment(place.ranks, place.slot))
    if place.fence is not None:
        _fence(env, place.fence, policy.user)
    group = None if policy.user is None else policy.user.gid
    if place.fence is not None and place.fence.kind == BUBBLEWRAP:
        wrapper = _shut_in(env, place, place.fence, policy)
        return WorkerCommand(argv, env, "/", label, may_fork=False, wrapper=wrapper, group=group)
    return WorkerCommand(
        argv,
        env,
        place.model_dir or policy.cwd,
        label,
        # A template has imported the server's packages; this model may have others.
        may_fork=place.packages_dir is None,
        group=group,
    )


def sequence_variables(*headers: str) -> dict[str, str]:
    """What tells handlers that the three headers are not called as by default (7.3).

    Args:
        headers: Those that name, start and end a sequence.
    """
    names = SequenceHeaders(*headers)
    return {
        f"TS_REQUEST_SEQUENCE_{part}": header
        for part, header, default in zip(
            ("ID", "START", "END"), names, SequenceHeaders(), strict=True
        )
        if header != default
    }


def _fence(env: dict[str, str], fence: Fence, user: WorkerUser | None) -> None:
    """See `worker/fence.py`."""
    memory = "" if fence.kind == OFF else str(fence.memory_bytes)
    if user is None:
        env[FENCE] = f"{memory}:::"
        return
    env[FENCE] = f"{memory}:{user.uid}:{user.gid}:{','.join(map(str, user.groups))}"
    env.update(HOME=user.home, USER=user.name, LOGNAME=user.name)


def _shut_in(
    env: dict[str, str], place: WorkerPlace, fence: Fence, policy: EnvironmentPolicy
) -> tuple[str, ...]:
    env[PARENT_PID] = BEHIND_A_SANDBOX
    env.update(HOME=TEMP, TMPDIR=TEMP)
    assert policy.bubblewrap is not None
    return policy.bubblewrap.wrapper(
        env,
        place.model_dir,
        shown=[place.packages_dir] if place.packages_dir else (),
        python=place.python,
        has_network=fence.has_network,
        has_gpus=place.sees_gpus and not policy.hides_gpus,
    )


def inherited(environ: Mapping[str, str], blacklist: re.Pattern[str] | None) -> dict[str, str]:
    """The part of the server's environment that user code may have."""
    return {
        name: value
        for name, value in environ.items()
        if name not in _SERVICE
        and not _OURS.fullmatch(name)
        and not (blacklist and blacklist.fullmatch(name))
    }


def python_path(place: WorkerPlace, inherited_path: str, cwd: str) -> str:
    """PYTHONPATH: the handler's folder, what was inherited, the model's folder, its parent."""
    parts = [place.packages_dir] if place.packages_dir else []
    module, colon, _ = place.handler.partition(":")
    # Without a colon the peer adds no folder, so module.py must lie at the top.
    if colon and (folder := os.path.dirname(module)):
        parts.append(os.path.join(place.model_dir or cwd, folder))
    # An empty part would mean the worker's own folder; a relative one the server's.
    parts += [os.path.join(cwd, part) for part in inherited_path.split(os.pathsep) if part]
    parts += [folder for folder in (place.model_dir, place.store_dir) if folder]
    return os.pathsep.join(dict.fromkeys(parts))


def _show_gpus(env: dict[str, str], place: WorkerPlace, policy: EnvironmentPolicy) -> None:
    # Without it CUDA numbers GPUs by speed and NVML by slot; ours are NVML's numbers.
    env.setdefault(DEVICE_ORDER, "PCI_BUS_ID")
    if policy.hides_gpus or not place.sees_gpus:
        env[VISIBLE] = ""
    elif place.group:
        env[VISIBLE] = ",".join(_visible_name(device, env.get(VISIBLE)) for device in place.group)
    elif place.device is not None and place.device.is_slice:
        env[VISIBLE] = place.device.uuid


def _visible_name(device: Device, inherited: str | None) -> str:
    """What names a device in CUDA_VISIBLE_DEVICES; an index where one does, as people expect."""
    if device.is_slice:
        return device.uuid
    if inherited is None:
        return str(device.index)
    entries = inherited.split(",")
    # Where a slice stands before it the entries and our indices do not go together.
    if device.index < len(entries) and not entries[device.index].strip().startswith("MIG-"):
        return entries[device.index].strip()
    return device.uuid


def rank_environment(plan: RankPlan, slot: int) -> dict[str, str]:
    """What torchrun gives rank 0 of one host; the others differ in `RANK_VARIABLES` alone."""
    count = str(plan.count)
    return {
        **dict.fromkeys(RANK_VARIABLES, "0"),
        "WORLD_SIZE": count,
        "LOCAL_WORLD_SIZE": count,
        "ROLE_WORLD_SIZE": count,
        "GROUP_RANK": "0",
        "GROUP_WORLD_SIZE": "1",
        "ROLE_NAME": "default",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(plan.master_port),
        "TORCHELASTIC_RESTART_COUNT": "0",
        "TORCHELASTIC_MAX_RESTARTS": "0",
        "TORCHELASTIC_RUN_ID": str(slot),
        "OMP_NUM_THREADS": str(plan.omp_threads),
        "LOGLEVEL": "INFO",
    }


def _flag(value: bool) -> str:
    return "true" if value else "false"
