"""`/metrics`."""

from __future__ import annotations


def test_metrics_are_numbers_as_text(frontend, supervisor):
    """
    Empty while there are none.
    """
    supervisor.verbs["statistics"] = lambda arguments: {}
    empty = frontend.request("metrics", "GET", "/metrics")
    supervisor.verbs["statistics"] = lambda arguments: {"jobs": 7, "busy-share": 0.5, "x": "no"}
    some = frontend.request("metrics", "GET", "/metrics")

    assert (empty.status, empty.body) == (200, b"")
    assert some.body == b"stoker_busy_share 0.5\nstoker_jobs 7\n"
    assert some.header("content-type").startswith("text/plain")
