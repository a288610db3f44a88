"""The settings record itself."""

from __future__ import annotations

import dataclasses
import re

import pytest

from stoker.settings import KNOWN, Settings


@pytest.mark.parametrize(
    ("name", "default"),
    [
        ("inference_address", "http://127.0.0.1:8080"),
        ("management_address", "http://127.0.0.1:8081"),
        ("metrics_address", "http://127.0.0.1:8082"),
        ("default_response_timeout", 120),
        ("unregister_model_timeout", 120),
        ("job_queue_size", 100),
        ("max_request_size", 6553500),
        ("max_response_size", 6553500),
        ("initial_worker_port", 9000),
        ("decode_input_request", True),
        ("enable_model_api", True),
        ("allowed_urls", ()),
        ("metrics_mode", "prometheus"),
    ],
)
def test_defaults_are_the_contracts(name, default):
    """
    The peer's, save for the decided conflicts and the stricter ones of section 11.
    """
    assert default == getattr(Settings(), name)


def test_every_setting_explains_itself_in_one_sentence():
    """
    `stoker serve --help` is made of them.
    """
    for known in KNOWN.values():
        assert re.fullmatch(r"\S.*\.", known.about.doc), known.name


def test_the_record_cannot_be_changed():
    """
    Every process reads the same settings from start to end.
    """
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().job_queue_size = 1  # type: ignore[misc]


def test_secrets_are_not_part_of_the_repr():
    """
    A record ends up in logs and tracebacks.
    """
    assert "changeit" not in repr(Settings())
