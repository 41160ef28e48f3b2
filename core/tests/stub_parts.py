"""A plugin of small parts, loaded as a file: tests of composition need no plugin of ours."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from platform_core.backbone import Backbone
from platform_core.component import Component
from platform_core.hookspecs import hookimpl
from platform_core.model import Model
from platform_core.process import Absorbing, AbsorbingOrUniform, Uniform
from platform_core.sampler import Ancestral, Prompt, Sample, Sampler
from platform_core.schedule import LogLinear
from platform_core.testing.stubs import First, OnlyUniform, Second  # noqa: F401
from platform_core.types import Hidden, Inputs, Noise

HERE = __name__


class Either(AbsorbingOrUniform):
    """A family with both noises."""


class AbsorbingEither(Either, Absorbing):
    """With masks."""


class UniformEither(Either, Uniform):
    """With uniform noise."""


@dataclass(frozen=True)
class Rotation:
    """How positions turn.

    Args:
        base: slowest of the angles, 50% of it.
    """

    base: float = 1e4


class Narrow(Backbone):
    """One layer; 90% of it is a stub.

    Args:
        hidden_size: features of a position.
        num_heads: must divide hidden_size.
        rotation: of positions.
        scales: one for each part.
        label: any text.
        slope: an integer default of a float option.
    """

    def __init__(
        self,
        num_states: int,
        causal: bool,
        hidden_size: int = 8,
        num_heads: int = 2,
        rotation: Rotation = Rotation(),
        scales: tuple[float, float] = (1, 2),
        label: str | None = None,
        slope: float = 0,
    ) -> None:
        super().__init__()
        if hidden_size % num_heads:
            raise ValueError(
                f"hidden_size {hidden_size} is not a multiple of num_heads {num_heads}"
            )
        self.causal, self.rotation, self.scales = causal, rotation, scales
        self.label, self.slope = label, slope
        self.embedding = nn.Embedding(num_states, hidden_size)
        self.head = nn.Linear(hidden_size, num_states)

    @property
    def decoder(self) -> nn.Module:
        """The head."""
        return self.head

    def encode(self, inputs: Inputs, sigma: Noise | None) -> Hidden:
        """No mixing at all."""
        assert isinstance(inputs, torch.Tensor)
        hidden: Hidden = self.embedding(inputs)
        return hidden


class Wide(Narrow):
    """Passes what it does not know to its parent.

    Args:
        depth: layers.
    """

    def __init__(self, depth: int, **kwargs: object) -> None:
        super().__init__(**kwargs)  # type: ignore[arg-type]
        self.depth = depth


class Uneven(LogLinear):
    """A schedule that depends on the vocabulary, as the Gaussian one does."""

    def __init__(self, num_states: int, eps: float = 1e-3) -> None:
        super().__init__(eps)
        self.num_states = num_states


class Quick(Ancestral):
    """A sampler with a default of its own.

    Args:
        steps: a few.
        top_p: as its parent.
    """

    def __init__(self, steps: int = 3, top_p: float = 1.0) -> None:
        super().__init__(steps=steps, top_p=top_p)


class Doubled(Sampler):
    """A sampler around another one, whose text it writes twice.

    Args:
        inner: what writes the text.
        times: how often, at least twice.
    """

    def __init__(self, inner: Sampler, times: int = 2) -> None:
        if times < 2:
            raise ValueError(f"times is {times}; it must be at least 2")
        self.inner, self.times = inner, times

    def __call__(
        self,
        model: Model,
        shape: tuple[int, int],
        generator: torch.Generator,
        prompt: Prompt | None = None,
    ) -> Sample:
        """The last of the texts."""
        for _ in range(self.times):
            drawn = self.inner(model, shape, generator, prompt)
        return drawn


class Unfinished(Backbone):
    """Lacks its methods."""


class Unclear(Narrow):
    """Requires a word where a class belongs."""

    requires: ClassVar[Mapping[str, Any]] = {"process": "absorbing"}


class Named(LogLinear):
    """Has a parameter that the platform keeps for itself."""

    def __init__(self, name: str = "x") -> None:
        super().__init__()


@hookimpl
def platform_processes() -> Iterable[Component]:
    """Two families."""
    return [
        Component(
            "first",
            f"{HERE}:First",
            defaults={"backbone": "narrow", "sampler": "quick", "sampler.steps": 7},
        ),
        Component(
            "second",
            f"{HERE}:Second",
            defaults={"backbone": "narrow", "sampler": "quick", "objective": "only-uniform"},
        ),
        Component("careless", f"{HERE}:First", defaults={"backbone": "narrow", "sampler.stpes": 7}),
        Component(
            "either",
            f"{HERE}:Either",
            defaults={"backbone": "narrow"},
            forms={
                "states absorbing": f"{HERE}:AbsorbingEither",
                "states uniform": f"{HERE}:UniformEither",
            },
        ),
    ]


@hookimpl
def platform_backbones() -> Iterable[Component]:
    """Networks."""
    return [
        Component("narrow", f"{HERE}:Narrow", "one layer"),
        Component("wide", f"{HERE}:Wide"),
        Component("unfinished", f"{HERE}:Unfinished"),
        Component("unclear", f"{HERE}:Unclear"),
        Component("absent", f"{HERE}:Absent"),
        Component("schedule-like", f"{HERE}:Uneven"),
        Component("nowhere", "platform_nowhere.backbone:Nowhere"),
    ]


@hookimpl
def platform_schedules() -> Iterable[Component]:
    """Schedules."""
    return [Component("uneven", f"{HERE}:Uneven"), Component("named", f"{HERE}:Named")]


@hookimpl
def platform_objectives() -> Iterable[Component]:
    """A bound."""
    return [Component("only-uniform", f"{HERE}:OnlyUniform")]


@hookimpl
def platform_samplers() -> Iterable[Component]:
    """A sampler."""
    return [
        Component("doubled", f"{HERE}:Doubled", "twice", around="quick"),
        Component("quick", f"{HERE}:Quick"),
    ]


@hookimpl
def platform_parameterizations() -> Iterable[Component]:
    """Core's under another name."""
    return [Component("same-mean", "platform_core.parameterization:Mean")]
