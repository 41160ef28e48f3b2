"""Models of text with a given label, and classifier-free guidance.

    logits_w(y) = w logits(y) + (1 - w) logits(no label)

`guided` returns a model that writes text of one label, with guidance weight w. Its backbone holds
the label, so that samplers and parameterizations need not handle labels. Training and evaluation
pass the labels of each `Batch` to the network.
"""

from collections.abc import Sequence
from typing import Protocol, TypeVar, final

import torch
from torch import Tensor, nn

from platform_core.backbone import (
    Backbone,
    Conditional,
    Incremental,
    Reader,
    Sighted,
    reader,
)
from platform_core.errors import UsageError, did_you_mean
from platform_core.model import Model
from platform_core.parameterization import widen
from platform_core.types import Hidden, Inputs, Labels, Logits, Noise, Tokens
from platform_core.visibility import Visibility

Kind = TypeVar("Kind")


class Told(Backbone):
    """A conditional backbone with one fixed label for all texts.

    `told` makes one that can also be told what positions see, or that has a cache, if the backbone
    does. A call counts as many network evaluations as one of the backbone.

    Args:
        backbone: the conditional backbone.
        label: the number of the label, `[1]`.
    """

    def __init__(self, backbone: Conditional, label: Labels) -> None:
        super().__init__()
        self.backbone, self.label = backbone, label
        self.evaluations = backbone.evaluations

    @property
    def decoder(self) -> nn.Module:
        return self.backbone.decoder

    def encode(self, inputs: Inputs, sigma: Noise | None) -> Hidden:
        """Features of the conditional backbone, given the label."""
        return self.backbone.encode(inputs, sigma, self._on_device(inputs))

    def _on_device(self, inputs: Inputs) -> Labels:
        return self.label.to((inputs if isinstance(inputs, Tensor) else inputs.ids).device)


class ToldSighted(Told, Sighted):
    """`Told` for a backbone that can be told what positions see."""

    def encode(
        self,
        inputs: Inputs,
        sigma: Noise | None,
        labels: Labels | None = None,
        visibility: Visibility | None = None,
    ) -> Hidden:
        """Features of the backbone, given the label and what positions see."""
        assert labels is None, "the label of all texts is fixed"
        assert isinstance(self.backbone, Sighted), "see told"
        return self.backbone.encode(inputs, sigma, self._on_device(inputs), visibility)


class ToldIncremental(Told, Incremental):
    """`Told` for a backbone with a cache."""

    def reader(self, length: int, labels: Labels | None = None) -> Reader:
        """The backbone's reader of texts with the label."""
        assert labels is None, "the label of all texts is fixed"
        assert isinstance(self.backbone, Incremental), "see told"
        device = next(iter(self.backbone.parameters())).device
        return self.backbone.reader(length, self.label.to(device))


@final
class ToldSightedIncremental(ToldSighted, ToldIncremental):
    """`Told` for a backbone that can be told what positions see and has a cache."""


TOLD = (
    (ToldSightedIncremental, (Sighted, Incremental)),
    (ToldSighted, (Sighted,)),
    (ToldIncremental, (Incremental,)),
)
"""Kinds of `Told` for backbones that can do more, and what these can do."""


def told(backbone: Conditional, label: Labels) -> Told:
    """The backbone with one label for all texts, which can do what the backbone can do.

    Args:
        backbone: the conditional backbone.
        label: the number of the label, `[1]`.
    """
    return _able(TOLD, backbone, Told)(backbone, label)


def _able(
    kinds: Sequence[tuple[type[Kind], tuple[type, ...]]], backbone: Conditional, plain: type[Kind]
) -> type[Kind]:
    """The kind with all that the backbone can do."""
    for kind, abilities in kinds:
        if all(isinstance(backbone, ability) for ability in abilities):
            return kind
    return plain


class Guided(Backbone):
    """A conditional backbone called with a label and without: twice its evaluations per call.

    `GuidedSighted` can also be told what positions see. `guidance.guided` chooses the kind.

    The effect depends on the parameterization. A parameterization that predicts clean tokens gets
    the guided law

        x_w = x(y)^w x(none)^(1 - w) / Z

    and the posterior of x_w. Under absorbing noise, a step unmasks as many tokens as it does for
    any label, and each unmasked token has the law of D-CFG given that it is unmasked. Under uniform
    noise, the last step, to clean text, equals that of D-CFG; an earlier step has q_s of x_w where
    D-CFG has q_s(y)^w q_s(none)^(1 - w), with q_s(.) = alpha_s x(.) + (1 - alpha_s) / V.

    A parameterization that predicts scores is guided with weight g in the network's output, the w
    of `platform_sedd`: w_g = w(y)^g w(none)^(1 - g). Under absorbing noise this equals
    s_g = s(y)^g s(none)^(1 - g), so that the total rate of jumps is guided too; under uniform noise
    the two differ.

    Args:
        backbone: the conditional backbone.
        labels: the number of the label, and the number that stands for no label: `[1]` each.
        weight: guidance weight w.

    Source: classifier-free guidance, arXiv:2207.12598; D-CFG, arXiv:2412.10193; rates,
    arXiv:2406.01572.
    """

    def __init__(self, backbone: Conditional, labels: tuple[Labels, Labels], weight: float) -> None:
        super().__init__()
        self.with_label, self.without = (told(backbone, label) for label in labels)
        self.evaluations = 2 * backbone.evaluations
        self.combination = Combination(backbone.decoder, weight)

    @property
    def decoder(self) -> nn.Module:
        """A decoder of both halves of the features, which combines their logits."""
        return self.combination

    def encode(self, inputs: Inputs, sigma: Noise | None) -> Hidden:
        """Features with the label, then features without: `[batch, length, 2 width]`."""
        sides = (self.with_label, self.without)
        return torch.cat([side.encode(inputs, sigma) for side in sides], dim=-1)


