from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.archives.model_config import ModelConfig, TorchRun, not_built, parse_model_config
from stoker.errors import ManifestInvalid


def test_every_front_end_key_is_read() -> None:
    """Contract 6.3."""
    config = parse_model_config(
        b"""
minWorkers: 2
maxWorkers: 4
batchSize: 8
maxBatchDelay: 50
responseTimeout: 30
startupTimeout: 60
deviceType: GPU
deviceIds: [0, 2]
parallelType: pp
parallelLevel: 2
maxRetryTimeoutInSec: 5
clientTimeoutInMills: 1500
jobQueueSize: 7
useJobTicket: true
continuousBatching: true
sequenceBatching: true
sequenceMaxIdleMSec: 250
sequenceTimeoutMSec: 2000
maxSequenceJobQueueSize: 3
maxNumSequence: 9
asyncCommunication: true
useVenv: true
torchrun: {nproc-per-node: 4, rdzv-endpoint: "host:1"}
handler: {profile: true}
"""
    )

    assert config.warnings == ("model-config.yaml: without effect: torchrun.rdzv-endpoint",)
    assert config.worker_bounds() == (2, 4)
    assert (config.batch_size, config.max_batch_delay_s) == (8, 0.05)
    assert (config.response_timeout_s, config.startup_timeout_s) == (30, 60)
    assert (config.device_type, config.device_ids) == ("gpu", (0, 2))
    assert (config.parallel_type, config.parallel_level) == ("pp", 4)
    assert config.torchrun == TorchRun(nproc_per_node=4, rdzv_endpoint="host:1")
    assert (config.max_retry_timeout_s, config.client_timeout_s) == (5, 1.5)
    assert (config.job_queue_size, config.max_num_sequence) == (7, 9)
    assert (config.sequence_max_idle_s, config.sequence_timeout_s) == (0.25, 2.0)
    assert config.max_sequence_job_queue_size == 3
    assert config.use_job_ticket
    assert config.continuous_batching
    assert config.sequence_batching
    assert config.async_communication
    assert config.use_venv
    assert config.raw["handler"] == {"profile": True}


@pytest.mark.parametrize("text", [b"", b"{}", b"# nothing\n", b"BatchSize: 4\n"])
def test_what_is_not_said_is_unset(text: bytes) -> None:
    """`BatchSize` is a misspelling in one of the peer's own examples."""
    config = parse_model_config(text)

    assert config == ModelConfig(raw=config.raw)


def test_small_values_are_clamped_or_ignored() -> None:
    """Contract 6.3, column effect / clamp."""
    config = parse_model_config(
        b"minWorkers: 0\nmaxWorkers: -1\nbatchSize: -5\nmaxBatchDelay: 0\n"
        b"responseTimeout: 0\njobQueueSize: 0\nparallelLevel: 3\n"
    )

    assert (config.min_workers, config.max_workers, config.batch_size) == (1, None, 1)
    assert config.max_batch_delay_s is None
    assert config.response_timeout_s is None
    assert config.parallel_level == 0
    assert config.worker_bounds() is None


@pytest.mark.parametrize(
    "line",
    [
        "minWorkers: two",
        "minWorkers: true",
        "minWorkers: 1.5",
        "maxWorkers: 99999999999",
        "deviceIds: 3",
        "deviceIds: [0, x]",
        "deviceIds: [-1]",
        "deviceType: tpu",
        "parallelType: 3",
        "useVenv: 'yes'",
        "torchrun: 4",
        "torchrun: {nproc-per-node: x}",
        "maxRetryTimeoutInSec: -1",
    ],
)
def test_a_wrong_type_is_a_warning_and_unset(line: str) -> None:
    """One typo must not keep a model from serving; it must be said, though."""
    config = parse_model_config(line.encode())

    assert len(config.warnings) == 1
    assert line.split(":", maxsplit=1)[0] in config.warnings[0]
    unset = parse_model_config(b"torchrun: {}" if "{" in line else b"")
    assert ModelConfig(raw=config.raw, warnings=config.warnings, torchrun=unset.torchrun) == config


def test_device_ids_count_all_or_none() -> None:
    """One id outside drops the list (contract 6.3)."""
    config = parse_model_config(b"deviceIds: [0, 3]")

    assert config.usable_device_ids(4) == (0, 3)
    assert config.usable_device_ids(3) == ()


