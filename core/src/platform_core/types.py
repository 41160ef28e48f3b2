"""Shapes, named once.

`*batch` is any number of leading dimensions: `[batch, length]` for whole sequences, `[rows]` for
single positions. A noise level broadcasts against it: `[batch, 1]` gives every position of a
sequence the same level.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Tokens = Int[Tensor, "*batch"]
Documents = Int[Tensor, "sequences length"]
Labels = Int[Tensor, " sequences"]
Selected = Bool[Tensor, "*batch"]
Nats = Float[Tensor, "*batch"]
Noise = Float[Tensor, "*#batch"]
Logits = Float[Tensor, "*batch states"]
LogProbs = Float[Tensor, "*batch states"]
Probs = Float[Tensor, "*batch states"]
Row = Float[Tensor, "*#batch states"]
Hidden = Float[Tensor, "*batch width"]


class TopTokens(NamedTuple):
    """A distribution over tokens of which only the largest weights are kept; the weights need not
    sum to 1.
    """

    ids: Int[Tensor, "*batch k"]
    weights: Float[Tensor, "*batch k"]


Inputs = Tokens | Probs | TopTokens

Conditions = Mapping[str, Tensor]
"""What a network is told of each text besides its tokens, by the names that `encode` has for it."""


class Batch(NamedTuple):
    """Clean texts of one length, and what is known of them."""

    x0: Tokens
    """`[batch, length]`."""
    mask: Selected
    """Which of the tokens count."""
    labels: Labels | None = None
    """One of each text, or a single one for all; None where texts have none."""
    documents: Documents | None = None
    """The place of each token's document in its sequence; None where all tokens see all."""

    @property
    def conditions(self) -> Conditions:
        """The labels and the documents, those that there are."""
        known = {"labels": self.labels, "documents": self.documents}
        return {name: value for name, value in known.items() if value is not None}

    def to(self, device: torch.device) -> "Batch":
        """The same on another device."""
        known = {name: values.to(device) for name, values in self.conditions.items()}
        return Batch(self.x0.to(device), self.mask.to(device), **known)
