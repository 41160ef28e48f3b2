"""The part under test, in one of the forms that its options select."""

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from platform_core.composition.computed import accepted
from platform_core.errors import UsageError
from platform_core.registry.parts import Part, Plugins

SMALL: Mapping[str, object] = {
    "hidden_size": 16,
    "num_blocks": 1,
    "num_heads": 2,
    "cond_size": 8,
}
"""Options of these names are given to every part that has them, so that networks are small."""


Given = Mapping[tuple[str, str], Mapping[str, object]]
"""Options that the user gives to parts: (role, name of the part) -> {option: value}."""


LONGEST = 32
"""Tokens in a sequence, as parts that take `length` are told; laws use sequences up to this."""


def _text(num_labels: object) -> dict[str, object]:
    """What parts are told of the text that laws make; it has no tokenizer."""
    number = num_labels if isinstance(num_labels, int) else 0
    names = tuple(f"label {label}" for label in range(number))
    return {"length": LONGEST, "tokenizer": None, "pad_id": None, "label_names": names}


@dataclass(frozen=True)
class Subject:
    """The part under test, which laws load and make objects of.

    Args:
        part: the registered part.
        plugins: all installed plugins.
        form: the option that selects the class of the part's objects ("states uniform"), or empty.
        given: options that the user gives to this part and to the parts that it is tested with.
    """

    part: Part
    plugins: Plugins
    form: str = ""
    given: Given = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        return f"{self.role}:{self.name}" + (f"[{self.form}]" if self.form else "")

    @property
    def role(self) -> str:
        return self.part.role

    @property
    def name(self) -> str:
        return self.part.component.name

    @cached_property
    def chosen(self) -> Any:
        """The part's class or, for some services, the part's function.

        Raises:
            UsageError: the part cannot be loaded.
        """
        return self.plugins.load(self.role, self.name)

    @cached_property
    def kind(self) -> type:
        """The class of the part's objects in this form."""
        return self.plugins.forms(self.role, self.name)[self.form]

    @property
    def options(self) -> dict[str, object]:
        """The options that the user gives, and the option that selects the form, by name."""
        option, _, value = self.form.partition(" ")
        given = self.given.get((self.role, self.name), {})
        return {**given, option: value} if option else {**given}

    @property
    def words(self) -> list[str]:
        """The part's options as words of a command line."""
        return option_words(self.role, self.options)

    def make(self, *, options: Mapping[str, object] | None = None, **computed: object) -> Any:
        """Make an object of the part, with the options of `SMALL` that the part has.

        Args:
            options: further options, unless the user gives others; options that the part does not
                have are ignored.
            computed: arguments computed from other parts; those it does not take are ignored.
        """
        computed = {**_text(computed.get("num_labels")), **computed}
        given = {**SMALL, **(options or {})}
        known = accepted(self.chosen, [*given, *computed])
        chosen = {name: value for name, value in {**given, **computed}.items() if name in known}
        for parameter, (kind, name) in self.part.component.inside(self.role).items():
            inside = Subject(self.plugins.get(kind, name), self.plugins, given=self.given)
            chosen[parameter] = inside.make(options=options, **computed)
        return self.kind(**{**chosen, **self.options})


def unclaimed(kind: type) -> Mapping[str, str]:
    """The laws that a class does not claim to keep, each with the reason; most claim all."""
    found = getattr(kind, "unclaimed", {})
    return found if isinstance(found, Mapping) else {}


def option_words(role: str, options: Mapping[str, object]) -> list[str]:
    """Options of a part as words of a command line."""
    from platform_core.composition.parser import written  # imports jsonargparse

    return [f"--{role}.{key}={written(value)}" for key, value in options.items()]


def subjects(part: Part, plugins: Plugins, given: Given | None = None) -> Iterator[Subject]:
    """Yield a part in each of its forms; once, without a form, if its class cannot be loaded.

    If the user gives the option that selects the form, only that form is yielded.
    """
    given = given or {}
    own = given.get((part.role, part.component.name), {})
    try:
        forms = list(plugins.forms(part.role, part.component.name))
    except UsageError:
        forms = [""]
    for form in forms:
        option, _, value = form.partition(" ")
        if str(own.get(option, value)) == value:
            yield Subject(part, plugins, form, given)


def parameters(part: type) -> list[inspect.Parameter]:
    """All parameters of a class's constructor, including those that **kwargs passes to parents."""
    found: dict[str, inspect.Parameter] = {}
    for owner in part.__mro__:
        if owner is object or "__init__" not in vars(owner):
            continue
        own = list(inspect.signature(vars(owner)["__init__"]).parameters.values())[1:]
        for parameter in own:
            if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
                found.setdefault(parameter.name, parameter)
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in own):
            break
    return list(found.values())
