"""The backbone: the network, in two halves.

    hidden = encode(inputs, sigma)     every position, mixing them           [batch, length, width]
    logits = decoder(hidden rows)      any number of single positions        [rows, num_states]

Here positions are mixed by convolutions, each of which reaches twice as far as the one before.
"""

from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from platform_core.backbone import Backbone
from platform_core.types import Hidden, Inputs, Noise, TopTokens


@final
class NewPart(Backbone):
    """A residual network of convolutions over positions and MLPs within them.

    Args:
        num_states: tokens of the vocabulary, and the mask where the process has one.
        causal: whether a position sees only those to its left.
        time_conditioned: whether the network is told the noise level.
        hidden_size: width of the residual stream.
        num_blocks: convolutions; a position sees 2^num_blocks - 1 others to a side.

    Raises:
        ValueError: a size is below 1.
    """

    def __init__(
        self,
        num_states: int,
        causal: bool,
        time_conditioned: bool,
        hidden_size: int = 128,
        num_blocks: int = 6,
    ) -> None:
        super().__init__()
        if min(hidden_size, num_blocks) < 1:
            raise ValueError(
                f"hidden_size is {hidden_size} and num_blocks {num_blocks}; each is at least 1"
            )
        self.embedding = nn.Embedding(num_states, hidden_size)
        self.level = nn.Linear(2, hidden_size) if time_conditioned else None
        self.blocks = nn.ModuleList(
            Block(hidden_size, reach=2**index, causal=causal) for index in range(num_blocks)
        )
        self.norm = nn.LayerNorm(hidden_size)
        self.head = nn.Linear(hidden_size, num_states)

    @property
    def decoder(self) -> nn.Module:
        """The linear map from the width to `num_states`."""
        return self.head

    def encode(self, inputs: Inputs, sigma: Noise | None) -> Hidden:
        """Features of each position, after the last norm."""
        assert (sigma is not None) == (self.level is not None), (
            "sigma is given exactly to networks that are time-conditioned"
        )
        hidden = self._embed(inputs)
        if self.level is not None and sigma is not None:
            signs = torch.stack(((-sigma).exp(), sigma.log1p()), dim=-1)
            hidden = hidden + self.level(signs.to(hidden.dtype))
        for block in self.blocks:
            hidden = block(hidden)
        features: Hidden = self.norm(hidden)
        return features

    def _embed(self, inputs: Inputs) -> Hidden:
        """Of tokens; or the average under probabilities, or under the top weights."""
        table = self.embedding.weight
        if isinstance(inputs, TopTokens):
            weights = inputs.weights.to(table.dtype)
            return (weights[..., None] * self.embedding(inputs.ids)).sum(-2)
        if inputs.is_floating_point():
            return inputs.to(table.dtype) @ table
        embedded: Hidden = self.embedding(inputs)
        return embedded


class Block(nn.Module):
    """A convolution of two or three positions that are `reach` apart, then an MLP."""

    def __init__(self, width: int, *, reach: int, causal: bool) -> None:
        super().__init__()
        self.padding = (reach, 0) if causal else (reach, reach)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.mixing = nn.Conv1d(width, width, 2 if causal else 3, dilation=reach)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, hidden: Tensor) -> Tensor:
        """The hidden states of the next block, `[batch, length, width]`."""
        channels = functional.pad(self.norms[0](hidden).transpose(1, 2), self.padding)
        hidden = hidden + self.mixing(channels).transpose(1, 2)
        updated: Tensor = hidden + self.mlp(self.norms[1](hidden))
        return updated
