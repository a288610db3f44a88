"""Listing, unregistering, default versions: contracts/torchserve.md 3.7-3.9."""

from __future__ import annotations

import pytest

from stoker.errors import DefaultVersionInUse, ModelNotFound, UnregisterTimeout, VersionNotFound

NOT_FOUND = "ModelNotFoundException"


@pytest.mark.parametrize(
    ("query", "asked", "token"),
    [
        ("", (100, 0), None),
        ("?limit=2", (2, 0), "2"),
        ("?limit=2&next_page_token=2", (2, 2), "4"),
        ("?limit=2&next_page_token=3", (2, 3), None),
        ("?limit=0", (0, 0), "0"),
        ("?limit=-1", (100, 0), None),
        ("?limit=101&next_page_token=-4", (100, 0), None),
    ],
)
def test_list_pages_as_the_peer_does(manage, supervisor, query, asked, token):
    """
    The token is there when offset + limit <= total, even at the very end (3.8).
    """
    outcome = {"total": 4, "models": [{"model": "noop", "version": "1.0", "url": "noop-v1.0"}]}

    answer = manage("GET", f"/models{query}", "list", outcome)

    assert supervisor.calls == [("list", {"limit": asked[0], "offset": asked[1]})]
    expected = {"models": [{"modelName": "noop", "modelUrl": "noop-v1.0"}]}
    assert answer.json == ({"nextPageToken": token, **expected} if token else expected)
    assert next(iter(answer.json)) == ("nextPageToken" if token else "models")


def test_unregister_never_names_the_version(manage, supervisor):
    """
    The page's text (3.7).
    """
    outcome = {"model": "noop", "version": "1.0"}

    answer = manage("DELETE", "/models/noop/1.0", "unregister", outcome)

    assert (answer.status, answer.body) == (
        200,
        b'{\n  "status": "Model \\"noop\\" unregistered"\n}\n',
    )
    assert supervisor.calls == [("unregister", {"model": "noop", "version": "1.0"})]


@pytest.mark.parametrize(
    ("error", "status", "kind", "message"),
    [
        (ModelNotFound(model="m"), 404, NOT_FOUND, "Model not found: m"),
        (
            DefaultVersionInUse(model="m", version="1.0"),
            403,
            "InvalidModelVersionException",
            "Cannot remove default version for model m",
        ),
        (
            UnregisterTimeout(model="m"),
            408,
            "RequestTimeoutException",
            "Timed out while cleaning resources: m",
        ),
    ],
)
def test_unregister_error_has_its_exact_shape(manage, error, status, kind, message):
    """
    The rows of 1.6.
    """
    answer = manage("DELETE", "/models/m", "unregister", error)

    assert answer.json == {"code": status, "type": kind, "message": message}


def test_set_default(manage, supervisor):
    """
    3.9.
    """
    outcome = {"model": "noop", "version": "2.0"}

    answer = manage("PUT", "/models/noop/2.0/set-default", "set_default", outcome)

    assert answer.json == {
        "status": 'Default version successfully updated for model "noop" to "2.0"'
    }
    assert supervisor.calls == [("set_default", {"model": "noop", "version": "2.0"})]


def test_set_default_to_an_unknown_version_has_its_own_text(manage):
    """
    Without the colons of every other place (1.6).
    """
    error = VersionNotFound(model="noop", version="9")

    answer = manage("PUT", "/models/noop/9/set-default", "set_default", error)

    assert answer.status == 404
    assert answer.json["message"] == "Model version 9 does not exist for model noop"
