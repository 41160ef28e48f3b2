"""DUO's operator: printed values, the published code's, dense quadrature and simulation."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from platform_core.testing.golden import Golden
from platform_core.testing.toy import chi_square, double
from platform_duo import gaussian
from platform_duo.operators import Poly9, Quadrature, Series, series_terms

GOLDEN = Golden(Path(__file__).parent / "golden")
tensors, tolerance = GOLDEN.tensors, GOLDEN.tolerance

PRINTED = """
2 -3 9.9847052831e-01 -8.3382963815e-03
2 -2 9.4540877563e-01 -1.2090185863e-01
2 -1 7.5631357586e-01 -2.3572660931e-01
2 0 5.2049987781e-01 -2.1969564473e-01
3 -3 9.9776214366e-01 -1.2086547151e-02
3 -2 9.2595048131e-01 -1.5713188029e-01
3 -1 6.9881454812e-01 -2.6503481629e-01
3 0 4.5055306867e-01 -2.1698931323e-01
10 -4 9.9999913473e-01 -1.2186148971e-05
10 -3.55 9.9985522675e-01 -1.3072451277e-03
10 -3.5 9.9977512196e-01 -1.9315733963e-03
10 -3 9.9345361094e-01 -3.3817727571e-02
10 -2.5 9.5097999284e-01 -1.5009529843e-01
10 -2 8.3914356763e-01 -2.8970371696e-01
10 -1.85 7.9351202514e-01 -3.1713481102e-01
10 -1.75 7.6111807901e-01 -3.3001020430e-01
10 -1 5.1042829240e-01 -3.1007120501e-01
10 0 2.6770640962e-01 -1.7649923629e-01
10 5 1.4681931695e-02 -7.6679630288e-03
30522 -4 9.9906303624e-01 -1.0926347176e-02
30522 -3.55 9.5615108871e-01 -2.6002170837e-01
30522 -3.5 9.4170575198e-01 -3.1859009863e-01
30522 -3 6.3788109243e-01 -8.0639678095e-01
30522 -2.5 2.7372983490e-01 -5.6078370406e-01
30522 -2 8.8807597359e-02 -2.1168620177e-01
30522 -1.85 6.1965800301e-02 -1.4934707704e-01
30522 -1.75 4.8683039168e-02 -1.1747547793e-01
30522 -1 8.4903265185e-03 -1.8568906575e-02
30522 0 1.2441613274e-03 -2.0510746500e-03
30522 5 1.3034168306e-05 -7.5985125516e-06
50257 -4 9.9869414000e-01 -1.4884900962e-02
50257 -3.55 9.4547411697e-01 -3.1052872541e-01
50257 -3.5 9.2834738782e-01 -3.7518488194e-01
50257 -3 5.9625284561e-01 -8.3514685953e-01
50257 -2.5 2.3796525682e-01 -5.2229454542e-01
50257 -2 7.2029929730e-02 -1.8101012933e-01
50257 -1.85 4.9317635916e-02 -1.2491719341e-01
50257 -1.75 3.8281938848e-02 -9.6904372378e-02
50257 -1 6.1863084656e-03 -1.4059994022e-02
50257 0 8.4731624293e-04 -1.4403967877e-03
50257 5 8.1767732251e-06 -4.7888763576e-06
50258 -3 5.9625117640e-01 -8.3514781491e-01
50258 -2 7.2029319650e-02 -1.8100896588e-01
50258 -1 6.1862298069e-03 -1.4059836216e-02
50258 0 8.4730320575e-04 -1.4403763474e-03
"""
"""num_states, gamma, alpha, d alpha / d gamma."""

INVERSE = {
    10: [-2.9142964783, -2.4935130851, -0.9661467858, 2.7314851403, 5.7403893412],
    256: [-3.3567940499, -3.0539985689, -2.0768701063, -0.2023104289, 1.4564509437],
    30522: [-3.7601668374, -3.5274553054, -2.8290749152, -1.7610610459, -1.0742272449],
    50257: [-3.7930867848, -3.5650261007, -2.8837781336, -1.8554253317, -1.2065691847],
    50258: [-3.7930880734, -3.5650275687, -2.8837802598, -1.8554289617, -1.2065742301],
}
"""gamma at alpha .99, .95, .5, .05, .01."""


def grid(start: float, end: float, number: int = 201) -> Tensor:
    return torch.linspace(start, end, number, dtype=torch.float64)


def as_printed(value: float) -> str:
    return f"{value:.10e}"


@pytest.mark.parametrize("line", PRINTED.split("\n")[1:-1])
def test_the_operator_and_its_slope_have_all_the_printed_digits(line: str):
    num_states, gamma, alpha, slope = line.split()
    at = double(float(gamma))
    assert as_printed(gaussian.signal(at, int(num_states)).item()) == f"{float(alpha):.10e}"
    assert as_printed(gaussian.signal_slope(at, int(num_states)).item()) == f"{float(slope):.10e}"


@pytest.mark.parametrize("num_states", list(INVERSE))
def test_the_inverse_has_all_the_printed_digits(num_states: int):
    gamma = gaussian.signal_inverse(double(0.99, 0.95, 0.5, 0.05, 0.01), num_states)
    assert gamma.tolist() == pytest.approx(INVERSE[num_states], abs=5.1e-11)


def panels(mu: Tensor, integrand) -> Tensor:
    """A dense rule to compare with: 96 panels of 64 Gauss-Legendre nodes over mu +- 12."""
    nodes, weights = (torch.from_numpy(x) for x in np.polynomial.legendre.leggauss(64))
    edges = grid(-12, 12, 97)
    half = (edges[1:] - edges[:-1])[:, None] / 2
    u, w = ((edges[:-1, None] + half * (1 + nodes)).flatten(), (half * weights).flatten())
    normal = (-u.square() / 2).exp() / math.sqrt(2 * math.pi)
    return (w * normal * integrand(mu[:, None] + u)).sum(-1)


@pytest.mark.parametrize("num_states", [2, 3, 256, 50257, 10**6])
def test_256_nodes_are_as_good_as_6144(num_states: int):
    mu = gaussian.signal_to_noise(grid(-5.2, 8))
    log_cdf = torch.special.log_ndtr
    hit = panels(mu, lambda z: ((num_states - 1) * log_cdf(z)).exp())
    torch.testing.assert_close(
        gaussian.hit_probability(mu, num_states), hit, rtol=3e-13, atol=2e-15
    )

    def density(z: Tensor) -> Tensor:
        power = (num_states - 2) * log_cdf(z) - z.square() / 2
        return (num_states - 1) * power.exp() / math.sqrt(2 * math.pi)

    worst = 2e-13 if num_states == 10**6 else 1e-15
    torch.testing.assert_close(
        gaussian.hit_slope(mu, num_states), panels(mu, density), rtol=0, atol=worst
    )


def test_with_two_states_it_is_the_error_function():
    gamma = grid(-5, 20)
    expected = torch.special.erf(gaussian.signal_to_noise(gamma) / 2)
    torch.testing.assert_close(gaussian.signal(gamma, 2), expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("num_states", [2, 3, 19, 256, 50257, 10**6])
def test_the_slope_is_the_derivative(num_states: int):
    gamma = grid(-4.7, 6).requires_grad_()
    (derivative,) = torch.autograd.grad(gaussian.signal(gamma, num_states).sum(), gamma)
    slope = gaussian.signal_slope(gamma.detach(), num_states)
    torch.testing.assert_close(slope, derivative, rtol=1e-12, atol=1e-14)
    gamma, h = gamma.detach(), 1e-4
    difference = gaussian.signal(gamma + h, num_states) - gaussian.signal(gamma - h, num_states)
    torch.testing.assert_close(slope, difference / (2 * h), rtol=1e-5, atol=1e-8)
    assert (slope < 0).all()


@pytest.mark.parametrize("num_states", [2, 10, 50257])
def test_the_limits_are_chance_and_certainty(num_states: int):
    assert gaussian.hit_probability(double(0.0), num_states).item() == pytest.approx(
        1 / num_states, rel=1e-13
    )
    ends = gaussian.signal(double(-20.0, 200.0), num_states)
    assert ends.tolist() == pytest.approx([1, 0], abs=1e-15)


@given(st.integers(2, 10**6), st.floats(1e-9, 1 - 1e-9))
def test_the_inverse_undoes_the_operator(num_states: int, alpha: float):
    gamma = gaussian.signal_inverse(double(alpha), num_states)
    assert gaussian.signal(gamma, num_states).item() == pytest.approx(alpha, abs=1e-12)


def test_the_inverse_of_many_levels_is_that_of_each():
    alpha = torch.rand(3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gamma = gaussian.signal_inverse(alpha, 97)
    each = [gaussian.signal_inverse(one, 97) for one in alpha.flatten()]
    torch.testing.assert_close(gamma.flatten(), torch.stack(each), rtol=0, atol=1e-11)
    falling = gaussian.signal_inverse(grid(0.001, 0.999), 97)
    assert (falling.diff() < 0).all()


@given(st.integers(2, 10**6))
def test_the_window_goes_from_95_to_5_percent(num_states: int):
    gammas = double(*gaussian.window(num_states))
    assert gaussian.signal(gammas, num_states).tolist() == pytest.approx([0.95, 0.05], abs=1e-12)


@pytest.mark.parametrize(("num_states", "mu"), [(2, 0.7), (3, 1.5), (7, 2.5)])
def test_the_argmax_of_gaussian_noise_is_the_token_as_often_and_all_others_equally(num_states, mu):
    generator = torch.Generator().manual_seed(0)
    noisy = torch.randn(400_000, num_states, generator=generator)
    noisy[:, 1] += mu
    hit = gaussian.hit_probability(double(mu), num_states).item()
    law = torch.full((num_states,), (1 - hit) / (num_states - 1), dtype=torch.float64)
    law[1] = hit
    assert chi_square(noisy.argmax(-1), law) > 1e-3


def test_no_tensor_is_as_wide_as_the_vocabulary():
    gamma = grid(-5, 5, 512).view(2, 256)
    assert gaussian.signal(gamma, 10**6).shape == gamma.shape
    assert gaussian.NUM_NODES == 256


def test_the_published_integrals_are_these():
    case, within = tensors("i.integral"), tolerance("i.integral")
    for row, num_states in enumerate(case["K"].tolist()):
        mu = gaussian.signal_to_noise(case["gamma"])
        found = {
            "pt": gaussian.hit_probability(mu, num_states),
            "grad_pt": -mu / 2 * gaussian.hit_slope(mu, num_states),
            "alpha": gaussian.signal(case["gamma"], num_states),
            "dalpha_dgamma": gaussian.signal_slope(case["gamma"], num_states),
        }
        for name, value in found.items():
            torch.testing.assert_close(value, case[f"output/{name}"][row], **within)


@pytest.mark.parametrize(("name", "num_states"), [("gpt2", 50257), ("bert-base-uncased", 30522)])
def test_the_shipped_tables_are_these(name: str, num_states: int):
    """The one for BERT is a little off itself."""
    case = tensors(f"i.pkl_{name}")
    mu = gaussian.signal_to_noise(case["gamma"])
    hit = gaussian.hit_probability(mu, num_states)
    torch.testing.assert_close(hit, case["output/pt_exact"], rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(hit, case["output/pt"], rtol=1e-4, atol=4e-6)
    slope = -mu / 2 * gaussian.hit_slope(mu, num_states)
    torch.testing.assert_close(slope, case["output/grad_pt_exact"], rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("num_states", [30522, 50257])
def test_the_series_is_the_published_one(num_states: int):
    case, within = (
        tensors(f"i.series_{num_states}"),
        tolerance(f"i.series_{num_states}"),
    )
    series = Series(num_states, -3.5, -1.75)
    terms, gamma = series_terms(num_states, 150), case["gamma"].double()
    torch.testing.assert_close(terms, case["output/coefficients_m"], rtol=1e-9, atol=0)
    torch.testing.assert_close(series.alpha(gamma), case["output/alpha"], **within)
    torch.testing.assert_close(1.75 * series.slope(gamma), case["output/dalpha"], **within)
    exact = Quadrature(num_states, -3.5, -1.75)
    torch.testing.assert_close(exact.alpha(gamma), case["output/alpha_exact"], rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("terms", "error"),
    [(20, 9e-1), (40, 3e-1), (60, 3e-3), (80, 2e-6), (100, 1e-10), (120, 2e-13)],
)
def test_fewer_terms_of_the_series_err_as_printed(terms: int, error: float):
    gamma = grid(-3.55, -1)
    mu = gaussian.signal_to_noise(gamma)
    powers = mu[:, None].pow(torch.arange(terms))
    hit = (-mu.square() / 2).exp() * (powers * series_terms(50257, terms)).sum(-1)
    worst = (gaussian.level_of(hit, 50257) - gaussian.signal(gamma, 50257)).abs().max().item()
    assert error / 3 < worst < error * 2


@pytest.mark.parametrize(("num_states", "gamma_min"), [(50257, -5), (30522, -4.5), (2, -4.4)])
def test_a_window_beyond_the_series_is_refused(num_states: int, gamma_min: float):
    with pytest.raises(ValueError, match=f"series is off by .* gamma_min {gamma_min}.*quadrature"):
        Series(num_states, gamma_min, 0)


@pytest.mark.parametrize("num_states", [2, 100, 50257, 10**6])
def test_the_series_is_accurate_wherever_it_is_not_refused(num_states: int):
    gamma = grid(-4.2, 3)
    series = Series(num_states, -4.2, 3)
    torch.testing.assert_close(
        series.alpha(gamma), gaussian.signal(gamma, num_states), rtol=0, atol=1e-9
    )
    torch.testing.assert_close(
        series.slope(gamma), gaussian.signal_slope(gamma, num_states), rtol=0, atol=1e-7
    )


@pytest.mark.parametrize(
    ("num_states", "ends", "printed", "worst_alpha", "worst_slope"),
    [
        (
            50257, (-3.55, -1.85),
            "0.9454829650 -0.5285605857 -1.8015998320 -1.4702839086 2.7671242223 22.2662693644 "
            "-60.6380935023 65.2768576202 -33.7343404375 6.9664854652",
            2.4e-5, 2.7e-3,
        ),
        (
            30522, (-3.5, -1.75),
            "0.9417211140 -0.5589415101 -1.8358169985 -1.5770837058 4.7208716898 16.9944532595 "
            "-54.1694000985 61.1813341863 -32.4864392925 6.8380116250",
            2.7e-5, 3.0e-3,
        ),
    ],
)  # fmt: skip
def test_the_polynomial_is_the_printed_one(num_states, ends, printed, worst_alpha, worst_slope):
    polynomial = Poly9(num_states, *ends)
    expected = [float(word) for word in printed.split()]
    assert polynomial.coefficients.tolist() == pytest.approx(expected, abs=2e-8)
    gamma, rise = grid(*ends, 2001), ends[1] - ends[0]
    off = (polynomial.alpha(gamma) - gaussian.signal(gamma, num_states)).abs().max().item()
    assert off == pytest.approx(worst_alpha, rel=0.03)
    slopes = polynomial.slope(gamma), gaussian.signal_slope(gamma, num_states)
    off = rise * (slopes[0] - slopes[1]).abs().max().item()
    assert off == pytest.approx(worst_slope, rel=0.03)


def test_the_polynomial_is_the_published_one_as_far_as_its_fit_goes():
    case, within = tensors("i.poly9"), tolerance("i.poly9")
    polynomial, gamma = Poly9(30522, -3.5, -1.75), -3.5 + 1.75 * case["t"].double()
    torch.testing.assert_close(polynomial.alpha(gamma).float(), case["output/alpha"], **within)
    slope = 1.75 * polynomial.slope(gamma)
    torch.testing.assert_close(slope.float(), case["output/dalpha"], **within)
    # Fitted at 100,000 points, where ours is at 2,001.
    expected = case["output/coefficients"]
    torch.testing.assert_close(polynomial.coefficients, expected, rtol=1e-3, atol=0)


def test_a_polynomial_that_would_rise_is_refused():
    with pytest.raises(ValueError, match="poly9 does not fall everywhere .*narrower window"):
        Poly9(50257, -5, 5)


def test_a_root_is_the_same_however_seldom_the_host_looks(monkeypatch):
    alphas = torch.linspace(0.001, 0.999, 40, dtype=torch.float64)
    found = []
    for apart in (1, 8, 1000):
        monkeypatch.setattr(gaussian, "LOOK_EVERY", {"cpu": apart})
        found.append(gaussian.signal_inverse(alphas, 31))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
