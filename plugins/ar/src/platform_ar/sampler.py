"""The sampler of autoregression: one token after another.

    x^l ~ p( . | start, x^1, ..., x^{l-1})      l = 1, ..., length

A token costs the computation of one position if the backbone caches the positions that it has read
(`platform_core.backbone.Incremental`), else one network call over all positions so far.
"""

import math
from collections.abc import Mapping
from typing import ClassVar, final

import torch

from platform_ar.model import Predictor
from platform_ar.parameterization import NextToken
from platform_ar.process import Ar
from platform_core import categorical, rows
from platform_core.categorical import Crossing, truncation
from platform_core.errors import UsageError
from platform_core.model import Model
from platform_core.sampler import Prompt, Sample, Sampler
from platform_core.types import Hidden, Logits, Selected, Tokens


@final
class LeftToRight(Sampler):
    """Draws each token given those before it; samples may be longer than the sequences of training.

    Args:
        temperature: the law is raised to the power 1 / temperature, before it is truncated; 1 is
            exact, below 1 prefers likely tokens.
        top_k: number of most likely tokens to draw from (more where the last are equally likely);
            by default all. 1 takes the most likely token at each position.
        top_p: of the tokens that top_k keeps, draw only from the most likely ones with this much
            probability; 1 is exact.
        crossing: whether the token with which top_p is exceeded is kept (as DUO and transformers
            do) or dropped (as ReMDM and BD3-LM do).

    A prompt conditions exactly; it must be the beginning of the text. Every token that is drawn
    counts as one network evaluation. Draws are in float64; published code draws by float32 Gumbel
    noise, which loses rare tokens.
    """

    requires: ClassVar[Mapping[str, type]] = {"process": Ar, "parameterization": NextToken}
    fills_blanks: ClassVar[bool] = False

    def __init__(
        self,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float = 1.0,
        crossing: Crossing = "kept",
    ) -> None:
        if not 0 < temperature < math.inf:
            raise ValueError(
                f"temperature is {temperature:g}; it must be above 0 (1 is exact); "
                "for the most likely tokens take top_k 1"
            )
        self.temperature = temperature
        self.truncation = truncation(top_p, top_k, crossing=crossing)

    @torch.no_grad()
    def __call__(
        self,
        model: Model,
        shape: tuple[int, int],
        generator: torch.Generator,
        prompt: Prompt | None = None,
    ) -> Sample:
        """Draw text, in as many steps as it has tokens after the prompt.

        Raises:
            UsageError: the prompt gives tokens to the right of a blank.
        """
        predictor = Predictor(model)
        tokens, fixed = start(shape, generator.device, prompt)
        length = shape[1]
        given = int(fixed.sum(1).min())
        reader = predictor.reader(length)
        unread = predictor.process.inputs(tokens)[:, : given + 1]
        for place in range(given, length):
            drawn = self._draw(predictor, reader.read(unread)[:, -1], generator)
            tokens[:, place] = torch.where(fixed[:, place], tokens[:, place], drawn)
            unread = tokens[:, place : place + 1]
        return Sample(tokens, length - given)

    def _draw(self, predictor: Predictor, hidden: Hidden, generator: torch.Generator) -> Tokens:
        def draw(logits: Logits) -> Tokens:
            log_next = (predictor.log_next(logits) / self.temperature).log_softmax(-1)
            return categorical.draw(self.truncation(log_next).exp(), generator)

        return rows.collect(
            predictor.model.backbone.decoder,
            draw,
            hidden,
            (),
            num_states=predictor.process.num_states,
        )


def start(
    shape: tuple[int, int], device: torch.device, prompt: Prompt | None
) -> tuple[Tokens, Selected]:
    """Tokens `[batch, length]` with the prompt in its place, and which of them are given.

    Raises:
        UsageError: a given token stands to the right of one that is not given.
    """
    if prompt is None:
        blank = torch.zeros(shape, dtype=torch.long, device=device)
        return blank, blank.bool()
    if (prompt.fixed[:, 1:] & ~prompt.fixed[:, :-1]).any():
        raise UsageError(
            "left-to-right continues the beginning of a text, but the prompt gives tokens to the "
            "right of a blank; give a beginning alone, or fill blanks with a diffusion process, "
            "such as absorbing"
        )
    return prompt.tokens.clone(), prompt.fixed
