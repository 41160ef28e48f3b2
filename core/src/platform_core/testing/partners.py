"""The other parts that one is examined with: as few as it needs, the platform's own first."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import torch

from platform_core.backbone import Backbone
from platform_core.component import ROLES
from platform_core.composition.choice import FALLBACK, process_names
from platform_core.composition.compatibility import requirements
from platform_core.composition.compose import Composition, compose
from platform_core.errors import UsageError
from platform_core.model import Model
from platform_core.parameterization import Parameterization, PredictsClean, ScoreBased
from platform_core.process import Diffusion, Process
from platform_core.schedule import LogLinear
from platform_core.testing.law import Inapplicable, LawBroken
from platform_core.testing.subject import Subject, subjects
from platform_core.testing.toy import (
    CausalNetwork,
    ExactDenoiser,
    ExactLogScore,
    ExactPredictor,
    ExactScore,
    Mistaken,
    TinyNetwork,
    ToyLaw,
    all_sequences,
)

ATTEMPTS = 50
"""Compositions that are tried before a part is said to go with nothing."""


@dataclass(frozen=True)
class Setting:
    """A process and a parameterization that a part goes with."""

    process: Subject
    parameterization: Subject

    def __str__(self) -> str:
        form = f" {self.process.form}" if self.process.form else ""
        return f"with {self.process.name}{form} and {self.parameterization.name}"

    def parts(self, vocab_size: int) -> tuple[Process, Parameterization]:
        """Both of them, for a vocabulary."""
        process: Process = self.process.make(vocab_size=vocab_size)
        return process, self.parameterization.make(
            vocab_size=vocab_size, num_states=process.num_states
        )

    def exact(self, law: ToyLaw, *, mistaken: bool = False) -> Model:
        """The model of a law whose network knows it, under alpha = 1 - t.

        Args:
            law: of text.
            mistaken: the network knows it badly.

        Raises:
            Inapplicable: what logits would say so is not known.
        """
        process, parameterization = self.parts(law.num_tokens)
        backbone = exact_backbone(law, process, parameterization)
        if mistaken:
            backbone = Mistaken(backbone, (law.length, process.num_states))
        return Model(process, LogLinear(eps=0), parameterization, backbone).eval()

    def tiny(self, vocab_size: int) -> tuple[Model, TinyNetwork | CausalNetwork]:
        """A model with a small network that knows nothing yet, and that network."""
        process, parameterization = self.parts(vocab_size)
        kind = CausalNetwork if process.causal else TinyNetwork
        backbone = kind(process.num_states)
        return Model(process, LogLinear(), parameterization, backbone).eval(), backbone


def exact_backbone(law: ToyLaw, process: Process, parameterization: Parameterization) -> Backbone:
    """The network whose output stands for a law of text.

    A parameterization that predicts clean tokens reads it from their log-probabilities. Of any
    other score, three readings are tried: these, these relative to equally likely tokens, and the
    score itself.

    Raises:
        Inapplicable: none of them gives the right score.
    """
    if not isinstance(process, Diffusion):
        return ExactPredictor(law, process.num_states)
    if isinstance(parameterization, PredictsClean):
        return ExactDenoiser(law, process)
    if isinstance(parameterization, ScoreBased):
        for kind in (ExactDenoiser, ExactScore, ExactLogScore):
            backbone = kind(law, process)
            if score_error(law, process, parameterization, backbone) < 1e-9:
                return backbone
    raise Inapplicable("which logits of this parameterization are exact is not known")


def score_error(
    law: ToyLaw, process: Diffusion, parameterization: ScoreBased, backbone: Backbone
) -> float:
    """How far a model's score is from the exact one, at most, where a token can change."""
    states = all_sequences(process.num_states, law.length)
    worst = 0.0
    for level in (0.7, 0.2):
        alpha = torch.tensor([[level]], dtype=torch.float64)
        logits = backbone(states, -alpha.log() if process.time_conditioned else None)
        found = parameterization.log_score(logits, states, alpha, process)
        exact = process.log_score(law.log_x0(states, alpha, process), states, alpha)
        difference = (found.exp() - exact.exp()).abs() / exact.exp().clamp_min(1)
        worst = max(worst, float(difference[process.changeable(states)].nan_to_num(math.inf).max()))
    return worst


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
            found += [it for it in subjects(part, subject.plugins) if _usable(it)]
    return sorted(found, key=lambda it: nearness.get(it.part.plugin.name, 2))


def _usable(subject: Subject) -> bool:
    """Whether a part can be had and says what it requires: another plugin's fault is its own."""
    try:
        return all(isinstance(needed, type) for needed in requirements(subject.kind).values())
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
