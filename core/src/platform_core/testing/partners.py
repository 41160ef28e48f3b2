"""The other parts that one is examined with: as few as it needs, the platform's own first."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from platform_core.compatibility import requirements
from platform_core.component import ROLES
from platform_core.compose import Composition, compose
from platform_core.errors import UsageError
from platform_core.names import FALLBACK, process_names
from platform_core.testing.law import Inapplicable, LawBroken
from platform_core.testing.subject import Subject, subjects

ATTEMPTS = 50
"""Compositions that are tried before a part is said to go with nothing."""


@dataclass(frozen=True)
class Setting:
    """A process and a parameterization that a part goes with."""

    process: Subject
    parameterization: Subject

    def __str__(self) -> str:
        return f"{self.process.name}{self.process.form and ' ' + self.process.form}, " + (
            self.parameterization.name
        )


def settings(subject: Subject) -> list[Setting]:
    """What a part is examined with: each of core's processes, if it goes with them, else the first
    that it goes with; each with the first parameterization that goes with both.

    Raises:
        Inapplicable: nothing that is installed goes with it.
    """
    found = list(_settings(subject))
    core = [setting for setting in found if setting.process.part.plugin.name == "core"]
    if subject.role == "process":
        core = found[:1]
    chosen = core or found[:1]
    if not chosen:
        raise Inapplicable("no process and parameterization that are installed go with it")
    return chosen


def _settings(subject: Subject) -> Iterator[Setting]:
    for process in candidates(subject, "process"):
        for parameterization in candidates(subject, "parameterization"):
            parts = {
                "process": process,
                "parameterization": parameterization,
                subject.role: subject,
            }
            if compatible(list(parts.values())):
                yield Setting(process, parameterization)
                break


def candidates(subject: Subject, role: str) -> list[Subject]:
    """Parts of a role in the order in which they are tried: itself alone for its own role, else
    core's, its own plugin's, and all others.
    """
    if role == subject.role:
        return [subject]
    nearness = {"core": 0, subject.part.plugin.name: 1}
    found = []
    for part in subject.plugins.parts():
        if part.role == role:
            found += [it for it in subjects(part, subject.plugins) if _loads(it)]
    return sorted(found, key=lambda it: nearness.get(it.part.plugin.name, 2))


def _loads(subject: Subject) -> bool:
    try:
        return subject.kind is not None
    except UsageError:
        return False


def compatible(parts: Sequence[Subject]) -> bool:
    """Whether all requirements among some parts are met."""
    kinds = {part.role: part.kind for part in parts}
    return all(
        issubclass(kinds.get(role, needed), needed)
        for kind in kinds.values()
        for role, needed in requirements(kind).items()
    )


def composition(subject: Subject) -> Composition:
    """All six roles around a part: a family's defaults, or the nearest to them that go with it.

    Raises:
        LawBroken: nothing does, though there are parts for every role.
        Inapplicable: there are none for some role.
    """
    lacking = [role for role in ROLES if not candidates(subject, role)]
    if lacking:
        raise Inapplicable(f"no {' and no '.join(lacking)} is installed to compose it with")
    refused = ""
    for names in islice(_compositions(subject), ATTEMPTS):
        words = [f"--{role}={name}" for role, name in names.items()]
        words += [f"--{subject.role}.{key}={value}" for key, value in subject.options.items()]
        try:
            return compose(words, subject.plugins, prog="check", environ={})[0]
        except UsageError as error:
            refused = refused or str(error)
    raise LawBroken(refused or "nothing that is installed goes with what it requires")


def _compositions(subject: Subject) -> Iterator[Mapping[str, str]]:
    for process in candidates(subject, "process"):
        defaults = {**FALLBACK, **process_names(subject.plugins, process.name)}
        parts = {"process": process, subject.role: subject}
        if compatible(list(parts.values())):
            rest = [role for role in ROLES if role not in parts]
            yield from _filled(subject, parts, rest, defaults)


def _filled(
    subject: Subject, parts: Mapping[str, Subject], rest: Sequence[str], defaults: Mapping[str, str]
) -> Iterator[Mapping[str, str]]:
    if not rest:
        yield {role: part.name for role, part in parts.items()}
        return
    role = rest[0]
    for candidate in sorted(candidates(subject, role), key=lambda it: it.name != defaults[role]):
        more = {**parts, role: candidate}
        if compatible(list(more.values())):
            yield from _filled(subject, more, rest[1:], defaults)
