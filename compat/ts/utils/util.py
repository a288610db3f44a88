"""Helpers under the names and signatures that archives use (7.7)."""

from __future__ import annotations

import re

from stoker.handlers.labels import load_label_mapping, map_class_to_label
from stoker.handlers.modules import list_classes_from_module
from stoker.handlers.prediction import PredictionException

__all__ = [
    "CLEANUP_REGEX",
    "PredictionException",
    "check_valid_pt2_backend",
    "list_classes_from_module",
    "load_label_mapping",
    "map_class_to_label",
]

#: What text handlers strip from their input: everything but words and basic punctuation.
CLEANUP_REGEX = re.compile(r"[^A-Za-z0-9.!?,'\"]+")


def check_valid_pt2_backend(backend: str) -> bool:
    """Does this torch know a compile backend of that name?"""
    import torch._dynamo

    return backend in torch._dynamo.list_backends(exclude_tags=())
