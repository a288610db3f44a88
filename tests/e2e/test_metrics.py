"""`/metrics` of a running server: contracts/torchserve.md 10."""

from __future__ import annotations

import re
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.slow

SAMPLE = re.compile(r"(\w+)(?:\{(.*)\})? (\S+)")


@pytest.fixture(scope="module")
def server_flags():
    return ("--frontend-processes", "2", "--model-metrics-auto-detect", "true")


def scrape(server, query=""):
    """Name and labels of every sample, and its number."""
    page = server.ask("metrics", "GET", f"/metrics{query}")
    assert page.status == 200, page.text
    found = {}
    for line in page.text.splitlines():
        if not line.startswith("#"):
            name, labels, number = SAMPLE.fullmatch(line).groups()
            pairs = dict(re.findall(r'(\w+)="([^"]*)"', labels or ""))
            pairs = {key: text for key, text in pairs.items() if key.lower() != "hostname"}
            found[name, *sorted(pairs.items())] = float(number)
    return found


def test_what_was_asked_is_counted_over_all_processes(server, until):
    """
    Two processes answer, one is scraped: dashboards must see the sum, and each model's own.
    """
    server.register("echo", "echo:handle")
    before = scrape(server)
    for _ in range(20):
        assert server.predict("echo", b"hi").status == 200
    server.predict("echo/1.0", b"hi")
    server.predict("nobody", b"hi")

    def grown(name, **labels):
        key = (name, *sorted(labels.items()))
        return scrape(server).get(key, 0.0) - before.get(key, 0.0)

    until(lambda: grown("Requests4XX", Level="Host") == 1, "the unknown model is counted")
    until(lambda: grown("Requests2XX", Level="Host") >= 21, "every answer is counted")
    by_default = {"model_name": "echo", "model_version": "default"}
    by_name = {"model_name": "echo", "model_version": "1.0"}
    ours = {"model": "echo", "version": "1.0"}
    assert grown("ts_inference_requests_total", **by_default) == 20
    assert grown("ts_inference_requests_total", **by_name) == 1
    latency = grown("ts_inference_latency_microseconds", **by_default)
    assert latency >= grown("ts_queue_latency_microseconds", **by_default) > 0
    assert grown("stoker_queue_wait_seconds_count", **ours) == 21
    assert grown("stoker_batch_size_sum", **ours) == 21
    assert grown("stoker_errors_total", reason="model_not_found") == 1
    assert (
        scrape(server)[
            "stoker_workers",
            ("model", "echo"),
            ("state", "ready"),
            (
                "version",
                "1.0",
            ),
        ]
        == 1
    )
    assert not [key for key in scrape(server) if ("model_name", "nobody") in key]


def test_a_workers_death_and_the_retry_are_counted(server, until):
    """
    An operator sees that a model's workers die although no client does.
    """
    server.register("echo", "echo:handle")
    worker = server.workers("echo")[0]["pid"]
    psutil.Process(worker).kill()

    key = ("stoker_worker_deaths_total", ("model", "echo"), ("version", "1.0"))
    until(lambda: scrape(server).get(key) == 1, "the death is counted")


def test_a_filter_leaves_only_what_it_names(server):
    """
    10.1: `name[]`, also under paths below /metrics.
    """
    assert {key[0] for key in scrape(server, "?name[]=Requests2XX")} == {"Requests2XX"}
    assert scrape(server, "?name[]=nothing") == {}


def test_what_handlers_measure_is_on_the_page(server, until):
    """
    7.5, 10.3: from several workers, sums; printed lines count as well.
    """
    server.register("m", "measures:handle", workers=2)
    for _ in range(6):
        assert server.predict("m", b"x").text == "counted"

    def value(name, **labels):
        about = {"ModelName": "m", "Level": "Model", **labels}
        return scrape(server).get((name, *sorted(about.items())))

    until(lambda: value("hits", kind="x") == 6, "the counter of both workers is there")
    until(lambda: value("printed") == 12, "printed lines count")
    assert value("HandlerTime") == 12.5
    assert value("PredictionTime") > 0
    assert value("sizes_count") == 6
    assert value("sizes_bucket", le="0.025") == 0
    assert value("sizes_bucket", le="0.05") == 6
    server.clear()
    assert value("hits", kind="x") is None


