"""A stage with a workflow on it, and workers that answer its nodes' calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stoker.archives.graph import CLIENT, Graph, GraphNode, NodeInput
from stoker.errors import StokerError
from stoker.supervisor import actions as a
from stoker.supervisor.versions import VersionKey
from stoker.wire.frames import Group, JobFlag, Reply
from stoker.wire.payloads import (
    Answer,
    AnswerKind,
    Parameter,
    pack_answers,
    pack_request,
    unpack_answers,
)
from stoker.worker.request import Request

WORKFLOW = int(JobFlag.WORKFLOW)
KEY = VersionKey("flow", "1.0")


def graph_of(edges: Sequence[Sequence[int]], outputs: Sequence[int] = (), **about: Any) -> Graph:
    """Node i takes the answers of `edges[i]`; each is a model of its own, `m<i>`."""
    nodes = []
    for index, parents in enumerate(edges):
        inputs = [NodeInput(f"m{parent}", parent) for parent in parents]
        nodes.append(
            GraphNode(
                f"n{index}",
                f"m{index}",
                None,
                tuple(inputs) or (NodeInput("", CLIENT),),
                **about,
            )
        )
    leaves = set(range(len(edges))) - {parent for parents in edges for parent in parents}
    return Graph(tuple(nodes), tuple(outputs or sorted(leaves)))


DIAMOND = graph_of([[], [0], [0], [1, 2]])
CHAIN = graph_of([[], [0]])


class Rig:
    """A stage with one workflow and a worker for each of its models."""

    def __init__(self, stage: Any, graph: Graph, **spec: Any) -> None:
        self.stage = stage
        self.graph = graph
        self.keys = {node.model: stage.serve(node.model, **spec) for node in graph.nodes}
        stage.engine.workflows.register(KEY, graph, {})
        stage.forget()
        self._payload = pack_request("rid", b"a\nb", [Parameter("body", "", b"in")])

    def submit(self, **options: Any) -> bytes:
        options = {"flags": WORKFLOW, "body": self._payload, **options}
        return self.stage.submit("flow", "", **options)

    def worker_of(self, model: str) -> Any:
        (worker_id,) = self.stage.alive(self.keys[model])
        return self.stage.worker(worker_id)

    def waits(self, model: str) -> list[Any]:
        """Jobs that the model's worker has in hand."""
        worker = self.worker_of(model)
        return [job for batch in worker.in_hand for job in batch.jobs]

    def called(self) -> list[str]:
        return [model for model in self.keys if self.waits(model)]

    def answer(
        self,
        model: str,
        body: bytes = b"out",
        kind: AnswerKind = AnswerKind.FINAL,
        error: StokerError | None = None,
    ) -> Request:
        """The model's worker answers the batch in hand; returns what its handler saw."""
        worker = self.worker_of(model)
        batch = worker.in_hand[0]
        seen = Request(batch.jobs[0].payload)
        groups = []
        for job in batch.jobs:
            made = Answer(
                job.job_id,
                AnswerKind.ERROR if error else kind,
                200,
                "",
                "text/x",
                [],
                body,
                error,
            )
            groups.append(Group(job.job_id[:8], pack_answers([made])))
        is_last = kind is not AnswerKind.CHUNK
        ended = [job.job_id for job in batch.jobs] if is_last else []
        self.stage.reply(worker.worker_id, Reply(batch.batch_id, is_last, ended, groups))
        return seen

    def outcome(self, job_id: bytes) -> list[Answer]:
        """What the client was sent, in order."""
        frames = [x.frame for x in self.stage.took(a.Forward) if x.frontend_id == job_id[:8]]
        answers = [answer for frame in frames for answer in unpack_answers(frame)]
        return [answer for answer in answers if answer.job_id == job_id]
