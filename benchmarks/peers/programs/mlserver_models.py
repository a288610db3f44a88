"""The models as MLServer serves them; runs in MLServer's own environment."""

from __future__ import annotations

import time

from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput


class Echo(MLModel):
    """Strings in, strings out."""

    async def load(self) -> bool:
        return True

    def one(self, text: str) -> str:
        return text

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        sent = payload.inputs[0]
        answers = [self.one(text) for text in sent.data.root]
        output = ResponseOutput(name="y", shape=[len(answers), 1], datatype="BYTES", data=answers)
        return InferenceResponse(model_name=self.name, outputs=[output])


class Size(Echo):
    def one(self, text: str) -> str:
        return str(len(text))


class Slow(Echo):
    def one(self, text: str) -> str:
        time.sleep(0.005)
        return text
