"""How often the error bars of a bound cover the truth: `python experiments/error_bars.py`.

Texts are drawn from a law that the network knows exactly, so that the bound of each is its -log p
and the truth is known. Of 200 seeds it prints the share in which the truth lies within 1.96 errors:

    noise   the same texts with other noise, by `noise_error`, around their own mean -log p
    whole   other texts with other noise, by `standard_error`, around the entropy of the law

95 % are meant; of 200 seeds, 92 to 98 % is no surprise. The texts are short, so that the integrand
of the bound has heavy tails: at low noise it is mostly 0, and rarely large.
"""

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from platform_core.evaluation.bound import noise_error, ratio
from platform_core.objective import Nelbo
from platform_core.process import Absorbing, Interpolating, Uniform
from platform_core.testing.objective import AtOnce
from platform_core.testing.toy import ToyLaw, exact_model, random_law
from platform_core.types import Batch, Noise

LENGTH, TOKENS, WIDE = 4, 3, 1.96
AT_ONCE = 2**15


@dataclass
class Times(AtOnce):
    """Draws of many evaluations at once, whose times are given."""

    given: Noise = torch.zeros(0, 1)

    def times(self, batch: int, t_min: float = 0.0) -> Noise:
        """Those that are given."""
        return self.given


def stratified(seeds: int, rounds: int, number: int) -> Noise:
    """Times of as many evaluations, `[seeds, rounds, number]`, as `Draws.times` makes them, in the
    order of the intervals.
    """
    total, generator = rounds * number, torch.Generator().manual_seed(5)
    shift = torch.randint(total, (seeds, 1), generator=generator)
    interval = (torch.arange(total) + shift) % total
    within = torch.rand((seeds, total), generator=generator, dtype=torch.float64)
    return ((interval + within) / total).view(seeds, rounds, number)


@torch.no_grad()
def evaluated(
    law: ToyLaw, process: type[Interpolating], x0: Tensor, rounds: int
) -> tuple[Tensor, Tensor]:
    """Nats of texts `[seeds, number, length]` at as many noise levels, `[seeds, rounds, number]`,
    and these levels.

    The network of the law is exact.
    """
    objective = Nelbo(exact_model(law, process))
    seeds, number, _ = x0.shape
    times = stratified(seeds, rounds, number)
    texts = x0[:, None].expand(-1, rounds, -1, -1).reshape(-1, LENGTH)
    nats = []
    parts = zip(texts.split(AT_ONCE), times.reshape(-1, 1).split(AT_ONCE), strict=True)
    for place, (text, t) in enumerate(parts):
        draws = Times(place, 0, 0, 1, 0, torch.device("cpu"), given=t)
        loss = objective.bound(Batch(text, torch.ones_like(text, dtype=torch.bool)), draws)
        nats.append(loss.per_token.double().sum(-1))
    return torch.cat(nats).view(seeds, rounds, number), times


def drawn(law: ToyLaw, shape: tuple[int, int]) -> Tensor:
    """Texts of a law, `[*shape, length]`."""
    generator = torch.Generator().manual_seed(3)
    probs = law.probs.flatten()
    chosen = torch.multinomial(probs, math.prod(shape), replacement=True, generator=generator)
    return law.sequences()[chosen].view(*shape, LENGTH)


def share(found: Sequence[tuple[float, float]]) -> str:
    """The share of evaluations, each off by so much with such an error, whose error bar covers."""
    if not all(math.isfinite(error) for _, error in found):
        return "unknown"
    return f"{sum(abs(off) <= WIDE * error for off, error in found) / len(found):.3f}"


def one_case(process: type[Interpolating], number: int, rounds: int, seeds: int) -> tuple[str, str]:
    """Coverage of the error from noise and of the whole error."""
    law = random_law(TOKENS, LENGTH, seed=1)
    tokens = torch.full((number,), float(LENGTH), dtype=torch.float64)
    own = drawn(law, (1, number)).expand(seeds, -1, -1)
    truth = -float(law.log_prob(own[0]).mean()) / LENGTH
    entropy = -float((law.probs * law.probs.log()).sum()) / LENGTH
    noise, whole = [], []
    for nats, times in zip(*evaluated(law, process, own, rounds), strict=True):
        off = float(nats.mean(0).sum() / tokens.sum()) - truth
        noise.append((off, noise_error(nats, times, tokens)))
    others = drawn(law, (seeds, number))
    for nats, times in zip(*evaluated(law, process, others, rounds), strict=True):
        mean, error = ratio(nats.mean(0), tokens)
        from_noise = noise_error(nats, times, tokens)
        whole.append((mean - entropy, from_noise if from_noise > error else error))
    return share(noise), share(whole)


def cases() -> Iterator[tuple[type[Interpolating], int, int]]:
    """Process, number of texts, noise levels of each."""
    for process in (Absorbing, Uniform):
        for number in (10, 50, 400):
            for rounds in (1, 2, 4, 8, 32):
                if number * rounds <= 3200:
                    yield process, number, rounds


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description="How often error bars of a bound cover the truth.")
    parser.add_argument("--seeds", type=int, default=200, help="evaluations of each case")
    seeds = parser.parse_args().seeds
    torch.set_num_threads(1)
    print(f"{seeds} seeds, texts of {LENGTH} tokens; 95 % is meant")
    print("process    texts  draws     noise   whole")
    for process, number, rounds in cases():
        noise, whole = one_case(process, number, rounds, seeds)
        print(f"{process.__name__:<10} {number:5} {rounds:6}   {noise:>7}   {whole}", flush=True)


if __name__ == "__main__":
    main()
