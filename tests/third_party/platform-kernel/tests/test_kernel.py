"""The walk, the noise that it makes, and the laws of processes."""

import math

import pytest
import torch
from platform_kernel.process import LARGEST, Kernel, Walk
from platform_kernel.similarity import nearness, neighbourhood, spelling

from platform_core.objective import Nelbo
from platform_core.process import Uniform, log_one_hot
from platform_core.testing import ContractTests
from platform_core.testing.toy import (
    chain_law,
    double,
    exact_model,
    index_of,
    integrated_bound,
    marginals,
    two_token_law,
)

V = 12


class TestContract(ContractTests):
    plugin = "kernel"


def walk(neighbours: int = 2, share: float = 0.1) -> Walk:
    return Walk.along(neighbourhood(nearness(V), neighbours), share)


@pytest.mark.parametrize("kept", [0.999, 0.5, 0.01])
def test_a_row_is_that_of_the_exponential_of_the_generator(kept):
    found = walk()
    expected = torch.linalg.matrix_exp(-math.log(kept) * found.rates)
    rows = found.rows(torch.arange(V), double(kept).expand(V))
    torch.testing.assert_close(rows, expected, rtol=0, atol=1e-12)
    law = torch.rand(3, V, generator=torch.Generator().manual_seed(0)).double()
    after = found.after(law, double(kept).expand(3))
    torch.testing.assert_close(after, law @ expected, rtol=0, atol=1e-12)


def test_alpha_is_what_is_left_of_the_slowest_change():
    decays = walk().decays
    assert decays[0] == 0
    assert decays[1].item() == pytest.approx(1)
    assert decays[-1] > 2


@pytest.mark.parametrize("options", [{"neighbours": V - 1}, {"share": 1.0}, {"neighbours": 99}])
def test_where_all_tokens_are_neighbours_the_noise_is_uniform(options):
    levels = double(0.9, 0.3, 0.0)
    torch.testing.assert_close(
        marginals(Kernel(V, **options), levels), marginals(Uniform(V), levels), rtol=0, atol=1e-12
    )


def test_near_tokens_come_first_and_far_ones_later():
    high, low = marginals(Kernel(V, neighbours=2, share=0.01), double(0.98, 0.1))[:, 0]
    assert high[1] > 100 * high[6]
    assert low[1] < 2 * low[6]


def test_the_bound_of_the_exact_denoiser_is_the_likelihood():
    law = two_token_law()
    built = exact_model(law, lambda size: Kernel(size, neighbours=1, share=0.3))
    assert built.process.walk(torch.device("cpu")).decays.numel() == 3
    bound = integrated_bound(Nelbo(built), law.sequences())
    torch.testing.assert_close(bound, -law.log_prob(law.sequences()), rtol=0, atol=1e-6)


def test_small_steps_return_the_law_of_the_text():
    law = two_token_law()
    process = Kernel(3, neighbours=1, share=0.3)
    clean = index_of(law.sequences(), 3)
    errors = [
        (chain_law(law, process, torch.linspace(0, 1, n + 1).double())[clean] - law.probs.flatten())
        .abs()
        .sum()
        .item()
        for n in (4, 16, 64)
    ]
    assert errors[1] < 0.4 * errors[0]
    assert errors[2] < 0.4 * errors[1]


def test_many_rows_are_drawn_in_chunks(monkeypatch):
    monkeypatch.setattr("platform_kernel.process.ENTRIES", 50 * V)
    process, x0 = Kernel(V), torch.full((400, 5), 3)
    alpha = torch.linspace(0.2, 1, 400).double()[:, None]
    x_t = process.corrupt(x0, alpha, torch.Generator().manual_seed(0))
    assert x_t.shape == x0.shape
    assert (x_t[-1] == 3).all()
    assert 0.2 < (x_t == 3).double().mean() < 0.9


def test_the_score_is_that_of_a_law_in_its_own_precision():
    scores = Kernel(V).log_score(log_one_hot(torch.tensor([4]), V), torch.tensor([4]), double(0.9))
    assert scores.dtype == torch.float32
    assert scores[0, 4] == 0


def test_tokens_are_alike_that_are_spelt_alike():
    table = spelling(["a", "e", "x", "X", "7", " the", " then"])
    torch.testing.assert_close(table.diagonal(), torch.ones(7).double())
    assert table[0, 1] > table[0, 2] > table[0, 4]
    assert table[2, 3] > table[2, 1]
    assert table[5, 6] > table[5, 4]


@pytest.mark.parametrize(
    ("options", "said"),
    [({"neighbours": 0}, "neighbours is 0"), ({"share": 0.0}, "share is 0")],
)
def test_options_out_of_range_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        Kernel(V, **options)


def test_a_vocabulary_without_an_end_is_refused():
    with pytest.raises(ValueError, match="at most 4096"):
        Kernel(LARGEST + 1)
