"""Every metric of the server itself: name, type, help and labels, in one table.

First the peer's, under its very names (counters without `_total`), then ours.

Source: contracts/torchserve.md 10.1, 10.2; docs/metrics.md has one row for each.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple


class Family(NamedTuple):
    """One metric.

    Attributes:
        kind: counter, gauge or histogram.
        unit: In the peer's words, for its log lines; "" for ours.
    """

    name: str
    kind: str
    unit: str
    help: str
    labels: tuple[str, ...]

    def row(self, samples: list[Any], bounds: tuple[float, ...] = ()) -> list[Any]:
        """As a frontend gets it; `samples` are [values of labels, number] each."""
        return [self.name, self.kind, self.help, self.labels, bounds, samples]


def peer_family(name: str, kind: str, unit: str, labels: tuple[str, ...]) -> Family:
    """With the text that the peer gives to all of them."""
    return Family(
        name, kind, unit, f"Torchserve prometheus {kind} metric with unit: {unit}", labels
    )


HOST: Final = ("Level", "Hostname")
_VERSION: Final = ("model_name", "model_version", "hostname")
_GPU: Final = ("Level", "DeviceId", "Hostname")
_OURS: Final = ("model", "version")

PEERS: Final = {
    family.name: family
    for family in (
        peer_family("Requests2XX", "counter", "Count", HOST),
        peer_family("Requests4XX", "counter", "Count", HOST),
        peer_family("Requests5XX", "counter", "Count", HOST),
        peer_family("ts_inference_requests_total", "counter", "Count", _VERSION),
        peer_family("ts_inference_latency_microseconds", "counter", "Microseconds", _VERSION),
        peer_family("ts_queue_latency_microseconds", "counter", "Microseconds", _VERSION),
        peer_family("QueueTime", "gauge", "Milliseconds", HOST),
        peer_family("WorkerThreadTime", "gauge", "Milliseconds", HOST),
        peer_family("WorkerLoadTime", "gauge", "Milliseconds", ("WorkerName", *HOST)),
        peer_family("CPUUtilization", "gauge", "Percent", HOST),
        peer_family("MemoryUtilization", "gauge", "Percent", HOST),
        peer_family("MemoryUsed", "gauge", "Megabytes", HOST),
        peer_family("MemoryAvailable", "gauge", "Megabytes", HOST),
        peer_family("DiskUtilization", "gauge", "Percent", HOST),
        peer_family("DiskUsage", "gauge", "Gigabytes", HOST),
        peer_family("DiskAvailable", "gauge", "Gigabytes", HOST),
        peer_family("GPUUtilization", "gauge", "Percent", _GPU),
        peer_family("GPUMemoryUtilization", "gauge", "Percent", _GPU),
        peer_family("GPUMemoryUsed", "gauge", "Megabytes", _GPU),
    )
}

OURS: Final = {
    family.name: family
    for family in (
        Family(
            "stoker_queue_wait_seconds",
            "histogram",
            "",
            "From a request's arrival until a worker began it.",
            _OURS,
        ),
        Family(
            "stoker_batch_duration_seconds",
            "histogram",
            "",
            "From the begin of a batch in a worker until its last answer was here.",
            _OURS,
        ),
        Family(
            "stoker_batch_size",
            "histogram",
            "",
            "Requests per batch.",
            _OURS,
        ),
        Family("stoker_queue_depth", "gauge", "", "Requests that wait and are not begun.", _OURS),
        Family("stoker_queue_capacity", "gauge", "", "Requests that may wait.", _OURS),
        Family("stoker_requests_in_hand", "gauge", "", "Requests that workers hold.", _OURS),
        Family(
            "stoker_workers_wanted",
            "gauge",
            "",
            "Workers that there should be, as the load is or as they were asked for.",
            _OURS,
        ),
        Family("stoker_workers", "gauge", "", "Worker processes by state.", (*_OURS, "state")),
        Family(
            "stoker_sequences",
            "gauge",
            "",
            "Open sequences that live in a worker.",
            (*_OURS, "worker"),
        ),
        Family(
            "stoker_sequences_lost_total",
            "counter",
            "",
            "Sequences whose worker went with their state.",
            _OURS,
        ),
        Family(
            "stoker_worker_deaths_total",
            "counter",
            "",
            "Workers that ended and should not have.",
            _OURS,
        ),
        Family(
            "stoker_worker_recycles_total",
            "counter",
            "",
            "Workers replaced for their age, their memory or their number of requests.",
            _OURS,
        ),
        Family(
            "stoker_request_retries_total",
            "counter",
            "",
            "Requests that a worker did not answer and that were tried again.",
            _OURS,
        ),
        Family(
            "stoker_errors_total",
            "counter",
            "",
            "Requests answered with an error of the server's own, by reason.",
            ("reason",),
        ),
        Family("stoker_requests_in_flight", "gauge", "", "Jobs accepted and not ended.", ()),
        Family(
            "stoker_held_bytes",
            "gauge",
            "",
            "Bodies and answers in memory, and shared memory that is set aside for bodies.",
            ("where",),
        ),
        Family("stoker_connections", "gauge", "", "Connections of clients.", ()),
        Family(
            "stoker_versions_left_out",
            "gauge",
            "",
            "Versions without numbers here, because there are too many.",
            (),
        ),
    )
}
