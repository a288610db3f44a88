"""Digits over HTTP: a PNG, or eight JSON rows of eight ink counts from 0 to 16."""

import pictures
import torch

from stoker.handlers import BaseHandler

# So small a network is slower, not faster, when threads share it.
torch.set_num_threads(1)


class DigitsHandler(BaseHandler):
    def preprocess(self, data):
        bodies = [row.get("data") or row.get("body") for row in data]
        return torch.stack([pictures.read(body) for body in bodies]).to(self.device)

    def postprocess(self, scores):
        best = scores.softmax(dim=1).max(dim=1)
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return [{"digit": digit, "probability": round(p, 4)} for digit, p in pairs]
