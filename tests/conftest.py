"""Settings of the whole test run, and the line that counts the matrix at its end."""

from collections import Counter

import pytest
from hypothesis import settings

settings.register_profile("platform", deadline=None, derandomize=True, max_examples=30)
settings.load_profile("platform")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many combinations of parts ran, and how many were refused."""
    counts: Counter[str] = Counter()
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        counts.update(
            {
                name: value
                for name, value in report.user_properties
                if report.when == "call" and name.startswith("combinations ")
            }
        )
    if counts:
        counted = ", ".join(f"{number:,} {name}" for name, number in sorted(counts.items()))
        terminalreporter.write_line(f"matrix of parts: {counted}, {counts.total():,} in all")
