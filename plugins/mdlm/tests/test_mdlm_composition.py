"""MDLM's parts by name: the family's defaults, and what is refused before anything is built."""

import pytest

from platform_core.composition.compose import Composition, compose
from platform_core.errors import IncompatibleError, UsageError
from platform_core.registry.loading import find_plugins
from platform_mdlm.objective import MaskedNelbo
from platform_mdlm.parameterization import Subs
from platform_mdlm.process import Mdlm
from platform_mdlm.sampler import CachedAncestral

PLUGINS = find_plugins({"PLATFORM_PLUGINS": "platform_core.testing.stubs"})


def composed(*argv: str) -> Composition:
    argv = ("--process=mdlm", "--backbone=small", *argv)
    return compose(argv, PLUGINS, prog="platform run", environ={})[0]


def test_the_family_s_defaults_are_its_own_parts():
    built = composed().build(7)
    assert isinstance(built.model.process, Mdlm)
    assert isinstance(built.model.parameterization, Subs)
    assert isinstance(built.objective, MaskedNelbo)
    assert composed().names["sampler"] == "ancestral"


@pytest.mark.parametrize(
    "sampler", ["cached-ancestral", "first-hitting", "semi-autoregressive", "remdm"]
)
@pytest.mark.parametrize("parameterization", ["subs", "mean"])
def test_every_sampler_goes_with_every_prediction_of_clean_tokens(sampler, parameterization):
    objective = {"subs": "masked-nelbo", "mean": "nelbo"}[parameterization]
    composed(
        f"--sampler={sampler}",
        f"--parameterization={parameterization}",
        f"--objective={objective}",
    )


def test_options_of_the_parts_reach_them():
    built = composed(
        "--process.time_conditioned=true",
        "--objective.weighting=low-var",
        "--objective.num_steps=10",
        "--sampler=remdm",
        "--sampler.strategy=loop",
        "--sampler.alpha_on=0.8",
    ).build(7)
    assert built.model.process.time_conditioned
    assert built.objective.schedule.num_steps == 10
    assert built.sampler.remasking.alpha_on == 0.8
    assert isinstance(composed("--sampler=cached-ancestral").build(7).sampler, CachedAncestral)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ["--parameterization=mean"],
            "objective masked-nelbo needs a mask-free parameterization, but parameterization is "
            "mean; choose parameterization subs",
        ),
        (
            ["--process=uniform", "--parameterization=subs"],
            "parameterization subs needs a masking process, but process is uniform; choose "
            "process absorbing",
        ),
        (
            ["--process=uniform", "--sampler=first-hitting"],
            "sampler first-hitting needs an absorbing process, but process is uniform; choose "
            "process absorbing",
        ),
    ],
)
def test_parts_that_do_not_go_together_are_refused(argv: list[str], message: str):
    with pytest.raises(IncompatibleError) as error:
        composed(*argv)
    assert str(error.value).startswith(message)


def test_a_cache_for_a_network_that_is_told_the_level_is_refused_when_composed():
    with pytest.raises(UsageError) as error:
        composed("--sampler=cached-ancestral", "--process.time_conditioned=true")
    assert str(error.value).startswith("sampler cached-ancestral: predictions of a time-condition")
    assert "choose sampler ancestral" in str(error.value)
