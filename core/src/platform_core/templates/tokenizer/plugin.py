"""Registration of the tokenizer that this package adds."""

from collections.abc import Iterable

from platform_core.component import Component
from platform_core.hookspecs import hookimpl


@hookimpl
def platform_tokenizers() -> Iterable[Component]:
    """The kinds of tokenizers of this package, by name and import path."""
    return [
        Component(
            "new-part",
            "platform_core.templates.tokenizer.tokenizer:NewPart",
            "one token for each word",
        )
    ]
