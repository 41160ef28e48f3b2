"""Shapes, named once.

`*batch` is any number of leading dimensions: `[batch, length]` for whole sequences, `[rows]` for
single positions. A noise level broadcasts against it: `[batch, 1]` gives every position of a
sequence the same level.
"""

from typing import NamedTuple

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
