"""The functions of the workflow in DJL Serving's notation (`workflow.json`)."""

import pipeline


def preprocess(picture):
    return pipeline.preprocess(picture.get_as_bytes())


def answer(opinions):
    return pipeline.ensemble([opinion.get_as_json() for opinion in opinions])
