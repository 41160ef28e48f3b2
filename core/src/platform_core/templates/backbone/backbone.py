"""The backbone: the network, in two halves.

    hidden = encode(inputs, sigma)     every position, mixing them           [batch, length, width]
    logits = decoder(hidden rows)      any number of single positions        [rows, num_states]

In this backbone, attention mixes the positions. It is `Sighted`: a call may say which positions see
which, as documents of one sequence and blocks need. To read labels, derive from `Conditional` too.
"""

from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from platform_core.backbone import Sighted
from platform_core.types import Hidden, Inputs, Labels, Noise, TopTokens, tensor
from platform_core.visibility import Visibility


@final
class NewPart(Sighted):
    """A transformer with sinusoidal positions, to which the embedded noise level is added.

    Args:
        num_states: number of tokens of the vocabulary, plus 1 if the process has a mask.
        causal: whether a position sees only itself and the positions to its left.
        time_conditioned: whether the network is told the noise level.
        hidden_size: width of the residual stream.
        num_blocks: layers of attention and MLP.
        num_heads: attention heads in each block; hidden_size must be a multiple of 2 num_heads.

    Raises:
        ValueError: a size is below 1, or hidden_size is not a multiple of 2 num_heads.
    """

    def __init__(
        self,
        num_states: int,
        causal: bool,
        time_conditioned: bool,
        hidden_size: int = 128,
        num_blocks: int = 4,
        num_heads: int = 4,
    ) -> None:
        super().__init__()
        if min(hidden_size, num_blocks, num_heads) < 1 or hidden_size % (2 * num_heads):
            raise ValueError(
                f"hidden_size is {hidden_size}, num_blocks {num_blocks} and num_heads {num_heads}; "
                "each must be at least 1, and hidden_size a multiple of 2 num_heads"
            )
        self.causal = causal
        self.embedding = nn.Embedding(num_states, hidden_size)
        self.level = nn.Linear(2, hidden_size) if time_conditioned else None
        self.blocks = nn.ModuleList(Block(hidden_size, num_heads) for _ in range(num_blocks))
        self.norm = nn.LayerNorm(hidden_size)
        self.head = nn.Linear(hidden_size, num_states)

    @property
    def decoder(self) -> nn.Module:
        """The linear map from the width to `num_states`."""
        return self.head

    def encode(
        self,
        inputs: Inputs,
        sigma: Noise | None,
        labels: Labels | None = None,
        visibility: Visibility | None = None,
    ) -> Hidden:
        """Features of each position after the last norm, `[batch, length, hidden_size]`."""
        assert labels is None, "the network reads no labels"
        assert (sigma is not None) == (self.level is not None), (
            "sigma is given exactly to networks that are time-conditioned"
        )
        hidden = self._embed(inputs)
        places = torch.arange(hidden.shape[1], device=hidden.device)[None]
        if visibility is not None and visibility.positions is not None:
            places = visibility.positions
        hidden = hidden + waves(places, hidden.shape[2])
        if self.level is not None and sigma is not None:
            signs = torch.stack(((-sigma).exp(), sigma.log1p()), dim=-1)
            hidden = hidden + self.level(signs.to(hidden.dtype))
        seen = self._seen(hidden, visibility)
        for block in self.blocks:
            hidden = block(hidden, seen)
        features: Hidden = self.norm(hidden)
        return features

    def _seen(self, hidden: Hidden, visibility: Visibility | None) -> Tensor | None:
        """Which positions each one sees, `[batch or 1, 1, length, length]`; None for all."""
        length, device = hidden.shape[1], hidden.device
        left = torch.ones(length, length, dtype=torch.bool, device=device).tril()
        if visibility is None:
            return left[None, None] if self.causal else None
        seen = visibility.dense(hidden.shape[:2], device)[:, None]
        return seen & left if self.causal else seen

    def _embed(self, inputs: Inputs) -> Hidden:
        """Embeddings of tokens, or averages of them under probabilities or top-token weights."""
        table = self.embedding.weight
        if isinstance(inputs, TopTokens):
            weights = inputs.weights.to(table.dtype)
            average: Hidden = (weights[..., None] * self.embedding(inputs.ids)).sum(-2)
            return average
        inputs = tensor(inputs)
        if inputs.is_floating_point():
            return inputs.to(table.dtype) @ table
        embedded: Hidden = self.embedding(inputs)
        return embedded


class Block(nn.Module):
    """Attention, then an MLP, each with a norm before it and a residual connection around it."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.heads = nn.Linear(width, 3 * width)
        self.merge = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, hidden: Tensor, seen: Tensor | None) -> Tensor:
        """The hidden states of the next block, `[batch, length, width]`."""
        heads = self.heads(self.norms[0](hidden)).unflatten(-1, (3, self.num_heads, -1))
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        found = functional.scaled_dot_product_attention(query, key, value, attn_mask=seen)
        hidden = hidden + self.merge(found.transpose(1, 2).flatten(2))
        updated: Tensor = hidden + self.mlp(self.norms[1](hidden))
        return updated


def waves(places: Tensor, width: int) -> Tensor:
    """Sines and cosines of each place, `[*places, width]`; arXiv:1706.03762, section 3.5."""
    frequencies = 10_000 ** -torch.linspace(0, 1, width // 2, device=places.device)
    angles = places[..., None] * frequencies
    return torch.cat((angles.sin(), angles.cos()), dim=-1)
