"""Whether there is memory for a version that is registered (contracts/djl-serving.md 11)."""

from __future__ import annotations

import pytest

from stoker.archives.model_config import ModelConfig
from stoker.errors import NotEnoughMemory
from stoker.settings.load import load
from stoker.supervisor.arguments import Arguments
from stoker.supervisor.memory_check import check_memory

#: MiB that no host has.
TOO_MUCH = 1 << 30
GENEROUS = load(["--reserved-memory-mb", "0"], {})
STRICT = load(["--reserved-memory-mb", str(TOO_MUCH)], {})


@pytest.mark.parametrize(
    ("settings", "config", "arguments"),
    [
        (GENEROUS, {}, {"required_memory_mb": TOO_MUCH}),
        (GENEROUS, {"required_memory_mb": TOO_MUCH}, {}),
        (GENEROUS, {"reserved_memory_mb": TOO_MUCH}, {}),
        (STRICT, {"required_memory_mb": 1}, {}),
        (STRICT, {}, {"checks_memory": True}),
        (GENEROUS, {"required_memory_mb": 1}, {"required_memory_mb": TOO_MUCH}),
    ],
)
def test_what_does_not_fit_is_refused_with_the_numbers(settings, config, arguments):
    with pytest.raises(NotEnoughMemory) as caught:
        check_memory(Arguments(arguments), ModelConfig(**config), settings)

    assert {"required_mb", "reserved_mb", "available_mb"} == set(caught.value.details)


@pytest.mark.parametrize(
    ("settings", "config", "arguments"),
    [
        (STRICT, {}, {}),
        (GENEROUS, {}, {"checks_memory": True}),
        (STRICT, {"required_memory_mb": 1, "reserved_memory_mb": 0}, {}),
        (GENEROUS, {"required_memory_mb": TOO_MUCH}, {"required_memory_mb": 1}),
    ],
)
def test_what_fits_or_says_nothing_is_let_in(settings, config, arguments):
    """
    TorchServe's clients say nothing of memory, and must not begin to fail.
    """
    check_memory(Arguments(arguments), ModelConfig(**config), settings)
