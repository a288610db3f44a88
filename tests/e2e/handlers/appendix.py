"""The two results of A6."""


def handle(data, context):
    if data is None:
        return None
    return [{"a": 1} if item["body"] == "dict" else "OK" for item in data]
