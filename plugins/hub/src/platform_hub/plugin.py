"""Components of this plugin: corpora that the library datasets reads."""

from collections.abc import Iterable

from platform_core.component import Component
from platform_core.hookspecs import hookimpl
from platform_hub.names import names


@hookimpl
def platform_corpora() -> Iterable[Component]:
    """Corpora in the user's own files, and the corpora of the catalogue."""
    own = [
        Component("json", "platform_hub.opening:open_files", "JSON Lines files"),
        Component("parquet", "platform_hub.opening:open_files", "Parquet files"),
        Component("saved", "platform_hub.opening:open_saved", "a folder of save_to_disk"),
        Component("yaml", "platform_hub.opening:open_entry", "a YAML file that describes a corpus"),
        Component("yml", "platform_hub.opening:open_entry", "a YAML file that describes a corpus"),
    ]
    return own + [
        Component(name, "platform_hub.opening:open_entry", f"of the Hugging Face hub: {file.name}")
        for name, file in names().items()
    ]
