"""Laws of samplers, tested with networks that predict exactly and with untrained networks."""

from collections.abc import Iterator

import torch
from torch import Tensor

from platform_core.draws import derive_generator
from platform_core.model import Model
from platform_core.process import Diffusion, Masking
from platform_core.sampler import Prompt, Sample, Sampler
from platform_core.testing.law import Figures, Inapplicable, Laws, require
from platform_core.testing.partners import Setting, settings
from platform_core.testing.subject import Subject
from platform_core.testing.toy import CausalNetwork, TinyNetwork, index_of, two_token_law
from platform_core.types import Tokens

LAWS = Laws("sampler")

STEPS, FEW = 128, 6
TEXTS = 20_000
DISTANCE = 0.02
"""Allowed total variation, from chance (0.008 for `TEXTS` sequences) and from the grid of steps."""
VOCABULARY, BATCH, LENGTH = 5, 8, 7


def make(subject: Subject, model: Model, steps: int) -> Sampler:
    """The sampler with a number of steps, if it has the option."""
    process = model.process
    sampler: Sampler = subject.make(
        options={"steps": steps},
        vocab_size=process.vocab_size,
        num_states=process.num_states,
        time_conditioned=process.time_conditioned,
    )
    return sampler


@torch.no_grad()
def texts(
    subject: Subject,
    setting: Setting,
    number: int = TEXTS,
    prompt: Prompt | None = None,
    steps: int = STEPS,
) -> tuple[Tokens, Tensor]:
    """Sequences drawn with exact predictions, and the table of their true probabilities."""
    law = two_token_law()
    model = setting.exact(law)
    sampler = make(subject, model, steps)
    drawn = sampler(model, (number, law.length), derive_generator("texts"), prompt)
    return drawn.tokens, law.probs


@LAWS.law(heavy=True)
def draws_the_data(subject: Subject) -> Figures:
    """With exact predictions, and 128 steps if the sampler has steps, samples have the distribution
    of the data.
    """
    said = []
    for setting in settings(subject):
        tokens, probs = texts(subject, setting)
        outside = int((tokens >= len(probs)).sum())
        require(outside == 0, f"{setting}: {outside} masks are left")
        shares = torch.bincount(index_of(tokens, len(probs)), minlength=probs.numel()) / TEXTS
        distance = float((shares - probs.flatten()).abs().sum() / 2)
        figures = f"{setting}: total variation {distance:.4f} (allowed: {DISTANCE:g})"
        require(distance <= DISTANCE, figures)
        said.append(figures)
    return "; ".join(said)


@LAWS.law(heavy=True)
def texts_are_independent(subject: Subject) -> Figures:
    """Neighbouring sequences of a batch are equal as often as independent draws are."""
    said = []
    for setting in settings(subject):
        tokens, probs = texts(subject, setting, steps=FEW)
        index = index_of(tokens, len(probs))
        pairs = index.view(-1, 2)
        same = float((pairs[:, 0] == pairs[:, 1]).double().mean())
        shares = torch.bincount(index, minlength=probs.numel()) / len(index)
        expected = float(shares.square().sum())
        error = (expected * (1 - expected) / len(pairs)) ** 0.5
        figures = f"{setting}: {same:.4f} of the pairs are equal, expected {expected:.4f}"
        require(abs(same - expected) <= 5 * error, f"{figures} +- {error:.4f}")
        said.append(figures)
    return "; ".join(said)


@LAWS.law(heavy=True)
def conditions_on_a_prompt(subject: Subject) -> Figures:
    """Given the first token as a prompt, the second token is drawn from its distribution given the
    first; only for processes under which prompts are exact.
    """
    said = []
    for setting in settings(subject):
        if issubclass(setting.process.kind, Diffusion) and not issubclass(
            setting.process.kind, Masking
        ):
            continue
        number = TEXTS // 2
        given = torch.tensor([[1, 0]]).expand(number, 2)
        fixed = torch.tensor([[True, False]]).expand(number, 2)
        tokens, probs = texts(subject, setting, number, Prompt(given, fixed))
        shares = torch.bincount(tokens[:, 1], minlength=len(probs)) / number
        expected = probs[1] / probs[1].sum()
        distance = float((shares - expected).abs().sum() / 2)
        figures = f"{setting}: total variation {distance:.4f} (allowed: {2 * DISTANCE:g})"
        require(distance <= 2 * DISTANCE, figures)
        said.append(figures)
    if not said:
        raise Inapplicable("under the noise of these processes, prompts are an approximation")
    return "; ".join(said)


