"""Gives the body back."""


def handle(data, context):
    return None if data is None else [item["body"] for item in data]
