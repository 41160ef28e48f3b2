"""What a plugin hands in: parts by name, as data, so that registering imports nothing heavy.

Used by every plugin's `plugin.py` and by `registry`, which loads them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

ROLES = ("process", "schedule", "parameterization", "backbone", "objective", "sampler")
"""The parts of a model, and what is done with it."""

SERVICES = ("command", "evaluation", "tracker", "corpus", "tokenizer", "launcher", "callback")
"""What surrounds a model."""

KINDS = (*ROLES, *SERVICES)
"""Everything that a component can be."""

Option = str | int | float | bool

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_FORM = re.compile(r"[a-z]\w* \S+")
_TARGET = re.compile(r"[\w.]+:\w+(\.\w+)*")


@dataclass(frozen=True)
class Component:
    """One part or service: the name it is chosen by, and where its class or function is.

    Args:
        name: kebab-case, for example log-linear.
        target: module and class or function, for example platform_duo.process:Duo; imported only
            when the component is chosen.
        summary: one line for `platform plugins`.
        defaults: of a process only: what it goes with. A role gives the name of that role's part
            ("sampler": "ancestral"); role.option gives a value ("sampler.steps": 64), which counts
            while that role keeps the part named here.
        forms: of a part whose option decides what its objects are only: the class of the objects,
            as a target, by option and value ("states uniform"). Each takes the options of `target`,
            whose signature and docstring are what users see.

    Raises:
        ValueError: a field does not have this form.
    """

    name: str
    target: str
    summary: str = ""
    defaults: Mapping[str, Option] = field(default_factory=dict)
    forms: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"component name {self.name!r} is not kebab-case, like log-linear")
        for target in (self.target, *self.forms.values()):
            if not _TARGET.fullmatch(target):
                raise ValueError(
                    f"component {self.name}: target {target!r} is not MODULE:CLASS, "
                    "like platform_duo.process:Duo"
                )
        for form in self.forms:
            if not _FORM.fullmatch(form):
                raise ValueError(
                    f"component {self.name}: form {form!r} is not OPTION VALUE, like states uniform"
                )
        for key, value in self.defaults.items():
            role, dot, option = key.partition(".")
            if role not in ROLES or (dot and not option):
                raise ValueError(
                    f"component {self.name}: default {key!r} is neither a role nor ROLE.OPTION; "
                    f"the roles are {', '.join(ROLES)}"
                )
            if not dot and (role == "process" or not isinstance(value, str)):
                raise ValueError(
                    f"component {self.name}: default {key!r} must name a part of another role"
                )
