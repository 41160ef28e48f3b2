"""Paths of two values have the joint law of a dense argmax, at the price of three numbers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from platform_core.draws import derive_generator
from platform_core.testing.allocations import LargestTensor
from platform_core.testing.golden import Golden
from platform_core.testing.toy import chi_square
from platform_duo import gaussian
from platform_duo.relaxation import largest_normals
from platform_duo.trajectory import Trajectory, draw_trajectory

GOLDEN = Golden(Path(__file__).parent / "golden")
tensors = GOLDEN.tensors

DRAWS = 40_000


def mu(gamma: float) -> Tensor:
    return gaussian.signal_to_noise(torch.tensor(gamma, dtype=torch.float64))


def paths(num_states: int, clean: int = 1, seed: int = 0) -> Trajectory:
    x0 = torch.full((DRAWS,), clean)
    return draw_trajectory(x0, num_states, derive_generator("trajectory", seed))


def binomial(hits: int, chance: float) -> float:
    return float(stats.binomtest(hits, DRAWS, chance).pvalue)


def test_the_argmaxes_are_the_reference_s():
    """Of its own noise, of which a path keeps the two entries that can win."""
    case = tensors("l.trajectory")
    noise, x0 = case["epsilon"].double(), case["x0"]
    others = noise.scatter(-1, x0[..., None], -torch.inf)
    largest, other = others.max(-1)
    path = Trajectory(x0, other, largest - noise.gather(-1, x0[..., None]).squeeze(-1))
    at = [path.at(gaussian.signal_to_noise(case[f"output/gamma_{time}"].double()[:, None]))
          for time in "ts"]  # fmt: skip
    assert at[0].equal(case["output/xt"])
    assert at[1].equal(case["output/xs"])
    assert not at[0].equal(x0)


@pytest.mark.parametrize("num_states", [2, 10, 50257])
@pytest.mark.parametrize("level", [0.95, 0.5, 0.05])
def test_a_path_is_at_every_level_uniform_noise_of_alpha(num_states: int, level: float):
    path = paths(num_states)
    alpha = torch.tensor(level, dtype=torch.float64)
    there = path.at(gaussian.signal_to_noise(gaussian.signal_inverse(alpha, num_states)))
    kept = int((there == path.clean).sum())
    assert binomial(kept, level + (1 - level) / num_states) > 1e-3
    assert ((there == path.clean) | (there == path.other)).all()


def test_the_joint_law_of_two_times_is_that_of_dense_argmaxes():
    """x_t and x_s at K = 10: paths against 10 normals a token, by a chi-square of two samples."""
    states, clean, early, late = 10, 3, mu(-1.0), mu(-2.0)
    path = paths(states, clean)
    noise = torch.randn(DRAWS, states, generator=derive_generator("dense"), dtype=torch.float64)
    own = torch.zeros(states, dtype=torch.float64)
    own[clean] = 1.0
    dense = [(m * own + noise).argmax(-1) for m in (early, late)]
    counts = [
        torch.bincount(x_t * states + x_s, minlength=states**2)
        for x_t, x_s in (dense, [path.at(m) for m in (early, late)])
    ]
    # Neither has a cell that the other cannot reach: (x, x), (o, x) and (o, o).
    assert (counts[0] > 0).equal(counts[1] > 0)
    table = torch.stack(counts)[:, counts[0] > 0].numpy()
    assert table.shape[1] == 1 + 2 * (states - 1)
    assert stats.chi2_contingency(table).pvalue > 1e-3


@pytest.mark.parametrize("num_states", [2, 10, 50257])
def test_what_is_itself_stays_itself_as_noise_falls(num_states: int):
    path = paths(num_states)
    gammas = torch.linspace(4, -6, 41)
    last = torch.zeros(DRAWS, dtype=torch.bool)
    for gamma in gammas.tolist():
        here = path.at(mu(gamma)) == path.clean
        assert (here | ~last).all()
        last = here
    assert last.float().mean() > 0.99


def test_the_other_value_is_any_other_token_equally_often():
    path = paths(7, clean=2)
    expected = torch.ones(7, dtype=torch.float64)
    expected[2] = 0
    assert chi_square(path.other, expected) > 1e-3


@pytest.mark.parametrize("number", [1, 2, 9, 50256])
def test_the_largest_of_n_normals_has_their_law(number: int):
    uniform = torch.rand(DRAWS, 1, generator=derive_generator(1), dtype=torch.float64)
    drawn = largest_normals(uniform, number).flatten().numpy()
    assert np.isfinite(drawn).all()
    law = lambda z: np.exp(number * stats.norm.logcdf(z))  # noqa: E731
    assert stats.kstest(drawn, law).pvalue > 1e-3


def test_no_noise_of_the_vocabulary_is_drawn():
    x0 = torch.zeros(8, 16, dtype=torch.long)
    with LargestTensor() as made:
        draw_trajectory(x0, 50257, derive_generator(0)).at(mu(-3.0))
    assert made.elements == x0.numel()
