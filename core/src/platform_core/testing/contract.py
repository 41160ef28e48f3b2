"""Contract tests for pytest: a plugin's whole test file is a subclass with one line."""

from collections.abc import Sequence
from typing import Any

from platform_core.registry.loading import find_plugins
from platform_core.testing.law import Inapplicable


class ContractTests:
    """One test for each law of each part, service and metric of a plugin.

    Subclass this class and set `plugin`.

    pytest is imported only when a test runs, because the platform does not depend on it.

    Args:
        plugin: name of a plugin, a distribution or a part, as for `platform check`; None for every
            installed part.
        options: options of the plugin's parts, as for `platform check`:
            ("--process.block_size=1",).
        heavy: False for only the quick laws, True for only the heavy laws, None for all laws.
    """

    plugin: str | None = None
    options: Sequence[str] = ()
    heavy: bool | None = None

    def pytest_generate_tests(self, metafunc: Any) -> None:
        """Generate a test for each law that applies to each part."""
        if "case" not in metafunc.fixturenames:
            return
        from platform_core.testing.check import cases, named  # imports torch
        from platform_core.testing.given import given
        from platform_core.testing.metrics import metric_cases

        plugins = find_plugins()
        parts = named([] if self.plugin is None else [self.plugin], plugins)
        chosen = [
            case
            for case in cases(parts, plugins, given(self.options, parts, plugins))
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
