"""SEDD's parts by name: the family's defaults, both noises, and what is refused."""

import pytest

from platform_core.composition.compatibility import goes_with, matrix
from platform_core.composition.compose import Composition, compose
from platform_core.errors import IncompatibleError, UsageError
from platform_core.objective import Nelbo
from platform_core.process import Absorbing, Uniform
from platform_core.registry.loading import find_plugins
from platform_core.schedule import LogLinear
from platform_sedd.objective import ScoreEntropy
from platform_sedd.parameterization import Score
from platform_sedd.process import AbsorbingSedd, UniformSedd
from platform_sedd.sampler import Analytic, Euler
from platform_sedd.schedule import Geometric

PLUGINS = find_plugins({"PLATFORM_PLUGINS": "platform_core.testing.stubs"})


def composed(*argv: str) -> Composition:
    argv = ("--process=sedd", "--backbone=small", *argv)
    return compose(argv, PLUGINS, prog="platform run", environ={})[0]


def refused(*argv: str) -> str:
    with pytest.raises(IncompatibleError) as error:
        composed(*argv)
    return str(error.value)


@pytest.mark.parametrize(
    ("argv", "kind", "states"),
    [([], AbsorbingSedd, 8), (["--process.states=uniform"], UniformSedd, 7)],
)
def test_the_family_s_defaults_go_with_both_noises(argv, kind, states):
    built = composed(*argv).build(7)
    assert type(built.model.process) is kind
    assert built.model.process.num_states == states
    assert isinstance(built.model.schedule, LogLinear)
    assert isinstance(built.model.parameterization, Score)
    assert isinstance(built.objective, Nelbo)
    assert isinstance(built.sampler, Analytic)


def test_options_of_the_parts_reach_them():
    built = composed(
        "--schedule=geometric",
        "--schedule.sigma_max=10",
        "--objective=score-entropy",
        "--sampler=euler",
        "--sampler.steps=5",
    ).build(7)
    assert isinstance(built.model.schedule, Geometric)
    assert built.model.schedule.sigma_max == 10
    assert isinstance(built.objective, ScoreEntropy)
    assert isinstance(built.sampler, Euler)
    assert built.sampler.steps == 5


def test_a_part_of_uniform_noise_goes_with_the_family_when_its_noise_is_uniform():
    argv = ("--parameterization=mean", "--objective=only-uniform")
    assert composed("--process.states=uniform", *argv).names["objective"] == "only-uniform"
    assert refused(*argv).startswith(
        "objective only-uniform needs a uniform process, but process is sedd with states "
        "absorbing; choose --process.states uniform, or process "
    )


def test_a_part_of_masks_is_refused_when_the_noise_is_uniform():
    message = refused("--process.states=uniform", "--objective=score-entropy")
    assert message.startswith(
        "objective score-entropy needs an absorbing process, but process is sedd with states "
        "uniform; choose --process.states absorbing, or process absorbing"
    )
    assert message.endswith(", or another objective")


def test_the_closed_form_needs_a_score():
    message = refused("--parameterization=mean", "--objective=score-entropy")
    assert message.startswith(
        "objective score-entropy needs a score parameterization, but parameterization is mean; "
        "choose parameterization score, or another objective"
    )


@pytest.mark.parametrize("process", ["absorbing", "uniform", "first", "second"])
@pytest.mark.parametrize("sampler", ["analytic", "euler", "ancestral"])
@pytest.mark.parametrize("parameterization", ["mean", "score"])
def test_scores_and_their_samplers_go_with_every_noise(process, sampler, parameterization):
    composed(
        f"--process={process}",
        f"--parameterization={parameterization}",
        f"--sampler={sampler}",
        "--objective=nelbo",
    )


def test_the_matrix_has_what_goes_with_either_noise():
    parts = (("process", "sedd"), ("objective", "score-entropy"))
    assert goes_with(*((role, PLUGINS.forms(role, name)) for role, name in parts))
    row = matrix(PLUGINS, "process")["sedd"]
    assert {"nelbo", "score-entropy", "only-uniform"} <= set(row["objective"])
    row = matrix(PLUGINS, "objective")["score-entropy"]
    assert "sedd" in row["process"]
    assert "uniform" not in row["process"]


def test_another_kind_of_noise_is_refused_with_those_there_are():
    with pytest.raises(UsageError, match="states is masked; expected absorbing or uniform"):
        composed("--process.states=masked")


def test_values_that_do_not_fit_are_refused_before_anything_is_built():
    with pytest.raises(UsageError, match="schedule geometric: sigma_min is 30 and sigma_max 20"):
        composed("--schedule=geometric", "--schedule.sigma_min=30")


@pytest.mark.parametrize("kind", [Absorbing, Uniform])
def test_the_kinds_are_reached_by_the_option_that_names_them(kind):
    by_option = PLUGINS.forms("process", "sedd").items()
    (option,) = (option for option, cls in by_option if issubclass(cls, kind))
    assert option == f"states {kind.__name__.lower()}"
