"""Likelihoods of continuations: log p(x | c) of text x after a context c, for any trained model.

    Exact           log p(x | c), from left to right
    CleanContext    -B(x | c), the bound of x alone, with c clean in every input of the network
    NoisedContext   B(c) - B(c x), minus the growth of the bound from c to the whole text

B(x | c) is the time integral of E f_t over the positions of x, with x noised as in training. It is
the bound of the chain that a sampler walks with c as its prompt, so for any network:

    B(x | c) >= -log p_theta(x | c),  and so  sum_x exp(-B(x | c)) <= 1

The bound is tight where the network predicts p(x_0 at l | c clean, x_t at the other places of x).
Under masks, training teaches just this prediction, since a text with c unmasked is one of its noisy
texts, and the best network has B(x | c) = -log p(x | c). Under uniform noise, the network is told
one noise level for the whole text and takes c to be as noisy as x: even of the best network,
B(x | c) is above -log p(x | c) on average. B(c) - B(c x) is log p(x | c) for the best network of
every process; for other networks it is a difference of two bounds but no bound itself, and it
varies more. So masks leave the context clean by default, and other noise does not.

Bounds are estimated at stratified noise (`at_counts`). All texts of a question share the noise,
position by position after the given tokens, so that it partly cancels in their differences. Nothing
is divided by a length: lm_eval's acc_norm does that. The given tokens of a text include the
beginning of the document, and no token stands for its end. Used by `tasks`.
"""

import math
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, final

import torch
from torch import Tensor

from platform_core.distillation import Distillation
from platform_core.draws import END_MARGIN, Draws
from platform_core.errors import UsageError
from platform_core.evaluation.bound import require_bound
from platform_core.objective import DiffusionObjective, Guessing, Noised, Objective
from platform_core.process import Absorbing, Interpolating
from platform_core.schedule import LogLinear, Schedule
from platform_core.types import Batch, Labels, Nats, Noise, Selected, Tokens

ROWS_AT_ONCE = 2**13
"""Approximate number of noisy texts that are collected, to form batches of equal length."""


class Text(NamedTuple):
    """A text of which the first tokens are given."""

    tokens: tuple[int, ...]
    given: int


class Question(NamedTuple):
    """Texts to be compared with each other."""

    texts: Sequence[Text]
    seed: int
    """Seed of the noise levels and the noise, which all texts of the question share."""


class Answer(NamedTuple):
    """Scores of the texts of one question under a model."""

    log_probs: list[float]
    """Log-probability of the tokens that are not given, in nats, for each text."""
    standard_errors: list[float]
    """Standard error of each log-probability over its noise; 0 for exact values."""
    margin: float
    """Lead of the best text over the next in nats; infinite if there is only one text."""
    margin_error: float
    """Standard error of `margin`, which is a difference with shared noise."""
    sum_error: float
    """Standard error of the sum of all `log_probs`, which share noise."""
    guessed: list[bool]
    """Whether the tokens that are not given are those that the model finds likeliest."""


class Rows(NamedTuple):
    """Texts of one length, each repeated as often as it is read."""

    x0: Tokens
    asked: Selected
    x_t: Tokens
    alpha: Noise
    slope: Noise
    weights: Nats
    """Factor of the integrand of each row."""


class Likelihood(ABC):
    """Base class of the ways to compute log p(x | c) under an objective.

    Args:
        objective: objective of the trained model.
        draws: number of noise levels at which each text is read.
    """

    name: ClassVar[str]

    def __init__(self, objective: Objective, draws: int) -> None:
        self.objective, self.draws = objective, draws

    @abstractmethod
    def parts(self, text: Text) -> list[tuple[int, Text]]:
        """The bounds whose signed sum is log p(x | c), each with its sign."""

    @abstractmethod
    def rows(self, text: Text, width: int, draws: Draws) -> Rows:
        """The rows of a text, with noise drawn for `width` tokens to score."""

    @abstractmethod
    def nats(self, rows: Rows, labels: Labels | None = None) -> Nats:
        """-log p of all tokens that are asked for, or its integrand, of each row."""


