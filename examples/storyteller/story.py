"""One text that is being written for one client."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from model import Array, Storyteller

MOST_CHARACTERS = 10_000
#: Of a prompt; what is further back would be forgotten anyway.
PROMPT_CHARACTERS = 64


class Story:
    """What the next character depends on, and how many are left.

    Raises:
        ValueError, TypeError: The client asked for something else.
    """

    def __init__(self, row: dict[str, Any], storyteller: Storyteller) -> None:
        asked = _asked(row)
        prompt = str(asked.get("prompt", ""))[-PROMPT_CHARACTERS:]
        self.left = int(asked.get("length", 100))
        self.boldness = float(asked.get("boldness", 0.4))
        if not 1 <= self.left <= MOST_CHARACTERS:
            raise ValueError(f"length must lie between 1 and {MOST_CHARACTERS}")
        self.random = np.random.default_rng(asked.get("seed"))
        self.state: Array = storyteller.read_prompt(prompt)


def _asked(row: dict[str, Any]) -> dict[str, Any]:
    """`{"prompt", "length", "boldness", "seed"}`, each of which may be missing; or the prompt."""
    body = row.get("body") or row.get("data") or {}
    if isinstance(body, bytes | bytearray):
        body = body.decode()
    if isinstance(body, str):
        try:
            body = json.loads(body)
        except ValueError:
            return {"prompt": body}
    if not isinstance(body, dict):
        raise ValueError('the body must be a text, or an object like {"prompt": "The server"}')
    return body
