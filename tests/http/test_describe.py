"""Describing over HTTP: contracts/torchserve.md 3.6, A5."""

from __future__ import annotations

import pytest

DESCRIBED = """[
  {
    "modelName": "demo",
    "modelVersion": "1.0",
    "modelUrl": "demo.mar",
    "engine": "Torch",
    "runtime": "python",
    "minWorkers": 2,
    "maxWorkers": 2,
    "batchSize": 1,
    "maxBatchDelay": 100,
    "responseTimeout": 120,
    "startupTimeout": 120,
    "maxRetryTimeoutInSec": 300,
    "clientTimeoutInMills": 0,
    "parallelType": "",
    "parallelLevel": 0,
    "deviceType": "cpu",
    "continuousBatching": false,
    "useJobTicket": false,
    "useVenv": false,
    "stateful": false,
    "sequenceMaxIdleMSec": 0,
    "sequenceTimeoutMSec": 0,
    "maxNumSequence": 0,
    "maxSequenceJobQueueSize": 0,
    "status": "Healthy",
    "loadedAtStartup": false,
    "workers": [
      {
        "id": "9000",
        "startTime": "2024-10-02T13:44:53.034Z",
        "status": "READY",
        "memoryUsage": 0,
        "pid": 4711,
        "gpu": false,
        "gpuUsage": "N/A"
      }
    ],
    "jobQueueStatus": {
      "remainingCapacity": 100,
      "pendingRequests": 0
    }
  }
]
"""


def test_describe_is_an_array_in_the_peers_order(manage, record):
    """
    Byte for byte A5, with the page's `engine` and `status`.
    """
    answer = manage("GET", "/models/demo", "describe", {"versions": [record()]})

    assert answer.body.decode() == DESCRIBED


@pytest.mark.parametrize(
    ("path", "version", "is_all"),
    [
        ("/models/demo", None, False),
        ("/models/demo/2.0", "2.0", False),
        ("/models/demo/all", None, True),
    ],
)
def test_describe_asks_for_default_one_or_all(manage, supervisor, path, version, is_all):
    """
    `all` is a word, not a version (3.6).
    """
    answer = manage("GET", path, "describe", {"versions": []})

    assert answer.body == b"[]\n"
    assert supervisor.calls == [("describe", {"model": "demo", "version": version, "all": is_all})]


def test_describe_shows_devices_worker_states_and_failures(manage, record):
    """
    Fields that only sometimes appear.
    """
    worker = {**record()["workers"][0], "state": "loading", "gpu_id": 1, "gpu_usage": "gpuId::1"}
    failure = {"message": "", "last_line": "ValueError: é", "log": "m.log"}
    shown_record = record(device_ids=[1], device_type="gpu", workers=[worker], failure=failure)

    answer = manage("GET", "/models/demo", "describe", {"versions": [shown_record]})

    (shown,) = answer.json
    assert shown["deviceIds"] == [1]
    assert shown["workers"][0]["status"] == "UNLOADING"
    assert (shown["workers"][0]["gpu"], shown["workers"][0]["gpuUsage"]) == (True, "gpuId::1")
    assert shown["failure"] == {"lastLine": "ValueError: é", "log": "m.log"}
    assert "é".encode() in answer.body
