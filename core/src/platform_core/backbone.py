"""Backbones: the network, in two halves.

    hidden = encode(inputs, sigma)     every position, mixing them           [batch, length, width]
    logits = decoder(hidden rows)      any number of single positions        [rows, num_states]

Nothing mixes positions after `encode`, so losses and draws decode only the rows they need, a chunk
at a time (`rows`). Causal networks are also read from left to right: `reader`. `Conditional` ones
read a label of each sequence besides, and `Separating` ones keep its documents apart.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import nn

from platform_core.types import Documents, Hidden, Inputs, Labels, Logits, Noise, Tokens


class Backbone(nn.Module, ABC):
    """A network from (noisy) tokens to logits over the states of each position.

    Args of every backbone, by name, where it has them: `num_states`, `causal` and
    `time_conditioned` are filled in from the process, `num_labels` from the data.

    `evaluations` is how many network evaluations one call of `encode` counts as.
    """

    requires: ClassVar[Mapping[str, type]] = {}
    evaluations: ClassVar[int] = 1

    @property
    @abstractmethod
    def decoder(self) -> nn.Module:
        """The last, position-wise layer, from the width of `encode` to `num_states`.

        One of the network's own submodules; it holds every parameter of a row's logits that
        `encode` does not use, and uses all that it holds.
        """

    @abstractmethod
    def encode(self, inputs: Inputs, sigma: Noise | None) -> Hidden:
        """Features of each position.

        Args:
            inputs: token ids, or dense probabilities, or the top weights of a distribution.
            sigma: noise level -log alpha, `[batch, 1]`; None where the process is not
                time-conditioned.
        """

    def forward(self, inputs: Inputs, sigma: Noise | None) -> Logits:
        """Logits of every position at once: the definition, too large for wide vocabularies."""
        logits: Logits = self.decoder(self.encode(inputs, sigma))
        return logits


class Conditional(Backbone, ABC):
    """A backbone that can be told a label of each sequence.

    Its constructor takes `num_labels`; 0 where the data have none.
    """

    @abstractmethod
    def encode(self, inputs: Inputs, sigma: Noise | None, labels: Labels | None = None) -> Hidden:
        """Features of each position.

        Args:
            inputs: as of every backbone.
            sigma: as of every backbone.
            labels: one of each sequence, or a single one for all; `num_labels` stands for no label.
                None exactly where num_labels is 0, so that none is forgotten.
        """


class Separating(Backbone, ABC):
    """A backbone that can be kept from looking from one document of a sequence into another."""

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
            inputs: as of every backbone.
            sigma: as of every backbone.
            labels: as of a conditional one.
            documents: the number of each token's document, `[batch, length]`; a position sees only
                those of its own number. None where all see all.
        """


class Reader(ABC):
    """A causal network part of the way through a batch of texts; it gives no gradients."""

    @abstractmethod
    def read(self, tokens: Tokens) -> Hidden:
        """Features of the next tokens, `[batch, n]`: those that `encode` gives them in the whole
        text so far.
        """


class Incremental(ABC):
    """A backbone whose causal form remembers what it has read (a key-value cache).

    A further token then costs one position instead of the whole text. Backbones without it are read
    all the same, see `reader`.
    """

    @abstractmethod
    def reader(self, length: int) -> Reader:
        """A reader at the beginning of texts of at most `length` tokens."""


class Rereader(Reader):
    """Any causal network: each read encodes the whole text again, n calls of length 1 to n."""

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self._text: Tokens | None = None

    def read(self, tokens: Tokens) -> Hidden:
        """Features of the next tokens."""
        self._text = tokens if self._text is None else torch.cat((self._text, tokens), dim=1)
        return self._backbone.encode(self._text, None)[:, -tokens.shape[1] :]


def reader(backbone: Backbone, length: int) -> Reader:
    """How a causal network that is told no noise level reads up to `length` tokens quickest."""
    if isinstance(backbone, Incremental):
        return backbone.reader(length)
    return Rereader(backbone)
