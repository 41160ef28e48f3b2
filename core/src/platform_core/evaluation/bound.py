"""The bound on held-out text, with its standard errors and its parts by noise level."""

import math
from dataclasses import asdict, dataclass

import torch
from accelerate import Accelerator
from torch import Tensor

from platform_core.data.sequences import TokenSplit
from platform_core.draws import Draws
from platform_core.errors import UsageError
from platform_core.objective import Objective, Protocol

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

    `standard_error` is the standard error of `nats_per_token` over sequences and their noise: how
    far another sample of as many sequences would be from this one. `noise_error` is the part of
    that error that more noise levels for each sequence would lower: how far the same sequences
    would be with other noise. Either error is NaN where it cannot be estimated, from one sequence
    or one noise level. `noise_levels` is the number of noise levels at which each sequence was
    read; 0 for a value that needs none.
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
        return math.exp(self.nats_per_token) if self.nats_per_token < 700 else math.inf

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
        UsageError: the sequences hold no characters.
    """
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
    mean, error = ratio(nats.mean(0), tokens)
    return Bound(
        mean,
        error,
        tokens=int(tokens.sum()),
        characters=characters,
        sequences=number,
        noise_levels=rounds if objective.noise_levels else 0,
        noise_error=_noise_error(nats, tokens, error),
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
    """Nats and times, `[rounds, number]`, and the tokens of each sequence, from all processes."""
    number = len(split)
    nats = torch.zeros(rounds, number, dtype=torch.float64, device=accelerator.device)
    times, tokens = torch.zeros_like(nats), torch.zeros_like(nats[0])
    rank, world = accelerator.process_index, accelerator.num_processes
    for first in range(rank * batch_size, number, batch_size * world):
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
            )
            with accelerator.autocast():
                loss = objective.bound(batch, noise, protocol)
            nats[turn, here] = loss.per_token.double().sum(-1)
            if loss.times is not None:
                times[turn, here] = loss.times.squeeze(-1)
    return accelerator.reduce(nats), accelerator.reduce(times), accelerator.reduce(tokens)


def ratio(nats: Tensor, tokens: Tensor) -> tuple[float, float]:
    """Nats per token of the sequences, and the standard error; NaN of fewer than two sequences."""
    number, total = len(nats), tokens.sum()
    mean = nats.sum() / total
    if number < 2:
        return float(mean), math.nan
    spread = (nats - mean * tokens).square().sum() * number / (number - 1)
    return float(mean), float(spread.sqrt() / total)


def quantiles(values: Tensor) -> tuple[float, ...]:
    """The quantiles at `QUANTILES`; each is one of the values, the nearest below."""
    ranked = values.sort().values
    return tuple(float(ranked[int(share * (len(ranked) - 1))]) for share in QUANTILES)


def _noise_error(nats: Tensor, tokens: Tensor, whole: float) -> float:
    """The noise error from the spread of each sequence's own draws, at most the error `whole`.

    The draws are stratified, so the estimate is too large rather than too small.
    """
    rounds = len(nats)
    if rounds == 1:
        return math.nan
    error = float((nats.var(0) / rounds).sum().sqrt() / tokens.sum())
    return min(error, whole) if math.isfinite(whole) else error


def _levels(nats: Tensor, times: Tensor, tokens: Tensor) -> tuple[Level, ...]:
    """The integrand over each part of the times in which at least one token was read."""
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
