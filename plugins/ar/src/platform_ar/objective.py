"""The objective of autoregression: the exact negative log-likelihood.

    -log p(x) = - sum_{l=1}^{L} log p(x^l | start, x^1, ..., x^{l-1})

It is no bound but the value itself, under either protocol and without any draw. Published numbers
take the first token of a sequence as given and score the others: `NextTokenNll.score` does that
with `x[:, :-1]` for inputs and `x[:, 1:]` for targets.
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
from platform_core.types import Logits, Nats, Selected, Tokens


@final
class NextTokenNll(Objective, Guessing):
    """-log p of each token given the start and the tokens to its left, in nats.

    Every token counts, the first included, so that perplexities and bits stand beside those of a
    diffusion; a perplexity without the first token is a little lower.

    Source: the autoregressive baseline of MDLM, arXiv:2406.07524, and DUO, arXiv:2506.10892.
    """

    requires: ClassVar[Mapping[str, type]] = {"process": Ar, "parameterization": NextToken}
    noise_levels: ClassVar[int] = 0

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self.predictor = Predictor(model)

    def forward(self, x0: Tokens, mask: Selected, draws: Draws) -> Loss:
        """The negative log-likelihood of the tokens where `mask` is true."""
        return self.score(self.predictor.process.inputs(x0), x0, mask)

    def bound(self, x0: Tokens, mask: Selected, draws: Draws, protocol: Protocol = "exact") -> Loss:
        """The same: it is exact."""
        return self.score(self.predictor.process.inputs(x0), x0, mask)

    def guesses(self, x0: Tokens, asked: Selected, draws: Draws) -> Tokens:
        """The likeliest token after the clean ones to its left."""
        found = rows.collect(
            self.model.backbone.decoder,
            lambda logits: self.predictor.log_next(logits).argmax(-1),
            self.predictor.encode(self.predictor.process.inputs(x0))[asked],
            (),
            num_states=self.predictor.process.num_states,
        )
        return x0.masked_scatter(asked, found)

    def score(self, inputs: Tokens, targets: Tokens, counted: Selected) -> Loss:
        """-log p of each counted target, given the inputs up to the same place."""
        hidden = self.predictor.encode(inputs)[counted]
        total, values = rows.weighted_sum(
            self.model.backbone.decoder,
            self.row_loss,
            hidden,
            (targets[counted],),
            num_states=self.predictor.process.num_states,
        )
        nats = torch.zeros(targets.shape, device=targets.device)
        return Loss(total, nats.masked_scatter(counted, values))

    def row_loss(self, logits: Logits, target: Tokens) -> Nats:
        """-log p of each row's target."""
        log_next = self.predictor.log_next(logits)
        return -log_next.gather(-1, target[..., None]).squeeze(-1)
