"""GIDD's self-correction: tokens of a finished text are replaced by likelier ones."""

import math
from collections.abc import Mapping
from typing import ClassVar, final

import torch
from torch import Tensor

from platform_core import categorical
from platform_core.model import Denoiser, Model
from platform_core.parameterization import ScoreBased
from platform_core.process import Replacing
from platform_core.sampler import Prompt, Sample, Sampler
from platform_core.types import Logits, Noise, Selected, Tokens

TIME = 0.01
"""Time of the schedule whose noise level the network is told, as in the published code."""


@final
class SelfCorrection(Sampler):
    """Draws text by another sampler, then replaces tokens that the network finds too unlikely.

        gain[y] = log q(y) - log q(x^l) given the others, the score, for every token y

    Each round picks a token y at every position, and replaces those of the largest gain if it is
    above 0. A text that a round does not change is finished. With exact predictions and one token
    at a time, log q of the text rises by the gain. So this searches for likely texts and does not
    draw from the model's law: texts become more likely and less varied.

    Args:
        inner: the sampler of the text that is corrected.
        rounds: rounds at most; each is one network evaluation.
        replaced: tokens of a text that a round replaces at most.
        temperature: 0 picks the token of the largest gain; above 0, y is drawn from the law of the
            position to the power 1 / temperature, for example 0.1.

    Raises:
        ValueError: an option is out of range.

    Source: GIDD, arXiv:2503.04482, whose code draws a token at every position and replaces that
    which was drawn with most probability, whether it is likelier than the present one or not.
    """

    requires: ClassVar[Mapping[str, type]] = {"process": Replacing, "parameterization": ScoreBased}
    unclaimed: ClassVar[Mapping[str, str]] = {
        "draws-the-data": "it searches for likely texts",
        "same-seed-same-sample": "short texts end at the same likely text, whatever the generator",
    }

    def __init__(
        self, inner: Sampler, rounds: int = 128, replaced: int = 1, temperature: float = 0.0
    ) -> None:
        if rounds < 1 or replaced < 1:
            raise ValueError(f"rounds is {rounds} and replaced {replaced}; both must be at least 1")
        if not 0 <= temperature < math.inf:
            raise ValueError(f"temperature is {temperature:g}; it must be at least 0, as 0.1")
        self.inner = inner
        self.fills_blanks = inner.fills_blanks
        self.rounds, self.replaced, self.temperature = rounds, replaced, temperature

    @torch.no_grad()
    def __call__(
        self,
        model: Model,
        shape: tuple[int, int],
        generator: torch.Generator,
        prompt: Prompt | None = None,
    ) -> Sample:
        """Draw text, then correct it in at most `rounds` rounds; unchanged texts are left out."""
        drawn = self.inner(model, shape, generator, prompt)
        x = drawn.tokens
        free = torch.ones_like(x, dtype=torch.bool) if prompt is None else ~prompt.fixed
        denoiser, cost = Denoiser(model), model.backbone.evaluations
        each = torch.full_like(x[:, 0], drawn.nfe) if drawn.each is None else drawn.each.clone()
        going = torch.arange(len(x), device=x.device)
        for _ in range(self.rounds):
            before = x[going]
            after = self._round(denoiser, before, free[going], generator)
            x = x.index_copy(0, going, after)
            each[going] += cost
            going = going[(after != before).any(-1)]
            if not len(going):
                break
        return Sample(x, drawn.nfe + denoiser.calls, each)

    def _round(
        self, denoiser: Denoiser, x: Tokens, free: Selected, generator: torch.Generator
    ) -> Tokens:
        process, parameterization = denoiser.process, denoiser.parameterization

        def read(logits: Logits, x: Tokens, level: Noise) -> Tensor:
            score = parameterization.log_score(logits.double(), x, level, process)
            gains = score[..., : process.vocab_size]
            picked = self._pick(gains, generator)
            # One tensor for both; float64 holds every token exactly.
            return torch.stack((picked.double(), gains.gather(-1, picked[:, None])[:, 0]), dim=-1)

        time = torch.full((len(x), 1), TIME, dtype=torch.float64, device=x.device)
        alpha = denoiser.schedule.alpha(time)
        places = denoiser.places(free & process.changeable(x))
        picked, gain = denoiser.read(x, alpha, places, read, (alpha,)).unbind(-1)
        gain = places.spread(gain, torch.full_like(x, -torch.inf, dtype=torch.float64))
        rank = gain.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
        chosen = (rank < self.replaced) & (gain > 0)
        return torch.where(chosen, places.spread(picked.long(), x), x)

    def _pick(self, gains: Tensor, generator: torch.Generator) -> Tokens:
        """A token for each row."""
        if self.temperature == 0:
            return gains.argmax(-1)
        return categorical.draw((gains / self.temperature).softmax(-1), generator)