@final
class Exact(Likelihood):
    """Exact log p, from an objective that needs no noise."""

    name = "exact"

    def parts(self, text: Text) -> list[tuple[int, Text]]:
        return [(-1, text)]

    def rows(self, text: Text, width: int, draws: Draws) -> Rows:
        """One row, because the text is read once."""
        x0, asked = _tensors(text, 1, draws.device)
        clean = torch.ones(1, 1, dtype=torch.float64, device=x0.device)
        return Rows(x0, asked, x0, clean, -clean, clean[:, 0])

    def nats(self, rows: Rows, labels: Labels | None = None) -> Nats:
        """Nats of the tokens after the context; tokens to their right do not change them."""
        draws = Draws.derive("exact", step=0, first=0, total=1, device=rows.x0.device)
        batch = Batch(rows.x0, rows.asked, labels)
        return self.objective.bound(batch, draws).per_token.double().sum(-1)


class Bounded(Likelihood):
    """Base class of likelihoods from the bound of a diffusion, at stratified noise."""

    def __init__(self, objective: DiffusionObjective, draws: int) -> None:
        super().__init__(objective, draws)
        self.bound = objective
        process = objective.denoiser.process
        assert isinstance(process, Interpolating), "see choose"
        self.process = process
        schedule = objective.exact_schedule
        straight = isinstance(schedule, LogLinear) and schedule.eps == 0
        self.noise = at_counts if straight else at_any_level

    def rows(self, text: Text, width: int, draws: Draws) -> Rows:
        """Rows with clean given tokens; the noise of each other token depends on its place."""
        x0, asked = _tensors(text, self.draws, draws.device)
        u = draws.times(self.draws)
        u = u[u.squeeze(-1).argsort()]

        def noise(levels: Noise, generator: torch.Generator) -> tuple[Noise, Tokens]:
            shape, device = (*levels.shape[:2], width), generator.device
            reached = torch.rand(shape, generator=generator, dtype=torch.float64, device=device)
            return reached, self.process.sample_prior(shape, generator)

        # All readings of a question are drawn together, so they go together by place.
        (reached,), (spare,) = draws.each(noise, u[None])
        number = x0.shape[1] - text.given
        costs = not isinstance(self.process, Absorbing)
        schedule = self.bound.exact_schedule
        t, weights, noisy = self.noise(u, reached[:, :number], schedule, clean_costs=costs)
        scored = torch.where(noisy, spare[:, :number], x0[:, text.given :])
        return Rows(
            x0,
            asked,
            torch.cat((x0[:, : text.given], scored), dim=1),
            schedule.alpha(t),
            schedule.slope(t),
            weights,
        )

    def nats(self, rows: Rows, labels: Labels | None = None) -> Nats:
        noised = Noised(rows.x_t, rows.x_t, rows.alpha, rows.slope)
        batch = Batch(rows.x0, rows.asked, labels)
        per_token = self.bound.integrand(batch, noised).per_token
        return per_token.double().sum(-1) * rows.weights


class Noising(NamedTuple):
    """Times at which a text is read, weights of the integrand, and which tokens are noisy."""

    t: Noise
    weights: Nats
    noisy: Selected


@final
class CleanContext(Bounded):
    """-B(x | c): minus the bound of the continuation after its clean context."""

    name = "clean-context"

    def parts(self, text: Text) -> list[tuple[int, Text]]:
        """The bound of the tokens that are not given."""
        return [(-1, text)]


@final
class NoisedContext(Bounded):
    """B(c) - B(c x): the bound of the context minus the bound of the whole text."""

    name = "noised-context"

    def parts(self, text: Text) -> list[tuple[int, Text]]:
        """The bounds of the whole text and of the given tokens."""
        whole, context = Text(text.tokens, 0), Text(text.tokens[: text.given], 0)
        return [(-1, whole), (1, context)] if text.given else [(-1, whole)]


