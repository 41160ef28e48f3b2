"""Components: the named parts and services that plugins register.

A component is plain data, so that registering it imports nothing heavy. The `plugin.py` of every
plugin makes components, and `registry` loads their classes and functions.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

ROLES = ("process", "schedule", "parameterization", "backbone", "objective", "sampler")
"""The parts of a model, and the objective and sampler that use the model."""

SERVICES = (
    "command",
    "evaluation",
    "tracker",
    "corpus",
    "tokenizer",
    "launcher",
    "callback",
    "optimizer",
    "reward",
)
"""Kinds of components that are no part of a model."""

KINDS = (*ROLES, *SERVICES)
"""All kinds of components."""

INNER = "inner"
"""The parameter of a part that is made around another one."""

Option = str | int | float | bool

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_FORM = re.compile(r"[a-z]\w* \S+")
_TARGET = re.compile(r"[\w.]+:\w+(\.\w+)*")


@dataclass(frozen=True)
class Component:
    """A part or service: the name that users choose it by, and where its class or function is.

    Args:
        name: kebab-case, for example log-linear.
        target: module and class or function, for example platform_duo.process:Duo; imported only
            when the component is chosen.
        summary: one line for `platform plugins`.
        defaults: only for a process: the other parts and options that it uses by default. A key
            ROLE gives the name of that role's part ("sampler": "ancestral"). A key ROLE.OPTION
            gives an option's value ("sampler.steps": 64), which applies while that role keeps the
            part named here.
        forms: only for a part with an option that decides the class of its objects: that class, as
            a target, by option and value ("states uniform"). Each class takes the options of
            `target`, whose signature and docstring users see.
        around: only for a part that is made around another part of its role, which its constructor
            takes as `inner`: the name of the part that it takes by default. Users choose another
            with --ROLE.inner NAME, and give its options as --ROLE.inner.OPTION.
        takes: only for a part whose constructor takes components of other kinds: the kind and the
            name of the default of each, by parameter ("reward": ("reward", "entropy")). Users
            choose another with --ROLE.PARAMETER NAME, and give its options as
            --ROLE.PARAMETER.OPTION.

    Raises:
        ValueError: a field does not have the form described above.
    """

    name: str
    target: str
    summary: str = ""
    defaults: Mapping[str, Option] = field(default_factory=dict)
    forms: Mapping[str, str] = field(default_factory=dict)
    around: str = ""
    takes: Mapping[str, tuple[str, str]] = field(default_factory=dict)

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
        for parameter, (kind, _) in self.takes.items():
            if parameter in ("name", INNER) or kind not in KINDS:
                raise ValueError(
                    f"component {self.name}: it cannot take {parameter!r}, a {kind!r}; the kinds "
                    f"are {', '.join(KINDS)}, and no parameter may be called name or {INNER}"
                )

    def inside(self, kind: str) -> dict[str, tuple[str, str]]:
        """Parameter -> kind and default name of each component that the constructor takes.

        Args:
            kind: of this component, which is also that of the part that it is around.
        """
        own = {INNER: (kind, self.around)} if self.around else {}
        return {**own, **self.takes}