def test_the_host_is_measured(server):
    """
    10.2: the names that dashboards know.
    """
    samples = scrape(server)

    assert 0 < samples["MemoryUtilization", ("Level", "Host")] < 100
    assert samples["DiskAvailable", ("Level", "Host")] > 0


def test_the_operators_program_measures_the_host(start_server, until, tmp_path):
    """
    10.4: `system_metrics_cmd`, in the form of the peer's collector.
    """
    program = tmp_path / "collect"
    program.write_text(
        "#!/bin/sh\n"
        "echo 'CPUUtilization.Percent:41.5|#Level:Host|#hostname:box,1717105563'\n"
        "echo\n"
        "echo 4711:123\n"
    )
    program.chmod(0o700)
    config = tmp_path / "config.properties"
    config.write_text(
        f"system_metrics_cmd={program} --gpu 0\n"
        + "".join(
            f"{listener}_address=http://127.0.0.1:0\n"
            for listener in ("inference", "management", "metrics")
        )
    )
    server = start_server("--config", str(config))

    samples = until(
        lambda: (found := scrape(server)).get(("CPUUtilization", ("Level", "Host"))) and found,
        "the program has run",
    )

    assert samples["CPUUtilization", ("Level", "Host")] == 41.5
    assert ("MemoryUtilization", ("Level", "Host")) not in samples


def test_in_log_mode_the_page_is_empty_and_files_have_the_lines(start_server, until):
    """
    10.1, 10.4: for those who grep; the lines are the peer's.
    """
    server = start_server("--metrics-mode", "log")
    server.register("m", "measures:handle")
    server.predict("m", b"x")

    def read(name):
        path = server.log_dir / name
        return path.read_text() if path.exists() else ""

    until(
        lambda: re.search(
            r"^\S+,\d{3} - HandlerTime\.Milliseconds:12\.5\|#ModelName:m,Level:Model"
            r"\|#hostname:[^,]+,requestID:[\w-]+,timestamp:\d+$",
            read("model_metrics.log"),
            re.M,
        ),
        "the handler's metric is in the file",
    )
    until(
        lambda: re.search(
            r" - Requests2XX\.Count:\d+\.0\|#Level:Host\|#hostname:.+,timestamp:\d+$",
            read("ts_metrics.log"),
            re.M,
        ),
        "the server's metric is in the file",
    )
    page = server.ask("metrics", "GET", "/metrics")
    assert (page.status, page.body) == (200, b"")
    server.clear()


def test_an_access_log_has_the_peers_lines(start_server, until):
    """
    9.6: one line for every answer of every process, refusals as well.
    """
    server = start_server("--access-log", "file", "--frontend-processes", "2")
    server.ask("inference", "GET", "/ping?x=1")
    server.ask("inference", "GET", "/nowhere")

    path = server.log_dir / "access_log.log"
    line = r"^\S+,\d{3} - /127\.0\.0\.1:\d+ \"GET %s HTTP/1\.1\" %d \d+$"
    for url, status in ((r"/ping\?x=1", 200), ("/nowhere", 404)):
        until(
            lambda pattern=line % (url, status): (
                path.exists() and re.search(pattern, path.read_text(), re.M)
            ),
            "the line is there",
        )


def test_the_page_of_the_documentation_has_every_metric(server):
    """
    What is served is what docs/metrics.md says: names, types and labels.
    """
    server.register("echo", "echo:handle")
    server.predict("echo", b"x")
    page = server.ask("metrics", "GET", "/metrics").text
    served = dict(re.findall(r"^# TYPE (\w+) (\w+)$", page, re.M))
    labels = {
        name: re.findall(r"(\w+)=", text)
        for name, text in re.findall(r"^(\w+?)(?:_sum)?\{(.*)\} ", page, re.M)
    }
    text = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (counter|gauge|histogram) \| (.*?) \|", text, re.M)

    assert {name: kind for name, kind, _ in rows} == {
        name: kind for name, kind in served.items() if name not in ("HandlerTime", "PredictionTime")
    }
    told = {name: re.findall(r"`(\w+)`", cell) for name, _, cell in rows}
    assert {name: labels[name] for name in told if name in labels} == {
        name: told[name] for name in told if name in labels
    }
