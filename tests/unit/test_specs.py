"""What is registered: archive, request and settings by the contract's precedence (3.4)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from stoker.archives.archive import ResolvedArchive
from stoker.archives.model_config import ModelConfig, TorchRun
from stoker.errors import InvalidParameter, ManifestInvalid, NotEnoughDevices
from stoker.settings.load import load
from stoker.supervisor.arguments import Arguments
from stoker.supervisor.device_places import DevicePlaces
from stoker.supervisor.devices import Device
from stoker.supervisor.fencing import FencingMeans
from stoker.supervisor.initial_workers import initial_workers, startup_workers
from stoker.supervisor.processors import usable_processors
from stoker.supervisor.sequences import SequencePolicy
from stoker.supervisor.specs import build_spec
from stoker.supervisor.versions import VersionSpec
from stoker.wire.sequence_labels import DEFAULT_HEADERS

MEANS = FencingMeans()
SETTINGS = load(["--default-response-timeout", "77", "--job-queue-size", "55"], {})
TWO_GPUS = tuple(Device(index, f"GPU-{index}", "fake", 1 << 30) for index in range(2))


def spec_of(
    config: ModelConfig | None = None, devices: tuple[Device, ...] = (), **arguments: Any
) -> VersionSpec:
    archive = ResolvedArchive(
        model="m", version="1.0", handler="h", runtime="python", url="", config=config
    )
    return build_spec(archive, Arguments(arguments), SETTINGS, DevicePlaces(devices), False, MEANS)


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


def archive_of(config: ModelConfig | None = None, model: str = "m") -> ResolvedArchive:
    return ResolvedArchive(
        model=model, version="1.0", handler="h", runtime="python", url="m.mar", config=config
    )


def test_the_archives_worker_counts_beat_the_request() -> None:
    """
    model-config.yaml wins when it has both and they make sense (3.4, checklist 18).
    """

    def workers(config: ModelConfig | None, **arguments: Any) -> tuple[int, int]:
        return initial_workers(archive_of(config), Arguments(arguments), SETTINGS)

    both = ModelConfig(min_workers=2, max_workers=4)
    assert workers(both) == (2, 4)
    assert workers(both, initial_workers=3) == (2, 4)
    assert workers(ModelConfig(min_workers=3, max_workers=2), initial_workers=1) == (1, 1)
    assert workers(ModelConfig(min_workers=3), initial_workers=1) == (1, 1)
    assert workers(None, initial_workers=5) == (5, 5)


@pytest.mark.parametrize(
    ("config", "arguments"),
    [(None, {"initial_workers": 100_000}), (ModelConfig(min_workers=1, max_workers=100_000), {})],
)
def test_more_workers_than_a_host_can_mean_are_refused(
    config: ModelConfig | None, arguments: dict[str, Any]
) -> None:
    """
    Neither a client nor an archive may fork the host to death.
    """
    with pytest.raises((InvalidParameter, ManifestInvalid)):
        initial_workers(archive_of(config), Arguments(arguments), SETTINGS)


def test_workers_at_start_come_from_file_then_models_then_the_host() -> None:
    """
    Section 3.4: model-config.yaml > `models`, each number by itself > the default of 8.9.
    """
    models = '{"m": {"1.0": {"minWorkers": 2}}, "n": {"1.0": {"maxWorkers": 1}}}'
    settings = load([], {"STOKER_MODELS": models})
    plenty = load(["--default-workers-per-model", "3"], {"STOKER_MODELS": models})

    def workers(settings: Any, model: str, config: ModelConfig | None = None) -> tuple[int, int]:
        return startup_workers(archive_of(config, model), settings, DevicePlaces(TWO_GPUS))

    assert workers(settings, "m", ModelConfig(min_workers=5, max_workers=6)) == (5, 6)
    assert workers(settings, "m") == (2, 2)
    assert workers(plenty, "m") == (2, 3)
    assert workers(plenty, "n") == (1, 1)
    assert workers(plenty, "o") == (3, 3)
    assert workers(settings, "o") == (2, 2)
    assert startup_workers(archive_of(), settings, DevicePlaces(())) == (usable_processors(),) * 2


def test_mms_num_workers_stands_between_the_default_and_the_host() -> None:
    """
    contracts/mms.md 8: a fallback for models of the start, and for them alone.
    """
    fallback = load(["--startup-workers-per-model", "3"], {})
    both = load(["--startup-workers-per-model", "3", "--default-workers-per-model", "1"], {})

    assert startup_workers(archive_of(), fallback, DevicePlaces(TWO_GPUS)) == (3, 3)
    assert startup_workers(archive_of(), both, DevicePlaces(TWO_GPUS)) == (1, 1)
    assert initial_workers(archive_of(), Arguments({}), fallback) == (0, 0)


def test_the_models_setting_stands_between_file_and_default() -> None:
    """
    Section 3.4: below the file and, for batches, the request; above the request for timeouts.
    """
    entry = (
        '{"m": {"1.0": {"batchSize": 3, "maxBatchDelay": 70, "responseTimeout": 8, '
        '"startupTimeout": 9, "runtimeType": "PYTHON3"}}}'
    )
    settings = load([], {"STOKER_MODELS": entry})

    def spec(config: ModelConfig | None = None, **arguments: Any) -> VersionSpec:
        return build_spec(
            archive_of(config), Arguments(arguments), settings, DevicePlaces(()), False, MEANS
        )

    plain = spec(response_timeout_s=300, startup_timeout_s=300)
    assert (plain.batch.max_size, plain.batch.delay_s) == (3, 0.07)
    assert (plain.response_timeout_s, plain.startup_timeout_s) == (8, 9)
    assert plain.shown["runtime"] == "python3"
    assert spec(batch_size=5).batch.max_size == 5
    stated = spec(ModelConfig(batch_size=6, max_batch_delay_s=0.2, response_timeout_s=7))
    assert (stated.batch.max_size, stated.batch.delay_s) == (6, 0.2)
    assert (stated.response_timeout_s, stated.startup_timeout_s) == (7, 9)


def test_parallel_workers_take_several_devices_each() -> None:
    """
    parallelLevel counts GPUs and processes; `custom` stays one process (6.3).
    """
    tensor = spec_of(ModelConfig(parallel_type="tp", parallel_level=2), TWO_GPUS)
    custom = spec_of(ModelConfig(parallel_type="custom", parallel_level=2), TWO_GPUS)
    pipeline = spec_of(ModelConfig(parallel_type="pp", parallel_level=2))

    assert (tensor.ranks, tensor.loading["is_broadcast"]) == (2, True)
    assert (custom.ranks, custom.loading["is_broadcast"]) == (1, False)
    assert (pipeline.ranks, pipeline.loading["is_broadcast"]) == (2, False)
    assert (tensor.most_workers, custom.most_workers, pipeline.most_workers) == (1, 1, None)


def test_too_few_gpus_for_one_worker_are_refused() -> None:
    """
    The peer's text (1.6); without any GPU the worker runs on processors.
    """
    wants = ModelConfig(parallel_type="tp", parallel_level=4)

    with pytest.raises(NotEnoughDevices) as caught:
        spec_of(wants, TWO_GPUS)
    assert caught.value.message == "No enough gpu devices for model:m parallelLevel:4"
    assert spec_of(wants).ranks == 4


@pytest.mark.parametrize(
    ("config", "named"),
    [
        (ModelConfig(torchrun=TorchRun(nnodes=2)), "torchrun.nnodes above 1"),
        (ModelConfig(parallel_type="tp", parallel_level=65), "parallelLevel above 64"),
        (
            ModelConfig(async_communication=True, parallel_type="tp", parallel_level=2),
            "asyncCommunication in a worker of several processes",
        ),
    ],
)
def test_what_is_not_built_refuses_the_archive_that_needs_it(
    config: ModelConfig, named: str
) -> None:
    """
    Its handler would load, and answer wrongly.
    """
    with pytest.raises(ManifestInvalid, match=f"asks for {named}, which this release"):
        spec_of(config)


def test_what_the_file_says_of_sequences_is_taken_over() -> None:
    """
    And a version with sequences tries nothing twice: what was lost had changed its state.
    """
    config = ModelConfig(
        sequence_batching=True,
        sequence_max_idle_s=1.5,
        sequence_timeout_s=9.0,
        max_num_sequence=20,
        max_sequence_job_queue_size=3,
    )

    spec = spec_of(config)

    assert spec.sequences == SequencePolicy(1.5, 9.0, 20, 3)
    assert spec.max_attempts == 1
    assert spec.loading["sequence_headers"] == list(DEFAULT_HEADERS)
    assert spec.loading["sequence_max_idle_s"] == 1.5
    assert spec_of(ModelConfig(sequence_max_idle_s=1.5)).sequences is None


@pytest.mark.parametrize(
    "config",
    [
        ModelConfig(sequence_batching=True),
        ModelConfig(sequence_batching=True, sequence_max_idle_s=1.0, max_num_sequence=65_537),
        ModelConfig(
            sequence_batching=True,
            sequence_max_idle_s=1.0,
            max_num_sequence=300,
            max_sequence_job_queue_size=300,
        ),
    ],
)
def test_sequences_that_cannot_be_are_refused(config: ModelConfig) -> None:
    """
    Without an idle limit each ends at once (6.3); without a bound they fill the host.
    """
    with pytest.raises(ManifestInvalid):
        spec_of(config)


def test_how_many_requests_a_worker_works_on_at_once() -> None:
    """
    A running batch is as large as a batch; asynchronous workers have a limit of their own.
    """
    plain = spec_of(batch_size=8)
    continuous = spec_of(ModelConfig(continuous_batching=True, batch_size=8))
    eager = spec_of(ModelConfig(async_communication=True, batch_size=1))
    modest = spec_of(ModelConfig(async_communication=True, max_requests_in_hand=3))
    greedy = spec_of(ModelConfig(async_communication=True, max_requests_in_hand=10**6))

    assert (plain.jobs_at_once, plain.loading["mode"]) == (0, "batches")
    assert (continuous.jobs_at_once, continuous.loading["mode"]) == (8, "continuous")
    assert (eager.jobs_at_once, eager.loading["mode"]) == (256, "async")
    assert (modest.jobs_at_once, greedy.jobs_at_once) == (3, 4096)
    assert continuous.loading["jobs_at_once"] == continuous.jobs_at_once


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


# -- preload_model ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "setting", "is_preloaded"),
    [
        ("on", "false", True),
        ("off", "true", False),
        (None, "true", True),
        (None, "false", False),
    ],
)
def test_a_request_or_a_setting_preloads(asked: str | None, setting: str, is_preloaded: bool):
    """
    The request's word counts, whatever the setting says (contracts/mms.md 6.1).
    """
    settings = load(["--preload-model", setting], {})
    arguments = Arguments({"preload": asked})

    spec = build_spec(archive_of(), arguments, settings, DevicePlaces(()), False, MEANS)

    assert spec.is_preloaded is is_preloaded


@pytest.mark.parametrize(
    ("config", "contract", "why"),
    [
        (ModelConfig(parallel_type="tp", parallel_level=2), "torchserve", "several processes"),
        (None, "djl", "DJL Serving"),
    ],
)
def test_what_cannot_be_preloaded_is_refused_if_it_was_asked_for(
    config: ModelConfig | None, contract: str, why: str
):
    """
    A setting for all models loads such a one the ordinary way.
    """
    settings = load(["--preload-model", "true"], {})
    archive = replace(archive_of(config), contract=contract)
    places = DevicePlaces(TWO_GPUS)

    assert not build_spec(archive, Arguments({}), settings, places, False, MEANS).is_preloaded
    with pytest.raises(InvalidParameter, match=f"preload_model is not possible: .*{why}"):
        build_spec(archive, Arguments({"preload": "on"}), settings, places, False, MEANS)


def test_a_sandbox_around_each_worker_cannot_be_forked():
    """
    Its namespaces are made for a new process.
    """
    settings = load(["--sandbox", "bubblewrap"], {})
    means = FencingMeans(why_no_bubblewrap=lambda _: "")

    with pytest.raises(InvalidParameter, match="the sandbox is made around each worker"):
        build_spec(
            archive_of(), Arguments({"preload": "on"}), settings, DevicePlaces(()), False, means
        )


def test_what_steers_the_number_of_workers_is_said_by_request_archive_or_server() -> None:
    """
    In this order; a 0 is said.
    """
    config = ModelConfig(max_idle_s=9.0, queue_wait_target_s=0.5, required_memory_mb=7)

    assert spec_of(config).max_idle_s == 9.0
    assert spec_of(config, max_idle_s=0.0).max_idle_s == 0.0
    assert spec_of(config).queue_wait_target_s == 0.5
    assert spec_of().queue_wait_target_s == SETTINGS.queue_wait_target_s
    assert spec_of(config).required_memory_bytes == 7 << 20
    assert spec_of(config, required_memory_mb=0).required_memory_bytes == 0
    assert spec_of().reserved_memory_bytes == SETTINGS.reserved_memory_mb << 20


def test_counts_per_device_make_groups_where_there_are_several_devices() -> None:
    assert spec_of(None, TWO_GPUS, per_device=True).group_devices == (0, 1)
    assert spec_of(None, TWO_GPUS).group_devices == ()
    assert spec_of(None, TWO_GPUS[:1], per_device=True).group_devices == ()
    assert spec_of(ModelConfig(device_type="cpu"), TWO_GPUS, per_device=True).group_devices == ()
    parallel = ModelConfig(parallel_type="custom", parallel_level=2)
    assert spec_of(parallel, TWO_GPUS, per_device=True).group_devices == ()
