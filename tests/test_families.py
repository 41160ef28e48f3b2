"""Parts of one family with those of others."""

import pytest

from platform_core.composition.choice import choose
from platform_core.composition.compose import compose
from platform_core.composition.sources import read
from platform_core.errors import IncompatibleError
from platform_core.registry.loading import find_plugins
from platform_duo.sampler import Psi


def test_a_run_without_names_is_duo_with_dit() -> None:
    choice = choose(read([], {}).layers, find_plugins({}))
    assert choice.names == {
        "process": "duo",
        "schedule": "log-linear",
        "parameterization": "mean",
        "backbone": "dit",
        "objective": "uniform-nelbo",
        "sampler": "ancestral",
    }


def test_the_process_ar_brings_its_family_along() -> None:
    composition, _ = compose(["--process=ar"], find_plugins({}), prog="platform run", environ={})
    assert composition.names == {
        "process": "ar",
        "schedule": "log-linear",
        "parameterization": "next-token",
        "backbone": "dit",
        "objective": "next-token",
        "sampler": "left-to-right",
    }


@pytest.mark.parametrize("process", ["mdlm", "d3pm"])
def test_psi_goes_with_masks_of_other_packages(process: str):
    words = ["--process", process, "--sampler", "psi", "--sampler.preset", "owt-loop"]
    composition, _ = compose(words, find_plugins({}), prog="test", environ={})
    assert isinstance(composition.build(10).sampler, Psi)


@pytest.mark.parametrize("process", ["sedd", "ar"])
def test_psi_is_refused_where_nothing_predicts_the_clean_token(process: str):
    words = ["--process", process, "--sampler", "psi"]
    with pytest.raises(IncompatibleError, match="sampler psi needs .*choose"):
        compose(words, find_plugins({}), prog="test", environ={})
