"""The functions of the workflow in TorchServe's notation (`workflow.yaml`)."""

import json

import pipeline


def preprocess(data, context):
    if data is None:  # once, when the worker loads
        return None
    return [pipeline.pack(pipeline.preprocess(data[0].get("body") or data[0].get("data")))]


def ensemble(data, context):
    if data is None:
        return None
    return [pipeline.ensemble([json.loads(opinion) for opinion in data[0].values()])]
