"""The objective of autoregression: the exact negative log-likelihood.

    -log p(x) = - sum_{l=1}^{L} log p(x^l | start, x^1, ..., x^{l-1})

The result is the exact value and no bound, under either protocol and without random draws.
Published numbers take the first token of a sequence as given and score the others:
`NextTokenNll.score` does that with `x[:, :-1]` for inputs and `x[:, 1:]` for targets.
"""

from collections.abc import Mapping
from typing import ClassVar, final

import torch

from platform_ar.model import Predictor
from platform_ar.parameterization import NextToken
from platform_ar.process import Ar
from platform_core import rows
from platform_core.draws import Draws
from platform_core.model import Model
from platform_core.objective import Guessing, Loss, Objective, Protocol
from platform_core.types import Batch, Logits, Nats, Tokens


@final
class NextTokenNll(Objective, Guessing):
    """-log p of each token given the start and the tokens to its left, in nats.

    Every token counts, the first included, so that perplexities and bits can be compared with those
    of a diffusion model; a perplexity without the first token is a little lower.

    Source: the autoregressive baseline of MDLM, arXiv:2406.07524, and DUO, arXiv:2506.10892.
    """

    requires: ClassVar[Mapping[str, type]] = {"process": Ar, "parameterization": NextToken}
    noise_levels: ClassVar[int] = 0

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self.predictor = Predictor(model)

    def forward(self, batch: Batch, draws: Draws) -> Loss:
        """The negative log-likelihood of the tokens that count."""
        return self.score(self.predictor.process.inputs(batch.x0), batch)

    def bound(self, batch: Batch, draws: Draws, protocol: Protocol = "exact") -> Loss:
        """The negative log-likelihood, which is exact under both protocols."""
        return self.score(self.predictor.process.inputs(batch.x0), batch)

    def guesses(self, batch: Batch, draws: Draws) -> Tokens:
        """The likeliest token after the clean ones to its left."""
        inputs = self.predictor.process.inputs(batch.x0)
        places = rows.Places.of(batch.mask, every=batch.every)
        found = rows.collect(
            self.model.backbone.decoder,
            lambda logits: self.predictor.log_next(logits).argmax(-1),
            places.rows(self.predictor.encode(inputs, batch.conditions)),
            (),
            num_states=self.predictor.process.num_states,
        )
        return places.spread(found, batch.x0)

    def score(self, inputs: Tokens, targets: Batch) -> Loss:
        """-log p of each target that counts, given the inputs up to the same position."""
        x0, counted = targets.x0, targets.mask
        places = rows.Places.of(counted, every=targets.every)
        hidden = places.rows(self.predictor.encode(inputs, targets.conditions))
        total, values = rows.weighted_sum(
            self.model.backbone.decoder,
            self.row_loss,
            hidden,
            (places.rows(x0),),
            num_states=self.predictor.process.num_states,
        )
        return Loss(total, places.spread(values, torch.zeros(x0.shape, device=x0.device)))

    def row_loss(self, logits: Logits, target: Tokens) -> Nats:
        """-log p of each row's target."""
        parameterization, process = self.predictor.parameterization, self.predictor.process
        return parameterization.nats(logits, target, process)
