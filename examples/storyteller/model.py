"""A recurrent network that writes text, one character at a time; numpy alone.

    state  = tanh(state @ turn + look[character])      fixed, at random
    scores = state @ read                              learned
    character ~ what is left of scores above zero

Only `read` is learned, in one step of linear algebra, so it takes seconds; the
price is text that looks like English from afar.  What matters here is its shape:
a state per text, and a step that costs hardly more for eight texts than for one.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

UNITS = 768
#: Units that each unit listens to.
FAN_IN = 16
#: Everything else is written as a space.
LETTERS = "\n " + "".join(chr(code) for code in range(33, 127))
_SEED = 7
#: How long a unit remembers.
_ECHO = 0.9
_LOOK = 0.6
_RIDGE = 1e-3
#: Pieces of the text that are read side by side.
_LANES = 128
_WARM_UP = 32
_CODES = {letter: code for code, letter in enumerate(LETTERS)}


def use_one_thread() -> None:
    """So small a network is slower, not faster, when threads share it."""
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        return
    threadpool_limits(1)


def encode(text: str) -> NDArray[np.int64]:
    return np.array([_CODES.get(letter, 1) for letter in text], dtype=np.int64)


class Storyteller:
    """Weights, and what can be done with them; keeps no text."""

    def __init__(self, turn: Array, look: Array, read: Array) -> None:
        self._turn, self._look, self._read = turn, look, read

    @classmethod
    def load(cls, path: Path) -> Storyteller:
        with np.load(path, allow_pickle=False) as weights:
            return cls(weights["turn"], weights["look"], weights["read"])

    def save(self, path: Path) -> None:
        np.savez(path, turn=self._turn, look=self._look, read=self._read)

    @classmethod
    def learn(cls, text: str, units: int = UNITS) -> Storyteller:
        """Seconds, for tens of thousands of characters."""
        random = np.random.default_rng(_SEED)
        is_heard = random.random((units, units)) < FAN_IN / units
        turn = random.standard_normal((units, units)) * is_heard * (_ECHO / np.sqrt(FAN_IN))
        look = random.standard_normal((len(LETTERS), units)) * _LOOK
        made = cls(turn.astype(np.float32), look.astype(np.float32), np.zeros((units, 1), "f4"))
        codes = encode(text)
        lanes = codes[: len(codes) // _LANES * _LANES].reshape(_LANES, -1)
        seen = np.zeros((units, units), np.float32)
        meant = np.zeros((units, len(LETTERS)), np.float32)
        one_hot = np.eye(len(LETTERS), dtype=np.float32)
        states = made.begin(_LANES)
        for at in range(lanes.shape[1] - 1):
            states = made.follow(states, lanes[:, at])
            if at >= _WARM_UP:
                seen += states.T @ states
                meant += states.T @ one_hot[lanes[:, at + 1]]
        seen += np.eye(units, dtype=np.float32) * (_RIDGE * np.trace(seen) / units)
        made._read = np.linalg.solve(seen.astype(np.float64), meant).astype(np.float32)
        return made

    def begin(self, count: int) -> Array:
        """States of texts without a character yet."""
        return np.zeros((count, len(self._turn)), np.float32)

    def follow(self, states: Array, codes: NDArray[np.int64]) -> Array:
        """States after one more character each."""
        after: Array = np.tanh(states @ self._turn + self._look[codes])
        return after

    def read_prompt(self, prompt: str) -> Array:
        """The state after a whole text."""
        states = self.begin(1)
        for code in encode(prompt):
            states = self.follow(states, np.array([code]))
        return states[0]

    def choose(self, states: Array, draws: list[float], boldness: list[float]) -> NDArray[np.int64]:
        """The next character of each text.

        Args:
            draws: A random number from 0 to 1 for each.
            boldness: 0 takes the likeliest one, 1 goes by the network's own odds.
        """
        scores = np.maximum(states @ self._read, 1e-6).astype(np.float64)
        odds = scores ** (1.0 / np.maximum(np.array(boldness), 0.05))[:, None]
        sums = odds.cumsum(axis=1)
        above = sums > (np.array(draws) * sums[:, -1])[:, None]
        chosen: NDArray[np.int64] = above.argmax(axis=1)
        return chosen
