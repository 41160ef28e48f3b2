"""A reward of samples that add up, for samplers that prefer some texts."""

from typing import TYPE_CHECKING, final

import torch

from platform_core.reward import Reward, Values
from platform_core.types import Tokens
from platform_sums.corpus import read_sum
from platform_sums.evaluation import first_text

if TYPE_CHECKING:
    from platform_core.data.tokenizer import Tokenizer


@final
class RightSum(Reward):
    """1 for a text that is a right sum, a share of it for a wrong one, 0 for any other text.

    Args:
        wrong: the value of a sum that is wrong.
    """

    def __init__(self, wrong: float = 0.25, tokenizer: "Tokenizer | None" = None) -> None:
        self.wrong, self.tokenizer = wrong, tokenizer

    def __call__(self, texts: Tokens) -> Values:
        """The value of each text."""
        values = [self.value(ids) for ids in texts.tolist()]
        return torch.tensor(values, dtype=torch.float64, device=texts.device)

    def value(self, ids: list[int]) -> float:
        """The value of one text."""
        assert self.tokenizer is not None, "a run that draws texts has a tokenizer"
        found = read_sum(first_text(ids, self.tokenizer))
        if found is None:
            return 0.0
        a, b, result = found
        return 1.0 if a + b == result else self.wrong
