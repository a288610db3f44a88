"""Ranks that add up what each of them makes of the input, by torch and gloo."""

import torch
import torch.distributed as dist


class Reduces:
    def initialize(self, context):
        dist.init_process_group("gloo")

    def handle(self, data, context):
        total = torch.tensor([len(data[0]["body"]) * (dist.get_rank() + 1)])
        dist.all_reduce(total)
        return [str(total.item())] * len(data)
