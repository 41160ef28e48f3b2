"""Time DUO's operator: `python -m platform_duo.cost`.

Prints the milliseconds that alpha and its slope take at the times of one batch, and the minutes
that the published cache of 100,000 points would take, estimated from 20 of its points.
"""

import math
import sys
import time

import torch

from platform_duo.schedule import Gaussian

NUM_STATES, BATCH, CACHE_POINTS, TIMED = 50257, 512, 100_000, 20


def operator_seconds(repeats: int = 20) -> float:
    """Mean seconds that alpha and its slope take at the times of one batch."""
    schedule, t = Gaussian(NUM_STATES), torch.linspace(0, 1, BATCH, dtype=torch.float64)[:, None]
    start = time.perf_counter()
    for _ in range(repeats):
        schedule.alpha(t)
        schedule.slope(t)
    return (time.perf_counter() - start) / repeats


def cache_seconds() -> float:
    """Estimated seconds of the published cache: two adaptive quadratures for each of its points.

    Raises:
        SystemExit: scipy is not installed.
    """
    try:
        from scipy import integrate, stats
    except ImportError:
        sys.exit('the published cache needs scipy, which is not installed; pip install ".[test]"')

    def hit(z: float, mu: float) -> float:
        return float(stats.norm.pdf(z, mu) * stats.norm.cdf(z) ** (NUM_STATES - 1))

    def change(z: float, mu: float) -> float:
        return -mu / 2 * (z - mu) * hit(z, mu)

    start = time.perf_counter()
    for number in range(TIMED):
        mu = math.exp(-(-5 + 4 * number / TIMED) / 2)
        for integrand in (hit, change):
            integrate.quad(integrand, -math.inf, math.inf, args=(mu,))
    return (time.perf_counter() - start) / TIMED * CACHE_POINTS


def main() -> None:
    """Print both times, measured on one thread."""
    torch.set_num_threads(1)
    print(f"alpha and slope at {BATCH} times: {1e3 * operator_seconds():.1f} ms")
    print(f"published cache, {CACHE_POINTS:,} points: {cache_seconds() / 60:.0f} minutes")


if __name__ == "__main__":
    main()
