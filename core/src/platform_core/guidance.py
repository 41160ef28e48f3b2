"""Models of text given a label, and classifier-free guidance.

    logits_w(y) = w logits(y) + (1 - w) logits(no label)

`guided` is the model that writes text of one label, more or less strongly: the same with a backbone
that knows the label, so that samplers and parameterizations know nothing of labels. Training and
evaluation tell the network the labels of each `Batch`.
"""

from collections.abc import Sequence
from typing import ClassVar, Protocol, final

import torch
from torch import Tensor, nn

from platform_core.backbone import Backbone, Conditional
from platform_core.errors import UsageError, did_you_mean
from platform_core.model import Model
from platform_core.parameterization import widen
from platform_core.types import Hidden, Inputs, Labels, Logits, Noise


@final
class Told(Backbone):
    """Another backbone, told one label for all texts.

    Args:
        backbone: the other.
        label: `[1]`.
    """

    def __init__(self, backbone: Conditional, label: Labels) -> None:
        super().__init__()
        self.backbone, self.label = backbone, label

    @property
    def decoder(self) -> nn.Module:
        return self.backbone.decoder

    def encode(self, inputs: Inputs, sigma: Noise | None) -> Hidden:
        """The other's features, given the label."""
        tokens = inputs if isinstance(inputs, Tensor) else inputs.ids
        return self.backbone.encode(inputs, sigma, self.label.to(tokens.device))


@final
class Guided(Backbone):
    """Another backbone, asked with a label and without it; each answer counts as an evaluation.

    What it means follows from the parameterization. One that predicts clean tokens:

        x_w = x(y)^w x(none)^(1 - w) / Z

    The posterior is that of the law x_w. Under masks, a step unmasks as many tokens as it does for
    any label, and each of them has the law of D-CFG given that it is unmasked. For uniform noise
    the last step, to clean text, is D-CFG's; an earlier one has q_s of x_w where D-CFG has
    q_s(y)^w q_s(none)^(1 - w), with q_s(.) = alpha_s x(.) + (1 - alpha_s) / V. One that predicts
    scores is guided in its weights (`platform_sedd`: w_g = w(y)^g w(none)^(1 - g)), which under
    masks is s_g = s(y)^g s(none)^(1 - g), so that the total rate of jumps is guided too; for
    uniform noise the two differ.

    Args:
        backbone: the other.
        labels: the label of all sequences, and the one that stands for none: `[1]` each.
        weight: w.

    Source: classifier-free guidance, arXiv:2207.12598; D-CFG, arXiv:2412.10193; rates,
    arXiv:2406.01572.
    """

    evaluations: ClassVar[int] = 2

    def __init__(self, backbone: Conditional, labels: tuple[Labels, Labels], weight: float) -> None:
        super().__init__()
        self.with_label, self.without = (Told(backbone, label) for label in labels)
        self.combination = Combination(backbone.decoder, weight)

    @property
    def decoder(self) -> nn.Module:
        """Decodes both halves of the features and weighs their logits."""
        return self.combination

    def encode(self, inputs: Inputs, sigma: Noise | None) -> Hidden:
        """The features with the label and those without, `[batch, length, 2 width]`."""
        sides = (self.with_label, self.without)
        return torch.cat([side.encode(inputs, sigma) for side in sides], dim=-1)


@final
class Combination(nn.Module):
    """Logits of two networks' features, side by side, as one."""

    def __init__(self, decoder: nn.Module, weight: float) -> None:
        super().__init__()
        self.decoder, self.weight = decoder, weight

    def forward(self, hidden: Hidden) -> Logits:
        """The logits of guidance, in float32 or wider."""
        with_label, without = (widen(self.decoder(half)) for half in hidden.chunk(2, dim=-1))
        return self.weight * with_label + (1 - self.weight) * without


class Wish(Protocol):
    """Which label a text is to have, and with what weight; `SampleOptions` is one."""

    @property
    def label(self) -> str | None:
        """The name of the label; None for text of no label."""

    @property
    def guidance(self) -> float:
        """The weight of the label, at least 0."""


def guided(model: Model, names: Sequence[str], options: Wish) -> Model:
    """The model that `label` and `guidance` of the options ask for, with the same weights.

    Args:
        model: of text given one of the labels, or of any text.
        names: of the labels; none where the model has none.
        options: without a label, text of no label is written.

    Raises:
        UsageError: there is no label of that name.
    """
    if not names:
        return model
    backbone = conditional(model)
    label, none = torch.tensor([[label_number(names, options.label)], [len(names)]])
    weight = options.guidance
    told: Backbone
    if weight in (0, 1):
        told = Told(backbone, label if weight else none)
    else:
        told = Guided(backbone, (label, none), weight)
    return model.with_backbone(told)


def label_number(names: Sequence[str], name: str | None) -> int:
    """The place of a name; of None, the number that stands for no label.

    Raises:
        UsageError: there is no label of that name.
    """
    if name is None:
        return len(names)
    if name not in names:
        near = did_you_mean(name, names)
        raise UsageError(f"unknown label {name!r}{near or '; known: ' + ', '.join(names)}")
    return names.index(name)


def without_some(labels: Labels, none: int, share: float, generator: torch.Generator) -> Labels:
    """Labels of which a random share is replaced by the number that stands for none."""
    chance = torch.rand(labels.shape, generator=generator, dtype=torch.float64)
    return labels.masked_fill(chance < share, none)


def conditional(model: Model) -> Conditional:
    """The network, which composition has checked to read labels where there are any."""
    assert isinstance(model.backbone, Conditional), "labels need a conditional backbone"
    return model.backbone
