"""What is executed for a worker, and what it is told to load.

Settings, a version's specification and a worker's place become a command and a
LOAD here; `worker_environment.py` has the rules for the environment.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from stoker.settings import Settings
from stoker.supervisor.actions import SendLoad, Spawn
from stoker.supervisor.device_places import DevicePlaces
from stoker.supervisor.escaped import MARK
from stoker.supervisor.host_fencing import HostFencing
from stoker.supervisor.launcher import WorkerCommand
from stoker.supervisor.parents import ParentCommand
from stoker.supervisor.versions import VersionSpec
from stoker.supervisor.worker_environment import (
    TOKEN,
    EnvironmentPolicy,
    RankPlan,
    WorkerPlace,
    compile_blacklist,
    inherited,
    sequence_variables,
    worker_command,
)
from stoker.wire.arena_folder import arena_folder
from stoker.wire.loading import LoadSpec
from stoker.wire.runtime_dir import worker_address

#: Ports from `initial_distribution_port` on, where the processes of one worker find each other.
MASTER_PORTS: Final = 10_000


class WorkerOrders:
    """For all workers of one server.

    Args:
        of_metrics: What every LOAD says of them (`Metrics.for_workers`).

    Raises:
        SettingsError: `blacklist_env_vars` is not a regular expression.
    """

    def __init__(
        self,
        settings: Settings,
        places: DevicePlaces,
        fencing: HostFencing,
        of_metrics: Mapping[str, Any],
    ) -> None:
        self._settings = settings
        self._places = places
        self._of_metrics = of_metrics
        self._arenas = arena_folder(settings.runtime_dir)
        self._policy = EnvironmentPolicy(
            cwd=os.getcwd(),
            parent_pid=os.getpid(),
            blacklist=compile_blacklist(settings.blacklist_env_vars),
            decode_input_request=settings.decode_input_request,
            hides_gpus=settings.number_of_gpu == 0,
            is_ipex_on=settings.ipex_enable,
            is_ipex_gpu_on=settings.ipex_gpu_enable,
            sequence_headers=sequence_variables(
                settings.ts_header_key_sequence_id,
                settings.ts_header_key_sequence_start,
                settings.ts_header_key_sequence_end,
            ),
            user=fencing.user,
            bubblewrap=fencing.bubblewrap,
        )

    @property
    def python(self) -> str:
        """The server's own interpreter."""
        return self._policy.python

    def template_environment(self) -> dict[str, str]:
        """What a process sees that is no worker yet."""
        return inherited(os.environ, self._policy.blacklist)

    def command(self, action: Spawn, token: bytes) -> WorkerCommand:
        return worker_command(self._place(action, token), self._policy, os.environ)

    def parent_command(self, spec: VersionSpec) -> ParentCommand:
        """What loads a model for all its workers: like one of them, but nobody in particular."""
        command = self.command(Spawn(0, 0, spec, None), b"")
        env = {name: text for name, text in command.env.items() if name not in (TOKEN, MARK)}
        # A pool of threads that loading starts would not be there after the fork.
        env.setdefault("OMP_NUM_THREADS", "1")
        load = replace(self._load_spec(spec, None), batch_size=1)
        label = f"{spec.model}:{spec.version}"
        return ParentCommand(command.argv[0], env, command.cwd, label, load.to_wire())

    def load(self, action: SendLoad) -> LoadSpec:
        _, spec, device_index = action
        device = self._places.device(device_index)
        gpu_id = None if device is None else device.gpu_id
        if spec.parallel_level and device is not None:
            gpu_id = 0  # of those that this worker is shown
        return self._load_spec(spec, gpu_id)

    def _load_spec(self, spec: VersionSpec, gpu_id: int | None) -> LoadSpec:
        return LoadSpec(
            model=spec.model,
            version=spec.version,
            batch_size=spec.batch.max_size,
            gpu_id=gpu_id,
            ranks=spec.ranks,
            response_timeout_s=spec.response_timeout_s if spec.has_time_limits else math.inf,
            is_idempotent=spec.max_attempts > 1,
            orphan_grace_s=self._settings.orphan_grace_s,
            arena=str(self._arenas),
            **self._of_metrics,
            **spec.loading,
        )

    def _place(self, action: Spawn, token: bytes) -> WorkerPlace:
        worker_id, slot, spec, device = action
        return WorkerPlace(
            worker_id=worker_id,
            slot=slot,
            model=spec.model,
            version=spec.version,
            handler=spec.loading["handler"],
            address=worker_address(self._settings.runtime_dir),
            token=token,
            model_dir=spec.loading["model_dir"],
            device=self._places.device(device),
            sees_gpus=spec.device_type != "cpu",
            group=self._places.of_worker(worker_id) if spec.parallel_level else (),
            ranks=self._rank_plan(spec, slot),
            python=spec.python,
            packages_dir=spec.packages_dir,
            fence=spec.fence,
        )

    def _rank_plan(self, spec: VersionSpec, slot: int) -> RankPlan | None:
        """Slots are never used twice, so no two workers meet at one port."""
        if spec.ranks == 1:
            return None
        settings = self._settings
        offset = (slot - settings.initial_worker_port) % MASTER_PORTS
        return RankPlan(spec.ranks, settings.initial_distribution_port + offset, spec.omp_threads)
