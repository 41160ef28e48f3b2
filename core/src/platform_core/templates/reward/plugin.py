"""Registration of the reward that this package adds."""

from collections.abc import Iterable

from platform_core.component import Component
from platform_core.hookspecs import hookimpl


@hookimpl
def platform_rewards() -> Iterable[Component]:
    """The rewards of this package, by name and import path."""
    return [
        Component(
            "new-part",
            "platform_core.templates.reward.reward:NewPart",
            "the share of tokens that the text has not had before",
        )
    ]
