"""Statistics of few numbers: deviations, Student's t in two forms, and Holm's correction.

    p = P(|T| >= |t|) = I_x(df / 2, 1 / 2),  x = df / (df + t^2)

with I the regularised incomplete beta function. Used by `platform report`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

PRECISION = 1e-15
TERMS = 1000


@dataclass(frozen=True)
class Significance:
    """A two-sided test of whether two means are the same.

    Args:
        name: which test.
        difference: of the means, the first minus the second.
        statistic: t.
        freedom: degrees of freedom.
        p: probability of a difference as large by chance.
    """

    name: str
    difference: float
    statistic: float
    freedom: float
    p: float


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean."""
    return math.fsum(values) / len(values)


def deviation(values: Sequence[float]) -> float | None:
    """The sample standard deviation, of n - 1; None of fewer than two values."""
    if len(values) < 2:
        return None
    centre = mean(values)
    return math.sqrt(math.fsum((value - centre) ** 2 for value in values) / (len(values) - 1))


def welch(first: Sequence[float], second: Sequence[float]) -> Significance | None:
    """Welch's t for independent samples of unlike variance; None where it cannot be had.

    It needs two values on each side, and some that differ.
    Source: Welch 1947, Biometrika 34.
    """
    spreads = deviation(first), deviation(second)
    if spreads[0] is None or spreads[1] is None:
        return None
    a, b = spreads[0] ** 2 / len(first), spreads[1] ** 2 / len(second)
    if a + b == 0:
        return None
    freedom = (a + b) ** 2 / (a**2 / (len(first) - 1) + b**2 / (len(second) - 1))
    return _test("Welch's t", mean(first) - mean(second), math.sqrt(a + b), freedom)


def paired(first: Sequence[float], second: Sequence[float]) -> Significance | None:
    """Student's t of the differences of pairs; None of fewer than two, or if all are the same."""
    differences = [a - b for a, b in zip(first, second, strict=True)]
    spread = deviation(differences)
    if not spread:
        return None
    number = len(differences)
    return _test("paired t", mean(differences), spread / math.sqrt(number), number - 1)


def holm(ps: Sequence[float]) -> list[float]:
    """P-values corrected for their number: below a in any of them has probability a by chance.

    The k-th smallest of n is multiplied by n - k + 1, and none is below a smaller one's.
    Source: Holm 1979, Scandinavian Journal of Statistics 6.
    """
    order = sorted(range(len(ps)), key=lambda place: ps[place])
    corrected = [0.0] * len(ps)
    for rank, place in enumerate(order):
        corrected[place] = min(1.0, (len(ps) - rank) * ps[place])
    for before, after in pairwise(order):
        corrected[after] = max(corrected[after], corrected[before])
    return corrected


def two_sided(statistic: float, freedom: float) -> float:
    """P(|T| >= |statistic|) for Student's t."""
    return incomplete_beta(freedom / 2, 0.5, freedom / (freedom + statistic**2))


def incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function I_x(a, b), to about 13 digits.

    By its continued fraction, on the side where that converges quickly.
    Source: DLMF 8.17.22.
    """
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - incomplete_beta(b, a, 1 - x)
    front = a * math.log(x) + b * math.log1p(-x)
    front += math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    return math.exp(front) / (a * _fraction(a, b, x))


def _fraction(a: float, b: float, x: float) -> float:
    """1 + d_1 / (1 + d_2 / (1 + ...)) by Lentz's method."""
    value, above, below = 1.0, 1.0, 0.0
    for term in range(1, TERMS):
        half, odd = divmod(term, 2)
        if odd:
            d = -(a + half) * (a + b + half) * x / ((a + 2 * half) * (a + 2 * half + 1))
        else:
            d = half * (b - half) * x / ((a + 2 * half - 1) * (a + 2 * half))
        below = 1 / (1 + d * below)
        above = 1 + d / above
        value *= above * below
        if abs(above * below - 1) < PRECISION:
            break
    return value


def _test(name: str, difference: float, error: float, freedom: float) -> Significance:
    statistic = difference / error
    return Significance(name, difference, statistic, freedom, two_sided(statistic, freedom))
