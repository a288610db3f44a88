"""Pieces of what describe shows: instants, durations, why something cannot run."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

#: States in which a worker has its handler loaded and takes requests.
READY_STATES: Final = frozenset(("ready", "busy"))
_FENCE_NAMES: Final = {"memory_bytes": "memoryBytes", "no_bubblewrap": "noBubblewrap"}


def milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def instant(unix_s: float) -> str:
    """Real UTC, where the peers write local time with a literal Z."""
    text = datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="milliseconds")
    return text.removesuffix("+00:00") + "Z"


def describe_failure(failure: Mapping[str, Any]) -> dict[str, Any]:
    """Why a handler could not be loaded or a worker died, and which log has the rest."""
    shown = {
        "message": failure.get("message"),
        "lastLine": failure.get("last_line"),
        "log": failure.get("log"),
        "exit": failure.get("exit"),
        "likely": failure.get("likely"),
        "attempts": failure.get("attempts"),
        "deaths": failure.get("deaths"),
        "node": failure.get("node"),
        "requestId": failure.get("request_id"),
        "cause": failure.get("cause"),
    }
    return {name: value for name, value in shown.items() if value}


def describe_deaths(record: Mapping[str, Any]) -> dict[str, Any]:
    """How many workers died, and how the last one did."""
    last = record["last_death"]
    return {
        "count": record["deaths"],
        "last": {
            "at": instant(last["at"]),
            "worker": str(last["worker"]),
            "pid": last["pid"],
            "exit": last["exit"],
            "likely": last["likely"],
            "requestsTriedAgain": last["jobs_again"],
            "requestsFailed": last["jobs_failed"],
        },
    }


def describe_scaling(scaling: dict[str, Any]) -> dict[str, Any]:
    """Why there are as many workers as there are, where that is not fixed."""
    change = scaling["last_change"]
    shown = {
        "wantedWorkers": scaling["wanted"],
        "why": scaling["why"],
        "queueWaitTargetSeconds": scaling["queue_wait_target_s"],
        "maxIdleSeconds": scaling["max_idle_s"],
        "measured": _measured(scaling["measured"]),
    }
    if change is not None:
        shown["lastChange"] = {
            "at": instant(change["at"]),
            "from": change["from"],
            "to": change["to"],
            "why": change["why"],
            "measured": _measured(change["measured"]),
        }
    return shown


#: The autoscaler's numbers, in the words of this dialect.
_MEASURED: Final = {
    "requests_per_s": "requestsPerSecond",
    "busy_workers": "busyWorkers",
    "queued": "queuedRequests",
    "wait_p99_s": "queueWaitP99Seconds",
    "batch_s": "batchSeconds",
    "batch_fill": "batchFill",
    "start_s": "workerStartSeconds",
}


def _measured(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """What is not known yet is left out."""
    return {
        word: numbers[name] for name, word in _MEASURED.items() if numbers.get(name) is not None
    }


def worker_groups(record: Mapping[str, Any]) -> dict[str, Any]:
    """`workerGroups`, of a version that may use several devices; {} of any other.

    One without `gpuId` is the group of the processors.
    """
    groups = record.get("groups") or ()
    if len(groups) < 2:
        return {}
    return {
        "workerGroups": [
            {
                **({} if group["gpu_id"] is None else {"gpuId": group["gpu_id"]}),
                "minWorkers": group["min_workers"],
                "maxWorkers": group["max_workers"],
                "workers": [str(number) for number in group["workers"]],
            }
            for group in groups
        ]
    }


def what_went_wrong(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of ours that no peer has: there only when there is something to say."""
    found: dict[str, Any] = {}
    if scaling := record.get("scaling"):
        found["scaling"] = describe_scaling(scaling)
    if failure := record.get("failure"):
        found["failure"] = describe_failure(failure)
    if record.get("deaths"):
        found["deaths"] = describe_deaths(record)
    if record.get("recycled"):
        found["recycledWorkers"] = record["recycled"]
    if fence := record.get("fence"):
        found["sandbox"] = {_FENCE_NAMES.get(name, name): fence[name] for name in fence}
    if quarantine := record.get("quarantine"):
        found["quarantine"] = [{**entry, "until": instant(entry["until"])} for entry in quarantine]
    return found
