"""The bound on held-out text, with its standard errors and its parts by noise level."""

import math
from dataclasses import asdict, dataclass

import torch
from accelerate import Accelerator
from torch import Tensor

from platform_core.data.sequences import TokenSplit
from platform_core.draws import Draws
from platform_core.errors import UsageError
from platform_core.model import first_not_finite
from platform_core.objective import Objective, Protocol
from platform_core.record.progress import shown
from platform_core.runtime.accelerator import own_share

NUM_LEVELS = 10
"""Number of equal parts into which a bound by noise level divides the times."""


QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Level:
    """The bound's integrand over one part of the times; the mean over all parts is the bound.

    Under the exact protocol the time is the share of noise, 1 - alpha; under the published protocol
    it is the time of the schedule. `quantiles` are the quantiles at `QUANTILES` of the nats per
    token of single sequences.
    """

    start: float
    end: float
    nats_per_token: float
    standard_error: float
    sequences: int
    quantiles: tuple[float, ...] = ()


@dataclass(frozen=True)
class Bound:
    """An upper bound on -log p of a text, per token.

    `standard_error` is that of `nats_per_token`, over sequences and their noise: how far a draw
    of as many sequences would be from this one. It is widened for few or heavy-tailed values, so
    that 1.96 of it on either side hold the truth about 95 % of the time (`widened`); of short
    texts under uniform noise, whose values have the heaviest tails, 80 to 94 % of the time
    (`experiments/error_bars.py`). `noise_error` is the part of it that more noise
    levels for each sequence would lower: how far the same sequences would be with other noise. Each
    is NaN where there is nothing to estimate it from, one sequence or one noise level.
    `noise_levels` is how many each sequence was read at; 0 for a value that needs none.
    """

    nats_per_token: float
    standard_error: float
    tokens: int
    characters: int
    sequences: int
    noise_levels: int = 1
    noise_error: float = math.nan
    levels: tuple[Level, ...] = ()

    @property
    def bits_per_token(self) -> float:
        """The bound in bits per token."""
        return self.nats_per_token / math.log(2)

    @property
    def bits_per_character(self) -> float:
        """Bits of all tokens, per character of the text."""
        return self.bits_per_token * self.tokens / self.characters

    @property
    def perplexity(self) -> float:
        return math.inf if self.nats_per_token >= 700 else math.exp(self.nats_per_token)

    def curves(self) -> dict[str, float]:
        """The figures drawn as curves, by name; `standard_error` is in nats per token."""
        return {
            "nats_per_token": self.nats_per_token,
            "standard_error": self.standard_error,
            "bits_per_token": self.bits_per_token,
            "bits_per_character": self.bits_per_character,
            "perplexity": self.perplexity,
        }

    def summary(self) -> dict[str, object]:
        """Every figure by name, with the counts behind them."""
        return {**asdict(self), **self.curves()}


@torch.no_grad()
def evaluate(
    objective: Objective,
    split: TokenSplit,
    accelerator: Accelerator,
    *,
    sequences: int,
    batch_size: int,
    protocol: Protocol,
    seed: int,
    draws: int = 1,
) -> Bound:
    """Compute the bound on `sequences` sequences of a split, spread evenly (0: all).

    Each sequence is read at `draws` noise levels. The levels are stratified over the whole
    evaluation and over the levels of each sequence, so the position of a sequence, not the batch
    size, decides which levels it gets. Of labelled text, the bound is given the labels.

    Raises:
        UsageError: the objective has no bound; or the sequences hold no characters; or the bound
            of one is not finite.
    """
    require_bound(objective)
    split = split.spread(sequences)
    number, characters = len(split), split.num_characters()
    if not characters:
        raise UsageError(
            f"the {number} sequences to evaluate hold no characters, only marks of documents; "
            "raise --evaluate.sequences and --evaluate.on_the_way, or --data.length"
        )
    rounds = draws if objective.noise_levels else 1
    training = objective.training
    objective.eval()
    nats, times, tokens = _read(
        objective, split, accelerator, batch_size, rounds=rounds, protocol=protocol, seed=seed
    )
    objective.train(training)
    _require_finite(objective, nats)
    mean, error = ratio(nats.mean(0), tokens)
    from_noise = noise_error(nats, times, tokens)
    return Bound(
        mean,
        # The noise is a part of the whole, so its error is no larger.
        from_noise if from_noise > error else error,
        tokens=int(tokens.sum()),
        characters=characters,
        sequences=number,
        noise_levels=rounds if objective.noise_levels else 0,
        noise_error=from_noise,
        levels=_levels(nats, times, tokens) if objective.noise_levels else (),
    )


