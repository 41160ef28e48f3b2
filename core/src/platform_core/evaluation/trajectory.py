"""The trajectory of one sample from noise to text, as the network saw it.

    x_1 at alpha_1, x_2 at alpha_2, ...    inputs of the network, call after call
    x_0 at alpha = 1                       the sample

`generate` records the trajectory from every call of a sampler's model (`Model.watched`), so that
samplers need no code for it. All changes between two calls count as one step.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, final


class Flips(NamedTuple):
    """Number of tokens that changed in each step, by kind of change."""

    unmasked: list[int]
    """Masks that became tokens."""
    remasked: list[int]
    """Tokens that became masks."""
    changed: list[int]
    """Tokens that became other tokens."""


@final
@dataclass(frozen=True)
class Trajectory:
    """The tokens of one sample before each call of the network, and at last the sample.

    Args:
        tokens: token ids, `[calls + 1][length]`.
        alphas: signal level of each row of `tokens`, averaged over positions.
        vocab_size: ids from this number on are masks.
    """

    tokens: list[list[int]]
    alphas: list[float]
    vocab_size: int

    @property
    def flips(self) -> Flips:
        """The numbers of changed tokens, one entry for each step."""
        counts = Flips([], [], [])
        for before, after in pairwise(self.tokens):
            pairs = [(x, y) for x, y in zip(before, after, strict=True) if x != y]
            unmasked = sum(self.masked(x) and not self.masked(y) for x, y in pairs)
            remasked = sum(self.masked(y) and not self.masked(x) for x, y in pairs)
            counts.unmasked.append(unmasked)
            counts.remasked.append(remasked)
            counts.changed.append(len(pairs) - unmasked - remasked)
        return counts

    def masked(self, token: int) -> bool:
        """Whether a token id is a mask."""
        return token >= self.vocab_size

    def record(self) -> dict[str, Any]:
        """Plain values from which `read` restores the trajectory; a step holds only its changes."""
        steps = [
            [[place, y] for place, (x, y) in enumerate(zip(before, after, strict=True)) if x != y]
            for before, after in pairwise(self.tokens)
        ]
        return {
            "kind": "trajectory",
            "vocab_size": self.vocab_size,
            "alphas": self.alphas,
            **self.flips._asdict(),
            "first": self.tokens[0],
            "steps": steps,
        }

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> "Trajectory":
        """The trajectory that `record` turned into plain values."""
        tokens = [list(record["first"])]
        for step in record["steps"]:
            tokens.append(list(tokens[-1]))
            for place, token in step:
                tokens[-1][place] = token
        return cls(tokens, list(record["alphas"]), record["vocab_size"])
