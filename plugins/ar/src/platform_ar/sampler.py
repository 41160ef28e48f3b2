"""The sampler of autoregression: one token after another.

    x^l ~ p( . | start, x^1, ..., x^{l-1})      l = 1, ..., length

A token costs the computation of one position if the backbone caches the positions that it has read
(`platform_core.backbone.Incremental`), else one network call over all positions so far.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, final

import torch

from platform_ar.model import Predictor
from platform_ar.parameterization import NextToken
from platform_ar.process import Ar
from platform_core import categorical, rows
from platform_core.categorical import truncation
from platform_core.errors import UsageError
from platform_core.model import Model
from platform_core.sampler import Prompt, Sample, Sampler
from platform_core.types import Hidden, Logits, Selected, Tokens


@final
class LeftToRight(Sampler):
    """Draws each token given those before it; samples may be longer than the sequences of training.

    Args:
        law: options of every draw; see `platform_core.categorical.truncation`.

    A prompt conditions exactly; it must be the beginning of the text. Every token that is drawn
    counts as one network evaluation. Draws are in float64; published code draws by float32 Gumbel
    noise, which loses rare tokens.
    """

    requires: ClassVar[Mapping[str, type]] = {"process": Ar, "parameterization": NextToken}
    fills_blanks = False

    def __init__(self, **law: Any) -> None:
        self.truncation = truncation(**law)

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
            law = self.truncation(predictor.log_next(logits))
            return categorical.draw(law.exp(), generator)

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
