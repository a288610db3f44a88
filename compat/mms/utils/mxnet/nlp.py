"""Words to numbers, and sentences of one length."""

from __future__ import annotations

from typing import Any

__all__ = ["encode_sentences", "pad_sentence"]


def encode_sentences(
    sentences: list[list[str]],
    vocab: dict[str, int] | None = None,
    invalid_label: int = -1,
    invalid_key: str = "\n",
    start_label: int = 0,
    unknown_token: str | None = None,
) -> tuple[list[list[int]], dict[str, int]]:
    """Each sentence as numbers, and the vocabulary: the one given, or a new one.

    Raises:
        ValueError: A word that the given vocabulary does not know.
    """
    is_new = vocab is None
    known = {invalid_key: invalid_label} if vocab is None else vocab
    number = start_label
    encoded = []
    for sentence in sentences:
        coded = []
        for word in sentence:
            if word not in known:
                if not is_new:
                    if unknown_token is None:
                        raise ValueError(f"Unknown token {word}")
                    word = unknown_token
                else:
                    number += number == invalid_label
                    known[word] = number
                    number += 1
            coded.append(known[word])
        encoded.append(coded)
    return encoded, known


def pad_sentence(sentence: list[Any], buckets: list[int], invalid_label: int = -1) -> list[Any]:
    """The sentence, as long as the first bucket that has room for it.

    Raises:
        ValueError: None has.
    """
    for size in sorted(buckets):
        if size >= len(sentence):
            return [*sentence, *[invalid_label] * (size - len(sentence))]
    raise ValueError("No bucket is long enough for the sentence.")
