"""Backbones: the network, split into an encoder and a decoder.

    hidden = encode(inputs, sigma)     every position, mixing them           [batch, length, width]
    logits = decoder(hidden rows)      any number of single positions        [rows, num_states]

The decoder treats every position alone, so losses and samplers decode only the rows they need, in
chunks (`rows`). `reader` reads a causal network from left to right. A `Conditional` backbone also
reads a label of each sequence; a `Separating` backbone keeps the documents of a sequence apart.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from platform_core.types import Documents, Hidden, Inputs, Labels, Logits, Noise, Tokens


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


class Separating(Backbone, ABC):
    """A backbone that can hide the documents of a sequence from each other."""

    @abstractmethod
    def encode(
        self,
        inputs: Inputs,
        sigma: Noise | None,
        labels: Labels | None = None,
        documents: Documents | None = None,
    ) -> Hidden:
        """Features of each position.

        Args:
            inputs: as in `Backbone.encode`.
            sigma: as in `Backbone.encode`.
            labels: as in `Conditional.encode`.
            documents: number of each token's document, `[batch, length]`; a position sees only
                positions with the same number. None where documents are not kept apart.
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
    """A causal network that has read part of a batch of texts; not for computing gradients."""

    @abstractmethod
    def read(self, tokens: Tokens) -> Hidden:
        """Read the next tokens, `[batch, n]`, and return their features.

        The features equal those that `encode` gives for the whole text so far.
        """


class Incremental(ABC):
    """A backbone whose causal form has a key-value cache.

    With the cache, a further token costs one position instead of the whole text. The function
    `reader` also reads backbones without a cache.
    """

    @abstractmethod
    def reader(self, length: int) -> Reader:
        """Make a reader that has read nothing yet, for texts of at most `length` tokens."""


class IncrementalGiven(Incremental):
    """An `Incremental` and `Conditional` backbone whose cache is also that of a text with a label.

    A backbone that is told one label (`guidance.Told`) then keeps the cache.
    """

    @abstractmethod
    def reader(self, length: int, labels: Labels | None = None) -> Reader:
        """Make a reader that has read nothing yet, for texts of at most `length` tokens.

        Args:
            length: tokens of the longest text.
            labels: as in `Conditional.encode`.
        """


class Rereader(Reader):
    """A reader of any causal network, without a cache: each read encodes the whole text again."""

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self._text: Tokens | None = None

    def read(self, tokens: Tokens) -> Hidden:
        self._text = tokens if self._text is None else torch.cat((self._text, tokens), dim=1)
        return self._backbone.encode(self._text, None)[:, -tokens.shape[1] :]


def reader(backbone: Backbone, length: int) -> Reader:
    """Make the fastest reader of up to `length` tokens; the network must not need a noise level."""
    if isinstance(backbone, Incremental):
        return backbone.reader(length)
    return Rereader(backbone)
