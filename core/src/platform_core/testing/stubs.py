"""A plugin of small parts, so that the tests of a package need no other package's parts.

`-p platform_core.testing.stubs`, or the environment variable
`PLATFORM_PLUGINS=platform_core.testing.stubs`, registers the parts: a backbone `small` that reads
every kind of input of a network, the processes `first` (masks) and `second` (uniform noise), each
with a class of its own, and the objective `only-uniform`, which requires uniform noise. The fixture
`stub_parts` of `platform_core.testing.settings` sets the variable for a test module.
"""

from collections.abc import Iterable
from typing import ClassVar

import torch
from torch import Tensor, nn

from platform_core.backbone import Conditional, Sighted
from platform_core.component import Component
from platform_core.hookspecs import hookimpl
from platform_core.objective import Nelbo
from platform_core.parameterization import Mean
from platform_core.process import Absorbing, Uniform
from platform_core.types import Hidden, Inputs, Labels, Noise, TopTokens, tensor
from platform_core.visibility import Visibility

HERE = __name__


class First(Absorbing):
    """A process with masks, in a class of its own."""


class Second(Uniform):
    """A process with uniform noise, in a class of its own."""


class OnlyUniform(Nelbo):
    """A bound that requires uniform noise and the parameterization `mean`."""

    requires: ClassVar = {"process": Uniform, "parameterization": Mean}


class Small(Conditional, Sighted):
    """A network of one layer, which mixes each token with the average of the tokens it sees.

    Args:
        num_states: number of tokens of the vocabulary, plus 1 if the process has a mask.
        causal: whether a position sees only itself and the positions to its left.
        time_conditioned: whether the network is told the noise level.
        num_labels: number of labels of the data; 0 if they have none.
        hidden_size: features of a position.
    """

    def __init__(
        self,
        num_states: int,
        causal: bool,
        time_conditioned: bool,
        num_labels: int = 0,
        hidden_size: int = 8,
    ) -> None:
        super().__init__()
        self.causal = causal
        self.embedding = nn.Embedding(num_states, hidden_size)
        self.labels = nn.Embedding(num_labels + 1, hidden_size) if num_labels else None
        self.level = nn.Linear(1, hidden_size) if time_conditioned else None
        self.mixing = nn.Linear(2 * hidden_size, hidden_size)
        self.head = nn.Linear(hidden_size, num_states)

    @property
    def decoder(self) -> nn.Module:
        return self.head

    def encode(
        self,
        inputs: Inputs,
        sigma: Noise | None,
        labels: Labels | None = None,
        visibility: Visibility | None = None,
    ) -> Hidden:
        assert (labels is None) == (self.labels is None), (
            "labels are given exactly to networks that are told them"
        )
        features = self._embedded(inputs)
        if self.level is not None and sigma is not None:
            features = features + self.level(sigma.to(features.dtype)[..., None])
        if self.labels is not None and labels is not None:
            features = features + self.labels(labels)[:, None]
        seen = self._seen(features, visibility)
        hidden: Tensor = self.mixing(torch.cat((features, seen @ features), dim=-1))
        return hidden.tanh()

    def _embedded(self, inputs: Inputs) -> Tensor:
        table = self.embedding.weight
        if isinstance(inputs, TopTokens):
            return (inputs.weights[..., None].to(table.dtype) * table[inputs.ids]).sum(-2)
        inputs = tensor(inputs)
        return inputs.to(table.dtype) @ table if inputs.is_floating_point() else table[inputs]

    def _seen(self, features: Tensor, visibility: Visibility | None) -> Tensor:
        """For each position, weights of the averaged positions, `[batch, length, length]`."""
        batch, length, _ = features.shape
        seen = features.new_ones(batch, length, length)
        if self.causal:
            seen = seen.tril()
        if visibility is not None:
            seen = seen * visibility.dense((batch, length), features.device)
        return seen / seen.sum(-1, keepdim=True)


@hookimpl
def platform_processes() -> Iterable[Component]:
    """The processes, with their default parts of other roles."""
    masks, uniform = {"backbone": "small"}, {"backbone": "small", "objective": "only-uniform"}
    return [
        Component("first", f"{HERE}:First", "masks", defaults=masks),
        Component("second", f"{HERE}:Second", "uniform noise", defaults=uniform),
    ]


@hookimpl
def platform_backbones() -> Iterable[Component]:
    """The backbone `small`, by import path."""
    return [Component("small", f"{HERE}:Small", "one layer that averages what a position sees")]


@hookimpl
def platform_objectives() -> Iterable[Component]:
    """The objective `only-uniform`, by import path."""
    return [Component("only-uniform", f"{HERE}:OnlyUniform", "a bound for uniform noise")]
