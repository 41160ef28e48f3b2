"""Psi-samplers: each step mixes the posterior with a step that denoises and adds noise again.

    Psi(x_s | x_t) = kappa q(x_s | x_t) + (1 - kappa) (alpha_s q(x_0 | x_t) + n_s)

where n_s is the law of the noise times 1 - alpha_s. The second part corrects early mistakes: its
tokens depend on x_t only through the prediction of the clean text, so that mistakes are drawn
again. Given the true clean token, a step with any kappa and any noise takes the law q(x_t | x_0) to
q(x_s | x_0).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar, Literal, final

import torch

from platform_core.parameterization import PredictsClean
from platform_core.process import Mixing, Thinned
from platform_core.sampler import Ending, GridSampler, Walk
from platform_core.schedule import Schedule
from platform_core.types import Noise, Tokens
from platform_duo.kappa import mixing_of
from platform_duo.profile import Segments, profile_of


@dataclass(frozen=True)
class Preset:
    """Option values of one published script, which apply to options that are not given."""

    profile: str
    high_mode: str
    middle_mode: str
    low_mode: str
    high_frac: float = 0.0
    middle_frac: float = 0.0
    top_p: float = 1.0

    def but(self, **given: Any) -> "Preset":
        """A copy with the given settings; None keeps the setting of this preset."""
        return replace(self, **{name: it for name, it in given.items() if it is not None})

    @classmethod
    def throughout(cls, mode: str, top_p: float = 1.0) -> "Preset":
        """A preset with even steps and the same mode in all of them."""
        return cls("linear", mode, mode, mode, top_p=top_p)

    @classmethod
    def middle(cls, mode: str, high_frac: float, middle_frac: float) -> "Preset":
        """A preset with even steps, which correct only in the middle segment."""
        return cls("linear", "pure-posterior", mode, "pure-posterior", high_frac, middle_frac)

    @classmethod
    def loop(cls, top_p: float = 1.0) -> "Preset":
        """A preset with half of the steps at alpha = 0.9."""
        modes = ("pure-posterior", "constant-remdm-0.01", "pure-posterior")
        return cls("linear-constant-linear-0.9-inv", *modes, 0.45, 0.5, top_p)


PresetName = Literal[
    "none",
    "owt-loop",
    "owt-cap",
    "owt-rescale",
    "cifar-duo",
    "cifar-mdlm",
    "cifar-loop",
    "cifar-cap",
    "cifar-rescale",
]

PRESETS: Mapping[PresetName, Preset] = {
    "none": Preset.throughout("max-capped-0.01"),
    "owt-loop": Preset.loop(top_p=0.95),
    "owt-cap": Preset.throughout("max-capped-0.01", top_p=0.9),
    "owt-rescale": Preset.throughout("max-rescale-0.05", top_p=0.9),
    "cifar-duo": Preset.middle("constant-0.95", high_frac=0.5, middle_frac=0.4),
    "cifar-mdlm": Preset.middle("constant-0.99", high_frac=0.0, middle_frac=0.9),
    "cifar-loop": Preset.loop(),
    "cifar-cap": Preset.throughout("max-capped-0.005"),
    "cifar-rescale": Preset.throughout("max-rescale-0.01"),
}


@final
class Psi(GridSampler):
    """Samples from noise to text and redraws a share of all tokens in each step.

    Args:
        steps: number of steps; the network is called at most once for each, and once more at the
            end unless final is none. The published runs take 256.
        final: what the last call does with the noise that is left: ancestral, greedy or none.
        top_p: at each step, draw only from the most likely tokens with this much probability; 1
            draws from all. By default that of the preset: .95 for owt-loop, .9 for owt-cap and
            owt-rescale, else 1.
        preset: published script that sets the options not given here. none: linear,
            max-capped-0.01. owt-loop, cifar-loop: half of the steps correct at alpha 0.9 with
            constant-remdm-0.01. owt-cap, cifar-cap: max-capped-0.01 and -0.005.
            owt-rescale, cifar-rescale: max-rescale-0.05 and -0.01. cifar-duo, cifar-mdlm:
            constant-0.95 at times .5 to .1, constant-0.99 at 1 to .1.
        profile: times of the steps. linear: even. linear-constant-linear-TIME: even, but all steps
            of the middle segment at that time. linear-constant-linear-ALPHA-inv: even, but all
            steps of the middle segment at that signal level.
        mode: kappa of every step. pure-posterior: 1, the ancestral step. pure-pc: 0. constant-K: K.
            With s = min(1, (1 - alpha_s) / alpha_t), the other modes give kappa = 1 - sigma / (1 -
            alpha_s), at least 0. max-capped-E: sigma = min(E, s). max-rescale-E: sigma = E s.
            constant-remdm-E: sigma = E. max-rescale-squared-E: sigma = E min(E, s), which the
            published code computes for max-rescale-E.
        high_mode: mode of the steps in the first segment (high noise).
        middle_mode: mode of the steps in the second segment.
        low_mode: mode of the steps in the last segment (low noise).
        high_frac: share of the steps in the first segment.
        middle_frac: share of the steps in the second segment; the last segment has the rest.

    Raises:
        ValueError: a name is unknown, or a number out of range.

    Source: Psi-samplers, arXiv:2602.21185. In its code the last step of each segment has kappa 1 in
    the modes that have a sigma; here that step has the kappa of its mode.
    """

    requires: ClassVar[Mapping[str, type]] = {
        "process": Mixing,
        "parameterization": PredictsClean,
    }

    def __init__(
        self,
        steps: int = 128,
        final: Ending = "ancestral",
        top_p: float | None = None,
        preset: PresetName = "none",
        profile: str | None = None,
        mode: str | None = None,
        high_mode: str | None = None,
        middle_mode: str | None = None,
        low_mode: str | None = None,
        high_frac: float | None = None,
        middle_frac: float | None = None,
        **law: Any,
    ) -> None:
        settings = PRESETS[preset].but(
            top_p=top_p,
            profile=profile,
            high_mode=_first(high_mode, mode),
            middle_mode=_first(middle_mode, mode),
            low_mode=_first(low_mode, mode),
            high_frac=high_frac,
            middle_frac=middle_frac,
        )
        super().__init__(steps, final, top_p=settings.top_p, **law)
        self.segments = Segments.share(steps, settings.high_frac, settings.middle_frac)
        self.profile = profile_of(settings.profile)
        if self.profile.pauses and not self.segments.high:
            raise ValueError(
                f"profile {settings.profile} pauses, but none of the {steps} steps are before the "
                "pause, so that the first would go there from pure noise; set high_frac and "
                "middle_frac, for example .45 and .5, or take more steps"
            )
        modes = (settings.high_mode, settings.middle_mode, settings.low_mode)
        self.mixings = [
            mixing
            for mixing, steps in zip(map(mixing_of, modes), self.segments, strict=True)
            for _ in range(steps)
        ]

    def alphas(self, schedule: Schedule, device: torch.device) -> Noise:
        """Signal levels at the times of the profile."""
        return schedule.alpha(self.profile.times(self.segments, schedule, device))

    def step(self, walk: Walk, x_t: Tokens, alpha_s: Noise, alpha_t: Noise) -> Tokens:
        """`psi_step` with the kappa of this step's mode."""
        if walk.number == 0:
            walk.memory = self._only_posterior(walk.denoiser.schedule, x_t.device)
        assert isinstance(walk.memory, list), "the first step has the number 0"
        if walk.memory[walk.number]:
            return walk.step(x_t, alpha_s, alpha_t)
        kappa = self.mixings[walk.number].kappa(alpha_s, alpha_t)
        return mixed_step(walk, x_t, alpha_s, alpha_t, kappa)

    def _only_posterior(self, schedule: Schedule, device: torch.device) -> list[bool]:
        """Whether kappa is 1, for each step; the host waits once for all steps."""
        levels = pairwise(self.alphas(schedule, device))
        kappas = [m.kappa(s, t) for m, (t, s) in zip(self.mixings, levels, strict=True)]
        found: list[bool] = (torch.stack(kappas) == 1).flatten(1).all(1).tolist()
        return found


