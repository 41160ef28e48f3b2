"""Contract tests for pytest: an author's whole test file is a class with one line in it."""

from typing import Any

from platform_core.registry.loading import find_plugins
from platform_core.testing.law import Inapplicable


class ContractTests:
    """All laws of all parts, services and metrics of a plugin, each a test of its own.

    Subclass it and name the plugin.

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
        from platform_core.testing.metrics import metric_cases

        plugins = find_plugins()
        parts = named([] if self.plugin is None else [self.plugin], plugins)
        chosen = [
            case
            for case in cases(parts, plugins)
            if self.heavy in (None, case.law.heavy) and not case.reason_against
        ]
        metrics = [] if self.heavy else metric_cases(plugins, self.plugin)
        ids = [f"{case.subject}-{case.law.id}" for case in chosen]
        metafunc.parametrize("case", [*chosen, *metrics], ids=[*ids, *map(str, metrics)])

    def test_law(self, case: Any) -> None:
        """A part, a service or a metric keeps a law."""
        try:
            case.test()
        except Inapplicable as reason:
            import pytest

            pytest.skip(str(reason))
