"""One training step of DUO under each of its objectives: the bound, and the curriculum's forms."""

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
"""Objectives as words of a command line."""


def cases(size: Size) -> Iterator[Case]:
    """All of `PATHS`."""
    for path in PATHS:
        yield Case("objectives", path, size)


def measure(case: Case) -> Figures:
    """Peak memory, what the step added to it, and seconds of one forward and backward pass."""
    return training.measure_step(training.rows_step, PATHS[case.path], case.size)