def _read(
    objective: Objective,
    split: TokenSplit,
    accelerator: Accelerator,
    batch_size: int,
    *,
    rounds: int,
    protocol: Protocol,
    seed: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Nats and times, `[rounds, number]`, and the tokens of each sequence, from all processes.

    Times are NaN where a sequence has several.
    """
    number = len(split)
    nats = torch.zeros(rounds, number, dtype=torch.float64, device=accelerator.device)
    times, tokens = torch.zeros_like(nats), torch.zeros_like(nats[0])
    batches = own_share(range(0, number, batch_size))
    show = accelerator.is_main_process
    for first in shown(batches, "evaluating", unit="batch", show=show):
        rows = range(first, min(first + batch_size, number))
        here = slice(rows.start, rows.stop)
        batch = split.batch(rows).to(accelerator.device)
        tokens[here] = batch.mask.sum(-1)
        for turn in range(rounds):
            noise = Draws.derive(
                seed,
                "evaluate",
                step=0,
                first=turn * number + first,
                total=rounds * number,
                device=accelerator.device,
                rounds=rounds,
            )
            with accelerator.autocast():
                loss = objective.bound(batch, noise, protocol)
            nats[turn, here] = loss.per_token.double().sum(-1)
            if loss.times is not None:
                alone = loss.times.shape[1] == 1
                times[turn, here] = loss.times.squeeze(-1) if alone else math.nan
    return accelerator.reduce(nats), accelerator.reduce(times), accelerator.reduce(tokens)


def require_bound(objective: Objective) -> None:
    """Raises UsageError if an objective says that it has no bound on -log p."""
    if not objective.has_bound:
        raise UsageError(
            f"the objective {type(objective).__name__} says that it has no bound on -log p, so "
            "there is no perplexity to measure; measure samples with --judge MODEL, or train with "
            "an objective that has one"
        )


def _require_finite(objective: Objective, nats: Tensor) -> None:
    """Raises UsageError if the nats `[rounds, number]` of any sequence are not finite."""
    wrong = (~nats.isfinite()).nonzero()
    if not len(wrong):
        return
    turn, sequence = wrong[0].tolist()
    name = first_not_finite(dict(objective.named_parameters()))
    why = f"the weight {name} is not finite" if name else "all weights are finite"
    raise UsageError(
        f"the bound of sequence {sequence} is {float(nats[turn, sequence]):g} nats, and {why}; "
        "take an earlier checkpoint, train with a lower --train.learning_rate, or try "
        "--train.precision fp32"
    )


def ratio(nats: Tensor, tokens: Tensor) -> tuple[float, float]:
    """Nats per token of some sequences and its error, as wide as `widened` makes it; the error of
    less than two is NaN.
    """
    number, total = len(nats), tokens.sum()
    mean = nats.sum() / total
    if number < 2:
        return float(mean), math.nan
    left = nats - mean * tokens
    squares = left.square()
    error = float((squares.sum() * number / (number - 1)).sqrt())
    freedom = _freedom(squares, 2) * (number - 1) / number
    return float(mean), widened(error, float(left.pow(3).sum()), freedom) / float(total)


NORMAL = 1.959964
"""Standard errors on either side of a normal mean that hold 95 % of it."""


def widened(error: float, third: float, freedom: float) -> float:
    """The standard error of a sum, made so wide that `NORMAL` of it hold about 95 %.

    Of few sums of heavy-tailed values the plain error is too small when the mean is: both miss the
    rare large values. Two factors make up for that: that of Student's t for as many degrees of
    freedom as the values are worth, and that of Hall's transformation for their skewness a,

        3 / a ( 1 - cbrt(1 - a (z + a / 6)) ) / z,   z = NORMAL

    Both come to 1 with more values of finite variance.

    Args:
        error: the plain standard error of a sum, 0 for one that does not vary.
        third: estimate of the sum's third central moment.
        freedom: degrees of freedom of `error`; taken for 1 where it is less.

    Source: P. Hall, On the removal of skewness by transformation, 1992; the expansion of t for
    `freedom`, Abramowitz and Stegun 26.7.5.
    """
    if error == 0:
        return 0.0
    z, n = NORMAL, max(freedom, 1.0)
    student = 1 + (z**2 + 1) / (4 * n) + (5 * z**4 + 16 * z**2 + 3) / (96 * n**2)
    a = abs(third) / error**3
    if a < 1e-6:
        return error * student
    rest = 1 - a * (z + a / 6)
    skewed = 3 / a * (1 - math.copysign(abs(rest) ** (1 / 3), rest)) / z
    return error * student * max(1.0, skewed)


def _freedom(squares: Tensor, rounds: int) -> float:
    """Satterthwaite's degrees of freedom of a sum of variances, each from `rounds` values; for
    single squared deviations `rounds` is 2. That of equal variances of normal values is their
    number times `rounds` - 1; heavy tails leave less.
    """
    most = squares.square().sum()
    return float((rounds + 1) * squares.sum().square() / most) if most > 0 else 1.0


def quantiles(values: Tensor) -> tuple[float, ...]:
    """The quantiles at `QUANTILES`; each is one of the values, the nearest below."""
    ranked = values.sort().values
    return tuple(float(ranked[int(share * (len(ranked) - 1))]) for share in QUANTILES)


def noise_error(nats: Tensor, times: Tensor, tokens: Tensor) -> float:
    """The part of an error that comes from the noise, from the spread of each sequence's own draws.

    Each sequence has one draw in each part of the times; what the values of all sequences in a part
    have in common is no noise, and is taken off. Under uniform noise the variance of the exact
    bound is infinite in theory, and few draws of short texts have not seen the rare large values:
    then it covers less often than 95 %, though `widened`. `experiments/error_bars.py` measures how
    often.

    Args:
        nats: of each sequence at each of its noise levels, `[rounds, number]`.
        times: of these levels.
        tokens: of each sequence.

    Returns:
        Nats per token; NaN for one round.
    """
    (rounds, number), total = nats.shape, tokens.sum()
    if rounds == 1:
        return math.nan
    rest = nats.gather(0, times.argsort(0))
    if number > 1:
        rest = rest - rest.sum(1, keepdim=True) / total * tokens
    left = rest - rest.mean(0)
    shared = number / max(1, number - 1)
    variances = left.square().sum(0) * shared / (rounds - 1)
    plain = float((variances / rounds).sum().sqrt())
    # Not from `left`: of two draws these are as skewed to one side as to the other.
    third = float(rest.pow(3).sum()) / rounds**3 if number > 1 else 0.0
    return widened(plain, third, _freedom(variances, rounds)) / float(total)


def _levels(nats: Tensor, times: Tensor, tokens: Tensor) -> tuple[Level, ...]:
    """The integrand over each part of the times in which at least one token was read; nothing if
    sequences have several times.
    """
    if times.isnan().any():
        return ()
    parts = (times * NUM_LEVELS).long().clamp_max(NUM_LEVELS - 1)
    everywhere = tokens.expand_as(nats)
    found = []
    for part in range(NUM_LEVELS):
        inside = parts == part
        if not everywhere[inside].sum():
            continue
        mean, error = ratio(nats[inside], everywhere[inside])
        ends = part / NUM_LEVELS, (part + 1) / NUM_LEVELS
        counted = inside & (everywhere > 0)
        single = quantiles(nats[counted] / everywhere[counted])
        found.append(Level(*ends, mean, error, int(inside.sum()), single))
    return tuple(found)