class GuidedSighted(Guided, Sighted):
    """`Guided` for a backbone that can be told what positions see."""

    def encode(
        self,
        inputs: Inputs,
        sigma: Noise | None,
        labels: Labels | None = None,
        visibility: Visibility | None = None,
    ) -> Hidden:
        """Features with the label, then features without, both given what positions see."""
        assert labels is None, "the labels of all texts are fixed"
        found = []
        for side in (self.with_label, self.without):
            assert isinstance(side, ToldSighted), "see guided"
            found.append(side.encode(inputs, sigma, visibility=visibility))
        return torch.cat(found, dim=-1)


class GuidedIncremental(Guided, Incremental):
    """`Guided` for a backbone with a cache."""

    def reader(self, length: int, labels: Labels | None = None) -> Reader:
        """A reader with two caches, one with the label and one without."""
        assert labels is None, "the labels of all texts are fixed"
        return _BothSides([reader(side, length) for side in (self.with_label, self.without)])


@final
class GuidedSightedIncremental(GuidedSighted, GuidedIncremental):
    """`Guided` for a backbone that can be told what positions see and has a cache."""


GUIDED = (
    (GuidedSightedIncremental, (Sighted, Incremental)),
    (GuidedSighted, (Sighted,)),
    (GuidedIncremental, (Incremental,)),
)
"""Kinds of `Guided` for backbones that can do more, and what these can do."""


@final
class _BothSides(Reader):
    def __init__(self, sides: Sequence[Reader]) -> None:
        self._sides = sides

    def read(self, tokens: Tokens, sigma: Noise | None = None) -> Hidden:
        return torch.cat([side.read(tokens, sigma) for side in self._sides], dim=-1)

    def look(self, tokens: Tokens, sigma: Noise | None = None) -> Hidden:
        return torch.cat([side.look(tokens, sigma) for side in self._sides], dim=-1)


@final
class Combination(nn.Module):
    """Decodes features with and without a label and combines the logits by the guidance weight."""

    def __init__(self, decoder: nn.Module, weight: float) -> None:
        super().__init__()
        self.decoder, self.weight = decoder, weight

    def forward(self, hidden: Hidden) -> Logits:
        """Guided logits, in float32 or wider."""
        with_label, without = (widen(self.decoder(half)) for half in hidden.chunk(2, dim=-1))
        return self.weight * with_label + (1 - self.weight) * without


class Wish(Protocol):
    """Options that choose a label and its guidance weight, such as `SampleOptions`."""

    @property
    def label(self) -> str | None:
        """The name of the label; None for text without a label."""

    @property
    def guidance(self) -> float:
        """The guidance weight of the label, at least 0."""


def guided(model: Model, names: Sequence[str], options: Wish) -> Model:
    """The model that the `label` and `guidance` options ask for, sharing the weights of `model`.

    Args:
        model: a model with or without labels.
        names: names of the labels; empty if the model has no labels, which returns it unchanged.
        options: label and guidance weight; with label None, the model writes text without a label.

    Raises:
        UsageError: no label has that name.
    """
    if not names:
        return model
    backbone = conditional(model)
    label, none = torch.tensor([[label_number(names, options.label)], [len(names)]])
    weight = options.guidance
    if weight in (0, 1):
        return model.with_backbone(told(backbone, label if weight else none))
    kind = _able(GUIDED, backbone, Guided)
    return model.with_backbone(kind(backbone, (label, none), weight))


def label_number(names: Sequence[str], name: str | None) -> int:
    """The number of a label, given its name; for None, the number that stands for no label.

    Raises:
        UsageError: no label has that name.
    """
    if name is None:
        return len(names)
    if name not in names:
        near = did_you_mean(name, names)
        raise UsageError(f"unknown label {name!r}{near or '; known: ' + ', '.join(names)}")
    return names.index(name)


def without_some(labels: Labels, none: int, share: float, generator: torch.Generator) -> Labels:
    """Replace a random share of the labels by `none`, the number that stands for no label."""
    chance = torch.rand(labels.shape, generator=generator, dtype=torch.float64)
    return labels.masked_fill(chance < share, none)


def conditional(model: Model) -> Conditional:
    """The model's backbone, which composition has checked to be conditional if there are labels."""
    assert isinstance(model.backbone, Conditional), "labels need a conditional backbone"
    return model.backbone
