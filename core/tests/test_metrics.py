"""Laws of metrics: every one can be broken, and the platform's own metrics keep them."""

from dataclasses import replace

import pytest

from platform_core.record.bounds import BOUNDS
from platform_core.record.cards import Family
from platform_core.registry.loading import find_plugins
from platform_core.testing import LawBroken
from platform_core.testing.metrics import METRIC_LAWS, metric_cases

PLUGINS = find_plugins({})
OWN = metric_cases(PLUGINS)
BITS = BOUNDS[0]
STRANGE = replace(BITS, family=Family("strange", lambda _: "Strange"))
WRONG = {
    "can-be-asked-for": (replace(BITS, title="two\nlines"), "two"),
    "is-absent-from-an-empty-record": (replace(BITS, error=lambda _: 0.0), "its error is 0.0"),
    "depends-on-facts": (replace(BITS, keys=lambda _: ()), "it depends on no fact"),
    "family-has-a-table": (replace(BITS, beside=(STRANGE,)), "are of another family"),
}
"""Law -> a metric that breaks it, and what is said of it."""


@pytest.mark.parametrize("case", OWN, ids=str)
def test_our_metrics_keep_the_laws(case):
    case.test()


@pytest.mark.parametrize("law", METRIC_LAWS)
def test_a_wrong_metric_breaks_the_law_of_its_fault(law):
    metric, said = WRONG[law]
    with pytest.raises(LawBroken, match=said):
        METRIC_LAWS[law](metric)
