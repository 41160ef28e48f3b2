"""What the package brings: a kind of tokenizer and a verb."""

from collections.abc import Iterable

from platform_core.component import Component
from platform_core.hookspecs import hookimpl


@hookimpl
def platform_tokenizers() -> Iterable[Component]:
    """One kind."""
    return [Component("words", "platform_words.tokenizer:Words", "one token for each word or sign")]


@hookimpl
def platform_commands() -> Iterable[Component]:
    """One verb."""
    return [
        Component(
            "vocabulary",
            "platform_words.vocabulary:main",
            "the words of a run's samples, and which of them its training text lacks",
        )
    ]
