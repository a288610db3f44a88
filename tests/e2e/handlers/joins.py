"""A handler for continuous batching, as they are written for TorchServe.

The body is `name count`: so many pieces, one per step.  With `name count late` all
of them come at the last step.
"""

import os
import sys
import time


class Joins:
    def initialize(self, context):
        self.context = context
        context.cache = {}

    def handle(self, data, context):
        ids = list(context.request_ids.values())
        for gone in [known for known in context.cache if known not in ids]:
            print("forgot", context.cache.pop(gone)["name"], file=sys.stderr)
        for request_id, row in zip(ids, data, strict=True):
            if request_id not in context.cache:
                name, count, *how = bytes(row["body"]).decode().split()
                print("joined", name, file=sys.stderr)
                context.cache[request_id] = {
                    "name": name,
                    "count": int(count),
                    "said": 0,
                    "is_late": how == ["late"],
                    "together": 0,
                }
        pieces = []
        for request_id in ids:
            state = context.cache[request_id]
            state["said"] += 1
            state["together"] = max(state["together"], len(ids))
            pieces.append(self.piece(state))
        context.stopping_criteria = [self.criterion(request_id) for request_id in ids]
        time.sleep(0.005)
        return pieces

    def piece(self, state):
        text = f"{state['name']}{state['said']} of {state['together']} in {os.getpid()}\n"
        return "" if state["is_late"] and state["said"] < state["count"] else text

    def criterion(self, request_id):
        def is_last(piece):
            state = self.context.cache[request_id]
            if state["said"] < state["count"]:
                return False
            del self.context.cache[request_id]
            return True

        return is_last
