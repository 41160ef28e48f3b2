"""Networks of the transformers library as a backbone."""

from collections.abc import Iterable

from platform_core.component import Component
from platform_core.hookspecs import hookimpl


@hookimpl
def platform_backbones() -> Iterable[Component]:
    """The backbone `hf`, for all networks of transformers."""
    return [
        Component(
            "hf", "platform_hf.backbone:Hf", "any language model of transformers, from a config"
        )
    ]
