"""Every sampler sharpens the predicted law in the same way, before it draws."""

from typing import Any

import pytest
import torch
from torch import nn

from platform_ar.parameterization import NextToken
from platform_ar.process import Ar
from platform_core.backbone import Backbone
from platform_core.composition.computed import accepted
from platform_core.model import Model
from platform_core.parameterization import Mean, Parameterization
from platform_core.process import Absorbing, Process, Uniform
from platform_core.registry.loading import find_plugins
from platform_core.schedule import LogLinear
from platform_core.testing.toy import CausalNetwork, TinyNetwork, seeded
from platform_mdlm.parameterization import Subs

TOKENS, SHAPE = 7, (6, 9)
UNDER = {
    "masks": (Absorbing(TOKENS), Subs()),
    "uniform": (Uniform(TOKENS), Mean()),
    "ar": (Ar(TOKENS), NextToken()),
}
SAMPLERS = {
    "ancestral": ["masks", "uniform"],
    "d-cbg": ["masks", "uniform"],
    "analytic": ["masks", "uniform"],
    "euler": ["masks", "uniform"],
    "psi": ["masks", "uniform"],
    "cached-ancestral": ["masks"],
    "first-hitting": ["masks"],
    "remdm": ["masks"],
    "semi-autoregressive": ["masks", "uniform"],
    "left-to-right": ["ar"],
    "ordered": ["masks"],
    "maskgit": ["masks"],
}
ALL_AT_ONCE = {"ordered": {"at_once": "9"}, "maskgit": {"at_once": "9"}}
"""Their order is that of the network's own laws, which a temperature does not change."""


class Scaled(Backbone):
    """A network whose logits are another's times a factor."""

    def __init__(self, network: Any, factor: float) -> None:
        super().__init__()
        self.network, self.factor = network, factor
        self.evaluations = network.evaluations

    @property
    def decoder(self) -> nn.Module:
        return self.network.head

    def encode(self, inputs: Any, sigma: Any) -> Any:
        return self.network.encode(inputs, sigma) * self.factor


def built(process: Process, parameterization: Parameterization, factor: float) -> Model:
    kind = CausalNetwork if isinstance(process, Ar) else TinyNetwork
    torch.manual_seed(3)
    network = kind(process.num_states).double()
    with torch.no_grad():
        network.head.weight.mul_(4)
        network.head.bias.zero_()
    return Model(process, LogLinear(), parameterization, Scaled(network, factor))


def sampler(name: str, under: str, **options: Any) -> Any:
    plugins = find_plugins({})
    kind = plugins.load("sampler", name)
    facts = {
        "vocab_size": TOKENS,
        "num_states": UNDER[under][0].num_states,
        "time_conditioned": False,
    }
    given = {fact: facts[fact] for fact in accepted(kind, facts)}
    for option, (role, inside) in plugins.get("sampler", name).component.takes.items():
        found = plugins.load(role, inside)
        given[option] = found(**{fact: facts[fact] for fact in accepted(found, facts)})
    unsteady = ("first-hitting", "left-to-right", *ALL_AT_ONCE)
    own = ALL_AT_ONCE.get(name, {}) if name in unsteady else {"steps": 5}
    return kind(**given, **own, **options)


def test_every_sampler_of_the_platform_is_here() -> None:
    """But for those around another, which draws."""
    plugins = find_plugins({})
    inside = [
        name
        for name in plugins.names("sampler")
        if not plugins.get("sampler", name).component.around
    ]
    assert set(SAMPLERS) == set(inside)


each = pytest.mark.parametrize(
    ("name", "under"), [(name, under) for name, kinds in SAMPLERS.items() for under in kinds]
)


@each
def test_a_temperature_is_that_of_the_logits(name: str, under: str) -> None:
    """At temperature .5 samples are those of the network whose logits are twice as large."""
    tempered = sampler(name, under, temperature=0.5)(built(*UNDER[under], 1.0), SHAPE, seeded(5))
    doubled = sampler(name, under)(built(*UNDER[under], 2.0), SHAPE, seeded(5))
    plain = sampler(name, under)(built(*UNDER[under], 1.0), SHAPE, seeded(5))
    assert torch.equal(tempered.tokens, doubled.tokens)
    assert not torch.equal(tempered.tokens, plain.tokens)


@each
def test_the_most_likely_tokens_are_those_of_a_temperature_near_zero(name: str, under: str) -> None:
    most_likely = sampler(name, under, top_k=1)(built(*UNDER[under], 1.0), SHAPE, seeded(5))
    cold = sampler(name, under, temperature=1e-3)(built(*UNDER[under], 1.0), SHAPE, seeded(5))
    alone = sampler(name, under, min_p=1.0)(built(*UNDER[under], 1.0), SHAPE, seeded(5))
    assert torch.equal(most_likely.tokens, cold.tokens)
    assert torch.equal(most_likely.tokens, alone.tokens)
