"""Methods and routes that are not served: contracts/torchserve.md 1.6, 3.9."""

from __future__ import annotations

import pytest

NOT_ALLOWED = {
    "code": 405,
    "type": "MethodNotAllowedException",
    "message": "Requested method is not allowed, please refer to API document.",
}


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("DELETE", "/models"),
        ("POST", "/models/m"),
        ("PATCH", "/models/m/1.0"),
        ("GET", "/models/m/1.0/set-default"),
        ("DELETE", "/models/m/1.0/set-default"),
        ("GET", "/"),
        ("OPTIONS", "/models"),
        ("PROPFIND", "/models"),
    ],
)
def test_wrong_method_is_a_405_without_allow(frontend, method, target):
    """
    Management routes check the method; set-default is for PUT alone (1.6, 3.9).
    """
    answer = frontend.request("management", method, target)

    assert (answer.status, answer.json) == (405, NOT_ALLOWED)
    assert answer.header("allow") is None


def test_predictions_are_not_served_on_management(frontend, echo):
    """
    A listener serves its roles and nothing else.
    """
    answer = frontend.request("management", "POST", f"/predictions/{echo}")

    assert answer.json["type"] == "ResourceNotFoundException"
