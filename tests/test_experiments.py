"""Recipes stay valid: each is composed and built without memory, and is short enough to read; so
is every trial of each sweep.
"""

from pathlib import Path

import pytest
import yaml

from platform_core.composition.compose import compose
from platform_core.process import Absorbing, Uniform
from platform_core.registry.loading import load_plugins
from platform_sweep.file import read_sweep
from platform_sweep.plan import make_plan

ROOT = Path(__file__).parents[1] / "experiments"
FILES = sorted(ROOT.rglob("*.yaml"))
SWEEPS = [path for path in FILES if "axes" in yaml.safe_load(path.read_text())]
RECIPES = [path for path in FILES if path not in SWEEPS]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_recipe_composes_and_is_listed(recipe):
    composition, _ = compose(["--config", str(recipe)], load_plugins(), prog="test", environ={})
    assert composition.train.steps > 0
    assert len(recipe.read_text().splitlines()) <= 25
    assert str(recipe.relative_to(ROOT)) in (ROOT / "README.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("sweep", SWEEPS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_trial_of_a_sweep_composes(sweep, monkeypatch):
    monkeypatch.chdir(ROOT.parent)
    assert make_plan(read_sweep(sweep), load_plugins()).trials
    assert str(sweep.relative_to(ROOT)) in (ROOT / "README.md").read_text()


def test_there_are_recipes_and_sweeps():
    assert RECIPES
    assert SWEEPS


@pytest.mark.slow
@pytest.mark.parametrize(
    ("process", "number", "rounds", "least"),
    [
        (Absorbing, 10, 2, 0.9),
        (Absorbing, 50, 4, 0.92),
        (Uniform, 50, 4, 0.86),
        (Uniform, 400, 2, 0.88),
    ],
)
def test_error_bars_cover_the_truth(process, number, rounds, least, monkeypatch):
    """In 200 seeds of the hardest case, which is short texts; 95 % is meant."""
    monkeypatch.syspath_prepend(ROOT)
    from error_bars import one_case

    for covered in one_case(process, number, rounds, 200):
        assert float(covered) >= least
