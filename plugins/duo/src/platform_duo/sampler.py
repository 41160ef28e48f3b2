"""Psi-samplers: a share of each step is the posterior, the rest denoises and noises again.

    Psi(x_s | x_t) = kappa q(x_s | x_t) + (1 - kappa) (alpha_s q(x_0 | x_t) + n_s)

The second part corrects: what it draws does not depend on x_t any more than clean text does, so
that early mistakes are drawn again. Under the true clean token every kappa takes the law
q(x_t | x_0) to q(x_s | x_0), with any noise n.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, final

import torch

from platform_core.categorical import Crossing
from platform_core.parameterization import PredictsClean
from platform_core.process import Mixing, Thinned
from platform_core.sampler import Ending, GridSampler, Walk
from platform_core.schedule import Schedule
from platform_core.types import Noise, Tokens
from platform_duo.kappa import mixing_of
from platform_duo.profile import Segments, profile_of


@dataclass(frozen=True)
class Preset:
    """What options are where they are not given: the settings of one published script."""

    profile: str
    high_mode: str
    middle_mode: str
    low_mode: str
    high_frac: float = 0.0
    middle_frac: float = 0.0
    top_p: float = 1.0

    def but(self, **given: Any) -> "Preset":
        """The same with other settings in place of its own; None keeps its own."""
        return replace(self, **{name: it for name, it in given.items() if it is not None})

    @classmethod
    def throughout(cls, mode: str, top_p: float = 1.0) -> "Preset":
        """Even steps with one mode."""
        return cls("linear", mode, mode, mode, top_p=top_p)

    @classmethod
    def middle(cls, mode: str, high_frac: float, middle_frac: float) -> "Preset":
        """Even steps, corrected in the middle segment."""
        return cls("linear", "pure-posterior", mode, "pure-posterior", high_frac, middle_frac)

    @classmethod
    def loop(cls, top_p: float = 1.0) -> "Preset":
        """Half of the steps at alpha = 0.9."""
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
    """Walks from noise to text, drawing a share of all tokens anew in each step.

    Args:
        steps: of the walk; the network is called at most once for each, and once more at the end
            unless final is none. The published runs take 256.
        final: what the last call does with the noise that is left: ancestral, greedy or none.
        top_p: at each step, draw only from the most likely tokens with this much probability; 1
            draws from all. By default the preset's, .95 in owt-loop, .9 in owt-cap and
            owt-rescale, else 1.
        preset: the other options of a published script, each of which may be given to replace it.
            none: linear, max-capped-0.01. owt-loop, cifar-loop: half of the steps correct at alpha
            0.9 with constant-remdm-0.01. owt-cap, cifar-cap: max-capped-0.01 and -0.005.
            owt-rescale, cifar-rescale: max-rescale-0.05 and -0.01. cifar-duo, cifar-mdlm:
            constant-0.95 at times .5 to .1, constant-0.99 at 1 to .1.
        profile: times of the steps. linear: even. linear-constant-linear-TIME: even, but all steps
            of the middle segment at that time. linear-constant-linear-ALPHA-inv: at that signal
            level.
        mode: kappa of every step. pure-posterior: 1, the ancestral step. pure-pc: 0. constant-K: K.
            With s = min(1, (1 - alpha_s) / alpha_t), the next give kappa = 1 - sigma / (1 -
            alpha_s), at least 0. max-capped-E: sigma = min(E, s). max-rescale-E: E s.
            constant-remdm-E: E. max-rescale-squared-E: E min(E, s), which is what the published
            code does when asked for max-rescale-E.
        high_mode: the same of the first segment alone.
        middle_mode: of the second segment alone.
        low_mode: of the last segment alone.
        high_frac: share of the steps that the first segment has.
        middle_frac: share that the second has; the last one has the rest.

    Raises:
        ValueError: a name is unknown, or a number out of range.

    Source: Psi-samplers, arXiv:2602.21185. There the last step of each segment has kappa 1 in the
    modes that have a sigma; here none is left out.
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
        crossing: Crossing = "kept",
        preset: PresetName = "none",
        profile: str | None = None,
        mode: str | None = None,
        high_mode: str | None = None,
        middle_mode: str | None = None,
        low_mode: str | None = None,
        high_frac: float | None = None,
        middle_frac: float | None = None,
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
        super().__init__(steps, final, settings.top_p, crossing)
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
        """Those of the profile's times."""
        return schedule.alpha(self.profile.times(self.segments, schedule, device))

    def step(self, walk: Walk, x_t: Tokens, alpha_s: Noise, alpha_t: Noise) -> Tokens:
        """`psi_step` with the kappa of this step's mode."""
        kappa = self.mixings[walk.number].kappa(alpha_s, alpha_t)
        return psi_step(walk, x_t, alpha_s, alpha_t, kappa)


def psi_step(walk: Walk, x_t: Tokens, alpha_s: Noise, alpha_t: Noise, kappa: Noise) -> Tokens:
    """A draw from Psi(x_s | x_t); at kappa = 1 the ancestral one, bit for bit.

    One uniform number per token picks the posterior, clean text or the prior. Where clean text or
    the posterior's redraw is not picked, the network is not asked.
    """
    if (kappa == 1).all():
        return walk.step(x_t, alpha_s, alpha_t)
    denoiser, generator = walk.denoiser, walk.generator
    process = denoiser.process
    assert isinstance(process, Mixing), "see requires"
    part = torch.rand(x_t.shape, generator=generator, dtype=torch.float64, device=x_t.device)
    cleaned = ~walk.fixed & (part >= kappa) & (part < kappa + (1 - kappa) * alpha_s)
    noised = ~walk.fixed & (part >= kappa + (1 - kappa) * alpha_s)
    thinned = denoiser.parameterization.thin(
        x_t, alpha_s, alpha_t, process=process, generator=generator
    )
    # Clean text is the posterior at alpha_s = 1, where all that can change is open.
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
