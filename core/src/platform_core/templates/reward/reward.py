"""The reward: what a text is worth to samplers that prefer some texts.

    clean texts [batch, length] -> new_part -> one number each

`--sampler best-of --sampler.reward new-part` keeps the best of several texts, and
`--sampler particles` steers the steps of another sampler. A constructor may also take `tokenizer`,
which decodes the tokens of a text.
"""

from typing import final

import torch

from platform_core.reward import Reward, Values
from platform_core.types import Tokens


@final
class NewPart(Reward):
    """The share of tokens that the text has not had before, times a weight.

    Args:
        weight: the value of a text that never repeats a token.
    """

    def __init__(self, weight: float = 1.0) -> None:
        self.weight = weight

    def __call__(self, texts: Tokens) -> Values:
        ordered = texts.sort(dim=-1).values
        new = (ordered[:, 1:] != ordered[:, :-1]).sum(-1) + 1
        return self.weight * new.to(torch.float64) / texts.shape[1]
