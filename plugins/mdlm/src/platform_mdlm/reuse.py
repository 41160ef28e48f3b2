"""A backbone that reads a sequence again only after it changed."""

from typing import final

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from platform_core.backbone import Backbone
from platform_core.process import Diffusion
from platform_core.rows import Places
from platform_core.types import Hidden, Inputs, Noise, Tokens

Sequences = Bool[Tensor, " sequences"]


@final
class Reusing(Backbone):
    """Wraps a backbone that is told no noise level, and keeps the features of the last batch.

    A sequence in which no token can change is not read again either; its features are those of
    earlier tokens. `sequences` counts the sequences that were read, each times the number of
    evaluations that the wrapped backbone makes for it.

    Args:
        backbone: the wrapped backbone.
        process: the process, which says which tokens can change.
    """

    def __init__(self, backbone: Backbone, process: Diffusion) -> None:
        super().__init__()
        self.backbone, self.process = backbone, process
        self.sequences = 0
        self._tokens: Tokens | None = None
        self._hidden: Hidden | None = None

    @property
    def decoder(self) -> nn.Module:
        return self.backbone.decoder

    def encode(self, inputs: Inputs, sigma: Noise | None) -> Hidden:
        """Features of each position, new or kept; successive calls are states of one batch."""
        assert sigma is None, "features at one noise level are not those at another"
        assert isinstance(inputs, Tensor), "samplers read tokens"
        stale = Places.of(self._stale(inputs))
        if len(stale):
            read = self.backbone.encode(stale.rows(inputs), None)
            self.sequences += len(read) * self.backbone.evaluations
            if self._hidden is None:
                self._hidden = read.new_zeros(len(inputs), *read.shape[1:])
            self._hidden[stale.index] = read
        self._tokens = inputs.clone()
        assert self._hidden is not None, "a network is called where something can change"
        return self._hidden

    def _stale(self, inputs: Tokens) -> Sequences:
        changed = torch.ones_like(inputs, dtype=torch.bool)
        if self._tokens is not None:
            changed = inputs != self._tokens
        return changed.any(-1) & self.process.changeable(inputs).any(-1)
