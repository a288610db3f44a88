"""One version of the network, for `.mar` archives: 64 numbers in, ten probabilities out."""

import json

import torch

from stoker.handlers import BaseHandler

# So small a network is slower, not faster, when threads share it.
torch.set_num_threads(1)


class ProbabilitiesHandler(BaseHandler):
    def preprocess(self, data):
        rows = [json.loads(row["body"]) for row in data]
        return torch.tensor(rows, dtype=torch.float32).reshape(-1, 1, 8, 8).to(self.device)

    def postprocess(self, scores):
        return scores.softmax(dim=1).tolist()
