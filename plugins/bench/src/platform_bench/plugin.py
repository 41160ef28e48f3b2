"""Components of this plugin: the verb `bench`."""

from collections.abc import Iterable

from platform_core.component import Component
from platform_core.hookspecs import hookimpl


@hookimpl
def platform_commands() -> Iterable[Component]:
    """Commands of `platform`: the verb `bench`."""
    return [
        Component(
            "bench",
            "platform_bench.command:main",
            "measure time and memory of training and sampling, side by side",
        ),
    ]
