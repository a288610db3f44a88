"""What is registered: archive, request and settings by the contract's precedence (3.4)."""

from __future__ import annotations

from typing import Any

import pytest

from stoker.archives.model_config import ModelConfig
from stoker.archives.resolve import ResolvedArchive
from stoker.errors import InvalidParameter
from stoker.settings.load import load
from stoker.supervisor.arguments import Arguments
from stoker.supervisor.device_places import DevicePlaces
from stoker.supervisor.devices import Device
from stoker.supervisor.specs import build_spec, initial_workers
from stoker.supervisor.versions import VersionSpec

SETTINGS = load(["--default-response-timeout", "77", "--job-queue-size", "55"], {})
TWO_GPUS = tuple(Device(index, f"GPU-{index}", "fake", 1 << 30) for index in range(2))


def spec_of(
    config: ModelConfig | None = None, devices: tuple[Device, ...] = (), **arguments: Any
) -> VersionSpec:
    archive = ResolvedArchive(
        model="m", version="1.0", handler="h", runtime="python", url="", config=config
    )
    return build_spec(archive, Arguments(arguments), SETTINGS, DevicePlaces(devices), False)


def test_the_request_beats_the_file_for_batches() -> None:
    """
    An operator who names a batch size means it.
    """
    config = ModelConfig(batch_size=4, max_batch_delay_s=0.2)

    assert spec_of(config, batch_size=8).batch.max_size == 8
    assert spec_of(config).batch.max_size == 4
    assert spec_of(config).batch.delay_s == 0.2
    assert spec_of(config, max_batch_delay_s=0.0).batch.delay_s == 0.0
    assert spec_of().batch.max_size == 1
    assert spec_of().batch.delay_s == 0.1


def test_a_stated_timeout_of_the_file_beats_the_request() -> None:
    """
    The peer lets the mere presence of a file beat the request; we want it stated.
    """
    assert (
        spec_of(ModelConfig(response_timeout_s=9), response_timeout_s=300).response_timeout_s == 9
    )
    assert spec_of(ModelConfig(), response_timeout_s=300).response_timeout_s == 300
    assert spec_of().response_timeout_s == 77


def test_workers_come_from_the_file_only_when_it_asks_for_more() -> None:
    """
    minWorkers > 0 and maxWorkers >= minWorkers > initial_workers (3.4).
    """

    def workers(config: ModelConfig | None, **arguments: Any) -> tuple[int, int]:
        archive = ResolvedArchive(
            model="m", version="1.0", handler="h", runtime="python", url="", config=config
        )
        return initial_workers(archive, Arguments(arguments), SETTINGS)

    both = ModelConfig(min_workers=2, max_workers=4)
    assert workers(both) == (2, 4)
    assert workers(both, initial_workers=2) == (2, 2)
    assert workers(ModelConfig(min_workers=3, max_workers=2)) == (0, 0)
    assert workers(None, initial_workers=5) == (5, 5)
    with pytest.raises(InvalidParameter):
        workers(None, initial_workers=100_000)


def test_devices_count_only_where_there_are_some() -> None:
    """
    A file that asks for GPUs must still load on a host without any (6.3).
    """
    wants = ModelConfig(device_type="gpu", device_ids=(1,))

    assert spec_of(wants).device_type == "cpu"
    assert spec_of(wants).device_ids == ()
    assert spec_of(wants, TWO_GPUS).device_ids == (1,)
    assert spec_of(ModelConfig(device_ids=(7,)), TWO_GPUS).device_ids == ()
    assert spec_of(ModelConfig(device_type="cpu"), TWO_GPUS).device_type == "cpu"
    assert spec_of(None, TWO_GPUS).device_type == "gpu"


def test_the_queue_is_the_files_or_the_settings() -> None:
    """
    jobQueueSize is per model; job_queue_size is for everybody else.
    """
    assert spec_of(ModelConfig(job_queue_size=3)).queue_capacity == 3
    assert spec_of().queue_capacity == 55


@pytest.mark.parametrize("size", [-1, 100_000])
def test_impossible_batch_sizes_are_refused(size: int) -> None:
    """
    Every input from outside has a limit.
    """
    with pytest.raises(InvalidParameter):
        spec_of(batch_size=size)
