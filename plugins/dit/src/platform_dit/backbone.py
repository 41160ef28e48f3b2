"""The diffusion transformer (DiT) as MDLM and DUO publish it, bidirectional or causal.

    hidden = output_layer(blocks(vocab_embed(inputs)), c),  c = sigma_map(sigma) + label_map(label)
    logits = output_layer.linear(hidden)

The bidirectional network is modulated by the noise level sigma = -log alpha, or by sigma = 0 if it
is not told the level. Without labels there is no label_map. The causal network has no modulation at
all. Parameter names are those of the published checkpoints, which load as they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from platform_core.backbone import Blockwise, Conditional, Incremental, Reader, Sighted
from platform_core.errors import UsageError
from platform_core.types import Hidden, Inputs, Labels, Noise, Tokens
from platform_core.visibility import Visibility
from platform_dit import attention as kernels
from platform_dit.layers import (
    Block,
    BlockShape,
    CausalBlock,
    Conditioning,
    Embedding,
    ModulatedBlock,
    ModulatedOutput,
    Output,
    Past,
    PlainOutput,
    Rotary,
    SigmaEmbedding,
)


@dataclass(frozen=True)
class Size:
    """The sizes of a preset: widths, and numbers of blocks and heads."""

    hidden_size: int
    num_blocks: int
    num_heads: int
    cond_size: int


SIZES = {
    "tiny": Size(hidden_size=128, num_blocks=4, num_heads=4, cond_size=64),
    "small": Size(hidden_size=768, num_blocks=12, num_heads=12, cond_size=128),
    "medium": Size(hidden_size=1024, num_blocks=24, num_heads=16, cond_size=128),
}


class Dit(Conditional, Sighted, Incremental, Blockwise):
    """A transformer whose norms are modulated by the noise level.

    Args:
        num_states: tokens of the vocabulary, and the mask where the process has one.
        causal: whether a position sees only those to its left.
        time_conditioned: whether the network is told the noise level.
        size: tiny (4 blocks of width 128, for a CPU), small (12 of width 768, as in the papers) or
            medium (24 of width 1024); the next four options replace single numbers of the preset.
        hidden_size: width of the residual stream.
        num_blocks: number of blocks of attention and MLP.
        num_heads: attention heads in each block; hidden_size / num_heads must be even.
        cond_size: width of the embedded noise level; the causal network has none.
        mlp_ratio: width of the MLPs divided by hidden_size.
        dropout: dropout probability of the outputs of attention and MLPs.
        tie_embeddings: share one table between the first and the last layer.
        attention: torch's own kernel (sdpa), the package flash-attn (flash), or flash where it is
            installed and applies (auto), and torch's FlexAttention for document masks and blocks on
            a GPU.
        num_labels: number of labels that the data have; 0 if the network is told no label.

    Raises:
        UsageError: sizes that do not fit each other, or a kernel that is not available.

    Source: arXiv:2212.09748; for text SEDD, arXiv:2310.16834, and MDLM, arXiv:2406.07524. As
    there, embeddings start Kaiming-uniform with a = sqrt(5), and the modulation and the last layer
    at zero, so that an untrained network predicts evenly; a tied last layer starts as the
    embeddings.
    """

    def __init__(
        self,
        num_states: int,
        causal: bool,
        time_conditioned: bool,
        size: Literal["tiny", "small", "medium"] = "tiny",
        hidden_size: int | None = None,
        num_blocks: int | None = None,
        num_heads: int | None = None,
        cond_size: int | None = None,
        mlp_ratio: int = 4,
        dropout: float = 0.0,
        tie_embeddings: bool = False,
        attention: kernels.Name = "auto",
        num_labels: int = 0,
    ) -> None:
        super().__init__()
        preset = SIZES[size]
        hidden_size = preset.hidden_size if hidden_size is None else hidden_size
        num_blocks = preset.num_blocks if num_blocks is None else num_blocks
        num_heads = preset.num_heads if num_heads is None else num_heads
        cond_size = preset.cond_size if cond_size is None else cond_size
        wide = {"hidden_size": hidden_size, "num_heads": num_heads, "cond_size": cond_size}
        check_sizes(MOST_WIDE, **wide, mlp_ratio=mlp_ratio)
        check_sizes(MOST_DEEP, num_blocks=num_blocks)
        check_heads(hidden_size, num_heads)
        check_dropout(dropout)
        check_conditioning(causal=causal, time_conditioned=time_conditioned, num_labels=num_labels)
        head_size = hidden_size // num_heads
        kernel = kernels.choose(attention, head_size)
        shape = BlockShape(hidden_size, num_heads, cond_size, mlp_ratio, dropout, kernel)
        block: type[Block] = CausalBlock if causal else ModulatedBlock
        self.vocab_embed = Embedding(num_states, hidden_size)
        self.sigma_map = None if causal else SigmaEmbedding(cond_size)
        self.rotary_emb = Rotary(head_size)
        self.blocks = nn.ModuleList(block(shape) for _ in range(num_blocks))
        self.output_layer: Output = (
            PlainOutput(hidden_size, num_states)
            if causal
            else ModulatedOutput(hidden_size, num_states, cond_size)
        )
        if tie_embeddings:
            self.output_layer.linear.weight = self.vocab_embed.embedding
        # Created last, so that all other weights are drawn as in a network without labels.
        self.label_map = label_embedding(num_labels, cond_size) if num_labels else None
        self._time_conditioned = time_conditioned
        self._attention = kernel

    @property
    def decoder(self) -> nn.Linear:
        """The linear map from the width to `num_states`."""
        return self.output_layer.linear

    def encode(
        self,
        inputs: Inputs,
        sigma: Noise | None,
        labels: Labels | None = None,
        visibility: Visibility | None = None,
    ) -> Hidden:
        """Features of each position, after the last norm.

        Args:
            inputs: token ids; or probabilities, or the top weights, under which embeddings are
                averaged.
            sigma: noise level, `[batch, 1]` or one per position; None where the network is not told
                it.
            labels: the label of each sequence or one label for all; `num_labels` stands for no
                label. Given if and only if the network is told labels.
            visibility: what each position may see, and where it stands.
        """
        hidden: Hidden = self.vocab_embed(inputs)
        conditioning = self.conditioning(sigma, labels)
        visible, places = None, None
        if visibility is not None:
            visible = self._attention.mask(
                visibility,
                (len(hidden), hidden.shape[1]),
                hidden.device,
                causal=self.sigma_map is None,
            )
            places = visibility.positions
        rotation = self.rotary_emb(hidden.shape[1] if places is None else places)
        for block in self.blocks:
            hidden = self.through(block, hidden, conditioning, rotation, visible=visible)
        features: Hidden = self.output_layer(hidden, conditioning)
        return features

    def stacked(self) -> Sequence[nn.Module]:
        """The blocks of attention and MLP."""
        return list(self.blocks)

    def reader(self, length: int, labels: Labels | None = None) -> Reader:
        """A reader with a key-value cache, of texts with these labels."""
        return CachedReader(self, length, labels)

    def conditioning(self, sigma: Noise | None, labels: Labels | None) -> Conditioning | None:
        """The embedded noise level and label, by which the bidirectional network is modulated."""
        assert (sigma is not None) == self._time_conditioned, (
            "sigma is given exactly to networks that are time-conditioned"
        )
        assert (labels is not None) == (self.label_map is not None), (
            "labels are given exactly to networks that are told them"
        )
        if self.sigma_map is None:
            return None
        level = torch.zeros(1, 1, device=self.decoder.weight.device) if sigma is None else sigma
        conditioning: Conditioning = self.sigma_map(level)
        if self.label_map is not None:
            conditioning = conditioning + self.label_map(labels)[:, None]
        return conditioning


class CachedReader(Reader):
    """Reads a text in pieces, and caches their keys and values.

    Args:
        network: causal or not.
        length: tokens of the longest text.
        labels: as in `Dit.encode`.
    """

    def __init__(self, network: Dit, length: int, labels: Labels | None) -> None:
        self._network, self._length, self._labels = network, length, labels
        self._rotation = network.rotary_emb(length)
        self._pasts = [Past(length) for _ in network.blocks]
        self._position = 0

    def read(self, tokens: Tokens, sigma: Noise | None = None) -> Hidden:
        """Features of the next tokens; only their positions are computed."""
        features = self._features(tokens, sigma, keeps=True)
        self._position += tokens.shape[1]
        return features

    def look(self, tokens: Tokens, sigma: Noise | None = None) -> Hidden:
        """As `read`, without keeping their keys and values."""
        return self._features(tokens, sigma, keeps=False)

    def _features(self, tokens: Tokens, sigma: Noise | None, *, keeps: bool) -> Hidden:
        start, end = self._position, self._position + tokens.shape[1]
        assert end <= self._length, f"this reader was made for {self._length} tokens"
        rotation = self._rotation.between(start, end)
        conditioning = self._network.conditioning(sigma, self._labels)
        hidden: Hidden = self._network.vocab_embed(tokens)
        for block, past in zip(self._network.blocks, self._pasts, strict=True):
            past.keeps = keeps
            # Not the compiled form, which would be compiled again for every length of the past.
            hidden = block.forward(hidden, conditioning, rotation, past)
        features: Hidden = self._network.output_layer(hidden, conditioning)
        return features


MOST_WIDE, MOST_DEEP = 10**6, 10**4
"""Sizes and numbers of blocks beyond those of any network that a machine can hold."""


def check_sizes(most: int, **sizes: int) -> None:
    """Raises UsageError for a size below 1 or above what a machine can hold."""
    for name, value in sizes.items():
        if value < 1:
            raise UsageError(f"{name} is {value}, but must be at least 1")
        if value > most:
            raise UsageError(f"{name} is {value}, but can be at most {most}")


def check_heads(hidden_size: int, num_heads: int) -> None:
    """Raises UsageError where the width does not split into heads of even size."""
    step = 2 * num_heads
    if hidden_size % step:
        below = hidden_size // step * step
        works = f"{below} or {below + step}" if below else f"{step}"
        raise UsageError(
            f"hidden_size {hidden_size} does not split into num_heads {num_heads} of even size, "
            f"which rotary positions need; choose hidden_size {works}, or another num_heads"
        )


def check_dropout(dropout: float) -> None:
    """Raises UsageError for a share outside [0, 1)."""
    if not 0 <= dropout < 1:
        raise UsageError(f"dropout is {dropout:g}, but must be at least 0 and below 1, such as 0.1")


def label_embedding(num_labels: int, cond_size: int) -> nn.Embedding:
    """A row for each label and one for none, small at the start as in arXiv:2212.09748."""
    table = nn.Embedding(num_labels + 1, cond_size)
    nn.init.normal_(table.weight, std=0.02)
    return table


def check_conditioning(*, causal: bool, time_conditioned: bool, num_labels: int) -> None:
    """Raises UsageError for a process or data that the causal network cannot serve."""
    if causal and time_conditioned:
        raise UsageError(
            "the causal form of backbone dit takes no noise level, but the process is causal and "
            "time-conditioned; choose another backbone"
        )
    if causal and num_labels:
        raise UsageError(
            "the causal form reads no labels; leave out --data.label, or choose a process with "
            "noise, such as mdlm or duo"
        )
