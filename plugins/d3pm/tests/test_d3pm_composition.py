"""D3PM's parts by name: the family's defaults, both noises, and what is refused."""

import pytest

from platform_core.composition.compose import Composition, compose
from platform_core.errors import UsageError
from platform_core.parameterization import Mean
from platform_core.registry.loading import find_plugins
from platform_core.sampler import Ancestral
from platform_d3pm.objective import DiscreteNelbo
from platform_d3pm.process import AbsorbingD3pm, UniformD3pm

PLUGINS = find_plugins({"PLATFORM_PLUGINS": "platform_core.testing.stubs"})


def composed(*argv: str) -> Composition:
    argv = ("--process=d3pm", "--backbone=small", *argv)
    return compose(argv, PLUGINS, prog="platform run", environ={})[0]


@pytest.mark.parametrize(
    ("argv", "kind"), [([], AbsorbingD3pm), (["--process.states=uniform"], UniformD3pm)]
)
def test_the_family_s_defaults_go_with_both_noises(argv, kind):
    built = composed(*argv).build(7)
    assert type(built.model.process) is kind
    assert isinstance(built.model.parameterization, Mean)
    assert isinstance(built.objective, DiscreteNelbo)
    assert built.objective.num_steps == 1000
    assert isinstance(built.sampler, Ancestral)


def test_options_of_the_objective_reach_it():
    built = composed("--objective.num_steps=20", "--objective.auxiliary=0.01").build(7)
    assert built.objective.num_steps == 20
    assert built.objective.auxiliary == 0.01


@pytest.mark.parametrize("process", ["absorbing", "uniform", "first", "second"])
@pytest.mark.parametrize("schedule", ["cosine", "polynomial"])
def test_the_bound_of_t_steps_goes_with_every_noise_and_schedule(process, schedule):
    composed(
        f"--process={process}",
        f"--schedule={schedule}",
        "--objective=discrete-nelbo",
        "--sampler=ancestral",
    )


def test_values_that_do_not_fit_are_refused_before_anything_is_built():
    with pytest.raises(UsageError, match="objective discrete-nelbo: num_steps is 0; it must be"):
        composed("--objective.num_steps=0")