BOMBS = {
    "aliases": b"a: &a [x]\n" + b"".join(b"%d: [*a]\n" % n for n in range(20)),
    "laughs": b"a: &a [%s]\n" % (b"x," * 900)
    + b"".join(
        b"%c: &%c [*%c,*%c]\n" % (n + 1, n + 1, n, n) for n in range(ord("a"), ord("a") + 8)
    ),
    "merge": b"a: &a {%s}\n" % b",".join(b"k%d: 1" % n for n in range(9000)) + b"b: {<<: *a}\n",
    "deep": b"[" * 200 + b"]" * 200,
    "self": b"&a [*a]",
    "large": b"a: " + b"x" * (1 << 20),
    "wide": b"[" + b"x," * 500_000 + b"]",
    "digits": b"a: " + b"9" * 100_000,
    "sexagesimal": b"a: 1" + b":59" * 100_000,
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_quickly(name: str) -> None:
    """Small to write, endless to read."""
    started = time.monotonic()

    with pytest.raises(ManifestInvalid, match=r"^Model config file model-config\.yaml "):
        parse_model_config(BOMBS[name])

    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    "text",
    [
        b"!!python/object/apply:os.system ['true']",
        b"a: !!python/name:os.system",
        b"a: [",
        b"- a",
        b"text",
        b"? [a]\n: b",
        b"a: 2024-99-99",
        b"\x00",
        b"\xff\xfe\x00",
        b"a: 1\n---\nb: 2",
    ],
)
def test_what_is_no_plain_map_is_refused(text: bytes) -> None:
    """safe_load only (CVE-2022-1471), and nothing but one map."""
    with pytest.raises(ManifestInvalid):
        parse_model_config(text)


def test_values_the_wire_does_not_know_become_text() -> None:
    """The handler hears of them as text, the operator as a warning."""
    config = parse_model_config(b"since: 2024-01-02\n1: one\nbase: &b {x: 1}\nmore: {<<: *b}\n")

    assert config.raw == {"since": "2024-01-02", "1": "one", "base": {"x": 1}, "more": {"x": 1}}
    assert len(config.warnings) == 2


@given(st.text(max_size=60))
def test_any_text_is_a_config_or_our_error(text: str) -> None:
    """The document is the client's."""
    try:
        parse_model_config(text.encode("utf-8", "replace"))
    except ManifestInvalid:
        pass


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (b"continuousBatching: true\nasyncCommunication: true", []),
        (
            b"sequenceBatching: true\nasyncCommunication: true",
            ["asyncCommunication together with sequenceBatching"],
        ),
        (
            b"sequenceBatching: true\ncontinuousBatching: true",
            [],
        ),
        (
            b"asyncCommunication: true\nparallelType: tp\nparallelLevel: 2",
            ["asyncCommunication in a worker of several processes"],
        ),
        (b"asyncCommunication: true\nparallelType: custom\nparallelLevel: 2", []),
        (b"torchrun: {nnodes: 2}", ["torchrun.nnodes above 1"]),
        (b"parallelType: tp\nparallelLevel: 65", ["parallelLevel above 64"]),
        (b"sequenceMaxIdleMSec: 10\nparallelLevel: 65", []),
    ],
)
def test_what_is_not_built_is_named(text: bytes, named: list[str]) -> None:
    """
    A key that is read and then ignored would be a handler that answers wrongly.
    """
    assert not_built(parse_model_config(text)) == named


@pytest.mark.parametrize("value", ["strict", "bubblewarp", "true", "1", "[rlimits]", "{a: b}"])
def test_a_sandbox_that_we_do_not_know_is_refused(value: str) -> None:
    """A misspelt fence would be no fence, and nobody would notice."""
    with pytest.raises(ManifestInvalid, match="asks for a sandbox that is none of"):
        parse_model_config(f"sandbox: {value}\n".encode())


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("sandbox: off", "off"),
        ("sandbox: 'off'", "off"),
        ("sandbox: RLimits", "rlimits"),
        ("", None),
        ("sandbox:", None),
    ],
)
def test_a_sandbox_may_be_spelt_as_yaml_likes_it(text: str, word: str | None) -> None:
    """A bare `off` is false to YAML."""
    config = parse_model_config(text.encode())

    assert (config.sandbox, config.warnings) == (word, ())


def test_what_steers_the_number_of_workers_is_read() -> None:
    """
    Ours, called like the settings; a time may have a fraction.
    """
    config = parse_model_config(
        b"max_idle_s: 0\nqueue_wait_target_s: 0.05\nrequired_memory_mb: 9\n"
        b"gpu_required_memory_mb: 8\n"
    )

    assert (config.max_idle_s, config.queue_wait_target_s) == (0.0, 0.05)
    assert (config.required_memory_mb, config.gpu_required_memory_mb) == (9, 8)
    assert config.warnings == ()


def test_a_target_that_cannot_be_kept_is_ignored_and_named() -> None:
    config = parse_model_config(b"queue_wait_target_s: 0\nmax_idle_s: soon\n")

    assert (config.queue_wait_target_s, config.max_idle_s) == (None, None)
    assert len(config.warnings) == 2
