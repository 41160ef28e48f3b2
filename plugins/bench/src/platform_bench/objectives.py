"""One training step of DUO under its bound and under each form of its curriculum objective."""

from collections.abc import Iterator, Mapping, Sequence

from platform_bench import Case, Figures, Size, training

TITLE = training.TITLE

COLUMNS = training.COLUMNS

PATHS: Mapping[str, Sequence[str]] = {
    "bound": [],
    "curriculum, dense": ["--objective=curriculum"],
    "curriculum, top 2": ["--objective=curriculum", "--objective.top_k=2"],
    "curriculum, top 5": ["--objective=curriculum", "--objective.top_k=5"],
}
"""Command-line words that choose each objective."""


def cases(size: Size) -> Iterator[Case]:
    """One case for each of `PATHS`."""
    for path in PATHS:
        yield Case("objectives", path, size)


def measure(case: Case) -> Figures:
    """Peak memory, memory that the step added, and seconds of one forward and backward pass."""
    return training.measure_step(training.rows_step, PATHS[case.path], case.size)
