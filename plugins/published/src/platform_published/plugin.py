"""Components of this plugin: the verbs `import` and `export`."""

from collections.abc import Iterable

from platform_core.component import Component
from platform_core.hookspecs import hookimpl


@hookimpl
def platform_commands() -> Iterable[Component]:
    """Commands of `platform`: the verbs `import` and `export`."""
    return [
        Component(
            "import",
            "platform_published.import_command:main",
            "make a run directory from a published checkpoint",
        ),
        Component(
            "export",
            "platform_published.export_command:main",
            "export a run as a folder for transformers",
        ),
    ]
