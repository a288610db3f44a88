"""Writes text for many clients at once, one character of each text per call.

Built for continuous batching: every call has a row for each request that is
being written just now.  A request's state is kept under its id; at its first
call the row holds what the client sent, later it is empty.  Without
`continuousBatching` in model-config.yaml the same handler writes its batch to the
end, so that the two can be compared.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from model import LETTERS, Storyteller, use_one_thread
from story import Story
from ts.handler_utils.utils import send_intermediate_predict_response
from ts.utils.util import PredictionException


class StorytellerHandler:
    def initialize(self, context: Any) -> None:
        self.context = context
        use_one_thread()
        folder = Path(context.system_properties["model_dir"])
        self.storyteller = Storyteller.load(folder / "weights.npz")
        self.is_continuous = context.model_yaml_config.get("continuousBatching", False)
        context.cache = {}

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[Any]:
        ids = list(context.request_ids.values())
        stories = context.cache
        # Whose clients have left are not among the ids any more.
        for request_id in stories.keys() - set(ids):
            del stories[request_id]
        faults: dict[str, Exception] = {}
        for request_id, row in zip(ids, data, strict=True):
            if request_id not in stories:
                try:
                    stories[request_id] = Story(row, self.storyteller)
                except (TypeError, ValueError) as error:
                    faults[request_id] = PredictionException(str(error), 400)
        if self.is_continuous:
            context.stopping_criteria = [self._criterion(request_id) for request_id in ids]
            return self._write(ids, faults)
        while any(stories[request_id].left > 1 for request_id in ids if request_id in stories):
            pieces = self._write(ids, faults)
            send_intermediate_predict_response(pieces, context.request_ids, "", 200, context)
        pieces = self._write(ids, faults)
        stories.clear()
        return pieces

    def _write(self, ids: list[str], faults: dict[str, Exception]) -> list[Any]:
        """One more character for each text that is not complete."""
        stories = self.context.cache
        going = [i for i in ids if i in stories and stories[i].left > 0]
        pieces: dict[str, Any] = dict(faults)
        if going:
            told = [stories[i] for i in going]
            draws = [story.random.random() for story in told]
            states = np.stack([story.state for story in told])
            codes = self.storyteller.choose(states, draws, [story.boldness for story in told])
            after = self.storyteller.follow(states, codes)
            for request_id, story, code, state in zip(going, told, codes, after, strict=True):
                story.state = state
                story.left -= 1
                pieces[request_id] = LETTERS[code]
        return [pieces.get(request_id, "") for request_id in ids]

    def _criterion(self, request_id: str) -> Callable[[Any], bool]:
        """Asked with every piece whether it was the last one."""

        def is_last(piece: Any) -> bool:
            story = self.context.cache.get(request_id)
            if story is not None and story.left > 0:
                return False
            self.context.cache.pop(request_id, None)
            return True

        return is_last
