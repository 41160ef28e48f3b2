"""Recipes stay valid: each is composed and built without memory, and is short enough to read."""

from pathlib import Path

import pytest

from platform_core.compose import compose
from platform_core.plugins import load_plugins

ROOT = Path(__file__).parents[1] / "experiments"
RECIPES = sorted(ROOT.rglob("*.yaml"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_recipe_composes_and_is_listed(recipe):
    composition, _ = compose(["--config", str(recipe)], load_plugins(), prog="test", environ={})
    assert composition.train.steps > 0
    assert len(recipe.read_text().splitlines()) <= 25
    assert str(recipe.relative_to(ROOT)) in (ROOT / "README.md").read_text()


def test_there_are_recipes():
    assert RECIPES
