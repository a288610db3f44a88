"""Counting, adding up, and the limits of what handlers may measure."""

from __future__ import annotations

from pathlib import Path

import pytest

from stoker.errors import SettingsError
from stoker.frontend.access_log import AccessLog
from stoker.metrics_config import PACKAGED, MetricDefinition, read_metrics_config
from stoker.supervisor.devices import Device, GpuUsage
from stoker.supervisor.frontend_reports import FORGET_S, FrontendReports
from stoker.supervisor.gpu_metrics import MIB, GpuMetrics
from stoker.supervisor.handler_metrics import MAX_SERIES, HandlerMetrics
from stoker.supervisor.jobs import Asked, Job, JobState
from stoker.supervisor.printed_metrics import parse
from stoker.supervisor.tally import Tally
from stoker.supervisor.versions import VersionKey
from stoker.wire.frames import Measurement
from stoker.worker.measurements import MAX_TEXT, Pending

KEY = VersionKey("m", "1.0")
LABELS = (("ModelName", "Level"), ("m", "Model"))


def counted(name: str, number: float, value: str = "m") -> Measurement:
    return Measurement("counter", name, "Count", ["ModelName"], [value], number, [])


def open_metrics(*definitions: MetricDefinition, is_open: bool = True) -> HandlerMetrics:
    return HandlerMetrics(definitions, "host", is_open=is_open)


# -- what is counted about jobs ----------------------------------------------------------


def test_a_batch_counts_for_those_who_were_answered():
    """
    A client that left has no latency; what it waited would spoil the sums of the others.
    """
    tally, asked = Tally(), Asked()
    jobs = [Job(bytes(16), b"", 9.0, 1.0, i, asked=asked) for i in range(3)]
    for job in jobs[:2]:
        job.state = JobState.COMPLETED

    tally.note_batch(jobs, begun_at=1.5, now=1.75)

    assert (asked.queue_s, asked.latency_s) == (1.0, 1.5)
    assert (sum(tally.waits.counts), tally.sizes.total, tally.handling.total) == (2, 3, 0.25)


def test_what_processes_hold_is_forgotten_with_them():
    """
    Counts stay when a frontend is replaced, and what it held does not.
    """
    reports = FrontendReports()
    for process in (1, 2):
        reports.take({"process": process, "answers": [0, 0, 5], "held": {"connections": 3}}, 0.0)
    reports.take({"process": 2, "answers": "odd", "held": {"connections": 4}}, 10.0)

    assert reports.answers[2] == 10
    assert reports.held(FORGET_S) == {"connections": 7}
    assert reports.held(FORGET_S + 1) == {"connections": 4}


# -- in a worker --------------------------------------------------------------------------


def test_updates_are_added_up_until_they_are_sent():
    """
    A thousand requests a second are one message a second.
    """
    pending = Pending()
    for number in (1, 2):
        pending.note("counter", "hits", "Count", *LABELS, number)
        pending.note("gauge", "heat", "C", *LABELS, number)
        pending.note("histogram", "took", "s", *LABELS, number)

    rows = {row.name: row for row in pending.take()}

    assert (rows["hits"].number, rows["heat"].number, rows["took"].number) == (3.0, 2.0, 3.0)
    assert sum(rows["took"].counts) == 2
    assert pending.take() == []


def test_a_handler_cannot_fill_the_memory_with_labels():
    """
    A label of a request's own is the usual mistake.
    """
    pending = Pending()
    for i in range(5000):
        pending.note("counter", "hits", "Count", ("id",), (str(i),), 1)
    pending.note("gauge", "long", "C", ("id",), ("x" * (MAX_TEXT + 1),), 1)
    pending.note("gauge", "odd", "C", ("id",), ("x",), "text")  # type: ignore[arg-type]

    assert len(pending) == 1000
    assert pending.dropped == 4002


def test_what_is_not_configured_is_not_kept_unless_detected():
    """
    10.2: only metrics that the file names exist.
    """
    pending = Pending(["hits"])
    pending.note("counter", "hits", "Count", *LABELS, 1)
    pending.note("counter", "others", "Count", *LABELS, 1)

    assert [row.name for row in pending.take()] == ["hits"]


# -- in the supervisor ----------------------------------------------------------------------


def test_counters_of_several_versions_are_added():
    """
    The peer's labels name no version, so two of them share one series.
    """
    metrics = open_metrics()
    metrics.take(KEY, [counted("hits", 2.0), counted("hits", 3.0)])
    metrics.take(VersionKey("m", "2.0"), [counted("hits", 4.0)])

    ((name, kind, _, labels, _, samples),) = metrics.families()

    assert (name, kind, labels) == ("hits", "counter", ("ModelName", "Hostname"))
    assert samples == [[["m", "host"], 9.0]]
    metrics.forget(KEY)
    assert metrics.families()[0][5] == [[["m", "host"], 4.0]]


