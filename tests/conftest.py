"""Settings of the core's tests, and the line that counts the matrix at their end."""

from collections import Counter

import pytest

from platform_core.testing.settings import checked_types, fresh_accelerator  # noqa: F401

collect_ignore_glob = ["third_party/*"]
"""Tests of packages that have to be installed; `test_outside_packages` installs and runs them."""


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
