"""`/metrics`, and what a frontend reports of itself."""

from __future__ import annotations

import pytest

FAMILIES = [
    ["Requests2XX", "counter", "help", ["Level", "Hostname"], [], [[["Host", "h"], 8]]],
    ["odd", "gauge", 'a\nb "c"', ["x"], [], [[['q"\\\n'], 0.5]]],
    ["none", "gauge", "nothing yet", [], [], []],
    ["waits", "histogram", "w", ["m"], [0.1, 1.0], [[["a"], [[1, 0, 2], 3.5]]]],
]


def test_metrics_are_written_in_the_text_format(frontend, supervisor):
    """
    With the peer's names as they are: a usual client library would rename its counters.
    """
    supervisor.verbs["statistics"] = lambda arguments: {"jobs": 7, "families": FAMILIES}

    some = frontend.request("metrics", "GET", "/metrics")

    assert some.header("content-type") == "text/plain; version=0.0.4; charset=utf-8"
    assert some.body.decode() == (
        "# HELP Requests2XX help\n"
        "# TYPE Requests2XX counter\n"
        'Requests2XX{Level="Host",Hostname="h",} 8.0\n'
        '# HELP odd a\\nb "c"\n'
        "# TYPE odd gauge\n"
        'odd{x="q\\"\\\\\\n",} 0.5\n'
        "# HELP none nothing yet\n"
        "# TYPE none gauge\n"
        "# HELP waits w\n"
        "# TYPE waits histogram\n"
        'waits_bucket{m="a",le="0.1",} 1.0\n'
        'waits_bucket{m="a",le="1.0",} 1.0\n'
        'waits_bucket{m="a",le="+Inf",} 3.0\n'
        'waits_count{m="a",} 3.0\n'
        'waits_sum{m="a",} 3.5\n'
    )


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/metrics"), ("GET", "/metrics/anything/else"), ("PUT", "/metrics/")],
)
def test_any_method_and_whatever_follows_asks_for_the_page(frontend, supervisor, method, path):
    """
    10.1: some scrapers were set up so.
    """
    supervisor.verbs["statistics"] = lambda arguments: {"families": FAMILIES}

    page = frontend.request("metrics", method, path)

    assert page.status == 200
    assert b"Requests2XX" in page.body


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("?name[]=odd&name%5B%5D=none", {"odd", "none"}),
        ("?name[]=unknown", set()),
        ("?name=odd", {"Requests2XX", "odd", "none", "waits"}),
    ],
)
def test_only_the_metrics_that_are_named_come(frontend, supervisor, query, names):
    """
    `name[]` is how scrapers ask for some; unknown names give an empty document.
    """
    supervisor.verbs["statistics"] = lambda arguments: {"families": FAMILIES}

    page = frontend.request("metrics", "GET", f"/metrics{query}")

    shown = {line.split()[2] for line in page.body.decode().splitlines() if "# TYPE" in line}
    assert (page.status, shown) == (200, names)


def test_a_scrape_brings_what_this_process_has_counted(frontend, supervisor):
    """
    Who asks the process that answered finds that answer, whenever the last report was.
    """
    asked = []
    supervisor.verbs["statistics"] = lambda arguments: asked.append(arguments) or {}
    frontend.request("metrics", "GET", "/metrics")
    frontend.request("inference", "GET", "/nowhere")

    frontend.request("metrics", "GET", "/metrics")

    report = asked[-1]["report"]
    told = [answers for answers in (report.get("answers"), *_reported(supervisor)) if answers]
    assert sum(answers[4] for answers in told) >= 1
    assert report["held"]["connections"] >= 1


def _reported(supervisor):
    return [report.get("answers") for report in supervisor.reports]
