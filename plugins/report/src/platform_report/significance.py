"""Tests of few numbers: Student's t, paired or Welch's, by scipy, and Holm's correction.

Used by `platform report`.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from scipy import stats


@dataclass(frozen=True)
class Significance:
    """A two-sided test of whether two means are the same.

    Args:
        name: name of the test.
        difference: the first mean minus the second.
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
    """The arithmetic mean of the values."""
    return statistics.fmean(values)


def deviation(values: Sequence[float]) -> float | None:
    """The sample standard deviation, with n - 1; None of fewer than two values."""
    return statistics.stdev(values) if len(values) > 1 else None


def welch(first: Sequence[float], second: Sequence[float]) -> Significance | None:
    """Welch's t-test for independent samples of unlike variance; None if it is undefined.

    The test needs two values on each side, and on one side values that differ.
    Source: Welch 1947, Biometrika 34.
    """
    spreads = deviation(first), deviation(second)
    if None in spreads or not any(spreads):
        return None
    found = stats.ttest_ind(first, second, equal_var=False)
    return _significance("Welch's t", mean(first) - mean(second), found)


def paired(first: Sequence[float], second: Sequence[float]) -> Significance | None:
    """Student's t-test of the differences of pairs; None of fewer than two, or if all are equal."""
    differences = [a - b for a, b in zip(first, second, strict=True)]
    if not deviation(differences):
        return None
    return _significance("paired t", mean(differences), stats.ttest_rel(first, second))


def holm(ps: Sequence[float]) -> list[float]:
    """P-values corrected for their number: below a in any of them has probability a by chance.

    The k-th smallest of n is multiplied by n - k + 1, and no corrected value is below that of a
    smaller one.
    Source: Holm 1979, Scandinavian Journal of Statistics 6.
    """
    order = sorted(range(len(ps)), key=lambda place: ps[place])
    raised = accumulate((ps[place] * (len(ps) - k) for k, place in enumerate(order)), max)
    corrected = dict(zip(order, (min(1.0, p) for p in raised), strict=True))
    return [corrected[place] for place in range(len(ps))]


def two_sided(statistic: float, freedom: float) -> float:
    """P(|T| >= |statistic|) for Student's t."""
    return float(2 * stats.t.sf(abs(statistic), freedom))


def _significance(name: str, difference: float, found: Any) -> Significance:
    return Significance(
        name, difference, float(found.statistic), float(found.df), float(found.pvalue)
    )
