"""Doubles every row that an envelope makes; explains it by its type."""


def handle(data, context):
    if data is None:
        return None
    if context.get_request_header(0, "explain") == "True":
        return [type(row).__name__ for row in data]
    return [2 * (row["data"][0] if isinstance(row, dict) else row) for row in data]