def at_counts(u: Noise, reached: Noise, schedule: Schedule, *, clean_costs: bool) -> Noising:
    """Noise levels at which noise has just reached the m-th of n tokens, for alpha = 1 - t.

        B = sum_{m=0}^n E a_m f_t(noise in the m tokens with e_l <= t),  a_m = t / m

    with e_l uniform in (0, 1) and t = e_(m), the m-th of them in order: t ~ Beta(m, n - m + 1), and

        C(n, m) int_0^1 t^m (1 - t)^(n - m) f dt = E t f / m

    For m = 0, which costs nothing under masks, t is the first of n + 1 times and a_0 = 1 / (n + 1).
    So noise has reached a token at every reading; uniform times near 0 would mostly reach none, and
    would weight the others by 1/t. m is ceil(n u^2): small m are drawn more often, as their values
    vary more.

    Args:
        u: uniform in (0, 1), `[draws, 1]`.
        reached: 1 - alpha at which noise reaches each token, uniform, `[draws, n]`.
        schedule: alpha at each t.
        clean_costs: whether a text that no noise has reached can cost anything.
    """
    n = reached.shape[1]
    p_clean = 1 / (n + 1) if clean_costs else 0.0
    share = ((u - p_clean) / (1 - p_clean)).clamp_min(0).square()
    m = (n * share).ceil().clamp(1, n)
    chance = (1 - p_clean) * ((m / n).sqrt() - ((m - 1) / n).sqrt())
    t = reached.sort(-1).values.gather(-1, m.long() - 1)
    # The first of n + 1 times, one of which belongs to no token.
    before = 1 - (1 - u / max(p_clean, END_MARGIN)).clamp_min(0).pow(1 / (n + 1))
    clean = u < p_clean
    t = torch.where(clean, before, t).clamp(END_MARGIN, 1 - END_MARGIN)
    weights = torch.where(clean, 1 / ((n + 1) * max(p_clean, END_MARGIN)), t / (m * chance))
    return Noising(t, weights.squeeze(-1), (reached <= t) & ~clean)


def at_any_level(u: Noise, reached: Noise, schedule: Schedule, *, clean_costs: bool) -> Noising:
    """Noise levels at times u^2, by which noise has reached any number of tokens."""
    t = u.square().clamp(END_MARGIN, 1 - END_MARGIN)
    return Noising(t, 2 * u.squeeze(-1), reached <= 1 - schedule.alpha(t))


Context = Literal["clean", "noised"]


def choose(objective: Objective, context: Context | None, draws: int) -> Likelihood:
    """The likelihood that suits an objective, or the one that `context` names.

    Raises:
        UsageError: a context is named but the objective's likelihood is exact; or the objective has
            neither an exact likelihood nor a bound that can be read at given noise.
    """
    measured = objective.ordinary if isinstance(objective, Distillation) else objective
    require_bound(measured)
    if not measured.noise_levels:
        if context is not None:
            raise UsageError(
                f"--context {context} is for bounds; this model's likelihood is exact and has no "
                "noise; leave it out"
            )
        return Exact(measured, 1)
    process = measured.model.process
    if not isinstance(measured, DiffusionObjective) or not isinstance(process, Interpolating):
        raise UsageError(
            f"objective {type(measured).__name__} of process {type(process).__name__} has no bound "
            "that can be read at given noise; that takes a DiffusionObjective of an Interpolating "
            "process"
        )
    if context is None:
        context = "clean" if isinstance(process, Absorbing) else "noised"
    return _WAYS[context](measured, draws)


_WAYS: Mapping[Context, type[Bounded]] = {"clean": CleanContext, "noised": NoisedContext}


@torch.no_grad()
def answers(
    likelihood: Likelihood,
    questions: Iterable[Question],
    *,
    device: torch.device,
    batch_size: int,
    label: int | None = None,
) -> Iterator[Answer]:
    """Yield the model's answer to each question, in order.

    Args:
        likelihood: way to compute log p(x | c).
        questions: questions, each with at least one text, which has at least one token.
        device: device of the weights.
        batch_size: noisy texts that are read at once, which changes no answer.
        label: label of all texts, where the network reads labels.
    """
    waiting: list[_Asked] = []
    number = 0
    for question in questions:
        waiting.append(_Asked.of(likelihood, question, device))
        number += waiting[-1].number
        if number >= ROWS_AT_ONCE:
            yield from _read(likelihood, waiting, batch_size, label)
            waiting, number = [], 0
    yield from _read(likelihood, waiting, batch_size, label)