def trials(
    subject: Subject,
) -> Iterator[tuple[Setting, Sampler, Model, TinyNetwork | CausalNetwork]]:
    """Yield the sampler with few steps, and an untrained network whose logits prefer masks."""
    for setting in settings(subject):
        model, network = setting.tiny(VOCABULARY)
        with torch.no_grad():
            network.head.bias[VOCABULARY:] += 3
        yield setting, make(subject, model, FEW), model, network


@torch.no_grad()
def sample(
    sampler: Sampler, model: Model, seed: int = 0, prompt: Prompt | None = None, batch: int = BATCH
) -> Sample:
    """Draw a batch of sequences with a seeded generator."""
    return sampler(model, (batch, LENGTH), derive_generator("sample", seed), prompt)


@LAWS.law()
def tokens_of_the_vocabulary(subject: Subject) -> Figures:
    """Samples are ids of the vocabulary, of the shape that was asked for, and no mask is left."""
    for setting, sampler, model, _ in trials(subject):
        tokens = sample(sampler, model).tokens
        figures = (
            f"{setting}: {tokens.dtype} {tuple(tokens.shape)}, {tokens.min()} to {tokens.max()}"
        )
        require(tokens.shape == (BATCH, LENGTH) and tokens.dtype == torch.long, figures)
        require(0 <= int(tokens.min()) <= int(tokens.max()) < VOCABULARY, figures)
    return None


@LAWS.law()
def same_seed_same_sample(subject: Subject) -> Figures:
    """Samples depend only on the generator and the model, not on other draws or earlier samples."""
    for setting, sampler, model, _ in trials(subject):
        torch.manual_seed(1)
        first, other = sample(sampler, model, 0).tokens, sample(sampler, model, 1).tokens
        torch.manual_seed(2)
        again = sample(sampler, model, 0).tokens
        require(torch.equal(first, again), f"{setting}: one generator, two samples")
        require(not torch.equal(first, other), f"{setting}: two generators, one sample")
    return None


@LAWS.law()
def keeps_the_prompt(subject: Subject) -> Figures:
    """Given tokens stay in their places, and all other tokens are drawn."""
    for setting, sampler, model, _ in trials(subject):
        generator = derive_generator("prompt")
        tokens = torch.randint(VOCABULARY, (BATCH, LENGTH), generator=generator)
        fixed = torch.rand((BATCH, LENGTH), generator=generator) < 0.4
        if not sampler.fills_blanks:
            fixed = torch.arange(LENGTH) < torch.arange(BATCH)[:, None].clamp_max(LENGTH - 2)
        before = tokens.clone(), fixed.clone()
        found = sample(sampler, model, prompt=Prompt(tokens, fixed)).tokens
        moved = int((found != tokens)[fixed].sum())
        require(moved == 0, f"{setting}: {moved} of {int(fixed.sum())} given tokens are changed")
        require(bool((found != tokens)[~fixed].any()), f"{setting}: nothing else is drawn")
        require(0 <= int(found.min()) <= int(found.max()) < VOCABULARY, f"{setting}: masks left")
        same = torch.equal(tokens, before[0]) and torch.equal(fixed, before[1])
        require(same, f"{setting}: the prompt itself is changed")
    return None


@LAWS.law()
def counts_evaluations(subject: Subject) -> Figures:
    """For a batch of one sequence, nfe is the number of calls of the network."""
    said = []
    for setting, sampler, model, network in trials(subject):
        network.calls = 0
        drawn = sample(sampler, model, batch=1)
        figures = f"{setting}: nfe {drawn.nfe}, {network.calls} calls"
        require(drawn.nfe == network.calls > 0, figures)
        said.append(figures)
    return "; ".join(said)
