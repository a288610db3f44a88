"""The `models` key of config.properties."""

from __future__ import annotations

import json

import pytest

from stoker.errors import SettingsError
from stoker.settings.load import load_with_origins
from stoker.settings.models_json import NO_OVERRIDE, ModelOverride, read_models

ENTRY = {
    "defaultVersion": True,
    "marName": "noop.mar",
    "minWorkers": 1,
    "maxWorkers": 2,
    "batchSize": 4,
    "maxBatchDelay": 50,
    "responseTimeout": 30,
    "startupTimeout": 60,
    "runtimeType": "python",
}


def test_an_entry_says_what_one_version_should_be() -> None:
    """
    The numbers and the runtime count; units become seconds here.
    """
    overrides = read_models(json.dumps({"noop": {"1.0": ENTRY}}))

    assert overrides.of("noop", "1.0") == ModelOverride(1, 2, 4, 0.05, 30, 60, "python")
    assert overrides.of("noop", "2.0") is NO_OVERRIDE
    assert overrides.of("other", "1.0") is NO_OVERRIDE
    assert overrides.notes == ()


def test_numbers_that_are_not_above_zero_say_nothing() -> None:
    """
    As for the peer (9.3); and texts that are numbers are numbers.
    """
    entry = {"minWorkers": 0, "batchSize": -1, "responseTimeout": "7"}

    assert read_models(json.dumps({"m": {"1": entry}})).of("m", "1") == ModelOverride(
        response_timeout_s=7
    )


def test_what_means_nothing_is_named() -> None:
    """
    Accepting a key in silence would look like obeying it.
    """
    text = json.dumps({"m": {"1": {"minWorker": 3}}})

    assert read_models(text).notes == ("models: without effect: minWorker",)
    assert load_with_origins([], {"STOKER_MODELS": text}).notes == (
        "models: without effect: minWorker",
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "models must be JSON: "),
        ("[]", "models must be a JSON object"),
        ('{"m": 1}', "models 'm' must be an object"),
        ('{"m": {"1": []}}', "models 'm 1' must be an object"),
        ('{"m": {"1": {"minWorkers": "many"}}}', "models 'm 1': minWorkers must be a whole number"),
        ('{"m": {"1": {"batchSize": true}}}', "models 'm 1': batchSize must be a whole number"),
        ('{"m": {"1": {"batchSize": 1e9}}}', "models 'm 1': batchSize must be a whole number"),
        ('{"m": {"1": {"runtimeType": 3}}}', "models 'm 1': runtimeType must be a text"),
        ("[" * 100_000, "models must be JSON: "),
    ],
)
def test_a_bad_entry_refuses_the_start(text: str, expected: str) -> None:
    """
    Found when the server starts, not when the model is registered.
    """
    with pytest.raises(SettingsError) as caught:
        read_models(text)

    assert caught.value.message.startswith(expected)