@dataclass(frozen=True)
class _Asked:
    """A question with all parts and rows to read for it."""

    question: Question
    parts: list[list[tuple[int, Text]]]
    rows: Mapping[Text, Rows]
    number: int

    @classmethod
    def of(cls, likelihood: Likelihood, question: Question, device: torch.device) -> "_Asked":
        parts = [likelihood.parts(text) for text in question.texts]
        # Parts that texts have in common are read once.
        texts = dict.fromkeys(text for part in parts for _, text in part)
        width = max(len(text.tokens) - text.given for text in texts)
        rows = {}
        for text in texts:
            # All texts have the same draws, so that they share noise levels and noise.
            draws = Draws.derive(
                question.seed,
                "likelihood",
                step=0,
                first=0,
                total=likelihood.draws,
                device=device,
            )
            rows[text] = likelihood.rows(text, width, draws)
        return cls(question, parts, rows, sum(len(row.x0) for row in rows.values()))


def _read(
    likelihood: Likelihood, asked: Sequence[_Asked], batch_size: int, label: int | None
) -> Iterator[Answer]:
    """Yield one answer to each question, from rows of equal length read together."""
    by_length: dict[int, list[tuple[int, Text, Rows]]] = defaultdict(list)
    for place, one in enumerate(asked):
        for text, rows in one.rows.items():
            by_length[len(text.tokens)].append((place, text, rows))
    nats: dict[tuple[int, Text], Tensor] = {}
    for found in by_length.values():
        together = _joined([rows for _, _, rows in found])
        labels = _labels(label, together.x0.device)
        read = [likelihood.nats(part, labels) for part in _split(together, batch_size)]
        values = torch.cat(read)
        if not values.isfinite().all():
            raise UsageError(
                "the network says of a text that its likelihood is not finite (NaN or infinite); "
                "take an earlier checkpoint, or try --train.precision fp32"
            )
        for place, text, rows in found:
            number = len(rows.x0)
            nats[place, text], values = values[:number], values[number:]
    for place, one in enumerate(asked):
        estimates = [
            torch.stack([sign * nats[place, text] for sign, text in part]).sum(0)
            for part in one.parts
        ]
        guessed = [_guessed(likelihood.objective, text, one, label) for text in one.question.texts]
        yield _answer(torch.stack(estimates), guessed)


def _guessed(objective: Objective, text: Text, of: _Asked, label: int | None) -> bool:
    assert isinstance(objective, Guessing), "see choose"
    device = next(iter(of.rows.values())).x0.device
    x0, asked = _tensors(text, 1, device)
    draws = Draws.derive(of.question.seed, "guess", step=0, first=0, total=1, device=device)
    guesses = objective.guesses(Batch(x0, asked, _labels(label, device)), draws)
    return torch.equal(guesses, x0)


def _answer(estimates: Tensor, guessed: list[bool]) -> Answer:
    """The answer from estimates `[texts, draws]`; all texts share the noise of each draw."""
    means = estimates.mean(-1)
    order = means.argsort(descending=True).tolist()
    margin, error = math.inf, 0.0
    if len(order) > 1:
        difference = estimates[order[0]] - estimates[order[1]]
        margin, error = float(difference.mean()), standard_error(difference)
    return Answer(
        means.tolist(),
        [standard_error(row) for row in estimates],
        margin,
        error,
        standard_error(estimates.sum(0)),
        guessed,
    )


def standard_error(values: Tensor) -> float:
    """Standard error of the mean of values at rising noise levels, one from each of equal strata.

        sum_i (v_{i+1} - v_i)^2 / (2 N (N - 1)),  its root

    All of the average difference of neighbours counts as noise, which is a little too much. The
    error of one value is 0.
    """
    number = len(values)
    if number < 2:
        return 0.0
    return float((values.diff().square().sum() / (2 * number * (number - 1))).sqrt())


def _labels(label: int | None, device: torch.device) -> Labels | None:
    return None if label is None else torch.tensor([label], device=device)


def _tensors(text: Text, number: int, device: torch.device) -> tuple[Tokens, Selected]:
    x0 = torch.tensor(text.tokens, dtype=torch.long, device=device).expand(number, -1)
    return x0, (torch.arange(x0.shape[1], device=device) >= text.given).expand(x0.shape)


def _joined(parts: Sequence[Rows]) -> Rows:
    return Rows(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


def _split(rows: Rows, size: int) -> Iterator[Rows]:
    for first in range(0, len(rows.x0), size):
        yield Rows(*(column[first : first + size] for column in rows))
