"""Three ways to evaluate DUO's operator, alpha as a function of gamma.

`Quadrature` is exact in float64 and fast enough for every step of training. `Series` and `Poly9`
are the methods of the papers, kept for comparison; their coefficients are computed in the
constructor, from (num_states, gamma_min, gamma_max), and no table is stored.
"""

from abc import ABC, abstractmethod
from typing import final

import torch
from torch import Tensor

from platform_core.types import Noise
from platform_duo import gaussian
from platform_duo.gaussian import Gamma

GRID = 2001
"""Number of points, evenly spaced in time, at which poly9 is fitted."""


class Operator(ABC):
    """A falling function alpha(gamma) and its derivative, in float64."""

    def __init__(self, num_states: int, gamma_min: float, gamma_max: float) -> None:
        self.num_states = num_states
        self.gamma_min, self.gamma_max = gamma_min, gamma_max

    @abstractmethod
    def alpha(self, gamma: Gamma) -> Noise:
        """Signal level alpha at gamma."""

    @abstractmethod
    def slope(self, gamma: Gamma) -> Noise:
        """Derivative d alpha / d gamma."""

    def inverse(self, alpha: Noise) -> Gamma:
        """The gamma in [gamma_min, gamma_max] at which the signal level is alpha."""
        ends = self.gamma_min, self.gamma_max
        return gaussian.falling_root(self.alpha, self.slope, alpha, ends)


@final
class Quadrature(Operator):
    """The exact operator, with an error of about 1e-15."""

    def alpha(self, gamma: Gamma) -> Noise:
        return gaussian.signal(gamma, self.num_states)

    def slope(self, gamma: Gamma) -> Noise:
        return gaussian.signal_slope(gamma, self.num_states)


@final
class Series(Operator):
    """The power series in mu, cut off after 150 terms.

        p(mu) = exp(-mu^2 / 2) sum_n c_n mu^n,   c_n = int z^n / n! phi(z) Phi(z)^(K-1) dz

    150 terms suffice for gamma from -4.2 on (mu up to 8), where the error of alpha is below 1e-9;
    it is 5e-5 at gamma -4.5 and one half at -5.

    Raises:
        ValueError: the error of alpha at `gamma_min` is above 1e-9.
    """

    NUM_TERMS = 150
    LARGEST_ERROR = 1e-9

    def __init__(self, num_states: int, gamma_min: float, gamma_max: float) -> None:
        super().__init__(num_states, gamma_min, gamma_max)
        self._terms = series_terms(num_states, self.NUM_TERMS)
        # The error falls with gamma, so it is largest at the low end.
        end = torch.tensor(gamma_min, dtype=torch.float64, device="cpu")
        error = (self.alpha(end) - gaussian.signal(end, num_states)).abs().item()
        if not error <= self.LARGEST_ERROR:
            raise ValueError(
                f"operator series is off by {error:.0e} at gamma_min {gamma_min:g}, where its "
                f"{self.NUM_TERMS} terms do not suffice; choose gamma_min -4.2 or above, or "
                "operator quadrature"
            )

    def alpha(self, gamma: Gamma) -> Noise:
        mu = gaussian.signal_to_noise(gamma)
        hit = (-mu.square() / 2).exp() * _polynomial(mu, self._terms)
        return gaussian.level_of(hit, self.num_states)

    def slope(self, gamma: Gamma) -> Noise:
        """Derivative of the truncated series."""
        mu = gaussian.signal_to_noise(gamma)
        change = _derivative(mu, self._terms) - mu * _polynomial(mu, self._terms)
        change = (-mu.square() / 2).exp() * change
        return -mu / 2 * self.num_states / (self.num_states - 1) * change


@final
class Poly9(Operator):
    """A polynomial of degree 9 in t = (gamma - gamma_min) / (gamma_max - gamma_min).

    Fitted to the quadrature by least squares. In the published windows alpha is off by up to 3e-5
    and the slope by 1 % at the ends.

    Raises:
        ValueError: the polynomial does not fall everywhere in the window.
    """

    def __init__(self, num_states: int, gamma_min: float, gamma_max: float) -> None:
        super().__init__(num_states, gamma_min, gamma_max)
        t = torch.linspace(0, 1, GRID, dtype=torch.float64, device="cpu")
        gamma = gamma_min + t * (gamma_max - gamma_min)
        alpha = gaussian.signal(gamma, num_states)
        self.coefficients = torch.linalg.lstsq(_powers(t, 10), alpha[:, None]).solution.squeeze(-1)
        """Coefficients of t^0 to t^9."""
        if (self.slope(gamma) >= 0).any():
            raise ValueError(
                f"operator poly9 does not fall everywhere in gamma {gamma_min:g} to {gamma_max:g} "
                f"at {num_states} states; choose a narrower window, or operator quadrature"
            )

    def alpha(self, gamma: Gamma) -> Noise:
        return _polynomial(self._time(gamma), self.coefficients)

    def slope(self, gamma: Gamma) -> Noise:
        change = _derivative(self._time(gamma), self.coefficients)
        return change / (self.gamma_max - self.gamma_min)

    def _time(self, gamma: Gamma) -> Noise:
        return (gamma - self.gamma_min) / (self.gamma_max - self.gamma_min)


def series_terms(num_states: int, number: int) -> Noise:
    """c_n = int z^n / n! phi(z) Phi(z)^(K-1) dz for n < `number`, which may be a few hundred."""
    z = torch.linspace(-40, 40, 4001, dtype=torch.float64, device="cpu")
    density = (num_states - 1) * torch.special.log_ndtr(z) - z.square() / 2
    weights = (z[1] - z[0]) / (2 * torch.pi) ** 0.5 * density.exp()
    order = torch.arange(1, number, dtype=z.dtype, device="cpu")
    powers = torch.cat((torch.ones_like(z)[:, None], z[:, None] / order), dim=-1).cumprod(-1)
    terms: Noise = weights @ powers
    return terms


def _polynomial(x: Noise, coefficients: Tensor) -> Noise:
    return (_powers(x, len(coefficients)) * coefficients.to(x.device)).sum(-1)


def _derivative(x: Noise, coefficients: Tensor) -> Noise:
    order = torch.arange(1, len(coefficients), dtype=coefficients.dtype, device="cpu")
    return _polynomial(x, order * coefficients[1:])


def _powers(x: Noise, number: int) -> Tensor:
    """x^0 to x^(number - 1), in a new last dimension."""
    return x[..., None].pow(torch.arange(number, dtype=x.dtype, device=x.device))
