"""Contract tests for pytest: an author's whole test file is a class with one line in it."""

from collections.abc import Sequence
from typing import Any

from platform_core.registry.loading import find_plugins
from platform_core.testing.law import Inapplicable


class ContractTests:
    """All laws of all parts of a plugin, each a test of its own; subclass it and name the plugin.

    pytest is not imported before a test runs: it is no dependency of the platform.

    Args:
        plugin: name of the plugin or of its distribution; or of a part, as for `platform check`.
            None for every part that is installed.
        heavy: False for the quick laws alone, True for the others alone; None for all.
    """

    plugin: str | None = None
    heavy: bool | None = None

    def pytest_generate_tests(self, metafunc: Any) -> None:
        """One test for each law that applies to each part."""
        if "case" not in metafunc.fixturenames:
            return
        from platform_core.testing.check import cases, named  # torch

        plugins = find_plugins()
        parts = named([] if self.plugin is None else [self.plugin], plugins)
        chosen = [
            case
            for case in cases(parts, plugins)
            if self.heavy in (None, case.law.heavy) and not case.reason_against
        ]
        ids: Sequence[str] = [f"{case.subject}-{case.law.id}" for case in chosen]
        metafunc.parametrize("case", chosen, ids=ids)

    def test_law(self, case: Any) -> None:
        """A part keeps a law."""
        try:
            case.test()
        except Inapplicable as reason:
            import pytest

            pytest.skip(str(reason))
