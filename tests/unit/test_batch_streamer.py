"""Texts of a batch while a language model generates them (7.7)."""

from __future__ import annotations

import queue
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.handlers.batch_streamer import TextIteratorStreamerBatch


class Letters:
    """A tokenizer whose tokens are letters."""

    def decode(self, tokens, **options):
        assert options in ({}, {"skip_special_tokens": True})
        return "".join(map(chr, tokens))


class Tensor:
    """As much of one as is needed."""

    def __init__(self, values):
        self._values = values

    def tolist(self):
        return self._values


def generate(streamer, prompts, texts):
    """As transformers does: the prompts at once, then one id for each row."""
    streamer.put(Tensor([list(map(ord, prompt)) for prompt in prompts]))
    for letters in zip(*texts, strict=True):
        streamer.put(Tensor([ord(letter) for letter in letters]))
    streamer.end()


def test_words_come_when_they_are_complete():
    streamer = TextIteratorStreamerBatch(Letters(), batch_size=2, skip_prompt=True)

    generate(streamer, ["ab", "cd"], ["hi you", "a b c "])

    assert [step for step in streamer if any(step)] == [
        ["", "a "],
        ["hi ", ""],
        ["", "b "],
        ["", "c "],
        ["you", ""],
    ]


def test_the_prompt_is_part_of_the_text_unless_it_is_skipped():
    streamer = TextIteratorStreamerBatch(Letters(), batch_size=1, skip_special_tokens=True)

    generate(streamer, ["to be "], ["or"])

    assert "".join(step[0] for step in streamer) == "to be or"


@pytest.mark.parametrize(("text", "pieces"), [("a\nb", ["a\n", "b"]), ("你好", ["你", "好"])])
def test_lines_and_ideographs_are_complete_by_themselves(text, pieces):
    streamer = TextIteratorStreamerBatch(Letters(), batch_size=1, skip_prompt=True)

    generate(streamer, [""], [text])

    assert [step[0] for step in streamer if step[0]] == pieces


@given(st.lists(st.text("ab \n你", min_size=5, max_size=5), min_size=1, max_size=4))
def test_nothing_is_lost_or_said_twice(texts):
    streamer = TextIteratorStreamerBatch(Letters(), batch_size=len(texts), skip_prompt=True)

    generate(streamer, [""] * len(texts), texts)

    steps = list(streamer)
    for i, text in enumerate(texts):
        assert "".join(step[i] for step in steps) == text


def test_the_handler_may_iterate_while_another_thread_generates():
    streamer = TextIteratorStreamerBatch(Letters(), batch_size=1, skip_prompt=True, timeout=20.0)
    thread = threading.Thread(target=generate, args=(streamer, [""], ["one two three"]))

    thread.start()
    text = "".join(step[0] for step in streamer)
    thread.join()

    assert text == "one two three"


def test_a_generator_that_hangs_does_not_hang_the_handler():
    streamer = TextIteratorStreamerBatch(Letters(), batch_size=1, timeout=0.01)

    with pytest.raises(queue.Empty):
        next(streamer)


def test_rows_that_do_not_fit_the_batch_are_refused():
    streamer = TextIteratorStreamerBatch(Letters(), batch_size=2)

    with pytest.raises(ValueError, match="3 rows for a batch of 2"):
        streamer.put([[1], [2], [3]])
