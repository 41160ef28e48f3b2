"""Samplers of masked diffusion.

    cached-ancestral       the ancestral chain; a sequence is read again only after it changed
    first-hitting          one token at a time, each at its random time
    semi-autoregressive    texts longer than the model's, window by window
    remdm                  tokens may be masked again and redrawn

All of them keep the tokens of a prompt in their places.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor

from platform_core import categorical
from platform_core.categorical import CleanOnly, Crossing, truncation
from platform_core.draws import END_MARGIN
from platform_core.model import Model
from platform_core.parameterization import PredictsClean, ScoreBased
from platform_core.process import Absorbing, Diffusion
from platform_core.rows import Places
from platform_core.sampler import (
    Ancestral,
    Ending,
    GridSampler,
    Prompt,
    Sample,
    Sampler,
    Walk,
    even_times,
)
from platform_core.schedule import Schedule
from platform_core.types import Logits, Noise, Selected, Tokens
from platform_mdlm.remasking import Cap, Confidence, Loop, Remasking, Rescale
from platform_mdlm.reuse import Reusing

OfPlaces = Float[Tensor, " places"]


@final
class CachedAncestral(Sampler):
    """The ancestral sampler; the network reads a sequence again only after it changed.

    Args:
        time_conditioned: whether the network is told the noise level; must be false, because its
            predictions would otherwise change at every step.
        steps: number of reverse steps.
        final: what the last call does with the masks that are left: ancestral, greedy or none.
        law: options of every draw; see `platform_core.categorical.truncation`.

    Samples are those of `ancestral` with the same options and generator. NFE is the number of times
    that a sequence was read, divided by the batch size, rounded up. For a batch of one sequence of
    `length` tokens and an even grid of levels the mean NFE is

        steps (1 - (1 - 1 / steps)^length)

    Raises:
        ValueError: the process is time-conditioned.

    Source: MDLM, arXiv:2406.07524, which reads the whole batch whenever any sequence changed.
    """

    requires: ClassVar[Mapping[str, type]] = {"process": Absorbing, "parameterization": ScoreBased}

    def __init__(
        self,
        time_conditioned: bool,
        steps: int = 128,
        final: Ending = "ancestral",
        **law: Any,
    ) -> None:
        if time_conditioned:
            raise ValueError(
                "predictions of a time-conditioned network change at every step and cannot be "
                "reused; choose sampler ancestral, or process mdlm or absorbing"
            )
        self.ancestral = Ancestral(steps, final, **law)

    def __call__(
        self,
        model: Model,
        shape: tuple[int, int],
        generator: torch.Generator,
        prompt: Prompt | None = None,
    ) -> Sample:
        """Noise to text in `steps` reverse steps."""
        process = model.process
        assert isinstance(process, Diffusion), "see requires"
        reusing = Reusing(model.backbone, process)
        tokens = self.ancestral(model.with_backbone(reusing), shape, generator, prompt).tokens
        return Sample(tokens, -(-reusing.sequences // shape[0]))


@final
class FirstHitting(Sampler):
    """Draws one token after another, each at its random noise level.

    With n masks left, the share of masks m falls until the next token appears:

        m <- m u^(1/n),  u uniform on (0, 1)

    at one of the n masks, all equally likely. Times are continuous, so there is no grid error:
    the law is that of the ancestral sampler in infinitely many steps. Each text needs as many
    network calls as it has tokens to draw, at most `length`; texts of a batch share calls.

    Args:
        law: options of every draw; see `platform_core.categorical.truncation`.

    The schedule sets only the level of pure noise, because a network is told noise levels and not
    times; the time of a level is `schedule.inverse(1 - m)`.
    Source: arXiv:2409.02908.
    """

    requires: ClassVar[Mapping[str, type]] = {"process": Absorbing, "parameterization": ScoreBased}

    def __init__(self, **law: Any) -> None:
        self.truncation = truncation(**law)

    def __call__(
        self,
        model: Model,
        shape: tuple[int, int],
        generator: torch.Generator,
        prompt: Prompt | None = None,
    ) -> Sample:
        """Replace all masks, in as many network calls as the text with the most masks has masks."""
        walk = Walk.begin(model, self.truncation, shape=shape, generator=generator, prompt=prompt)
        x_t, process = walk.noise, walk.denoiser.process
        at_one = torch.ones(shape[0], 1, dtype=torch.float64, device=generator.device)
        masked_share = 1 - model.schedule.alpha(at_one)
        for _ in range(int(process.changeable(x_t).sum(-1).max())):
            masked = process.changeable(x_t)
            left = masked.sum(-1, keepdim=True)
            uniform = torch.rand(
                shape[0], 1, generator=generator, dtype=torch.float64, device=generator.device
            )
            masked_share = masked_share * uniform ** (1 / left.clamp_min(1))
            alpha = (1 - masked_share).clamp_max(1 - END_MARGIN)
            x_t = replace(walk, fixed=~one_of(masked, generator)).clean(x_t, alpha)
        return walk.end(x_t)


def one_of(selected: Selected, generator: torch.Generator) -> Selected:
    """One selected position of each row, all equally likely; none in a row without any."""
    some = Places.of(selected.any(-1))
    chosen = torch.zeros_like(selected)
    chosen[some.index, categorical.draw(some.rows(selected).double(), generator)] = True
    return chosen


@final
class SemiAutoregressive(Sampler):
    """Draws long texts from left to right, a window at a time.

    The shape `(batch, length)` is that of the whole text. The first `window` tokens are drawn by
    the ancestral sampler. Then the window moves `window - overlap` tokens to the right (less at the
    end of the text, so that every window is full); the tokens that it already contains are a given
    prefix, and the others are drawn. A text no longer than the window is drawn at once.

    Args:
        window: number of tokens that the network reads at once: the length it was trained on.
        overlap: number of earlier tokens with which each further window begins; by default half of
            the window.
        steps: number of reverse steps in each window.
        final: what the last call does with the masks that are left: ancestral, greedy or none.
        law: options of every draw; see `platform_core.categorical.truncation`.

    Tokens of a prompt are given in every window that contains them; windows to the left of these
    tokens are drawn without knowing them.

    Raises:
        ValueError: the overlap is not below the window.

    Source: MDLM, arXiv:2406.07524, semi-autoregressive decoding.
    """

    requires: ClassVar[Mapping[str, type]] = {"process": Diffusion, "parameterization": ScoreBased}

    def __init__(
        self,
        window: int = 128,
        overlap: int | None = None,
        steps: int = 128,
        final: Ending = "ancestral",
        **law: Any,
    ) -> None:
        self.window, self.overlap = window, window // 2 if overlap is None else overlap
        if not 0 <= self.overlap < window:
            raise ValueError(
                f"overlap is {self.overlap} and window {window}; the overlap must be at least 0 "
                "and below the window, for example half of it"
            )
        self.ancestral = Ancestral(steps, final, **law)

    def __call__(
        self,
        model: Model,
        shape: tuple[int, int],
        generator: torch.Generator,
        prompt: Prompt | None = None,
    ) -> Sample:
        """The whole text; NFE is the sum over its windows."""
        tokens = torch.zeros(shape, dtype=torch.long, device=generator.device)
        fixed = torch.zeros_like(tokens, dtype=torch.bool)
        if prompt is not None:
            tokens, fixed = prompt.tokens.clone(), prompt.fixed.clone()
        nfe = 0
        for first, last in self.windows(shape[1]):
            place = slice(first, last)
            given = Prompt(tokens[:, place], fixed[:, place])
            drawn = self.ancestral(model, (shape[0], last - first), generator, given)
            tokens[:, place], fixed[:, place] = drawn.tokens, True
            nfe += drawn.nfe
        return Sample(tokens, nfe)

    def windows(self, length: int) -> list[tuple[int, int]]:
        """First and last position (exclusive) of each window."""
        ends = [min(self.window, length)]
        while ends[-1] < length:
            ends.append(min(ends[-1] + self.window - self.overlap, length))
        return [(max(0, end - self.window), end) for end in ends]


@final
class Remdm(GridSampler):
    """Replaces masks by tokens and some tokens by masks again, so that mistakes can be corrected.

        x_t a token:  becomes a mask with probability sigma
        x_t a mask:   becomes a token with probability
                      (alpha_s - (1 - sigma) alpha_t) / (1 - alpha_t)

    With sigma = 0 this is the ancestral sampler.

    Args:
        steps: number of reverse steps.
        final: what the last call does with the masks that are left: ancestral, greedy or none.
        crossing: whether the token with which top_p is exceeded is kept (as DUO and transformers
            do) or dropped (as ReMDM's code does).
        strategy: how sigma is chosen. cap: min(eta, sigma_max). rescale: eta sigma_max. confidence:
            eta sigma_max, distributed mostly to the tokens that were least likely when they were
            drawn. loop: as cap, but only during a pause at the signal level alpha_on.
        eta: size of sigma, from 0 to 1; by default .02 for cap and loop, .015 for rescale and 1 for
            confidence.
        t_on: time at which the pause of loop begins.
        t_off: time at which the pause of loop ends.
        alpha_on: signal level during the pause of loop, the share of tokens that are not masks.

    Source: ReMDM, arXiv:2503.00307.
    """

    requires: ClassVar[Mapping[str, type]] = {
        "process": Absorbing,
        "parameterization": PredictsClean,
    }

    def __init__(
        self,
        steps: int = 128,
        final: Ending = "ancestral",
        crossing: Crossing = "dropped",
        strategy: Literal["cap", "rescale", "confidence", "loop"] = "cap",
        eta: float | None = None,
        t_on: float = 0.55,
        t_off: float = 0.05,
        alpha_on: float = 0.9,
        **law: Any,
    ) -> None:
        strategies: Mapping[str, Callable[..., Remasking]] = {
            "cap": Cap,
            "rescale": Rescale,
            "confidence": Confidence,
            "loop": partial(Loop, t_on=t_on, t_off=t_off, alpha_on=alpha_on),
        }
        make = strategies[strategy]
        self.remasking = make() if eta is None else make(eta)
        super().__init__(
            steps,
            final,
            corrections=0,
            redrawn=1,
            corrected="random",
            considered=1,
            crossing=crossing,
            **law,
        )

    def alphas(self, schedule: Schedule, device: torch.device) -> Noise:
        """Signal levels of the strategy at the times of the steps."""
        return self.remasking.alpha(even_times(self.steps, device), schedule)

    def step(self, walk: Walk, x_t: Tokens, alpha_s: Noise, alpha_t: Noise) -> Tokens:
        """Replace masks by tokens and tokens by masks; only the former need a network call."""
        draft = walk.memory if isinstance(walk.memory, Draft) else Draft.begin(x_t)
        t = even_times(self.steps, x_t.device)[walk.number]
        limit = ((1 - alpha_s) / alpha_t).clamp_max(1)
        sigma = self.remasking.sigma(t, limit, draft.confidence)
        process, free = walk.denoiser.process, ~walk.fixed
        masked = process.changeable(x_t)
        level = torch.rand(
            x_t.shape, generator=walk.generator, dtype=torch.float64, device=x_t.device
        )
        appearing = masked & (level < (alpha_s - (1 - sigma) * alpha_t) / (1 - alpha_t))
        going = ~masked & (level < sigma)
        draft = self._draw(walk, draft, appearing & free, alpha_t)
        walk.memory = draft = draft.without(going & free, process.vocab_size)
        return draft.tokens

    def _draw(self, walk: Walk, draft: "Draft", appearing: Selected, alpha: Noise) -> "Draft":
        """The draft with clean tokens at the positions `appearing`."""
        denoiser = walk.denoiser
        process, parameterization = denoiser.process, denoiser.parameterization
        assert isinstance(parameterization, PredictsClean), "see requires"
        clean = CleanOnly(process.vocab_size, self.truncation)

        def draw(logits: Logits, x_t: Tokens, level: Noise) -> Tensor:
            law = clean(parameterization.log_x0(logits, x_t, level, process))
            at_one = torch.ones_like(level)
            drawn = process.draw_open(law, x_t, at_one, level, generator=walk.generator)
            chance = law.gather(-1, drawn[:, None]).squeeze(-1).double().exp()
            # One tensor for ids and probabilities; float64 holds every id exactly.
            return torch.stack((drawn.double(), chance), dim=-1)

        places = denoiser.places(appearing)
        if not len(places):
            return draft
        found = denoiser.read(draft.tokens, alpha, places, draw, (alpha,))
        return draft.having(places, *found.unbind(-1))


class Draft(NamedTuple):
    """State between two steps of `Remdm`: tokens, and their probabilities."""

    tokens: Tokens
    confidence: Noise
    """Probability that each token had when it was drawn; infinite for masks and given tokens."""

    @classmethod
    def begin(cls, tokens: Tokens) -> "Draft":
        """The first draft: masks and the tokens of a prompt, all of infinite confidence."""
        return cls(tokens, torch.full_like(tokens, torch.inf, dtype=torch.float64))

    def having(self, places: Places, drawn: OfPlaces, chance: OfPlaces) -> "Draft":
        """A copy with drawn tokens at `places`, and their probabilities."""
        return Draft(
            places.spread(drawn.long(), self.tokens), places.spread(chance, self.confidence)
        )

    def without(self, places: Selected, mask_id: int) -> "Draft":
        """A copy with masks at `places`."""
        return Draft(
            self.tokens.masked_fill(places, mask_id),
            self.confidence.masked_fill(places, torch.inf),
        )
