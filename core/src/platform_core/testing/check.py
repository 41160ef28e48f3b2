"""Selection of the laws for each part, and the verdicts of testing them."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from time import perf_counter
from typing import Literal

import torch

from platform_core.component import KINDS, ROLES
from platform_core.errors import UsageError, did_you_mean, reason
from platform_core.registry.parts import Part, Plugins
from platform_core.testing import (
    backbone,
    objective,
    parameterization,
    process,
    sampler,
    schedule,
    structure,
)
from platform_core.testing.law import Figures, Inapplicable, Law, LawBroken, Unclaimed
from platform_core.testing.services import ANY_SERVICE, SERVICE_LAWS
from platform_core.testing.subject import Given, Subject, subjects, unclaimed

ROLE_LAWS = {
    "process": process.LAWS,
    "schedule": schedule.LAWS,
    "parameterization": parameterization.LAWS,
    "backbone": backbone.LAWS,
    "objective": objective.LAWS,
    "sampler": sampler.LAWS,
}

FOR_SERVICES = ("complete", "registers-lightly")
"""Ids of the laws in `structure` that services must keep too."""

Outcome = Literal["passed", "broken", "unclaimed", "inapplicable"]


@dataclass(frozen=True)
class Verdict:
    """The outcome of testing one law on one part."""

    outcome: Outcome
    says: str
    """Figures of the test, or why the law does not apply."""
    seconds: float


@dataclass(frozen=True)
class Case:
    """One law to be tested on one part."""

    subject: Subject
    law: Law

    @property
    def unclaimed(self) -> str:
        """Why the part does not claim to keep the law; empty if it claims it."""
        if self.law.role is None or self.reason_against:
            return ""
        return str(unclaimed(self.subject.kind).get(self.law.id, ""))

    @cached_property
    def reason_against(self) -> str:
        """Why the law does not apply, as far as the part's class shows; empty if it applies."""
        try:
            return self.law.reason_against(self.subject)
        except UsageError:
            return "" if self.law.id == "complete" else "its class cannot be loaded"

    def test(self) -> Figures:
        """Test the law, with torch's random state seeded for the test and restored afterwards.

        Raises:
            LawBroken: the part breaks the law.
            Unclaimed: the part breaks the law, and says that it does not claim to keep it.
            Inapplicable: the law does not apply to the part.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            try:
                found = self.law.test(self.subject)
            except LawBroken as broken:
                if not self.unclaimed:
                    raise
                raise Unclaimed(f"{self.unclaimed}; {broken}") from broken
            if not self.unclaimed:
                return found
            return "it is not claimed, but it holds" + (f"; {found}" if found else "")

    def verdict(self) -> Verdict:
        """Test the law and return the verdict; any exception of the part breaks the law."""
        if self.reason_against:
            return Verdict("inapplicable", self.reason_against, 0.0)
        started = perf_counter()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = self.test() or ""
            outcome: Outcome = "passed"
        except Unclaimed as why:
            outcome, found = "unclaimed", str(why)
        except Inapplicable as why:
            outcome, found = "inapplicable", str(why)
        except LawBroken as broken:
            outcome, found = "broken", str(broken)
        except Exception as error:  # third-party code may raise anything
            outcome, found = "broken", reason(error)
        return Verdict(outcome, found, perf_counter() - started)


def cases(parts: Iterable[Part], plugins: Plugins, given: Given | None = None) -> Iterator[Case]:
    """Yield each part's laws: those of `structure` once, those of its role for each form.

    Args:
        parts: the parts to test.
        plugins: all installed plugins.
        given: options that the user gives to some of the parts (`given.given`).
    """
    for part in parts:
        if part.role not in ROLES:
            subject = Subject(part, plugins)
            yield from (Case(subject, law) for law in structure.LAWS if law.id in FOR_SERVICES)
            yield from (Case(subject, law) for law in ANY_SERVICE)
            yield from (Case(subject, law) for law in SERVICE_LAWS.get(part.role, ()))
            continue
        for number, subject in enumerate(subjects(part, plugins, given)):
            laws = (*(structure.LAWS if number == 0 else ()), *ROLE_LAWS.get(part.role, ()))
            every = (Case(subject, law) for law in laws)
            yield from (case for case in every if not (case.law.silent and case.reason_against))


def named(names: Sequence[str], plugins: Plugins) -> list[Part]:
    """The parts selected by names, each part once; all installed parts if no name is given.

    A name is that of a plugin or a distribution, which selects all its parts, that of a part, or
    ROLE:PART.

    Raises:
        UsageError: a name selects no installed part.
    """
    parts = list(plugins.parts(KINDS))
    if not names:
        return parts
    chosen = {id(part) for name in names for part in _named(name, parts, plugins)}
    return [part for part in parts if id(part) in chosen]


def _named(name: str, parts: Sequence[Part], plugins: Plugins) -> list[Part]:
    role, colon, own = name.partition(":")
    found = [
        part
        for part in parts
        if (part.role == role and part.component.name == own)
        or part.component.name == name
        or part.plugin.goes_by(name)
    ]
    if found:
        return found
    for plugin in plugins.plugins:
        if plugin.goes_by(name):
            raise UsageError(
                f"plugin {name} has no parts: {plugin.reason or 'its hooks are empty'}"
            )
    if colon and role not in KINDS:
        raise UsageError(f"{role!r} is not a role; the roles are {', '.join(KINDS)}")
    known = [part.component.name for part in parts if not colon or part.role == role]
    known += [] if colon else [plugin.name for plugin in plugins.plugins]
    known += [] if colon else [plugin.distribution for plugin in plugins.plugins]
    near = did_you_mean(own if colon else name, known)
    raise UsageError(
        f"nothing called {name!r} is installed{near or '; platform plugins lists all parts'}"
    )
