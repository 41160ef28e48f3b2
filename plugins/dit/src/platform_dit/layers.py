"""The layers of the diffusion transformer, under the names of the published checkpoints.

    modulated:  x + gate * f((1 + scale) * norm(x) + shift),  shift, scale, gate = W c + b
    plain:      x + f(norm(x))

with f attention, then a two-layer MLP, and c the embedded noise level. The residual stream keeps
the dtype of the weights (float32 under autocast), and so do norms and rotary positions. Source:
DiT, arXiv:2212.09748; its text form as in SEDD, MDLM and DUO. `backbone` stacks them.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from platform_core.types import Hidden, Inputs, Noise, TopTokens, tensor
from platform_core.visibility import Positions
from platform_dit.attention import Attention, Heads, Mask, Newest

PERIOD = 10_000
"""Base of the geometric frequencies of positions and of noise levels."""

SIGMA_FREQUENCIES = 128
"""Number of cosines, and of sines, that encode the noise level."""

Conditioning = Float[Tensor, "*#batch cond_size"]


class Rotation(NamedTuple):
    """Rotary angles of every position."""

    cos: Float[Tensor, "*#batch length 1 half_head_size"]
    sin: Float[Tensor, "*#batch length 1 half_head_size"]

    def __call__(
        self, heads: Float[Tensor, "*batch length heads head_size"]
    ) -> Float[Tensor, "*batch length heads head_size"]:
        """Rotate the pairs (i, i + head_size / 2), as GPT-NeoX does."""
        left, right = heads.chunk(2, dim=-1)
        return torch.cat(
            (left * self.cos - right * self.sin, right * self.cos + left * self.sin), dim=-1
        )

    def between(self, start: int, stop: int) -> "Rotation":
        """The angles of the positions from `start` up to `stop`, exclusive."""
        return Rotation(self.cos[start:stop], self.sin[start:stop])


class Rotary(nn.Module):
    """Rotary position embedding; arXiv:2104.09864."""

    inv_freq: Tensor

    def __init__(self, head_size: int) -> None:
        super().__init__()
        # On the CPU, because arithmetic on the device meta imports torch's compiler: 2.5 s.
        exponents = torch.arange(0, head_size, 2, dtype=torch.float32, device="cpu") / head_size
        inv_freq = (1 / PERIOD**exponents).to(torch.get_default_device())
        # Saved like a weight, because published checkpoints hold it.
        self.register_buffer("inv_freq", inv_freq)

    def forward(self, positions: int | Positions) -> Rotation:
        """The angles of these positions, or of as many first ones, in float32 or wider."""
        dtype = torch.promote_types(self.inv_freq.dtype, torch.float32)
        if isinstance(positions, int):
            positions = torch.arange(positions, device=self.inv_freq.device)
        angles = positions.to(dtype)[..., None, None] * self.inv_freq.to(dtype)
        return Rotation(angles.cos(), angles.sin())


class Embedding(nn.Module):
    """Token embeddings, read by ids or averaged under weights."""

    def __init__(self, num_states: int, hidden_size: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.empty(num_states, hidden_size))
        nn.init.kaiming_uniform_(self.embedding, a=math.sqrt(5))

    def forward(self, inputs: Inputs) -> Hidden:
        """Embeddings, averaged under the weights if these are given, which are not normalised."""
        table = self.embedding
        if isinstance(inputs, TopTokens):
            return _weighted_rows(table, inputs)
        inputs = tensor(inputs)
        if inputs.is_floating_point():
            return (inputs.to(table.dtype) @ table).to(table.dtype)
        return functional.embedding(inputs, table)


def _weighted_rows(table: Tensor, top: TopTokens) -> Hidden:
    # embedding_bag never makes the [batch, length, k, width] tensor of the rows.
    weights = top.weights.to(table.dtype).flatten(0, -2)
    summed = functional.embedding_bag(
        top.ids.flatten(0, -2), table, mode="sum", per_sample_weights=weights
    )
    return summed.view(*top.ids.shape[:-1], -1)


class SigmaEmbedding(nn.Module):
    """Embedding of the noise level: cosines and sines through a small MLP."""

    def __init__(self, cond_size: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(2 * SIGMA_FREQUENCIES, cond_size), nn.SiLU(), nn.Linear(cond_size, cond_size)
        )

    def forward(self, sigma: Noise) -> Conditioning:
        """c = silu(MLP(cos(sigma f), sin(sigma f))) of each level."""
        steps = torch.arange(SIGMA_FREQUENCIES, device=sigma.device, dtype=torch.float32)
        frequencies = torch.exp(-math.log(PERIOD) / SIGMA_FREQUENCIES * steps)
        angles = sigma.float()[..., None] * frequencies
        waves = torch.cat((angles.cos(), angles.sin()), dim=-1)
        return functional.silu(self.mlp(waves.to(self._dtype)))

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype


class Past:
    """Key-value cache of a block, with room for `length` positions.

    `keeps` says whether `extend` remembers the next positions.
    """

    def __init__(self, length: int) -> None:
        self._length = length
        self._used = 0
        self.keeps = True
        self._rooms: tuple[Heads, Heads] | None = None

    def extend(self, key: Newest, value: Newest) -> tuple[Heads, Heads]:
        """Append keys and values of the next positions; return those of all positions so far."""
        if self._rooms is None:
            self._rooms = self._room(key), self._room(value)
        start, end = self._used, self._used + key.shape[1]
        for room, new in zip(self._rooms, (key, value), strict=True):
            room[:, start:end] = new
        if self.keeps:
            self._used = end
        keys, values = self._rooms
        return keys[:, :end], values[:, :end]

    def _room(self, like: Newest) -> Heads:
        return like.new_empty(like.shape[0], self._length, *like.shape[2:])


@dataclass(frozen=True)
class BlockShape:
    """Settings shared by all blocks of a network."""

    hidden_size: int
    num_heads: int
    cond_size: int
    mlp_ratio: int
    dropout: float
    attention: Attention


class Block(nn.Module, ABC):
    """Attention and an MLP, each on the normalised residual stream."""

    causal: ClassVar[bool]

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        width, inner = shape.hidden_size, shape.mlp_ratio * shape.hidden_size
        self.norm1 = layer_norm(width)
        self.attn_qkv = nn.Linear(width, 3 * width, bias=False)
        self.attn_out = nn.Linear(width, width, bias=False)
        self.norm2 = layer_norm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, inner), nn.GELU(approximate="tanh"), nn.Linear(inner, width)
        )
        self.dropout = nn.Dropout(shape.dropout)
        self._num_heads = shape.num_heads
        self._attention = shape.attention

    @abstractmethod
    def forward(
        self,
        x: Hidden,
        conditioning: Conditioning | None,
        rotation: Rotation,
        past: Past | None = None,
        *,
        visible: Mask | None = None,
    ) -> Hidden:
        """The residual stream after this block.

        Args:
            x: the residual stream before it.
            conditioning: the embedded noise level; None for the causal block.
            rotation: angles of these positions.
            past: earlier positions, which all of these see; extended by these if it keeps them.
            visible: what each position may see, without `past`.
        """

    def attend(
        self,
        x: Hidden,
        rotation: Rotation,
        past: Past | None = None,
        *,
        visible: Mask | None = None,
    ) -> Hidden:
        """The residual of attention to these positions and to those of `past`."""
        projected = rearrange(
            self.attn_qkv(x),
            "batch length (three heads size) -> three batch length heads size",
            three=3,
            heads=self._num_heads,
        )
        query, key = rotation(projected[:2])
        key, value = (key, projected[2]) if past is None else past.extend(key, projected[2])
        attended = self._attention(query, key, value, causal=self.causal, visible=visible)
        added: Hidden = self.dropout(self.attn_out(attended.flatten(2))).to(x.dtype)
        return added

    def transform(self, x: Hidden) -> Hidden:
        """The residual of the MLP."""
        added: Hidden = self.dropout(self.mlp(x)).to(x.dtype)
        return added


class ModulatedBlock(Block):
    """The bidirectional block: shift, scale and gate follow the noise level (adaLN-zero)."""

    causal = False

    def __init__(self, shape: BlockShape) -> None:
        super().__init__(shape)
        self.adaLN_modulation = modulation(shape.cond_size, 6 * shape.hidden_size)

    def forward(
        self,
        x: Hidden,
        conditioning: Conditioning | None,
        rotation: Rotation,
        past: Past | None = None,
        *,
        visible: Mask | None = None,
    ) -> Hidden:
        shifts_scales_gates = self.adaLN_modulation(conditioning).to(x.dtype)
        shift1, scale1, gate1, shift2, scale2, gate2 = shifts_scales_gates.chunk(6, dim=-1)
        normalised = modulate(self.norm1(x), shift1, scale1)
        x = torch.addcmul(x, gate1, self.attend(normalised, rotation, past, visible=visible))
        return torch.addcmul(x, gate2, self.transform(modulate(self.norm2(x), shift2, scale2)))


class CausalBlock(Block):
    """The left-to-right block, which is told no noise level."""

    causal = True

    def forward(
        self,
        x: Hidden,
        conditioning: Conditioning | None,
        rotation: Rotation,
        past: Past | None = None,
        *,
        visible: Mask | None = None,
    ) -> Hidden:
        x = x + self.attend(self.norm1(x), rotation, past, visible=visible)
        return x + self.transform(self.norm2(x))


class Output(nn.Module, ABC):
    """The last norm and the linear map to logits; calling it applies the norm alone."""

    def __init__(self, hidden_size: int, num_states: int) -> None:
        super().__init__()
        self.norm_final = layer_norm(hidden_size)
        self.linear = nn.Linear(hidden_size, num_states)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    @abstractmethod
    def forward(self, x: Hidden, conditioning: Conditioning | None) -> Hidden:
        """The features that `linear` reads."""


class ModulatedOutput(Output):
    """A last norm whose shift and scale follow the noise level."""

    def __init__(self, hidden_size: int, num_states: int, cond_size: int) -> None:
        super().__init__(hidden_size, num_states)
        self.adaLN_modulation = modulation(cond_size, 2 * hidden_size)

    def forward(self, x: Hidden, conditioning: Conditioning | None) -> Hidden:
        """The features that `linear` reads."""
        shift, scale = self.adaLN_modulation(conditioning).to(x.dtype).chunk(2, dim=-1)
        return modulate(self.norm_final(x), shift, scale)


class PlainOutput(Output):
    """A last norm that is told no noise level."""

    def forward(self, x: Hidden, conditioning: Conditioning | None) -> Hidden:
        """The features that `linear` reads."""
        normalised: Hidden = self.norm_final(x)
        return normalised


def layer_norm(width: int) -> nn.LayerNorm:
    """A norm without bias; torch computes its statistics in float32 whatever the input."""
    return nn.LayerNorm(width, eps=1e-5, bias=False)


def modulation(cond_size: int, width: int) -> nn.Linear:
    """Linear map from the embedded noise level to shifts, scales and gates; it starts at zero."""
    linear = nn.Linear(cond_size, width)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


def modulate(normalised: Hidden, shift: Tensor, scale: Tensor) -> Hidden:
    """(1 + scale) * normalised + shift, without the temporary of the product."""
    return torch.addcmul(shift, normalised, 1 + scale)
