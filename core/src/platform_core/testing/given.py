"""Options that the user gives to the parts under test: `--process.block_size 1`."""

from collections.abc import Iterable, Sequence
from typing import Any

from platform_core.composition.choice import Choice
from platform_core.composition.computed import COMPUTED
from platform_core.errors import UsageError, with_article
from platform_core.registry.parts import Part, Plugins
from platform_core.testing.partners import compositions
from platform_core.testing.subject import Given, parameters, subjects


def given(options: Iterable[str], parts: Sequence[Part], plugins: Plugins) -> Given:
    """The values of options `--ROLE.OPTION=VALUE` for each of the parts that has the option.

    Raises:
        UsageError: no part of the role is among the parts, none of them has the option, or a value
            is not of the option's type.
    """
    wanted: dict[str, list[str]] = {}
    for word in options:
        wanted.setdefault(word[2:].partition(".")[0], []).append(word)
    found: dict[tuple[str, str], dict[str, object]] = {}
    for role, words in wanted.items():
        own = [part for part in parts if part.role == role]
        if not own:
            raise UsageError(
                f"{words[0].partition('=')[0]} is an option of {with_article(role)}, but no {role} "
                "is among the parts to check; name one, or leave the option out"
            )
        for word in words:
            having = [part for part in own if _option(word) in _options(part, plugins)]
            for part in having or own[:1]:  # the parser of a part without the option refuses it
                name = part.component.name
                found.setdefault((role, name), {}).update(_values(part, word, plugins))
    return found


def _option(word: str) -> str:
    return word.partition("=")[0].partition(".")[2]


def _options(part: Part, plugins: Plugins) -> set[str]:
    try:
        chosen = plugins.load(part.role, part.component.name)
    except UsageError:
        return set()
    return {option.name for option in parameters(chosen)} - set(COMPUTED[part.role])


def _values(part: Part, word: str, plugins: Plugins) -> dict[str, Any]:
    """The option of a word by name, read by the parser that `platform run` reads it with."""
    from platform_core.composition.parser import Arguments  # imports jsonargparse

    role, name = part.role, part.component.name
    names = next(compositions(next(subjects(part, plugins))), None)
    if names is None:
        raise UsageError(f"{role} {name} goes with no installed parts, so it takes no options")
    classes = {other: plugins.load(other, chosen) for other, chosen in names.items()}
    arguments = Arguments(
        Choice(names, dict.fromkeys(names, ""), (), ()), classes, plugins, prog="platform check"
    )
    made = arguments.parser.instantiate(arguments.parse([word]))
    option = _option(word)
    return {option: arguments.section(made, role)[option]}
