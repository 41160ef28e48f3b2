"""Samplers that read every position, as on a GPU: the same laws, and the host never waits."""

from contextlib import suppress

import pytest
import torch

import platform_bench as bench
from platform_bench import counts
from platform_core import rows
from platform_core.registry.loading import find_plugins
from platform_core.testing.check import Case, cases, named
from platform_core.testing.law import Inapplicable

PLUGINS = find_plugins({})
SAMPLERS = ("ancestral", "psi", "remdm", "analytic", "euler")
SIZE = bench.Size(states=50, batch=2, length=8, network="tiny", width=16)


def laws(*, heavy: bool) -> list[Case]:
    parts = named([f"sampler:{name}" for name in SAMPLERS], PLUGINS)
    found = [case for case in cases(parts, PLUGINS) if case.law.heavy is heavy]
    return [case for case in found if case.law.role == "sampler" and not case.reason_against]


@pytest.fixture(autouse=True)
def static(monkeypatch):
    monkeypatch.setattr(rows, "STATIC_ON", {"cpu"})


def title(case: Case) -> str:
    return f"{case.subject} {case.law.id}"


@pytest.mark.parametrize("case", laws(heavy=False), ids=title)
def test_every_law_of_a_sampler_holds(case):
    with suppress(Inapplicable):
        case.test()


@pytest.mark.slow
@pytest.mark.parametrize("case", laws(heavy=True), ids=title)
def test_samples_have_the_law_of_the_data(case):
    with suppress(Inapplicable):
        case.test()


@pytest.mark.parametrize("family", ["duo", "mdlm", "sedd", "d3pm", "ar"])
def test_the_host_never_waits_in_a_sampling_step(family):
    assert counts.measure(counts.Case("counts", f"{family}, sample", SIZE))["syncs"] == 0


def test_rows_that_are_not_selected_are_thrown_away():
    torch.manual_seed(0)
    selected, values, new = torch.rand(3, 4) < 0.5, torch.randn(3, 4), torch.randn(12)
    places = rows.Places.of(selected, static=True)
    assert len(places) == 12
    assert torch.equal(places.rows(values), values.flatten())
    expected = torch.where(selected, new.view(3, 4), values)
    assert torch.equal(places.spread(new, values), expected)