def psi_step(walk: Walk, x_t: Tokens, alpha_s: Noise, alpha_t: Noise, kappa: Noise) -> Tokens:
    """Draw from Psi(x_s | x_t); at kappa = 1 the draw is that of the ancestral step, to the bit."""
    if (kappa == 1).all():
        return walk.step(x_t, alpha_s, alpha_t)
    return mixed_step(walk, x_t, alpha_s, alpha_t, kappa)


def mixed_step(walk: Walk, x_t: Tokens, alpha_s: Noise, alpha_t: Noise, kappa: Noise) -> Tokens:
    """Draw from Psi(x_s | x_t) for any kappa.

    One uniform number per token selects the posterior, clean text or the prior. The network is
    asked only about tokens that become clean text or that the posterior redraws.
    """
    denoiser, generator = walk.denoiser, walk.generator
    process = denoiser.process
    assert isinstance(process, Mixing), "see requires"
    part = torch.rand(x_t.shape, generator=generator, dtype=torch.float64, device=x_t.device)
    cleaned = ~walk.fixed & (part >= kappa) & (part < kappa + (1 - kappa) * alpha_s)
    noised = ~walk.fixed & (part >= kappa + (1 - kappa) * alpha_s)
    thinned = denoiser.parameterization.thin(
        x_t, alpha_s, alpha_t, process=process, generator=generator
    )
    # Clean text is drawn as the posterior at alpha_s = 1, where every changeable token is open.
    opened = torch.where(cleaned, process.changeable(x_t), thinned.open & ~noised)
    level = torch.where(cleaned, 1.0, thinned.alpha_s)
    x_s = denoiser.draw_open(
        x_t,
        Thinned(opened, level),
        alpha_t,
        truncation=walk.truncation,
        generator=generator,
        fixed=walk.fixed,
    )
    return torch.where(noised, process.sample_noise(tuple(x_t.shape), alpha_s, generator), x_s)


def _first(one: str | None, other: str | None) -> str | None:
    return other if one is None else one
