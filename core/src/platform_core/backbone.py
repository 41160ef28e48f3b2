"""Backbones: the network, in two halves.

    hidden = encode(inputs, sigma)     every position, mixing them           [batch, length, width]
    logits = decoder(hidden rows)      any number of single positions        [rows, num_states]

Nothing mixes positions after `encode`, so losses and draws decode only the rows they need, a chunk
at a time (`rows`).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from torch import nn

from platform_core.types import Hidden, Inputs, Logits, Noise


class Backbone(nn.Module, ABC):
    """A network from (noisy) tokens to logits over the states of each position.

    Args of every backbone, by name, where it has them: `num_states`, `causal` and
    `time_conditioned` are filled in from the process.
    """

    requires: ClassVar[Mapping[str, type]] = {}

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