def test_a_handler_cannot_take_the_servers_names_nor_change_a_type():
    """
    One family has one type; a page with two is refused whole by scrapers.
    """
    metrics = open_metrics()
    metrics.take(KEY, [counted("hits", 1.0), counted("Requests2XX", 1.0)])
    metrics.take(KEY, [Measurement("gauge", "hits", "C", ["ModelName"], ["m"], 7.0, [])])

    assert [(row[0], row[5][0][1]) for row in metrics.families()] == [("hits", 1.0)]


def test_series_are_bounded_and_names_are_made_fit():
    """
    User code chooses names and labels.
    """
    metrics = open_metrics()
    metrics.take(KEY, [counted("1 odd-name", 1.0, str(i)) for i in range(MAX_SERIES + 10)])

    ((name, *_, samples),) = metrics.families()

    assert (name, len(samples)) == ("_1_odd_name", MAX_SERIES)


def test_a_configured_metric_is_there_without_samples():
    """
    10.1: dashboards find the name before the first update.
    """
    metrics = open_metrics(*PACKAGED.model, is_open=False)
    metrics.take(KEY, [counted("hits", 1.0)])

    assert [(row[0], row[5]) for row in metrics.families()] == [
        ("HandlerTime", []),
        ("PredictionTime", []),
    ]


def test_gpus_are_read_beside_the_loop():
    """
    A GPU that fell off the bus answers after seconds; a scrape shows what is known.
    """
    gpus = GpuMetrics(
        [Device(0, "GPU-a", "Tesla", 4 * MIB), Device(1, "GPU-gone", "Tesla", 4 * MIB)],
        lambda device: GpuUsage(0, 30, 5, MIB) if device.index == 0 else None,
    )

    first = gpus.measure(0.0)
    gpus.wait_read(10.0)

    assert first == []
    assert gpus.measure(1.0) == [
        ("GPUMemoryUsed", 0, 1.0),
        ("GPUMemoryUtilization", 0, 25.0),
        ("GPUUtilization", 0, 30.0),
    ]


def test_a_printed_line_is_a_metric_also_without_a_type():
    """
    7.5: handlers print them by themselves; 10.4: and the log has them in another form.
    """
    said = parse("[METRICS]a.ms:1.5|#ModelName:m,Level:Model|#hostname:h,17,id-0,id-1")

    assert said is not None
    assert said[0] == Measurement(
        "counter", "a", "ms", ["ModelName", "Level"], ["m", "Model"], 1.5, []
    )
    assert (
        said[1] == "a.ms:1.5|#ModelName:m,Level:Model|#hostname:h,requestID:id-0,id-1,timestamp:17"
    )
    for line in ("[METRICS] hello", "[METRICS]a.ms:x|#|#hostname:h,1", "[METRICS]"):
        assert parse(line) is None


# -- the file --------------------------------------------------------------------------------

FILE = """
dimensions:
  - &name "ModelName"
ts_metrics:
  counter: [{name: Requests2XX, unit: Count, dimensions: [Level, Hostname]}]
model_metrics:
  gauge: [{name: heat, unit: C, dimensions: [*name, Hostname]}]
"""


def test_a_metrics_file_is_read(tmp_path: Path):
    """
    10.3, with the anchors that the peer's own file has.
    """
    path = tmp_path / "metrics.yaml"
    path.write_text(FILE)

    config = read_metrics_config(path)

    assert config.server == {"Requests2XX"}
    assert config.model == (MetricDefinition("heat", "gauge", "C", ["ModelName"]),)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("unit: C,", "unit: '',", "no name or no unit"),
        ("model_metrics", "models", "model_metrics is missing"),
        ("name: heat", "name: Requests2XX", "there twice"),
        ("ts_metrics:", "ts_metrics: [", "metrics.yaml: while parsing"),
    ],
)
def test_a_wrong_metrics_file_stops_the_start(tmp_path: Path, old: str, new: str, reason: str):
    """
    At the start and in words, not at the first scrape.
    """
    path = tmp_path / "metrics.yaml"
    path.write_text(FILE.replace(old, new))

    with pytest.raises(SettingsError, match=reason):
        read_metrics_config(path)


# -- the access log ------------------------------------------------------------------------------


class Transport:
    def get_extra_info(self, name: str) -> tuple[str, int]:
        return ("127.0.0.1", 5)


def test_a_large_access_log_is_put_aside_once(tmp_path: Path):
    """
    Two processes write to it; what one puts aside the other must not put aside again.
    """
    path = tmp_path / "access_log.log"
    one, other = AccessLog(path, 60), AccessLog(path, 60)
    for writer in (one, other, one, other):
        writer.note(Transport(), b"GET", b"/ping", "1.1", 200, 0.001)  # type: ignore[arg-type]
        writer.flush()
    one.close()
    other.close()

    assert len((tmp_path / "access_log.log.1").read_text().splitlines()) == 2
    assert len(path.read_text().splitlines()) == 2
