"""Answers with what it was given: types, values, headers, ids, and its neighbours."""


def _shown(value):
    kind = type(value).__name__
    return [kind, value.decode("latin-1") if isinstance(value, (bytes, bytearray)) else value]


def handle(data, context):
    if data is None:
        return None
    return [
        {
            "data": {name: _shown(value) for name, value in item.items()},
            "headers": dict(context.get_all_request_header(i)),
            "request_id": context.request_ids[i],
            "batch": len(data),
        }
        for i, item in enumerate(data)
    ]
