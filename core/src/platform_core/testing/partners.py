"""Parts to test another part with: as few as it needs, the platform's own parts first."""

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
from platform_core.testing.subject import Subject, option_words, subjects
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
"""Number of compositions that are tried before a part is reported to go with no other parts."""


@dataclass(frozen=True)
class Setting:
    """A process and a parameterization that go with the part under test."""

    process: Subject
    parameterization: Subject

    def __str__(self) -> str:
        form = f" {self.process.form}" if self.process.form else ""
        return f"with {self.process.name}{form} and {self.parameterization.name}"

    def parts(self, vocab_size: int) -> tuple[Process, Parameterization]:
        """Make the process and the parameterization for a vocabulary of `vocab_size` tokens."""
        process: Process = self.process.make(vocab_size=vocab_size)
        return process, self.parameterization.make(
            vocab_size=vocab_size, num_states=process.num_states
        )

    def exact(self, law: ToyLaw, *, mistaken: bool = False) -> Model:
        """A model that predicts a distribution of text exactly, with alpha = 1 - t.

        Args:
            law: distribution of the text.
            mistaken: whether the network's logits are perturbed (`toy.Mistaken`).

        Raises:
            Inapplicable: the exact logits of the parameterization are not known.
        """
        process, parameterization = self.parts(law.num_tokens)
        backbone = exact_backbone(law, process, parameterization)
        if mistaken:
            backbone = Mistaken(backbone, (law.length, process.num_states))
        return Model(process, LogLinear(eps=0), parameterization, backbone).eval()

    def tiny(self, vocab_size: int) -> tuple[Model, TinyNetwork | CausalNetwork]:
        """A model with a small untrained network, and that network."""
        process, parameterization = self.parts(vocab_size)
        kind = CausalNetwork if process.causal else TinyNetwork
        backbone = kind(process.num_states)
        return Model(process, LogLinear(), parameterization, backbone).eval(), backbone


def exact_backbone(law: ToyLaw, process: Process, parameterization: Parameterization) -> Backbone:
    """The network whose logits represent a distribution of text exactly.

    For a parameterization that predicts clean tokens, logits are the log-probabilities of these
    tokens given all others, or given all noisy tokens if that gives the exact score. For any other
    `ScoreBased` parameterization three kinds of logits are tried: log-probabilities,
    log-probabilities relative to the uniform distribution, and log-scores.

    A process or a parameterization of another kind may know its network itself: its method
    `oracle(law, process, parameterization)` returns it.

    Raises:
        Inapplicable: none of these logits gives the exact score.
    """
    for part in (parameterization, process):
        oracle = getattr(part, "oracle", None)
        if oracle is not None:
            backbone: Backbone = oracle(law, process, parameterization)
            return backbone
    if not isinstance(process, Diffusion):
        return ExactPredictor(law, process.num_states)
    if isinstance(parameterization, PredictsClean):
        denoiser = ExactDenoiser(law, process, own_evidence=True)
        if score_error(law, process, parameterization, denoiser) < 1e-9:
            return denoiser
        return ExactDenoiser(law, process)
    if isinstance(parameterization, ScoreBased):
        for kind in (ExactDenoiser, ExactScore, ExactLogScore):
            backbone = kind(law, process)
            if score_error(law, process, parameterization, backbone) < 1e-9:
                return backbone
    raise Inapplicable("the exact logits of this parameterization are not known")


def score_error(
    law: ToyLaw, process: Diffusion, parameterization: ScoreBased, backbone: Backbone
) -> float:
    """The largest error of a model's score over changeable tokens; relative for scores above 1."""
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
    """The settings to test a part in: each of core's processes that goes with the part, else the
    first other process; each with the first parameterization that goes with both.

    Raises:
        Inapplicable: no installed process and parameterization go with the part.
    """
    found = list(_settings(subject))
    core = [setting for setting in found if setting.process.part.plugin.name == "core"]
    if subject.role == "process":
        core = found[:1]
    chosen = core or found[:1]
    if not chosen:
        raise Inapplicable("no installed process and parameterization go with it")
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
    """The parts of a role to test a part with: core's first, then those of the part's plugin, then
    all others. For the part's own role, only the part itself.
    """
    if role == subject.role:
        return [subject]
    nearness = {"core": 0, subject.part.plugin.name: 1}
    found = []
    for part in subject.plugins.parts():
        if part.role == role:
            forms = subjects(part, subject.plugins, subject.given)
            found += [it for it in forms if _usable(it)]
    return sorted(found, key=lambda it: nearness.get(it.part.plugin.name, 2))


def _usable(subject: Subject) -> bool:
    """Whether a part can be loaded and requires classes; a faulty part is no partner for others."""
    try:
        return all(isinstance(needed, type) for needed in requirements(subject.kind).values())
    except UsageError:
        return False


def compatible(parts: Sequence[Subject]) -> bool:
    """Whether parts meet all requirements that they have of each other."""
    kinds = {part.role: part.kind for part in parts}
    return all(
        issubclass(kinds.get(role, needed), needed)
        for kind in kinds.values()
        for role, needed in requirements(kind).items()
    )


def composition(subject: Subject) -> Composition:
    """Compose a part with parts of the other roles: a process's defaults, if they go with it.

    Raises:
        LawBroken: no composition with the part is valid, though every role has installed parts.
        Inapplicable: some role has no installed parts.
    """
    lacking = [role for role in ROLES if not candidates(subject, role)]
    if lacking:
        raise Inapplicable(f"no {' and no '.join(lacking)} is installed to compose it with")
    refused = ""
    for names in islice(compositions(subject), ATTEMPTS):
        words = [f"--{role}={name}" for role, name in names.items()]
        for role, name in names.items():
            given = subject.given.get((role, name), {})
            words += subject.words if role == subject.role else option_words(role, given)
        try:
            return compose(words, subject.plugins, prog="check", environ={})[0]
        except UsageError as error:
            refused = refused or str(error)
    raise LawBroken(refused or "no installed parts meet its requirements")


def compositions(subject: Subject) -> Iterator[Mapping[str, str]]:
    """Yield names of parts that go with a part, one for each role: its process's defaults first."""
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
