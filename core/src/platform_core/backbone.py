"""Backbones: the network, split into an encoder and a decoder.

    hidden = encode(inputs, sigma)     every position, mixing them           [batch, length, width]
    logits = decoder(hidden rows)      any number of single positions        [rows, num_states]

The decoder treats every position alone, so losses and samplers decode only the rows they need, in
chunks (`rows`). `reader` reads a text in pieces, each of which sees what was read before it. A
`Conditional` backbone also reads a label of each sequence; a `Sighted` backbone can be told which
positions see which.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from platform_core.types import Hidden, Inputs, Labels, Logits, Noise, Tokens
from platform_core.visibility import Visibility, block_causal


class Backbone(nn.Module, ABC):
    """A network from (noisy) tokens to logits over the states of each position.

    Constructor arguments of these names are filled in: `num_states`, `causal` and
    `time_conditioned` from the process, `num_labels` from the data.

    `evaluations` is the number of network evaluations that one call of `encode` counts as.
    """

    requires: ClassVar[Mapping[str, type]] = {}
    evaluations: int = 1

    @property
    @abstractmethod
    def decoder(self) -> nn.Module:
        """The last, position-wise layer, from the width of `encode` to `num_states`.

        The decoder is a submodule of the backbone. It holds every parameter that the logits need
        and `encode` does not use, and it uses every parameter that it holds.
        """

    @abstractmethod
    def encode(self, inputs: Inputs, sigma: Noise | None) -> Hidden:
        """Compute the features of each position.

        Args:
            inputs: token ids, or dense probabilities, or the top weights of a distribution.
            sigma: noise level -log alpha, `[batch, 1]`; None where the process is not
                time-conditioned.
        """

    def forward(self, inputs: Inputs, sigma: Noise | None) -> Logits:
        """Logits of every position at once: a definition that needs too much memory in practice."""
        logits: Logits = self.decoder(self.encode(inputs, sigma))
        return logits


class Conditional(Backbone, ABC):
    """A backbone that can condition on a label of each sequence.

    The constructor takes `num_labels`, which is 0 if the data have no labels.
    """

    @abstractmethod
    def encode(self, inputs: Inputs, sigma: Noise | None, labels: Labels | None = None) -> Hidden:
        """Features of each position.

        Args:
            inputs: as in `Backbone.encode`.
            sigma: as in `Backbone.encode`.
            labels: one label per sequence, or a single label for all; the number `num_labels`
                stands for no label. None if and only if `num_labels` is 0, so that labels cannot
                be forgotten.
        """


class Sighted(Backbone, ABC):
    """A backbone that can be told which positions of a call see which, and where they stand."""

    @abstractmethod
    def encode(
        self,
        inputs: Inputs,
        sigma: Noise | None,
        labels: Labels | None = None,
        visibility: Visibility | None = None,
    ) -> Hidden:
        """Features of each position.

        Args:
            inputs: as in `Backbone.encode`.
            sigma: noise level, `[batch, 1]` or one of each position; None as in `Backbone.encode`.
            labels: as in `Conditional.encode`.
            visibility: what each position may see, of which a causal network sees what is on its
                left; None where the tokens of a call are one text that sees itself.
        """


class Blockwise(ABC):
    """A backbone whose encoder is mostly a stack of alike blocks.

    Blocks can be compiled one by one, which takes as long as compiling a single one, and their
    activations can be computed again in the backward pass instead of being kept.
    """

    recomputes: bool = False
    """Whether activations within a block are computed again in the backward pass."""

    @abstractmethod
    def stacked(self) -> Sequence[nn.Module]:
        """The blocks, each of which `encode` calls by `through`."""

    def through(self, block: nn.Module, *inputs: Any, **options: Any) -> Any:
        """What a block makes of its inputs; random draws are the same when it is run again."""
        if self.recomputes and torch.is_grad_enabled():
            return checkpoint(block, *inputs, use_reentrant=False, **options)
        return block(*inputs, **options)


class FromElsewhere(ABC):
    """A backbone whose network is described, and may have been trained, outside of the platform.

    The run keeps the description, so that it needs nothing else once it has started. The
    constructor reads no weights: a checkpoint replaces them, except at the start of a new run.
    """

    @classmethod
    @abstractmethod
    def kept(cls, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """Options of the constructor that the run keeps in its config, besides those given.

        Args:
            options: those of the constructor, by name, as far as they are no facts of other parts.

        Raises:
            UsageError: the network that the options name is not found or cannot be read.
        """

    @abstractmethod
    def start(self, vocabulary: Mapping[str, int] | None, mask_id: int | None) -> Mapping[str, Any]:
        """Load the weights that a new run starts from, and say which they are, for the record.

        Args:
            vocabulary: token -> id of the run's tokenizer, if it is one of the tokenizers library.
            mask_id: the state that is the mask; None where the process has none.

        Returns:
            Plain values for JSON; empty where all weights are new.

        Raises:
            UsageError: the weights cannot be read, or are those of another network or tokenizer.
        """


class Reader(ABC):
    """A network that has read part of a batch of texts; not for computing gradients.

    Tokens see everything that was read before them. Of those that are read with them they see all,
    or in a causal network those on their left.
    """

    @abstractmethod
    def read(self, tokens: Tokens, sigma: Noise | None = None) -> Hidden:
        """Read the next tokens, `[batch, n]`, and return their features.

        Args:
            tokens: the tokens that follow those read so far.
            sigma: their noise level, as in `Backbone.encode`.
        """

    @abstractmethod
    def look(self, tokens: Tokens, sigma: Noise | None = None) -> Hidden:
        """The features that `read` would return, without having read them afterwards."""


class Incremental(ABC):
    """A backbone with a key-value cache for tokens that do not change any more.

    With the cache, a further token costs one position instead of the whole text. The function
    `reader` also reads backbones without a cache.
    """

    @abstractmethod
    def reader(self, length: int, labels: Labels | None = None) -> Reader:
        """Make a reader that has read nothing yet, for texts of at most `length` tokens.

        Args:
            length: tokens of the longest text.
            labels: as in `Conditional.encode`, of a backbone that is told labels.
        """


class Rereader(Reader):
    """A reader without a cache: each call encodes the whole text again.

    Args:
        backbone: a causal network, or a `Sighted` one.
    """

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self._pieces: list[tuple[Tokens, Noise | None]] = []

    def read(self, tokens: Tokens, sigma: Noise | None = None) -> Hidden:
        self._pieces.append((tokens, sigma))
        return self._features(self._pieces)

    def look(self, tokens: Tokens, sigma: Noise | None = None) -> Hidden:
        return self._features([*self._pieces, (tokens, sigma)])

    def _features(self, pieces: Sequence[tuple[Tokens, Noise | None]]) -> Hidden:
        """Features of the last piece."""
        text = torch.cat([tokens for tokens, _ in pieces], dim=1)
        levels = [sigma.expand(tokens.shape) for tokens, sigma in pieces if sigma is not None]
        told: dict[str, Visibility] = {}
        if isinstance(self._backbone, Sighted) and len(pieces) > 1:
            lengths = torch.tensor([tokens.shape[1] for tokens, _ in pieces], device=text.device)
            number = torch.arange(len(pieces), device=text.device)
            told["visibility"] = block_causal(number.repeat_interleave(lengths))
        sigma = torch.cat(levels, dim=1) if levels else None
        last = pieces[-1][0].shape[1]
        return self._backbone.encode(text, sigma, **told)[:, -last:]


def reader(backbone: Backbone, length: int, *, cached: bool = True) -> Reader:
    """Make a reader of up to `length` tokens, with a cache if the backbone has one.

    Args:
        backbone: a causal network, or one that is `Incremental` or `Sighted`.
        length: tokens of the longest text.
        cached: whether to use a cache; without, the whole text is encoded at every call.
    """
    if cached and isinstance(backbone, Incremental):
        return backbone.reader(length)
    return Rereader(backbone)
