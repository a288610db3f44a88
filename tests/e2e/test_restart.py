"""The whole server, stopped or killed and started again: what clients find."""

from __future__ import annotations

from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("end", ["stop", "kill -9"])
def test_clients_find_everything_again(
    start_server, until, is_gone, tmp_path: Path, end: str
) -> None:
    """
    Versions, the default, worker counts and batches; and predictions are answered.
    """
    state = ("--state-dir", str(tmp_path / "state"))
    first = start_server(*state)
    for version, url in (("1.0", "noop.mar"), ("2.0", "noop_2.mar")):
        answer = first.manage(
            *("POST", "/models"), url=url, initial_workers=1, synchronous="true", batch_size=4
        )
        assert answer.status == 200, answer.text
        assert f"Version: {version}" in answer.said
    assert first.manage("PUT", "/models/noop/2.0/set-default").status == 200
    assert first.manage("PUT", "/models/noop/1.0", min_worker=2, synchronous="true").status == 200
    if end == "stop":
        first.stop()
    else:
        tree = first.tree()
        first.process.kill()
        first.process.wait()
        first.forget()
        until(lambda: all(is_gone(process.pid) for process in tree), "nothing is left of it")

    second = start_server(*state)

    listed = second.manage("GET", "/models").json["models"]
    assert listed == [{"modelName": "noop", "modelUrl": "noop_2.mar"}]
    records = second.manage("GET", "/models/noop/all").json
    shown = [(r["modelVersion"], r["minWorkers"], r["maxWorkers"], r["batchSize"]) for r in records]
    assert shown == [("1.0", 2, 2, 4), ("2.0", 1, 1, 4)]
    assert second.predict("noop", "x").status == 200
    assert second.predict("noop/1.0", "x").status == 200
    assert second.ask("inference", "GET", "/ping").status == 200


def test_the_peers_flag_begins_with_nothing(start_server, tmp_path: Path) -> None:
    """
    `--ncs` in a start script means what it meant; what is stored is there without it.
    """
    state = ("--state-dir", str(tmp_path / "state"))
    first = start_server(*state)
    first.register("m", "does:handle")
    first.stop()

    second = start_server(*state, "--ncs")
    assert second.manage("GET", "/models").json["models"] == []
    second.stop()

    third = start_server(*state)
    assert [m["modelName"] for m in third.manage("GET", "/models").json["models"]] == ["m"]
