"""Evaluation: the bound on held-out text, with its standard error and how it was made."""

import math
from dataclasses import asdict, dataclass

import torch
from accelerate import Accelerator

from platform_core.data import TokenSplit, documents_of, labels_of
from platform_core.draws import Draws
from platform_core.errors import UsageError
from platform_core.guidance import given
from platform_core.objective import Objective, Protocol


@dataclass(frozen=True)
class Bound:
    """An upper bound on -log p of some text, per token.

    `standard_error` is that of `nats_per_token`, over sequences and their noise: how far a draw
    of as many sequences would be from this one.
    """

    nats_per_token: float
    standard_error: float
    tokens: int
    characters: int
    sequences: int

    @property
    def bits_per_token(self) -> float:
        """The bound in bits."""
        return self.nats_per_token / math.log(2)

    @property
    def bits_per_character(self) -> float:
        """Bits of all tokens, per character of the text."""
        return self.bits_per_token * self.tokens / self.characters

    @property
    def perplexity(self) -> float:
        """exp(nats per token)."""
        return math.exp(self.nats_per_token) if self.nats_per_token < 700 else math.inf

    def curves(self) -> dict[str, float]:
        """What is worth a curve, by name; `standard_error` is in nats per token."""
        return {
            "nats_per_token": self.nats_per_token,
            "standard_error": self.standard_error,
            "bits_per_token": self.bits_per_token,
            "bits_per_character": self.bits_per_character,
            "perplexity": self.perplexity,
        }

    def summary(self) -> dict[str, float]:
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
) -> Bound:
    """The bound of so many sequences, spread evenly (0: all), each at one of as many noise levels.

    The levels are stratified over the whole evaluation, so their order, not the batch size, decides
    which sequence gets which. Of labelled text it is the bound given the labels.

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
    nats = torch.zeros(number, dtype=torch.float64, device=accelerator.device)
    tokens = torch.zeros_like(nats)
    training = objective.training
    objective.eval()
    rank, world = accelerator.process_index, accelerator.num_processes
    for first in range(rank * batch_size, number, batch_size * world):
        rows = range(first, min(first + batch_size, number))
        x0, mask = (tensor.to(accelerator.device) for tensor in split.fetch(rows))
        draws = Draws.derive(
            seed, "evaluate", step=0, first=first, total=number, device=accelerator.device
        )
        facts = labels_of(split, rows), documents_of(split, rows)
        with accelerator.autocast(), given(objective, *facts):
            loss = objective.bound(x0, mask, draws, protocol)
        nats[first : first + len(rows)] = loss.per_token.double().sum(-1)
        tokens[first : first + len(rows)] = mask.sum(-1)
    objective.train(training)
    nats, tokens = accelerator.reduce(nats), accelerator.reduce(tokens)
    return bound_of(nats, tokens, characters)


def bound_of(nats: torch.Tensor, tokens: torch.Tensor, characters: int) -> Bound:
    """The bound of sequences of so many nats and tokens each."""
    number, total = len(nats), tokens.sum()
    mean = nats.sum() / total
    residuals = nats - mean * tokens
    spread = residuals.square().sum() * number / max(1, number - 1)
    return Bound(float(mean), float(spread.sqrt() / total), int(total), characters, number)
