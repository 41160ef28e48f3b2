"""Inputs of a network: embeddings of tokens, and the noise level that is added to them."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from platform_core.types import Hidden, Inputs, Noise, TopTokens, tensor

PERIOD = 10_000
"""Base of the geometric frequencies of noise levels."""

FREQUENCIES = 128
"""Number of cosines, and of sines, that encode the noise level."""


def embed(table: nn.Module, inputs: Inputs, num_states: int) -> Hidden:
    """Embeddings of ids, or averages of embeddings under weights, which are not normalised."""
    if isinstance(inputs, TopTokens):
        rows = _rows(table, num_states)
        weights = inputs.weights.to(rows.dtype).flatten(0, -2)
        # embedding_bag never makes the [batch, length, k, width] tensor of the rows.
        summed = functional.embedding_bag(
            inputs.ids.flatten(0, -2), rows, mode="sum", per_sample_weights=weights
        )
        return summed.view(*inputs.ids.shape[:-1], -1)
    inputs = tensor(inputs)
    if inputs.is_floating_point():
        rows = _rows(table, num_states)
        return (inputs.to(rows.dtype) @ rows).to(rows.dtype)
    embedded: Hidden = table(inputs)
    return embedded


def _rows(table: nn.Module, num_states: int) -> Tensor:
    # Some networks scale the embeddings that they look up. A plain table needs no copy.
    if type(table) is nn.Embedding:
        return table.weight
    device = next(table.parameters()).device
    rows: Tensor = table(torch.arange(num_states, device=device))
    return rows


class SigmaShift(nn.Module):
    """Embedding of the noise level: cosines and sines through a small MLP that starts at zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        last = nn.Linear(width, width)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.mlp = nn.Sequential(nn.Linear(2 * FREQUENCIES, width), nn.SiLU(), last)

    def forward(self, sigma: Noise) -> Hidden:
        """W silu(V (cos(sigma f), sin(sigma f))) of each level."""
        steps = torch.arange(FREQUENCIES, device=sigma.device, dtype=torch.float32)
        frequencies = torch.exp(-math.log(PERIOD) / FREQUENCIES * steps)
        angles = sigma.float()[..., None] * frequencies
        waves = torch.cat((angles.cos(), angles.sin()), dim=-1)
        shift: Hidden = self.mlp(waves.to(next(self.parameters()).dtype))
        return shift
